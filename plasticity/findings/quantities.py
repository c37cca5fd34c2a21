"""Quantities of a finding's runs by lane and visit, in the form used by :mod:`plasticity.findings.lanes`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plasticity import results
from plasticity.core.errors import UserError, unknown
from plasticity.findings.criterion import (
    BEHAVIOUR,
    EVALUATIONS,
    OF_TASKS,
    RAW,
    TRANSFER,
    Clause,
    Crossing,
    Group,
    Record,
    clauses,
)
from plasticity.findings.lanes import NEVER, Tables, stage_visits
from plasticity.results.behaviour import partners
from plasticity.results.change import grouped, stage_means
from plasticity.results.read import visits_and_losses

AGENT = "agent."  # prefix of a metric that the agent writes
ALSO = ("hessian_bottom_eigenvalue",)  # metrics whose name does not begin with their monitor's
PER_VISIT = "average_performance"  # the member of TRANSFER with a value after each visit; others have one per lane
RECORD = {"end": "last", "first": "first", "mean": "mean", "max": "max", "min": "min"}  # all skip missing values


def tables(runs: Mapping[str, Path]) -> Tables:
    """The tables of one run (whose part is "") or of several, with the arms then named ``PART/ARM``."""

    @cache
    def table(what: str, within: Record) -> pd.DataFrame:
        found = {part: of_run(run, what, within) for part, run in runs.items()}
        counts = {len(results.plan(run)["stream"]["visits"]) for run in runs.values()}
        if len(counts) > 1:
            raise UserError(f"the parts have different numbers of visits ({sorted(counts)}); they must be equal")
        for part, each in found.items():
            each["arm"] = [f"{part}/{arm}" if part else str(arm) for arm in each["arm"]]
        joined = pd.concat(found.values(), ignore_index=True)
        joined.attrs["visits"] = counts.pop()
        return joined

    return table


def of_run(run: Path, what: str, within: Record = "end") -> pd.DataFrame:
    """``arm, point, seed, visit, task, value, lost`` of a quantity, and ``never`` of a time.

    ``within``: what is taken of a visit's records.
    """
    finished = visits_and_losses(run)
    keys = ["arm", "lane", "visit"]
    values = _values(run, what, within, finished)
    rows = finished[[*keys, "seed", "task", "lost"]].merge(values, on=keys, how="left")
    known = results.lanes(run)[["arm", "lane"]]
    seeds = results.lanes(run).groupby("arm", observed=True)["seed"].nunique()
    point = {(arm, lane): lane // int(seeds[arm]) for arm, lane in known.itertuples(index=False)}
    rows["point"] = [point[each] for each in zip(rows["arm"], rows["lane"], strict=True)]
    return rows[["arm", "point", "seed", "visit", "task", "value", "lost", *([NEVER] if NEVER in rows else [])]]


def _values(run: Path, what: str, within: Record, finished: pd.DataFrame) -> pd.DataFrame:
    """``arm, lane, visit, value``."""
    keys = ["arm", "lane", "visit"]
    if isinstance(within, Crossing):
        return _times(run, what, within)
    if what in ("performance", "performance_end"):
        found = _valued(finished, what)
    elif what == "area":
        found = _valued(results.learning_curves_area(run), "area")
    elif what == "relative_speed":
        found = _valued(results.relative_learning_speed(run).lanes, "relative_speed")
    elif what == "change":
        found = finished[keys].merge(_changes(run), on=["arm", "lane"])
    elif what in TRANSFER:
        found = finished[keys].merge(_transfer(run, what), on=[*keys] if what == PER_VISIT else ["arm", "lane"])
    elif what == OF_TASKS:
        found = finished[[*keys, "task"]].merge(_changes_of_tasks(run), on=["arm", "lane", "task"])
    else:
        found = _of_records(run, what, within)
    return found[[*keys, "value"]].astype({"value": float})


def _valued(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table.assign(value=table[column])


def _changes(run: Path) -> pd.DataFrame:
    """``arm, lane, value``: how far performance changed (:meth:`plasticity.results.Compared.change`)."""
    compared = results.compare_lanes(run)
    parts = [
        cell.rows[["arm", "lane"]].assign(value=cell.rows["seed"].map(compared.change(cell))) for cell in compared.cells
    ]
    return pd.concat(parts, ignore_index=True)


def _changes_of_tasks(run: Path) -> pd.DataFrame:
    """``arm, lane, task, value``: the change of each task as in :func:`plasticity.results.task_changes`, by lane."""
    known, stream, chosen = results.lanes(run), results.plan(run)["stream"], results.controls(run)
    stages = grouped([visit["task"] for visit in stream["visits"]])
    stages["group"] = stages["group"].where(stages["again"], -1)
    table = stage_means(visits_and_losses(run), known, stages, "performance").dropna(subset="task")
    partner = partners(known, results.hyper_parameters(run), chosen)
    known = known.assign(row=range(len(known)), partner=partner)[["arm", "lane", "row", "partner"]]
    table = table.assign(own=table["last"] - table["first"]).merge(known, on=["arm", "lane"])
    own = table.set_index(["row", "task"])["own"]
    theirs = own.reindex(pd.MultiIndex.from_frame(table[["partner", "task"]])).to_numpy(float)
    controlled = table["arm"].astype(str).map(chosen).notna()
    return table.assign(value=table["own"] - np.where(controlled, theirs, 0.0))[["arm", "lane", "task", "value"]]


def _transfer(run: Path, what: str) -> pd.DataFrame:
    """``arm, lane, value`` and, of ``PER_VISIT``, ``visit``: the measure of :mod:`plasticity.results.transfer`.

    Measures of pairs of visits are averaged over the pairs; a lane that lacks one is missing.
    """
    table = _valued(getattr(results, what)(results.performance_matrix(run)).lanes, what)
    if what == PER_VISIT:
        return table[["arm", "lane", "visit", "value"]]
    groups = table.groupby(["arm", "lane"], observed=True)["value"]
    return groups.agg(lambda values: values.mean(skipna=False)).reset_index()


def check_comparable(source: str, criterion: Clause | Group, streams: Mapping[str, Mapping[str, Any]]) -> None:
    """``UserError`` for a clause that averages rewards of several kinds, or on a task that its streams lack.

    Means of such rewards over visits to several games are not meaningful; `change` puts each game on its own scale.
    ``streams``: the stream in each part's plan.
    """
    for clause in clauses(criterion):
        for part, stream in streams.items():
            named = not clause.arms or any(arm.rpartition("/")[0] == part for arm in clause.arms)
            if named:
                _check_tasks(source, clause, stream)
            if not named or clause.task is not None or results.alike(stream):
                continue
            stages = [clause.at] if clause.less is None else [clause.at, clause.less]
            count = len(stream["visits"])
            played = {stream["visits"][k]["task"] for stage in stages for k in stage_visits(stage, count)}
            asked = {clause.what, clause.against}
            if "change" in asked and not results.rule(stream).overall:
                raise UserError(f"{source}: criterion: `change` needs a task that is repeated, or rewards of one kind")
            if asked & set(TRANSFER):
                what = next(each for each in TRANSFER if each in asked)
                raise UserError(f"{source}: criterion: `{what}` needs tasks whose rewards are of one kind")
            if asked & set(RAW) and len(played) > 1:
                what = next(each for each in RAW if each in asked)
                raise UserError(
                    f"{source}: criterion: `{what}` over visits to {len(played)} tasks whose rewards are of "
                    "several kinds; use `change`, one `task`, or a single visit"
                )


def _check_tasks(source: str, clause: Clause, stream: Mapping[str, Any]) -> None:
    """``UserError`` for a task (``task``, ``evaluation/TASK``) that is never visited, or for `change` visited once."""
    visits = [str(stream["tasks"][visit["task"]]) for visit in stream["visits"]]
    asked = [what.partition("/")[2] for what in (clause.what, clause.against) if what and is_evaluation(what)]
    for task in filter(None, (clause.task, *asked)):
        if task not in visits:
            raise UserError(f"{source}: criterion: {unknown(f'task `{task}`', task, set(visits))}")
    if clause.task is not None and "change" in (clause.what, clause.against) and visits.count(clause.task) < 2:
        raise UserError(f"{source}: criterion: `change` needs a task that is repeated; {clause.task} is visited once")


def is_evaluation(what: str) -> bool:
    """Whether the quantity comes from evaluations: one of ``EVALUATIONS``, or one followed by ``/TASK``."""
    return what.partition("/")[0] in EVALUATIONS


def _times(run: Path, what: str, crossing: Crossing) -> pd.DataFrame:
    """``arm, lane, visit, value, never``: env steps of each env from the start of the visit until the quantity crosses.

    The end of the first record (or evaluation) at the threshold or beyond it; the visit's length if there is none.
    Missing if nothing was measured in the visit. With ``up`` and ``performance`` this is
    :func:`plasticity.results.steps_to_threshold`, except for visits in which the threshold is never reached.
    """
    keys = ["arm", "lane", "visit"]
    records = _records(run, what).dropna(subset="value")
    reached = records[crossing.reached(records["value"])].groupby(keys, observed=True)["step_in_visit"].min()
    found = records[keys].drop_duplicates().merge(reached.reset_index(name="value"), on=keys, how="left")
    lengths = np.array([visit["steps"] for visit in results.plan(run)["stream"]["visits"]], float)
    value = found["value"].astype(float)
    return found.assign(value=value.fillna(pd.Series(lengths[found["visit"]], found.index)), never=value.isna())


def _records(run: Path, what: str) -> pd.DataFrame:
    """``arm, lane, visit, step_in_visit, value`` of each record or evaluation, in the order of steps."""
    if is_evaluation(what):
        return _evaluations(run, what)
    name = what.removeprefix(AGENT)
    if what == "performance":
        name = "episodic_return" if results.plan(run)["stream"]["episodic"] else "reward"
    table = results.load(run, metrics=[name])
    return table.assign(value=table[name].replace([np.inf, -np.inf], np.nan))


def _evaluations(run: Path, what: str) -> pd.DataFrame:
    """Evaluations in each visit, of the current visit or of the task that ``what`` names."""
    kind, _, task = what.partition("/")
    table = results.evaluations(run)
    if task and task not in set(table["evaluated_task"]):
        raise UserError(unknown(f"evaluated task `{task}`", task, sorted(set(table["evaluated_task"]))))
    table = table[table["evaluated_task"] == task if task else table["evaluated_visit"] == table["visit"]]
    episodic = "episodic_return" in table and table["episodic_return"].notna().any()
    values = table["episodic_return" if episodic else "reward"]
    if episodic and kind == "evaluation_reward":
        values = values / table["episode_length"]
    return table.assign(value=values).sort_values("step", kind="stable")


def _of_records(run: Path, what: str, within: str) -> pd.DataFrame:
    """``arm, lane, visit, value``: the record of each visit that ``within`` says."""
    groups = _records(run, what).groupby(["arm", "lane", "visit"], observed=True)["value"]
    return groups.agg(RECORD[within]).reset_index()


def known(monitors: list[str], what: str) -> bool:
    """Whether a run with these monitors has the quantity, judging by its config."""
    return (
        what in BEHAVIOUR
        or is_evaluation(what)
        or what.startswith(AGENT)
        or what.partition("/")[0] in monitors
        or what in ALSO
    )
