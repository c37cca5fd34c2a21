"""Forgetting, transfer and intransigence, from the evaluations at the end of every visit.

All measures are computed from ``R[i, j]``, the performance on the task of visit ``j`` after visit ``i`` (both from 0).
A task that is visited twice has two columns, as in Continual World's CW20. Each docstring says how the measure differs
from measures of the same name in other papers. All except ratios are in units of the reward or the return.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity.results.behaviour import WHOSE, Scores, partners, scores
from plasticity.results.change import alike, rule
from plasticity.results.read import (
    FRESH,
    RunPath,
    arm_names,
    controls,
    evaluated_measure,
    evaluations,
    hyper_parameters,
    is_measure,
    lanes,
    plan,
    visits_and_losses,
)
from plasticity.results.scales import Scales


class Matrix(NamedTuple):
    """``values[lane, i, j]``: performance on the task of visit ``j`` after visit ``i``; NaN if not evaluated."""

    lanes: pd.DataFrame  # one row per lane: (run), arm, lane, seed and the swept hyper-parameters
    tasks: tuple[str, ...]  # of each visit
    values: np.ndarray  # float[lanes, visits, visits]
    controls: Mapping[str, str | None] = MappingProxyType({})  # of each arm; if empty, the arm `fresh`, if there is one
    alike: bool = True  # values of all tasks are of one kind, or scaled, so they may be averaged
    measure: str = ""  # the column of the evaluations: success, episodic_return, reward

    @property
    def hyper(self) -> list[str]:
        return [str(name) for name in self.lanes if name not in WHOSE]


def performance_matrix(
    run: RunPath,
    *runs: RunPath,
    arm: str | None = None,
    scaled: bool = False,
    measure: str | None = None,
    last: int = 1,
) -> Matrix:
    """Arrange the evaluations at the ends of visits as a matrix for each lane.

    Args:
      run: the run's folder; ``runs``: further runs with the same visits.
      arm: only this arm's lanes; None: all.
      scaled: put each task on its own scale (:class:`plasticity.results.Scales`), so that measures may be averaged
        over tasks whose rewards are of several kinds. Otherwise averages over such tasks are missing. Tasks without a
        scale are missing. Measures of the stream, such as success rates, keep their own scale.
      measure: the column of :func:`evaluations`; None: ``success``, if recorded, else the return or the reward.
      last: average over this number of evaluations at the end of each visit. 1 is the formulas' ``p(t)``; the code of
        Continual World averages the last 5.

    Raises:
      ValueError: a run without evaluations at the ends of visits or without this measure; an unknown arm; runs whose
        visits or measures differ; ``last`` below 1; a measure that is to be scaled.
    """
    if measure and scaled:
        raise ValueError(f"scaled: true is not allowed with measure: {measure!r}; only the performance is scaled")
    if last < 1:
        raise ValueError(f"last: {last} is not allowed; must be at least 1")
    several = (run, *runs)
    streams = [plan(one)["stream"] for one in several]
    sequences = [tuple(stream["tasks"][visit["task"]] for visit in stream["visits"]) for stream in streams]
    if len(set(sequences)) > 1:
        raise ValueError("the runs have different visits; make a matrix for each")
    unknown = [one for one in several if arm is not None and arm not in arm_names(one)]
    if unknown:
        raise ValueError(f"arm: {arm!r} is not an arm of {unknown[0]}; its arms: {', '.join(arm_names(unknown[0]))}")
    columns = [evaluated_measure(one, evaluations(one), measure) for one in several]
    if len(set(columns)) > 1:
        raise ValueError(f"the runs measure {' and '.join(dict.fromkeys(columns))}; name a measure that all have")
    values = [_values(one, each, columns[0], last, scaled) for one, each in zip(several, streams, strict=True)]
    known = lanes(*several).drop(columns=["program", "diverged_at"])
    kept = np.full(len(known), True) if arm is None else (known["arm"] == arm).to_numpy()
    tasks = sequences[0]
    if any(stream.get("shuffled") for stream in streams):  # a column is a different task for each seed
        tasks = tuple(f"task {visit['task'] + 1} of each seed" for visit in streams[0]["visits"])
    same = scaled or is_measure(columns[0]) or all(map(alike, streams))
    chosen = {name: control for one in several for name, control in controls(one).items()}
    return Matrix(known[kept].reset_index(drop=True), tasks, np.concatenate(values)[kept], chosen, same, columns[0])


def _values(run: RunPath, stream: dict[str, Any], measure: str, last: int, scaled: bool) -> np.ndarray:
    table, known = evaluations(run), lanes(run)
    if table.empty:
        raise ValueError(f"{run} has no evaluations; set evaluation: {{every: visit, tasks: all}} in its config")
    table, keys = _at_the_ends(table, stream, measure, last), ["arm", "lane"]
    if table.empty:
        raise ValueError(f"{run} has no evaluation at the end of a visit; set evaluation.every: visit in its config")
    if scaled and not is_measure(measure):
        table = _scaled(run, table.assign(task=table["evaluated_task"]), measure)
    rows = {key: row for row, key in enumerate(zip(known["arm"], known["lane"], strict=True))}
    order = np.asarray([visit["task"] for visit in stream["visits"]])
    found = np.full((len(known), len(order), len(order)), np.nan)
    for arm, lane, visit, evaluated, value in table[[*keys, "visit", "evaluated_visit", measure]].itertuples(
        index=False
    ):  # by position, as names differ between seeds if each has its own order
        found[rows[arm, lane], visit, order == order[evaluated]] = value
    return found


def _at_the_ends(table: pd.DataFrame, stream: dict[str, Any], measure: str, last: int) -> pd.DataFrame:
    """The evaluations at the ends of visits; ``measure`` is the mean over the ``last`` ones of the same visit."""
    steps = np.asarray([visit["steps"] for visit in stream["visits"]])
    table = table.sort_values("step", kind="stable")
    groups = table.groupby(["arm", "lane", "visit", "evaluated_visit"], observed=True)[measure]
    means = groups.rolling(last, min_periods=1).mean().reset_index(level=[0, 1, 2, 3], drop=True).reindex(table.index)
    table = table.assign(**{measure: means.where(table[measure].notna())})  # missing once a lane has diverged
    return table[table["step_in_visit"].to_numpy() == steps[table["visit"]]]


def _scaled(run: RunPath, table: pd.DataFrame, measure: str) -> pd.DataFrame:
    return scales_of(run).applied(table, [measure])[0]


def scales_of(run: RunPath) -> Scales:
    stages = rule(plan(run)["stream"]).stages
    return Scales(visits_and_losses(run), lanes(run), hyper_parameters(run), controls(run), stages)


def check_tasks(matrix: Matrix, wanted: str) -> None:
    """Raise ``ValueError`` if other tasks were not evaluated; ``wanted``: what ``evaluation.tasks`` should be."""
    tasks, count = np.asarray(matrix.tasks), len(matrix.tasks)
    needed = (
        np.triu(np.ones((count, count), bool), 1) if wanted == "all" else np.tril(np.ones((count, count), bool), -1)
    )
    needed &= tasks[:, None] != tasks
    started = count > 1 and np.isfinite(matrix.values[:, 1, 1]).any()  # at least one lane has finished two visits
    if started and needed.any() and not np.isfinite(matrix.values[:, needed]).any():
        which = "coming" if wanted == "all" else "earlier"
        raise ValueError(f"{which} tasks were not evaluated; set evaluation.tasks: {wanted} in the config")


def pairs_table(
    matrix: Matrix, pairs: Sequence[tuple[int, int]], columns: dict[str, Callable[[int, int], Any]]
) -> pd.DataFrame:
    """A row for each lane and pair (i, j); a column is a function of the pair: float[lanes]."""
    parts = []
    for i, j in pairs:
        where: dict[str, Any] = {"visit": i, "evaluated_visit": j, "evaluated_task": matrix.tasks[j]}
        numbers = {name: np.asarray(column(i, j), float) for name, column in columns.items()}
        parts.append(matrix.lanes.assign(**where, **numbers).reset_index(names="row"))
    if not parts:
        return matrix.lanes.iloc[:0].assign(
            visit=0, evaluated_visit=0, evaluated_task="", **dict.fromkeys(columns, 0.0)
        )
    table = pd.concat(parts).sort_values(["row", "visit", "evaluated_visit"], kind="stable", ignore_index=True)
    return table.drop(columns="row")


def scored(
    matrix: Matrix, table: pd.DataFrame, values: Sequence[str], confidence: float, ratios: Sequence[str] = ()
) -> Scores:
    """``ratios``: the dimensionless ``values``, which may always be averaged over tasks."""
    found = scores(table, ["visit", "evaluated_visit", "evaluated_task"], values, matrix.hyper, confidence)
    return found if matrix.alike else found.without_overall(*(name for name in values if name not in ratios))


def average_performance(matrix: Matrix, confidence: float = 0.95) -> Scores:
    """Compute ``P(t) = 1/N sum_j R[t, j]`` after each visit ``t``.

    After the last visit this is Continual World's P(T) and GEM's ACC:
    Wolczyk et al. 2021, "Continual World"; Lopez-Paz, Ranzato 2017, "Gradient Episodic Memory for Continual Learning".
    Missing if a task was not evaluated. ``overall`` is the mean over ``t``, not P(T).

    Raises:
      ValueError: the rewards of the tasks are of several kinds and the matrix is not scaled.
    """
    check_tasks(matrix, "seen or all")
    if not matrix.alike:
        raise ValueError(
            "the rewards of these tasks are of several kinds and have no common mean; make the matrix with scaled=True"
        )
    last = len(matrix.tasks) - 1
    table = pairs_table(
        matrix, [(i, last) for i in range(last + 1)], {"average_performance": lambda i, j: matrix.values[:, i].mean(-1)}
    ).drop(columns=["evaluated_visit", "evaluated_task"])
    return scores(table, ["visit"], ["average_performance"], matrix.hyper, confidence)


def forgetting(matrix: Matrix, confidence: float = 0.95) -> Scores:
    """Compute how much the performance on each task drops from the end of its visit to the end of the run.

    ``forgetting = R[j, j] - R[T, j]``, averaged over all N tasks, including the last with 0: Continual World (Wolczyk
    et al. 2021). For the measure of Chaudhry et al. 2018, relative to the best earlier performance, see
    :func:`forgetting_from_best`.
    """
    check_tasks(matrix, "seen or all")
    r, last = matrix.values, len(matrix.tasks) - 1
    pairs = [(last, j) for j in range(last + 1)]
    return scored(
        matrix,
        pairs_table(matrix, pairs, {"forgetting": lambda i, j: r[:, j, j] - r[:, i, j]}),
        ["forgetting"],
        confidence,
    )


def forgetting_from_best(matrix: Matrix, confidence: float = 0.95) -> Scores:
    """Compute ``f_j^k = max_{l < k} R[l, j] - R[k, j]`` for ``j < k``, ``k`` the last visit, averaged over ``j``.

    Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning: Understanding Forgetting and Intransigence". If
    a task was not evaluated before it was learned, the maximum is over the later visits only.
    """
    check_tasks(matrix, "seen or all")
    r, last = matrix.values, len(matrix.tasks) - 1

    def lost(i: int, j: int) -> np.ndarray:
        return np.fmax.reduce(r[:, :i, j], axis=1) - r[:, i, j]

    table = pairs_table(matrix, [(last, j) for j in range(last)], {"forgetting_from_best": lost})
    return scored(matrix, table, ["forgetting_from_best"], confidence)


def backward_transfer(matrix: Matrix, confidence: float = 0.95) -> Scores:
    """Compute ``BWT = 1/(T-1) sum_{j < T} (R[T, j] - R[j, j])``: Lopez-Paz, Ranzato 2017 (GEM).

    For each task this is the negative of Continual World's forgetting, but the mean excludes the last task.
    """
    check_tasks(matrix, "seen or all")
    r, last = matrix.values, len(matrix.tasks) - 1
    table = pairs_table(
        matrix, [(last, j) for j in range(last)], {"backward_transfer": lambda i, j: r[:, i, j] - r[:, j, j]}
    )
    return scored(matrix, table, ["backward_transfer"], confidence)


def forward_transfer(matrix: Matrix, baseline: Any, confidence: float = 0.95) -> Scores:
    """Compute ``FWT = 1/(T-1) sum_{j >= 2} (R[j-1, j] - b_j)``: Lopez-Paz, Ranzato 2017 (GEM).

    The performance is that before the task is learned. This is neither Continual World's forward transfer, which uses
    areas (:func:`plasticity.results.forward_transfer_of_areas`), nor CORA's (:func:`isolated_forward_transfer`). For a
    task visited before, it is not zero-shot transfer.

    Args:
      matrix: from a run with ``evaluation.tasks: all``.
      baseline: ``b_j``, the performance of an untrained learner: one number, or one for each visit.
      confidence: of the intervals.
    """
    check_tasks(matrix, "all")
    r, count = matrix.values, len(matrix.tasks)
    given = np.asarray(baseline, float)
    if given.shape not in ((), (count,)):
        raise ValueError(f"baseline has shape {given.shape}; must be one number or {count}, one for each visit")
    b = np.broadcast_to(given, (count,))
    pairs = [(j - 1, j) for j in range(1, count)]
    table = pairs_table(matrix, pairs, {"forward_transfer": lambda i, j: r[:, i, j] - b[j]})
    return scored(matrix, table, ["forward_transfer"], confidence)


def _isolated(matrix: Matrix, name: str, sign: int, pairs: Sequence[tuple[int, int]], confidence: float) -> Scores:
    r, tasks = matrix.values, matrix.tasks
    pairs = [(i, j) for i, j in pairs if tasks[i] != tasks[j]]
    largest = np.fmax.reduce(np.abs(r), axis=1)  # |r_j|_max of each lane: [lanes, tasks]
    largest = np.where(largest > 0, largest, np.nan)

    def change(i: int, j: int) -> np.ndarray:
        return sign * (r[:, i, j] - r[:, i - 1, j])

    table = pairs_table(matrix, pairs, {"difference": change, name: lambda i, j: change(i, j) / largest[:, j]})
    return scored(matrix, table, ["difference", name], confidence, [name])


def isolated_forgetting(matrix: Matrix, confidence: float = 0.95) -> Scores:
    """Compute ``F_{j,i} = (R[i-1, j] - R[i, j]) / |r_j|_max`` for ``j < i``: forgetting caused by visit ``i`` alone.

    Powers et al. 2021, "CORA: Benchmarks, Baselines, and Metrics as a Platform for Continual Reinforcement Learning
    Agents", whose tables show ten times it. Visits to the task itself do not count. ``|r_j|_max`` is the largest
    absolute value of the lane's column, so it differs between seeds; ``difference`` is the numerator; the ratio is
    missing where ``|r_j|_max`` is 0.
    """
    check_tasks(matrix, "seen or all")
    pairs = [(i, j) for i in range(len(matrix.tasks)) for j in range(i)]
    return _isolated(matrix, "isolated_forgetting", -1, pairs, confidence)


def isolated_forward_transfer(matrix: Matrix, confidence: float = 0.95) -> Scores:
    """Compute ``Z_{j,i} = (R[i, j] - R[i-1, j]) / |r_j|_max`` for ``j > i``: transfer from visit ``i`` to later tasks.

    Powers et al. 2021 (CORA), see :func:`isolated_forgetting`. Later visits to the task itself do not count. The first
    visit has no value, since nothing is evaluated before it.
    """
    check_tasks(matrix, "all")
    count = len(matrix.tasks)
    pairs = [(i, j) for i in range(1, count) for j in range(i + 1, count)]
    return _isolated(matrix, "isolated_forward_transfer", 1, pairs, confidence)


def intransigence(matrix: Matrix, control: str | None = None, confidence: float = 0.95) -> Scores:
    """Compute ``I_k = a*_k - R[k, k]``: the lane's deficit relative to the control at the end of a visit.

    Chaudhry et al. 2018 (:func:`forgetting_from_best`). ``a*_k`` is the control's ``R[k, k]`` at the same seed and
    swept point. The paper's reference learns all tasks so far jointly; ours learns the single task from scratch.

    Raises:
      ValueError: the matrix has no such arm.
    """
    own, reference, known = of_reference(matrix, control)
    pairs = [(k, k) for k in range(len(matrix.tasks))]
    table = pairs_table(matrix, pairs, {"intransigence": lambda i, j: reference[:, j] - own[:, j]})
    compared = table[~table["arm"].astype(str).isin(known)].reset_index(drop=True)
    return scored(matrix, compared, ["intransigence"], confidence)


def of_reference(matrix: Matrix, control: str | None) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """``R[k, k]`` of each lane and of its control's lane, ``[lanes, visits]``, and the names of the controls.

    ``ValueError`` if the matrix has no such arm.
    """
    names = list(dict.fromkeys(matrix.lanes["arm"].astype(str)))
    each_of = matrix.controls if control is None and matrix.controls else dict.fromkeys(names, control or FRESH)
    known = {other for arm, other in each_of.items() if other and arm in names}
    if not known or known - set(names):
        missing = sorted(known - set(names))[0] if known else FRESH
        raise ValueError(f"control: {missing!r} is not an arm of the matrix; its arms: {', '.join(names)}")
    own = np.diagonal(matrix.values, axis1=1, axis2=2)
    partner = partners(matrix.lanes, matrix.hyper, each_of)
    return own, np.where(partner[:, None] >= 0, own[partner], np.nan), known
