"""Comparison of two runs: config, versions, arms, results, and records of arms with equal configs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from plasticity.results.change import Rule, compare_lanes, grouped, rule, stage_means
from plasticity.results.intervals import Interval, mean_interval
from plasticity.results.points import Point, counterpart, points
from plasticity.results.read import RunPath, arm_names, config, hyper_parameters, lanes, load, plan, visits_and_losses

ABSENT = "-"
# Keys that do not affect the numbers in the tables.
NO_NUMBERS = ("name", "placement", "checkpoint_every", "recorders", "compilation_cache", "reference")
SAME_DATA = ("stream", "transforms", "schedule", "seeds")  # if these are equal, a seed sees the same data in both runs

Complete = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]  # the config of an older version, or None


class Difference(NamedTuple):
    """One setting or version; :data:`ABSENT` if a run has none."""

    key: str
    a: Any
    b: Any


class Result(NamedTuple):
    """An arm's late performance (:func:`plasticity.results.rule`) in both runs, mean over seeds."""

    label: str  # the arm, with its point if it was swept
    a: float
    b: float
    difference: Interval  # b - a
    seeds: int  # number of pairs, or of lanes in the run with fewer
    paired: bool  # by seed; otherwise Welch's interval of two independent samples
    task: str = ""  # a single task, in units of its own reward; "": all tasks that count


class Replica(NamedTuple):
    """The records of an arm with the same config in both runs."""

    arm: str
    rows: int  # in both
    only_a: int
    only_b: int
    differing: int  # rows in both that differ
    first: Mapping[str, Any] | None  # lane, seed, step, metric, a, b of the first row that differs
    metrics: tuple[str, ...]  # recorded in one of the runs only

    @property
    def equal(self) -> bool:
        """Whether all values are equal, as far as both runs went."""
        return not self.differing and not self.metrics


class TwoRuns(NamedTuple):
    """The result of :func:`compare_runs`."""

    config: tuple[Difference, ...]
    versions: tuple[Difference, ...]
    only_a: tuple[str, ...]  # arms
    only_b: tuple[str, ...]
    measured: tuple[str, str]  # the performance measure of each run
    stage: str  # the part of the run that is compared
    results: tuple[Result, ...]  # empty if the runs measure different things
    replicas: tuple[Replica, ...]  # for arms with equal configs


def compare_runs(a: RunPath, b: RunPath, *, confidence: float = 0.95, current: Complete | None = None) -> TwoRuns:
    """Compare two runs.

    Results are ``last`` of :func:`summary`. If rewards are of several kinds, each task in both runs has its own
    results. Results over all tasks exist if the same tasks recur in both runs, on the scales
    (:class:`plasticity.results.Scales`) of the first run. If both runs have the same stream and seeds, the interval of
    the difference is Student's on differences by seed; otherwise it is Welch's,
    ``b - a +- t(df) sqrt(s_a^2 / n_a + s_b^2 / n_b)`` (Welch, 1947, The generalization of "Student's" problem when
    several different population variances are involved).

    Args:
      a: a run's folder.
      b: the other run's folder.
      confidence: of the intervals, in (0, 1).
      current: completes the config of a run of an older version, or returns None; for example
        ``plasticity.runs.launch.completed``. By default the configs are compared as they are.

    Raises:
      ValueError: a path that is not the folder of a run.
    """
    about = plan(a), plan(b)
    names = [arm_names(run) for run in (a, b)]
    shared = [name for name in names[0] if name in names[1]]
    changes = _config_changes(*_current(config(a), config(b), current), shared)
    paired = about[0]["stream"]["visits"] == about[1]["stream"]["visits"] and not _under(changes, SAME_DATA)
    measured, rules = (_measured(about[0]), _measured(about[1])), (rule(about[0]["stream"]), rule(about[1]["stream"]))
    return TwoRuns(
        config=tuple(changes),
        versions=tuple(_changes(about[0].get("versions", {}), about[1].get("versions", {}))),
        only_a=tuple(name for name in names[0] if name not in shared),
        only_b=tuple(name for name in names[1] if name not in shared),
        measured=measured,
        stage=_stage(rules),
        results=tuple(_results(a, b, shared, rules, paired, confidence)) if measured[0] == measured[1] else (),
        replicas=tuple(_replicas(a, b, [name for name in shared if _same(changes, name)])),
    )


