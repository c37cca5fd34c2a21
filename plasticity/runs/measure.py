"""Apply monitors to the checkpoints of a run, after the run.

A checkpoint holds every lane's learner and its ring of recent transitions, which is all that a monitor sees. At a step
at which the run recorded a monitor, measuring afterwards gives the same number (for a monitor that draws random
numbers, only if it has the same position in the list).

A monitor's state is not read from the checkpoint but rebuilt: first from the run's initial parameters (reproduced from
the same seeds), then from one checkpoint to the next. A distance from initialisation is therefore unchanged. A monitor
of change since the last measurement (churn) starts at the oldest checkpoint and then gives the change between
checkpoints, not over the run's own period.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity.config import experiments
from plasticity.config.experiments import Experiment
from plasticity.config.programs import programs
from plasticity.config.settings import MemberConfig
from plasticity.core.errors import UserError
from plasticity.engine.lanes import Placement, join
from plasticity.engine.packing import unpack
from plasticity.engine.program import Carry, Monitoring
from plasticity.engine.runner import Chunk, Position, Run
from plasticity.monitors.base import Monitor, checked_monitor
from plasticity.runs import checkpoint, folder, launch, sharded, verify
from plasticity.runs.accounts import read_status, shard_folders
from plasticity.runs.building import monitor_of
from plasticity.runs.checkpoint import DamagedError, WrongCheckpointError
from plasticity.runs.parquet import Lanes, rows
from plasticity.runs.session import Job
from plasticity.runs.shards import Shard


class Measured(NamedTuple):
    """Measurements on one checkpoint of one program."""

    arm: str
    position: Position
    metrics: Mapping[str, np.ndarray]  # float32[lanes]
    table: Any  # pyarrow.Table, one row per lane, with the columns of a run's metrics


def measure(
    run_folder: str | Path, monitors: Sequence[str], settings: Sequence[str] = (), *, say: Callable[[str], None] = print
) -> Iterator[Measured]:
    """Measure every checkpoint of every program, oldest first.

    The lanes are vectorised as in the run, on the same number of devices if available, else on one.

    Args:
        run_folder: folder of a run, finished or not.
        monitors: names. A monitor in the run's config keeps its settings; any other uses its defaults.
        settings: ``monitors.NAME.KEY=VALUE``, which take precedence over both.
        say: receives a line for each checkpoint that is damaged or missing.

    Raises:
        UserError: the folder is not a run, a monitor is unknown, a setting is not allowed, the run has no checkpoints,
            or a monitor does not fit a program's network.
    """
    place = Path(run_folder)
    if sharded.is_cut(place):
        for path in shard_folders(place).values():
            yield from measure(path, monitors, settings, say=say)
        return
    jobs = _jobs(place, monitors, settings)
    paths = [checkpoint.every(place / job.arm / "checkpoints" / f"{job.number:03d}") for job, _ in jobs]
    if not any(paths):
        raise UserError(f"{place}: there is no checkpoint yet")
    sound = False
    for (job, chosen), files in zip(jobs, paths, strict=True):
        why = _lacking(place / job.arm, job)
        if why:
            say(f"{why}; skipped")
        for measured in _measure_job(job, chosen, files, say) if files else ():
            sound = True
            yield measured
    if not sound:
        raise UserError(f"{place}: every checkpoint is damaged")


def _lacking(arm: Path, job: Job) -> str | None:
    """A message on missing checkpoints of a program that has started, according to the others and the status."""
    place, status = arm / "checkpoints" / f"{job.number:03d}", read_status(arm)
    there = checkpoint.files(place)
    if not there:
        return f"{place}: there is no checkpoint" if verify.table_parts(arm, job.number) else None
    stopped = status.get("state") == "interrupted" and status.get("program") == job.number
    end = status.get("step", 0) if stopped else 0
    if job.number in status.get("finished", ()):
        end = sum(visit.steps for visit in job.program.spec.visits)
    newest = f"{end:012d}.npz"
    return f"{place / newest} is missing" if there[-1].name < newest else checkpoint.lacking(place)


def _jobs(place: Path, names: Sequence[str], settings: Sequence[str]) -> list[tuple[Job, tuple[Monitoring, ...]]]:
    """The run's jobs with their original placement, and the chosen monitors for each."""
    raw, plan = folder.read(place)
    raw = {**raw, "placement": {}}  # this key is about the machine of the run
    if not names:
        raise UserError(f"--monitors: name at least one; known: {', '.join(launch.registry().names('monitors'))}")
    for text in settings:
        if not text.startswith("monitors."):
            raise UserError(f"command line: {text}: only settings of monitors are allowed: monitors.NAME.KEY=VALUE")
    own = [each for each in raw.get("monitors") or [] if isinstance(each, Mapping)]
    chosen: list[Any] = []
    for name in names:
        chosen += [each for each in own if each.get("kind") == name] or [name]
    wanted = experiments.read_experiment({**raw, "monitors": chosen}, launch.registry(), settings)
    experiment = experiments.read_experiment(raw, launch.registry(), source=str(place))
    shard, jobs = jobs_in(place, experiment, plan)
    asked = programs(wanted)
    built = [each.build({}).monitors for each in (shard.of(asked) if shard else asked)]
    try:
        made = [tuple(map(_monitoring, each, wanted.monitors)) for each in built]
    except ValueError as error:
        raise UserError(f"monitors: {error}") from None
    return list(zip(jobs, made, strict=True))


