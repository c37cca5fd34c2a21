"""Forward transfer: areas under the curves of visits, compared with those of single-task learners."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from plasticity.results.behaviour import (
    WHOSE,
    Scores,
    against_control,
    areas_of_visits,
    check_control,
    learning_curves_area,
    scores,
    with_ratio,
)
from plasticity.results.change import alike
from plasticity.results.ranges import UNBOUNDED, metric_ranges, performance_range
from plasticity.results.read import (
    SUCCESS,
    RunPath,
    arm_names,
    controls,
    evaluated_measure,
    evaluations,
    hyper_parameters,
    is_measure,
    plan,
    several,
    visits_and_losses,
)
from plasticity.results.transfer import scales_of

Curves = Literal["training", "evaluations"]
Area = Literal["mean", "trapezoid"]
DIMENSIONED = ("difference", "area", "control_area")  # in the unit of the performance


def evaluation_areas(
    run: RunPath, *runs: RunPath, measure: str | None = None, area: Area = "mean", scaled: bool = False
) -> pd.DataFrame:
    """Compute the area under each visit's curve of evaluations on its own task, divided by the visit's length.

    ``mean``: ``1/n sum_k p(t_k)``, what the code of Continual World computes for ``AUC_i = 1/Delta int p_i(t) dt``
    (Wolczyk et al. 2021), where evaluations are equally far apart and the last one is at the visit's end.
    ``trapezoid``: ``1/(t_n - t_1) sum_k (t_{k+1} - t_k) (p(t_k) + p(t_{k+1})) / 2``, without the time before the first
    evaluation. Evaluations in which no episode ended are left out.

    Args:
      run: the run's folder; ``runs``: further runs.
      measure: the column of :func:`evaluations`; None: ``success``, if recorded, else the return or the reward.
      area: ``mean`` or ``trapezoid``.
      scaled: put each task on its own scale (:class:`plasticity.results.Scales`), except success rates.

    Returns:
      ``arm, lane, seed, visit, task, area`` and the swept hyper-parameters, one row per lane and finished visit;
      ``area`` is missing if the lane diverged before the end of the visit.

    Raises:
      ValueError: a run without evaluations, with one evaluation per visit, or without this measure.
    """
    if area not in ("mean", "trapezoid"):
        raise ValueError(f"area: {area!r} is not allowed; must be 'mean' or 'trapezoid'")

    def read(one: RunPath) -> pd.DataFrame:
        table, column = own_curves(one, measure)
        keys = ["arm", "lane", "visit"]
        groups = table.dropna(subset=[column]).groupby(keys, observed=True)
        found = groups[["step_in_visit", column]].apply(_trapezoid) if area == "trapezoid" else groups[column].mean()
        areas = found.astype(float).reset_index(name="area") if len(found) else table[keys].assign(area=np.nan)
        rows = areas_of_visits(one, visits_and_losses(one), areas)
        return _scaled(one, rows) if scaled and not is_measure(column) else rows

    return several((run, *runs), read)


def own_curves(run: RunPath, measure: str | None) -> tuple[pd.DataFrame, str]:
    """The evaluations of the task being learned, in order of time, and the column that measures performance."""
    table = evaluations(run)
    if table.empty:
        raise ValueError(f"{run} has no evaluations; set evaluation: {{every: PERIOD, tasks: all}} in its config")
    column = evaluated_measure(run, table, measure)
    table = table[table["visit"] == table["evaluated_visit"]].sort_values("step", kind="stable")
    if table.groupby(["arm", "lane", "visit"], observed=True).size().max() < 2:
        text = "has one evaluation per visit, which is no curve; set evaluation.every to a fraction of a visit's steps"
        raise ValueError(f"{run} {text}")
    return table, column


def _trapezoid(curve: pd.DataFrame) -> float:
    time, value = curve.to_numpy(float).T
    if len(time) == 1:
        return float(value[0])
    return float(((value[1:] + value[:-1]) / 2 * np.diff(time)).sum() / (time[-1] - time[0]))


def _scaled(run: RunPath, areas: pd.DataFrame) -> pd.DataFrame:
    """A scale is affine, so that of the curve is that of its area."""
    return scales_of(run).applied(areas, ["area"])[0]


def forward_transfer_of_areas(
    run: RunPath,
    *runs: RunPath,
    control: str | None = None,
    curves: Curves = "training",
    measure: str | None = None,
    area: Area = "mean",
    auc_max: float | None = None,
    scaled: bool = False,
    confidence: float = 0.95,
) -> Scores:
    """Compute ``FT_i = (AUC_i - AUC_i^b) / (1 - AUC_i^b)``: Continual World (Wolczyk et al. 2021).

    ``AUC_i^b`` is the area of a learner that has seen only task i. The fresh control is reset at every switch, so each
    of its visits is such a learner, at the same seed. The ratio explodes as ``AUC_i^b`` approaches 1: read ``difference
    = AUC_i - AUC_i^b`` next to it.

    ``forward_transfer`` is computed per seed, then averaged, with t intervals over seeds. The code of Continual World
    averages the areas over seeds first, which is ``forward_transfer_of_means`` in ``means`` and ``overall`` (paired
    seeds only, no interval). The two differ if the control's areas differ between seeds.

    Args:
      run: the run's folder; ``runs``: further runs, each compared with its own control.
      control: the arm that is reset at every switch; None: the control that the config gives for each arm.
      curves: ``training``: the records of the visit, without noise from few episodes but with exploration;
        ``evaluations``: the evaluations on the visit's task, as in the paper (:func:`evaluation_areas`).
      measure: a metric or a column of evaluations; None: the return or the reward or, of evaluations, ``success`` if
        recorded.
      area: how ``evaluations`` are integrated, ``mean`` or ``trapezoid``.
      auc_max: the area of the best possible curve, in place of 1; None: the largest possible performance of the stream,
        1 for a success rate. Without a finite one, ``forward_transfer`` is missing.
      scaled: put each task on its own scale, so that differences may be averaged over tasks.
      confidence: of the intervals.

    Returns:
      For each visit and lane of the other arms ``area, control_area, difference, forward_transfer``, and their means
      over seeds for each visit and over all visits. The first visit counts, as in the paper: its difference is 0
      unless the arm's agent or method differs from the control's.

    Raises:
      ValueError: a run lacks the control's arm or the curves, or ``auc_max`` is not finite.
    """
    if auc_max is not None and not math.isfinite(auc_max):
        raise ValueError(f"auc_max: {auc_max} is not allowed; must be a finite number, or None")
    if curves not in ("training", "evaluations"):
        raise ValueError(f"curves: {curves!r} is not allowed; must be 'training' or 'evaluations'")
    for one in (run, *runs):
        check_control(one, control)

    def read(one: RunPath) -> pd.DataFrame:
        areas = _areas(one, curves, measure, area, scaled)
        best = _largest(one, _measured(one, curves, measure), scaled) if auc_max is None else auc_max
        table = with_ratio(against_control(one, control, areas), one, control, "forward_transfer", best)
        return table.assign(largest=best, control_area=table["control_area"].where(table["difference"].notna()))

    table, hyper = several((run, *runs), read), hyper_parameters(run, *runs)
    names = ["difference", "forward_transfer", "area", "control_area", "largest"]
    found = _with_ratio_of_means(scores(table, ["visit", "task"], names, hyper, confidence), hyper)
    return found if _comparable((run, *runs), curves, measure, scaled) else found.without_overall(*DIMENSIONED)


def _areas(run: RunPath, curves: Curves, measure: str | None, area: Area, scaled: bool) -> pd.DataFrame:
    if curves == "evaluations":
        return evaluation_areas(run, measure=measure, area=area, scaled=scaled)
    found = learning_curves_area(run, measure=measure)
    return _scaled(run, found) if scaled and not is_measure(measure) else found


def _measured(run: RunPath, curves: Curves, measure: str | None) -> str | None:
    return evaluated_measure(run, evaluations(run), measure) if curves == "evaluations" else measure


def _comparable(runs: Sequence[RunPath], curves: Curves, measure: str | None, scaled: bool) -> bool:
    """Whether areas may be averaged over tasks."""
    return scaled or all(is_measure(_measured(one, curves, measure)) or alike(plan(one)["stream"]) for one in runs)


def _largest(run: RunPath, measured: str | None, scaled: bool) -> float:
    """The largest possible performance; NaN if there is none."""
    about = plan(run)
    if measured is not None and measured.partition("_")[0] == SUCCESS:
        return 1.0
    usual = "episodic_return" if about["stream"]["episodic"] else "reward"
    if measured in (None, usual):
        highest = math.inf if scaled else performance_range(about["stream"])[1]
    else:
        highest = metric_ranges(about).get(str(measured), UNBOUNDED)[1]
    return highest if math.isfinite(highest) else math.nan


def _with_ratio_of_means(found: Scores, hyper: Sequence[str]) -> Scores:
    """Add the ratio of the means over seeds, and drop ``largest``, of which it is made."""
    room, name = found.means["largest"] - found.means["control_area"], "forward_transfer_of_means"
    means = found.means.assign(**{name: found.means["difference"] / room.where(room > 0)})
    point = [key for key in (*WHOSE[:2], *hyper) if key in means]
    groups = means.groupby(point, observed=True, dropna=False, sort=False)[name]
    whole = groups.mean().where(groups.count() == groups.size()).reset_index()
    found = Scores(found.lanes, means, found.overall.merge(whole, on=point, how="left"))
    return Scores(*(each.drop(columns=[x for x in each if str(x).startswith("largest")]) for each in found))


def carried_over(
    run: RunPath,
    *runs: RunPath,
    arms: Sequence[str] | Mapping[str, str],
    control: str | None = None,
    curves: Curves = "training",
    measure: str | None = None,
    scaled: bool = False,
    confidence: float = 0.95,
) -> Scores:
    """Compare arms that carry over one module each with the fresh control: what transfers, and through which module.

    ``AUC_i - AUC_i(fresh)`` of each arm, paired by seed, for every visit but the first, where nothing can have been
    carried over. An arm carries a module over if everything else is reset at switches::

        torso: {task_aware: true, interventions: [{kind: reset, when: switch, modules: last}]}

    Args:
      run: the run's folder; ``runs``: further runs.
      arms: the arms, or a mapping from arm to what it carries over, which becomes the column ``carries``.
      control: the arm that carries nothing over; None: the control that the config gives for each arm.
      curves: ``training`` or ``evaluations``, see :func:`forward_transfer_of_areas`; ``measure``, ``scaled`` too.
      measure: a metric or a column of evaluations.
      scaled: put each task on its own scale.
      confidence: of the intervals.

    Returns:
      ``difference`` for each lane and visit, and its means over seeds for each visit and over all.

    Raises:
      ValueError: an arm that a run lacks or that has no control there, a stream of one visit, or missing curves.
    """
    labels = dict(arms) if isinstance(arms, Mapping) else dict.fromkeys(arms, "")
    for one in (run, *runs):
        _check_arms(one, labels, control)
    found = forward_transfer_of_areas(
        run, *runs, control=control, curves=curves, measure=measure, auc_max=None, scaled=scaled, confidence=confidence
    )
    table = found.lanes[found.lanes["arm"].astype(str).isin(labels) & (found.lanes["visit"] > 0)]
    hyper, table = hyper_parameters(run, *runs), table.drop(columns="forward_transfer").reset_index(drop=True)
    whole = scores(table, ["visit", "task"], DIMENSIONED, hyper, confidence)
    if not _comparable((run, *runs), curves, measure, scaled):
        whole = whole.without_overall(*DIMENSIONED)
    return Scores(*(_labelled(each, labels) for each in whole)) if isinstance(arms, Mapping) else whole


def _check_arms(run: RunPath, labels: Mapping[str, str], control: str | None) -> None:
    names, chosen = arm_names(run), controls(run, control)
    for arm in labels:
        if arm not in names:
            raise ValueError(f"arms: {arm!r} is not an arm of {run}; its arms: {', '.join(names)}")
        if chosen.get(arm) is None:
            raise ValueError(f"arms: {arm!r} has no control in {run}; name the arm that is reset at every switch")
    if len(plan(run)["stream"]["visits"]) < 2:
        raise ValueError(f"{run} has one visit; nothing can be carried over")


def _labelled(table: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    table = table.reset_index(drop=True)
    table.insert(list(table).index("arm") + 1, "carries", [labels[str(arm)] for arm in table["arm"]])
    return table
