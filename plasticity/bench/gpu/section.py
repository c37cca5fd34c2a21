"""One section in its own process: reports rows as they become available, and requests a turn before timing.

Standard output carries messages to the conductor, one JSON object per line. All other output goes to the log.
"""

import contextlib
import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from plasticity.bench.gpu.plan import PREPARE, Settings

BEGAN = "PLASTICITY_GPU_CHECK_BEGAN"  # seconds since the epoch at which the whole check began

PATIENCE = 20.0  # seconds beyond the time to prepare
Result = TypeVar("Result")


class Report:
    """Reports the results of a section to the conductor."""

    def __init__(self, line: TextIO) -> None:
        self.line = line

    def send(self, **message: Any) -> None:
        print(json.dumps(message, default=float), file=self.line, flush=True)

    def row(self, **values: Any) -> None:
        self.send(row=values)

    @contextlib.contextmanager
    def guarded(self, **what: Any) -> Iterator[None]:
        """Report an error as a row and continue with the section."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.row(**what, error=shortened(error))


class Turn:
    """The exclusive use of the machine: ``with turn() as seconds:``."""

    def __init__(self, report: Report, answers: TextIO, began: float, settings: Settings) -> None:
        self.report, self.answers = report, answers
        self.prepare_until = began + PREPARE * settings.seconds

    def may_prepare(self) -> bool:
        return time.time() < self.prepare_until

    def prepared(self, work: Callable[[], Result]) -> Result:
        """Return ``work()``; ``TimeoutError`` if it takes much longer than the time to prepare (a stuck compiler)."""
        found: list[Result] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                found.append(work())
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(max(1.0, self.prepare_until + PATIENCE - time.time()))
        if errors:
            raise errors[0]
        if not found:
            raise TimeoutError("was not prepared in time")
        return found[0]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[float]:
        """Wait for the turn; yields its length in seconds."""
        self.report.send(turn="wanted")
        seconds = float(self.answers.readline() or 0)
        yield seconds
        self.report.send(turn="over")


def shortened(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:600]


def main(module: str, function: str, arguments: Sequence[str], settings: Settings, folder: Path) -> int:
    """Run one section."""
    line = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    report = Report(line)
    turn = Turn(report, sys.stdin, float(os.environ.get(BEGAN, time.time())), settings)
    try:
        found = importlib.import_module(module if "." in module else f"{__package__}.{module}")
        started = time.perf_counter()
        getattr(found, function)(report, turn, settings, folder, *arguments)
        report.send(done=round(time.perf_counter() - started, 1))
    except BaseException as error:
        traceback.print_exc()
        report.send(error=shortened(error))
        return 1
    finally:
        line.flush()
    return 0
