"""Recorders: write the numbers of a run. The loop passes them chunks; nothing else in the testbed writes tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from pyarrow import compute

from plasticity.engine.program import NEVER
from plasticity.engine.runner import Chunk, TaskNames
from plasticity.runs.accounts import EVALUATIONS, LANES, METRICS, PART, from_footer, note, to_footer
from plasticity.runs.checksums import digest, read_table, table_bytes
from plasticity.runs.files import write_atomically

COUNTS = ("update", "episodes")  # integers
# The columns that identify lane and time, in metrics and evaluations.
IDENTITY = ("arm", "lane", "seed", "step", "frames", "visit", "task", "step_in_visit")


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table with checksums, so that readers can detect damage (:mod:`plasticity.runs.checksums`)."""
    raw = table_bytes(table)
    write_atomically(path, lambda temporary: temporary.write_bytes(raw))


def write_tables(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write the rows of all tables to one file, with null where a table lacks a column."""
    write_parquet(path, pa.concat_tables(tables, promote_options="default"))


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

    @property
    def files(self) -> dict[str, list[int]]:
        """Length and CRC-32 of every part of the tables, by its path within the arm's folder."""
        return dict(getattr(self.tables, "files", {}))

    def add(self, chunk: Chunk) -> None:
        for each in (self.tables, *self.others):
            each.add(chunk)

    def flush(self) -> int:
        for each in self.others:
            each.flush()
        return self.tables.flush()

    def close(self) -> None:
        for each in (self.tables, *self.others):
            each.close()


class Lanes(NamedTuple):
    """The lanes that numbers belong to."""

    arm: str
    numbers: np.ndarray
    seeds: np.ndarray
    frames_per_step: int  # of all envs of a lane together


def _identity(chunk: Chunk, lanes: Lanes) -> dict[str, Any]:
    """The columns that identify lane and time."""
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
        "visit": same(visit, pa.int32()),
        "task": _tasks(chunk.task, count),
        "step_in_visit": same(step_in_visit, pa.int64()),
    }


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
    row exactly once. ``lanes``: the columns of ``lanes.parquet`` for this program's lanes; the rows of the arm's other
    programs are unchanged. ``frames_per_step``: over all envs of a lane. ``diverged_at``: int[lanes], for each lane so
    far; default: none has diverged. ``parts``: number of this program's parts that are kept.
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
    ) -> None:
        self.folder, self.arm, self.program, self.parts = folder, arm, program, 0
        self.lanes, self.files = dict(lanes), dict[str, list[int]]()
        self._numbers = np.asarray(lanes["lane"])
        self._who = Lanes(arm, self._numbers, np.asarray(lanes["seed"]), frames_per_step)
        self._waiting: dict[str, list[pa.Table]] = {METRICS: [], EVALUATIONS: []}
        self._diverged = np.full(len(self._numbers), NEVER) if diverged_at is None else diverged_at
        (folder / METRICS).mkdir(parents=True, exist_ok=True)
        self._others = self._rows_of_other_programs()
        self._notes = {} if self._others is None else from_footer(self._others.schema.metadata)
        there = {f"{EVALUATIONS}/{path.name}" for path in (folder / EVALUATIONS).glob("part-*")}
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

    def cut_back(self, parts: int) -> None:
        """Remove every part of this program from number ``parts`` on. Earlier parts are known to be intact."""
        self.parts, self.files, later = parts, {}, []
        for table in self._waiting:
            kept = {self._part(number, table) for number in range(parts)}
            for path in sorted((self.folder / table).glob(f"part-{self.program:03d}-*")):
                if path in kept:
                    self._enter(path)
                else:
                    later.append(path)
        if self._note() != self._notes[self.program]:
            self._write_lanes(self._note())
        for path in later:
            path.unlink()

    def _note(self) -> str:
        return note(self.program, self.parts, self.files)

    def _enter(self, path: Path) -> None:
        self.files[path.relative_to(self.folder).as_posix()] = digest(path)

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

    def close(self) -> None:
        """Discard the buffered rows: they belong to no checkpoint, so a resumed run produces them again."""

    def _write_part(self, table: str) -> None:
        waiting, self._waiting[table] = self._waiting[table], []
        if waiting:
            path = self._part(self.parts, table)
            path.parent.mkdir(exist_ok=True)
            write_parquet(path, pa.concat_tables(waiting, promote_options="default"))
            self._enter(path)
