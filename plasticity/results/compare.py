"""Comparison of a run's arms: early and late performance, the gap to the fresh control and its change."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plasticity.results.best import tuned_points
from plasticity.results.change import STAGES, Compared, compare_lanes, grouped, of_seeds, stage_means
from plasticity.results.intervals import mean_interval
from plasticity.results.points import Point, control_of, counterpart, points
from plasticity.results.read import RunPath, arm_names, controls, hyper_parameters, lanes, plan, visits_and_losses

NUMBERS = ("first", "last", "gap", "change", "own")


def summary(
    run: RunPath,
    *,
    control: str | None = None,
    baseline: str = "baseline",
    measure: str = "performance",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Summarise each arm and swept point: early and late performance and the gap to the fresh control.

    The stream determines what is early and late and what may be averaged (:func:`plasticity.results.rule`). If no
    task recurs and rewards are of one kind, ``first`` and ``last`` are the means over the first and the last tenth of
    the visits (at least one visit), for each seed and then over seeds. If tasks recur, they are means over tasks of
    the first and of the last visits to each task; if rewards are also of several kinds, each task is first put on its
    own scale (:class:`plasticity.results.Scales`). For a stream of one visit they are that visit and its last tenth.
    If games of several kinds are played once each, they are missing, and so is everything derived from them;
    :func:`task_changes` reports each task separately.

    ``gap`` is the mean over seeds of (arm - control) late, paired by seed. The control is taken at the point with the
    same hyper-parameters, or at the only point that does not contradict them. ``change``, the change of the gap, is
    the mean over seeds of that difference late minus the same difference early: how far the arm falls behind the
    control along the stream, independent of its initial level (another architecture may learn every task a little
    worse without losing plasticity). ``own``, the own change, is the mean over seeds of a lane's ``last - first``,
    without a control. ``closed = (arm - baseline) / (control - baseline)`` late, over the seeds that all three have,
    for arms with the baseline's control: 0 at the baseline, 1 at the control. It is missing unless the interval of the
    baseline's own gap lies below zero, since otherwise there is no gap to close.

    Args:
      run: the run's folder.
      control: the arm that is reset at every switch, for all arms; None: the control the config gives for each arm.
      baseline: the arm whose gap to the control is to be closed.
      measure: ``performance`` or ``performance_end``, see :func:`visits`.
      confidence: of the Student-t intervals.

    Returns:
      ``arm``, the swept hyper-parameters (of a tuned run, the chosen ones), ``lanes``, ``diverged`` (how many of them),
      ``seeds`` (lanes with a complete last stage), ``first, first_low, first_high``, the same for ``last``, ``gap``,
      ``change`` and ``own``, ``change_seeds`` and ``own_seeds`` (how many seeds these are based on), and ``closed``.
      The columns of ``gap`` and ``change`` are absent without a control arm, ``closed`` without a control or a baseline
      arm, ``change`` and ``own`` if there is no comparable early stage. A stage is missing for lanes that did not
      finish it or diverged.
    """
    found, tuned = compare_lanes(run, control=control, measure=measure), tuned_points(run)
    hyper = hyper_parameters(run) + list(dict.fromkeys(path for values in tuned.values() for path in values))
    arms = set(arm_names(run))
    controlled = any(found.controls.values())
    known = baseline if baseline in arms else None
    table = [_row(found, cell, controlled, known, confidence) | tuned.get(cell.arm, {}) for cell in found.cells]
    return _in_order(pd.DataFrame(table), run, hyper)


def _row(found: Compared, cell: Point, controlled: bool, baseline: str | None, confidence: float) -> dict[str, Any]:
    row = {"arm": cell.arm, **cell.values, **_counts(cell.rows)}
    row |= _named("first", cell.rows["first"], confidence) | _named("last", cell.rows["last"], confidence)
    if controlled:
        row |= _named("gap", found.gap(cell), confidence)
    if found.rule.changes:
        changes = {"own": found.own(cell)}
        changes |= {"change": found.gap(cell) - found.gap(cell, "first")} if controlled else {}
        for name, values in changes.items():
            row |= _named(name, values, confidence) | {f"{name}_seeds": int(values.notna().sum())}
    if controlled and baseline is not None:
        row["closed"] = _closed(found, cell, baseline, confidence)
    return row


