"""Agents, alone and inside a run, compared with hand-written programs of the same mathematics."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from plasticity.bench.agents import advance, warm
from plasticity.bench.cases import job
from plasticity.bench.overhead.cases import CASES, Compared
from plasticity.bench.overhead.parts import agent_alone, by_itself, chunk_alone, recorded, running
from plasticity.bench.timing import QUICK, Effort, Work, interleaved, ratio
from plasticity.runs import launch
from plasticity.runs.session import Job

THOROUGH = Effort(15, 0.25)
BY_HAND, WHOLE = "hand-written", "loop with tables"
TARGET = 0.95  # of the hand-written program's speed
PARTS = {  # each program, and what it has in addition to the one before
    "agent": "agent",
    "agent with metrics": "metrics",
    "chunk without ring": "returns and checks",
    "chunk": "ring",
    "loop": "loop on the host",
    WHOLE: "tables and status",
}


class Overhead(NamedTuple):
    """One program; every device trains one lane at a time."""

    agent: str
    lanes: int
    program: str
    steps_per_second: float  # env steps of all lanes and envs together
    of_hand_written: float  # its speed divided by that of the hand-written program
    adds: float | None  # time added to the program above, relative to that of the hand-written program


def contenders(compared: Compared, planned: Job, folder: Path) -> dict[str, Work]:
    """The programs, from the hand-written one to the whole loop."""
    lanes, devices = len(planned.program.seeds), planned.placement.devices
    alone = [agent_alone(planned.program, metrics) for metrics in (False, True)]
    by_hand, bare, measured = (
        by_itself(plain, lanes, devices) for plain in (compared.plain(compared.case.chunk), *alone)
    )
    works = (
        bare,
        measured,
        chunk_alone(running(planned, probe_size=1)),
        chunk_alone(running(planned)),
        advance(running(planned)),
        recorded(running(planned), planned, folder),
    )
    return {BY_HAND: by_hand} | dict(zip(PARTS, works, strict=True))


def measure(agent: str, lanes: int, effort: Effort, compared: Compared | None = None) -> list[Overhead]:
    """One row for each program, measured in turns once the replay is full enough for learning."""
    compared = compared or CASES[agent]
    planned = job(compared.case, lanes, placement={"width": 1})
    with TemporaryDirectory() as folder:
        works = contenders(compared, planned, Path(folder))
        for work in works.values():
            warm(work, compared.case.chunk, compared.steps)
        turns = interleaved(works, effort)
    steps = lanes * planned.program.spec.envs * compared.case.chunk
    base, rows = turns[BY_HAND], list[Overhead]()
    for program, before in zip(turns, (None, *turns), strict=False):
        seconds, adds = turns[program], None
        if before is not None:
            more = (now - then for now, then in zip(seconds, turns[before], strict=True))
            adds = statistics.median(extra / by_hand for extra, by_hand in zip(more, base, strict=True))
        speed = steps / statistics.median(seconds)
        rows.append(Overhead(agent, lanes, program, speed, ratio(base, seconds), adds))
    return rows


def overhead(say: Callable[[str], None], quick: bool = False) -> list[Overhead]:
    """Every agent with one lane to a device, and the classifier with four."""
    devices = len(launch.devices())
    asked = [(agent, devices) for agent in CASES]
    asked.insert(1, ("classifier", 4 * devices))
    found: list[Overhead] = []
    for agent, lanes in asked[:1] if quick else asked:
        say(f"overhead: {agent}, {lanes} lanes")
        found += measure(agent, lanes, QUICK if quick else THOROUGH)
    return found


def verdicts(rows: Sequence[Overhead]) -> list[str]:
    """A line for each agent: its speed, and what takes the time."""
    lines, parts = [], []
    for row in rows:
        if row.adds is not None:
            parts.append(f"{PARTS[row.program]} {row.adds:+.1%}")
        if row.program == WHOLE:
            speed = f"{row.of_hand_written:.2f} of the hand-written speed (target {TARGET})"
            lines.append(f"{row.agent}, {row.lanes} lanes: {speed}; time: {', '.join(parts)}")
            parts = []
    return lines
