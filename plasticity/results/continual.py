"""Continual World's three numbers, and what part of a shortfall is forgotten and what part was never learned."""

import functools
from typing import NamedTuple

import numpy as np

from plasticity.results.areas import Area, Curves, forward_transfer_of_areas, own_curves
from plasticity.results.behaviour import Scores
from plasticity.results.read import RunPath, controls, is_measure, lanes
from plasticity.results.transfer import (
    Matrix,
    check_tasks,
    forgetting,
    of_reference,
    pairs_table,
    performance_matrix,
    scored,
)


class ContinualWorld(NamedTuple):
    """The measures of Wolczyk et al. 2021, per lane, task and arm."""

    performance: Scores  # ``performance``: p_i(T); its mean over tasks in ``overall`` is P(T)
    forgetting: Scores  # ``forgetting``: F_i
    transfer: Scores | None  # ``forward_transfer`` and ``difference``: FT_i; None without a control
    measure: str  # the column that is p
    curves: Curves  # where the areas of the forward transfer come from


def continual_world(
    run: RunPath,
    *runs: RunPath,
    control: str | None = None,
    measure: str | None = None,
    last: int = 1,
    area: Area = "mean",
    auc_max: float | None = None,
    scaled: bool = False,
    confidence: float = 0.95,
) -> ContinualWorld:
    """Compute average performance, forgetting and forward transfer, as in Continual World.

    With ``p_i(t)`` the performance on task i, T the end of the run and visit i that of task i::

        P(T) = 1/N sum_i p_i(T)
        F_i  = p_i(end of visit i) - p_i(T)
        FT_i = (AUC_i - AUC_i^b) / (auc_max - AUC_i^b)

    Wolczyk et al. 2021, "Continual World: A Robotic Benchmark For Continual Reinforcement Learning", where p is a
    success rate, so ``auc_max`` is 1. A task that is visited twice counts twice, as in CW20. Forward transfer compares
    areas under the curves of evaluations if there are several in a visit, else areas under the training curves
    (:func:`forward_transfer_of_areas`). The intervals are t intervals over seeds of each seed's own measures; the
    paper's are 90 % bootstrap intervals, and its code averages the areas over seeds before dividing.

    Args:
      run: the run's folder, evaluated at the ends of visits with ``evaluation.tasks: seen`` or ``all``.
      *runs: further runs with the same visits.
      control: the arm that is reset at every switch; None: the control that the config gives for each arm.
      measure: the column of evaluations that is p; None: ``success``, if recorded, else the return or the reward.
      last: number of evaluations averaged at the end of each visit; the paper's code averages 5.
      area: ``mean`` or ``trapezoid``, see :func:`evaluation_areas`.
      auc_max: the largest possible p; None: known for success rates and bounded rewards, else FT_i is missing.
      scaled: put each task on its own scale, except success rates.
      confidence: of the intervals.

    Raises:
      ValueError: see :func:`performance_matrix` and :func:`forward_transfer_of_areas`.
    """
    several = (run, *runs)
    matrix = performance_matrix(*several, scaled=scaled, measure=measure, last=last)
    curves: Curves = "evaluations"
    try:
        for one in several:
            own_curves(one, measure)
    except ValueError:
        curves = "training"
    transfer = None
    if all(_compared(one, control) for one in several):
        column = matrix.measure if curves == "training" and is_measure(matrix.measure) else measure
        transfer = forward_transfer_of_areas(
            *several,
            control=control,
            curves=curves,
            measure=column,
            area=area,
            auc_max=auc_max,
            scaled=scaled,
            confidence=confidence,
        )
    kept = (final_performance(matrix, confidence), forgetting(matrix, confidence))
    return ContinualWorld(*kept, transfer, matrix.measure, curves)


def _compared(run: RunPath, control: str | None) -> bool:
    """Whether a control has lanes in the run."""
    started = set(lanes(run)["arm"].astype(str))
    return any(other in started for other in controls(run, control).values())


def final_performance(matrix: Matrix, confidence: float = 0.95) -> Scores:
    """Compute ``p_j(T) = R[T, j]`` for the task of each visit ``j``.

    The mean over tasks in ``overall`` is Continual World's P(T) (Wolczyk et al. 2021) and GEM's ACC (Lopez-Paz, Ranzato
    2017); :func:`average_performance` gives this mean after every visit.
    """
    check_tasks(matrix, "seen or all")
    last = len(matrix.tasks) - 1
    pairs = [(last, j) for j in range(last + 1)]
    table = pairs_table(matrix, pairs, {"performance": lambda i, j: matrix.values[:, i, j]})
    return scored(matrix, table, ["performance"], confidence)


def shortfall(matrix: Matrix, control: str | None = None, confidence: float = 0.95) -> Scores:
    """Split each task's final shortfall relative to the control into what was not learned and what was forgotten.

    For task j with its last visit k, and the control's end performance ``a*_j`` at the same seed and swept point::

        a*_j - R[T, j]  =  (a*_j - R[k, j])  +  (R[k, j] - R[T, j])
        shortfall       =  not_learned       +  forgotten

    ``not_learned`` is loss of plasticity (the intransigence of Chaudhry et al. 2018, :func:`intransigence`, with a
    single-task reference) and ``forgotten`` lack of stability (Continual World's :func:`forgetting`). The split is
    ours; it is exact for every seed and for means. A negative ``not_learned`` is positive transfer.

    Args:
      matrix: from a run with ``evaluation.tasks: seen`` or ``all`` and a fresh control.
      control: the arm that is reset at every switch; None: that of each arm.
      confidence: of the intervals.

    Returns:
      ``shortfall, not_learned, forgotten`` and ``reference`` (``a*_j``), one row per lane of the other arms and task.

    Raises:
      ValueError: the matrix has no such arm, or earlier tasks were not evaluated.
    """
    check_tasks(matrix, "seen or all")
    own, reference, known = of_reference(matrix, control)
    final = matrix.values[:, -1]
    whole = np.isfinite(final) & np.isfinite(own) & np.isfinite(reference)  # so that the parts add up in means, too

    def part(values: np.ndarray) -> np.ndarray:
        return np.where(whole, values, np.nan)

    parts = {"shortfall": reference - final, "not_learned": reference - own, "forgotten": own - final}
    columns = {name: part(values) for name, values in {**parts, "reference": reference}.items()}
    last = {task: j for j, task in enumerate(matrix.tasks)}
    pairs = [(len(matrix.tasks) - 1, j) for j in sorted(last.values())]
    table = pairs_table(matrix, pairs, {name: functools.partial(_column, x) for name, x in columns.items()})
    compared = table[~table["arm"].astype(str).isin(known)].reset_index(drop=True)
    return scored(matrix, compared, list(columns), confidence)


def _column(values: np.ndarray, i: int, j: int) -> np.ndarray:
    return values[:, j]
