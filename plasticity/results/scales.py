"""One scale for each task whose rewards cannot be compared with another's."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity.results.atari_scores import reference
from plasticity.results.points import Point, counterpart, points


class Scale(NamedTuple):
    """``(x - offset) / scale``."""

    offset: float
    scale: float
    kind: str  # human, control, own; "" where there is none

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.scale) and self.scale > 0 and np.isfinite(self.offset))


class Scales:
    """The scale of each task, for each arm and point.

    ``human``: of a game with references, ``offset`` is the score of random play and ``scale`` what a human is above it
    (:func:`plasticity.results.human_normalised_score`). Otherwise, of all visits of the fresh control to the task (of
    the arm's own first visits, where it has no control), means over lanes of each lane's mean over its visits::

        start, end = performance over the first and over the last tenth of a visit's steps
        spread     = sample deviation over lanes of the performance over whole visits
        scale      = max(end - start, spread)
        offset     = end - scale

    So 1 is what a newborn reaches at the end of a visit and 0 where it begins; where it learns less in a visit than
    seeds differ by, the unit is their deviation. A task on which neither number is above 0 (one lane that learns
    nothing) has no scale.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        known: pd.DataFrame,
        hyper: Sequence[str],
        controls: Mapping[str, str | None],
        stages: pd.DataFrame,
    ) -> None:
        """``rows``: finished visits; ``known``: the lanes; ``stages``: of the rule, by visit."""
        cells = points(known, hyper)
        rows = rows[~rows["lost"].astype(bool)]
        opening = rows[rows["visit"].isin(stages.index[stages["first"]])]
        self._of: dict[tuple[str, int], dict[str, Scale]] = {}
        for cell in cells:
            control = controls.get(cell.arm)
            leads = control is None and cell.arm in controls.values()
            other = cell if leads else counterpart(cell, cells, control) if control else None
            own = other is None
            found = _scales(_of_lanes(opening if own else rows, other or cell), "own" if own else "control")
            self._of |= dict.fromkeys(_who(cell), found)

    def of(self, arm: str, lane: int, task: str) -> Scale | None:
        """None where nothing is known of the task yet."""
        return self._of.get((arm, lane), {}).get(task)

    def for_another_run(self, known: pd.DataFrame) -> "Scales":
        """The same scales for the lanes of another run's table: those of the arm of that name (its first point)."""
        made = Scales.__new__(Scales)
        first = {arm: each for (arm, _), each in reversed(self._of.items())}
        lanes = zip(known["arm"].astype(str), known["lane"].astype(int), strict=True)
        made._of = {(arm, lane): first.get(arm, {}) for arm, lane in lanes}
        return made

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the scales are, of all tasks and arms: some of ``human, control, own``."""
        found = {scale.kind for each in self._of.values() for scale in each.values() if scale.known}
        return tuple(sorted(found, key=("human", "control", "own").index))

    def applied(self, table: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """``table`` (``arm, lane, task`` and the ``columns``) in scores, without tasks that have no scale; these."""
        found = [
            self.of(str(arm), int(lane), str(task))
            for arm, lane, task in table[["arm", "lane", "task"]].itertuples(index=False)
        ]
        none = np.array([each is not None and not each.known for each in found], bool)
        numbers = np.array([(np.nan, np.nan) if each is None else each[:2] for each in found], float).reshape(-1, 2)
        left_out = tuple(dict.fromkeys(map(str, table.loc[none, "task"])))
        scores = {name: (table[name].astype(float) - numbers[:, 0]) / numbers[:, 1] for name in columns}
        return table.assign(**scores)[~none], left_out


def _who(cell: Point) -> list[tuple[str, int]]:
    return [(cell.arm, int(lane)) for lane in cell.rows["lane"]]


def _of_lanes(rows: pd.DataFrame, cell: Point) -> pd.DataFrame:
    return rows[(rows["arm"] == cell.arm) & rows["lane"].isin(cell.rows["lane"])]


def _scales(rows: pd.DataFrame, kind: str) -> dict[str, Scale]:
    return {str(task): scale_of(str(task), part, kind) for task, part in rows.groupby("task")}


def scale_of(task: str, visits: pd.DataFrame, kind: str) -> Scale:
    """The scale of one task from the reference's visits to it: ``lane`` and the three performances of each visit."""
    human = reference(task)
    if human is not None:
        return Scale(human.random, human.human - human.random, "human")
    names = ["performance", "performance_start", "performance_end"]
    means: Any = visits.groupby("lane")[names].mean()
    start, end = means["performance_start"].mean(), means["performance_end"].mean()
    sizes = np.array([end - start, means["performance"].std(ddof=1)], float)
    size = float(np.nanmax(sizes)) if np.isfinite(sizes).any() else float("nan")
    return Scale(float(end) - size, size, kind)
