"""How performance changes along a stream: the rule that all tables, pages and findings use.

The stream determines what is compared (:func:`rule`):

* ``revisits``: tasks recur. A lane's first visits to a task are compared with its last visits to the same task, then
  averaged over tasks. Only tasks that recur count.
* ``sequence``: no task recurs, and rewards are of one kind. The first tenth of the visits is compared with the last.
* ``single``: one visit. The whole visit and its last tenth are reported; there is no change.
* ``none``: no task recurs, and rewards are of several kinds (games). Each task is reported separately; there is no
  change.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from plasticity.results.points import Point, control_of, points
from plasticity.results.read import RunPath, controls, hyper_parameters, lanes, plan, tenth, visits_and_losses
from plasticity.results.scales import Scales

Kind = Literal["revisits", "sequence", "single", "none"]
STAGES = ("first", "last")


class Rule(NamedTuple):
    """Which visits of a stream are compared with each other."""

    kind: Kind
    scaled: bool  # rewards are of several kinds, so each task has its own scale
    stages: pd.DataFrame  # by visit: ``group`` (its task, or 0 in a sequence; -1: does not count), ``first``, ``last``

    @property
    def overall(self) -> bool:
        """Whether a single number can summarise an arm."""
        return self.kind != "none"

    @property
    def changes(self) -> bool:
        """Whether there is an early stage to compare with."""
        return self.kind in ("revisits", "sequence")


def alike(stream: Mapping[str, Any]) -> bool:
    """Whether the rewards of all tasks of a run's stream are of one kind, so that they may be averaged unscaled.

    Mean rewards of a stream without episodes (accuracy, squared error) are of one kind. Returns are of one kind if
    only one task is played or if the stream declares it (``StreamSpec.alike``: variants of one problem). Returns of
    different games are not.
    """
    return not stream["episodic"] or len({visit["task"] for visit in stream["visits"]}) == 1 or bool(stream["alike"])


def rule(stream: Mapping[str, Any]) -> Rule:
    """Determine what is compared on a stream, ``plan(run)["stream"]``.

    A stage is a tenth of the visits of its group, rounded down, but at least one. For a task visited twice, these are
    the first and the second visit; for a task visited 40 times, the first four and the last four.
    """
    order = [visit["task"] for visit in stream["visits"]]
    same, again = alike(stream), len(set(order)) < len(order)
    kind: Kind = "single" if len(order) == 1 else "revisits" if again else "sequence" if same else "none"
    stages = grouped([0] * len(order) if kind == "sequence" else order)
    if kind == "revisits":
        stages.loc[~stages["again"], "group"] = -1
    return Rule(kind, not same, stages)


def grouped(groups: Sequence[int]) -> pd.DataFrame:
    """The stages of visits: ``group, first, last``, and ``again`` (the group has several visits)."""
    table = pd.DataFrame({"group": groups}, index=pd.RangeIndex(len(groups), name="visit"))
    occasion, count = table.groupby("group").cumcount(), table.groupby("group")["group"].transform("size")
    length = tenth(count)
    return table.assign(first=occasion < length, last=occasion >= count - length, again=count > 1)


def stage_means(rows: pd.DataFrame, known: pd.DataFrame, stages: pd.DataFrame, measure: str) -> pd.DataFrame:
    """``arm, lane, group, task, first, last`` for each lane of ``known`` and each group.

    A stage of a lane is the mean of ``measure`` over its visits. It is missing unless the lane finished all of them
    without diverging. A visit in which no episode ended is excluded from the mean.
    """
    kept = rows.merge(stages[stages["group"] >= 0], left_on="visit", right_index=True)
    keys = ["arm", "lane", "group"]
    groups = pd.DataFrame({"group": sorted(set(stages.loc[stages["group"] >= 0, "group"]))})
    found = known[["arm", "lane"]].merge(groups, how="cross").set_index(keys)
    found["task"] = kept.groupby(keys, observed=True)["task"].first()
    for stage in STAGES:
        expected = stages[stages[stage]].groupby("group").size()
        those = kept[kept[stage]].groupby(keys, observed=True)
        count = those["visit"].nunique()
        whole = (count == expected.reindex(count.index.get_level_values("group")).to_numpy()) & ~those["lost"].any()
        found[stage] = those[measure].mean().where(whole)
    return found.reset_index().astype({"task": "object"})


class Compared(NamedTuple):
    """A run's lanes compared by the rule."""

    rule: Rule
    cells: list[Point]  # arms and points; rows are lanes with ``first, last`` (scores), ``whole`` (has the last stage)
    controls: Mapping[str, str | None]  # of each arm
    left_out: tuple[str, ...]  # tasks without a scale, which are excluded
    scales: Scales | None = None  # if rewards are of several kinds

    def control_of(self, cell: Point) -> Point | None:
        """Return the control's point for an arm's point, if there is one."""
        return control_of(cell, self.cells, self.controls)

    def change(self, cell: Point) -> pd.Series:
        """Compute the change of performance, one number per seed; verdicts are based on it.

        ``(last - first) - (last - first of the control)``, paired by seed, if the arm has a control; otherwise
        ``last - first`` of the lane itself. Missing for the control itself and where a stage is missing.
        """
        if self.controls.get(cell.arm) is None:
            return self.own(cell)
        return self.gap(cell) - self.gap(cell, "first")

    def own(self, cell: Point) -> pd.Series:
        """``last - first`` of each lane, by seed."""
        return of_seeds(cell, "last") - of_seeds(cell, "first")

    def gap(self, cell: Point, stage: str = "last") -> pd.Series:
        """The lane minus its control in a stage, paired by seed; missing if there is no control."""
        return of_seeds(cell, stage) - of_seeds(self.control_of(cell), stage)


