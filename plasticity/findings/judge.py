"""Application of a criterion to tables: pure functions, one table per quantity (:mod:`plasticity.findings.lanes`)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from plasticity.findings.correction import Correction, corrected
from plasticity.findings.criterion import LEAST, Clause, Group, clauses
from plasticity.findings.lanes import Tables
from plasticity.findings.samples import Samples, samples
from plasticity.findings.wording import clause_text
from plasticity.results.intervals import mean_interval


class Judged(NamedTuple):
    """Result of one clause."""

    text: str
    number: float
    low: float
    high: float
    seeds: int
    holds: bool
    confidence: float
    contrasts: tuple[tuple[float, float, float], ...] = ()  # number, low, high of each pair of neighbours
    never: int | None = None  # of a time: number of lanes that never crossed the threshold
    values: tuple[tuple[str, int, float], ...] = ()  # arm or statistic, seed, value


class Verdict(NamedTuple):
    passed: bool
    judged: tuple[Judged, ...]  # every clause, in the order of the criterion


def judge(criterion: Clause | Group, tables: Tables, least: int = LEAST, correction: Correction = "none") -> Verdict:
    """Whether the criterion holds.

    A clause holds if its interval lies on the required side of its bound and is based on at least ``least`` seeds.
    ``correction`` sets the confidence of the intervals (:func:`plasticity.findings.correction.corrected`).
    """
    each = list(clauses(criterion))
    found = [samples(clause, tables) for clause in each]
    levels = corrected(correction, each, found, least)
    judged = tuple(
        _judged(replace(clause, confidence=level), of, least)
        for clause, of, level in zip(each, found, levels, strict=True)
    )
    return Verdict(passes(criterion, [one.holds for one in judged]), judged)


def passes(criterion: Clause | Group, holds: Sequence[bool]) -> bool:
    """Whether the criterion holds if its clauses, in the order of the file, do or do not."""
    return _passes(criterion, iter(holds))


def _passes(criterion: Clause | Group, holds: Iterator[bool]) -> bool:
    if isinstance(criterion, Clause):
        return next(holds)
    parts = [_passes(each, holds) for each in criterion.clauses]
    return all(parts) if criterion.needs == "all" else any(parts)


def judge_clause(clause: Clause, tables: Tables, least: int = LEAST) -> Judged:
    return _judged(clause, samples(clause, tables), least)


def _judged(clause: Clause, found: Samples, least: int) -> Judged:
    """The clause's number and interval. Of several contrasts, those of the one that is furthest from holding."""
    intervals = [mean_interval(sample.values, clause.confidence) for sample in found.tested]
    numbers = [(float(mean), float(low), float(high)) for mean, low, high in intervals]
    seeds = min(int(np.isfinite(sample.values).sum()) for sample in found.tested)
    sides = [
        right_side(clause, low, high, sample.bound)
        for sample, (_, low, high) in zip(found.tested, numbers, strict=True)
    ]
    number, low, high = _ratio(clause, found) if clause.compare == "ratio" else _furthest(clause, numbers)
    holds = seeds >= least and all(sides)
    contrasts = tuple(numbers) if clause.compare == "contrasts" else ()
    rows = tuple(found.rows())
    text = clause_text(clause)
    return Judged(text, number, low, high, seeds, holds, clause.confidence, contrasts, found.never, rows)


def _furthest(clause: Clause, numbers: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    def margin(each: tuple[float, float, float]) -> float:
        """How far the interval lies on the required side; NaN counts as infinitely far on the other one."""
        _, low, high = each
        sides = {"above": low - clause.bound[0], "below": clause.bound[-1] - high}
        least = sides.get(clause.direction, min(sides.values()))
        return least if np.isfinite(least) else -np.inf

    return min(numbers, key=margin)


def right_side(clause: Clause, low: float, high: float, bound: Sequence[float]) -> bool:
    """Whether the whole interval is above, below or within the bound."""
    above = clause.direction == "below" or low > bound[0]
    below = clause.direction == "above" or high < bound[-1]
    return bool(np.isfinite(low) and np.isfinite(high) and above and below)


def _ratio(clause: Clause, found: Samples) -> tuple[float, float, float]:
    """The ratio of means with Fieller's interval.

    The clause holds if the t interval of ``a - bound b`` lies on the required side of 0. With a denominator clearly
    above 0 this is equivalent to Fieller's interval lying on the required side of the bound, and needs no division.
    """
    above, below = (found.arms[arm].to_numpy(float) for arm in clause.arms)
    kept = np.isfinite(above) & np.isfinite(below)
    above, below = above[kept], below[kept]
    number = float(above.mean() / below.mean()) if len(below) and below.mean() != 0 else float("nan")
    return number, *fieller(above, below, clause.confidence)


def fieller(above: np.ndarray, below: np.ndarray, confidence: float) -> tuple[float, float]:
    """The ratios ``r`` for which the t interval of the mean of ``above - r below`` contains 0; infinite if unbounded.

    Reference: Fieller 1954, "Some Problems in Interval Estimation".
    """
    n = len(above)
    if n < 2:
        return float("nan"), float("nan")
    squared = stats.t.ppf(0.5 + confidence / 2, n - 1) ** 2 / n
    cover = np.cov(above, below)
    a = below.mean() ** 2 - squared * cover[1, 1]
    b = above.mean() * below.mean() - squared * cover[0, 1]
    c = above.mean() ** 2 - squared * cover[0, 0]
    root = np.sqrt(max(b * b - a * c, 0.0))
    return (float((b - root) / a), float((b + root) / a)) if a > 0 else (-np.inf, np.inf)
