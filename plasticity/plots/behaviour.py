"""Behaviour along a stream: later visits compared with the first, and learning speed compared with the control."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from plasticity.plots.legend import (
    finish,
    finish_panel,
    grid,
    label_bottom,
    label_lowest,
    label_side,
    page,
    row_names,
    seeds_note,
    ticks,
)
from plasticity.plots.options import PLAIN, Options
from plasticity.plots.rows import draw_rows, row_keys
from plasticity.plots.style import (
    UNBOUNDED,
    Bounds,
    Drawn,
    Series,
    check_column,
    draw_visits,
    series,
    styled,
    text_width,
    wrapped,
)
from plasticity.plots.text import NARROW, fitted
from plasticity.results import Scores

MOST_CURVES = 12  # more than these cannot be distinguished; each arm then has its own row
NAMES = {"difference": "area - control's area", "relative_speed": "relative learning speed", "area": "area"}


@styled
def first_against_later(
    revisits: Scores,
    *,
    label: str = "performance",
    by_task: bool = True,
    bounds: Bounds = UNBOUNDED,
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
    axes: Axes | None = None,
) -> Drawn:
    """Draw performance at the first and at later visits to a task: one row per arm, one panel per task.

    An open dot is the first visit, a filled one the mean of a lane's later visits. Both are means over seeds with 95 %
    t intervals clipped to ``bounds``. Each panel has its own scale.

    Args:
      revisits: from :func:`plasticity.results.revisits`.
      label: what is measured, with its unit.
      by_task: if False, one panel with each lane's mean over all tasks, for returns that are comparable.
      bounds: the smallest and largest possible values.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in grey.
      options: the arms, their labels and the figure size.
      axes: the axes to draw on, returned instead of a figure; means over all tasks.

    Raises:
      ValueError: no task has been visited twice, or one panel is requested for tasks that are not comparable.
      UserError: ``options`` that do not fit the table.
    """
    table = revisits.lanes.dropna(subset=["first", "later"])
    if table.empty:
        raise ValueError("no task has been visited twice")
    together = axes is not None or not by_task
    if together and revisits.overall["first"].isna().all() and table["task"].nunique() > 1:
        raise ValueError("the rewards of these tasks are of several kinds and have no common mean; use by_task=True")
    lines = [_of_lanes(line) for line in series(table, hyper, controls, options)]
    tasks = [""] if together else list(dict.fromkeys(table["task"].astype(str)))
    if axes is not None:
        _task_rows(axes, lines, "", bounds)
        axes.set_xlabel(label)
        axes.legend(handles=row_keys("first visit", "later visits"), loc="best")
        return axes
    return _row_panels(lines, tasks, label, bounds, options)


def _of_lanes(line: Series) -> Series:
    """``first`` and the mean of ``later`` for each lane and task."""
    keys = [name for name in ("run", "arm", "lane", "seed", "task") if name in line.rows]
    return line._replace(rows=line.rows.groupby(keys, observed=True)[["first", "later"]].mean().reset_index())


def _task_rows(axes: Axes, lines: Sequence[Series], task: str, bounds: Bounds) -> None:
    """Draw the rows of one task; if ``task`` is empty, those of each lane's mean over its tasks."""
    shown = []
    for line in lines:
        rows = line.rows[line.rows["task"].astype(str) == task] if task else line.rows
        shown.append(line._replace(rows=rows.groupby(["lane"])[["first", "later"]].mean().reset_index()))
    draw_rows(axes, shown, ("first", "later"), bounds)


