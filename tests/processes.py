"""Processes that a test starts, and that end with it."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
STARTED: list[subprocess.Popen[str]] = []


def started(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """The command, started in the checkout; its output is read from a pipe."""
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)
    STARTED.append(child)
    return child


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """In a module that imports it, no process and no pipe to one is left."""
    yield
    while STARTED:
        with STARTED.pop() as child:
            child.kill()