def of_seeds(cell: Point | None, stage: str) -> pd.Series:
    return cell.rows.set_index("seed")[stage] if cell else pd.Series(dtype=float)


def compare_lanes(
    run: RunPath, *, control: str | None = None, measure: str = "performance", scales: Scales | None = None
) -> Compared:
    """Compute every lane's early and late scores according to :func:`rule`.

    If rewards are of one kind, a score is the performance itself. Otherwise it is ``(x - offset) / scale`` with
    numbers for each task (:class:`Scales`), averaged over tasks. If each seed has its own order, a lane's tasks are
    those that it visited; arms with the same seed visited the same tasks.

    Args:
      run: the run's folder.
      control: the control of every other arm; None: the control that the plan gives for each arm (:func:`controls`).
      measure: ``performance`` or ``performance_end``.
      scales: the scales of another run, for a comparison with it; None: the run's own.
    """
    stream, hyper, rows, known = plan(run)["stream"], hyper_parameters(run), visits_and_losses(run), lanes(run)
    found = rule(stream)
    chosen = controls(run, control)
    table = stage_means(rows, known, found.stages, measure)
    if found.kind == "single":
        table["last"] = stage_means(rows, known, found.stages, "performance_end")["last"]
    known["whole"] = np.isfinite(_means(table["last"], table, known))
    if not found.overall:
        return Compared(found, points(known.assign(first=np.nan, last=np.nan), hyper), chosen, ())
    left_out: tuple[str, ...] = ()
    used = scales or (Scales(rows, known, hyper, chosen, found.stages) if found.scaled else None)
    if used is not None:
        table, left_out = used.applied(table, STAGES)
    for stage in STAGES:
        known[stage] = _means(table[stage], table, known)
    return Compared(found, points(known, hyper), chosen, left_out, used)


def _means(values: pd.Series, table: pd.DataFrame, known: pd.DataFrame) -> np.ndarray:
    """Each lane's mean over its groups; missing if one of them is missing."""
    groups = values.groupby([table["arm"], table["lane"]], observed=True)
    means = groups.mean().where(groups.count() == groups.size())
    return means.reindex(pd.MultiIndex.from_frame(known[["arm", "lane"]])).to_numpy(float)
