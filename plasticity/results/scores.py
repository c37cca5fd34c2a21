"""Scores by seed and task: one array per arm and swept point of a table, and differences between arms."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from plasticity.results.points import Point, counterpart, points
from plasticity.results.read import tenth


class TaskScores(NamedTuple):
    """The scores of one arm at one point of its sweep; ``values`` is NaN where a score is missing."""

    point: Point
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    values: np.ndarray  # float[seeds, tasks]
    whole: np.ndarray  # bool[seeds]: no measurement of the seed is missing

    def of_seeds(self, seeds: Sequence[int]) -> "TaskScores":
        """Select these seeds, in this order; each must be in ``self.seeds``."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return self._replace(seeds=tuple(seeds), values=self.values[rows], whole=self.whole[rows])

    def of_tasks(self, tasks: Sequence[str]) -> "TaskScores":
        """Select these tasks, in this order; each must be in ``self.tasks``."""
        return self._replace(tasks=tuple(tasks), values=self.values[:, [self.tasks.index(task) for task in tasks]])


def task_scores(
    table: pd.DataFrame,
    *,
    metric: str = "performance",
    hyper: Sequence[str] = (),
    task: str = "task",
    last_tenth: bool = False,
    missing: float | None = None,
) -> list[TaskScores]:
    """Compute ``scores[seed, task]`` of each arm and swept point: means of ``metric`` over the seed's rows of a task.

    A lane that diverged counts with the rows it recorded: the mean is over the rows that have the metric. If there are
    none, every aggregate leaves the score out and counts it as ``missing``. This favours an arm whose lanes diverge,
    so set ``missing`` if the metric has a worst value. Absent rows, of an unfinished visit, are never filled in.

    Args:
      table: from :func:`visits`, :func:`evaluations` or :func:`load`, for one run or several on one stream.
      metric: a column of it. In a table with rewards, a row with a reward but no metric was not measured and does not
        count. Records and visits have equal weight, regardless of their length.
      hyper: the swept hyper-parameters, :func:`hyper_parameters` of the same runs.
      task: the column of the tasks; ``evaluated_task`` in a table of evaluations.
      last_tenth: use only the last tenth of the rows of each task, at least one. For the last tenth of each visit use
        the metric ``performance_end``.
      missing: the score of a row without the metric, e.g. 0 for accuracy; None: it is left out.

    Raises:
      ValueError: a missing column; streams that differ in their tasks or in the number of visits to them (their lengths
        are not in the table); lanes that cannot be distinguished; ``missing`` not finite.
    """
    _check_columns(table, metric, task, hyper)
    if missing is not None and not math.isfinite(missing):
        raise ValueError(f"missing: {missing} is not allowed; must be a finite number, or None")
    _check_one_stream(table, task)
    table = table.reset_index(drop=True)
    rows = table.assign(score=table[metric].astype(float).replace([np.inf, -np.inf], np.nan))
    if "reward" in table:
        rows = rows[rows["score"].notna() | rows["reward"].isna()]
    names = tuple(dict.fromkeys(table[task].astype(str)))
    cells = points(rows, hyper)
    for cell in cells:
        _check_lanes(cell, task)
    lane = [name for name in ("run", "arm", "lane", "seed") if name in rows] + [task]
    order = "step" if "step" in rows else "visit"
    rank = rows.groupby(lane, observed=True)[order].rank(method="first")
    count = rank.groupby(rows[task].to_numpy()).transform("max")
    kept = rank > count - tenth(count) if last_tenth else rank > 0
    expected = rank[kept].groupby(rows.loc[kept, task].astype(str)).nunique().reindex(names, fill_value=0)
    return [_of_point(cell, task, kept, expected, missing) for cell in cells]


def _of_point(cell: Point, task: str, kept: pd.Series, expected: pd.Series, missing: float | None) -> TaskScores:
    rows, seeds = cell.rows[kept.loc[cell.rows.index]], tuple(dict.fromkeys(cell.rows["seed"].astype(int)))
    score = rows["score"] if missing is None else rows["score"].fillna(missing)
    groups = score.groupby([rows["seed"].to_numpy(), rows[task].astype(str).to_numpy()])
    names = list(expected.index)
    values = groups.mean().unstack().reindex(index=list(seeds), columns=names).to_numpy(float)
    counts = groups.count().unstack().reindex(index=list(seeds), columns=names).fillna(0).to_numpy(int)
    return TaskScores(cell, seeds, tuple(expected.index), values, (counts == expected.to_numpy()).all(1))


def _check_columns(table: pd.DataFrame, metric: str, task: str, hyper: Sequence[str]) -> None:
    if metric not in table:
        numbers = [str(name) for name in table.select_dtypes("number") if name not in ("lane", "seed", *hyper)]
        raise ValueError(f"metric: {metric!r} is not a column of the table; there are {', '.join(numbers) or 'none'}")
    absent = [name for name in ("arm", "lane", "seed", "visit", task, *hyper) if name not in table]
    if absent:
        raise ValueError(f"the table has no column {', '.join(absent)}; its columns: {', '.join(map(str, table))}")


