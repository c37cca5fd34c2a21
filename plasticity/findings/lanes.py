"""Each lane's number of a clause, from a table with one row per lane and visit.

A table has the columns ``arm`` (``PART/ARM`` if there are parts), ``point`` (of the arm's sweep), ``seed``, ``visit``,
``task``, ``value``, ``lost`` (the lane had diverged before the visit ended). ``attrs["visits"]`` is the number of
visits.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from plasticity.findings.criterion import Clause, Crossing, Record, Stage

Tables = Callable[[str, Record], pd.DataFrame]  # quantity, what is taken of a visit's records -> table
LANE = ["arm", "point", "seed"]
NEVER = "never"  # column of a table of times in visits: the threshold was not crossed in the visit


def lane_values(clause: Clause, table: pd.DataFrame) -> pd.DataFrame:
    """The clause's value of each lane of its arms (all arms if it names none): ``arm, point, seed, value, never``.

    ``never``: a time that was censored because the lane never crossed the threshold (``within: time``: not in all of
    the visits of the stage).
    """
    table = table[table["arm"].isin(clause.arms)] if clause.arms else table
    visits = table.attrs["visits"]
    if clause.task is not None:
        table = visits_to(clause.task, table)
    rows = []
    for key, lane in table.groupby(LANE, sort=False):
        count = visits if clause.task is None else len(lane)
        value = _lane_value(clause, lane, count)
        rows.append((*key, value, bool(np.isfinite(value)) and _never(clause, lane, count)))
    return pd.DataFrame(rows, columns=[*LANE, "value", "never"])


def visits_to(task: str, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the visits to a task, numbered by lane: 0 for a lane's first visit to it.

    If each seed has its own order of tasks, these are the visits of each lane to the task of this name.
    """
    rows = table[table["task"] == task].sort_values("visit", kind="stable")
    return rows.assign(visit=rows.groupby(LANE, sort=False).cumcount())


def _lane_value(clause: Clause, lane: pd.DataFrame, visits: int) -> float:
    if clause.at == "time":
        return time_to(lane, clause.crosses, visits, clause.diverged)
    value = at_stage(lane, clause.at, visits, clause.diverged)
    return value if clause.less is None else value - at_stage(lane, clause.less, visits, clause.diverged)


def _never(clause: Clause, lane: pd.DataFrame, visits: int) -> bool:
    if clause.at == "time":
        return not clause.crosses.reached(_with_diverged(lane, clause.diverged)).any()
    if clause.within == "time" and NEVER in lane:
        stages = (clause.at, *([] if clause.less is None else [clause.less]))
        chosen = {visit for stage in stages for visit in stage_visits(stage, visits)}
        return bool(lane.loc[lane["visit"].isin(chosen), NEVER].eq(True).any())
    return False


def at_stage(lane: pd.DataFrame, stage: Stage, visits: int, diverged: float | None = None) -> float:
    """A lane's mean over the visits of a stage that have a value, or its least-squares slope by visit.

    NaN if nothing was measured, or if the lane diverged in one of the visits; ``diverged``, if given, is the value of
    such a visit.
    """
    lane = lane[lane["visit"].isin(stage_visits(stage, visits))]
    value = _with_diverged(lane, diverged)
    if value[lane["lost"]].isna().any() or value.notna().sum() < (2 if stage == "slope" else 1):
        return float("nan")
    value = value.dropna()
    if stage == "slope":
        return float(np.polyfit(lane.loc[value.index, "visit"].to_numpy(float), value.to_numpy(), 1)[0])
    return float(value.mean())


def time_to(lane: pd.DataFrame, crossing: Crossing, visits: int, diverged: float | None = None) -> float:
    """The number of visits until a lane's value crosses a threshold, censored at the end.

    ``T = min {k : v_k >= threshold}`` (``<=`` for a downward crossing), with visits ``k`` counted from 1; a lane that
    never crosses has the number of visits. The mean over seeds is thus the restricted mean time. Visits without a value
    cannot cross. NaN if nothing was measured, or if the lane diverged before it crossed; ``diverged``, if given, is the
    value of a visit in which or before which the lane diverged.
    """
    lane = lane.sort_values("visit", kind="stable")
    value = _with_diverged(lane, diverged)
    reached = lane["visit"].to_numpy()[crossing.reached(value)]
    if len(reached):
        return float(reached[0] + 1)
    if value.notna().sum() == 0 or value[lane["lost"]].isna().any():
        return float("nan")
    return float(visits)


def _with_diverged(lane: pd.DataFrame, diverged: float | None) -> pd.Series:
    return lane["value"].where(~lane["lost"], np.nan if diverged is None else diverged).astype(float)


def stage_visits(stage: Stage, visits: int) -> range:
    """The visits of a stage; a tenth or any other fraction has at least one visit."""
    length = max(1, visits // 10)
    if isinstance(stage, tuple):
        first = min(int(stage[0] * visits), visits - 1)
        return range(first, max(first + 1, int(stage[1] * visits)))
    if isinstance(stage, int):
        return range(stage % visits, stage % visits + 1)
    words = {"first": range(length), "last": range(visits - length, visits), "end": range(visits - 1, visits)}
    return words.get(stage, range(visits))
