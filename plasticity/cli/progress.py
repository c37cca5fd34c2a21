"""Progress display of a run: one line per arm, with speed, task and performance."""

import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from plasticity.engine.runner import Chunk, Position
from plasticity.runs.session import Job, Speed

QUIET_SECONDS = 30.0  # between two lines if the output is not a terminal


class TerminalProgress:
    """A progress bar per program on a terminal; otherwise occasional lines and one per finished program."""

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

    def __enter__(self) -> "TerminalProgress":
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()

    def job(self, job: Job, position: Position) -> None:
        self._job, self._said, self._speed = job, time.monotonic(), Speed(len(job.program.seeds))
        total = sum(visit.steps for visit in job.program.spec.visits)
        self._task = self._bar.add_task(_name(job), total=total, completed=position.step, speed="...", news="compiling")

    def chunk(self, chunk: Chunk) -> None:
        job = self._job
        assert job is not None
        speed = self._speed.at(chunk.position.step)
        task = chunk.task if isinstance(chunk.task, str) else "tasks in each seed's order"
        news = f"{task} ({chunk.position.visit + 1}/{len(job.program.spec.visits)}) {_performance(job, chunk)}"
        self._bar.update(self._task, completed=chunk.position.step, speed=_thousands(speed), news=news)
        self._say_quietly(job, chunk, f"{_thousands(speed)} steps/s, {news}")

    def say(self, line: str) -> None:
        self.console.print(Text(line))

    def _say_quietly(self, job: Job, chunk: Chunk, line: str) -> None:
        total = sum(visit.steps for visit in job.program.spec.visits)
        last = chunk.position.step == total
        now = time.monotonic()
        if not self.console.is_terminal and (last or now - self._said > QUIET_SECONDS):
            self._said = now
            self.say(f"{_name(job)}: {chunk.position.step}/{total} steps, {line}")


def _name(job: Job) -> str:
    """The arm, with the program's number unless it is the first."""
    return job.arm + (f" ({job.number + 1})" if job.number else "")


def _performance(job: Job, chunk: Chunk) -> str:
    """The mean over lanes of the stream's performance measure, and the number of diverged lanes."""
    spec = job.program.spec
    values = chunk.metrics["episodic_return" if spec.episodic else "reward"]
    known = values[np.isfinite(values)]
    mean = f"{float(np.mean(known)):.3g}" if len(known) else "-"  # no episode has ended
    diverged = int(np.sum(chunk.diverged_at >= 0))
    return f"{spec.reward_name} {mean}" + (f", {diverged} diverged" if diverged else "")


def _thousands(number: float) -> str:
    return f"{number:,.0f}"