def _in_order(table: pd.DataFrame, run: RunPath, hyper: Sequence[str]) -> pd.DataFrame:
    """The rows of ``summary``, plus a row for each arm that has not started, with ordered columns."""
    absent = [arm for arm in arm_names(run) if table.empty or arm not in set(table["arm"])]
    rows = [*table.to_dict("records"), *({"arm": arm, "lanes": 0, "diverged": 0, "seeds": 0} for arm in absent)]
    numbers = [f"{name}{bound}" for name in NUMBERS for bound in ("", "_low", "_high")]
    numbers += [f"{name}_seeds" for name in ("change", "own")]
    columns = ["arm", *hyper, "lanes", "diverged", "seeds", *numbers, "closed"]
    always = {"arm", "lanes", "diverged", "seeds", *hyper, *numbers[:6]}
    columns = [column for column in columns if column in always or column in table]
    table = pd.DataFrame(rows, columns=columns)
    table["arm"] = pd.Categorical(table["arm"], categories=arm_names(run), ordered=True)
    return table.sort_values("arm", kind="stable", ignore_index=True)


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {
        "lanes": len(rows),
        "diverged": int(rows["diverged_at"].notna().sum()),
        "seeds": int(rows["whole"].sum()),
    }


def _named(name: str, values: Any, confidence: float) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), mean_interval(values, confidence), strict=True))


def _closed(found: Compared, cell: Point, baseline: str, confidence: float) -> float:
    """Share of the baseline's gap that the cell closes; NaN unless the baseline is clearly below its control."""
    control = found.controls.get(baseline)
    if control is None or control not in (cell.arm, found.controls.get(cell.arm)):
        return float("nan")
    others = [cell, counterpart(cell, found.cells, baseline), counterpart(cell, found.cells, control)]
    if (
        others[1] is None or not mean_interval(found.gap(others[1]), confidence)[2] < 0
    ):  # of one seed there is no interval
        return float("nan")
    shared = pd.concat([of_seeds(each, "last") for each in others], axis=1).dropna().mean().to_numpy()
    return float((shared[0] - shared[1]) / (shared[2] - shared[1]))


# ------------------------------------------------------------------------------------------------ task by task


def task_changes(
    run: RunPath, *, control: str | None = None, measure: str = "performance", confidence: float = 0.95
) -> pd.DataFrame:
    """Summarise each arm, swept point and task separately, in units of the reward or the return.

    ``first`` and ``last`` are means over the first and the last visits to the task (a tenth of them, at least one; for
    a task visited once both are that visit). ``gap`` is (arm - control) in the last visits, ``own`` is ``last -
    first``, and ``change`` is ``own`` minus the same for the control; all are paired by seed. If each seed has its own
    order, the position of a task's first visit differs between seeds.

    Returns:
      ``arm``, the swept hyper-parameters, ``task``, ``visits`` (number of visits to the task in the stream), ``seeds``,
      and ``first, last, gap, change, own`` with ``_low`` and ``_high``. ``gap`` and ``change`` are missing without a
      control, ``change`` and ``own`` for a task that is visited once.
    """
    stream, hyper, known = plan(run)["stream"], hyper_parameters(run), lanes(run)
    stages = grouped([visit["task"] for visit in stream["visits"]])
    table = stage_means(visits_and_losses(run), known, stages, measure).dropna(subset="task")
    table = table.merge(known[["arm", "lane", "seed"]], on=["arm", "lane"])
    counts = stages.groupby("group").size()
    table["visits"] = counts.reindex(table["group"]).to_numpy()
    cells, chosen = points(known, hyper), controls(run, control)
    rows = [row for cell in cells for row in _task_rows(cell, control_of(cell, cells, chosen), table, confidence)]
    order = {task: place for place, task in enumerate(map(str, stream["tasks"]))}
    columns = [f"{name}{bound}" for name in NUMBERS for bound in ("", "_low", "_high")]
    made = pd.DataFrame(rows, columns=["arm", *hyper, "task", "visits", "seeds", *columns])
    made["arm"] = pd.Categorical(made["arm"], categories=arm_names(run), ordered=True)
    return made.iloc[np.argsort(made["task"].map(order).to_numpy(), kind="stable")].reset_index(drop=True)


def _task_rows(cell: Point, other: Point | None, table: pd.DataFrame, confidence: float) -> Iterator[dict[str, Any]]:
    """``other``: the control's point."""
    mine, theirs = (_of_cell(table, each) for each in (cell, other))
    for task, rows in mine.groupby("task", sort=False):
        own = rows.set_index("seed")
        control = theirs[theirs["task"] == task].set_index("seed")
        gaps = {stage: own[stage] - control[stage] for stage in STAGES}
        again = (own["visits"] > 1).all()
        values = {stage: own[stage] for stage in STAGES} | {"gap": gaps["last"]}
        values["own"] = own["last"] - own["first"] if again else own["last"] * np.nan
        values["change"] = gaps["last"] - gaps["first"] if again else gaps["last"] * np.nan
        row = {"arm": cell.arm, **cell.values, "task": str(task), "visits": int(own["visits"].max())}
        row["seeds"] = int(own["last"].notna().sum())
        for name, each in values.items():
            row |= _named(name, each, confidence)
        yield row


def _of_cell(table: pd.DataFrame, cell: Point | None) -> pd.DataFrame:
    if cell is None:
        return table.iloc[:0]
    return table[(table["arm"] == cell.arm) & table["lane"].isin(cell.rows["lane"])]