def _row_panels(lines: Sequence[Series], tasks: Sequence[str], label: str, bounds: Bounds, options: Options) -> Drawn:
    names, taken, row = row_names(lines, options.width)
    lines = [line._replace(label=name) for line, name in zip(lines, names, strict=True)]
    room = options.width - taken - 0.3
    rows, columns = grid(len(tasks), max(1, min(4, int(room / (1.3 if options.width >= NARROW else 0.8)))))
    figure = page(options, 1.25 + (0.55 + row * len(lines)) * rows, rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, task in zip(panels.flat, tasks, strict=False):
        _task_rows(panel, lines, task, bounds)
        panel.set_title(fitted(task, room / columns - 0.1, 8.5), fontsize=8.5)
        panel.xaxis.set_major_locator(ticks(room / columns + 0.1))
    label_lowest(panels, len(tasks), "")
    label_bottom(figure, label)
    return keyed(figure, lines, ("first visit to the task", "mean of later visits"), options)


def keyed(figure: Any, lines: Sequence[Series], ends: tuple[str, str], options: Options) -> Drawn:
    """Add a key to the dots at the top; the axis label is at the bottom."""
    stacked = 2 * 0.6 + sum(map(text_width, ends)) > options.width - 0.4
    note = wrapped(seeds_note(lines), options.width - 0.3)
    legend = figure.legend(handles=row_keys(*ends), loc="outside upper center", ncols=1 if stacked else 2, title=note)
    legend.get_title().set_multialignment("center")
    return figure


@styled
def learning_speed(
    table: pd.DataFrame,
    *,
    value: str = "difference",
    label: str | None = None,
    by_task: bool = False,
    bounds: Bounds = UNBOUNDED,
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
    axes: Axes | None = None,
) -> Drawn:
    """Draw the learning speed in each visit relative to the control: means over seeds with 95 % t intervals.

    The value of each visit is drawn as it is; no line is fitted. Below zero, an arm learns more slowly than the control
    in the same visit. With more than 12 arms, each arm has a row with its means over the first and the last tenth of
    the visits. Intervals are clipped to ``bounds``.

    Args:
      table: the lanes of :func:`plasticity.results.relative_learning_speed`, or a table of
        :func:`plasticity.results.learning_curves_area` (with ``value="area"``).
      value: ``difference`` (to the control's area), ``relative_speed`` or ``area``.
      label: label of the vertical axis; by default, a description of ``value``.
      by_task: a panel with its own scale for each task, for returns that are not comparable between tasks.
      bounds: the smallest and largest possible values; for a difference, those of the difference.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in dashed grey.
      options: the arms, their labels and the figure size.
      axes: the axes to draw on, returned instead of a figure; not with ``by_task``.

    Raises:
      ValueError: no such column, or one without values.
      UserError: ``options`` that do not fit the table.
    """
    check_column(table, value)
    if not table[value].notna().any():
        raise ValueError(f"{value} has no values in this table")
    lines = series(table, hyper, controls, options)
    label = label or NAMES.get(value, value)
    tasks = list(dict.fromkeys(table["task"].astype(str))) if by_task else [""]
    if axes is not None:
        _speeds(axes, lines, value, bounds)
        axes.set(xlabel="visit", ylabel=label)
        return finish_panel(axes, lines, own=False)
    if len(lines) > MOST_CURVES:
        return _early_and_late(lines, tasks, value, label, bounds, options)
    rows, columns = grid(len(tasks), 4, options.width)
    figure = page(options, 3.6 if len(tasks) == 1 else 0.6 + 2.3 * rows, rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel, task in zip(panels.flat, tasks, strict=False):
        _speeds(panel, [_on(line, task) for line in lines], value, bounds)
        panel.set_title(task, fontsize=8.5)
    label_lowest(panels, len(tasks), "visit")
    label_side(figure, label)
    return finish(figure, lines, options=options)


def _on(line: Series, task: str) -> Series:
    return line._replace(rows=line.rows[line.rows["task"].astype(str) == task]) if task else line


def _speeds(axes: Axes, lines: Sequence[Series], value: str, bounds: Bounds) -> None:
    order = sorted({int(visit) for line in lines for visit in line.rows.dropna(subset=value)["visit"]})
    draw_visits(axes, lines, order, value, bounds)
    if value != "area":
        axes.axhline(0, color="#808080", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)


def _early_and_late(
    lines: Sequence[Series], tasks: Sequence[str], value: str, label: str, bounds: Bounds, options: Options
) -> Drawn:
    """Draw many arms: one row per arm, one panel per task."""
    names, taken, row = row_names(lines, options.width)
    lines = [line._replace(label=name) for line, name in zip(lines, names, strict=True)]
    room = options.width - taken - 0.3
    rows, columns = grid(len(tasks), max(1, min(3, int(room / 1.2))))
    figure = page(options, 1.25 + (0.4 + row * len(lines)) * rows, rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, task in zip(panels.flat, tasks, strict=False):
        shown = [line._replace(rows=_stages(_on(line, task).rows, value)) for line in lines]
        draw_rows(panel, shown, ("first", "last"), bounds)
        panel.axvline(0, color="#808080", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
        panel.set_title(fitted(task, room / columns - 0.1, 8.5), fontsize=8.5)
        panel.xaxis.set_major_locator(ticks(room / columns))
    label_lowest(panels, len(tasks), "")
    label_bottom(figure, label)
    return keyed(figure, lines, ("first tenth of the visits", "last tenth"), options)


def _stages(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """``lane, first, last``: each lane's means over the first and the last tenth of the visits."""
    visits = np.sort(rows["visit"].unique())
    length = max(1, len(visits) // 10)
    means = {
        name: rows[rows["visit"].isin(part)].groupby("lane")[value].mean()
        for name, part in (("first", visits[:length]), ("last", visits[-length:]))
    }
    return pd.DataFrame(means).reset_index()
