"""Learning speed per visit: areas under learning curves, steps to a threshold, comparison with the fresh control."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity.results.change import alike
from plasticity.results.intervals import mean_interval
from plasticity.results.points import control_of, points
from plasticity.results.read import (
    FRESH,
    REWARDS,
    RunPath,
    arm_names,
    controls,
    hyper_parameters,
    lanes,
    load,
    plan,
    several,
    visits_and_losses,
)

WHOSE = ("run", "arm", "lane", "seed")


class Scores(NamedTuple):
    """A measure of every lane and its mean over seeds.

    Each column ``x`` of ``means`` and ``overall`` comes with ``x_low`` and ``x_high``, the bounds of its Student-t
    interval. ``seeds`` counts the lanes that have the measure. Values are missing where a lane diverged or has not
    got that far.
    """

    lanes: pd.DataFrame  # one row per lane and visit (task, or pair of visits)
    means: pd.DataFrame  # means over seeds: one row per arm, swept point and visit
    overall: pd.DataFrame  # mean over each lane's rows, then over seeds: one row per arm and swept point

    def without_overall(self, *values: str) -> "Scores":
        """Drop the means over tasks of ``values``, whose unit differs between tasks."""
        names = [f"{name}{bound}" for name in values for bound in ("", "_low", "_high")]
        return self._replace(overall=self.overall.assign(**dict.fromkeys(names, np.nan)))


def scores(
    table: pd.DataFrame, by: Sequence[str], values: Sequence[str], hyper: Sequence[str], confidence: float
) -> Scores:
    """Average ``values`` of ``table`` over seeds, for each group of ``by`` and over all groups.

    ``values[0]`` is the measure that a lane must have in every group to enter ``overall``. The others may be undefined
    in some groups, which are then left out.
    """
    point = [name for name in (*WHOSE[:2], *hyper) if name in table]
    lane = [name for name in (*WHOSE, *hyper) if name in table]
    groups = table.groupby(lane, observed=True, dropna=False, sort=False)
    whole = groups[values[0]].count() == groups.size()
    per_lane = groups[list(values)].mean().where(whole, axis=0).reset_index()
    return Scores(
        table, _over_seeds(table, [*point, *by], values, confidence), _over_seeds(per_lane, point, values, confidence)
    )


def _over_seeds(table: pd.DataFrame, by: Sequence[str], values: Sequence[str], confidence: float) -> pd.DataFrame:
    rows = []
    for key, part in table.groupby(list(by), observed=True, dropna=False, sort=False):
        row = dict(zip(by, key, strict=True)) | {"seeds": int(part[values[0]].notna().sum())}
        for name in values:
            bounds = mean_interval(part[name], confidence)
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), bounds, strict=True))
        rows.append(row)
    columns = [*by, "seeds", *(f"{name}{end}" for name in values for end in ("", "_low", "_high"))]
    kinds = {key: table[key].dtype for key in WHOSE[:2] if key in by}  # the order of the arms
    return pd.DataFrame(rows, columns=columns).astype(kinds)


def partners(known: pd.DataFrame, hyper: Sequence[str], control: str | Mapping[str, str | None]) -> np.ndarray:
    """For each row of a table of lanes (rows 0, 1, ...), find the row of the control's lane with the same seed.

    The control's lane is at the same swept point, or at the only point that agrees with it; -1 if there is none.
    ``control`` is one control for all arms, or a mapping from arm to control.
    """
    each_of = control if isinstance(control, Mapping) else dict.fromkeys(known["arm"].astype(str), control)
    cells, found = points(known, hyper), np.full(len(known), -1)
    for cell in cells:
        other = control_of(cell, cells, each_of)
        if other is not None:
            rows = pd.Series(other.rows.index, other.rows["seed"])
            found[cell.rows.index] = rows.reindex(cell.rows["seed"]).fillna(-1).astype(int)
    return found


def check_control(run: RunPath, control: str | None) -> None:
    """Raise ``ValueError`` if the run has no such arm or, with None, no arm with a control."""
    names = arm_names(run)
    if control is None and not any(controls(run).values()):
        raise ValueError(f"no arm of {run} has a control, and none is called {FRESH!r}; its arms: {', '.join(names)}")
    if control is not None and control not in names:
        raise ValueError(f"control: {control!r} is not an arm of {run}; its arms: {', '.join(names)}")


def _per_visit(run: RunPath, measure: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records with their ``value`` and ``window`` (env steps), and the finished visits."""
    finished = visits_and_losses(run)
    table = load(run, metrics=REWARDS if measure in (None, *REWARDS) else [*REWARDS, measure])
    if table.empty:
        return table.assign(value=np.nan, window=np.nan), finished
    before = table.groupby(["arm", "lane", "visit"], observed=True)["step_in_visit"].shift(fill_value=0)
    value = table[measure or ("episodic_return" if plan(run)["stream"]["episodic"] else "reward")]
    return table.assign(value=value, window=table["step_in_visit"] - before), finished


