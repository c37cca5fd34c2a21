"""Performance visit by visit: the figure that shows whether plasticity was lost."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plasticity.plots.streams import VARIOUS, ordinal, task_names, visit_counts
from plasticity.plots.style import (
    FEW,
    WIDTH,
    Drawn,
    Series,
    canvas,
    check_column,
    draw_curve,
    finish,
    finish_panel,
    intervals,
    series,
    styled,
)


@styled
def performance(
    visits: pd.DataFrame,
    *,
    measure: str = "performance",
    label: str = "performance",
    by_task: bool = False,
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    axes: Axes | None = None,
) -> Drawn:
    """The mean over seeds of each visit's performance, one line for each arm, with 95 % t intervals.

    Args:
      visits: a table of :func:`plasticity.results.visits`.
      measure: the column to draw.
      label: of the vertical axis.
      by_task: a panel with its own scale for each task, for returns that can't be compared between tasks.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in dashed grey.
      axes: to draw on, and to return instead of a figure; not with ``by_task``.

    Raises:
      ValueError: ``visits`` has no value to draw, no such column, or runs of different streams.
    """
    check_column(visits, measure)
    if not visits[measure].notna().any():
        raise ValueError(f"{measure} has no value in this table: no visit has been finished")
    lines = series(visits, hyper, controls)
    tasks = task_names(visits)
    if by_task:
        return _panels(lines, tasks, measure, label)
    own, axes = axes is None, canvas(axes)
    axes.set_ylabel(label)
    if len(tasks) <= FEW:
        _few(axes, lines, list(tasks.index), measure)
        axes.set_xticks(range(len(tasks)), _tick_labels(tasks))
        axes.set_xlabel("visit")
    else:
        _many(axes, lines, tasks, measure)
    return finish_panel(axes, lines, own)


def _few(axes: Axes, lines: Sequence[Series], order: list[int], measure: str) -> None:
    """Points with error bars, the arms side by side."""
    spread = min(0.09, 0.7 / len(lines))
    for place, line in enumerate(lines):
        found = intervals(line.rows[line.rows["visit"].isin(order)], measure, "visit")
        x = [order.index(visit) + spread * (place - (len(lines) - 1) / 2) for visit in found.index]
        look = {**line.look, "marker": line.look["marker"] or "_"}
        axes.plot(x, found["mean"], label=line.label, linewidth=0.9, **look)
        axes.vlines(x, found["low"], found["high"], color=look["color"], linewidth=1.1)
    axes.set_xlim(-0.6, len(order) - 0.4)


def _tick_labels(tasks: pd.Series) -> list[str]:
    """The visit's number, its task's name where there are several tasks, and "2nd visit" where it returns."""
    numbers = [str(visit + 1) for visit in tasks.index]
    if tasks.nunique() < 2:
        return numbers
    again = [f"\n({ordinal(count + 1)} visit)" if count else "" for count in visit_counts(tasks)]
    return [f"{number}\n{task}{note}" for number, task, note in zip(numbers, tasks, again, strict=True)]


def _many(axes: Axes, lines: Sequence[Series], tasks: pd.Series, measure: str) -> None:
    """Lines with bands over the number of the visit; a bar under the visits that return to a task."""
    for place, line in enumerate(lines):
        found = intervals(line.rows, measure, "visit")
        draw_curve(axes, line, found, found.index.to_numpy() + 1, len(lines), place)
    axes.set_xlabel("visit")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.01)
    again = tasks.index[visit_counts(tasks) > 0] + 1
    if tasks.nunique() > 1 and len(again):
        transform = axes.get_xaxis_transform()
        axes.plot(again, [1.02] * len(again), "|", color="#808080", markersize=5, transform=transform, clip_on=False)
        axes.annotate("task visited before", (again[0], 1.02), (0, 5), color="#606060", xycoords=transform,
                      textcoords="offset points", fontsize=7.5)  # fmt: skip


def _own_panels(lines: Sequence[Series], measure: str, label: str) -> Figure:
    """Where each seed meets tasks in an order of its own: a task's panel has its first, second, ... visit of all."""
    keys = [name for name in ("run", "arm", "lane", "task") if name in lines[0].rows]
    counted = [
        line._replace(rows=line.rows.assign(visit=line.rows.groupby(keys, observed=True).cumcount())) for line in lines
    ]
    names = list(dict.fromkeys(name for line in lines for name in line.rows["task"].astype(str)))
    columns = min(len(names), 4)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 2.3 * rows), layout="constrained")
    for place, name in enumerate(sorted(names)):
        mine = [line._replace(rows=line.rows[line.rows["task"].astype(str) == name]) for line in counted]
        order = sorted({int(visit) for line in mine for visit in line.rows["visit"]})
        axes = figure.add_subplot(rows, columns, place + 1, title=name, xlabel="visit to it")
        axes.set_ylabel(label if place % columns == 0 else "")
        _few(axes, mine, order, measure)
        axes.set_xticks(range(len(order)), [str(visit + 1) for visit in order])
    return finish(figure, lines)


def _panels(lines: Sequence[Series], tasks: pd.Series, measure: str, label: str) -> Figure:
    if VARIOUS in set(tasks):
        return _own_panels(lines, measure, label)
    names = list(dict.fromkeys(tasks))
    columns = min(len(names), 4)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(WIDTH, 0.6 + 2.3 * rows), layout="constrained")
    for place, name in enumerate(names):
        order = list(tasks.index[tasks == name])
        axes = figure.add_subplot(rows, columns, place + 1, title=name, xlabel="visit")
        axes.set_ylabel(label if place % columns == 0 else "")
        _few(axes, lines, order, measure)
        axes.set_xticks(range(len(order)), [str(visit + 1) for visit in order])
        if len(order) > FEW:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return finish(figure, lines)
