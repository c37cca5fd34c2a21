"""Application of a criterion to tables: pure functions, one table per quantity.

A table has one row per lane and visit: ``arm`` (``PART/ARM`` if there are parts), ``point`` (of the arm's sweep),
``seed``, ``visit``, ``value``, ``lost`` (the lane had diverged before the visit ended). ``attrs["visits"]`` is the
number of visits.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.stats import spearmanr

from plasticity.findings.criterion import Clause, Group, Stage, clause_text
from plasticity.results.intervals import mean_interval

LEAST = 8  # minimum number of seeds of a clause
SHARE = 0.75  # minimum fraction of a seed's lanes for a correlation of two quantities
Tables = Callable[[str, str], pd.DataFrame]  # quantity, which record of a visit -> table


class Judged(NamedTuple):
    """Result of one clause."""

    text: str
    number: float
    low: float
    high: float
    seeds: int
    holds: bool


class Verdict(NamedTuple):
    passed: bool
    judged: tuple[Judged, ...]  # every clause, in the order of the criterion


def judge(criterion: Clause | Group, tables: Tables, least: int = LEAST) -> Verdict:
    """Whether the criterion holds.

    A clause holds if its interval lies on the required side of its bound and is based on at least ``least`` seeds.
    """
    if isinstance(criterion, Clause):
        judged = judge_clause(criterion, tables, least)
        return Verdict(judged.holds, (judged,))
    parts = [judge(each, tables, least) for each in criterion.clauses]
    join = all if criterion.needs == "all" else any
    return Verdict(join(part.passed for part in parts), tuple(one for part in parts for one in part.judged))


def judge_clause(clause: Clause, tables: Tables, least: int = LEAST) -> Judged:
    if clause.compare == "ratio":
        return _judge_ratio(clause, tables, least)
    values = per_seed(clause, tables)
    number, low, high = map(float, mean_interval(values, clause.confidence))
    seeds = int(np.isfinite(values).sum())
    return Judged(clause_text(clause), number, low, high, seeds, seeds >= least and right_side(clause, low, high))


def right_side(clause: Clause, low: float, high: float) -> bool:
    """Whether the whole interval is above, below or within the bound."""
    above = clause.direction == "below" or low > clause.bound[0]
    below = clause.direction == "above" or high < clause.bound[-1]
    return bool(np.isfinite(low) and np.isfinite(high) and above and below)


def per_seed(clause: Clause, tables: Tables) -> np.ndarray:
    """One number per seed (a value, a paired difference or a rank correlation); NaN if data are missing."""
    if clause.compare == "correlation":
        return _correlations(clause, tables)
    columns = _columns(clause, tables)
    return (columns[0] - columns[1] if clause.compare == "difference" else columns[0]).to_numpy(float)


def _columns(clause: Clause, tables: Tables) -> list[pd.Series]:
    """A series over seeds for each arm."""
    values = lane_values(clause, tables(clause.what, clause.within))
    wide = values.pivot(index="seed", columns="arm", values="value")
    return [wide[arm] if arm in wide else pd.Series(np.nan, wide.index) for arm in clause.arms or list(wide)]


def lane_values(clause: Clause, table: pd.DataFrame) -> pd.DataFrame:
    """The clause's value of each lane of its arms (all arms if it names none): ``arm, point, seed, value``."""
    table = table[table["arm"].isin(clause.arms)] if clause.arms else table
    visits = table.attrs["visits"]
    keys = ["arm", "point", "seed"]
    rows = []
    for key, lane in table.groupby(keys, sort=False):
        value = at_stage(lane, clause.at, visits, clause.diverged)
        if clause.less is not None:
            value -= at_stage(lane, clause.less, visits, clause.diverged)
        rows.append((*key, value))
    return pd.DataFrame(rows, columns=[*keys, "value"])


def at_stage(lane: pd.DataFrame, stage: Stage, visits: int, diverged: float | None = None) -> float:
    """A lane's mean over the visits of a stage that have a value, or its least-squares slope by visit.

    NaN if nothing was measured, or if the lane diverged in one of the visits; ``diverged``, if given, is the value of
    such a visit.
    """
    chosen = stage_visits(stage, visits)
    lane = lane[lane["visit"].isin(chosen)]
    value = lane["value"].where(~lane["lost"], np.nan if diverged is None else diverged).astype(float)
    if value[lane["lost"]].isna().any() or value.notna().sum() < (2 if stage == "slope" else 1):
        return float("nan")
    value = value.dropna()
    if stage == "slope":
        return float(np.polyfit(lane.loc[value.index, "visit"].to_numpy(float), value.to_numpy(), 1)[0])
    return float(value.mean())


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


def _correlations(clause: Clause, tables: Tables) -> np.ndarray:
    """Spearman's correlation for each seed over the arms and points of sweeps."""
    ours = lane_values(clause, tables(clause.what, clause.within))
    if clause.levels:
        other = ours.assign(value=ours["arm"].map(dict(zip(clause.arms, clause.levels, strict=True))))
    else:
        other = lane_values(clause, tables(str(clause.against), "end"))
    pairs = ours.merge(other, on=["arm", "point", "seed"], suffixes=("", "_other"))
    share = 1.0 if clause.levels else SHARE
    return np.array([_spearman(part, share) for _, part in pairs.groupby("seed")], float)


def _spearman(pairs: pd.DataFrame, share: float) -> float:
    """Spearman's correlation; NaN if less than ``share`` of the pairs are complete, or if one side is constant."""
    whole = pairs[["value", "value_other"]].dropna()
    if len(whole) < share * len(pairs) or (whole.nunique() < 2).any():
        return float("nan")
    return float(spearmanr(whole["value"], whole["value_other"]).statistic)


def _judge_ratio(clause: Clause, tables: Tables, least: int) -> Judged:
    """The ratio of means with Fieller's interval.

    It holds if the t interval of ``a - bound b`` lies on the required side of 0. With a denominator clearly above 0
    this is equivalent to Fieller's interval lying on the required side of the bound, and needs no division.
    """
    above, below = (column.to_numpy(float) for column in _columns(clause, tables))
    kept = np.isfinite(above) & np.isfinite(below)
    above, below = above[kept], below[kept]
    _, low, high = mean_interval(above - clause.bound[0] * below, clause.confidence)
    holds = len(above) >= least and bool(low > 0 if clause.direction == "above" else high < 0)
    number = float(above.mean() / below.mean()) if len(below) and below.mean() != 0 else float("nan")
    return Judged(clause_text(clause), number, *fieller(above, below, clause.confidence), int(kept.sum()), holds)


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
