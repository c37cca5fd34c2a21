"""Recorders: write the numbers of a run. The loop passes them chunks; nothing else in the testbed writes tables."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from pyarrow import compute

from plasticity.engine.flops import Flops
from plasticity.engine.program import NEVER
from plasticity.engine.runner import Chunk, TaskNames
from plasticity.runs.accounts import EVALUATIONS, LANES, MERGED, METRICS, PART, from_footer, note, to_footer
from plasticity.runs.checksums import DamagedError, digest, read_table, table_bytes
from plasticity.runs.files import write_atomically

TABLES = (METRICS, EVALUATIONS)
COUNTS = ("update", "episodes")  # integers
MERGED_BYTES = 1 << 27  # larger tables keep their parts
# The columns that identify lane and time, in metrics and evaluations.
IDENTITY = ("arm", "lane", "seed", "step", "frames", "flops", "visit", "task", "step_in_visit")


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table with checksums, so that readers can detect damage (:mod:`plasticity.runs.checksums`)."""
    raw = table_bytes(table)
    write_atomically(path, lambda temporary: temporary.write_bytes(raw))


def write_tables(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write the rows of all tables to one file, with null where a table lacks a column."""
    write_parquet(path, pa.concat_tables(tables, promote_options="default"))


def to_bytes(table: pa.Table) -> np.ndarray:
    """A table as uint8[bytes]."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), np.uint8)


def from_bytes(raw: np.ndarray) -> pa.Table:
    """Inverse of :func:`to_bytes`."""
    return pa.ipc.open_stream(pa.py_buffer(raw)).read_all()


class Recorder(Protocol):
    """Consumes chunks; ``flush`` makes everything so far durable and returns the number of parts."""

    def add(self, chunk: Chunk) -> None: ...

    def flush(self) -> int: ...

    def close(self) -> None: ...


class ListRecorder:
    """Keeps the chunks in memory, for tests and notebooks."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def add(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def flush(self) -> int:
        return len(self.chunks)

    def close(self) -> None: ...


class RecorderGroup:
    """A program's tables and further recorders; the number of parts is that of the tables."""

    def __init__(self, tables: Recorder, *others: Recorder) -> None:
        self.tables, self.others = tables, others

    def add(self, chunk: Chunk) -> None:
        for each in (self.tables, *self.others):
            each.add(chunk)

    def flush(self) -> int:
        self.flush_others()
        return self.tables.flush()

    def flush_others(self) -> None:
        for each in self.others:
            each.flush()

    def close(self) -> None:
        for each in (self.tables, *self.others):
            each.close()


class Lanes(NamedTuple):
    """The lanes that numbers belong to."""

    arm: str
    numbers: np.ndarray
    seeds: np.ndarray
    frames_per_step: int  # of all envs of a lane together
    flops: Flops | None = None  # of one lane; None: no such column


def _identity(chunk: Chunk, lanes: Lanes) -> dict[str, Any]:
    """The columns that identify lane and time; without ``flops`` if they are not counted."""
    count = len(lanes.numbers)
    visit, step_in_visit, step = chunk.position

    def same(value: Any, kind: pa.DataType) -> pa.Array:
        return pa.array([value] * count, kind)

    return {
        "arm": same(lanes.arm, pa.string()),
        "lane": pa.array(lanes.numbers, pa.int32()),
        "seed": pa.array(lanes.seeds, pa.int32()),
        "step": same(step, pa.int64()),
        "frames": same(step * lanes.frames_per_step, pa.int64()),
        **_flops(chunk, lanes),
        "visit": same(visit, pa.int32()),
        "task": _tasks(chunk.task, count),
        "step_in_visit": same(step_in_visit, pa.int64()),
    }


def _flops(chunk: Chunk, lanes: Lanes) -> dict[str, Any]:
    if lanes.flops is None or lanes.flops.why:
        return {}
    return {"flops": pa.array(lanes.flops.spent(chunk.position.step, chunk.metrics["update"]), pa.float64())}


def _tasks(names: TaskNames, count: int) -> pa.Array:
    return pa.array([names] * count if isinstance(names, str) else names, pa.string())


def _numbers(metrics: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Metrics as columns; a non-finite number becomes null."""
    kinds = {name: pa.int64() if name in COUNTS else pa.float32() for name in metrics}
    return {name: pa.array(values, mask=~np.isfinite(values)).cast(kinds[name]) for name, values in metrics.items()}


def rows(chunk: Chunk, lanes: Lanes) -> pa.Table:
    """One chunk as a table, one row per lane."""
    return pa.table(_identity(chunk, lanes) | _numbers(chunk.metrics))


def evaluation_rows(chunk: Chunk, lanes: Lanes) -> list[pa.Table]:
    """The chunk's evaluations: one row for each lane and evaluated task."""
    count = len(lanes.numbers)
    return [
        pa.table(
            _identity(chunk, lanes)
            | {
                "evaluated_visit": pa.array([each.visit] * count, pa.int32()),
                "evaluated_task": _tasks(each.task, count),
            }
            | _numbers(each.metrics)
        )
        for each in chunk.evaluations
    ]


def lanes_table(lanes: Mapping[str, Sequence[Any]], diverged_at: np.ndarray, others: pa.Table | None) -> pa.Table:
    """The rows of ``lanes.parquet``: those of a program's lanes, merged with those of the arm's other programs."""
    known = pa.array(diverged_at, pa.int64(), mask=diverged_at == NEVER)
    table = pa.table(dict(lanes)).append_column("diverged_at", known)
    if others is None or not others.num_rows:
        return table
    return pa.concat_tables([others, table], promote_options="permissive").sort_by("lane")


class ParquetRecorder:
    """Appends one program's Parquet parts to an arm's folder and updates the arm's table of lanes.

    ``cut_back`` removes parts that a killed run wrote after its last checkpoint, so that a resumed run records every
    row exactly once. ``waiting`` gives the rows that are in no part, for a checkpoint, and ``restore`` takes them back.
    ``merge`` writes all parts as one, and ``saved`` removes them once no checkpoint needs them. ``files``: length and
    CRC-32 of every part, by its path within the arm's folder. ``lanes``: the columns of ``lanes.parquet`` for this
    program's lanes; the rows of the arm's other programs are unchanged. ``frames_per_step``: over all envs of a lane.
    ``diverged_at``: int[lanes], for each lane so far; default: none has diverged. ``parts``: number of this program's
    parts that are kept. ``flops``: of one lane.
    """

    def __init__(
        self,
        folder: Path,
        arm: str,
        program: int,
        lanes: Mapping[str, Sequence[Any]],
        frames_per_step: int,
        diverged_at: np.ndarray | None = None,
        parts: int = 0,
        flops: Flops | None = None,
    ) -> None:
        self.folder, self.arm, self.program, self.parts = folder, arm, program, 0
        self.lanes, self.files = dict(lanes), dict[str, list[int]]()
        self._numbers = np.asarray(lanes["lane"])
        self._who = Lanes(arm, self._numbers, np.asarray(lanes["seed"]), frames_per_step, flops)
        self._waiting: dict[str, list[pa.Table]] = {table: [] for table in TABLES}
        self._saved, self._old = set[str](), set[str]()  # files of the last checkpoint, and those that are merged
        self._diverged = np.full(len(self._numbers), NEVER) if diverged_at is None else diverged_at
        (folder / METRICS).mkdir(parents=True, exist_ok=True)
        self._others = self._rows_of_other_programs()
        self._notes = {} if self._others is None else from_footer(self._others.schema.metadata)
        there = {f"{name}/{path.name}" for name in TABLES for path in (folder / name).glob("part-*")}
        self._write_lanes(note(program, parts, there))

    @property
    def _lanes_file(self) -> Path:
        return self.folder / LANES

    def _rows_of_other_programs(self) -> pa.Table | None:
        if not self._lanes_file.exists():
            return None
        table = read_table(self._lanes_file)
        mine = compute.is_in(table["lane"], value_set=pa.array(self._numbers, table["lane"].type))
        return table.filter(compute.invert(mine))

    def _write_lanes(self, parts: str) -> None:
        """Write the table of lanes. ``parts``: this program's note; those of the arm's other programs are unchanged."""
        self._notes[self.program] = parts
        table = lanes_table(self.lanes, self._diverged, self._others)
        write_parquet(self._lanes_file, table.replace_schema_metadata(to_footer(self._notes)))

    def cut_back(self, parts: int, files: Collection[str] | None = None, kept: Collection[str] = ()) -> None:
        """Remove every part of this program after the first ``parts``, which are known to be intact.

        ``files``: the paths of these; None: one file for each. ``kept``: those that another checkpoint needs.
        """
        self.parts, self.files = parts, {}
        if files is None:
            files = [self._name(self._part(k, table)) for table in TABLES for k in range(parts)]
        for name in (name for table in TABLES for name in sorted(files) if name.startswith(table)):
            if (self.folder / name).exists():
                self._enter(self.folder / name)
        if self._note() != self._notes[self.program]:
            self._write_lanes(self._note())
        self._saved, self._old = {*self.files}, {*kept} - {*self.files}
        for path in (path for table in TABLES for path in sorted(self._there(table))):
            if self._name(path) not in self._saved | self._old:
                path.unlink()

    def _there(self, table: str) -> Iterable[Path]:
        return (self.folder / table).glob(f"part-{self.program:03d}-*")

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _note(self) -> str:
        return note(self.program, self.parts, self.files)

    def _enter(self, path: Path) -> None:
        self.files[self._name(path)] = digest(path)

    def _part(self, number: int, table: str = METRICS) -> Path:
        return self.folder / table / PART.format(self.program, number)

    def add(self, chunk: Chunk) -> None:
        self._waiting[METRICS].append(rows(chunk, self._who))
        self._waiting[EVALUATIONS] += evaluation_rows(chunk, self._who)
        self._diverged = chunk.diverged_at

    def flush(self) -> int:
        """Write the buffered rows as one part. Returns the number of parts."""
        if self._waiting[METRICS]:
            for table in (EVALUATIONS, METRICS):
                self._write_part(table)
            self.parts += 1
        self._write_lanes(self._note())
        return self.parts

    @property
    def pieces(self) -> int:
        """The number of files of the metrics."""
        return sum(name.startswith(METRICS) for name in self.files)

    @property
    def rows(self) -> int:
        """The number of rows of the metrics that are in no part."""
        return sum(table.num_rows for table in self._waiting[METRICS])

    def waiting(self) -> dict[str, np.ndarray]:
        """The rows of each table that are in no part, as bytes."""
        for table, rows in self._waiting.items():
            if len(rows) > 1:
                self._waiting[table] = [pa.concat_tables(rows, promote_options="default").combine_chunks()]
        return {table: to_bytes(rows[0]) for table, rows in self._waiting.items() if rows}

    def restore(self, rows: Mapping[str, np.ndarray]) -> None:
        """Take back what :meth:`waiting` gave."""
        self._waiting = {table: [from_bytes(rows[table])] if table in rows else [] for table in TABLES}

    def merge(self) -> None:
        """Write all parts as one, unless they are large, damaged or missing. They stay until :meth:`saved`."""
        if sum(length for length, _ in self.files.values()) > MERGED_BYTES:
            return
        groups = {table: [name for name in self.files if name.startswith(table)] for table in TABLES}
        try:
            tables = {table: [read_table(self.folder / name) for name in names] for table, names in groups.items()}
        except (DamagedError, OSError):  # a reader will name it
            return
        self._old |= self.files.keys()
        self.files = {}
        for table, parts in tables.items():
            if parts:
                path = self.folder / table / MERGED.format(self.program, self.parts - 1)
                write_parquet(path, pa.concat_tables(parts, promote_options="permissive"))
                self._enter(path)
        self._write_lanes(self._note())

    def saved(self, last: bool) -> None:
        """A checkpoint names ``files``: remove merged parts that neither it nor the one before needs.

        ``last``: the program is finished, and what its last checkpoint does not need goes.
        """
        gone = self._old - self.files.keys() - (set() if last else self._saved)
        for name in sorted(gone):
            (self.folder / name).unlink(missing_ok=True)
        self._old, self._saved = self._old - gone, {*self.files}

    def close(self) -> None:
        """Discard the buffered rows: they belong to no checkpoint, so a resumed run produces them again."""

    def _write_part(self, table: str) -> None:
        waiting, self._waiting[table] = self._waiting[table], []
        if waiting:
            path = self._part(self.parts, table)
            path.parent.mkdir(exist_ok=True)
            write_parquet(path, pa.concat_tables(waiting, promote_options="default"))
            self._enter(path)