def _check_one_stream(table: pd.DataFrame, task: str) -> None:
    """Refuse mixed streams: aggregates over different tasks or numbers of visits are different quantities."""
    lane = [name for name in ("run", "arm", "lane") if name in table]
    counts = table.groupby([*lane, task], observed=True)["visit"].nunique().unstack(fill_value=0)
    if counts.empty:
        return
    if "run" in table:
        found = counts.groupby(level="run", observed=True).max()
        numbers = found.to_numpy(int)
        if (numbers != numbers[0]).any():
            i, j = np.argwhere(numbers != numbers[0])[0]
            raise ValueError(
                f"the runs have different streams, or one is unfinished: task {found.columns[j]!r} has {numbers[0, j]} "
                f"visits in {found.index[0]} and {numbers[i, j]} in {found.index[i]}; aggregate each separately"
            )
    if not (counts > 0).all(axis=1).any():
        raise ValueError(
            f"the table mixes streams: none of its lanes has all of its {counts.shape[1]} tasks; aggregate each stream "
            "separately"
        )


def _check_lanes(cell: Point, task: str) -> None:
    rows = cell.rows
    key = ["seed", task, *(name for name in ("step", "visit") if name in rows)]
    several = rows.groupby("seed")["lane"].nunique() > 1
    if several.any() or rows.duplicated(key).any():
        seed = several.idxmax() if several.any() else rows.loc[rows.duplicated(key), "seed"].iloc[0]
        raise ValueError(
            f"arm {cell.arm!r} has several lanes with seed {seed}; distinguish them: by `hyper`, the swept "
            "hyper-parameters, or by the column `run`"
        )


def normalise(
    scores: Sequence[TaskScores], low: float | Mapping[str, float], high: float | Mapping[str, float]
) -> list[TaskScores]:
    """Rescale scores to ``(score - low) / (high - low)`` per task, so that tasks can be averaged.

    After rescaling, 1 is the optimality gap's target.

    Args:
      scores: from :func:`task_scores`.
      low: the score that becomes 0, e.g. of random play: one number, or one for each task.
      high: the score that becomes 1, e.g. a human's.

    Raises:
      ValueError: a task without a number, or with ``high`` not above ``low``.
    """

    def row(name: str, given: float | Mapping[str, float], tasks: Sequence[str]) -> np.ndarray:
        if not isinstance(given, Mapping):
            return np.full(len(tasks), float(given))
        absent = [task for task in tasks if task not in given]
        if absent:
            raise ValueError(f"{name} has no number for task {', '.join(absent)}")
        return np.asarray([given[task] for task in tasks], float)

    found = []
    for each in scores:
        bottom, top = row("low", low, each.tasks), row("high", high, each.tasks)
        if not (top > bottom).all():
            worst = int(np.argmin(top > bottom))
            raise ValueError(
                f"high: {top[worst]:g} is not allowed for task {each.tasks[worst]!r}; must be above low, "
                f"{bottom[worst]:g}"
            )
        found.append(each._replace(values=(each.values - bottom) / (top - bottom)))
    return found


def differences(scores: Sequence[TaskScores], control: str) -> list[TaskScores]:
    """Compute ``score - score(control)`` of each other arm, paired by seed, task and swept point as in :func:`summary`.

    Only seeds that both arms have are kept; none if the control does not have exactly one point that agrees with the
    arm's. The interquartile mean of differences is not the difference of interquartile means; for means the two are
    equal.

    Raises:
      ValueError: no such arm.
    """
    found = []
    for each, other in matched(scores, control):
        seeds = [seed for seed in each.seeds if other is not None and seed in other.seeds]
        mine = each.of_seeds(seeds)
        if other is not None and seeds:
            theirs = other.of_seeds(seeds)
            mine = mine._replace(values=mine.values - theirs.values, whole=mine.whole & theirs.whole)
        found.append(mine._replace(point=each.point._replace(label=f"{each.point.label} - {control}")))
    return found


def matched(scores: Sequence[TaskScores], control: str) -> list[tuple[TaskScores, TaskScores | None]]:
    """Each other arm's point with the agreeing point of the control in the same run, if there is exactly one."""
    one_stream(scores)
    if control not in {each.point.arm for each in scores}:
        names = dict.fromkeys(each.point.arm for each in scores)
        raise ValueError(f"control: {control!r} is not an arm of the scores; their arms: {', '.join(names)}")
    pairs: list[tuple[TaskScores, TaskScores | None]] = []
    for each in scores:
        mates = [other for other in scores if other.point.run == each.point.run]
        mate = counterpart(each.point, [other.point for other in mates], control)
        partner = next((other.of_tasks(each.tasks) for other in mates if other.point is mate), None)
        pairs += [(each, partner)] if each.point.arm != control else []
    return pairs


def one_stream(scores: Sequence[TaskScores]) -> None:
    """Raise ``ValueError`` unless all scores have the same tasks."""
    for each in scores:
        if set(each.tasks) != set(scores[0].tasks):
            only = sorted(set(each.tasks) ^ set(scores[0].tasks))
            raise ValueError(
                f"{scores[0].point.label} and {each.point.label} are from different streams: they do not share task "
                f"{', '.join(only[:3])}; aggregate each separately"
            )


def identity(scores: TaskScores) -> dict[str, object]:
    """The identifying columns: ``run`` (if several), ``arm`` and the swept values."""
    point = scores.point
    return ({"run": point.run} if point.run else {}) | {"arm": point.arm} | point.values
