"""The least and the greatest value that a number can have, as far as a run's plan knows."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Range = tuple[float, float]
UNBOUNDED: Range = (-math.inf, math.inf)


def as_range(limits: Sequence[float | None] | None) -> Range:
    """Limits as a plan writes them, null where there is none. Plans of older versions have no limits at all."""
    low, high = limits or (None, None)
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def performance_range(stream: Mapping[str, Any]) -> Range:
    """Of the performance on a run's stream, ``plan(run)["stream"]``.

    The plan has the range of one step's reward. A mean lies in the same range. A return is a sum over steps, so that
    only its sign is certain: at least 0 where no reward is negative, at most 0 where none is positive.
    """
    low, high = as_range(stream.get("reward_range"))
    if not stream["episodic"]:
        return low, high
    return 0.0 if low >= 0 else -math.inf, 0.0 if high <= 0 else math.inf


def difference_range(limits: Range) -> Range:
    """Of the difference of two numbers that have these limits."""
    low, high = limits
    return low - high, high - low


def metric_ranges(plan: Mapping[str, Any]) -> dict[str, Range]:
    """Of the monitors' metrics that declare one, by name."""
    return {name: as_range(limits) for name, limits in plan.get("ranges", {}).items()}
