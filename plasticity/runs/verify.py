"""Check that the tables of a run are intact before it resumes, so that no rows are lost or damaged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from plasticity.engine.lanes import join
from plasticity.engine.program import NEVER
from plasticity.runs import checkpoint
from plasticity.runs.accounts import LANES, PART, is_merged, note, to_footer, unmerged
from plasticity.runs.accounts import table_parts as parts_of_arm
from plasticity.runs.checksums import DamagedError, digest, is_list, is_whole, read_table
from plasticity.runs.parquet import EVALUATIONS, METRICS, lanes_table, write_parquet


def table_parts(folder: Path, program: int, table: str = METRICS) -> list[Path]:
    """The parts of a program in an arm's folder, in order, without those whose rows a merged one holds."""
    return unmerged((folder / table).glob(f"part-{program:03d}-*.parquet"))


def fault(folder: Path, program: int, meta: Mapping[str, Any]) -> str | None:
    """What is wrong with the tables of a checkpoint, naming the file; None if they are intact.

    Compares with length and CRC-32 in ``meta["files"]``. A checkpoint of an older version has none; its parts must then
    exist and be readable.
    """
    if "files" not in meta:
        there = [path for path in table_parts(folder, program) if last_of(path) < meta["parts"]]
        merged = [path for path in there if is_merged(path)]
        first = last_of(merged[0]) + 1 if merged else 0
        later = [folder / METRICS / PART.format(program, number) for number in range(first, meta["parts"])]
        wanted = [*merged, *later]
        kept = [path for path in table_parts(folder, program, EVALUATIONS) if last_of(path) < meta["parts"]]
        return next(filter(None, map(_unreadable, [*wanted, *kept])), None)
    for name, expected in meta["files"].items():
        path = folder / name
        if not is_list(expected, is_whole):
            return f"{path}: the checkpoint does not record its contents"
        try:
            found = digest(path)
        except OSError:
            return f"{path} is missing"
        if found != expected:
            length = "" if found[0] == expected[0] else f": {found[0]} bytes instead of {expected[0]}"
            return f"{path} is damaged{length or ': its checksum is wrong'}"
    return None


def last_of(path: Path) -> int:
    """The number of a part, or of the last of those that it holds."""
    return int(path.stem.rpartition("-")[2])


def _unreadable(path: Path) -> str | None:
    if not path.exists():
        return f"{path} is missing"
    try:
        read_table(path)
    except (OSError, DamagedError) as error:
        return f"{path} is damaged: {error}"
    return None


def unfinished(folder: Path, program: int, steps: int, rows: int) -> str | None:
    """Why a program marked as finished is not; None if its tables are intact and complete.

    Args:
        folder: folder of the arm.
        program: the program's number.
        steps: env steps of the whole program.
        rows: number of rows of its metrics when finished; used if no checkpoint of the end is left.
    """
    last = checkpoint.files(folder / "checkpoints" / f"{program:03d}")[-1:]
    try:
        meta = checkpoint.about(last[0]) if last else {}
    except DamagedError:
        meta = {}
    if meta.get("position", [0])[-1] == steps and "files" in meta:
        return fault(folder, program, meta)
    parts = table_parts(folder, program)
    known = {"parts": last_of(parts[-1]) + 1 if parts else 0}
    damaged = fault(folder, program, known)
    if damaged is None:
        found = sum(read_table(path, ["step"]).num_rows for path in parts)
        damaged = None if found == rows else f"{folder / METRICS} holds {found} of {rows} rows of program {program}"
    return damaged or _missing_evaluations(folder, program)


def _missing_evaluations(folder: Path, program: int) -> str | None:
    missing: list[Path] = []
    parts_of_arm(folder, lambda path, why: missing.append(path), EVALUATIONS)
    mine = [path for path in missing if path.name.startswith(f"part-{program:03d}-")]
    return f"{mine[0]} is missing" if mine else None


def repair_lanes(folder: Path, programs: Mapping[int, Mapping[str, Sequence[Any]]]) -> str | None:
    """Rewrite ``lanes.parquet`` if it is damaged or lacks the lanes of a program that has started.

    ``programs``: number -> columns of ``lanes.parquet`` of each program of the arm. The step at which a lane diverged
    is taken from the program's newest checkpoint. Returns a line that reports it; None if nothing had to be done.
    """
    path = folder / LANES
    started = [number for number in programs if _has_started(folder, number)]
    if not started:
        if path.exists():
            path.unlink()  # the first program writes it
        return None
    wanted = sorted(lane for number in started for lane in programs[number]["lane"])
    try:
        there = read_table(path, ["lane"])["lane"].to_pylist()
        if set(wanted) <= set(there):
            return None
        why = "lacks lanes"
    except (OSError, DamagedError, KeyError) as error:
        why = f"is damaged ({error})" if path.exists() else "is missing"
    table, unknown = pa.table({}), []
    for number in started:
        ended = _diverged_at(folder, number, len(programs[number]["lane"]))
        unknown += [] if ended is not None else [str(number)]
        ended = np.full(len(programs[number]["lane"]), NEVER) if ended is None else ended
        table = lanes_table(programs[number], ended, table)
    notes = {number: _note(folder, number) for number in started}
    write_parquet(path, table.replace_schema_metadata(to_footer(notes)))
    lost = f"; where lanes of program {', '.join(unknown)} diverged is no longer known" if unknown else ""
    return f"{path} {why}; rebuilt from the config and the checkpoints{lost}"


def _has_started(folder: Path, program: int) -> bool:
    return bool(table_parts(folder, program) or checkpoint.files(folder / "checkpoints" / f"{program:03d}"))


def _note(folder: Path, program: int) -> str:
    """The parts of a program: those of its newest intact checkpoint, or, without one, those that exist."""
    for path in reversed(checkpoint.files(folder / "checkpoints" / f"{program:03d}")):
        try:
            meta = checkpoint.about(path)
        except DamagedError:
            continue
        if "files" in meta:
            return note(program, meta["parts"], meta["files"])
    parts = table_parts(folder, program)
    there = [f"{path.parent.name}/{path.name}" for path in (*parts, *table_parts(folder, program, EVALUATIONS))]
    return note(program, last_of(parts[-1]) + 1 if parts else 0, there)


def _diverged_at(folder: Path, program: int, lanes: int) -> np.ndarray | None:
    """int[lanes] of the newest intact checkpoint; None if there is none."""
    for path in reversed(checkpoint.files(folder / "checkpoints" / f"{program:03d}")):
        try:
            return join(checkpoint.of_groups(path, "diverged_at"), lanes)
        except DamagedError:
            continue
    return None
