"""One row per arm, with an early and a late value."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from plasticity.plots.style import Bounds, Series, intervals

APART = 0.17  # vertical offset of the two values from the middle of a row, as a share of the row


def draw_rows(axes: Axes, lines: Sequence[Series], ends: tuple[str, str], bounds: Bounds) -> None:
    """Draw one row per line: an open dot for the first column and a filled one for the second, both with intervals.

    A line's table has one row per lane.
    """
    for place, line in enumerate(lines):
        colour, shape = line.look["color"], line.look["marker"] or "X"
        at = []
        for end, y, fill in zip(ends, (place - APART, place + APART), ("white", colour), strict=True):
            for mean, low, high in _interval(line.rows, end, bounds):
                axes.hlines(y, low, high, color=colour, linewidth=1.1)
                axes.plot(mean, y, shape, color=colour, markerfacecolor=fill, markersize=5)
                at.append((mean, y))
        if len(at) == 2:
            axes.plot(*zip(*at, strict=True), color=colour, linewidth=0.7, alpha=0.6, zorder=0.9)
    axes.set_yticks(range(len(lines)), [line.label for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")


def _interval(rows: pd.DataFrame, value: str, bounds: Bounds) -> list[tuple[float, float, float]]:
    """Mean and interval bounds over lanes; empty if no lane has a value."""
    found = intervals(rows.assign(all=0), value, "all", bounds)[["mean", "low", "high"]]
    return [(mean, low, high) for mean, low, high in found.itertuples(index=False)]


def row_keys(first: str, later: str) -> list[Line2D]:
    """Legend handles for the open and the filled dots."""
    look = {"linestyle": "", "marker": "o", "color": "#606060", "markersize": 5}
    return [Line2D([], [], label=first, markerfacecolor="white", **look), Line2D([], [], label=later, **look)]  # type: ignore[arg-type]
