"""Timing on a shared machine: contenders take turns, and medians are reported."""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Name = TypeVar("Name", bound=Hashable)
Work = Callable[[], None]  # does its work to the end before it returns


class Effort(NamedTuple):
    """How long to measure."""

    repetitions: int  # turns that each contender gets
    seconds: float  # the least time of a turn


THOROUGH, QUICK = Effort(7, 0.25), Effort(3, 0.01)


def interleaved(contenders: Mapping[Name, Work], effort: Effort) -> dict[Name, list[float]]:
    """Seconds per call of each contender, one number per turn; turn ``i`` of all is taken at about the same time.

    The first two calls (which may compile) are not counted. Every other round runs in reverse order, so that
    cache effects do not always affect the same successor.
    """
    calls = {}
    for name, work in contenders.items():
        work()
        calls[name] = max(1, math.ceil(effort.seconds / max(_seconds(work, 1), 1e-9)))
    turns: dict[Name, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(effort.repetitions):
        for name in order:
            turns[name].append(_seconds(contenders[name], calls[name]))
        order.reverse()
    return turns


def _seconds(work: Work, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - started) / calls


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median over the turns of ``a / b``, which is unaffected by slowdowns of a whole round."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))
