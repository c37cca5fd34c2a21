"""The files of a run's tables, read into memory: the table of lanes, the parts of the metrics and evaluations."""

import contextlib
import functools
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from plasticity.runs.accounts import (
    LANES,
    LISTINGS,
    METRICS,
    MISSING,
    PLAN,
    Part,
    has_started,
    parts_of_arms,
    table_parts,
)
from plasticity.runs.checksums import DamagedError, read_table

BOOKKEEPING = ("lane", "seed", "program", "diverged_at")
NAMES = ("arm", "task", "evaluated_task")  # text columns with few distinct values
KEPT_TABLES = 1 << 15  # tables of lanes that are kept in memory, each of a few kB
Versions = tuple[tuple[str, int, int], ...]  # path, time of change, size


def leave_out(path: Path, why: str) -> None:
    """Warn that a file is left out."""
    warnings.warn(f"{path} is unreadable ({why}); its contents are left out", UserWarning, stacklevel=3)


def lanes_of(places: Sequence[Part]) -> pd.DataFrame:
    """The lanes of an arm. Without this table its rows cannot be assigned to lanes and are left out."""
    groups: dict[pa.Schema, list[pa.Table]] = {}
    for place in places:
        table = _lanes_in(place.folder)
        if table is not None:
            groups.setdefault(table.schema, []).append(table)
    found = [_lanes(pa.concat_tables(group)) for group in groups.values()]
    present = [table for table in found if not table.empty]
    table = pd.concat(present, ignore_index=True) if len(present) > 1 else (present or [pd.DataFrame()])[0]
    return table.sort_values("lane", ignore_index=True) if len(places) > 1 and len(table) else table


def _lanes_in(folder: Path) -> pa.Table | None:
    """The table of lanes in a folder; None if there is none or it is damaged, with a warning unless it is to come."""
    path = folder / LANES
    try:
        facts = os.stat(path)
        found = _lanes_table(str(path), facts.st_mtime_ns, facts.st_size)
    except (FileNotFoundError, NotADirectoryError):
        if has_started(folder):
            leave_out(path, MISSING)
        return None
    except (DamagedError, OSError) as error:
        leave_out(path, str(error))
        return None
    if not {"lane", "seed"} <= set(found.column_names):
        leave_out(path, "it lacks the columns lane and seed")
        return None
    return found


@functools.lru_cache(maxsize=KEPT_TABLES)
def _lanes_table(path: str, changed: int, size: int) -> pa.Table:
    """``changed`` and ``size`` identify the file's version, so that the table of a run in progress is read again."""
    del changed, size
    return read_table(Path(path), None, NAMES).replace_schema_metadata()


def _lanes(found: pa.Table) -> pd.DataFrame:
    table = found.to_pandas()
    # A swept list (such as widths) must be hashable to identify a point.
    for column in table.columns.difference(list(BOOKKEEPING)):
        table[column] = table[column].map(lambda value: str(np.asarray(value).tolist()) if np.ndim(value) else value)
    if "diverged_at" in table:
        table["diverged_at"] = table["diverged_at"].astype("Int64")
    return table


def rows_of(places: Sequence[Part], folder: str, wanted: Collection[str] | None) -> pa.Table | None:
    """The rows of an arm from ``folder``, with the columns ``wanted`` (None: all); None if there are none."""
    parts = [part for place in places for part in _parts_in(place.folder, folder, wanted)]
    return pa.concat_tables(parts, promote_options="permissive") if parts else None


def _parts_in(arm: Path, folder: str, wanted: Collection[str] | None) -> list[pa.Table]:
    """The parts in a folder that have rows; damaged ones are left out with a warning."""
    for left in reversed(range(LISTINGS)):
        with contextlib.suppress(FileNotFoundError):  # the run has merged its parts meanwhile
            read = (_part(path, wanted, left) for path in table_parts(arm, leave_out, folder))
            return [part for part in read if part.num_rows]
    return []


def _part(path: Path, wanted: Collection[str] | None, left: int) -> pa.Table:
    """A part; no rows if it is damaged. ``FileNotFoundError`` if it has gone and listings are ``left``."""
    try:
        return read_table(path, wanted, NAMES)
    except (DamagedError, OSError) as error:
        if isinstance(error, FileNotFoundError) and left:
            raise
        leave_out(path, str(error))
        return pa.table({})


def versions_of(run: Path, plan: Mapping[str, Any]) -> Versions:
    """The versions of the plan and of the tables of metrics and lanes, which tell whether a run has changed."""
    found = [(str(run / PLAN), *_version(os.stat(run / PLAN)))]
    for places in parts_of_arms(run, plan).values():
        for place in places:
            found += _versions_in(place.folder)
    return tuple(found)


def _versions_in(arm: Path) -> Iterator[tuple[str, int, int]]:
    for folder in (arm, arm / METRICS):
        for entry in sorted(_files(folder), key=lambda entry: entry.name):
            try:
                yield entry.path, *_version(entry.stat())
            except FileNotFoundError:
                continue


def _files(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name.endswith(".parquet")]
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _version(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_mtime_ns, facts.st_size
