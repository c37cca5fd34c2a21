"""Updates per second by lanes and placement, and the automatic placement relative to the best one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from plasticity.bench.cases import CASES, Case, job
from plasticity.bench.timing import QUICK, THOROUGH, Effort, Work, interleaved, ratio
from plasticity.engine.lanes import Placement, place
from plasticity.engine.program import Compiled
from plasticity.engine.runner import Run
from plasticity.runs import launch
from plasticity.runs.session import Job

WIDTHS = (1, 2, 4, 8, 16, 32)
QUICK_CASES = ("regressor_5", "classifier")
TARGET = 0.9  # of the automatic placement's speed to the best one's
Shape = tuple[int, int]  # devices, width: all of a placement that a compiled program depends on


class Speed(NamedTuple):
    """One placement of one number of lanes."""

    case: str
    lanes: int
    devices: int
    groups: int
    width: int
    automatic: bool  # what `plasticity run` chooses
    updates_per_second: float  # of all lanes together
    of_best: float  # speed relative to the fastest placement of these lanes


def candidates(lanes: int, devices: int, widths: Sequence[int], automatic: Placement) -> list[Placement]:
    """One device and all devices, with every width up to the lanes of a device, and the automatic placement."""
    found = [automatic]
    for used in (1, min(devices, lanes)):
        most = -(-lanes // used)
        found += [place(lanes, devices=used, width=width) for width in (*widths, most) if width <= most]
    return sorted(set(found))


def loop(run: Run) -> Callable[[], int]:
    """Run one chunk of every group; returns the number of updates made so far by all lanes."""
    chunks = run.chunks()
    return lambda: int(next(chunks).metrics["update"].astype(np.int64).sum())


def _silently(advance: Callable[[], int]) -> Work:
    def work() -> None:
        advance()

    return work


def measure(
    name: str, case: Case, lanes: int, widths: Sequence[int], effort: Effort, compiled: dict[Shape, Compiled]
) -> list[Speed]:
    """All placements of a case with this many lanes; ``compiled`` is filled and reused for other numbers of lanes."""
    planned = job(case, lanes)
    loops: dict[Placement, Callable[[], int]] = {}
    updates: dict[Placement, int] = {}
    for placement in candidates(lanes, len(launch.devices()), widths, planned.placement):
        loops[placement] = loop(_run(planned, placement, compiled))
        before = [loops[placement]() for _ in range(2)][-1]  # after the first chunk, in which a replay may fill up
        updates[placement] = loops[placement]() - before
    turns = interleaved({placement: _silently(advance) for placement, advance in loops.items()}, effort)
    best = min(turns, key=lambda placement: float(np.median(turns[placement])))
    return [
        Speed(
            name,
            lanes,
            *placement,
            automatic=placement == planned.placement,
            updates_per_second=updates[placement] / float(np.median(seconds)),
            of_best=ratio(turns[best], seconds),
        )
        for placement, seconds in turns.items()
    ]


def _run(planned: Job, placement: Placement, compiled: dict[Shape, Compiled]) -> Run:
    shape = placement.devices, placement.width
    run = Run(planned.program, placement, launch.devices(), compiled.get(shape))
    compiled[shape] = run.compiled
    return run


def lanes(say: Callable[[str], None], quick: bool = False, cases: Mapping[str, Case] = CASES) -> list[Speed]:
    """Steady-state speed of every case, number of lanes and placement, measured with the runner's loop."""
    found: list[Speed] = []
    for name in QUICK_CASES if quick else cases:
        compiled: dict[Shape, Compiled] = {}
        for number in (2,) if quick else cases[name].lanes:
            say(f"lanes: {name}, {number} lanes")
            widths, effort = (WIDTHS[:2], QUICK) if quick else (WIDTHS, THOROUGH)
            found += measure(name, cases[name], number, widths, effort, compiled)
    return found


def verdicts(rows: Iterable[Speed]) -> list[str]:
    """One line per case and number of lanes: the automatic placement compared with the best one."""
    best = {(row.case, row.lanes): row for row in sorted(rows, key=lambda row: row.of_best)}
    return [
        f"{row.case}, {row.lanes} lanes: automatic {_shape(row)} runs at {row.of_best:.2f} of the best, "
        f"{_shape(best[row.case, row.lanes])}" + ("" if row.of_best >= TARGET else f" (target {TARGET})")
        for row in rows
        if row.automatic
    ]


def _shape(row: Speed) -> str:
    return f"{row.devices} x {row.groups} x {row.width}"
