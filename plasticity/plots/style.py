"""Style of figures: each arm looks the same in all figures."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.textpath import TextPath
from matplotlib.ticker import EngFormatter, MaxNLocator

from plasticity.plots.options import PLAIN, Options, checked
from plasticity.results import Point, controls, curve, points
from plasticity.results.read import FRESH, IDENTITY, RunPath, no_column

Bounds: TypeAlias = tuple[float, float]
UNBOUNDED: Bounds = (-math.inf, math.inf)
# After Okabe and Ito (2008), Color Universal Design, without black and yellow, and a wine red as the seventh.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.2, 1, 1.2)), (0, (1.2, 1.2)), (0, (6, 2.2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")  # 11 and 7 have no common factor: pairs are unique
CONTROL_COLOUR, CONTROL_DASHES = "#404040", ((0, (4, 2)), (0, (4, 2, 1, 2)), (0, (2, 2)), (0, (8, 2)))
BEHIND = "#B4B4B4"  # of a reference curve in the background
SWITCH_COLOUR = "#C8C8C8"
FEW = 12  # maximum number of visits labelled by name
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
Drawn: TypeAlias = Any  # a Figure, or the Axes that the caller passed


class Series(NamedTuple):
    """One line of a figure: an arm at one point of its sweep."""

    label: str
    rows: pd.DataFrame
    look: dict[str, Any]  # colour, line style and marker


def styled(draw: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Run ``draw`` under this module's settings and restore matplotlib's afterwards."""

    @functools.wraps(draw)
    def inside(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        with matplotlib.rc_context(RC):
            return draw(*args, **kwargs)

    return inside


def swept_columns(table: pd.DataFrame, hyper: Sequence[str] | None) -> list[str]:
    """``hyper``, or the columns that look like hyper-parameters: those with a dot and no slash in the name."""
    if hyper is not None:
        return list(hyper)
    return [column for column in map(str, table.columns) if "." in column and "/" not in column]


def controls_of(runs: Sequence[RunPath]) -> tuple[str, ...]:
    """The arms that are fresh controls in these runs; ``fresh`` if there are none."""
    named = {name for run in runs for name in controls(run).values() if name}
    return tuple(sorted(named)) or (FRESH,)


def series(
    table: pd.DataFrame, hyper: Sequence[str] | None, controls: Sequence[str], options: Options = PLAIN
) -> list[Series]:
    """The lines of a table, in the order of the config or of the options.

    An arm's style depends on its position among all arms of the run, drawn or not, so it is the same in every figure.
    Points of a sweep have lighter shades and different dashes.
    """
    return named(points(table, swept_columns(table, hyper)), controls, options)


def named(cells: Sequence[Point], controls: Sequence[str], options: Options) -> list[Series]:
    """The lines of the points that ``options`` selects, in that order."""
    if cells:
        checked(options, arms_of(cells))
    found = looks(cells, controls)
    return [Series(options.label(cells[k]), cells[k].rows, found[k]) for k in options.places(cells)]


def arms_of(cells: Sequence[Point]) -> list[str]:
    """All arms of a table's points, including those without rows."""
    return list(dict.fromkeys([*_categories(cells[0].rows, "arm"), *(cell.arm for cell in cells)]))


def looks(cells: Sequence[Point], controls: Sequence[str]) -> list[dict[str, Any]]:
    """The styles of the points of one table; arms without rows also take up a style."""
    if not cells:
        return []
    runs = _categories(cells[0].rows, "run") or [""]
    arms = arms_of(cells)
    both = [(run, arm) for run in runs for arm in arms]
    coloured, grey = ([pair for pair in both if (pair[1] in controls) == control] for control in (False, True))
    seen: dict[tuple[str, str], list[Point]] = {}
    for cell in cells:
        seen.setdefault((cell.run, cell.arm), []).append(cell)
    found = []
    for cell in cells:
        siblings, where = seen[cell.run, cell.arm], (cell.run, cell.arm)
        place = next(index for index, other in enumerate(siblings) if other is cell)
        if where in coloured:
            found.append(look(coloured.index(where), place, len(siblings)))
        else:  # several controls differ like the points of a sweep
            found.append(look(None, place * len(grey) + grey.index(where), len(siblings) * len(grey)))
    return found


def _categories(table: pd.DataFrame, column: str) -> list[str]:
    if column not in table:
        return []
    values = table[column]
    return list(values.cat.categories if isinstance(values.dtype, pd.CategoricalDtype) else pd.unique(values))


def look(number: int | None, point: int = 0, count: int = 1) -> dict[str, Any]:
    """The style of arm ``number`` (None: a control) at one of its ``count`` points."""
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
    """Draw the mean as a line with sparse markers and the interval as a band; ``crowd`` is the number of lines.

    The band is omitted where few seeds have a value (fewer than half, or only two of more), since it would fill the
    figure.
    """
    # Markers at regular intervals, offset between lines, distinguish the lines without colour.
    gap = max(1, len(x) // 7)
    every = (place * gap // max(crowd, 1), gap) if len(x) > 15 else None
    shown = {**line.look, "marker": line.look["marker"] if crowd > 1 or len(x) == 1 else ""}
    shown["marker"] = "_" if len(x) == 1 and not shown["marker"] else shown["marker"]
    axes.plot(x, found["mean"], label=line.label, markevery=every, linewidth=1.4 if len(x) < 150 else 1.0, **shown)
    seeds = line.rows["seed"].nunique()
    trusted = found[["low", "high"]].where(found["n"] >= max(seeds / 2, min(seeds, 3)))
    opacity = 0.3 if crowd == 1 else 0.18 if crowd <= 8 else 0.07
    axes.fill_between(x, trusted["low"], trusted["high"], color=line.look["color"], alpha=opacity, linewidth=0)


def grid(count: int, most: int = 5) -> tuple[int, int]:
    """Rows and columns for ``count`` small panels."""
    columns = min(count, most) if count <= most or count > 2 * most else math.ceil(count / 2)
    return math.ceil(count / columns), columns


def draw_visits(axes: Axes, lines: Sequence[Series], order: Sequence[int], value: str, bounds: Bounds) -> None:
    """Draw ``value`` by visit: as adjacent points if there are few visits, as curves with bands if there are many."""
    if len(order) <= FEW:
        return draw_points(axes, lines, order, value, bounds)
    for place, line in enumerate(lines):
        found = intervals(line.rows[line.rows["visit"].isin(order)], value, "visit", bounds)
        draw_curve(axes, line, found, found.index.to_numpy() + 1, len(lines), place)
    axes.xaxis.set_major_locator(MaxNLocator(6 if len(order) < 30 else 10, integer=True, min_n_ticks=3))
    axes.margins(x=0.02)


def draw_points(axes: Axes, lines: Sequence[Series], order: Sequence[int], value: str, bounds: Bounds) -> None:
    """Draw a few visits (``order``): means as points with intervals as bars, the arms next to each other."""
    spread = min(0.09, 0.7 / len(lines))
    for place, line in enumerate(lines):
        found = intervals(line.rows[line.rows["visit"].isin(order)], value, "visit", bounds)
        x = [order.index(visit) + spread * (place - (len(lines) - 1) / 2) for visit in found.index]
        look = {**line.look, "marker": line.look["marker"] or "_"}
        axes.plot(x, found["mean"], label=line.label, linewidth=0.9, **look)
        axes.vlines(x, found["low"], found["high"], color=look["color"], linewidth=1.1)
    axes.set_xlim(-0.6, len(order) - 0.4)
    axes.set_xticks(range(len(order)), [str(visit + 1) for visit in order])


def count_axis(axes: Axes, end: float) -> None:
    """Set an axis from 0 to ``end`` with space for a marker there, and tick labels such as 200k and 1M."""
    axes.set_xlim(0, 1.012 * end)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def intervals(rows: pd.DataFrame, value: str, by: str | Sequence[str], bounds: Bounds = UNBOUNDED) -> pd.DataFrame:
    """Apply :func:`plasticity.results.curve`, drop places without values, and clip intervals to ``bounds``."""
    return within(curve(rows, value, by).dropna(subset="mean"), bounds)


def within(found: pd.DataFrame, bounds: Bounds) -> pd.DataFrame:
    """Clip ``low`` and ``high`` to the bounds of the quantity itself; means are unchanged.

    A t interval is symmetric and ignores bounds: that of an accuracy near 1 may extend above 1.
    """
    low, high = (found[end].clip(*bounds) for end in ("low", "high"))
    return found.assign(low=np.minimum(low, found["mean"]), high=np.maximum(high, found["mean"]))


def wrapped(text: str, width: float, size: float = 8.0) -> str:
    """Wrap a text at words into lines of at most ``width`` inches, if the words are short enough."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def text_width(text: str, size: float = 8.0) -> float:
    """Width in inches of the longest line of a text; ``size``: font size in points."""
    return float(max(TextPath((0, 0), line, size=size).get_extents().width for line in text.splitlines()) / 72)


def check_column(table: pd.DataFrame, name: str) -> None:
    """Raise a ``ValueError`` that lists the available columns if the table has no such column."""
    if name not in table:
        identity = {*IDENTITY, *(column for column in table if "." in str(column))}
        known = [str(column) for column in table.select_dtypes("number") if column not in identity]
        raise ValueError(no_column("the table has no column", name, known))
