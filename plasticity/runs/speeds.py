"""How fast programs run on this machine: measured by runs and calibrations, kept in the user's cache folder."""

import contextlib
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plasticity.engine.runner import Chunk, Run
from plasticity.runs import compilation
from plasticity.runs.checksums import DamagedError, is_number, read_json, to_json
from plasticity.runs.files import write_atomically

MOST = 2000  # programs that are remembered; the oldest are forgotten first
LEAST_SECONDS = 0.2  # of a measurement that is kept


class Cost(NamedTuple):
    """What a program costs on this machine."""

    start: float  # seconds until everything is compiled
    step: float  # seconds per env step of one group of lanes, with everything that is periodic

    def seconds(self, steps: int, groups: int) -> float:
        """Of a program with ``groups`` groups of lanes and ``steps`` env steps per lane."""
        return self.start + self.step * steps * groups


class Time(NamedTuple):
    """What some chunks took, and their env steps per lane."""

    seconds: float = 0.0
    steps: int = 0


class Stopwatch:
    """Times a run chunk by chunk. Chunks in which something is compiled count as start.

    Chunks without an update (an agent that first fills its replay buffer) count as nothing, unless no update is ever
    made.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._traces, self._updates = run, 0, np.zeros(())
        self._mark = time.monotonic()
        self.start, self.learning, self.idle = 0.0, Time(), Time()

    def again(self) -> None:
        """The run has been started again from its first step; what was measured stays."""
        self._mark, self._updates = time.monotonic(), np.zeros(())

    def tick(self, chunk: Chunk) -> None:
        """After a chunk, and everything that was due at its end."""
        now, traces = time.monotonic(), sum(self._run.compiled.traces.values())
        passed, self._mark = now - self._mark, now
        updates = chunk.metrics["update"]
        learned, self._updates = bool(np.any(updates > self._updates)), updates
        if traces != self._traces:
            self._traces, self.start = traces, self.start + passed
        elif learned:
            self.learning = self._longer(self.learning, passed)
        else:
            self.idle = self._longer(self.idle, passed)

    def _longer(self, time: Time, passed: float) -> Time:
        return Time(time.seconds + passed, time.steps + self._run.program.chunk)

    def cost(self) -> Cost | None:
        """What was measured; None if it was too short."""
        seconds, steps = self.learning if self.learning.steps else self.idle
        if not steps or seconds < LEAST_SECONDS:
            return None
        return Cost(self.start, seconds / steps / self._run.placement.groups)


def folder() -> Path:
    """Of this processor and these versions."""
    return compilation.folder().parent.parent / "speeds" / compilation.folder().name


def read(key: str) -> Cost | None:
    """The speed that was measured last; None if there is none."""
    try:
        found = read_json(folder() / f"{key}.json")
    except (OSError, DamagedError):
        return None
    whole = all(is_number(found.get(name)) and found[name] >= 0 for name in Cost._fields)
    return Cost(**{name: found[name] for name in Cost._fields}) if whole else None


def keep(key: str, cost: Cost | None) -> None:
    """Remember a speed; a folder that cannot be written is no error."""
    if cost is None:
        return
    with contextlib.suppress(OSError):
        place = folder()
        place.mkdir(parents=True, exist_ok=True)
        text = to_json(cost._asdict(), None)
        write_atomically(place / f"{key}.json", lambda path: path.write_text(text, encoding="utf-8"), durable=False)
        _forget(place)


def _forget(place: Path) -> None:
    paths = list(place.glob("*.json"))
    if len(paths) <= MOST:
        return
    for path in sorted(paths, key=lambda path: path.stat().st_mtime)[: len(paths) - MOST]:
        path.unlink(missing_ok=True)
