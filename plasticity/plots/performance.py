"""Performance by visit: the figure that shows whether plasticity was lost."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.plots.legend import canvas, finish, finish_panel, grid, label_side, page
from plasticity.plots.options import PLAIN, Options
from plasticity.plots.streams import VARIOUS, ordinal, task_names, visit_counts
from plasticity.plots.style import (
    FEW,
    UNBOUNDED,
    Bounds,
    Drawn,
    Series,
    check_column,
    draw_visits,
    series,
    styled,
    text_width,
)


@styled
def performance(
    visits: pd.DataFrame,
    *,
    measure: str = "performance",
    label: str = "performance",
    by_task: bool = False,
    bounds: Bounds = UNBOUNDED,
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
    axes: Axes | None = None,
) -> Drawn:
    """Draw performance by visit: means over seeds, one line per arm, with 95 % t intervals clipped to ``bounds``.

    ``figures(run, names=["performance"])`` takes ``label``, ``by_task``, ``bounds`` and ``controls`` from the run.

    Args:
      visits: a table of :func:`plasticity.results.visits`.
      measure: the column to draw.
      label: label of the vertical axis.
      by_task: a panel with its own scale for each task, for returns that are not comparable between tasks.
      bounds: the smallest and largest possible values.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in dashed grey.
      options: the arms, their labels and the figure size.
      axes: the axes to draw on, returned instead of a figure; not with ``by_task``.

    Raises:
      ValueError: ``visits`` has no values to draw, no such column, or runs of different streams.
      UserError: ``options`` that do not fit the table.
    """
    check_column(visits, measure)
    if not visits[measure].notna().any():
        raise ValueError(f"{measure} has no values in this table: no visit has been finished")
    lines, what = series(visits, hyper, controls, options), _PlotSpec(measure, label, bounds)
    tasks = task_names(visits)
    if by_task:
        return _panels(lines, tasks, what, options)
    own, axes = axes is None, canvas(axes, options=options)
    axes.set(xlabel="visit", ylabel=label)
    draw_visits(axes, lines, list(tasks.index), measure, bounds)
    if len(tasks) <= FEW:
        axes.set_xticks(range(len(tasks)), _tick_labels(tasks, options.width - (2.8 if options.width > 6 else 0.8)))
    else:
        _mark_returns(axes, tasks)
    return finish_panel(axes, lines, own, options=options)


class _PlotSpec(NamedTuple):
    """What is drawn."""

    measure: str
    label: str
    bounds: Bounds


def _tick_labels(tasks: pd.Series, width: float) -> list[str]:
    """Each visit's number, with the task's name and "2nd visit" if there are several tasks and enough space.

    ``width``: space for all labels together, in inches.
    """
    numbers = [str(visit + 1) for visit in tasks.index]
    again = [f"\n({ordinal(count + 1)} visit)" if count else "" for count in visit_counts(tasks)]
    named = [f"{number}\n{task}{note}" for number, task, note in zip(numbers, tasks, again, strict=True)]
    if tasks.nunique() < 2 or max(map(text_width, named)) + 0.08 > width / len(tasks):
        return numbers
    return named


def _mark_returns(axes: Axes, tasks: pd.Series) -> None:
    """Draw a bar above the visits to tasks that were visited before."""
    again = tasks.index[visit_counts(tasks) > 0] + 1
    if tasks.nunique() > 1 and len(again):
        transform = axes.get_xaxis_transform()
        axes.plot(again, [1.02] * len(again), "|", color="#808080", markersize=5, transform=transform, clip_on=False)
        axes.annotate("task visited before", (again[0], 1.02), (0, 5), color="#606060", xycoords=transform,
                      textcoords="offset points", fontsize=7.5)  # fmt: skip


def _panels(lines: Sequence[Series], tasks: pd.Series, what: _PlotSpec, options: Options) -> Figure:
    """Draw one panel per task; its ticks are the numbers of the visits to it along the stream.

    If each seed has its own order of tasks, a panel shows the first, second, ... visit of all seeds to the task.
    """
    own = VARIOUS in set(tasks)
    names = sorted({str(name) for line in lines for name in line.rows["task"]}) if own else list(dict.fromkeys(tasks))
    rows, columns = grid(len(names), 4, options.width)
    figure = page(options, 0.6 + 2.3 * rows, rows)
    for place, name in enumerate(names):
        mine = [line._replace(rows=_counted(line.rows, name)) if own else line for line in lines]
        order = (
            sorted({int(k) for line in mine for k in line.rows["visit"]}) if own else list(tasks.index[tasks == name])
        )
        axes = figure.add_subplot(rows, columns, place + 1, title=name, xlabel="visit to the task" if own else "visit")
        draw_visits(axes, mine, order, what.measure, what.bounds)
    label_side(figure, what.label)
    return finish(figure, lines, options=options)


def _counted(rows: pd.DataFrame, task: str) -> pd.DataFrame:
    """The rows of one task, with its visits numbered lane by lane."""
    keys = [name for name in ("run", "arm", "lane") if name in rows]
    mine = rows[rows["task"].astype(str) == task]
    return mine.assign(visit=mine.groupby(keys, observed=True).cumcount())
