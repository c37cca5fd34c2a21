"""Environment steps per second of whole agents, environments included, by number of lanes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from plasticity.bench.cases import ADAM, Case, Document, job
from plasticity.bench.timing import Effort, Work, interleaved
from plasticity.engine.program import Compiled
from plasticity.engine.runner import Run
from plasticity.runs import launch

THOROUGH, QUICK = Effort(5, 0.5), Effort(3, 0.01)
SCALING = (1, 2, 4, 8, 16, 32)
STEPS = 1 << 24  # length of the only visit: more than any benchmark runs

BREAKOUT: Document = {"kind": "minatar", "games": ["breakout"], "full_actions": False, "steps_per_visit": STEPS}
ATARI: Document = {"kind": "atari", "games": ["Breakout"], "frames_per_visit": 4 * STEPS}
SMALL: Document = {"kind": "minatar"}
STREAMING: Document = {"activation": "leaky_relu", "normalisation": "map", "initialiser": "sparse"}


def replay(capacity: int, minimum: int = 1000) -> Document:
    """Settings of a replay agent."""
    sizes = {"capacity": capacity, "minimum": minimum}
    return {"optimizer": ADAM, "replay": sizes, "batch_size": 32, "update_period": 4}


class AgentCase(NamedTuple):
    """An agent on a stream, and its target speed on two cores."""

    case: Case
    targets: Mapping[int, int] = {}  # lanes -> env steps per second


def agent(stream: Document, chunk: int, lanes: Sequence[int], targets: Mapping[int, int], **agent: Any) -> AgentCase:
    return AgentCase(Case({"stream": stream, "agent": agent}, chunk, tuple(lanes)), targets)


def minatar(chunk: int, targets: Mapping[int, int], envs: int = 1, **settings: Any) -> AgentCase:
    return agent({**BREAKOUT, "envs": envs}, chunk, SCALING, targets, **settings)


CASES: Mapping[str, AgentCase] = {
    "stream_q, MinAtar": minatar(512, {8: 12_000}, kind="stream_q", network={**SMALL, **STREAMING}),
    "adaptive_q, MinAtar": minatar(512, {}, kind="adaptive_q", network={**SMALL, **STREAMING}),
    "stream_c51, MinAtar": minatar(512, {}, kind="stream_c51", network={**SMALL, **STREAMING}),
    "dqn, MinAtar": minatar(512, {}, kind="dqn", network=SMALL, **replay(20_000)),
    "c51, MinAtar": minatar(512, {}, kind="c51", network=SMALL, **replay(20_000)),
    "rainbow, MinAtar": minatar(512, {}, kind="rainbow", network=SMALL, **replay(20_000)),
    "ppo, MinAtar, 16 envs": minatar(128, {}, 16, kind="ppo", network=SMALL, rollout_length=128),
    "pqn, MinAtar, 128 envs": minatar(32, {}, 128, kind="pqn", network={**SMALL, "normalisation": "layer"}),
    "stream_q, Atari": agent(ATARI, 64, SCALING[:4], {4: 1_000}, kind="stream_q", network="streaming"),
    "dqn, Atari": agent(ATARI, 64, SCALING[:4], {2: 200}, kind="dqn", network="nature", **replay(2_000)),
}
QUICK_CASES = ("stream_q, MinAtar",)


class AgentSpeed(NamedTuple):
    """One agent with one number of lanes, placed as ``plasticity run`` places it."""

    agent: str
    lanes: int
    placement: str  # devices x groups x width
    steps_per_second: float  # env steps of all lanes and envs together
    of_one_lane: float  # speed relative to that of the fewest lanes
    target: int | None


def advance(run: Run) -> Work:
    """One chunk of every group as in ``plasticity run``, with records on the host."""
    chunks = run.chunks()

    def work() -> None:
        next(chunks)

    return work


def warm(work: Work, steps: int, first: int) -> None:
    """Run until the replay buffer is full enough for learning."""
    for _ in range(-(-first // steps)):
        work()


def measure(name: str, case: AgentCase, lanes: Sequence[int], effort: Effort) -> list[AgentSpeed]:
    """One row per number of lanes, measured in turns. Compilation and filling of the buffer are excluded."""
    compiled: dict[tuple[int, int], Compiled] = {}
    works: dict[int, Work] = {}
    runs: dict[int, Run] = {}
    for number in lanes:
        planned = job(case.case, number)
        shape = planned.placement.devices, planned.placement.width
        run = Run(planned.program, planned.placement, launch.devices(), _shared(compiled.get(shape)))
        compiled[shape], runs[number] = run.compiled, run
        works[number] = advance(run)
        warm(works[number], case.case.chunk, case.case.document["agent"].get("replay", {}).get("minimum", 0))
    turns = interleaved(works, effort)
    for run in runs.values():
        run.close()
    return _rows(name, case, runs, {number: float(np.median(seconds)) for number, seconds in turns.items()})


def _shared(known: Compiled | None) -> Compiled | None:
    """The compiled functions, unless they contain emulators, which belong to one run."""
    return known if known is not None and not known.stream.emulated else None


def _rows(name: str, case: AgentCase, runs: Mapping[int, Run], seconds: Mapping[int, float]) -> list[AgentSpeed]:
    per_chunk = {n: n * run.program.spec.envs * run.program.chunk for n, run in runs.items()}
    speed = {number: per_chunk[number] / seconds[number] for number in runs}
    base = speed[min(speed)]
    return [
        AgentSpeed(
            name,
            number,
            " x ".join(map(str, run.placement)),
            speed[number],
            speed[number] / base,
            case.targets.get(number),
        )
        for number, run in runs.items()
    ]


def agents(say: Callable[[str], None], quick: bool = False) -> list[AgentSpeed]:
    """Every agent with 1, 2, 4 ... lanes."""
    found: list[AgentSpeed] = []
    for name in QUICK_CASES if quick else CASES:
        say(f"agents: {name}")
        lanes = (1, 2) if quick else CASES[name].case.lanes
        found += measure(name, CASES[name], lanes, QUICK if quick else THOROUGH)
    return found


def verdicts(rows: Sequence[AgentSpeed]) -> list[str]:
    return [
        f"{row.agent}, {row.lanes} lanes: {row.steps_per_second:,.0f} env steps/s (target {row.target:,})"
        for row in rows
        if row.target is not None
    ]
