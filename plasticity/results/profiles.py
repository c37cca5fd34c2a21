"""Score distributions: performance profiles and the probability that one arm beats another."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from plasticity.results.aggregate import (
    CHUNK,
    Unit,
    bounds,
    check_bootstrap,
    enough,
    resampled,
    task_means,
)
from plasticity.results.scores import TaskScores, identity, matched, one_stream

THRESHOLDS = 101  # default number of thresholds


def performance_profiles(
    scores: Sequence[TaskScores],
    thresholds: Sequence[float] | np.ndarray | None = None,
    *,
    averaged: bool = False,
    resample: Unit = "lanes",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute the share of scores above each threshold.

    ``F(tau) = 1/N sum_{s,t} [x_st > tau]``, and with ``averaged`` ``1/T sum_t [mean_s x_st > tau]``: Agarwal et al.
    2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (score and average-score
    distributions). The bands are pointwise, not simultaneous.

    Args:
      scores: from :func:`task_scores`; all from one stream.
      thresholds: in units of the scores; None: 101 from the lowest to the highest score.
      averaged: average over seeds first, then take the share of tasks.
      resample, confidence, resamples, seed: as in :func:`aggregates`.

    Returns:
      One row per arm, swept point and threshold: ``threshold, share, share_low, share_high``; NaN as in
      :func:`aggregates`.

    Raises:
      ValueError: thresholds that are not a 1-D array of finite numbers, a setting outside its range, or different
        streams.
    """
    check_bootstrap(confidence, resamples)
    one_stream(scores)
    taus = _thresholds(scores, thresholds)
    parts = []
    for each in scores:
        band = np.full((2, len(taus)), np.nan)
        if enough(each.values):
            draws = resampled(each.values, resamples, np.random.default_rng(seed), resample)
            band = bounds(np.concatenate([_shares(part, taus, averaged) for part in draws]), confidence)
        columns = {"threshold": taus, "share": _shares(each.values, taus, averaged)}
        columns |= {"share_low": band[0], "share_high": band[1]}
        parts.append(pd.DataFrame(identity(each) | columns))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _thresholds(scores: Sequence[TaskScores], given: Sequence[float] | np.ndarray | None) -> np.ndarray:
    if given is None:
        known = np.concatenate([[], *(each.values[np.isfinite(each.values)] for each in scores)])
        return np.linspace(known.min(), known.max(), THRESHOLDS) if known.size else np.zeros(0)
    taus = np.asarray(given, float)
    if taus.ndim != 1 or not np.isfinite(taus).all():
        raise ValueError(f"thresholds: {given} is not allowed; must be a one-dimensional array of finite numbers")
    return taus


def _shares(values: np.ndarray, taus: np.ndarray, averaged: bool) -> np.ndarray:
    """``[..., seeds, tasks] -> [..., thresholds]``."""
    whole = np.isfinite(values).any(-2).all(-1)
    found = task_means(values)[..., None, :] if averaged else values
    count = np.where(whole, np.isfinite(found).sum((-2, -1)), np.nan)
    shares = [(found > tau).sum((-2, -1)) / count for tau in taus]
    return np.stack(shares, -1) if shares else np.zeros((*values.shape[:-2], 0))


def probability_of_improvement(
    scores: Sequence[TaskScores],
    control: str,
    *,
    resample: Unit = "lanes",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Estimate the probability that a run of an arm beats a run of the control on a task, averaged over tasks.

    ``P(X > Y) = 1/T sum_t 1/(n m) sum_{i,j} ([x_it > y_jt] + [x_it = y_jt] / 2)``: the Mann-Whitney statistic of each
    task, Agarwal et al. 2021 (:func:`performance_profiles`). All pairs of seeds are compared, not only equal seeds. The
    share of equal seeds that improve is the profile of :func:`differences` at threshold 0.

    Args:
      scores: from :func:`task_scores`; all from one stream.
      control: the arm to beat, taken at the point that agrees with the arm's, as in :func:`summary`.
      resample, confidence, resamples, seed: as in :func:`aggregates`; the two arms are resampled independently.

    Returns:
      One row per other arm and swept point: ``control, seeds, control_seeds`` and ``probability, probability_low,
      probability_high``; NaN without a matching control, and as in :func:`aggregates`.

    Raises:
      ValueError: no such arm, a setting outside its range, different streams.
    """
    check_bootstrap(confidence, resamples)
    rows = []
    for each, other in matched(scores, control):
        x = each.values
        y = other.values if other else np.zeros((0, x.shape[1]))
        row = identity(each) | {"control": control, "seeds": len(x), "control_seeds": len(y)}
        low, high = _bounds_of_improvement(x, y, resample, confidence, resamples, seed)
        row |= {"probability": float(_improvement(x, y)), "probability_low": low, "probability_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``[..., n, tasks], [..., m, tasks] -> [...]``."""
    mine, theirs = x[..., :, None, :], y[..., None, :, :]
    won = (mine > theirs).sum((-3, -2)) + 0.5 * (mine == theirs).sum((-3, -2))  # NaN neither wins nor ties
    games = np.isfinite(x).sum(-2) * np.isfinite(y).sum(-2)
    return (won / np.where(games > 0, games, np.nan)).mean(-1)


def _bounds_of_improvement(
    x: np.ndarray, y: np.ndarray, resample: Unit, confidence: float, resamples: int, seed: int
) -> np.ndarray:
    if not (enough(x) and enough(y)):
        return np.full(2, np.nan)
    mine, theirs = np.random.default_rng(seed).spawn(2)
    chunk = max(1, CHUNK // (x.size * len(y)))
    pairs = zip(
        resampled(x, resamples, mine, resample, chunk), resampled(y, resamples, theirs, resample, chunk), strict=True
    )
    return bounds(np.concatenate([_improvement(*pair) for pair in pairs]), confidence)
