"""Performance on the task of every visit after every visit."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plasticity.plots.legend import colour_bar, page
from plasticity.plots.options import PLAIN, Options, checked
from plasticity.plots.style import arms_of, grid, styled, text_width
from plasticity.plots.text import NARROW, fitted
from plasticity.results import Matrix, mean_interval, points

FEW_CELLS = 8  # maximum number of visits for which the numbers are written into the cells
CELL, NUMBERS = 0.17, 6.0  # minimum width in inches of a cell with a number, and its font size


@styled
def performance_matrix(
    matrix: Matrix, *, label: str = "performance", by_task: bool = False, options: Options = PLAIN
) -> Figure:
    """Draw performance on the task of every visit after every visit, one panel per arm: means over seeds.

    Below the diagonal are past tasks (forgetting), above it future tasks (transfer). With at most 8 visits, the numbers
    are written into the cells if they fit.

    Args:
      matrix: from :func:`plasticity.results.performance_matrix`.
      label: what is measured, with its unit.
      by_task: scale the colours per column, from its lowest to its highest value, for returns that are not comparable.
      options: the arms, their labels and the figure size.

    Raises:
      ValueError: the matrix has no values.
      UserError: ``options`` that do not fit the matrix.
    """
    if not np.isfinite(matrix.values).any():
        raise ValueError("the matrix has no values")
    cells = points(matrix.lanes, matrix.hyper)
    checked(options, arms_of(cells))
    cells = [cells[place]._replace(label=options.label(cells[place])) for place in options.places(cells)]
    means = [mean_interval(matrix.values[cell.rows.index], axis=0).mean for cell in cells]
    coloured = _by_column(means) if by_task else means
    low, high = np.nanmin(coloured), np.nanmax(coloured)
    narrow = options.width < NARROW
    rows, columns = grid(len(cells), 2 if narrow else 4)
    # What is left for a panel beside the other labels; the figure's own height makes it about square.
    side = (options.width - (0.4 if narrow else 1.2)) / columns - 0.2
    figure = page(options, (1.1 if narrow else 0.6) + (min(side, 3.6) + 0.6) * rows, rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    written = _number(means)
    for panel, cell, mean, colour in zip(panels.flat, cells, means, coloured, strict=False):
        image = panel.imshow(colour, cmap="viridis", vmin=low, vmax=high, interpolation="nearest", aspect="auto")
        panel.set_title(fitted(cell.label, side), fontsize=8)
        if len(mean) <= FEW_CELLS and side / len(mean) >= max(CELL, _widest(means, written)):
            _write(panel, mean, (colour - low) / max(high - low, 1e-12), written)
    _axes(panels, len(cells), matrix.tasks, side)
    figure.supxlabel("evaluated on the task of visit", fontsize=9)
    figure.supylabel("after visit", fontsize=9)
    name = f"{label}, scaled per column (lowest 0, highest 1)" if by_task else label
    colour_bar(figure, image, panels, name)
    return figure


def _by_column(means: Sequence[np.ndarray]) -> list[np.ndarray]:
    low, high = np.nanmin(means, axis=(0, 1)), np.nanmax(means, axis=(0, 1))
    return [(mean - low) / np.where(high > low, high - low, 1.0) for mean in means]


def _number(means: Sequence[np.ndarray]) -> str:
    """One format for all numbers of a figure: two digits or three of the largest, no decimals of whole numbers."""
    values = np.asarray(means)[np.isfinite(means)]
    if (values == np.round(values)).all():
        return ".0f"
    largest = float(np.abs(values).max())
    return ".0f" if largest >= 100 else ".1f" if largest >= 10 else ".2f" if largest >= 0.1 else ".1g"


def _widest(means: Sequence[np.ndarray], written: str) -> float:
    """Inches of the widest number, with a little room."""
    ends = (np.nanmin(means), np.nanmax(means))
    return 0.03 + max(text_width(f"{end:{written}}", NUMBERS) for end in ends)


def _write(axes: Axes, mean: np.ndarray, share: np.ndarray, written: str) -> None:
    """``share``: of the scale of colours; the upper end of it is bright."""
    for i, j in np.argwhere(np.isfinite(mean)):
        colour = "black" if share[i, j] > 0.6 else "white"
        axes.text(j, i, f"{mean[i, j]:{written}}", ha="center", va="center", fontsize=NUMBERS, color=colour)


def _axes(panels: np.ndarray, count: int, tasks: Sequence[str], side: float) -> None:
    """The visits on both axes; their tasks' names below where they differ, are short and have room."""
    most = max(2, min(FEW_CELLS, int(side / 0.25)))
    step = next(n for n in (k * 10**power for power in range(9) for k in (1, 2, 5)) if len(tasks) <= n * most)
    visits = range(step - 1, len(tasks), step)
    numbers = [str(visit + 1) for visit in visits]
    named = [f"{number} {tasks[visit]}" for number, visit in zip(numbers, visits, strict=True)]
    slanted = len(set(tasks)) > 1 and len(visits) == len(tasks) and max(map(text_width, named)) <= 1.0
    for place, panel in enumerate(panels.flat):
        panel.set_visible(place < count)
        panel.grid(visible=False)
        panel.spines[["top", "right"]].set_visible(True)
        lowest = place < count <= place + panels.shape[1]
        panel.tick_params(axis="x", labelbottom=lowest, labelrotation=40 if slanted else 0)
        panel.set_xticks(visits, named if slanted else numbers)
        panel.set_yticks(visits, numbers)
        for text in panel.get_xticklabels() if slanted else ():
            text.set(horizontalalignment="right", rotation_mode="anchor")
