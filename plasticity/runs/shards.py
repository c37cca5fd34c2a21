"""Cut a run into shards: groups of lanes that run by themselves, on any machine, and are read as one run.

Lanes do not depend on each other, so a shard's lanes are the same, value for value, as in the whole run with the same
width of vectorisation. The width of every program is therefore fixed when a run is cut, and not by the machine that
runs a shard.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from plasticity.config.programs import ProgramSettings
from plasticity.core.errors import UserError, shown

WAYS = ("arms", "points", "seeds=N", "jobs=N", "hours=H")
MOST = 100_000  # shards of a run


class Shard(NamedTuple):
    """Some lanes of some programs. ``rows`` are positions in the program's list of lanes."""

    number: int  # from 1
    parts: tuple[tuple[int, tuple[int, ...]], ...]  # number among all programs, rows

    @property
    def lanes(self) -> int:
        return sum(len(rows) for _, rows in self.parts)

    def of(self, programs: Sequence[ProgramSettings]) -> list[ProgramSettings]:
        """The programs with this shard's lanes alone."""
        return [programs[index].only(rows) for index, rows in self.parts]


class Split(NamedTuple):
    """How a run is cut; see :func:`parse`."""

    arms: bool = False
    points: bool = False
    seeds: int = 0  # of a shard; 0: all
    jobs: int = 0
    hours: float = 0.0  # that a shard may take, as far as lanes can be divided

    def __str__(self) -> str:
        named = [name for name in ("arms", "points") if getattr(self, name)]
        counts = [f"{name}={getattr(self, name):g}" for name in ("seeds", "jobs", "hours") if getattr(self, name)]
        return ",".join(named + counts)


def parse(text: str) -> Split:
    """Read ``arms``, ``points``, ``seeds=4``, ``jobs=16``, or several of the first three, such as ``arms,seeds=4``.

    ``arms``: a shard for every arm. ``points``: for every arm and swept point. ``seeds=N``: for every N seeds.
    ``jobs=N``: N shards with equally many lanes, as far as possible. ``hours=H``: as few shards as take at most H hours
    each, at the speeds that were measured on this machine.

    Raises:
      UserError: for anything else.
    """
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, given, number = part.strip().partition("=")
        counted = f"{name}=N" in WAYS and _is_count(number)
        if not counted and not (f"{name}=H" in WAYS and _is_time(number)) and not (name in WAYS and not given):
            raise UserError(f"--split: {shown(part.strip())} is not allowed; must be one of {', '.join(WAYS)}")
        if name in found:
            raise UserError(f"--split: {name} is given twice")
        found[name] = (int(number) if counted else float(number)) if given else True
    for alone in ("jobs", "hours"):
        if alone in found and len(found) > 1:
            raise UserError(f"--split: {shown(text)} is not allowed; {alone} goes with nothing else")
    return Split(**found)


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) < 10 and int(text) > 0


def _is_time(text: str) -> bool:
    """Whether it is a positive decimal number, such as ``0.5``."""
    return bool(re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text)) and float(text) > 0


def cut(programs: Sequence[ProgramSettings], split: Split) -> list[Shard]:
    """The shards of a run, in the order of its lanes; ``UserError`` if there are too many.

    ``split`` has no hours: :func:`plasticity.runs.estimates.within_hours` makes a number of jobs of them.
    """
    groups = _equal(programs, split.jobs) if split.jobs else _by_key(programs, split)
    if len(groups) > MOST:
        raise UserError(f"--split: {split} makes {len(groups):,} shards; at most {MOST:,} are allowed")
    return [Shard(number, tuple(parts)) for number, parts in enumerate(groups, 1)]


Parts = list[tuple[int, tuple[int, ...]]]


def _by_key(programs: Sequence[ProgramSettings], split: Split) -> list[Parts]:
    order: dict[int, int] = {}
    for program in programs:
        for seed in program.seeds.tolist():
            order.setdefault(seed, len(order))

    def key(index: int, row: int) -> tuple[object, ...]:
        program = programs[index]
        arm = program.arm if split.arms or split.points else ""
        point = tuple(map(str, program.points[row].items())) if split.points else ()
        return arm, point, order[int(program.seeds[row])] // split.seeds if split.seeds else 0

    groups: dict[tuple[object, ...], dict[int, list[int]]] = {}
    for index, program in enumerate(programs):
        for row in range(len(program.seeds)):
            groups.setdefault(key(index, row), {}).setdefault(index, []).append(row)
    return [[(index, tuple(rows)) for index, rows in group.items()] for group in groups.values()]


def _equal(programs: Sequence[ProgramSettings], jobs: int) -> list[Parts]:
    """Consecutive lanes, in ``jobs`` groups whose sizes differ by at most one."""
    lanes = [(index, row) for index, program in enumerate(programs) for row in range(len(program.seeds))]
    jobs = min(jobs, len(lanes))
    ends = [len(lanes) * i // jobs for i in range(jobs + 1)]
    return [
        [
            (index, tuple(row for _, row in group))
            for index, group in itertools.groupby(lanes[start:end], lambda lane: lane[0])
        ]
        for start, end in itertools.pairwise(ends)
    ]


def parse_number(text: str, shards: int | None = None) -> tuple[int, int]:
    """Read ``3/8``, the third of eight shards; ``UserError`` unless it is one of the run's ``shards``."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard: {shown(text)} is not allowed; must be I/N, such as 3/8, with I from 1 to N")
    if shards is not None and int(count) != shards:
        raise UserError(f"--shard: {shown(text)} is not allowed; this run has {shards} shards")
    return int(number), int(count)
