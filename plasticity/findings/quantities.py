"""Quantities of a finding's runs by lane and visit, in the form used by :mod:`plasticity.findings.judge`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plasticity import results
from plasticity.core.errors import UserError, unknown
from plasticity.findings.criterion import BEHAVIOUR, EVALUATIONS, RAW, Clause, Group, clauses
from plasticity.findings.judge import Tables, stage_visits
from plasticity.results.read import visits_and_losses

AGENT = "agent."  # prefix of a metric that the agent writes
ALSO = ("hessian_bottom_eigenvalue",)  # metrics whose name does not begin with their monitor's
RECORD = {"end": "last", "first": "first", "mean": "mean", "max": "max", "min": "min"}  # all skip missing values


def tables(runs: Mapping[str, Path]) -> Tables:
    """The tables of one run (whose part is "") or of several, with the arms then named ``PART/ARM``."""

    @cache
    def table(what: str, within: str) -> pd.DataFrame:
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


def of_run(run: Path, what: str, within: str = "end") -> pd.DataFrame:
    """``arm, point, seed, visit, value, lost`` of a quantity. ``within``: the record of a visit to use."""
    finished = visits_and_losses(run)
    keys = ["arm", "lane", "visit"]
    rows = finished[[*keys, "seed", "lost"]].merge(_values(run, what, within, finished), on=keys, how="left")
    known = results.lanes(run)[["arm", "lane"]]
    seeds = results.lanes(run).groupby("arm", observed=True)["seed"].nunique()
    point = {(arm, lane): lane // int(seeds[arm]) for arm, lane in known.itertuples(index=False)}
    rows["point"] = [point[each] for each in zip(rows["arm"], rows["lane"], strict=True)]
    return rows[["arm", "point", "seed", "visit", "value", "lost"]]


def _values(run: Path, what: str, within: str, finished: pd.DataFrame) -> pd.DataFrame:
    """``arm, lane, visit, value``."""
    keys = ["arm", "lane", "visit"]
    if what in ("performance", "performance_end"):
        found = _valued(finished, what)
    elif what == "area":
        found = _valued(results.learning_curves_area(run), "area")
    elif what == "relative_speed":
        found = _valued(results.relative_learning_speed(run).lanes, "relative_speed")
    elif what == "change":
        found = finished[keys].merge(_changes(run), on=["arm", "lane"])
    elif is_evaluation(what):
        found = _evaluated(run, what, within)
    else:
        found = _metric(run, what, within)
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


def check_comparable(source: str, criterion: Clause | Group, streams: Mapping[str, Mapping[str, Any]]) -> None:
    """``UserError`` for a clause that averages rewards of several kinds. ``streams``: the stream in each part's plan.

    Means of such rewards over visits to several games are not meaningful; `change` puts each game on its own scale.
    """
    for clause in clauses(criterion):
        for part, stream in streams.items():
            named = not clause.arms or any(arm.rpartition("/")[0] == part for arm in clause.arms)
            if not named or results.alike(stream):
                continue
            stages = [clause.at] if clause.less is None else [clause.at, clause.less]
            count = len(stream["visits"])
            played = {stream["visits"][k]["task"] for stage in stages for k in stage_visits(stage, count)}
            asked = {clause.what, clause.against}
            if "change" in asked and not results.rule(stream).overall:
                raise UserError(f"{source}: criterion: `change` needs a task that is repeated, or rewards of one kind")
            if asked & set(RAW) and len(played) > 1:
                what = next(each for each in RAW if each in asked)
                raise UserError(
                    f"{source}: criterion: `{what}` over visits to {len(played)} tasks whose rewards are of "
                    "several kinds; use `change`, or a single visit"
                )


def is_evaluation(what: str) -> bool:
    """Whether the quantity comes from evaluations: one of ``EVALUATIONS``, or one followed by ``/TASK``."""
    return what.partition("/")[0] in EVALUATIONS


def _evaluated(run: Path, what: str, within: str) -> pd.DataFrame:
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
    rows = table.assign(value=values).sort_values("step", kind="stable")
    groups = rows.groupby(["arm", "lane", "visit"], observed=True)["value"]
    return groups.agg(RECORD[within]).reset_index()


def _metric(run: Path, what: str, within: str) -> pd.DataFrame:
    name = what.removeprefix(AGENT)
    table = results.load(run, metrics=[name])
    values = table[name].replace([np.inf, -np.inf], np.nan)
    groups = values.groupby([table[key] for key in ("arm", "lane", "visit")], observed=True)
    return groups.agg(RECORD[within]).reset_index(name="value")


def known(monitors: list[str], what: str) -> bool:
    """Whether a run with these monitors has the quantity, judging by its config."""
    return (
        what in BEHAVIOUR
        or is_evaluation(what)
        or what.startswith(AGENT)
        or what.partition("/")[0] in monitors
        or what in ALSO
    )
