"""Worker processes that leave signals to their parent and end with it, however it ends."""

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

# A terminal or a scheduler sends these to the whole process group; the parent decides what becomes of the run.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
_alive: "weakref.WeakSet[Any]" = weakref.WeakSet()


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Processes that this thread starts have the signals blocked from their first moment; this process loses none."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        # The first process started would start the tracker, which then unblocks SIGINT and SIGTERM in this thread.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_worker(make: Callable[[], Any]) -> Callable[[], Any]:
    """``make`` for a worker, in which it also sees to signals and to the end; in this process ``make`` alone."""
    return partial(_make_in_worker, make, os.getpid())


def _make_in_worker(make: Callable[[], Any], parent: int) -> Any:
    if os.getpid() != parent:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        threading.Thread(target=_end_with_parent, daemon=True).start()
    return make()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def end_with_us(processes: Iterable[Any]) -> None:
    """Kills the workers where they would be told to terminate, a signal that they ignore; also when this process ends.

    ``processes``: of ``multiprocessing``.
    """
    if not _alive:
        atexit.unregister(_kill)
        atexit.register(_kill)  # before multiprocessing's own, which would wait for them
    for process in processes:
        process.terminate = process.kill
        _alive.add(process)


def _kill() -> None:
    for process in list(_alive):
        with contextlib.suppress(ValueError):  # it was closed
            if process.is_alive():
                process.kill()
