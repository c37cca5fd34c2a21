"""From a config to a finished run."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity.config import experiments
from plasticity.config.experiments import Experiment, read_experiment
from plasticity.config.renamed import Renamer
from plasticity.core.errors import UserError, why
from plasticity.core.types import StreamSpec
from plasticity.runs import checkpoint, compilation, folder, trackers, verify
from plasticity.runs.devices import devices
from plasticity.runs.lock import held
from plasticity.runs.members import BUILT_IN, broken_plugins, registry
from plasticity.runs.planning import Plan, check_memory, plan, source_of
from plasticity.runs.session import Job, NoProgress, Progress, run_job, stop_on_signals

__all__ = [
    "BUILT_IN", "Plan", "broken_plugins", "check_memory", "devices", "experiment_of", "load_config", "obstacles",
    "plan", "registry", "run", "source_of",
]  # fmt: skip


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read the experiment in a YAML file, with ``key.sub=value`` overrides; ``UserError`` names problem and place."""
    return experiments.load_config(path, overrides, registry=registry())


def experiment_of(given: Experiment | str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Experiment:
    """The experiment from a YAML file or from a mapping with its keys; an ``Experiment`` is returned unchanged."""
    if not isinstance(given, Experiment):
        if isinstance(given, Mapping):
            return experiments.read_experiment(given, registry(), overrides)
        return load_config(given, overrides)
    if overrides:
        raise UserError("overrides change a config before it is read; give them to load_config, or give run its path")
    return given


def obstacles(planned: Plan, out: str | Path | None = None) -> list[str]:
    """One line for each obstacle to the run on this machine; empty if it can start."""
    experiment = planned.experiment
    place = _place_of(experiment, out)
    checks = [
        ("It does not fit this machine", lambda: check_memory(planned)),
        ("It cannot run here", lambda: trackers.check_installed(experiment.recorders)),
        ("It cannot run", lambda: trackers.check_lanes(experiment.recorders, planned.jobs)),
        ("It cannot start", lambda: folder.check(place, experiment.resolve(), resume=False, force=False)),
        ("It cannot start", lambda: folder.check_writable(place)),
        ("The disk may become full", lambda: folder.check_space(place, checkpoint_bytes(planned))),
    ]
    return list(dict.fromkeys(f"{what}: {reason}" for what, check in checks for reason in _refusal(check)))


def _refusal(check: Callable[[], Any]) -> list[str]:
    try:
        check()
    except UserError as error:
        return [str(error)]
    except OSError as error:  # a name that is too long
        return [why(error)]
    return []


def checkpoint_bytes(planned: Plan) -> int:
    """Disk space of a run's checkpoints at its end, plus one more of the largest while it is written."""
    sizes = [need.state * job.placement.devices for job, need in zip(planned.jobs, planned.memory, strict=True)]
    return checkpoint.KEEP * sum(sizes) + max(sizes)


def _place_of(experiment: Experiment, out: str | Path | None) -> Path:
    return Path(out) if out is not None else Path("runs") / experiment.name


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


def _current(config: Mapping[str, Any]) -> dict[str, Any]:
    return completed(config) or Renamer(registry()).document(config)


def run(
    experiment: Experiment,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Run every arm of the experiment and return the run's folder (default ``runs/NAME``).

    The folder's lock is held during the run.

    Args:
      experiment: the experiment to run.
      out: the run's folder.
      resume: continue the run in the folder from its last checkpoints; start it if there is none, and do nothing if
        it is finished.
      force: replace an earlier run.
      progress: progress display.

    Raises:
      UserError: an error the user can fix, raised before anything is written.
      StorageError: a file cannot be written later; the run is saved.
      Interrupted: the process received a signal; the run is saved.
    """
    place = _place_of(experiment, out)
    resolved = experiment.resolve()
    progress = progress or NoProgress()
    with contextlib.ExitStack() as stack:
        stack.enter_context(compilation.kept(experiment.compilation_cache))
        started = folder.has_started(place)
        if started:
            stack.enter_context(held(place))
        resumes = folder.check(place, resolved, resume=resume, force=force, current=_current)
        finished = resumes and folder.is_finished(place)
        planned = _planned(experiment, finished)
        if not started:  # nothing is written yet; another process may have started a run in the meantime
            stack.enter_context(held(place))
            resumes = folder.check(place, resolved, resume=resume, force=force, current=_current)
        located = _located(resolved, planned.spec)
        for line in folder.open_folder(place, located, planned.describe(), resume=resumes):
            progress.say(line)
        if resumes:
            _repair_lanes(place, planned.jobs, progress.say)
        others = functools.partial(trackers.make, experiment.recorders, place, resolved)
        with stop_on_signals() as stop:
            ran = [
                run_job(job, place / job.arm, list(devices()), progress, stop, resumes, others) for job in planned.jobs
            ]
        if not any(ran):
            progress.say(f"{place}: already finished")
    return place


def _planned(experiment: Experiment, finished: bool) -> Plan:
    """The plan, checked against this machine's resources unless the run is finished."""
    if finished:
        return plan(experiment)
    trackers.check(experiment.recorders)
    planned = plan(experiment)
    check_memory(planned)
    trackers.check_lanes(experiment.recorders, planned.jobs)
    return planned


def _located(resolved: Mapping[str, Any], spec: StreamSpec) -> dict[str, Any]:
    """The config with the path of the stream's data made absolute, so that it is valid in any working directory."""
    stream = resolved["stream"]
    if not spec.data or not isinstance(stream.get("path"), str):
        return dict(resolved)
    return {**resolved, "stream": {**stream, "path": str(Path(stream["path"]).expanduser().absolute())}}


def _repair_lanes(run: Path, jobs: Sequence[Job], say: Callable[[str], None]) -> None:
    """Repair the tables of lanes before they are used."""
    for arm in dict.fromkeys(job.arm for job in jobs):
        line = verify.repair_lanes(run / arm, {job.number: job.lanes for job in jobs if job.arm == arm})
        if line:
            say(line)
