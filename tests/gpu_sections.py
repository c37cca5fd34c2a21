"""Sections that fail, for tests of the GPU check."""

import os
import time
from pathlib import Path

from plasticity.bench.gpu.plan import Settings
from plasticity.bench.gpu.section import Report, Turn


def good(report: Report, turn: Turn, settings: Settings, folder: Path, *given: str) -> None:
    print("what a library prints")
    report.row(given=list(given), quick=settings.quick, own=folder.is_dir())


def raises(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    report.row(before=1)
    with report.guarded(what="a"):
        raise KeyError("guarded")
    raise ValueError("out of luck")


def hangs(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    report.row(before=1)
    time.sleep(600)


def dies(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    report.row(before=1)
    os._exit(11)


def times(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    with turn() as seconds:
        began = time.time()
        time.sleep(0.2)
        report.row(seconds=seconds, began=began, ended=time.time())


def overruns(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    with turn() as seconds:
        report.row(seconds=seconds)
        time.sleep(600)
