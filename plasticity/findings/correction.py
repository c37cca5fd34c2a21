"""Correction for several clauses: the confidence of each clause's interval."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from scipy import stats

from plasticity.findings.criterion import LEAST, Clause
from plasticity.findings.samples import Sample, Samples

Correction = Literal["none", "bonferroni", "holm"]
CORRECTIONS: tuple[str, ...] = get_args(Correction)


def corrected(
    correction: Correction, clauses: Sequence[Clause], found: Sequence[Samples], least: int = LEAST
) -> list[float]:
    """The confidence of each of ``m`` clauses; with ``alpha = 1 - confidence`` as written in the clause:

    * ``none``: ``1 - alpha``;
    * ``bonferroni``: ``1 - alpha / m``;
    * ``holm``: ``1 - alpha / (m - k)`` for the clause with the ``k``-th smallest p-value, ``k`` from 0, up to the first
      clause whose interval at this confidence is not on the required side. The clauses after it have its ``m - k``.

    In all three cases a clause holds if and only if its interval at this confidence lies on the required side. The
    probability that any clause holds whose statement is false is then at most ``alpha`` with a correction.

    Args:
      correction: one of :data:`CORRECTIONS`.
      clauses: of the whole criterion.
      found: the values of each.
      least: a clause with fewer seeds does not hold.

    Returns:
      One confidence per clause. If clauses differ in their confidence, Holm's order is that of ``p / alpha``.

    Reference: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    alphas = np.array([1 - clause.confidence for clause in clauses])
    if correction == "none":
        return [clause.confidence for clause in clauses]
    count = len(clauses)
    if correction == "bonferroni":
        return list(map(float, 1 - alphas / count))
    ratios = np.array([p_value(clause, of, least) for clause, of in zip(clauses, found, strict=True)]) / alphas
    left, levels = count, np.ones(count)
    for place in np.argsort(ratios, kind="stable"):
        levels[place] = 1 - alphas[place] / left
        if ratios[place] < 1 / left:  # it holds
            left -= 1
    return list(map(float, levels))


def p_value(clause: Clause, found: Samples, least: int = LEAST) -> float:
    """The smallest ``alpha`` for which the clause's intervals of confidence ``1 - alpha`` are on the required side.

    For one sample and ``above``: the two-sided p-value of the t test of the mean against the bound if the mean is above
    it, else 1. The largest one if several samples must hold (contrasts), or both bounds (``within``).
    """
    return max(_of_sample(clause, sample, least) for sample in found.tested)


def _of_sample(clause: Clause, sample: Sample, least: int) -> float:
    values = sample.values.to_numpy(float)
    values = values[np.isfinite(values)]
    if len(values) < max(least, 2):
        return 1.0
    distances = {"above": values.mean() - sample.bound[0], "below": sample.bound[-1] - values.mean()}
    distance = distances.get(clause.direction, min(distances.values()))
    if distance <= 0:
        return 1.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(2 * stats.t.sf(distance / error, len(values) - 1)) if error > 0 else 0.0
