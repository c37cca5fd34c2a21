"""Intervals that end where the range of their number does: Student's t knows of no bound."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from plasticity import results
from plasticity.results.ranges import Range, as_range

STAGES = ("first", "last")
ONCE, TWICE = ("gap", "own"), ("change",)  # differences, and differences of differences


def cut(mean: float, low: float, high: float, limits: Range) -> tuple[float, float]:
    """``low`` and ``high`` cut at the limits; an interval that ends beyond them with its mean ends at the mean."""
    return min(mean, max(low, limits[0])), max(mean, min(high, limits[1]))


def cut_stages(row: Mapping[str, float | None], limits: Range) -> dict[str, float | None]:
    """A row of the summary with its intervals cut.

    Args:
      row: ``first, first_low, first_high`` and so on; None where there is no number.
      limits: of the performance.
    """
    found, once = dict(row), results.difference_range(limits)
    twice = results.difference_range(once)
    for names, own in ((STAGES, limits), (ONCE, once), (TWICE, twice)):
        for name in names:
            mean, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
            if mean is not None and low is not None and high is not None:
                found[f"{name}_low"], found[f"{name}_high"] = cut(mean, low, high, own)
    return found


def chart_ranges(plan: Mapping[str, Any], columns: Sequence[str]) -> dict[str, list[float | None]]:
    """The ranges of what charts show, by name, null for no bound; parts of units have that of their whole."""
    stream = plan["stream"]
    whole = results.metric_ranges(plan)
    bases = {name: name.partition("/")[0] for name in columns}
    parts = {name: whole[base] for name, base in bases.items() if base.endswith("_units") and base in whole}
    own = dict.fromkeys(("performance", "performance_end", "episodic_return"), results.performance_range(stream))
    found = parts | whole | own | {"reward": as_range(stream.get("reward_range"))}
    return {
        name: [limit if math.isfinite(limit) else None for limit in limits]
        for name, limits in found.items()
        if any(map(math.isfinite, limits))
    }
