"""Lifetime tuning: the sweep on the first part of the life and on other seeds, then the run with each arm's best point.

The tuning runs are an ordinary run, in the folder ``tuning`` of the run that they precede: it can be cut into shards,
resumed and read like any other. The points that it selects become part of the config of the run itself
(``tune.chosen``), so that this one too is resumed, cut and read like any other.
"""

import contextlib
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from plasticity.config.documents import read_file
from plasticity.config.experiments import Experiment, Schedule
from plasticity.config.names import LONGEST
from plasticity.config.sweeps import Arm
from plasticity.config.tuning import TUNING, Tuning, index_of, part_of, steps_of, tuned
from plasticity.core.errors import UserError, shown, unknown
from plasticity.runs import folder, sharded, trackers
from plasticity.runs.accounts import EXPERIMENT, PLAN
from plasticity.runs.checksums import to_json
from plasticity.runs.execution import current
from plasticity.runs.files import write_text
from plasticity.runs.lock import held
from plasticity.runs.planning import check_memory, jobs_of, plan
from plasticity.runs.selection import EPISODES, PERFORMANCE, RETURN, REWARD, Score, at_edge, best_of, lane_means, score
from plasticity.runs.session import Progress
from plasticity.runs.sources import source_of

ENDING = f"-{TUNING}"  # of the name
SELECTION = "selection.json"  # in the folder of the tuning runs: the score of each point, and the chosen ones
ALWAYS = (PERFORMANCE, REWARD, RETURN, EPISODES)  # recorded without monitors and evaluations
Chosen = Mapping[str, Mapping[str, Any]]  # arm -> swept path -> value


class Phase(NamedTuple):
    """A run that an experiment consists of."""

    experiment: Experiment
    place: Path
    tuning: bool = False


class Part(NamedTuple):
    """The tuned part of a life, in env steps."""

    steps: int
    life: int


def is_due(experiment: Experiment) -> bool:
    """Whether points must be selected before the run."""
    return experiment.tune is not None and experiment.tune.chosen is None


def _tune(experiment: Experiment) -> Tuning:
    assert experiment.tune is not None
    return experiment.tune


def part(experiment: Experiment) -> Part:
    """How much of the life is for tuning. ``UserError`` if ``tune.first`` does not fit the stream."""
    lengths = [visit.steps for visit in source_of(experiment).spec.visits]
    try:
        return Part(steps_of(_tune(experiment).first, lengths, experiment.record_every), sum(lengths))
    except ValueError as error:
        raise UserError(f"tune.first: {error}") from None


def first_phase(experiment: Experiment) -> Experiment:
    """The tuning runs: the arms with several points; see :func:`beginning`."""
    return beginning(experiment, {name: arm for name, arm in experiment.arms.items() if len(arm.points) > 1})


def beginning(experiment: Experiment, swept: Mapping[str, Arm]) -> Experiment:
    """These arms alone, on the tuning seeds, for the first part of the life.

    Monitors and evaluations are left out, unless the metric is one of theirs; so are recorders.
    """
    tune, spec = _tune(experiment), source_of(experiment).spec
    cut = part_of([(visit.task, visit.steps) for visit in spec.visits], part(experiment).steps)
    arms = {name: replace(arm, control=arm.control if arm.control in swept else None) for name, arm in swept.items()}
    cut = _skipped(experiment) + cut
    schedule = Schedule(
        order=experiment.schedule.order, visits=tuple(task for task, _ in cut), steps=tuple(steps for _, steps in cut),
        skip=experiment.schedule.skip,
    )  # fmt: skip
    watched = tune.metric not in ALWAYS
    return replace(
        experiment, name=f"{experiment.name[: LONGEST - len(ENDING)]}{ENDING}", schedule=schedule, seeds=tune.seeds,
        arms=arms, reference=False, tune=None, keep_checkpoints=(), probes={}, recorders=(),
        monitors=experiment.monitors if watched else (),
        evaluation=experiment.evaluation if watched else None,
    )  # fmt: skip


