"""The runs of a plan's jobs, compiled in several threads, and each while the one before it runs."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import jax
import psutil

from plasticity.engine.ahead import compile_ahead
from plasticity.engine.memory import Memory
from plasticity.engine.runner import Run
from plasticity.runs.session import Job

SPARE = 1 << 30  # bytes that must stay free while the next program is compiled
WORKERS = 4  # threads; more gain nothing, as one function takes the longest


class Preparation:
    """Builds the run of each job, and compiles the next one's while a job runs.

    On a GPU nothing is compiled ahead: XLA chooses kernels there by timing them, which needs the device alone.

    Args:
      jobs: in the order in which they will run.
      needs: the memory of each.
      devices: the devices to run on.
      wanted: whether a job is still to be run.
    """

    def __init__(
        self, jobs: Sequence[Job], needs: Sequence[Memory], devices: Sequence[jax.Device], wanted: Callable[[Job], bool]
    ) -> None:
        self._jobs, self._needs, self._devices, self._wanted = jobs, needs, devices, wanted
        self._ahead = devices[0].platform == "cpu"
        self._next: tuple[Job, Future[Run]] | None = None
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "Preparation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for a compilation that is under way, and close the run that is not needed."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._next is not None and self._next[1].done() and not self._next[1].cancelled():
            with contextlib.suppress(Exception):
                self._next[1].result().close()

    def run_of(self, job: Job) -> Run:
        """The run of a job, built now or before."""
        prepared, self._next = self._next, None
        if prepared is not None and prepared[0] is job:
            with contextlib.suppress(Exception):  # it is built once more below, where its error has its place
                return prepared[1].result()
        return self._built(job)

    def compile(self, run: Run) -> None:
        """Compile all functions of a run that are not compiled yet."""
        if self._ahead:
            compile_ahead(run, WORKERS)

    def follow(self, job: Job) -> None:
        """Prepare what runs after ``job`` in the background, if there is memory for both."""
        place = next(i for i, each in enumerate(self._jobs) if each is job) + 1
        following = next((i for i in range(place, len(self._jobs)) if self._wanted(self._jobs[i])), None)
        if following is None or not self._ahead or self._next is not None:
            return
        chosen, need = self._jobs[following], self._needs[following].total
        if psutil.virtual_memory().available < need * chosen.placement.devices + SPARE:
            return
        self._next = (chosen, self._pool.submit(self._prepared, chosen))

    def _built(self, job: Job) -> Run:
        return Run(job.program, job.placement, self._devices)

    def _prepared(self, job: Job) -> Run:
        run = self._built(job)
        try:
            compile_ahead(run, 1)
        except Exception:
            run.close()
            raise
        return run
