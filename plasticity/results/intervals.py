"""Means over seeds with Student-t intervals."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats


class Interval(NamedTuple):
    """A mean and the bounds of its interval, scalars or arrays of one shape."""

    mean: Any
    low: Any
    high: Any


def _half_width(deviation: Any, count: Any, confidence: float) -> Any:
    count = np.asarray(count, float)
    several = np.where(count > 1, count, np.nan)  # one seed says nothing about the spread
    return stats.t.ppf(0.5 + confidence / 2, several - 1) * deviation / np.sqrt(several)


def mean_interval(values: Any, confidence: float = 0.95, axis: int = -1) -> Interval:
    """The mean over seeds and its Student-t interval.

    ``mean +- t(n - 1, (1 + confidence) / 2) * s / sqrt(n)``, with ``s`` the sample deviation (``n - 1``). Values that
    are not finite are left out, each position of the other axes having its own ``n``.

    Args:
      values: an array of numbers, the seeds along ``axis``.
      confidence: the share of such intervals that hold the true mean, in (0, 1).
      axis: the axis of the seeds.

    Returns:
      The interval, without ``axis``. The bounds are NaN where fewer than two values are left, the mean where none is.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence = {confidence} is outside (0, 1)")
    values = np.asarray(values, float)
    kept = np.isfinite(values)
    count = kept.sum(axis)
    some = np.where(count > 0, count, np.nan)
    mean = np.where(kept, values, 0.0).sum(axis) / some
    squares = np.where(kept, values - np.expand_dims(mean, axis), 0.0) ** 2
    half = _half_width(np.sqrt(squares.sum(axis) / np.where(count > 1, count - 1, np.nan)), count, confidence)
    return Interval(mean, mean - half, mean + half)


def curve(table: pd.DataFrame, value: str, by: str | Iterable[str], confidence: float = 0.95) -> pd.DataFrame:
    """:func:`mean_interval` of the column ``value`` in each group of rows with equal ``by``: ``mean, low, high, n``."""
    keys = [by] if isinstance(by, str) else list(by)
    values = table[value].astype(float).replace([np.inf, -np.inf], np.nan)
    groups = values.groupby([table[key] for key in keys], observed=True, dropna=False)
    found = groups.agg(["mean", "std", "count"])
    half = _half_width(found["std"].to_numpy(), found["count"].to_numpy(), confidence)
    return pd.DataFrame(
        {"mean": found["mean"], "low": found["mean"] - half, "high": found["mean"] + half, "n": found["count"]}
    )