def _skipped(experiment: Experiment) -> list[tuple[int, int]]:
    """Task and env steps of the visits that the schedule leaves out at the beginning."""
    whole = replace(experiment, schedule=replace(experiment.schedule, skip=0, take=None))
    skip = experiment.schedule.skip
    return [(visit.task, visit.steps) for visit in source_of(whole).spec.visits[:skip]] if skip else []


def outline(experiment: Experiment) -> Experiment:
    """The run itself with the first point of each arm, for as long as the chosen ones are not known."""
    return tuned(experiment, {name: arm.points[0].values for name, arm in experiment.arms.items()})


def phases(experiment: Experiment, run: Path) -> list[Phase]:
    """The runs that the experiment consists of, in order; the points of the last one may not be known yet."""
    if not is_due(experiment):
        return [Phase(experiment, run)]
    return [Phase(first_phase(experiment), run / TUNING, tuning=True), Phase(outline(experiment), run)]


def places(run: Path) -> list[Path]:
    """The folders of the run's phases that were started, or else that of the run."""
    started = [place for place in (run / TUNING, run) if (place / PLAN).exists()]
    return started or [run]


def describe(experiment: Experiment) -> str:
    """One line about the tuning runs."""
    tune, (steps, life) = _tune(experiment), part(experiment)
    seeds = f"{len(tune.seeds)} seeds from {min(tune.seeds):,}"
    return (
        f"tuning: the first {steps:,} of {life:,} env steps, {seeds}, {tune.best} {tune.metric}; "
        "then the run itself with the best point of each arm"
    )


# ------------------------------------------------------------------------------------------------------- the phases


def select_first(
    experiment: Experiment,
    run: Path,
    go: Callable[[Experiment, Path], None],
    *,
    shard: str | None,
    resume: bool,
    force: bool,
    progress: Progress,
) -> Experiment | None:
    """Run what is left of the tuning runs, and return the experiment with each arm's best point.

    ``go`` runs an experiment in a folder. None if some of the tuning runs are left to other processes, or if this one
    had to run a ``shard`` of them.
    """
    sharded.check_force(shard, force)
    if force or not (resume or shard):
        folder.check(run, experiment.resolve(), resume=resume, force=force)
    chosen = None if force else known(experiment, run)
    if chosen is None:
        first, place = first_phase(experiment), run / TUNING
        if force or not folder.has_started(place):
            check(experiment, first)
        if force:
            _remove(run)
        progress.say(describe(experiment))
        if shard is None or not sharded.is_finished(place):
            go(first, place)
            if shard is not None or not sharded.is_finished(place):
                progress.say(f"{place}: when all its shards are finished, the same command starts the run itself")
                return None
        chosen = select(experiment, first, place, progress.say)
    return tuned(experiment, chosen)


def due(experiment: Experiment, run: Path, say: Callable[[str], None], *, write: bool = True) -> Phase:
    """The run that comes next, for a launcher. ``write``: save the selection, if it is made now."""
    if not is_due(experiment):
        return Phase(experiment, run)
    chosen = known(experiment, run)
    if chosen is None:
        first, place = first_phase(experiment), run / TUNING
        if not folder.has_started(place):
            check(experiment, first)
        if not sharded.is_finished(place):
            return Phase(first, place, tuning=True)
        chosen = select(experiment, first, place, say, write=write)
    return Phase(tuned(experiment, chosen), run)


def known(experiment: Experiment, run: Path) -> Chosen | None:
    """The points with which the run itself has started; None if it has not.

    If the folder holds another run, these are any points: that run is refused when it is compared with this one.
    """
    try:
        found = read_file(run / EXPERIMENT)
    except UserError:  # there is none, or it is damaged
        return None
    tune = found.get("tune") if isinstance(found, Mapping) else None
    chosen = tune.get("chosen") if isinstance(tune, Mapping) else None
    if not isinstance(chosen, Mapping) or not all(
        isinstance(chosen.get(name), Mapping) and index_of(arm, chosen[name]) is not None
        for name, arm in experiment.arms.items()
    ):
        return {name: arm.points[0].values for name, arm in experiment.arms.items()}
    return {name: dict(chosen[name]) for name in experiment.arms}


