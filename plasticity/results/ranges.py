"""Ranges of the recorded quantities, as declared in a run's plan."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Range = tuple[float, float]
UNBOUNDED: Range = (-math.inf, math.inf)


def as_range(limits: Sequence[float | None] | None) -> Range:
    """Convert limits from a plan, where null means unbounded. Plans of older versions have no limits."""
    low, high = limits or (None, None)
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def performance_range(stream: Mapping[str, Any]) -> Range:
    """Return the range of the performance on a run's stream, ``plan(run)["stream"]``.

    The plan contains the range of one step's reward. A mean lies in the same range. A return is a sum over steps, so
    only its sign is known: at least 0 if no reward is negative, at most 0 if none is positive.
    """
    low, high = as_range(stream.get("reward_range"))
    if not stream["episodic"]:
        return low, high
    return 0.0 if low >= 0 else -math.inf, 0.0 if high <= 0 else math.inf


def difference_range(limits: Range) -> Range:
    """Return the range of the difference of two numbers within these limits."""
    low, high = limits
    return low - high, high - low


def evaluated_stream(plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the facts about where a run is evaluated: in its stream, or in the environments of its datasets."""
    found: Mapping[str, Any] = plan.get("evaluation") or plan["stream"]
    return found


def metric_ranges(plan: Mapping[str, Any]) -> dict[str, Range]:
    """Return the ranges of the metrics that have one, by name: what monitors declare, and evaluations."""
    played = evaluated_stream(plan)
    evaluated = {
        "evaluation_reward": as_range(played.get("reward_range")),
        "evaluation_return": performance_range({**played, "episodic": True}),
    }
    return evaluated | {name: as_range(limits) for name, limits in plan.get("ranges", {}).items()}
