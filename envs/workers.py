"""Worker processes that ignore signals, which their parent handles, and exit when it exits for any reason."""

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

# A terminal or a scheduler sends these to the whole process group; the parent decides how the run reacts.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
_alive: "weakref.WeakSet[Any]" = weakref.WeakSet()


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Block signals in processes that this thread starts; signals to this process are only delayed."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        # Otherwise the first process starts the tracker, which unblocks SIGINT and SIGTERM in this thread.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_worker(make: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap ``make`` so that, in a worker, it also sets up signal handling and exit with the parent."""
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
    """Replace ``terminate``, a signal that workers ignore, by ``kill``; also kill them when this process exits.

    ``processes``: processes of ``multiprocessing``.
    """
    if not _alive:
        atexit.unregister(_kill)
        atexit.register(_kill)  # runs before multiprocessing's own handler, which would wait for them
    for process in processes:
        process.terminate = process.kill
        _alive.add(process)


def _kill() -> None:
    for process in list(_alive):
        with contextlib.suppress(ValueError):  # it was closed
            if process.is_alive():
                process.kill()
