"""What each monitor costs at its defaults, on the learner of the quickstart."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from plasticity import launch
from plasticity.bench.cases import CASES, job
from plasticity.bench.timing import QUICK, THOROUGH, Effort, Work, interleaved
from plasticity.runner import Run

LANES = 8
TRAINING = "one update"


class Cost(NamedTuple):
    """One monitor."""

    monitor: str
    milliseconds: float  # of one measurement, divided by the number of lanes
    updates: float  # that take as long as one measurement


def measure(names: Sequence[str], lanes: int, effort: Effort) -> list[Cost]:
    """One row for each monitor, every one compiled and called for itself, placed as training places the lanes."""
    case = CASES["classifier"]
    planned = job(case, lanes, monitors=list(names), monitor_every="visit")
    run = Run(planned.program, planned.placement, launch.devices())
    chunks = run.chunks()

    def train() -> None:
        next(chunks)

    def monitor(number: int) -> Work:
        def work() -> None:
            clock = run.clock()
            groups = zip(run.inputs, run.carries, strict=True)
            jax.block_until_ready(
                [run.compiled.measure(*given[:2], carry, clock, (number,)) for given, carry in groups]
            )

        return work

    train()
    contenders = {TRAINING: train} | {name: monitor(i) for i, name in enumerate(names)}
    medians = {name: float(np.median(turns)) for name, turns in interleaved(contenders, effort).items()}
    update = medians.pop(TRAINING) / case.chunk
    return [Cost(name, 1e3 * seconds / lanes, seconds / update) for name, seconds in medians.items()]


def monitors(say: Callable[[str], None], quick: bool = False) -> list[Cost]:
    """All monitors there are, installed packages' too; a few of them in the quick version."""
    names = ("weight_norm", "effective_rank") if quick else launch.registry().names("monitors")
    say(f"monitors: {len(names)} of them on {LANES} lanes")
    return measure(names, 2 if quick else LANES, QUICK if quick else THOROUGH)
