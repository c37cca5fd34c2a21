"""Thinning of long tables before drawing, since a page cannot show more than several hundred points."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from plasticity.plots.streams import TIMES
from plasticity.plots.style import swept_columns
from plasticity.results.read import IDENTITY

MOST_POINTS = 800  # per line


def thinned(
    metrics: pd.DataFrame, x: str = "step", names: Sequence[str] | None = None, hyper: Sequence[str] | None = None
) -> pd.DataFrame:
    """Average neighbouring records of each lane, so that at most about 800 points remain.

    Groups end where visits end, so there may be one more point per visit. With more than 400 visits, whole visits are
    averaged.

    Args:
      metrics: a table of :func:`plasticity.results.load`.
      x: ``step``, ``frames``, ``update`` or ``flops``; the last value of a group represents it. Lanes that differ in
        updates at the same step, and so in FLOPs, all get the mean of their line.
      names: the metrics to keep; None: all. Missing values are excluded from means.
      hyper: the swept hyper-parameters; by default the columns with a dot in their name.
    """
    kept = {*IDENTITY, *swept_columns(metrics, hyper)}
    chosen = [name for name in metrics if name in kept or names is None or name in names]
    metrics = _aligned(metrics[chosen], x, hyper)
    place, places = pd.factorize(metrics[x], sort=True)
    if len(places) <= MOST_POINTS:
        return metrics
    owners = [_codes(metrics[name]) for name in ("run", "arm", "lane") if name in metrics]
    if not _in_order([*owners, place]):
        order = np.lexsort([place, *owners[::-1]])
        metrics, place, owners = metrics.iloc[order], place[order], [each[order] for each in owners]
    visit, visits = metrics["visit"].to_numpy(), metrics["visit"].nunique()
    groups = [visit, place // math.ceil(len(places) / MOST_POINTS)]
    if visits > MOST_POINTS // 2:
        groups = [visit // math.ceil(visits / MOST_POINTS)]
    new = np.any([each[1:] != each[:-1] for each in (*owners, *groups)], axis=0)
    starts = np.r_[0, np.flatnonzero(new) + 1]
    found = metrics.iloc[np.r_[starts[1:], len(metrics)] - 1].reset_index(drop=True)
    means = {
        str(name): _means(metrics[name].to_numpy(), starts)
        for name in metrics
        if name not in kept and pd.api.types.is_numeric_dtype(metrics[name])
    }
    return found.assign(**means)


def smoothed(metrics: pd.DataFrame, names: Sequence[str], window: int) -> pd.DataFrame:
    """Replace ``names`` by centred running means over ``window`` records of a lane, within each visit.

    Records without a value are ignored and remain empty; at the ends of a visit the window is shorter.
    """
    if window == 1:
        return metrics
    keys = [name for name in ("run", "arm", "lane", "visit") if name in metrics]
    metrics = metrics.sort_values([*keys[:-1], "step"], kind="stable", ignore_index=True)
    means: dict[str, pd.Series] = {}
    for name in names:
        rows = metrics[[*keys, name]].dropna(subset=name)
        rolling = rows.groupby(keys, observed=True)[name].rolling(window, center=True, min_periods=1).mean()
        means[name] = rolling.reset_index(level=keys, drop=True).reindex(metrics.index)
    return metrics.assign(**means)


def _aligned(metrics: pd.DataFrame, x: str, hyper: Sequence[str] | None) -> pd.DataFrame:
    """The table with ``x`` averaged over the lanes of a line at each step."""
    if x in TIMES or x not in metrics:
        return metrics
    keys = [name for name in ("run", "arm", "step") if name in metrics] + swept_columns(metrics, hyper)
    return metrics.assign(**{x: metrics.groupby(keys, observed=True, dropna=False)[x].transform("mean")})


def _codes(column: pd.Series) -> np.ndarray:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy()
    return column.to_numpy() if pd.api.types.is_numeric_dtype(column) else pd.factorize(column)[0]


def _in_order(keys: Sequence[np.ndarray]) -> bool:
    """Whether rows are sorted by the first key, then by the second, ..."""
    ahead = np.zeros(len(keys[0]) - 1, bool)
    for key in keys:
        step = np.diff(key.astype(np.int64))
        if (~ahead & (step < 0)).any():
            return False
        ahead |= step > 0
    return True


def _means(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    held = ~np.isnan(values)
    count = np.add.reduceat(held, starts, dtype=np.int64)
    total = np.add.reduceat(np.where(held, values, 0), starts, dtype=float)
    return total / np.where(count > 0, count, np.nan)