def _measured(about: Mapping[str, Any]) -> str:
    stream = about["stream"]
    return "episodic return" if stream["episodic"] else str(stream["reward_name"])


# ----------------------------------------------------------------------------------------------------- the config


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Dotted key -> value; a member of a list is named by its kind, and the list itself is given as its kinds."""
    if isinstance(value, Mapping):
        found = [flat(each, f"{path}.{key}".removeprefix(".")) for key, each in value.items()]
        return {key: each for part in found for key, each in part.items()}
    members = value if isinstance(value, list) and value and all(isinstance(x, Mapping) for x in value) else []
    kinds = [str(each.get("kind", number)) for number, each in enumerate(members)]
    result = {path: kinds if members else value}
    for number, (kind, each) in enumerate(zip(kinds, members, strict=True)):
        label = kind if kinds.count(kind) == 1 else f"{kind}[{number}]"
        rest = {key: inner for key, inner in each.items() if key != "kind"}
        result |= flat(rest, f"{path}.{label}")
    return result


def _current(
    a: Mapping[str, Any], b: Mapping[str, Any], current: Complete | None
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Both configs completed, if both can be."""
    if current is None or a == b:
        return a, b
    complete = current(a), current(b)
    return (a, b) if complete[0] is None or complete[1] is None else (complete[0], complete[1])


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for key in {**a, **b}:
        if a.get(key, ABSENT) != b.get(key, ABSENT):
            yield Difference(key, a.get(key, ABSENT), b.get(key, ABSENT))


def _config_changes(a: Mapping[str, Any], b: Mapping[str, Any], shared: Sequence[str]) -> list[Difference]:
    """Without the arms of one run only, and without the settings that go with another kind of member."""
    found = list(_changes(flat(_with_arms(a, shared)), flat(_with_arms(b, shared))))
    replaced = {change.key.removesuffix(".kind") for change in found if ABSENT not in (change.a, change.b)}
    return [
        change
        for change in found
        if ABSENT not in (change.a, change.b) or not any(change.key.startswith(f"{other}.") for other in replaced)
    ]


def _with_arms(config: Mapping[str, Any], shared: Sequence[str]) -> dict[str, Any]:
    arms = config.get("arms") or {}
    return {**config, "arms": {name: arms[name] for name in shared if name in arms}}


def _under(changes: Sequence[Difference], keys: Sequence[str]) -> bool:
    return any(change.key.partition(".")[0] in keys for change in changes)


def _same(changes: Sequence[Difference], arm: str) -> bool:
    """Whether no difference can affect the arm's numbers; the choice of its control cannot."""
    mine = [change for change in changes if not change.key.startswith("arms.") or change.key.startswith(f"arms.{arm}.")]
    mine = [change for change in mine if change.key != f"arms.{arm}.control"]
    return all(change.key.partition(".")[0] in NO_NUMBERS for change in mine)


# ----------------------------------------------------------------------------------------------------- the results


def _stage(rules: Sequence[Rule]) -> str:
    if any(each.scaled for each in rules):
        return "last visits, task by task"
    return "last visits to each task" if {each.kind for each in rules} == {"revisits"} else "last tenth"


def _results(
    a: RunPath, b: RunPath, shared: Sequence[str], rules: Sequence[Rule], paired: bool, confidence: float
) -> Iterator[Result]:
    if not any(each.scaled for each in rules):
        yield from _paired_up(compare_lanes(a).cells, compare_lanes(b).cells, shared, paired, confidence)
        return
    if _same_tasks(a, b, rules):
        first = compare_lanes(a)
        scales = first.scales.for_another_run(lanes(b)) if first.scales else None
        yield from _paired_up(first.cells, compare_lanes(b, scales=scales).cells, shared, paired, confidence)
    mine, theirs = _by_task(a), _by_task(b)
    for task in (task for task in mine if task in theirs):
        yield from _paired_up(mine[task], theirs[task], shared, paired, confidence, task)


def _same_tasks(a: RunPath, b: RunPath, rules: Sequence[Rule]) -> bool:
    """Whether the same tasks recur in both runs."""
    if any(each.kind != "revisits" for each in rules):
        return False
    found = []
    for run, each in zip((a, b), rules, strict=True):
        names, groups = plan(run)["stream"]["tasks"], each.stages["group"]
        found.append({names[group] for group in groups[groups >= 0]})
    return found[0] == found[1]


