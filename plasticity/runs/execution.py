"""Run all programs of a plan inside one folder, which is locked meanwhile."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plasticity.config.experiments import Experiment, read_experiment
from plasticity.config.renamed import Renamer
from plasticity.config.settings import plain
from plasticity.config.starts import Start
from plasticity.core.errors import UserError
from plasticity.core.types import StreamSpec
from plasticity.engine.runner import Run
from plasticity.runs import folder, starting, trackers, verify
from plasticity.runs.accounts import PROBES, probe_folders, read_status
from plasticity.runs.devices import devices
from plasticity.runs.lock import held
from plasticity.runs.members import registry
from plasticity.runs.planning import Plan, check_memory
from plasticity.runs.preparation import Preparation
from plasticity.runs.session import Job, Progress, run_job, stop_on_signals


def completed(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of a run of an older version, with this version's names and with the settings added since.

    Args:
      config: as the run's folder has it.

    Returns:
      The whole config; None if this version cannot read it, for example because a plug-in is missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read_experiment(config, registry()).resolve()
        except UserError:
            return None


def current(config: Mapping[str, Any]) -> dict[str, Any]:
    return completed(config) or Renamer(registry()).document(config)


def execute(
    experiment: Experiment,
    place: Path,
    make_plan: Callable[[], Plan],
    *,
    resume: bool,
    force: bool,
    progress: Progress,
) -> None:
    """Run the jobs of a plan in the folder ``place``; see :func:`plasticity.runs.launch.run`."""
    resolved = experiment.resolve()
    _check_apart(experiment, place)
    with contextlib.ExitStack() as stack:
        started = folder.has_started(place)
        if started:
            stack.enter_context(held(place))
        resumes = folder.check(place, resolved, resume=resume, force=force, current=current)
        finished = resumes and folder.is_finished(place)
        planned = _checked(make_plan, experiment, finished).counted()
        if not resumes:
            check_learners(planned.jobs)
            for probe in probe_folders(place):
                stack.enter_context(held(probe))  # a process may be at work there
        if not started:  # nothing is written yet; another process may have started a run in the meantime
            stack.enter_context(held(place))
            resumes = folder.check(place, resolved, resume=resume, force=force, current=current)
        for line in folder.open_folder(place, located(resolved, planned.spec), planned.describe(), resume=resumes):
            progress.say(line)
        if resumes:
            _repair_lanes(place, planned.jobs, progress.say)
        others = functools.partial(trackers.make, experiment.recorders, place, resolved)
        left = functools.partial(_is_left, place)
        with stop_on_signals() as stop, Preparation(planned.jobs, planned.memory, devices(), left) as runs:
            ran = [run_job(job, place / job.arm, runs, progress, stop, resumes, others) for job in planned.jobs]
        if not any(ran):
            progress.say(f"{place}: already finished")


def _check_apart(experiment: Experiment, place: Path) -> None:
    """``UserError`` if the run would replace the one that its learners come from, or lie in its folder."""
    here = place.expanduser().resolve()
    for name, arm in experiment.arms.items():
        if arm.start is None:
            continue
        there = Path(arm.start.run).expanduser().resolve()
        if there.is_relative_to(here) or (here.is_relative_to(there) and here.parent != there / PROBES):
            raise UserError(f"{place}: is, holds or lies in the run of arms.{name}.start; choose another --out")


def check_learners(jobs: Sequence[Job]) -> None:
    """``UserError`` if the learners that go on from other runs are not there."""
    for job in jobs:
        if job.learners is not None:
            run = Run(job.program, job.placement, devices())
            try:
                job.learners.check(run)
            finally:
                run.close()


def _is_left(run: Path, job: Job) -> bool:
    """Whether the job's arm does not say that it is finished."""
    return job.number not in read_status(run / job.arm).get("finished", ())


def _checked(make_plan: Callable[[], Plan], experiment: Experiment, finished: bool) -> Plan:
    """The plan, checked against this machine's resources unless the run is finished."""
    if finished:
        return make_plan()
    trackers.check(experiment.recorders)
    planned = make_plan()
    check_memory(planned)
    trackers.check_lanes(experiment.recorders, planned.jobs)
    return planned


def located(resolved: Mapping[str, Any], spec: StreamSpec) -> dict[str, Any]:
    """The config with all paths made absolute, so that it is valid in any working directory.

    These are the path of the stream's data and those of the runs whose learners go on.
    """
    stream = resolved["stream"]
    if spec.data and isinstance(stream.get("path"), str):
        stream = {**stream, "path": _absolute(stream["path"])}
    return {**resolved, "stream": stream, "arms": {name: _located(name, arm) for name, arm in resolved["arms"].items()}}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _located(name: str, arm: Mapping[str, Any]) -> Mapping[str, Any]:
    if not arm.get("start"):
        return arm
    start = starting.complete(Start(**arm["start"]), f"arms.{name}.start")
    return {**arm, "start": {**plain(asdict(start)), "run": _absolute(start.run)}}


def _repair_lanes(run: Path, jobs: Sequence[Job], say: Callable[[str], None]) -> None:
    """Repair the tables of lanes before they are used."""
    for arm in dict.fromkeys(job.arm for job in jobs):
        line = verify.repair_lanes(run / arm, {job.number: job.lanes for job in jobs if job.arm == arm})
        if line:
            say(line)