def learning_curves_area(run: RunPath, *runs: RunPath, measure: str | None = None) -> pd.DataFrame:
    """Compute the area under each visit's learning curve, in units of the reward or the return.

    ``AUC_k = 1 / Delta int_0^Delta p_k(t) dt``: the mean of the recorded curve over the visit, weighted by env steps
    (Wolczyk et al. 2021, "Continual World: A Robotic Benchmark For Continual Reinforcement Learning"). Without episodes
    it equals the ``performance`` of :func:`visits` exactly. With episodes the two differ: ``performance`` weights by
    episodes, the area by time. Records in which no episode ended are left out.

    Args:
      run: the run's folder; ``runs``: further runs.
      measure: another metric with values in every record, such as ``success``; None: the return or the reward.

    Returns:
      ``arm, lane, seed, visit, task, area`` and the swept hyper-parameters, one row per lane and finished visit;
      ``area`` is missing if the lane diverged before the end of the visit.
    """

    def read(one: RunPath) -> pd.DataFrame:
        table, finished = _per_visit(one, measure)
        keys = ["arm", "lane", "visit"]
        weight = table["window"].where(table["value"].notna())
        sums = pd.DataFrame({"total": weight * table["value"], "weight": weight}).astype(float)
        sums = sums.groupby([table[name] for name in keys], observed=True).sum()
        area = (sums["total"] / sums["weight"].replace(0.0, np.nan)).reset_index(name="area")
        return areas_of_visits(one, finished, area)

    return several((run, *runs), read)


def areas_of_visits(run: RunPath, finished: pd.DataFrame, areas: pd.DataFrame) -> pd.DataFrame:
    """``areas`` (``arm, lane, visit, area``) for each of the ``finished`` visits; missing if the lane diverged."""
    kept = finished.drop(columns=[name for name in finished if str(name).startswith("performance")])
    rows = kept.merge(areas, on=["arm", "lane", "visit"], how="left")
    rows["area"] = rows["area"].astype(float).mask(rows["lost"].astype(bool))
    return rows[["arm", "lane", "seed", "visit", "task", "area", *hyper_parameters(run)]]


def steps_to_threshold(run: RunPath, *runs: RunPath, threshold: float) -> pd.DataFrame:
    """Count the steps that each lane needs in each visit to reach ``threshold``.

    ``steps = min {t : p(t) >= threshold}``, where ``p`` is the reward or the episodic return of a record and ``t`` the
    env steps of each env from the start of the visit to the end of that record. The resolution is the length of a
    record.

    Args:
      run: the run's folder; ``runs``: further runs, distinguished by the column ``run``.
      threshold: in units of the reward or the return.

    Returns:
      ``arm, lane, seed, visit, task, steps`` and the swept hyper-parameters, one row per lane and finished visit.
      ``steps`` is missing if the lane never reached the threshold or diverged. A mean over the remaining lanes covers
      only the fast ones.

    Raises:
      ValueError: ``threshold`` is not finite.
    """
    if not math.isfinite(threshold):
        raise ValueError(f"threshold: {threshold} is not allowed; must be a finite number")

    def read(one: RunPath) -> pd.DataFrame:
        table, finished = _per_visit(one)
        keys = ["arm", "lane", "visit"]
        there = table[table["value"] >= threshold].groupby(keys, observed=True)["step_in_visit"].min()
        rows = finished.merge(there.reset_index(name="steps"), on=keys, how="left")
        rows["steps"] = rows["steps"].astype(float).mask(rows["lost"].astype(bool))
        return rows[["arm", "lane", "seed", "visit", "task", "steps", *hyper_parameters(one)]]

    return several((run, *runs), read)


def relative_learning_speed(
    run: RunPath,
    *runs: RunPath,
    control: str | None = None,
    auc_max: float | None = None,
    confidence: float = 0.95,
) -> Scores:
    """Compare each lane's learning speed with the fresh control; negative if it has lost plasticity.

    ``RLS_k = (AUC_k - AUC_k(control)) / (auc_max - AUC_k(control))``, paired by seed and swept point, with ``AUC`` from
    :func:`learning_curves_area`. The measure is specific to this testbed. With ``auc_max = 1`` it is Continual World's
    forward transfer, except that the paper averages the areas over seeds first and we do not. The ratio diverges as
    the control approaches ``auc_max``: read ``difference = AUC_k - AUC_k(control)`` first.

    Args:
      run: the run's folder; ``runs``: further runs, each compared with its own control.
      control: the arm that is reset at every switch; None: the control that the config gives for each arm.
      auc_max: the area of the best possible curve, e.g. 1 for accuracy; None: the largest area of any lane and visit
        of the run (of the same task, if rewards are of several kinds), which depends on what else the run contains.
      confidence: of the intervals.

    Returns:
      For each visit and lane of the other arms ``area, control_area, difference, relative_speed``, and their means over
      seeds for each visit and over all visits (without ``difference`` if rewards are of several kinds).
      ``relative_speed`` is missing where its denominator is not positive.

    Raises:
      ValueError: a run lacks the control's arm or has no control at all (the message lists the arms), or ``auc_max`` is
        not finite.
    """
    if auc_max is not None and not math.isfinite(auc_max):
        raise ValueError(f"auc_max: {auc_max} is not allowed; must be a finite number, or None")
    for one in (run, *runs):
        check_control(one, control)
    hyper = hyper_parameters(run, *runs)
    table = several((run, *runs), lambda one: _relative(one, control, auc_max))
    found = scores(table, ["visit", "task"], ["difference", "relative_speed"], hyper, confidence)
    return found if _alike(run, *runs) else found.without_overall("difference")