def _by_task(run: RunPath) -> dict[str, list[Point]]:
    """Task -> the run's arms and points; their rows are the lanes that visited it, with the column ``last``."""
    known, order = lanes(run), [visit["task"] for visit in plan(run)["stream"]["visits"]]
    table = stage_means(visits_and_losses(run), known, grouped(order), "performance")
    found = {str(task): known.merge(part[["arm", "lane", "last"]]) for task, part in table.groupby("task")}
    return {task: points(part, hyper_parameters(run)) for task, part in found.items()}


def _paired_up(
    cells: Sequence[Point],
    others: Sequence[Point],
    shared: Sequence[str],
    paired: bool,
    confidence: float,
    task: str = "",
) -> Iterator[Result]:
    for cell in cells:
        other = counterpart(cell, others, cell.arm) if cell.arm in shared else None
        if other is not None:
            yield _result(cell, other, paired, confidence)._replace(task=task)


def _result(cell: Point, other: Point, paired: bool, confidence: float) -> Result:
    a, b = (point.rows.set_index("seed")["last"] for point in (cell, other))
    together = paired and a.index.is_unique and set(a.index) == set(b.index)
    if together:
        gaps = (b - a).dropna()
        difference, seeds = mean_interval(gaps, confidence), len(gaps)
    else:
        difference, seeds = welch(a, b, confidence), int(min(a.notna().sum(), b.notna().sum()))
    return Result(cell.label, float(a.mean()), float(b.mean()), difference, seeds, together)


def welch(a: Any, b: Any, confidence: float = 0.95) -> Interval:
    """The mean of ``b`` minus that of ``a``, two independent samples; NaN is ignored, one value gives no bounds."""
    samples = [np.asarray(values, float)[np.isfinite(np.asarray(values, float))] for values in (a, b)]
    if min(map(len, samples)) == 0:
        return Interval(np.nan, np.nan, np.nan)
    difference = float(samples[1].mean() - samples[0].mean())
    if min(map(len, samples)) < 2:
        return Interval(difference, np.nan, np.nan)
    parts = np.array([values.var(ddof=1) / len(values) for values in samples])
    degrees = np.array([len(values) - 1 for values in samples])
    freedom = parts.sum() ** 2 / (parts**2 / degrees).sum() if parts.any() else degrees.sum()
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom) * np.sqrt(parts.sum()))
    return Interval(difference, difference - half, difference + half)


# ----------------------------------------------------------------------------------------------------- the records


def _replicas(a: RunPath, b: RunPath, arms: Sequence[str]) -> Iterator[Replica]:
    if not arms:
        return
    tables = load(a), load(b)
    for arm in arms:
        mine, theirs = (table[table["arm"] == arm].drop(columns="arm") for table in tables)
        yield _replica(arm, mine, theirs)


def _replica(arm: str, a: pd.DataFrame, b: pd.DataFrame) -> Replica:
    """Rows are matched by lane and step and compared in order of time."""
    a, b = (table.set_index(["step", "lane"]).dropna(axis=1, how="all").sort_index() for table in (a, b))
    both = a.index.intersection(b.index).sort_values()
    columns = [column for column in a.columns if column in b.columns]
    x, y = (_plain(table.loc[both, columns]) for table in (a, b))
    differs = ~((x == y) | (x.isna() & y.isna()))
    which = np.flatnonzero(differs.any(axis=1))
    return Replica(
        arm=arm,
        rows=len(both),
        only_a=len(a) - len(both),
        only_b=len(b) - len(both),
        differing=len(which),
        first=_row(x, y, differs, int(which[0])) if len(which) else None,
        metrics=tuple(sorted(set(a.columns) ^ set(b.columns))) if len(both) else (),
    )


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    """Names as text, since a run that has not reached every task has fewer categories."""
    few = [name for name in table if isinstance(table[name].dtype, pd.CategoricalDtype)]
    return table.astype(dict.fromkeys(few, object))


def _row(x: pd.DataFrame, y: pd.DataFrame, differs: pd.DataFrame, row: int) -> dict[str, Any]:
    step, lane = x.index[row]
    metric = str(differs.columns[int(np.argmax(differs.to_numpy()[row]))])
    facts = {"lane": int(lane), "seed": int(x["seed"].iloc[row]), "step": int(step), "metric": metric}
    return facts | {"a": x[metric].iloc[row], "b": y[metric].iloc[row]}
