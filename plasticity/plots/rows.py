"""Rows with the names of arms: what was first, what came later."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from plasticity.plots.style import Bounds, Series, intervals

APART = 0.17  # of a row: the first lies so far above its middle, the later so far below


def draw_rows(axes: Axes, lines: Sequence[Series], ends: tuple[str, str], bounds: Bounds) -> None:
    """A row for each line: an open dot for the first of two columns, a full one for the second, both with intervals.

    The rows of a line are one for each lane.
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
    """Mean, low and high over lanes; empty where no lane has a value."""
    found = intervals(rows.assign(all=0), value, "all", bounds)[["mean", "low", "high"]]
    return [(mean, low, high) for mean, low, high in found.itertuples(index=False)]


def row_keys(first: str, later: str) -> list[Line2D]:
    """What open and full dots are, for a legend."""
    look = {"linestyle": "", "marker": "o", "color": "#606060", "markersize": 5}
    return [Line2D([], [], label=first, markerfacecolor="white", **look), Line2D([], [], label=later, **look)]  # type: ignore[arg-type]
