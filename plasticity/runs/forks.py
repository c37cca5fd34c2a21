"""Forks of a run: its learners, and new ones beside them, on one common stream; and the probes of a config."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from plasticity.config.experiments import Experiment, load_config, read_experiment
from plasticity.config.forks import fork_config
from plasticity.core.errors import UserError, placed
from plasticity.engine.runner import Run
from plasticity.runs import folder
from plasticity.runs.accounts import PROBES
from plasticity.runs.devices import devices
from plasticity.runs.members import registry
from plasticity.runs.planning import plan
from plasticity.runs.session import Job
from plasticity.runs.sources import source_of


def fork_of(
    run: str | Path,
    at: Sequence[int],
    *,
    stream: str | Path | None = None,
    arms: Sequence[str] | None = None,
    fresh: bool = True,
    overrides: Sequence[str] = (),
) -> Experiment:
    """The experiment in which the learners of a run go on.

    Args:
      run: the folder of a run that kept its checkpoints after these visits (``keep_checkpoints``).
      at: after how many visits its learners go on; one arm for each.
      stream: a config (a file or the name of a shipped one) whose stream, transforms, schedule, monitors, evaluation
        and periods the fork has; None: those of the run.
      arms: of the run; None: all but the controls.
      fresh: add new learners for each arm, as its control.
      overrides: ``key.sub=value``, changes of the fork's config.

    Returns:
      The experiment; :func:`plasticity.run` runs it.

    Raises:
      UserError: the folder is not a run, or something does not fit.
    """
    place = Path(run)
    raw, planned = folder.read(place)
    visits = [visit["steps"] for visit in planned["stream"]["visits"]]
    for count in at:
        if not 1 <= count <= len(visits):
            raise UserError(f"--at: {count} is not allowed; {place} has {len(visits)} visits")
    own = read_experiment(raw, registry(), source=str(place)).resolve()
    other = None if stream is None else load_config(stream, registry=registry()).resolve()
    made = fork_config(
        own, str(place.expanduser().absolute()), {count: sum(visits[:count]) for count in sorted(set(at))},
        name=f"{own['name']}-fork", stream=other, arms=arms, fresh=fresh,
    )  # fmt: skip
    return read_experiment(made, registry(), overrides)


def probes_of(experiment: Experiment, run: Path) -> Iterator[tuple[Path, Experiment]]:
    """The probes of a config, each with its folder. ``UserError`` if one does not fit."""
    if not experiment.probes:
        return
    visits = [visit.steps for visit in source_of(experiment).spec.visits]
    own = experiment.resolve()
    for name, probe in experiment.probes.items():
        where = f"probes.{name}"
        counts = range(1, len(visits) + 1) if probe.at == "all" else probe.at
        beyond = [count for count in counts if count > len(visits)]
        if beyond:
            raise UserError(f"{where}.at: {beyond[0]} is not allowed; the stream has {len(visits)} visits")
        place = run / PROBES / name
        at = {count: sum(visits[:count]) for count in counts}
        try:
            made = fork_config(
                own, str(run.expanduser().absolute()), at, name=name, stream=probe.config(own),
                arms=probe.arms, fresh=probe.fresh,
            )  # fmt: skip
            yield place, read_experiment(made, registry())
        except UserError as error:
            raise UserError(placed(where, str(error))) from None


def check_probes(experiment: Experiment, run: Path) -> None:
    """``UserError`` if a probe cannot take the learners of the run, before the run starts."""
    if not experiment.probes:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each warns when it starts
        whole = {(job.arm, job.number): job for job in plan(experiment).jobs}
        for where, probe in probes_of(experiment, run):
            try:
                for job in plan(probe).jobs:
                    if job.learners is not None:
                        with _running(job) as here, _running(whole[job.learners.start.arm, job.number]) as there:
                            job.learners.check_alike(here, there)
            except UserError as error:
                raise UserError(f"probes.{where.name}: {error}") from None


@contextlib.contextmanager
def _running(job: Job) -> Iterator[Run]:
    run = Run(job.program, job.placement, devices())
    try:
        yield run
    finally:
        run.close()
