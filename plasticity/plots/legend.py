"""Page layout and legends: a figure of the requested size with its legend outside the data."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from plasticity.plots.options import PLAIN, WIDTH, Options
from plasticity.plots.style import Drawn, Series, text_width, wrapped
from plasticity.plots.text import LINE, NARROW, fitted

KEY = 0.62  # inches of a line sample in a legend, including the space around it
ROW = 0.18  # inches from one row of a legend to the next
NARROWEST = 1.6  # inches of a small panel with its labels
LOWEST = 2.0  # minimum height in inches for the data above a legend
WIDEST = 0.34  # maximum share of the figure's width for a legend on the right


def page(options: Options, height: float, rows: int = 1) -> Figure:
    """An empty figure of the requested size; by default as wide as a page and ``height`` inches high.

    With several rows of panels it has at least that height, so that they remain legible.
    """
    asked = options.size[1] if options.size else height
    return Figure(figsize=(options.width, asked if rows == 1 else max(asked, height)), layout="constrained")


def canvas(axes: Axes | None, height: float = 3.6, options: Options = PLAIN) -> Axes:
    """The given axes, or those of a new figure."""
    return axes or page(options, height).add_subplot()


def grid(count: int, most: int = 5, width: float = WIDTH) -> tuple[int, int]:
    """Rows and columns for ``count`` small panels; at most ``most`` columns, fewer on a narrow page."""
    most = max(1, min(most, int(width / NARROWEST)))
    columns = min(count, most) if count <= most or count > 2 * most else math.ceil(count / 2)
    return math.ceil(count / columns), columns


def ticks(width: float) -> MaxNLocator:
    """Ticks for short numbers below a panel of the given width in inches, labels included."""
    return MaxNLocator(max(2, min(4, int((width - 0.5) / 0.4))))


def row_names(lines: Sequence[Series], width: float) -> tuple[list[str], float, float]:
    """Labels of rows beside the panels of a figure ``width`` inches wide; the inches they take; those of a row."""
    names = [fitted(line.label, 0.4 * width) for line in lines]
    return names, max(map(text_width, names)), 0.24 + LINE * max(name.count("\n") for name in names)


def row_height(options: Options, full: float) -> float:
    """Inches of a row of small panels: ``full`` across a page, less in a column, where panels are narrower."""
    return full if options.width >= NARROW else 0.72 * full


def colour_bar(figure: Figure, image: Any, panels: Any, label: str) -> None:
    """The bar of the one colour scale: beside the panels of a wide figure, above those of a narrow one."""
    width, height = figure.get_size_inches()
    if width < NARROW:
        text = wrapped(label, width - 0.5, 9)
        figure.colorbar(image, ax=panels, label=text, location="top", shrink=0.8, aspect=0.8 * width / 0.09)
    else:
        text = wrapped(label, height - 0.5, 9)
        figure.colorbar(image, ax=panels, label=text, shrink=0.8, aspect=0.7 * height / 0.12)


def label_side(figure: Figure, text: str) -> None:
    """Add a shared label for all vertical axes."""
    figure.supylabel(wrapped(text, figure.get_size_inches()[1] - 0.5, 9), fontsize=9, multialignment="center")


def label_bottom(figure: Figure, text: str, size: float = 9) -> None:
    """Add a shared label for all horizontal axes."""
    figure.supxlabel(wrapped(text, figure.get_size_inches()[0] - 0.3, size), fontsize=size)


def label_lowest(panels: np.ndarray, count: int, text: str) -> None:
    """Label the horizontal axis of the lowest panel in each column, and hide panels beyond ``count``."""
    for place, panel in enumerate(panels.flat):
        panel.set_visible(place < count)
        if place < count <= place + panels.shape[1]:
            panel.set_xlabel(text)
            panel.tick_params(labelbottom=True)


def finish_panel(
    axes: Axes, lines: Sequence[Series], own: bool, note: str | None = None, options: Options = PLAIN
) -> Drawn:
    """Return the figure with its legend, or the given axes, with their own legend if it adds information."""
    if own:
        return finish(axes.get_figure(), lines, note, options)
    if len(lines) > 1:
        axes.legend(handles=_handles(lines), loc="best", handlelength=3.2, ncols=1 + len(lines) // 13)
    return axes


def finish(figure: Any, lines: Sequence[Series], note: str | None = None, options: Options = PLAIN) -> Figure:
    """Add the legend outside the axes: on the right, or below if it is long or the figure is narrow.

    With a legend below, the figure grows by the legend's height; a figure of requested size grows only if too little
    space would remain for the data.

    Args:
      figure: the figure without its legend.
      lines: the lines in the legend.
      note: its title; by default, what the means are over.
      options: options of the figure.
    """
    width, height = figure.get_size_inches()
    title = seeds_note(lines) if note is None else note
    widest = max(text_width(line.label) for line in lines) + KEY
    if max(widest, text_width(title)) + 0.2 <= WIDEST * width and ROW * (len(lines) + 2.5) <= height:
        figure.legend(
            handles=_handles(lines), loc="outside right upper", title=title, alignment="left", handlelength=3.2
        )
        return figure  # type: ignore[no-any-return]
    columns = max(1, min(len(lines), int((width - 0.2) / (widest + 0.25))))
    title = wrapped(title, width - 0.3)
    handles = _handles(lines, width - KEY - 0.3)
    broken = sum(str(handle.get_label()).count("\n") for handle in handles)
    needed = ROW * (math.ceil(len(lines) / columns) + title.count("\n")) + LINE * broken + 0.3
    asked = options.size is not None and height <= options.size[1]
    figure.set_size_inches(width, max(height, needed + LOWEST) if asked else height + needed)
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=title, handlelength=3.2)
    legend.get_title().set_multialignment("center")
    return figure  # type: ignore[no-any-return]


def _handles(lines: Sequence[Series], width: float = math.inf) -> list[Line2D]:
    """The keys of a legend; ``width``: inches of the longest line of a label."""
    return [Line2D([], [], label=fitted(line.label, width), **line.look) for line in lines]


def seeds_note(lines: Sequence[Series], smooth: int = 1) -> str:
    """Describe lines and bands for the legend's title; ``smooth``: window of the running mean, in records."""
    counts = {line.rows["seed"].nunique() for line in lines}
    numbers = f"{min(counts)}-{max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    over = "one seed" if counts == {1} else f"mean over {numbers} seeds,\n95 % interval"
    return over if smooth == 1 else f"{over},\nsmoothed over {smooth} records"
