"""What each test costs, independent of how busy the machine is: ``PYTHONPATH=tests pytest -p costs -m 'not slow'``.

Prints the most expensive files and tests: seconds of processor time of the process and of its children, and seconds of
XLA's work that the compilation cache saved, which a fresh clone has to spend. Lines go to ``COSTS_FILE`` as well, when
set.
"""

import os
from collections import Counter
from typing import Any

import jax.monitoring
import pytest

SAVED = "/jax/compilation_cache/compile_time_saved_sec"
saved = [0.0]
costs: dict[str, tuple[float, float]] = {}
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: saved.__setitem__(0, saved[0] + seconds * (event == SAVED))
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    before, known = sum(os.times()[:4]), saved[0]
    try:
        return (yield)
    finally:
        used, waived = costs[item.nodeid] = (sum(os.times()[:4]) - before, saved[0] - known)
        if path := os.environ.get("COSTS_FILE"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{used:.2f}\t{waived:.2f}\t{item.nodeid}\n")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    files: Counter[str] = Counter()
    for test, cost in costs.items():
        files[test.partition("::")[0]] += sum(cost)  # type: ignore[assignment]
    for title, found in (("files", files), ("tests", Counter({test: sum(cost) for test, cost in costs.items()}))):
        terminalreporter.section(f"dearest {title}, seconds of work with a cold cache")
        for name, seconds in found.most_common(30):
            terminalreporter.line(f"{seconds:8.1f} {name}")
