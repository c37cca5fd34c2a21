"""Progress display of a run: one line per arm, with speed, task and performance."""

import threading
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from plasticity.engine.runner import Chunk, Position
from plasticity.runs.session import Job, Speed

QUIET_SECONDS = 20.0  # at most, between two lines if the output is not a terminal
PULSE_SECONDS = 1.0


class TerminalProgress:
    """A progress bar per program on a terminal.

    Otherwise lines: at the start of each program, at its end, and at least every 20 seconds, also while it compiles.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[speed]} steps/s"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[news]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._said, self._speed = 0.0, Speed(0)
        self._job: Job | None = None
        self._task: Any = None
        self._latest, self._since, self._unit = "", 0.0, ""  # what goes on, since when, and in what words
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> "TerminalProgress":
        self._bar.start()
        self._said = time.monotonic()
        self._note("planning", say=False)
        if not self.console.is_terminal:
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ended.set()
        self._bar.stop()

    def job(self, job: Job, position: Position) -> None:
        self._job, self._speed = job, Speed(len(job.program.seeds))
        total = sum(visit.steps for visit in job.program.spec.visits)
        self._task = self._bar.add_task(_name(job), total=total, completed=position.step, speed="...", news="compiling")
        self._note(f"{_name(job)}: compiling, {_lanes(len(job.program.seeds))}", say=True)

    def chunk(self, chunk: Chunk) -> None:
        job = self._job
        assert job is not None
        speed = self._speed.at(chunk.position.step)
        task = chunk.task if isinstance(chunk.task, str) else "tasks in each seed's order"
        news = f"{task} ({chunk.position.visit + 1}/{len(job.program.spec.visits)}) {_performance(job, chunk)}"
        self._bar.update(self._task, completed=chunk.position.step, speed=_thousands(speed), news=news)
        total = sum(visit.steps for visit in job.program.spec.visits)
        line = f"{_name(job)}: {chunk.position.step}/{total} steps, {_thousands(speed)} steps/s, {news}"
        self._note(line, say=chunk.position.step == total or self._is_due(), unit="s ago")

    def say(self, line: str) -> None:
        self.console.print(Text(line))

    def _note(self, line: str, say: bool, unit: str = "s so far") -> None:
        """Remember what goes on; off a terminal, print it if ``say`` is true."""
        with self._lock:
            self._latest, self._since, self._unit = line, time.monotonic(), unit
            self._print(line, say)

    def pulse(self) -> None:
        """Off a terminal: repeat what goes on, and for how long it has, if nothing was printed for too long."""
        with self._lock:
            self._print(f"{self._latest} ({time.monotonic() - self._since:.0f} {self._unit})", self._is_due())

    def _print(self, line: str, say: bool) -> None:
        if say and not self.console.is_terminal:
            self._said = time.monotonic()
            self.say(line)

    def _is_due(self) -> bool:
        return time.monotonic() - self._said >= QUIET_SECONDS

    def _beat(self) -> None:
        while not self._ended.wait(PULSE_SECONDS):
            self.pulse()


def _name(job: Job) -> str:
    """The arm, with the program's number unless it is the first."""
    return job.arm + (f" ({job.number + 1})" if job.number else "")


def _lanes(count: int) -> str:
    return "1 lane" if count == 1 else f"{count:,} lanes"


def _performance(job: Job, chunk: Chunk) -> str:
    """The mean over lanes of the stream's performance measure, and the number of diverged lanes."""
    spec = job.program.spec
    values = chunk.metrics["episodic_return" if spec.episodic else "reward"]
    known = values[np.isfinite(values)]
    mean = f"{float(np.mean(known)):.3g}" if len(known) else "-"  # no episode has ended
    diverged = int(np.sum(chunk.diverged_at >= 0))
    return f"{spec.reward_name} {mean}" + (f", {diverged} diverged" if diverged else "")


def _thousands(number: float) -> str:
    return f"{number:,.0f}" if number >= 1 or number == 0 else f"{number:.1g}"
