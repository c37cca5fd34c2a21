"""Which monitors correlate with performance: scatter plots with rank correlations."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import spearmanr

from plasticity.plots.curves import monitor_names
from plasticity.plots.legend import finish, grid, label_lowest, label_side, page, row_height
from plasticity.plots.options import PLAIN, Options
from plasticity.plots.style import Series, check_column, series, styled, swept_columns, wrapped
from plasticity.plots.thin import thinned

MOST_PANELS = 15
MOST_DOTS = 1500  # per arm and panel


def correlations(
    metrics: pd.DataFrame,
    visits: pd.DataFrame,
    *,
    names: Sequence[str] | None = None,
    measure: str = "performance",
    hyper: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Compute Spearman's correlation of each monitor's mean over a visit with the performance in that visit.

    ``rho = corr(rank(monitor), rank(performance))`` over all lanes and visits (``spearman``), and within each lane over
    its visits, averaged over lanes (``within_lanes``). The first mixes differences between arms with changes over time;
    the second reflects changes over time only. Neither implies causation. If ``visits`` contains several tasks that
    recur, performance is first ranked within each task.

    Args:
      metrics: a table of :func:`plasticity.results.load`.
      visits: a table of :func:`plasticity.results.visits`, of the same runs.
      names: the monitors; by default, all metrics of the whole network.
      measure: the column of ``visits``.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.

    Returns:
      ``monitor, spearman, within_lanes, lanes, points``, strongest within lanes first; NaN if a quantity is constant.

    Raises:
      ValueError: no such column.
    """
    names = monitor_names(metrics, hyper) if names is None else list(names)
    table = paired(metrics, visits, names, measure, hyper)
    rows = [{"monitor": name, **_correlated(table, name, measure)} for name in names]
    found = pd.DataFrame(rows, columns=["monitor", "spearman", "within_lanes", "lanes", "points"])
    strength = found["within_lanes"].abs().fillna(-1.0)
    return found.iloc[np.argsort(-strength, kind="stable")].reset_index(drop=True)


def paired(
    metrics: pd.DataFrame, visits: pd.DataFrame, names: Sequence[str], measure: str, hyper: Sequence[str] | None
) -> pd.DataFrame:
    """One row per lane and finished visit: ``names`` averaged over the visit, and ``measure``."""
    for name in names:
        check_column(metrics, name)
    check_column(visits, measure)
    keys = [name for name in ("run", "arm", "lane", "visit") if name in metrics]
    means = thinned(metrics, names=names, hyper=hyper).groupby(keys, observed=True)[list(names)].mean().reset_index()
    swept = [name for name in swept_columns(visits, hyper) if name in visits]
    return visits[[*keys, "seed", "task", measure, *swept]].merge(means, on=keys).dropna(subset=measure)


def _correlated(table: pd.DataFrame, name: str, measure: str) -> dict[str, float]:
    rows = table.dropna(subset=name).reset_index(drop=True)
    again = rows["task"].nunique() < rows["visit"].nunique()
    values = rows.groupby("task", observed=True)[measure].rank(pct=True) if again else rows[measure]
    keys = [rows[key] for key in ("run", "arm", "lane") if key in rows]
    each = [
        _spearman(part[name].to_numpy(float), values[part.index].to_numpy(float))
        for _, part in rows.groupby(keys, observed=True)
    ]
    within = np.asarray([rho for rho in each if math.isfinite(rho)])
    mean = float(within.mean()) if within.size else math.nan
    overall = _spearman(rows[name].to_numpy(float), values.to_numpy(float))
    return {"spearman": overall, "within_lanes": mean, "lanes": within.size, "points": len(rows)}


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's correlation of at least four points; NaN if one of the variables is constant."""
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)


@styled
def mechanisms(
    metrics: pd.DataFrame,
    visits: pd.DataFrame,
    *,
    names: Sequence[str] | None = None,
    measure: str = "performance",
    label: str = "performance",
    hyper: Sequence[str] | None = None,
    controls: Sequence[str] = ("fresh",),
    options: Options = PLAIN,
) -> Figure:
    """Draw one panel per monitor: performance against the monitor's mean over the visit, one dot per lane and visit.

    The titles give the :func:`correlations` over everything and within lanes; the strongest within lanes come first.

    Args:
      metrics: a table of :func:`plasticity.results.load`.
      visits: a table of :func:`plasticity.results.visits`, of the same runs.
      names: the monitors; by default, the 15 with the strongest correlation within lanes.
      measure: the column of ``visits``.
      label: what it measures, with its unit.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
      controls: arms drawn in grey.
      options: the arms, their labels and the figure size. Correlations use only the arms that are drawn.

    Raises:
      ValueError: no such column, or no monitor has a value in a finished visit.
    """
    metrics, visits = (_drawn_arms(table, options) for table in (metrics, visits))
    found = correlations(metrics, visits, names=names, measure=measure, hyper=hyper)
    found = found[found["points"] > 1].head(MOST_PANELS if names is None else len(found))
    if found.empty:
        raise ValueError("no monitor has a value in two finished visits")
    table = paired(metrics, visits, list(found["monitor"]), measure, hyper)
    lines = [_as_dots(line) for line in series(table, hyper, controls, options)]
    rows, columns = grid(len(found), 3 if len(found) != 4 else 2, options.width)
    figure = page(options, 0.5 + (3.2 if options.width / columns > 3 else row_height(options, 2.1)) * rows, rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, row in zip(panels.flat, found.to_dict("records"), strict=False):
        _scatter(panel, lines, table, str(row["monitor"]), measure)
        rho, within = (
            f"{row[key]:+.2f}" if math.isfinite(row[key]) else "none" for key in ("spearman", "within_lanes")
        )
        numbers = wrapped(f"all {rho}, within lanes {within}", options.width / columns - 0.6, 7.5)
        panel.set_title(f"{row['monitor'].replace('_', ' ')}\n{numbers}", fontsize=7.5)
    label_lowest(panels, len(found), "mean over a visit")
    label_side(figure, label)
    return finish(figure, lines, "one dot per lane and visit;\nnumbers: Spearman's correlation", options)


def _drawn_arms(table: pd.DataFrame, options: Options) -> pd.DataFrame:
    """The rows of the arms that are drawn; correlations use only these."""
    return table if options.arms is None else table[table["arm"].isin(list(options.arms))]


def _as_dots(line: Series) -> Series:
    return line._replace(look={**line.look, "linestyle": "", "marker": line.look["marker"] or "x"})


def _scatter(axes: Axes, lines: Sequence[Series], table: pd.DataFrame, name: str, measure: str) -> None:
    for line in lines:
        dots = line.rows[:: math.ceil(len(line.rows) / MOST_DOTS)]
        axes.plot(dots[name], dots[measure], markersize=2.2, alpha=0.55, rasterized=True, **line.look)
    if table[name].min() > 0 and table[name].max() > 100 * table[name].min():
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(3))