def jobs_in(place: Path, experiment: Experiment, plan: Mapping[str, Any]) -> tuple[Shard | None, list[Job]]:
    """The shard that the folder holds, if it does, and the run's jobs with their original placement.

    ``UserError`` if the plan is not that of the config.
    """
    shard, widths = sharded.shard_in(place, experiment)
    planned = launch.plan(experiment, shard, widths).jobs
    try:
        placements = [_placement(each["placement"]) for each in plan["programs"]]
        return shard, [job._replace(placement=each) for job, each in zip(planned, placements, strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{place}: its plan.json does not fit its config ({error})") from None


def _monitoring(make: Callable[[], Monitor], chosen: MemberConfig) -> Monitoring:
    path = f"monitors.{chosen.kind}"
    return Monitoring(checked_monitor(path, chosen.kind, monitor_of(chosen, make)), 1, path)


def _placement(was: Mapping[str, int]) -> Placement:
    """The run's placement; if this machine has too few devices, the same lanes in one vmap on one device."""
    placement = Placement(int(was["devices"]), int(was["groups"]), int(was["width"]))
    if placement.devices <= len(launch.devices()):
        return placement
    return Placement(1, placement.groups, placement.block)


def _measure_job(
    job: Job, chosen: tuple[Monitoring, ...], files: Sequence[Path], say: Callable[[str], None]
) -> Iterator[Measured]:
    devices = launch.devices()
    like = [Run(job.program, job.placement, devices).carry_shape()] * job.placement.groups
    run = Run(job.program._replace(monitors=chosen), job.placement, devices)
    try:
        states = _first_states(run)
        todo = list(files)
        while todo:
            path = todo.pop(0)
            try:
                found = checkpoint.read(path, like, None)
            except DamagedError as error:
                newer = checkpoint.successors(path)  # the run may be in progress
                if newer is None:
                    say(f"{path} is damaged ({error}); skipped")
                else:
                    todo += [each for each in newer if each not in todo]
                continue
            except WrongCheckpointError as error:
                made = folder.made_otherwise(checkpoint.run_of(path)).rstrip("; ")
                raise UserError("\n".join(filter(None, (str(error), made)))) from None
            run.position = Position(*found.meta["position"])
            run.carries = [_carry(run, *each) for each in zip(found.arrays, states, strict=True)]
            states, measured = _measure(job, run)
            yield measured
    finally:
        run.close()


def _first_states(run: Run) -> list[Any]:
    """The monitors' initial states, group by group. ``UserError`` if a monitor does not fit the network."""
    hyper, seeds, _ = run.inputs[0]
    shape, which = run.carry_shape(), tuple(range(len(run.program.monitors)))
    try:
        jax.eval_shape(lambda carry: run.compiled.measure(hyper, seeds, carry, run.clock(), which), shape)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not jax.tree.leaves(shape.monitors):
        return [shape.monitors] * len(run.inputs)
    begin = jax.jit(lambda *inputs: run.compiled.initial(*inputs).monitors)  # the rest of the carry is never made
    return [begin(*inputs) for inputs in run.inputs]


def _carry(run: Run, saved: Carry, states: Any) -> Carry:
    """A carry with the learners of the checkpoint and the given monitor states."""
    seen = saved._replace(stream=(), monitors=())
    carry: Carry = jax.device_put(seen, run.compiled.sharding)
    return carry._replace(monitors=states)


def _measure(job: Job, run: Run) -> tuple[list[Any], Measured]:
    """The monitor states after the measurement, and its results."""
    which = tuple(range(len(run.program.monitors)))
    made = [
        run.compiled.measure(hyper, seeds, carry, run.clock(), which)
        for (hyper, seeds, _), carry in zip(run.inputs, run.carries, strict=True)
    ]
    count, spec = len(run.program.seeds), run.program.spec
    records = jax.device_get([record for _, record in made])
    metrics = dict(unpack(replace(records[0], bits=join([record.bits for record in records], count))))
    diverged = join(jax.device_get([carry.diverged_at for carry in run.carries]), count)
    task = run.names(spec.visits[run.position.visit].task)
    who = Lanes(job.arm, np.asarray(job.lanes["lane"]), run.program.seeds, spec.frames_per_step * spec.envs)
    table = rows(Chunk(run.position, task, metrics, diverged), who)
    return [states for states, _ in made], Measured(job.arm, run.position, metrics, table)
