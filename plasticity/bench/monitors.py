"""Cost of each monitor at its defaults, on a small, a medium and a large network."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity.bench.agents import ATARI, BREAKOUT, replay
from plasticity.bench.cases import CASES, Case, job
from plasticity.bench.timing import Effort, Work, interleaved
from plasticity.engine.runner import Run
from plasticity.runs import launch

THOROUGH, QUICK = Effort(3, 0.1), Effort(3, 0.01)
TRAINING = "one chunk"
LIMIT = 0.1  # of the training time
COSTLY = 10  # usual periods between two measurements, by default
USUAL = ("effective_rank", "dormant_units", "hessian_top_eigenvalue", "weight_norm")  # the quickstart's


class Learner(NamedTuple):
    """A learner to be monitored."""

    case: Case
    lanes: tuple[int, ...]
    probe_size: int
    every: int  # env steps between measurements in typical experiments of this kind
    costly: bool = True  # whether to also time monitors that are measured much more rarely by default


DQN: Mapping[str, Any] = {"kind": "dqn", **replay(2_000)}
LEARNERS: Mapping[str, Learner] = {
    "MLP": Learner(CASES["classifier"], (2, 8), 512, 2_000),
    "MinAtar": Learner(Case({"stream": BREAKOUT, "agent": {**DQN, "network": "minatar"}}, 512, ()), (2,), 512, 50_000),
    "Nature": Learner(
        Case({"stream": ATARI, "agent": {**DQN, "network": "nature"}}, 64, ()), (2,), 256, 50_000, costly=False
    ),
}


class Cost(NamedTuple):
    """One monitor."""

    monitor: str
    learner: str
    lanes: int
    milliseconds: float  # of one measurement, divided by the number of lanes
    steps: float  # env steps that take as long as one measurement
    share: float  # of the training time, at the learner's period or the monitor's multiple of it


def multiple(name: str) -> int:
    """Number of usual periods between two measurements by default."""
    return launch.registry().metadata("monitors", name).period


def names_for(learner: Learner) -> list[str]:
    """All monitors, including those of installed packages, that suit this learner's optimizer and outputs."""
    known = launch.registry()
    names = [name for name in known.names("monitors") if learner.costly or multiple(name) < COSTLY]
    supervised = learner.case is CASES["classifier"]
    return [name for name in names if supervised or name != "upgd_plasticity"]


def measure(name: str, names: Sequence[str], lanes: int, effort: Effort) -> list[Cost]:
    """One row per monitor, each compiled and called separately, with the lanes placed as in training."""
    learner = LEARNERS[name]
    case = learner.case
    planned = job(case, lanes, monitors=list(names), monitor_every="visit", probe_size=learner.probe_size)
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

    for _ in range(-(-case.document["agent"].get("replay", {}).get("minimum", 1) // case.chunk)):
        train()
    contenders = {TRAINING: train} | {each: monitor(i) for i, each in enumerate(names)}
    medians = {each: float(np.median(turns)) for each, turns in interleaved(contenders, effort).items()}
    run.close()
    step = medians.pop(TRAINING) / case.chunk
    return [
        Cost(each, name, lanes, 1e3 * seconds / lanes, seconds / step, seconds / step / learner.every / multiple(each))
        for each, seconds in medians.items()
    ]


def monitors(say: Callable[[str], None], quick: bool = False) -> list[Cost]:
    """All monitors, including those of installed packages; a few of them in the quick version."""
    found = []
    for name, learner in LEARNERS.items():
        names = ("weight_norm", "effective_rank") if quick else names_for(learner)
        for lanes in (2,) if quick else learner.lanes:
            say(f"monitors: {len(names)} of them on {lanes} lanes, {name}")
            found += measure(name, names, lanes, QUICK if quick else THOROUGH)
        if quick:
            break
    return found


def verdicts(rows: Sequence[Cost]) -> list[str]:
    """The total cost of the quickstart's monitors at the default periods of their experiments."""
    lines = []
    for name, lanes in dict.fromkeys((row.learner, row.lanes) for row in rows):
        shares = [row.share for row in rows if (row.learner, row.lanes) == (name, lanes) and row.monitor in USUAL]
        what = f"{', '.join(USUAL)} every {LEARNERS[name].every:,} steps or their default multiple of it"
        lines.append(f"{name}, {lanes} lanes: {what} add {sum(shares):.1%} (at most {LIMIT:.0%})")
    return lines
