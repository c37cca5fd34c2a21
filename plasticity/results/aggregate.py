"""Aggregates over seeds and tasks: interquartile mean, mean, median and optimality gap, with bootstrap intervals.

There are two steps. :func:`task_scores` turns a table into one array ``[seeds, tasks]`` for each arm and swept point.
:func:`aggregates`, a performance profile or a selection among the points of a sweep then summarises these arrays.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd

from plasticity.results.scores import TaskScores, identity, one_stream

Unit = Literal["scores", "lanes"]
CHUNK = 1_000_000  # numbers of resamples held at a time

# ---------------------------------------------------------------------------------------------- the statistics


def task_means(values: np.ndarray) -> np.ndarray:
    """``[..., seeds, tasks] -> [..., tasks]``: means over seeds with a score; NaN if there are none."""
    held = np.isfinite(values)
    count = held.sum(-2)
    return np.where(held, values, 0.0).sum(-2) / np.where(count > 0, count, np.nan)


def mean(values: np.ndarray) -> np.ndarray:
    """``1/T sum_t 1/n_t sum_s x_st``; ``values[..., seeds, tasks]``."""
    return task_means(values).mean(-1)


def median(values: np.ndarray) -> np.ndarray:
    """The median over tasks of the means over seeds."""
    return np.median(task_means(values), -1)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half of all scores, seeds and tasks together.

    ``1/(N - 2c) sum_{c < i <= N - c} x_(i)`` with ``x_(i)`` sorted and ``c = floor(N / 4)``. NaN if a task has no
    score, since over the remaining tasks it would be a different quantity.
    """
    ordered = np.sort(values.reshape(*values.shape[:-2], -1), axis=-1)  # NaN last
    held = np.isfinite(ordered)
    count = held.sum(-1, keepdims=True)
    place = np.arange(ordered.shape[-1])
    inner = (place >= count // 4) & (place < count - count // 4)
    total = np.where(inner, ordered, 0.0).sum(-1) / np.where(count > 0, inner.sum(-1, keepdims=True), np.nan)[..., 0]
    return np.where(np.isfinite(values).any(-2).all(-1), total, np.nan)


def optimality_gap(values: np.ndarray, gamma: float = 1.0) -> np.ndarray:
    """``gamma - 1/N sum min(x, gamma)``: how far scores fall short of ``gamma``; lower is better."""
    held = np.isfinite(values)
    count = np.where(held.any(-2).all(-1), held.sum((-2, -1)), np.nan)
    return gamma - np.where(held, np.minimum(values, gamma), 0.0).sum((-2, -1)) / count


STATISTICS: dict[str, Callable[..., np.ndarray]] = {
    "iqm": interquartile_mean,
    "mean": mean,
    "median": median,
    "optimality_gap": optimality_gap,
}


def statistic(name: str, gamma: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    """Return the named statistic as a function ``[..., seeds, tasks] -> [...]``."""
    if name not in STATISTICS:
        raise ValueError(f"statistic: {name!r} is not allowed; must be one of {', '.join(STATISTICS)}")
    if not math.isfinite(gamma):
        raise ValueError(f"gamma: {gamma} is not allowed; must be a finite number")
    return (lambda values: optimality_gap(values, gamma)) if name == "optimality_gap" else STATISTICS[name]


# ---------------------------------------------------------------------------------------------- the bootstrap


def resampled(
    values: np.ndarray, count: int, generator: np.random.Generator, unit: Unit = "scores", chunk: int | None = None
) -> Iterator[np.ndarray]:
    """Yield ``count`` resamples of ``values[seeds, tasks]`` in chunks ``[some, seeds, tasks]``."""
    if unit not in get_args(Unit):
        raise ValueError(f"resample: {unit!r} is not allowed; must be one of {', '.join(get_args(Unit))}")
    held, columns = np.isfinite(values).sum(0), np.arange(values.shape[1])
    packed = np.take_along_axis(values, np.argsort(~np.isfinite(values), axis=0, kind="stable"), axis=0)
    beyond = np.arange(len(values))[:, None] >= held  # draw as many scores for a task as it has
    chunk = chunk or max(1, CHUNK // max(1, values.size))
    for start in range(0, count, chunk):
        some = min(chunk, count - start)
        if unit == "lanes":
            yield values[generator.integers(0, len(values), (some, len(values)))]
        else:
            index = (generator.random((some, *values.shape)) * held).astype(np.intp)
            yield np.where(beyond, np.nan, packed[index, columns])


def bounds(draws: np.ndarray, confidence: float) -> np.ndarray:
    """The lower and upper percentiles over the first axis, ``[2, ...]``; NaN draws are ignored."""
    tail = (1 - confidence) / 2
    return np.nanquantile(draws, [tail, 1 - tail], axis=0)


def check_bootstrap(confidence: float, resamples: int) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence: {confidence} is not allowed; must be in (0, 1)")
    if resamples < 1:
        raise ValueError(f"resamples: {resamples} is not allowed; must be at least 1")


def enough(values: np.ndarray) -> bool:
    """Whether each task has at least two scores; one score says nothing about the spread."""
    return values.shape[1] > 0 and bool((np.isfinite(values).sum(0) > 1).all())


def aggregates(
    scores: Sequence[TaskScores],
    statistics: Sequence[str] = tuple(STATISTICS),
    *,
    gamma: float = 1.0,
    resample: Unit = "lanes",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute statistics over seeds and tasks with percentile intervals from a stratified bootstrap.

    The statistics ``iqm, mean, median, optimality_gap`` are those of Agarwal, Schwarzer, Castro, Courville, Bellemare
    2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice". Their bootstrap
    (``resample="scores"``) resamples the seeds of each task separately, since runs of separate tasks are independent.
    Here one lane goes through all tasks of a stream and its scores are correlated, so by default whole lanes are
    resampled; with a single task the two are the same. With 10 lanes, 10 tasks and half of the variance between lanes,
    95 % intervals of the mean covered the true value in 90 % of simulations, those of the paper's bootstrap in 53 %.

    Percentile intervals from few seeds are too narrow. With independent normal scores, 95 % intervals of the mean
    covered the true value in 74, 84, 91, 92, 94 % (+- 0.5) of simulations with one task and 3, 5, 10, 20, 40 seeds,
    and in 86, 91, 94 % with ten tasks and 3, 5, 10 seeds. The interquartile mean behaves likewise.
    :func:`mean_interval` is exact in this case.

    Args:
      scores: from :func:`task_scores`, normalised if tasks differ in scale; all from one stream.
      statistics: which of the four to compute.
      gamma: the optimality gap's target, in units of the scores.
      resample: what is drawn with replacement: ``lanes``, or ``scores`` within each task.
      confidence: of the intervals, in (0, 1).
      resamples: number of bootstrap resamples; the paper uses 50 000 for final numbers.
      seed: of the resampling, the same for every arm, so that an arm's interval does not depend on the others.

    Returns:
      One row per arm and swept point: ``seeds, tasks``, ``incomplete`` (seeds with a missing score), ``missing``
      (scores left out), and ``x, x_low, x_high`` of each statistic. Bounds are NaN if a task has fewer than two
      scores; the statistic is NaN as well if a task has none.

    Raises:
      ValueError: an unknown statistic, a setting outside its range, or scores from different streams.
    """
    check_bootstrap(confidence, resamples)
    one_stream(scores)
    chosen = {name: statistic(name, gamma) for name in statistics}
    rows = []
    for each in scores:
        row = identity(each) | {"seeds": len(each.seeds), "tasks": len(each.tasks)}
        row |= {"incomplete": int((~each.whole).sum()), "missing": int(np.isnan(each.values).sum())}
        intervals = _intervals(each.values, chosen, resample, confidence, resamples, seed)
        for (name, function), (low, high) in zip(chosen.items(), intervals, strict=True):
            row |= {name: float(function(each.values)), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _intervals(
    values: np.ndarray,
    chosen: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    resample: Unit,
    confidence: float,
    resamples: int,
    seed: int,
) -> np.ndarray:
    """``[statistics, 2]``."""
    if not enough(values):
        return np.full((len(chosen), 2), np.nan)
    parts = resampled(values, resamples, np.random.default_rng(seed), resample)
    draws = np.concatenate([np.stack([function(part) for function in chosen.values()], -1) for part in parts])
    return bounds(draws, confidence).T
