"""What lanes can do on every visit's task after every visit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.plots.legend import grid, page
from plasticity.plots.options import PLAIN, Options, checked
from plasticity.plots.style import arms_of, styled
from plasticity.results import Matrix, Point, mean_interval, points

FEW_CELLS = 8  # visits of a matrix whose numbers are written into it


@styled
def performance_matrix(
    matrix: Matrix, *, label: str = "performance", by_task: bool = False, options: Options = PLAIN
) -> Figure:
    """What lanes can do on every visit's task after every visit, a panel for each arm: means over seeds.

    Below the diagonal are tasks that were left (forgetting), above it tasks still to come (transfer). The numbers are
    written where there are at most 8 visits.

    Args:
      matrix: of :func:`plasticity.results.performance_matrix`.
      label: what is measured, with its unit.
      by_task: colours from the lowest to the highest value of each column, for returns that can't be compared.
      options: arms, their names, size.

    Raises:
      ValueError: the matrix has no value.
      UserError: ``options`` that do not fit the matrix.
    """
    if not np.isfinite(matrix.values).any():
        raise ValueError("the matrix has no value")
    cells = points(matrix.lanes, matrix.hyper)
    checked(options, arms_of(cells))
    cells = [cells[place]._replace(label=options.label(cells[place])) for place in options.places(cells)]
    means = [mean_interval(matrix.values[cell.rows.index], axis=0).mean for cell in cells]
    coloured = _by_column(means) if by_task else means
    low, high = np.nanmin(coloured), np.nanmax(coloured)
    rows, columns = grid(len(cells), 4, options.width)
    figure = page(options, 0.9 + (2.6 if columns > 2 else 3.2) * rows, rows)
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
