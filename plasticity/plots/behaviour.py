"""How lanes behave over a stream: later visits against the first, what is remembered, how the speed decays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plasticity.plots.style import (
    WIDTH,
    Drawn,
    Series,
    canvas,
    check_column,
    finish_panel,
    grid,
    intervals,
    series,
    styled,
)
from plasticity.results import Matrix, Point, Scores, mean_interval, points

MOST_CURVES = 12  # that can be told apart; of more arms the slopes alone are drawn
FEW_CELLS = 8  # visits of a matrix whose numbers are written into it


@styled
def first_against_later(
    revisits: Scores,
    *,
    label: str = "performance",
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    axes: Axes | None = None,
) -> Drawn:
    """Performance at later visits to a task over that at the first: a point for each task, below the line is lost.

    Points are means over seeds (of each lane's later visits first), bars 95 % t intervals in both directions.

    Args:
      revisits: of :func:`plasticity.results.revisits`.
      label: what is measured, with its unit.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in dashed grey.
      axes: to draw on, and to return instead of a figure.

    Raises:
      ValueError: no task has been visited twice.
    """
    table = revisits.lanes.dropna(subset=["first", "later"])
    if table.empty:
        raise ValueError("no task has been visited twice")
    lines, own, axes = series(table, hyper, controls), axes is None, canvas(axes, 4.6)
    for line in lines:
        look = {**line.look, "linestyle": "", "marker": line.look["marker"] or "*"}
        per_lane = line.rows.groupby(["task", "lane"], observed=True)[["first", "later"]].mean()
        first, later = (intervals(per_lane.reset_index(), name, "task") for name in ("first", "later"))
        axes.hlines(later["mean"], first["low"], first["high"], color=look["color"], linewidth=0.7, alpha=0.6)
        axes.vlines(first["mean"], later["low"], later["high"], color=look["color"], linewidth=0.7, alpha=0.6)
        axes.plot(first["mean"], later["mean"], label=line.label, **look)
    _square(axes)
    axes.set(xlabel=f"{label}, first visit to a task", ylabel=f"{label}, later visits")
    axes.annotate("as good as at first", (0.06, 0.06), (-5, 5), xycoords="axes fraction", ha="left", va="bottom",
                  textcoords="offset points", rotation=45, rotation_mode="anchor", color="#808080",
                  fontsize=7.5)  # fmt: skip
    shown = [line._replace(look={**line.look, "linestyle": "", "marker": line.look["marker"] or "*"}) for line in lines]
    return finish_panel(axes, shown, own)


def _square(axes: Axes) -> None:
    """One range on both axes around the points, with their intervals up to half of it, and the diagonal."""
    drawn = [line.get_data() for line in axes.get_lines()]
    values = np.concatenate([np.asarray(each, float) for pair in drawn for each in pair])
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > 30 * low:  # returns of different games
        axes.set(xscale="log", yscale="log")
        low, high = low / 1.6, high * 1.6
    else:
        bars = np.concatenate(
            [np.asarray(path.vertices).ravel() for bar in axes.collections for path in bar.get_paths()]
        )
        room = (high - low) or 0.2 * abs(high) or 1.0
        ends = np.clip(bars[np.isfinite(bars)], low - room / 2, high + room / 2)
        low, high = min([low, *ends]) - 0.06 * room, max([high, *ends]) + 0.06 * room
    axes.plot([low, high], [low, high], color="#808080", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")


@styled
def learning_speed(
    table: pd.DataFrame,
    *,
    value: str = "difference",
    label: str | None = None,
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    axes: Axes | None = None,
) -> Drawn:
    """How the speed of learning decays from visit to visit: means over seeds, and the straight line of each arm.

    Of more than 12 lines only the slopes are drawn, a row for each.

    ``b = sum_k (k - mean k) y_k / sum_k (k - mean k)^2`` for each lane; the legend gives the mean over seeds and its
    95 % t interval per visit. Lanes with fewer than three visits, or one that diverged, have no slope.

    Args:
      table: the lanes of :func:`plasticity.results.relative_learning_speed`, or a table of
        :func:`plasticity.results.learning_curves_area` (with ``value="area"``).
      value: ``difference`` (to the control's area), ``relative_speed`` or ``area``.
      label: of the vertical axis; by default what ``value`` is.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in dashed grey.
      axes: to draw on, and to return instead of a figure.

    Raises:
      ValueError: no such column, or one without a value.
    """
    check_column(table, value)
    if not table[value].notna().any():
        raise ValueError(f"{value} has no value in this table")
    lines = series(table, hyper, controls)
    names = {"difference": "area - control's area", "relative_speed": "relative learning speed", "area": "area"}
    label = label or names.get(value, value)
    if len(lines) > MOST_CURVES:
        return _slopes_alone(axes, lines, value, label)
    own, axes, shown = axes is None, canvas(axes, 3.9), []
    for place, line in enumerate(lines):
        found = intervals(line.rows, value, "visit")
        x, look = found.index.to_numpy() + 1, {**line.look, "linestyle": "", "marker": line.look["marker"] or "x"}
        every = max(1, len(x) // 40)
        axes.plot(x, found["mean"], label=line.label, markersize=3, markevery=(place % every, every), **look)
        opacity = 0.18 if len(lines) <= 8 else 0.05
        axes.fill_between(x, found["low"], found["high"], color=look["color"], alpha=opacity, linewidth=0)
        slopes = _slopes(line.rows, value)
        visits = np.asarray([found.index.min(), found.index.max()]) + 1
        if np.isfinite(slopes.mean(axis=0)).all():
            at, slope = np.nanmean(slopes, axis=0)
            axes.plot(visits, at + slope * visits, color=line.look["color"], linestyle=line.look["linestyle"])
        shown.append(line._replace(label=f"{line.label}\n{_signed(slopes[:, 1])}"))
    if value != "area":
        axes.axhline(0, color="#808080", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
    axes.set(xlabel="visit", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return finish_panel(axes, shown, own, "slope per visit,\n95 % interval over seeds")


def _slopes_alone(axes: Axes | None, lines: Sequence[Series], value: str, label: str) -> Drawn:
    """The slopes of many arms, a row for each."""
    own, axes = axes is None, canvas(axes, 0.9 + 0.17 * len(lines))
    for place, line in enumerate(lines):
        mean, low, high = mean_interval(_slopes(line.rows, value)[:, 1])
        axes.hlines(place, low, high, color=line.look["color"], linewidth=5, alpha=0.45)
        axes.plot(mean, place, "|", color=line.look["color"], markersize=7, markeredgewidth=1.8)
    axes.axvline(0, color="#808080", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0.5)
    axes.set_yticks(range(len(lines)), [line.label for line in lines])
    axes.set(ylim=(len(lines) - 0.4, -0.6))
    axes.set_xlabel(f"slope per visit of the {' '.join(label.split())}; mean and 95 % interval over seeds")
    axes.grid(axis="x")
    return axes.get_figure() if own else axes


def _slopes(rows: pd.DataFrame, value: str) -> np.ndarray:
    """``[lanes, (value at visit 0, slope)]`` by least squares; visits are numbered from 1."""
    wide = rows.pivot_table(index="lane", columns="visit", values=value, observed=True, dropna=False)
    whole = wide.dropna(axis=1, how="all").dropna()
    if whole.shape[1] < 3 or whole.empty:
        return np.full((1, 2), np.nan)
    slope, start = np.polyfit(whole.columns.to_numpy(float) + 1, whole.to_numpy(float).T, 1)
    return np.stack([start, slope], axis=1)


def _signed(slopes: np.ndarray) -> str:
    mean, low, high = (float(each) for each in mean_interval(slopes))
    if not np.isfinite(mean):
        return "no slope"
    return f"{mean:+.2g}" + (f" [{low:+.2g}, {high:+.2g}]" if np.isfinite(low) else "")


@styled
def performance_matrix(matrix: Matrix, *, label: str = "performance", by_task: bool = False) -> Figure:
    """What lanes can do on every visit's task after every visit, a panel for each arm: means over seeds.

    Below the diagonal are tasks that were left (forgetting), above it tasks still to come (transfer). The numbers are
    written where there are at most 8 visits.

    Args:
      matrix: of :func:`plasticity.results.performance_matrix`.
      label: what is measured, with its unit.
      by_task: colours from the lowest to the highest value of each column, for returns that can't be compared.

    Raises:
      ValueError: the matrix has no value.
    """
    if not np.isfinite(matrix.values).any():
        raise ValueError("the matrix has no value")
    cells = points(matrix.lanes, matrix.hyper)
    means = [mean_interval(matrix.values[cell.rows.index], axis=0).mean for cell in cells]
    coloured = _by_column(means) if by_task else means
    low, high = np.nanmin(coloured), np.nanmax(coloured)
    rows, columns = grid(len(cells), 4)
    figure = Figure(figsize=(WIDTH, 0.9 + (2.6 if columns > 2 else 3.2) * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel, cell, mean, colour in zip(panels.flat, cells, means, coloured, strict=False):
        image = panel.imshow(colour, cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        _label_cells(panel, matrix.tasks, cell, mean, (colour - low) / max(high - low, 1e-12))
    for panel in panels.flat[len(cells) :]:
        panel.set_axis_off()
    figure.supxlabel("evaluated on the task of visit", fontsize=9)
    figure.supylabel("after visit", fontsize=9)
    name = f"{label}, from each column's\nlowest (0) to highest (1)" if by_task else label
    figure.colorbar(image, ax=panels, label=name, shrink=0.8, aspect=25)
    return figure


def _by_column(means: Sequence[np.ndarray]) -> list[np.ndarray]:
    low, high = np.nanmin(means, axis=(0, 1)), np.nanmax(means, axis=(0, 1))
    return [(mean - low) / np.where(high > low, high - low, 1.0) for mean in means]


def _label_cells(axes: Axes, tasks: Sequence[str], cell: Point, mean: np.ndarray, share: np.ndarray) -> None:
    count = len(tasks)
    axes.set_title(cell.label, fontsize=8)
    axes.grid(visible=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    ticks: Any = range(0, count, max(1, -(-count // 8)))
    names = [str(visit + 1) for visit in ticks]
    several = len(set(tasks)) > 1 and count <= FEW_CELLS
    axes.set_xticks(
        ticks, [f"{name} {tasks[visit]}" for name, visit in zip(names, ticks, strict=True)] if several else names
    )
    axes.tick_params(axis="x", labelrotation=40 if several else 0)
    for text in axes.get_xticklabels() if several else ():
        text.set_horizontalalignment("right")
        text.set_rotation_mode("anchor")
    axes.set_yticks(ticks, names)
    for i, j in np.argwhere(np.isfinite(mean)) if count <= FEW_CELLS else ():
        colour = "black" if share[i, j] > 0.6 else "white"
        axes.text(
            j,
            i,
            f"{mean[i, j]:{'.0f' if abs(mean[i, j]) >= 100 else '.2g'}}",
            ha="center",
            va="center",
            fontsize=6.5,
            color=colour,
        )