def _relative(run: RunPath, control: str | None, auc_max: float | None) -> pd.DataFrame:
    table, stream = against_control(run, control, learning_curves_area(run)), plan(run)["stream"]
    if auc_max is not None:
        highest: Any = auc_max
    elif alike(stream):
        highest = table["area"].max()
    else:
        highest = table.groupby("task")["area"].transform("max")
    return with_ratio(table, run, control, "relative_speed", highest)


def with_ratio(table: pd.DataFrame, run: RunPath, control: str | None, name: str, highest: Any) -> pd.DataFrame:
    """Add ``difference / (highest - control_area)`` and keep the arms that have a control."""
    room = highest - table["control_area"]
    table = table.assign(**{name: table["difference"] / room.where(room > 0)})
    columns = ["arm", "lane", "seed", "visit", "task", "area", "control_area", "difference", name]
    compared = [arm for arm, other in controls(run, control).items() if other is not None]
    return table.loc[table["arm"].isin(compared), [*columns, *hyper_parameters(run)]].reset_index(drop=True)


def against_control(run: RunPath, control: str | None, areas: pd.DataFrame) -> pd.DataFrame:
    """Each lane and visit with ``area, control_area, difference``, paired by seed and swept point."""
    hyper, known, stream = hyper_parameters(run), lanes(run), plan(run)["stream"]
    visits = pd.DataFrame(
        {"visit": range(len(stream["visits"])), "task": [stream["tasks"][each["task"]] for each in stream["visits"]]}
    )
    areas = areas[["arm", "lane", "visit", "area"]].astype({"area": float})
    known = known.assign(partner=partners(known, hyper, controls(run, control)), row=range(len(known)))
    table = known.merge(visits, how="cross").merge(areas.astype({"arm": known["arm"].dtype}), how="left")
    control_area = table.set_index(["row", "visit"])["area"].reindex(
        pd.MultiIndex.from_frame(table[["partner", "visit"]])
    )
    table["control_area"] = control_area.to_numpy(float)
    return table.assign(difference=table["area"] - table["control_area"])


def revisits(run: RunPath, *runs: RunPath, measure: str = "performance", confidence: float = 0.95) -> Scores:
    """Compare performance at later visits to a task with that at the first, paired by lane.

    ``Delta_k = p(k-th visit to the task) - p(1st visit)``, as in the figures of Lyle et al. 2024, "Normalization and
    effective learning rates in reinforcement learning" and Abbas et al. 2023, "Loss of Plasticity in Continual Deep
    Reinforcement Learning". Retention raises the difference; loss of plasticity lowers it.

    Args:
      run: the run's folder; ``runs``: further runs.
      measure: ``performance`` or ``performance_end``, see :func:`visits`.
      confidence: of the intervals.

    Returns:
      For each lane and later visit ``task, visit, occasion`` (2 for the second visit), ``first, later, difference``.
      Means over seeds for each task (over its later visits first) and over all tasks; the latter are missing if
      rewards are of several kinds (:func:`summary` gives each task its own scale). No rows if no task recurs.
    """
    hyper = hyper_parameters(run, *runs)
    table = several((run, *runs), lambda one: _revisits(one, measure))
    lane = [name for name in (*WHOSE, *hyper) if name in table]
    values = ["difference", "first", "later"]
    groups = table.groupby([*lane, "task"], observed=True, dropna=False, sort=False)
    per_task = groups[values].mean().where(groups["difference"].count() == groups.size(), axis=0).reset_index()
    found = scores(per_task, ["task"], values, hyper, confidence)._replace(lanes=table)
    return found if _alike(run, *runs) else found.without_overall(*values)


def _alike(*runs: RunPath) -> bool:
    return all(alike(plan(run)["stream"]) for run in runs)


def _revisits(run: RunPath, measure: str) -> pd.DataFrame:
    rows, hyper = visits_and_losses(run).sort_values(["arm", "lane", "visit"], kind="stable"), hyper_parameters(run)
    groups = rows.groupby(["arm", "lane", "task"], observed=True, sort=False)
    rows["occasion"] = groups.cumcount() + 1
    rows = rows.assign(first=rows[measure], later=rows[measure])
    start = rows.loc[rows["occasion"] == 1, ["arm", "lane", "task", "first"]]
    table = rows[rows["occasion"] > 1].drop(columns="first").merge(start, on=["arm", "lane", "task"], how="left")
    table["difference"] = table["later"].astype(float) - table["first"].astype(float)
    columns = ["arm", "lane", "seed", "task", "visit", "occasion", "first", "later", "difference", *hyper]
    return table[columns].astype(dict.fromkeys(("first", "later", "difference"), float))
