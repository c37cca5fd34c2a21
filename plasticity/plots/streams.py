"""What figures show of a stream: where its visits begin, and the names of its tasks."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from plasticity.plots.style import FEW, SWITCH_COLOUR

VARIOUS = "various"  # the task of a visit that is not the same in all lanes
MOST_SWITCHES = 150  # lines that can still be told apart over the width of a page


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


def mark_switches(axes: Axes, visits: list[Stay]) -> None:
    """Light vertical lines where tasks change; every k-th where there are very many."""
    step = math.ceil(len(visits) / MOST_SWITCHES)
    for stay in visits[1:][::step]:
        axes.axvline(stay.start, color=SWITCH_COLOUR, linewidth=0.8 if len(visits) <= FEW else 0.4, zorder=0.5)


def name_tasks(axes: Axes, visits: list[Stay], width: float) -> None:
    """Task names above axes ``width`` inches wide, in the middle of their visits; every k-th where there is no room.

    None where there are very many visits: every k-th name would tell nothing.
    """
    if len({stay.task for stay in visits}) < 2 or len(visits) > MOST_SWITCHES:
        return
    widest = max(len(stay.task) for stay in visits)
    upright = len(visits) * (0.066 * widest + 0.1) <= width
    step = 1 if upright else math.ceil(0.3 * len(visits) / width)
    chosen = visits[::step]
    top = axes.secondary_xaxis("top")
    top.set_xticks([(stay.start + stay.end) / 2 for stay in chosen], [stay.task for stay in chosen])
    top.tick_params(length=0, labelsize=7.5, pad=2, labelrotation=0 if upright else 40)
    for text in top.get_xticklabels():
        text.set_horizontalalignment("center" if upright else "left")
        text.set_rotation_mode("anchor")
    top.spines["top"].set_visible(False)


def visit_counts(tasks: pd.Series) -> np.ndarray:
    """For each visit how often its task had been visited before; ``tasks`` are the names by visit, in order."""
    return tasks.groupby(tasks).cumcount().to_numpy()


def ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
