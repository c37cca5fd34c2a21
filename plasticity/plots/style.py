"""How figures look: one appearance for each arm in all figures, legends outside the data, sizes for a page."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from plasticity.results import Point, curve, points

WIDTH = 8.5  # inches
# After Okabe and Ito (2008), Color Universal Design, without black and yellow, and a wine red as the seventh.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.2, 1, 1.2)), (0, (1.2, 1.2)), (0, (6, 2.2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")  # 11 and 7 have no common factor: pairs are unique
CONTROL_COLOUR, CONTROL_DASHES = "#404040", ((0, (4, 2)), (0, (4, 2, 1, 2)), (0, (2, 2)), (0, (8, 2)))
SWITCH_COLOUR = "#C8C8C8"
FEW = 12  # visits that are still told apart by name
RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#EBEBEB",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
}

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


class Series(NamedTuple):
    """What is drawn as one line: an arm at one point of its sweep."""

    label: str
    rows: pd.DataFrame
    look: dict[str, Any]  # colour, line style and marker


def styled(draw: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Runs ``draw`` under this module's settings and leaves matplotlib's own as they were."""

    @functools.wraps(draw)
    def inside(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return inside


def swept_columns(table: pd.DataFrame, hyper: Sequence[str] | None) -> list[str]:
    """``hyper``, or the columns that look like hyper-parameters: a dot in the name and no slash."""
    if hyper is not None:
        return list(hyper)
    return [column for column in map(str, table.columns) if "." in column and "/" not in column]


def series(table: pd.DataFrame, hyper: Sequence[str] | None, controls: Sequence[str]) -> list[Series]:
    """The lines of a table, in the order of the config.

    An arm's look depends on its place among all arms of the run, present in the table or not: it is the same in every
    figure. Points of a sweep have lighter shades and other dashes of their arm's look.
    """
    cells = points(table, swept_columns(table, hyper))
    runs = _categories(table, "run") or [""]
    coloured = [(run, arm) for run in runs for arm in _categories(table, "arm") if arm not in controls]
    seen: dict[tuple[str, str], list[Point]] = {}
    for cell in cells:
        seen.setdefault((cell.run, cell.arm), []).append(cell)
    found = []
    for cell in cells:
        siblings, where = seen[cell.run, cell.arm], (cell.run, cell.arm)
        place = next(index for index, other in enumerate(siblings) if other is cell)
        if where in coloured:
            found.append(Series(cell.label, cell.rows, look(coloured.index(where), place, len(siblings))))
        else:  # the runs' controls differ as the points of one do
            place, count = place * len(runs) + runs.index(cell.run), len(siblings) * len(runs)
            found.append(Series(cell.label, cell.rows, look(None, place, count)))
    return found


def _categories(table: pd.DataFrame, column: str) -> list[str]:
    if column not in table:
        return []
    values = table[column]
    return list(values.cat.categories if isinstance(values.dtype, pd.CategoricalDtype) else pd.unique(values))


def look(number: int | None, point: int = 0, count: int = 1) -> dict[str, Any]:
    """The look of arm ``number`` (None: a control) at one of its ``count`` points."""
    pale = 0.6 * point / max(count - 1, 1)
    if number is None:
        dashes = CONTROL_DASHES[point % len(CONTROL_DASHES)]
        return {"color": _paler(CONTROL_COLOUR, pale), "linestyle": dashes, "marker": ""}
    return {
        "color": _paler(COLOURS[number % len(COLOURS)], pale),
        "linestyle": DASHES[(number // len(COLOURS) + point) % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _paler(colour: str, share: float) -> str:
    red, green, blue = ((1 - share) * part + share for part in to_rgb(colour))
    return str(to_hex((red, green, blue)))


def draw_curve(axes: Axes, line: Series, found: pd.DataFrame, x: np.ndarray, crowd: int, place: int) -> None:
    """The mean as a line with sparse markers, the interval as a band; ``crowd`` is the number of lines.

    The band is left out where few of the seeds have a value (under half of them, or two of more): it would fill the
    figure.
    """
    # Markers at regular places, shifted from line to line: they tell lines apart without colour.
    gap = max(1, len(x) // 7)
    every = (place * gap // max(crowd, 1), gap) if len(x) > 15 else None
    shown = {**line.look, "marker": line.look["marker"] if crowd > 1 or len(x) == 1 else ""}
    shown["marker"] = "_" if len(x) == 1 and not shown["marker"] else shown["marker"]
    axes.plot(x, found["mean"], label=line.label, markevery=every, linewidth=1.4 if len(x) < 150 else 1.0, **shown)
    seeds = line.rows["seed"].nunique()
    trusted = found[["low", "high"]].where(found["n"] >= max(seeds / 2, min(seeds, 3)))
    opacity = 0.18 if crowd <= 8 else 0.07
    axes.fill_between(x, trusted["low"], trusted["high"], color=line.look["color"], alpha=opacity, linewidth=0)


def finish(figure: Figure, lines: Sequence[Series]) -> Figure:
    """Adds the legend outside the axes: on the right, or below, on more paper, where it is long."""
    handles = [Line2D([], [], label=line.label, **line.look) for line in lines]
    width, height = figure.get_size_inches()
    widest = max(len(line.label) for line in lines)
    title = seeds_note(lines)
    if widest <= 24 and 0.2 * (len(lines) + 2) <= height:
        figure.legend(handles=handles, loc="outside right upper", title=title, alignment="left", handlelength=3.2)
        return figure
    columns = max(1, min(len(lines), int((width - 0.2) / (0.066 * widest + 0.65))))
    rows = math.ceil(len(lines) / columns)
    figure.set_size_inches(width, height + 0.18 * rows + 0.3)
    title = title.replace("\n", " ")
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, title=title, handlelength=3.2)
    return figure


def seeds_note(lines: Sequence[Series]) -> str:
    """What lines and bands are, for the legend's title."""
    counts = {line.rows["seed"].nunique() for line in lines}
    if counts == {1}:
        return "one seed"
    numbers = f"{min(counts)}-{max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    return f"mean over {numbers} seeds,\n95 % interval"


def count_axis(axes: Axes, end: float) -> None:
    """From 0 to ``end`` with room for a marker there; ticks as 200k and 1M."""
    axes.set_xlim(0, 1.012 * end)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def intervals(rows: pd.DataFrame, value: str, by: str | Sequence[str]) -> pd.DataFrame:
    """:func:`plasticity.results.curve` without the places where no lane has a value."""
    return curve(rows, value, by).dropna(subset="mean")
