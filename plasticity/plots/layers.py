"""Heat maps of layers over time, and the density of the Hessian's eigenvalues over time."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from plasticity.plots.curves import X_LABELS
from plasticity.plots.legend import colour_bar, grid, label_lowest, label_side, page, row_height, ticks
from plasticity.plots.options import PLAIN, Options
from plasticity.plots.style import Series, check_column, series, styled
from plasticity.plots.text import NARROW, fitted
from plasticity.plots.thin import thinned

BINS = "hessian_density/bin_"
MOST_RIDGES = 12  # per panel
FLOOR = 1e-4  # share of eigenvalues at the base of a ridge


def layer_names(metrics: pd.DataFrame) -> list[str]:
    """The monitors of ranks and units that have columns ``NAME/LAYER`` whose values change over time."""
    found = (str(name).partition("/") for name in metrics if "/" in str(name) and metrics[name].nunique() > 1)
    return list(dict.fromkeys(base for base, _, _ in found if "rank" in base or base.endswith("_units")))


@styled
def layers(
    metrics: pd.DataFrame,
    name: str,
    *,
    x: str = "step",
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
) -> Figure:
    """Draw a monitor of every layer over time as a heat map, one panel per arm: means over seeds, one colour scale.

    Args:
      metrics: a table of :func:`plasticity.results.load`.
      name: the monitor; its columns are ``NAME/LAYER``, with the first layer at the top.
      x: ``step``, ``frames``, ``update`` or ``flops``.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: does not affect the colours; orders the panels as in the other figures.
      options: the arms, their labels and the figure size.

    Raises:
      ValueError: the monitor has no layers with values.
    """
    columns = [each for each in map(str, metrics) if each.startswith(f"{name}/") and metrics[each].notna().any()]
    if not columns:
        check_column(metrics, f"{name}/LAYER")
    table = thinned(metrics.dropna(subset=columns, how="all"), x, columns, hyper)
    lines = series(table, hyper, controls, options)
    means = [line.rows.groupby(x)[columns].mean() for line in lines]
    low, high = min(mean.min().min() for mean in means), max(mean.max().max() for mean in means)
    figure, panels, (_, wide) = _panels(lines, 0.75 + 0.16 * len(columns), options)
    for panel, mean in zip(panels, means, strict=True):
        edges = _edges(mean.index.to_numpy(float))
        image = panel.pcolormesh(
            edges, np.arange(len(columns) + 1), mean.to_numpy().T, cmap="viridis", vmin=low, vmax=high, rasterized=True
        )
        panel.set_yticks(np.arange(len(columns)) + 0.5, [each.removeprefix(f"{name}/") for each in columns])
        panel.set_ylim(len(columns), 0)
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.xaxis.set_major_locator(ticks(options.width / wide))
    figure.supxlabel(X_LABELS.get(x, x), fontsize=9)
    colour_bar(figure, image, panels, name.replace("_", " "))
    return figure


def _panels(lines: Sequence[Series], height: float, options: Options) -> tuple[Figure, list[Axes], tuple[int, int]]:
    """A figure, its panels in use, and how many rows and columns there are."""
    rows, columns = grid(len(lines), 2 if options.width < NARROW else max(1, min(5, int((options.width - 1.5) / 1.4))))
    room = (options.width - (0.7 if options.width < NARROW else 1.5)) / columns - 0.15
    figure = page(options, (1.1 if options.width < NARROW else 0.6) + max(height, 1.3) * rows, rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel, line in zip(panels.flat, lines, strict=False):
        panel.set_title(fitted(line.label, room, 7.5), fontsize=7.5)
        panel.grid(visible=False)
    label_lowest(panels, len(lines), "")
    return figure, list(panels.flat)[: len(lines)], (rows, columns)


def _edges(places: np.ndarray) -> np.ndarray:
    """Cell edges: the colour of a measurement extends back to the previous one."""
    gap = places[1] - places[0] if len(places) > 1 else places[0] or 1.0
    return np.r_[max(0.0, places[0] - gap), places]


@styled
def hessian_density(
    metrics: pd.DataFrame,
    *,
    x: str = "step",
    smallest: float = 1e-2,
    largest: float = 1e3,
    scale: str = "symlog",
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
) -> Figure:
    """Draw the density of the Hessian's eigenvalues over time as ridges, one panel per arm, with time upwards.

    The height of a ridge is the base-10 logarithm of the share of eigenvalues in a bin of the monitor's grid, starting
    at ``10^-4`` (mean over seeds). At most 12 equally spaced measurements are drawn, fewer in low panels.

    Args:
      metrics: a table of :func:`plasticity.results.load` with the columns of the monitor ``hessian_density``.
      x: ``step``, ``frames``, ``update`` or ``flops``.
      smallest, largest, scale: the monitor's settings, which its columns do not record.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in grey.
      options: the arms, their labels and the figure size.

    Raises:
      ValueError: the table has no such columns, or they have no values.
    """
    bins = sorted(name for name in map(str, metrics) if name.startswith(BINS))
    if not bins or not metrics[bins].notna().any(axis=None):
        check_column(metrics, f"{BINS}00")
        raise ValueError("hessian_density has no values in this table")
    table = thinned(metrics.dropna(subset=bins), x, bins, hyper)
    lines = series(table, hyper, controls, options)
    figure, panels, (rows, _) = _panels(lines, row_height(options, 3.2 if len(lines) <= 4 else 2.2), options)
    height = figure.get_size_inches()[1] / rows
    most = int(np.clip((height - 0.9) / 0.14, 3, MOST_RIDGES))  # whose labels have room
    for panel, line in zip(panels, lines, strict=True):
        found = line.rows.groupby(x)[bins].mean()
        chosen = np.unique(np.linspace(0, len(found) - 1, min(len(found), most)).round().astype(int))
        _ridges(panel, line, found.iloc[chosen])
        _eigenvalue_axis(panel, len(bins), smallest, largest, scale)
    figure.supxlabel("eigenvalue of the Hessian", fontsize=9)
    floor = f"10$^{{{round(np.log10(FLOOR))}}}$"
    label_side(figure, f"{X_LABELS.get(x, x)}; height: share of eigenvalues, log scale from {floor} to 1")
    return figure


def _ridges(axes: Axes, line: Series, found: pd.DataFrame) -> None:
    places = np.arange(found.shape[1])
    heights = np.log10(np.clip(found.to_numpy(float), FLOOR, 1) / FLOOR) / -np.log10(FLOOR)
    for level in reversed(range(len(found))):
        ridge = level + 1.6 * heights[level]
        axes.fill_between(
            places, level, ridge, color=line.look["color"], alpha=0.35, linewidth=0, zorder=2 + len(found) - level
        )
        axes.plot(places, ridge, color=line.look["color"], linewidth=0.7, zorder=2 + len(found) - level)
    form = EngFormatter(sep="")
    axes.set_yticks(range(len(found)), [form(place) for place in found.index])
    axes.set_ylim(-0.15, len(found) + 0.8)


def _eigenvalue_axis(axes: Axes, count: int, smallest: float, largest: float, scale: str) -> None:
    """Label an axis of bin indices with eigenvalues; the middle bin contains 0."""
    middle = (count - 1) / 2
    axes.set_xlim(0, count - 1)
    if scale == "linear":
        ends = largest * (count - 1) / count
        axes.set_xticks([0, middle, count - 1], [f"\u2212{ends:.2g}", "0", f"{ends:.2g}"])
        return
    decades = np.log10(largest / smallest)
    powers = [10.0**power for power in range(int(np.ceil(np.log10(smallest))), int(np.floor(np.log10(largest))) + 1)]
    powers = powers[-1 :: -max(2, -(-len(powers) // 2))]
    # The middle bin ends at `smallest`, half a bin from its centre; adjacent ticks would overlap the one at 0.
    away = [0.5 + np.log10(power / smallest) / decades * (count // 2) for power in powers]
    away = [each for each in away if each > 0.12 * count]
    names = [f"10$^{{{round(np.log10(power))}}}$" for power in powers[: len(away)]]
    ticks = [middle - each for each in away] + [middle] + [middle + each for each in away]
    axes.set_xticks(ticks, [f"\u2212{name}" for name in names] + ["0"] + names)
    axes.set_xlim(-0.5, count - 0.5)
