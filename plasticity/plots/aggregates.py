"""Scores over all seeds and tasks: aggregates with intervals, performance profiles, hyper-parameter sensitivity."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity import results
from plasticity.plots.legend import canvas, finish_panel, grid, label_bottom, page, row_names, ticks
from plasticity.plots.options import PLAIN, Options
from plasticity.plots.style import Drawn, Series, named, styled, wrapped
from plasticity.plots.text import fitted
from plasticity.results import TaskScores

SIDE = 1.4  # inches of a line of the label beside a panel that a legend below made low
NAMES = {"iqm": "interquartile mean", "mean": "mean", "median": "median", "optimality_gap": "optimality gap"}


def _lines(
    scores: Sequence[TaskScores], controls: Sequence[str], options: Options
) -> tuple[list[TaskScores], list[Series]]:
    """The scores to draw, in order, and the style of each."""
    if not scores or not any(np.isfinite(each.values).any() for each in scores):
        raise ValueError("there are no scores to draw")
    cells = [each.point for each in scores]
    return [scores[place] for place in options.places(cells)], named(cells, controls, options)


def _note(scores: Sequence[TaskScores]) -> str:
    seeds = sorted({len(each.seeds) for each in scores})
    tasks = len(scores[0].tasks)
    number = f"{seeds[0]}-{seeds[-1]} seeds" if len(seeds) > 1 else "one seed" if seeds == [1] else f"{seeds[0]} seeds"
    scale = f"{number} x {tasks} {'task' if tasks == 1 else 'tasks'}"
    return scale if seeds == [1] else f"{scale},\n95 % bootstrap interval"


@styled
def aggregates(
    scores: Sequence[TaskScores],
    statistics: Sequence[str] = tuple(NAMES),
    *,
    label: str = "score",
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
    **bootstrap: Any,
) -> Figure:
    """Draw one panel per statistic and one row per arm: the value and its 95 % stratified bootstrap interval.

    Args:
      scores: from :func:`plasticity.results.task_scores`, normalised if tasks differ in scale.
      statistics: a selection of ``iqm, mean, median, optimality_gap``.
      label: what is measured, with its unit.
      controls: arms drawn in grey.
      options: the arms, their labels and the figure size.
      **bootstrap: ``gamma, resample, confidence, resamples, seed`` of :func:`plasticity.results.aggregates`.

    Raises:
      ValueError: there are no scores, or as for :func:`plasticity.results.aggregates`.
    """
    scores, lines = _lines(scores, controls, options)
    table = results.aggregates(scores, statistics, **bootstrap)
    names, taken, row = row_names(lines, options.width)
    room = options.width - taken - 0.3
    rows, columns = grid(len(statistics), max(1, min(4, int(room / 0.85))))
    figure = page(options, 0.9 + rows * (row * len(lines) + 0.35), rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, name in zip(panels.flat, statistics, strict=False):
        for place, line in enumerate(lines):
            value, low, high = (table[f"{name}{end}"].iloc[place] for end in ("", "_low", "_high"))
            panel.hlines(place, low, high, color=line.look["color"], linewidth=6, alpha=0.45)
            panel.plot(value, place, "|", color=line.look["color"], markersize=8, markeredgewidth=1.8)
        better = "lower is better" if name == "optimality_gap" else ""
        title = "\n".join(fitted(text, room / columns - 0.1) for text in (NAMES.get(name, name), better) if text)
        panel.set_title(title, fontsize=8)
        panel.xaxis.set_major_locator(ticks(room / columns + 0.1))
        panel.grid(axis="x")
    panels[0, 0].set(yticks=range(len(lines)), ylim=(len(lines) - 0.4, -0.6))
    panels[0, 0].set_yticklabels(names)
    for panel in panels.flat[len(statistics) :]:
        panel.set_axis_off()
    label_bottom(figure, f"{label}; {_note(scores)}", 8.5)
    return figure


@styled
def profiles(
    scores: Sequence[TaskScores],
    *,
    label: str = "score",
    averaged: bool = False,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
    axes: Axes | None = None,
    **statistics: Any,
) -> Drawn:
    """Draw performance profiles: the share of scores above each threshold, with pointwise 95 % bootstrap bands.

    Args:
      scores: from :func:`plasticity.results.task_scores`, normalised if tasks differ in scale.
      label: what is measured, with its unit.
      averaged: average over seeds first, then take the share of tasks.
      controls: arms drawn in dashed grey.
      options: the arms, their labels and the figure size.
      axes: the axes to draw on, returned instead of a figure.
      **statistics: ``thresholds, resample, confidence, resamples, seed`` of
        :func:`plasticity.results.performance_profiles`.

    Raises:
      ValueError: there are no scores, or as for :func:`plasticity.results.performance_profiles`.
    """
    scores, lines = _lines(scores, controls, options)
    table = results.performance_profiles(scores, averaged=averaged, **statistics)
    count = len(table) // len(lines)
    own, axes = axes is None, canvas(axes, options=options)
    for place, line in enumerate(lines):
        part = table.iloc[place * count : (place + 1) * count]
        opacity = 0.18 if len(lines) <= 8 else 0.07
        every = (place * count // (7 * len(lines)), max(1, count // 7))
        axes.plot(
            part["threshold"], part["share"], label=line.label, markevery=every, drawstyle="steps-post", **line.look
        )
        axes.fill_between(
            part["threshold"], part["share_low"], part["share_high"], step="post", color=line.look["color"],
            alpha=opacity, linewidth=0,
        )  # fmt: skip
    what = "tasks with a mean" if averaged else "scores"
    side = wrapped(f"share of {what} above it", SIDE, 9)
    axes.set(xlabel=f"threshold on {label}", ylabel=side, ylim=(-0.02, 1.02))
    return finish_panel(axes, lines, own, _note(scores), options)


@styled
def sensitivity(
    scores: Sequence[TaskScores],
    name: str,
    *,
    by: str = "mean",
    label: str = "score",
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
    axes: Axes | None = None,
    **statistics: Any,
) -> Drawn:
    """Draw performance against one swept hyper-parameter, one line per arm, with 95 % bootstrap intervals.

    Args:
      scores: from :func:`plasticity.results.task_scores` with the swept hyper-parameters.
      name: the hyper-parameter; its axis is logarithmic if its values span at least a factor of ten.
      by: ``iqm``, ``mean``, ``median`` or ``optimality_gap``.
      label: what is measured, with its unit.
      controls: arms drawn in dashed grey.
      options: the arms, their labels and the figure size.
      axes: the axes to draw on, returned instead of a figure.
      **statistics: of :func:`plasticity.results.sensitivity`.

    Raises:
      ValueError: there are no scores, ``name`` is not swept, or as for :func:`plasticity.results.sensitivity`.
    """
    table = results.sensitivity(scores, name, by=by, **statistics)
    if not table[by].notna().any():
        raise ValueError("there are no scores to draw")
    arms = {(each.point.run, each.point.arm): each.point._replace(values={}, settings=()) for each in scores}
    cells = list(arms.values())
    pairs = zip([cells[place] for place in options.places(cells)], named(cells, controls, options), strict=True)
    kept = [(cell, line) for cell, line in pairs if _own(table, cell)[by].notna().any()]
    shown, lines = [cell for cell, _ in kept], [line for _, line in kept]
    own, axes = axes is None, canvas(axes, options=options)
    where = _places(axes, table[name])
    for place, (cell, line) in enumerate(zip(shown, lines, strict=True)):
        part = _own(table, cell)
        x = where(part[name], 0 if len(lines) < 2 else place / (len(lines) - 1) - 0.5)
        axes.plot(x, part[by], label=line.label, **{**line.look, "marker": line.look["marker"] or "_"})
        axes.vlines(x, part[f"{by}_low"], part[f"{by}_high"], color=line.look["color"], linewidth=1.1)
    axes.set(xlabel=name, ylabel=wrapped(f"{label} ({NAMES.get(by, by)})", SIDE, 9))
    return finish_panel(axes, lines, own, _note(scores), options)


def _own(table: pd.DataFrame, cell: results.Point) -> pd.DataFrame:
    mine = table["arm"].astype(str) == cell.arm
    return table[mine & (table["run"].astype(str) == cell.run)] if cell.run else table[mine]


def _places(axes: Axes, values: pd.Series) -> Any:
    """Positions of the values on the horizontal axis, offset between lines so that intervals do not overlap."""
    numbers = pd.to_numeric(values, errors="coerce") if not pd.api.types.is_bool_dtype(values) else values * np.nan
    if numbers.isna().any():
        names = list(dict.fromkeys(values.astype(str)))
        axes.set_xticks(range(len(names)), names)
        return lambda part, shift: [names.index(str(each)) + 0.3 * shift for each in part]
    low, high, known = float(numbers.min()), float(numbers.max()), sorted(set(numbers.astype(float)))
    if low > 0 and high >= 10 * low:
        axes.set_xscale("log")
        if len(known) <= 12:
            axes.set_xticks(known, [f"{each:g}" for each in known])
            axes.minorticks_off()
        width = 0.12 * math.log(high / low) / max(1, len(known) - 1)
        return lambda part, shift: part.astype(float) * np.exp(width * shift)
    width = 0.12 * (high - low) / max(1, len(known) - 1)
    return lambda part, shift: part.astype(float) + width * shift
