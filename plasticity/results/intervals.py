"""Means over seeds with Student-t intervals."""

import math
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
    """Compute the mean over seeds and its Student-t interval.

    ``mean +- t(n - 1, (1 + confidence) / 2) * s / sqrt(n)``, with ``s`` the sample standard deviation (``n - 1``).
    Non-finite values are left out, so each position of the other axes has its own ``n``.

    Args:
      values: an array of numbers, the seeds along ``axis``.
      confidence: the share of such intervals that cover the true mean, in (0, 1).
      axis: the axis of the seeds.

    Returns:
      The interval, without ``axis``. The bounds are NaN if fewer than two values remain, the mean if none does.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: {confidence} is not allowed; must be in (0, 1)")
    values = np.asarray(values, float)
    kept = np.isfinite(values)
    count = kept.sum(axis)
    some = np.where(count > 0, count, np.nan)
    mean = np.where(kept, values, 0.0).sum(axis) / some
    squares = np.where(kept, values - np.expand_dims(mean, axis), 0.0) ** 2
    half = _half_width(np.sqrt(squares.sum(axis) / np.where(count > 1, count - 1, np.nan)), count, confidence)
    return Interval(mean, mean - half, mean + half)


MOST_SEEDS = 100_000  # beyond this number, more seeds are not an answer


def seeds_to_tell(
    half_width: float, seeds: int, distance: float, confidence: float = 0.95, most: int = MOST_SEEDS
) -> int | None:
    """Estimate how many seeds would make a t interval narrow enough at the observed spread.

    The least ``n`` with ``t(n - 1, (1 + confidence) / 2) * s / sqrt(n) <= distance``, where ``s`` is the sample
    standard deviation of the observed interval, ``s = half_width * sqrt(seeds) / t(seeds - 1, ...)``. The mean is
    assumed not to change, so this is an order of magnitude, not a guarantee.

    Args:
      half_width: of the observed interval.
      seeds: number of values in it.
      distance: from its mean to the bound that the interval should exclude.
      confidence: of both intervals.
      most: largest number of seeds to consider.

    Returns:
      ``n``, or None if the spread is unknown (fewer than two seeds) or more than ``most`` seeds would be needed.
    """
    if seeds < 2 or not math.isfinite(half_width) or not distance > 0:
        return None
    deviation = half_width * math.sqrt(seeds) / stats.t.ppf(0.5 + confidence / 2, seeds - 1)
    if _half_width(deviation, most, confidence) > distance:
        return None
    low, high = (
        1,
        most,
    )  # the half width falls with n: too wide at ``low`` (one seed has none), narrow enough at ``high``
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _half_width(deviation, middle, confidence) <= distance else (middle, high)
    return high


def curve(table: pd.DataFrame, value: str, by: str | Iterable[str], confidence: float = 0.95) -> pd.DataFrame:
    """Apply :func:`mean_interval` to ``value`` in each group of rows with equal ``by``: ``mean, low, high, n``."""
    keys = [by] if isinstance(by, str) else list(by)
    values = table[value].astype(float).replace([np.inf, -np.inf], np.nan)
    groups = values.groupby([table[key] for key in keys], observed=True, dropna=False)
    found = groups.agg(["mean", "std", "count"])
    half = _half_width(found["std"].to_numpy(), found["count"].to_numpy(), confidence)
    return pd.DataFrame(
        {"mean": found["mean"], "low": found["mean"] - half, "high": found["mean"] + half, "n": found["count"]}
    )