def _remove(run: Path) -> None:
    """Remove the run with its tuning runs. ``InUseError`` if a process is at work on a part of it."""
    if not run.exists():
        return
    with contextlib.ExitStack() as stack:
        for place in (run, run / TUNING):
            if place.exists():
                stack.enter_context(held(place))
                sharded.check_free(place)
        folder.remove(run)


def check(experiment: Experiment, first: Experiment) -> None:
    """``UserError`` if one of the two phases cannot run here; before either of them starts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each phase warns when it is planned
        whole = plan(outline(experiment))
        check_memory(whole)
        trackers.check(experiment.recorders)
        trackers.check_lanes(experiment.recorders, whole.jobs)
        try:
            jobs_of(first)
        except UserError as error:
            steps, life = part(experiment)
            raise UserError(f"tune.first: {steps:,} of {life:,} env steps do not fit: {error}") from None
        metric = _tune(experiment).metric
        if metric not in ALWAYS and not (metric.startswith("evaluation_") and first.evaluation):
            _check_metric(first, metric)


def _check_metric(first: Experiment, metric: str) -> None:
    planned = plan(first)
    for job, names in zip(planned.jobs, planned.names, strict=True):
        if metric not in names:
            known_names = sorted({PERFORMANCE, *names})
            raise UserError(f"tune.metric: arm {job.arm}: {unknown(f'metric `{metric}`', metric, known_names)}")


# ------------------------------------------------------------------------------------------------------- the selection


def select(
    experiment: Experiment, first: Experiment, place: Path, say: Callable[[str], None], *, write: bool = True
) -> Chosen:
    """The best point of each arm by the finished tuning runs; ``write``: with the scores of all, in ``SELECTION``.

    Raises:
      UserError: the runs are those of another config, or damaged; no lane of an arm is complete at any point.
    """
    folder.check(place, first.resolve(), resume=True, force=False, current=current)
    tune, means = _tune(experiment), lane_means(place, _tune(experiment).metric)
    seeds = len(first.seeds)
    chosen: dict[str, Mapping[str, Any]] = {}
    found: dict[str, Any] = {}
    for name, arm in experiment.arms.items():
        points = [dict(point.values) for point in arm.points]
        groups: list[list[Any]] = [[] for _ in points]
        for each in means.get(name, ()):
            groups[each.lane // seeds].append(each)
        scores = [score(group) for group in groups]
        best = best_of(scores, tune.best) if len(points) > 1 else 0
        if best is None:
            raise UserError(
                f"arm {name}: at every point, every lane diverged or has no {tune.metric} in the tuning runs; "
                "none can be selected\nchange the sweep or tune.first"
            )
        chosen[name] = points[best]
        edge = at_edge(points, points[best])
        if len(points) > 1:
            say(_told(name, points[best], scores[best], len(points), edge, tune))
            rows = [_row(*each) for each in zip(points, scores, groups, strict=True)]
            found[name] = {"chosen": points[best], "at_edge": edge, "points": rows}
    if write:
        facts = {**tune.rule, **part(experiment)._asdict(), "seeds": list(first.seeds), "arms": found}
        write_text(place / SELECTION, to_json(facts))
    return chosen


def _row(values: Mapping[str, Any], each: Score, lanes: list[Any]) -> dict[str, Any]:
    of_seeds = {str(lane.seed): _finite(lane.value) for lane in lanes}
    return {"values": values, **each._asdict(), "mean": _finite(each.mean), "of_seeds": of_seeds}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _told(name: str, point: Mapping[str, Any], best: Score, points: int, edge: list[str], tune: Tuning) -> str:
    values = ", ".join(f"{path}={shown(value)}" for path, value in point.items())
    lost = f", {best.incomplete} of {best.lanes} lanes incomplete" if best.incomplete else ""
    ends = f"; at the end of the range of {', '.join(edge)}" if edge else ""
    return f"{name}: {values} ({tune.metric} {best.mean:.4g}, the best of {points} points{lost}){ends}"
