"""What a clause compares with its bound: one number per seed, or several of them."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from plasticity.findings.criterion import Clause
from plasticity.findings.lanes import Tables, lane_values
from plasticity.findings.wording import compared, neighbours

SHARE = 0.75  # minimum fraction of a seed's lanes for a correlation of two quantities


class Sample(NamedTuple):
    """Numbers by seed whose mean must lie on the required side of the bounds; NaN if data are missing."""

    label: str
    values: pd.Series  # index: seed
    bound: tuple[float, ...]


class Samples(NamedTuple):
    arms: Mapping[str, pd.Series]  # each arm's values; empty if an arm has several per seed (a sweep)
    tested: tuple[Sample, ...]  # all must lie on the required side
    never: int | None = None  # of a time: number of lanes that never crossed the threshold

    def rows(self) -> Iterator[tuple[str, int, float]]:
        """``arm or statistic, seed, value``: the arms, then what is computed of them."""
        computed = [(each.label, each.values) for each in self.tested if each.values is not self.arms.get(each.label)]
        for label, values in (*self.arms.items(), *computed):
            yield from zip([label] * len(values), map(int, values.index), map(float, values), strict=True)


def samples(clause: Clause, tables: Tables) -> Samples:
    """The values that decide on the clause (:func:`_samples`), and the number of its censored times."""
    values = lane_values(clause, tables(clause.table_of(clause.what), clause.record))
    never = int(values["never"].sum()) if "time" in (clause.at, clause.within) else None
    return _samples(clause, values, tables)._replace(never=never)


def _samples(clause: Clause, values: pd.DataFrame, tables: Tables) -> Samples:
    """The per-seed values of the arms and of what is tested. With ``v`` the value of an arm for one seed:

    * ``value``: ``v(a)``; ``difference``: ``v(a) - v(b)``; ``ratio``: ``v(a) - bound v(b)``, to be tested against 0;
    * ``contrasts``: ``v(b) - v(a)`` for each two neighbouring arms ``a, b``, in the given order;
    * ``difference_of_differences``: ``(v(a) - v(b)) - (v(c) - v(d))``;
    * ``slope``: the least-squares slope of ``v`` on the levels of the arms;
    * ``correlation``: Spearman's, over the arms and the points of sweeps.
    """
    arms = _by_arm(clause, values)
    if clause.compare == "correlation":
        return Samples(arms, (Sample("Spearman", _correlations(clause, values, tables), clause.bound),))
    if clause.compare == "slope":
        return Samples(arms, (Sample("slope", _slopes(clause, arms), clause.bound),))
    own = [arms[arm] for arm in clause.arms] or list(arms.values())
    if clause.compare == "contrasts":
        found = [arms[after] - arms[before] for before, after in neighbours(clause.arms)]
        return Samples(arms, tuple(map(Sample, compared(clause), found, [clause.bound] * len(found))))
    (label,) = compared(clause) if clause.arms else list(arms)
    if clause.compare == "ratio":
        label, (above, below) = f"{clause.arms[0]} - {clause.bound[0]:g} {clause.arms[1]}", own
        return Samples(arms, (Sample(label, above - clause.bound[0] * below, (0.0,)),))
    joined = own[0]
    if clause.compare == "difference":
        joined = own[0] - own[1]
    elif clause.compare == "difference_of_differences":
        joined = (own[0] - own[1]) - (own[2] - own[3])
    return Samples(arms, (Sample(label, joined, clause.bound),))


def _by_arm(clause: Clause, values: pd.DataFrame) -> dict[str, pd.Series]:
    """A series over seeds for each arm."""
    if values.duplicated(["arm", "seed"]).any():
        return {}
    wide = values.pivot(index="seed", columns="arm", values="value")
    wide = wide.reindex(columns=list(dict.fromkeys(clause.arms or wide)))
    return {str(arm): wide[arm] for arm in wide}


def _slopes(clause: Clause, arms: Mapping[str, pd.Series]) -> pd.Series:
    """``sum (x - mean x) v / sum (x - mean x)^2`` over the levels ``x``; NaN if an arm has no value."""
    levels = np.array(clause.levels) - np.mean(clause.levels)
    values = pd.DataFrame({place: arms[arm] for place, arm in enumerate(clause.arms)})
    return pd.Series(values.to_numpy(float) @ levels / (levels @ levels), values.index)


def _correlations(clause: Clause, ours: pd.DataFrame, tables: Tables) -> pd.Series:
    """Spearman's correlation for each seed over the arms and points of sweeps."""
    if clause.levels:
        other = ours.assign(value=ours["arm"].map(dict(zip(clause.arms, clause.levels, strict=True))))
    else:
        other = lane_values(clause, tables(clause.table_of(str(clause.against)), "end"))
    pairs = ours.merge(other, on=["arm", "point", "seed"], suffixes=("", "_other"))
    share = 1.0 if clause.levels else SHARE
    found = {seed: _spearman(part, share) for seed, part in pairs.groupby("seed")}
    return pd.Series(found, dtype=float)


def _spearman(pairs: pd.DataFrame, share: float) -> float:
    """Spearman's correlation; NaN if less than ``share`` of the pairs are complete, or if one side is constant."""
    whole = pairs[["value", "value_other"]].dropna()
    if len(whole) < share * len(pairs) or (whole.nunique() < 2).any():
        return float("nan")
    return float(spearmanr(whole["value"], whole["value_other"]).statistic)
