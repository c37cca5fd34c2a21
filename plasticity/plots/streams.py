"""The parts of a figure that show the stream: where visits begin, and the names of tasks."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from plasticity.plots.style import FEW, SWITCH_COLOUR, text_width

TIMES = ("step", "frames")  # the same in all lanes
VARIOUS = "various"  # the task of a visit that is not the same in all lanes
MOST_SWITCHES = 150  # more ticks cannot be distinguished across a page
MOST_LINES = 20  # per panel
NAME, ROW, MOST_ROWS = 7.5, 9.5, 3  # font size of task names and height of a row of them, in points; rows
STEPS = tuple(digit * 10**power for power in range(7) for digit in (1, 2, 5))  # distances between numbered visits


class Stay(NamedTuple):
    """One visit on the horizontal axis."""

    visit: int
    task: str
    start: float
    end: float


def stays(metrics: pd.DataFrame, x: str) -> list[Stay]:
    """The visits that the metrics cover, in order; one for the whole stream if the arms switch at other places of it.

    Arms have equal env steps at a switch, but need not have equal updates or FLOPs.
    """
    ends = metrics.groupby("visit")[x].max().sort_index()
    if x not in TIMES and not _switch_together(metrics, x):
        return [Stay(0, VARIOUS, 0.0, float(ends.max()))]
    starts, tasks = ends.shift(fill_value=0), task_names(metrics).reindex(ends.index)
    return [
        Stay(int(visit), str(task), float(start), float(end))
        for visit, task, start, end in zip(ends.index, tasks, starts, ends, strict=True)
    ]


def _switch_together(metrics: pd.DataFrame, x: str) -> bool:
    """Whether all arms of all runs are at the same place at the end of each visit."""
    owners = [name for name in ("run", "arm") if name in metrics]
    ends = metrics.groupby([*owners, "visit"], observed=True)[x].max().groupby("visit").agg(["min", "max"])
    return bool(np.isclose(ends["min"], ends["max"], rtol=1e-6).all())


def task_names(table: pd.DataFrame) -> pd.Series:
    """The task of each visit; ``various`` if it differs between lanes.

    ``ValueError`` if the runs in the table differ in the tasks of their visits.
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
    """``ValueError`` if the runs have different tasks; ``tasks``: by visit and run."""
    first = tasks.columns[0]
    for other in tasks.columns[1:]:
        both = tasks[[first, other]].dropna()
        unlike = both[both[first] != both[other]]
        if len(unlike):
            visit, (one, two) = unlike.index[0] + 1, unlike.iloc[0]
            raise ValueError(
                f"{first} and {other} are runs of different streams: visit {visit} is to {one!r} and to {two!r}; "
                "draw each separately"
            )


def mark_switches(axes: Axes, visits: Sequence[Stay]) -> None:
    """Draw light vertical lines at task switches, unless so many that they would hide the curve."""
    if len(visits) <= MOST_LINES:
        for stay in visits[1:]:
            axes.axvline(stay.start, color=SWITCH_COLOUR, linewidth=0.8, zorder=0.5)


def name_tasks(axes: Axes, visits: Sequence[Stay]) -> None:
    """Label the visits above axes that have their final width, by task name or by number.

    Names are centred above their visits, in up to three rows to avoid overlap. Visits are numbered if there are many,
    or if the names do not fit.
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
    """The width of the axes after layout."""
    figure: Any = axes.get_figure()
    figure.draw_without_rendering()
    return float(axes.get_window_extent().width / figure.dpi)


def _rows_of_names(visits: Sequence[Stay], scale: float) -> list[int] | None:
    """The lowest row for each name in which it does not touch an earlier one; None if three rows are not enough.

    ``scale``: inches per step. A name may extend beyond the axes by half its length.
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
    """Draw a tick at every switch (up to 150), and number some of the visits."""
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
    """The first visit and every k-th, so that the numbers do not touch; ``scale``: inches per step."""
    step = next(each for each in STEPS if len(visits) / each <= max(2.0, scale * visits[-1].end / 0.5))
    chosen, end = [], -math.inf
    for stay in visits:
        middle, half = scale * (stay.start + stay.end) / 2, 0.035 * len(str(stay.visit + 1)) + 0.04
        if (stay.visit == 0 or (stay.visit + 1) % step == 0) and middle - half > end:
            chosen.append(stay)
            end = middle + half
    return chosen


def visit_counts(tasks: pd.Series) -> np.ndarray:
    """For each visit, the number of earlier visits to its task; ``tasks``: the task names by visit, in order."""
    return tasks.groupby(tasks).cumcount().to_numpy()


def ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
