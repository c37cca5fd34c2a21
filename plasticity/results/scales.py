"""One scale per task, for tasks whose rewards are not comparable."""

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
    kind: str  # human, control, own; "" if there is none

    @property
    def known(self) -> bool:
        return bool(np.isfinite(self.scale) and self.scale > 0 and np.isfinite(self.offset))


class Scales:
    """The scale of each task, for each arm and point.

    ``human``: for a game with reference scores, ``offset`` is the score of random play and ``scale`` is the human score
    minus it (:func:`plasticity.results.human_normalised_score`). Otherwise the scale comes from all visits of the
    fresh control to the task, or from the arm's own first visits if it has no control. With means over lanes of each
    lane's mean over its visits::

        start, end = performance over the first and over the last tenth of a visit's steps
        spread     = sample standard deviation over lanes of the performance over whole visits
        scale      = max(end - start, spread)
        offset     = end - scale

    Thus 1 is the level that a freshly initialised agent reaches at the end of a visit and 0 the level at which it
    starts. If it learns less in a visit than seeds differ, the unit is their standard deviation. A task on which
    neither number is above 0 (one lane that learns nothing) has no scale.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        known: pd.DataFrame,
        hyper: Sequence[str],
        controls: Mapping[str, str | None],
        stages: pd.DataFrame,
    ) -> None:
        """``rows``: finished visits; ``known``: the lanes; ``stages``: those of the rule, by visit."""
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
        """Return the scale of a task for a lane; None if nothing is known about the task yet."""
        return self._of.get((arm, lane), {}).get(task)

    def for_another_run(self, known: pd.DataFrame) -> "Scales":
        """Return the same scales for another run's lanes: those of the arm with the same name (its first point)."""
        made = Scales.__new__(Scales)
        first = {arm: each for (arm, _), each in reversed(self._of.items())}
        lanes = zip(known["arm"].astype(str), known["lane"].astype(int), strict=True)
        made._of = {(arm, lane): first.get(arm, {}) for arm, lane in lanes}
        return made

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of scales over all tasks and arms: a subset of ``human, control, own``."""
        found = {scale.kind for each in self._of.values() for scale in each.values() if scale.known}
        return tuple(sorted(found, key=("human", "control", "own").index))

    def applied(self, table: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """Return ``table`` (``arm, lane, task``, ``columns``) in scores, and the excluded tasks without a scale."""
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
    """The scale of one task from the reference's visits to it (``lane`` and the three performances of each visit)."""
    human = reference(task)
    if human is not None:
        return Scale(human.random, human.human - human.random, "human")
    names = ["performance", "performance_start", "performance_end"]
    means: Any = visits.groupby("lane")[names].mean()
    start, end = means["performance_start"].mean(), means["performance_end"].mean()
    sizes = np.array([end - start, means["performance"].std(ddof=1)], float)
    size = float(np.nanmax(sizes)) if np.isfinite(sizes).any() else float("nan")
    return Scale(float(end) - size, size, kind)
