"""Curves along the whole stream: the learning curve, and a panel for each monitor."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.plots.streams import VARIOUS, Stay, mark_switches, name_tasks, stays
from plasticity.plots.style import (
    FEW,
    WIDTH,
    Drawn,
    Series,
    check_column,
    count_axis,
    draw_curve,
    finish,
    finish_panel,
    intervals,
    series,
    styled,
    swept_columns,
)
from plasticity.plots.thin import thinned
from plasticity.results.read import IDENTITY, REWARDS

X_LABELS = {"step": "env steps", "frames": "frames", "update": "updates"}


@styled
def learning_curve(
    metrics: pd.DataFrame,
    *,
    value: str = "reward",
    label: str = "reward",
    x: str = "step",
    by_task: bool = False,
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    axes: Axes | None = None,
) -> Drawn:
    """The mean over seeds of ``value`` along the whole stream, with 95 % t intervals and the switches.

    A stream of more than 800 records is averaged over groups of neighbouring ones, lane by lane.

    Args:
      metrics: a table of :func:`plasticity.results.load`.
      value: the column to draw.
      label: of the vertical axis.
      x: ``step``, ``frames`` or ``update``.
      by_task: a row with its own scale for each task, for returns that can't be compared between tasks.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in dashed grey.
      axes: to draw on, and to return instead of a figure; not with ``by_task``.

    Raises:
      ValueError: ``metrics`` has no value to draw, no such column, or runs of different streams.
    """
    check_column(metrics, value)
    if not metrics[value].notna().any():
        raise ValueError(f"{value} has no value in this table")
    metrics = thinned(metrics, x, [value], hyper)
    lines, visits = series(metrics, hyper, controls), stays(metrics, x)
    if axes is not None:
        _along(axes, lines, visits, value, x, "")
        axes.set(xlabel=X_LABELS.get(x, x), ylabel=label)
        return finish_panel(axes, lines, own=False)
    names = list(dict.fromkeys(stay.task for stay in visits)) if by_task else [""]
    if VARIOUS in names:  # each seed has an order of its own
        names = sorted(set(metrics["task"].astype(str)))
    figure = Figure(figsize=(WIDTH, 3.6 if len(names) == 1 else 0.8 + 1.5 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for name, panel in zip(names, panels, strict=True):
        _along(panel, lines, visits, value, x, name)
        panel.set_ylabel(f"{name}\n{label}" if name else label)
    name_tasks(panels[0], visits, WIDTH - 2.5)
    panels[-1].set_xlabel(X_LABELS.get(x, x))
    return finish(figure, lines)


def _along(axes: Axes, lines: Sequence[Series], visits: Sequence[Stay], value: str, x: str, task: str) -> None:
    """One panel; of ``task`` only, with gaps where the stream is elsewhere, unless it is empty."""
    mark_switches(axes, list(visits))
    for place, line in enumerate(lines):
        rows = line.rows[line.rows["task"] == task] if task else line.rows
        found = _with_gaps(intervals(rows, value, ["visit", x]).reset_index(), apart=task != "")
        draw_curve(axes, line, found, found[x].to_numpy(), len(lines), place)
    count_axis(axes, visits[-1].end)


def _with_gaps(found: pd.DataFrame, apart: bool = False) -> pd.DataFrame:
    """Rows without a value that interrupt the line: at each switch, unless visits have but a point or two.

    ``apart``: in any case between visits that do not follow each other.
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
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
) -> Figure:
    """A panel for each monitor over time, with 95 % t intervals over seeds; logarithmic beyond two decades.

    On a stream of more than 12 visits a monitor that is measured within visits is drawn by its last value in each.

    Args:
      metrics: a table of :func:`plasticity.results.load`.
      names: the columns to draw; by default all metrics that have values, but those of single layers (``a/b``).
      x: ``step``, ``frames`` or ``update``.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in dashed grey.

    Raises:
      ValueError: ``metrics`` has no monitor to draw, no such column, or runs of different streams.
    """
    names = monitor_names(metrics, hyper) if names is None else list(names)
    for name in names:
        check_column(metrics, name)
    names = [name for name in names if metrics[name].notna().any()]
    if not names:
        raise ValueError("this table has no monitor with a value")
    metrics = thinned(metrics, x, names, hyper)
    lines, visits = series(metrics, hyper, controls), stays(metrics, x)
    columns = {1: 1, 2: 2, 4: 2}.get(len(names), 3)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(WIDTH, 3.2 if len(names) == 1 else 0.5 + 1.9 * rows), layout="constrained")
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, place + 1, title=name.replace("_", " "))
        _panel(axes, lines, visits, name, x)
        if place + columns >= len(names):
            axes.set_xlabel(X_LABELS.get(x, x))
    return finish(figure, lines)


def monitor_names(metrics: pd.DataFrame, hyper: Sequence[str] | None = None) -> list[str]:
    """The metrics with a value that belong to the whole network, loss included, rewards not."""
    others = {*IDENTITY, *REWARDS, *swept_columns(metrics, hyper)}
    return [
        name
        for name in map(str, metrics.columns)
        if name not in others and "/" not in name and metrics[name].notna().any()
    ]


def _panel(axes: Axes, lines: Sequence[Series], visits: Sequence[Stay], name: str, x: str) -> None:
    records = [line.rows[["lane", "visit", x, name]].dropna(subset=name) for line in lines]
    if len(visits) > FEW and any(rows.duplicated(["lane", "visit"]).any() for rows in records):
        # The fall within each of many visits would be a hatch.
        records = [rows.drop_duplicates(["lane", "visit"], keep="last") for rows in records]
        axes.set_title(f"{axes.get_title()}\n(end of visit)")
    curves = [_with_gaps(intervals(rows, name, ["visit", x]).reset_index()) for rows in records]
    means = np.concatenate([found["mean"].dropna() for found in curves])
    if means.min() > 0 and means.max() > 100 * means.min():
        axes.set_yscale("log")
        # A t interval may reach below zero, where a logarithm ends.
        curves = [found.assign(low=found["low"].clip(lower=means.min() / 2)) for found in curves]
    if len(visits) <= FEW:
        mark_switches(axes, list(visits))
    for place, (line, found) in enumerate(zip(lines, curves, strict=True)):
        draw_curve(axes, line, found, found[x].to_numpy(), len(lines), place)
    count_axis(axes, visits[-1].end)
