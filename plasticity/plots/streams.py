"""What figures show of a stream: where its visits begin, and the names of its tasks."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from plasticity.plots.style import FEW, SWITCH_COLOUR, text_width

VARIOUS = "various"  # the task of a visit that is not the same in all lanes
MOST_SWITCHES = 150  # ticks that can still be told apart over the width of a page
MOST_LINES = 20  # across a panel
NAME, ROW, MOST_ROWS = 7.5, 9.5, 3  # points of a task's name and of a row of them; rows
STEPS = tuple(digit * 10**power for power in range(7) for digit in (1, 2, 5))  # from one numbered visit to the next


class Stay(NamedTuple):
    """One visit on the horizontal axis."""

    visit: int
    task: str
    start: float
    end: float


def stays(metrics: pd.DataFrame, x: str) -> list[Stay]:
    """The visits that the metrics have reached, in order."""
    ends = metrics.groupby("visit")[x].max().sort_index()
    starts, tasks = ends.shift(fill_value=0), task_names(metrics).reindex(ends.index)
    return [
        Stay(int(visit), str(task), float(start), float(end))
        for visit, task, start, end in zip(ends.index, tasks, starts, ends, strict=True)
    ]


def task_names(table: pd.DataFrame) -> pd.Series:
    """The task of each visit; ``various`` where it is not the same in all lanes.

    ``ValueError`` where the table's runs have different streams, as far as their tasks tell.
    """
    keys = [name for name in ("run", "visit", "task") if name in table]
    pairs = table[keys].drop_duplicates().astype({"task": str})
    own = pairs.groupby(keys[:-1], observed=True)["task"].agg(
        lambda names: names.iloc[0] if len(names) == 1 else VARIOUS
    )
    if "run" in table:
        check_same(own.unstack("run"))
    return pairs.groupby("visit")["task"].agg(lambda names: names.iloc[0] if names.nunique() == 1 else VARIOUS)


def check_same(tasks: pd.DataFrame) -> None:
    """``tasks``: by visit and run."""
    first = tasks.columns[0]
    for other in tasks.columns[1:]:
        both = tasks[[first, other]].dropna()
        unlike = both[both[first] != both[other]]
        if len(unlike):
            visit, (one, two) = unlike.index[0] + 1, unlike.iloc[0]
            raise ValueError(
                f"{first} and {other} are runs of different streams: visit {visit} is to {one!r} and to {two!r}; "
                "draw each by itself"
            )


def mark_switches(axes: Axes, visits: Sequence[Stay]) -> None:
    """Light vertical lines where tasks change; none where they would hide the curve."""
    if len(visits) <= MOST_LINES:
        for stay in visits[1:]:
            axes.axvline(stay.start, color=SWITCH_COLOUR, linewidth=0.8, zorder=0.5)


def name_tasks(axes: Axes, visits: Sequence[Stay]) -> None:
    """What visits are, above axes that have their final width: the names of their tasks, or else numbers.

    Names stand in the middle of their visits, in up to three rows where they would touch. Visits are numbered where
    there are many, or where the names have no room.
    """
    several = len({stay.task for stay in visits}) > 1
    if len(visits) > FEW:
        _number_visits(axes, visits)
    elif several:
        rows = _rows_of_names(visits, _inches(axes) / (axes.get_xlim()[1] - axes.get_xlim()[0]))
        if rows is None:
            _number_visits(axes, visits)
        for stay, row in zip(visits, rows or (), strict=False):
            axes.annotate(
                stay.task, ((stay.start + stay.end) / 2, 1), (0, 3 + ROW * row), xycoords=axes.get_xaxis_transform(),
                textcoords="offset points", ha="center", va="bottom", fontsize=NAME,
            )  # fmt: skip


def _inches(axes: Axes) -> float:
    """The width of axes as the layout has made them."""
    figure: Any = axes.get_figure()
    figure.draw_without_rendering()
    return float(axes.get_window_extent().width / figure.dpi)


def _rows_of_names(visits: Sequence[Stay], scale: float) -> list[int] | None:
    """The lowest row for each name in which it touches none before it; None where three are not enough.

    ``scale``: inches of a step. A name may reach as far beyond the axes as half of it is long.
    """
    ends, rows = [-math.inf] * MOST_ROWS, []
    for stay in visits:
        middle, half = scale * (stay.start + stay.end) / 2, text_width(stay.task, NAME) / 2
        free = [row for row, end in enumerate(ends) if middle - half > end]
        if not free or half > scale * (visits[-1].end - visits[0].start) / 2:
            return None
        ends[free[0]] = middle + half + 0.08
        rows.append(free[0])
    return rows


def _number_visits(axes: Axes, visits: Sequence[Stay]) -> None:
    """A tick at every switch (of up to 150), a number at a few visits."""
    count, chosen = len(visits), _numbered(visits, _inches(axes) / visits[-1].end)
    top = axes.secondary_xaxis("top")
    top.set_xticks([(stay.start + stay.end) / 2 for stay in chosen], [str(stay.visit + 1) for stay in chosen])
    if count <= MOST_SWITCHES:
        top.set_xticks([stay.start for stay in visits[1:]], minor=True)
    top.tick_params(which="major", length=0, labelsize=NAME, pad=3)
    top.tick_params(which="minor", length=2.5, width=0.6, color="#A0A0A0", direction="out")
    top.set_xlabel("visit", fontsize=NAME)
    top.spines["top"].set_visible(False)


def _numbered(visits: Sequence[Stay], scale: float) -> list[Stay]:
    """The first visit and every k-th, those that do not touch; ``scale``: inches of a step."""
    step = next(each for each in STEPS if len(visits) / each <= max(2.0, scale * visits[-1].end / 0.5))
    chosen, end = [], -math.inf
    for stay in visits:
        middle, half = scale * (stay.start + stay.end) / 2, 0.035 * len(str(stay.visit + 1)) + 0.04
        if (stay.visit == 0 or (stay.visit + 1) % step == 0) and middle - half > end:
            chosen.append(stay)
            end = middle + half
    return chosen


def visit_counts(tasks: pd.Series) -> np.ndarray:
    """For each visit how often its task had been visited before; ``tasks`` are the names by visit, in order."""
    return tasks.groupby(tasks).cumcount().to_numpy()


def ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
