"""From a config to a finished run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity.config import experiments
from plasticity.config.experiments import Experiment
from plasticity.core.errors import UserError, why
from plasticity.runs import compilation, estimates, folder, forks, sharded, trackers, tuning
from plasticity.runs.accounts import PROBES
from plasticity.runs.calibration import calibrate
from plasticity.runs.devices import devices
from plasticity.runs.execution import check_learners, completed
from plasticity.runs.members import BUILT_IN, broken_plugins, registry
from plasticity.runs.planning import Plan, check_memory, plan
from plasticity.runs.session import NoProgress, Progress
from plasticity.runs.sources import source_of
from plasticity.runs.tuning import Phase
from plasticity.runs.tuning import describe as describe_tuning

__all__ = [
    "BUILT_IN", "Plan", "broken_plugins", "calibrate", "check_memory", "completed", "describe_tuning", "devices",
    "experiment_of", "load_config", "obstacles", "phases", "plan", "registry", "run", "source_of",
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


def phases(experiment: Experiment, out: str | Path | None = None) -> list[Phase]:
    """The runs that the experiment consists of: itself, after its tuning runs if it has any."""
    place = _place_of(experiment, out)
    found = tuning.phases(experiment, place)
    probes = forks.probes_of(found[-1].experiment, place)
    return [*found, *(Phase(probe, folder_of_probe) for folder_of_probe, probe in probes)]


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
        ("It cannot start", lambda: _check_starts(planned, place)),
        ("The disk may become full", lambda: folder.check_space(place, estimates.space(planned))),
    ]
    return list(dict.fromkeys(f"{what}: {reason}" for what, check in checks for reason in _refusal(check)))


def _check_starts(planned: Plan, place: Path) -> None:
    """``UserError`` if learners that go on are not there; those of probes are made by the run itself."""
    if place.parent.name != PROBES:
        check_learners(planned.jobs)


def _refusal(check: Callable[[], Any]) -> list[str]:
    try:
        check()
    except UserError as error:
        return [str(error)]
    except OSError as error:  # a name that is too long
        return [why(error)]
    return []


def _place_of(experiment: Experiment, out: str | Path | None) -> Path:
    return Path(out) if out is not None else Path("runs") / experiment.name


def run(
    experiment: Experiment,
    out: str | Path | None = None,
    *,
    split: str | None = None,
    shard: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Run every arm of the experiment and return the run's folder (default ``runs/NAME``).

    The folder's lock is held during the run.

    Args:
      experiment: the experiment to run.
      out: the run's folder.
      split: how to cut the run into shards (:func:`plasticity.runs.shards.parse`); None: not, or as it was cut before.
      shard: ``3/8``: run only the third of eight shards, or what is left of it. Other processes, also on other machines
        that share the folder, may run the others at the same time. None: all shards that no other process runs.
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
    options: Any = {"resume": resume, "force": force, "progress": progress or NoProgress()}
    with compilation.kept(experiment.compilation_cache):
        chosen: Experiment | None = experiment
        if force or not sharded.is_finished(place):
            forks.check_probes(tuning.outline(experiment) if tuning.is_due(experiment) else experiment, place)
        if tuning.is_due(experiment):

            def go(first: Experiment, folder: Path) -> None:
                _run(first, folder, split, shard, **options | {"force": False})

            chosen = tuning.select_first(experiment, place, go, shard=shard, **options)
            options["force"] = False  # both phases are replaced at once
        if chosen is not None:
            _run(chosen, place, split, shard, **options)
            _run_probes(chosen, place, progress or NoProgress())
    return place


def _run_probes(experiment: Experiment, place: Path, progress: Progress) -> None:
    """Run what is left of the probes, once the run itself is finished; one that fails does not stop the others."""
    if not experiment.probes:
        return
    if not sharded.is_finished(place):
        progress.say(f"{place}: the probes are left; once all shards are finished, `run ... --resume` makes them")
        return
    failed: list[str] = []
    for where, probe in list(forks.probes_of(experiment, place)):
        progress.say(f"probe {probe.name}: {where}")
        try:
            _run(probe, where, None, None, resume=True, force=False, progress=progress)
        except UserError as error:
            failed.append(f"probes.{probe.name}: {error}")
    if failed:
        raise UserError("\n".join(failed[:1]))


def _run(experiment: Experiment, place: Path, split: str | None, shard: str | None, **options: Any) -> None:
    """Run an experiment, or a part of it, in a folder."""
    if split or shard or (options["resume"] and sharded.is_cut(place)):
        sharded.run(experiment, place, split, shard, **options)
    else:
        sharded.run_here(experiment, place, **options)
