"""Curves along the whole stream: the learning curve, and one panel per monitor."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plasticity.plots.legend import (
    finish,
    finish_panel,
    grid,
    label_bottom,
    label_lowest,
    label_side,
    page,
    row_height,
    seeds_note,
)
from plasticity.plots.options import PLAIN, Options
from plasticity.plots.streams import VARIOUS, Stay, mark_switches, name_tasks, stays
from plasticity.plots.style import (
    BEHIND,
    FEW,
    UNBOUNDED,
    Bounds,
    Drawn,
    Series,
    check_column,
    count_axis,
    draw_curve,
    intervals,
    series,
    styled,
    swept_columns,
    within,
)
from plasticity.plots.text import fitted
from plasticity.plots.thin import smoothed, thinned
from plasticity.results.read import IDENTITY, REWARDS

X_LABELS = {"step": "env steps", "frames": "frames", "update": "updates", "flops": "FLOPs"}


@styled
def learning_curve(
    metrics: pd.DataFrame,
    *,
    value: str = "reward",
    label: str = "reward",
    x: str = "step",
    by_task: bool = False,
    bounds: Bounds = UNBOUNDED,
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
    axes: Axes | None = None,
) -> Drawn:
    """Draw the mean over seeds of ``value`` along the whole stream, with 95 % t intervals clipped to ``bounds``.

    Up to 12 visits are named and separated by lines. With more visits, each arm has its own panel with the control in
    grey behind it, and ticks above the first row mark task switches. If there are more than 800 records, neighbouring
    ones are averaged, lane by lane.

    Args:
      metrics: a table of :func:`plasticity.results.load`.
      value: the column to draw.
      label: label of the vertical axis.
      x: ``step``, ``frames``, ``update`` or ``flops``.
      by_task: a row with its own scale for each task, for returns that are not comparable between tasks.
      bounds: the smallest and largest possible values.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in dashed grey.
      options: the arms, their labels, the figure size and smoothing.
      axes: the axes to draw on, with all arms in one panel, returned instead of a figure; not with ``by_task``.

    Raises:
      ValueError: ``metrics`` has no values to draw, no such column, or runs of different streams.
      UserError: ``options`` that do not fit the table.
    """
    check_column(metrics, value)
    if not metrics[value].notna().any():
        raise ValueError(f"{value} has no values in this table")
    metrics = thinned(smoothed(metrics, [value], options.smooth), x, [value], hyper)
    what = _PlotSpec(value, x, label, bounds)
    lines, visits = series(metrics, hyper, controls, options), stays(metrics, x)
    if axes is not None:
        _along(axes, lines, visits, what)
        axes.set(xlabel=X_LABELS.get(x, x), ylabel=label)
        return finish_panel(axes, lines, own=False)
    if by_task:
        return _rows_of_tasks(lines, visits, what, options)
    if len(visits) > FEW and len(lines) > 1:
        return _panels_of_arms(lines, visits, what, controls, options)
    panel = page(options, 3.6).add_subplot(ylabel=label, xlabel=X_LABELS.get(x, x))
    _along(panel, lines, visits, what)
    figure = finish(panel.get_figure(), lines, seeds_note(lines, options.smooth), options)
    name_tasks(panel, visits)
    return figure


class _PlotSpec(NamedTuple):
    """What is drawn, along which axis."""

    value: str
    x: str
    label: str
    bounds: Bounds


def _rows_of_tasks(lines: Sequence[Series], visits: Sequence[Stay], what: _PlotSpec, options: Options) -> Figure:
    names = list(dict.fromkeys(stay.task for stay in visits))
    if VARIOUS in names:  # each seed has its own order of tasks
        names = sorted({name for line in lines for name in line.rows["task"].astype(str)})
    joined = len(visits) > FEW and VARIOUS not in {stay.task for stay in visits}
    figure = page(options, 0.8 + 1.5 * len(names), len(names))
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    end = visits[-1].end
    for name, panel in zip(names, panels, strict=True):
        mine = [line._replace(rows=line.rows[line.rows["task"].astype(str) == name]) for line in lines]
        if joined:
            mine, own = _joined(mine, visits, name, what.x)
            _along(panel, mine, own, what)
            end = max(own[-1].end, end if panel is not panels[0] else 0.0)
        else:
            _along(panel, mine, visits, what, apart=True)
        panel.set_title(name, loc="left", pad=3, fontsize=8.5)
        panel.yaxis.set_major_locator(MaxNLocator(4))
    axis = X_LABELS.get(what.x, what.x)
    count_axis(panels[-1], end)
    panels[-1].set_xlabel(f"{axis} in the task (visits joined)" if joined else axis)
    label_side(figure, what.label)
    return finish(figure, lines, seeds_note(lines, options.smooth), options)


def _joined(lines: Sequence[Series], visits: Sequence[Stay], task: str, x: str) -> tuple[list[Series], list[Stay]]:
    """Move the visits to one task next to each other; with many visits, each would be too narrow to read."""
    own, shift, end = [], {}, 0.0
    for stay in visits:
        if stay.task == task:
            shift[stay.visit] = end - stay.start
            end += stay.end - stay.start
            own.append(stay._replace(start=end - (stay.end - stay.start), end=end))
    moved = [
        line._replace(rows=line.rows.assign(**{x: line.rows[x] + line.rows["visit"].map(shift)})) for line in lines
    ]
    return moved, own


def _panels_of_arms(
    lines: Sequence[Series], visits: Sequence[Stay], what: _PlotSpec, controls: Sequence[str], options: Options
) -> Figure:
    """Draw one panel per arm; if there is one control, it is also drawn behind the others, without its interval."""
    behind = [line for line in lines if line.rows["arm"].iloc[0] in controls]
    behind = behind if len(behind) == 1 else []
    most = 1 if len(lines) <= 3 else 2 if len(lines) <= 12 else 3
    rows, columns = grid(len(lines), most, options.width)
    figure = page(options, 0.9 + (1.15 if columns > 1 else 1.35) * rows, rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, line in zip(panels.flat, lines, strict=False):
        for other in behind if line not in behind else ():
            found = _curve(other, what)
            panel.plot(found[what.x], found["mean"], color=BEHIND, linewidth=0.7, label=f"_{other.label}")
        found = _curve(line, what)
        plain = line._replace(look={**line.look, "linestyle": "-", "marker": ""})
        draw_curve(panel, plain, found, found[what.x].to_numpy(), 1, 0)
        panel.set_title(fitted(line.label, options.width / columns - 0.7, 8.5), loc="left", pad=3, fontsize=8.5)
        panel.yaxis.set_major_locator(MaxNLocator(4))
        count_axis(panel, visits[-1].end)
    label_lowest(panels, len(lines), X_LABELS.get(what.x, what.x))
    label_side(figure, what.label)
    grey = f"; grey: {behind[0].label}" if behind else ""
    label_bottom(figure, f"{seeds_note(lines, options.smooth)}{grey}", 8)
    for panel in panels[0]:
        name_tasks(panel, visits)
    return figure


def _curve(line: Series, what: _PlotSpec, apart: bool = False) -> pd.DataFrame:
    return _with_gaps(intervals(line.rows, what.value, ["visit", what.x], what.bounds).reset_index(), apart)


def _along(axes: Axes, lines: Sequence[Series], visits: Sequence[Stay], what: _PlotSpec, apart: bool = False) -> None:
    """Draw one panel; ``apart``: that of one task, with gaps during visits to other tasks."""
    mark_switches(axes, visits)
    for place, line in enumerate(lines):
        found = _curve(line, what, apart)
        draw_curve(axes, line, found, found[what.x].to_numpy(), len(lines), place)
    count_axis(axes, visits[-1].end)


def _with_gaps(found: pd.DataFrame, apart: bool = False) -> pd.DataFrame:
    """Insert rows without a value, which interrupt the line, at each switch unless visits have only a few points.

    ``apart``: always insert one between visits that are not consecutive.
    """
    dense = len(found) >= 3 * found["visit"].nunique()
    steps = found["visit"].diff(-1)
    ends = found[steps <= -1] if dense else found[steps < -1] if apart else found[:0]
    gaps = pd.DataFrame(np.nan, ends.index + 0.5, found.columns)
    return pd.concat([found, gaps]).sort_index() if len(gaps) else found


@styled
def monitors(
    metrics: pd.DataFrame,
    *,
    names: Sequence[str] | None = None,
    x: str = "step",
    bounds: Mapping[str, Bounds] = MappingProxyType({}),
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
) -> Figure:
    """Draw one panel per monitor over time, with 95 % t intervals over seeds; logarithmic beyond two decades.

    If the stream has more than 12 visits, a monitor that is measured within visits is represented by its last value in
    each, and nothing is smoothed.

    Args:
      metrics: a table of :func:`plasticity.results.load`.
      names: the columns to draw; by default, all metrics that have values except those of single layers (``a/b``).
      x: ``step``, ``frames``, ``update`` or ``flops``.
      bounds: the smallest and largest possible values of monitors that have any; intervals are clipped there.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in dashed grey.
      options: the arms, their labels, the figure size and smoothing.

    Raises:
      ValueError: ``metrics`` has no monitors to draw, no such column, or runs of different streams.
      UserError: ``options`` that do not fit the table.
    """
    names = monitor_names(metrics, hyper) if names is None else list(names)
    for name in names:
        check_column(metrics, name)
    names = [name for name in names if metrics[name].notna().any()]
    if not names:
        raise ValueError("no monitor in this table has a value")
    window = options.smooth if metrics["visit"].nunique() <= FEW else 1
    metrics = thinned(smoothed(metrics, names, window), x, names, hyper)
    lines, visits = series(metrics, hyper, controls, options), stays(metrics, x)
    rows, columns = grid(len(names), {1: 1, 2: 2, 4: 2}.get(len(names), 3), options.width)
    figure = page(options, 3.2 if len(names) == 1 else 0.5 + row_height(options, 1.9) * rows, rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel, name in zip(panels.flat, names, strict=False):
        panel.set_title(name.replace("_", " "))
        _panel(panel, lines, visits, _PlotSpec(name, x, name, bounds.get(name, UNBOUNDED)))
    label_lowest(panels, len(names), X_LABELS.get(x, x))
    return finish(figure, lines, seeds_note(lines, window), options)


def monitor_names(metrics: pd.DataFrame, hyper: Sequence[str] | None = None) -> list[str]:
    """The metrics of the whole network that have values, including the loss but not the rewards."""
    others = {*IDENTITY, *REWARDS, *swept_columns(metrics, hyper)}
    return [
        name
        for name in map(str, metrics.columns)
        if name not in others and "/" not in name and metrics[name].notna().any()
    ]


def _panel(axes: Axes, lines: Sequence[Series], visits: Sequence[Stay], what: _PlotSpec) -> None:
    records = [line.rows[["lane", "visit", what.x, what.value]].dropna(subset=what.value) for line in lines]
    if len(visits) > FEW and any(rows.duplicated(["lane", "visit"]).any() for rows in records):
        # With many visits, the change within each would look like hatching.
        records = [rows.drop_duplicates(["lane", "visit"], keep="last") for rows in records]
        axes.set_title(f"{axes.get_title()}\n(end of visit)")
    curves = [_with_gaps(intervals(rows, what.value, ["visit", what.x], what.bounds).reset_index()) for rows in records]
    means = np.concatenate([found["mean"].dropna() for found in curves])
    if len(means) and means.min() > 0 and means.max() > 100 * means.min():
        axes.set_yscale("log")
        # A t interval may extend below zero, where the logarithm is undefined.
        curves = [within(found, (means.min() / 2, np.inf)) for found in curves]
    mark_switches(axes, visits)
    for place, (line, found) in enumerate(zip(lines, curves, strict=True)):
        draw_curve(axes, line, found, found[what.x].to_numpy(), len(lines), place)
    count_axis(axes, visits[-1].end)
