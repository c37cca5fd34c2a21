"""From a config to a plan: a stream, and programs of lanes as jobs. Computes shapes only."""

import contextlib
import functools
import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity.config import experiments
from plasticity.config.counters import check_stream
from plasticity.config.experiments import Experiment, ProgramSettings
from plasticity.config.fields import metadata_of
from plasticity.config.settings import MemberConfig, paths
from plasticity.core.cores import cores
from plasticity.core.errors import UserError, placed
from plasticity.core.trees import size
from plasticity.core.types import Agent, StreamSpec
from plasticity.engine import memory, precision
from plasticity.engine.evaluation import Evaluation
from plasticity.engine.lanes import Placement, place
from plasticity.engine.memory import Memory, readable
from plasticity.engine.program import Hyper, Monitoring, Program
from plasticity.engine.runner import Run, chunk_steps
from plasticity.engine.visits import scheduled
from plasticity.envs.base import StreamFactory
from plasticity.interventions import rehearsal
from plasticity.interventions.base import Intervention, clashes, compose, unchanged
from plasticity.monitors.base import checked_monitor, recording_writes
from plasticity.runs.parquet import IDENTITY
from plasticity.runs.session import Job


@functools.cache
def devices() -> tuple[jax.Device, ...]:
    """The devices to run on. On a CPU, one XLA device per core: a speed-up by the number of cores.

    Must be called before anything else uses JAX's devices. Later calls use the existing devices and warn if there is
    one device for several cores.
    """
    count = cores()
    with contextlib.suppress(RuntimeError):  # the devices already exist
        jax.config.update("jax_num_cpu_devices", count)
    found = tuple(jax.devices())
    if found[0].platform == "cpu" and len(found) == 1 < count:
        slower = f"JAX is already initialised: runs have one device for {count} cores and are slower"
        warnings.warn(f"{slower}; call plasticity.runs.launch.devices() first", stacklevel=2)
    return found


class Plan(NamedTuple):
    """Plan of a run: its jobs, and the memory each needs on each of its devices."""

    experiment: Experiment
    spec: StreamSpec
    jobs: tuple[Job, ...]
    memory: tuple[Memory, ...]

    def describe(self) -> dict[str, Any]:
        """The plan as plain data, ``plan.json``."""
        visits = [{"task": visit.task, "steps": visit.steps} for visit in self.spec.visits]
        controls = experiments.controls(self.experiment.arms)
        return {
            "name": self.experiment.name,
            "arms": [
                {
                    "name": name,
                    "lanes": sum(len(job.program.seeds) for job in self.jobs if job.arm == name),
                    "task_aware": arm.task_aware,
                    "control": controls[name],
                }
                for name, arm in self.experiment.arms.items()
            ],
            "stream": {
                "reward_name": self.spec.reward_name,
                "episodic": self.spec.episodic,
                "frames_per_step": self.spec.frames_per_step,
                "envs": self.spec.envs,
                "tasks": list(self.spec.tasks),
                "shuffled": self.spec.shuffled,
                "alike": self.spec.alike,
                "reward_range": _written(self.spec.score_range or self.spec.reward_range),
                "visits": visits,
            },
            "ranges": {
                name: _written(limits)
                for job in self.jobs
                for monitoring in job.program.monitors
                for name, limits in monitoring.monitor.ranges.items()
            },
            **({"data": [{"path": path, "sha256": sha} for path, sha in self.spec.data]} if self.spec.data else {}),
            "programs": [
                {
                    "arm": job.arm,
                    "lanes": len(job.program.seeds),
                    "placement": job.placement._asdict(),
                    "steps_per_chunk": job.program.chunk,
                    "bytes_per_device": each._asdict(),
                }
                for job, each in zip(self.jobs, self.memory, strict=True)
            ],
        }


def _written(limits: tuple[float, float]) -> list[float | None]:
    """Limits in JSON form: null for an infinite one."""
    return [float(limit) if math.isfinite(limit) else None for limit in limits]


def plan(experiment: Experiment) -> Plan:
    """Lay the experiment out as jobs; computes shapes only. ``UserError`` if its parts do not fit together."""
    devices()  # before a stream makes its first array
    precision.restore()
    source = source_of(experiment)
    asked = experiments.programs(experiment)
    settled = [_job(experiment, source, each) for each in asked]
    rehearsed = _rehearsed(settled, asked)
    precision.check_unchanged()
    _check_silent(rehearsed, settled)
    jobs = tuple(job._replace(measured=each.measured) for job, each in zip(settled, rehearsed, strict=True))
    return Plan(experiment, source.spec, jobs, tuple(each.memory for each in rehearsed))


def _rehearsed(jobs: Sequence[Job], asked: Sequence[ProgramSettings]) -> list["Rehearsed"]:
    """Each job's rehearsal; jobs with identical computations share one."""
    found: dict[tuple[str, bool], Rehearsed] = {}
    for job, each in zip(jobs, asked, strict=True):
        if (job.fingerprint, each.task_aware) not in found:
            found[job.fingerprint, each.task_aware] = _checked(f"arms.{job.arm}", _rehearse, job, each)
    return [found[job.fingerprint, each.task_aware] for job, each in zip(jobs, asked, strict=True)]


def source_of(experiment: Experiment) -> StreamFactory:
    """The stream with its transforms and its schedule. ``UserError`` if they do not fit."""
    source: StreamFactory = _checked("stream", experiment.stream.build())
    _checked("stream", check_stream, source.spec)
    for path, each in zip(paths("transforms", experiment.transforms), experiment.transforms, strict=True):
        source = _checked(path, _checked(path, each.build()), source)
    spec = _checked("schedule", functools.partial(scheduled, source.spec, **vars(experiment.schedule)))
    _checked("schedule", check_stream, spec)
    make = source.make
    return StreamFactory(spec, lambda lanes: make(lanes)._replace(spec=spec))


def _check_task_aware(each: ProgramSettings, spec: StreamSpec) -> None:
    """``UserError`` if the arm acts at task switches but is not task-aware."""
    if each.task_aware or len(spec.visits) == 1:
        return
    built = each.build({})
    labels = paths("interventions", each.interventions)
    needing = [label for label, made in zip(labels, built.interventions, strict=True) if made().switch is not unchanged]
    own = built.agent(spec, Intervention()).switch_setting
    needing += [f"agent.{own}"] if own else []
    if needing:
        raise UserError(f"arms.{each.arm}: {' and '.join(needing)} must know of task switches; set `task_aware: true`")


class Rehearsed(NamedTuple):
    """Results of tracing a program."""

    memory: Memory
    measured: frozenset[str]  # the metrics of its monitors
    wrote: frozenset[str]  # the paths of those that write any


def _rehearse(job: Job, settings: ProgramSettings) -> Rehearsed:
    """Trace every function of a program, so that an unsuitable setting is found now and not at a switch.

    ``ValueError`` if an intervention cannot take effect, or two numbers would be written to one column.
    """
    seen: rehearsal.Seen = set()
    wrote: set[str] = set()
    noted = tuple(
        each._replace(monitor=recording_writes(each.path, each.monitor, wrote)) for each in job.program.monitors
    )
    build = functools.partial(_agent, settings, job.program.spec, seen=seen)
    watched = job.program._replace(build=build, monitors=noted)
    run = Run(watched, job.placement, devices())
    hyper, seeds, block = run.inputs[0]
    carry, clock, which = run.carry_shape(), run.clock(), tuple(range(len(job.program.monitors)))
    _check_filled(settings)
    _check_used(settings, seen, rehearsal.AT_BIRTH)
    _, made = jax.eval_shape(run.compiled.chunk, hyper, seeds, carry, clock)
    jax.eval_shape(run.compiled.switch, hyper, seeds, carry, clock, np.int32(0), block)
    if job.program.evaluation:
        jax.eval_shape(run.compiled.evaluate, hyper, seeds, carry, clock, np.int32(0), np.int32(0), block)
    _, record = jax.eval_shape(lambda carry: run.compiled.measure(hyper, seeds, carry, clock, which), carry)
    _check_used(settings, seen, rehearsal.ASKED)
    _check_columns(job, made.names, record.names)
    return Rehearsed(memory.estimate(run), frozenset(record.names), frozenset(wrote))


def _check_silent(rehearsed: Sequence[Rehearsed], jobs: Sequence[Job]) -> None:
    """``UserError`` if a monitor writes nothing in any arm; a monitor that writes nothing in some arms is allowed."""
    for each in jobs[0].program.monitors:
        if not any(each.path in one.wrote for one in rehearsed):
            raise UserError(
                f"{each.path} writes nothing for this network and agent: what it measures, such as hidden layers, "
                "does not exist; remove it"
            )


def _check_filled(settings: ProgramSettings) -> None:
    """``ValueError`` if an intervention fills no hook, unless its settings are the neutral ones."""
    made = _interventions(settings.build({}), settings)
    for (label, intervention), choice in zip(made.items(), settings.interventions, strict=True):
        neutral = metadata_of(choice.factory).neutral or {}
        asked = neutral and all(choice.values.get(key) == value for key, value in neutral.items())
        if not asked and not rehearsal.own_fields(intervention):
            raise ValueError(f"{label} changes nothing: it returns no function of its own")


def _check_used(settings: ProgramSettings, seen: rehearsal.Seen, fields: Sequence[str]) -> None:
    """``ValueError`` if the agent does not use one of these hooks of an intervention."""
    for label, why in rehearsal.unused(_interventions(settings.build({}), settings), seen, fields):
        raise ValueError(f"{label} is not allowed with agent `{settings.agent.kind}`: {why}")


def _check_columns(job: Job, made: Sequence[str], measured: Sequence[str]) -> None:
    """``ValueError`` if a metric has the name of another column of the tables."""
    taken = {*IDENTITY, *job.lanes}
    for whose, names, others in (("agent.kind", made, taken), ("monitors", measured, {*taken, *made})):
        doubled = [name for name in names if name in others or name.startswith("evaluation_")]
        if doubled:
            raise ValueError(f"{whose}: the metric `{doubled[0]}` has the name of another column; rename it")


def _checked(what: str, make: Any, *args: Any) -> Any:
    """Convert a member's ``ValueError`` (value out of range, missing file) to a ``UserError`` located at ``what``."""
    try:
        return make(*args)
    except ValueError as error:
        raise UserError(placed(what, str(error))) from error


def _agent(each: ProgramSettings, spec: StreamSpec, hyper: Hyper, seen: rehearsal.Seen | None = None) -> Agent:
    """Build the agent. ``seen`` records the hooks of each intervention that the agent calls."""
    built = each.build(hyper)
    agent: Agent = built.agent(spec, without_clashes(_interventions(built, each), seen))
    return agent


def _interventions(built: experiments.Built, each: ProgramSettings) -> dict[str, Intervention]:
    """The interventions by their paths."""
    labels = _labels("interventions", each.interventions)
    return {label: made() for label, made in zip(labels, built.interventions, strict=True)}


def _labels(family: str, members: Sequence[MemberConfig]) -> list[str]:
    """The members' paths, with the kind added to paths by index."""
    named = zip(paths(family, members), members, strict=True)
    return [path if path.endswith(f".{each.kind}") else f"{path} ({each.kind})" for path, each in named]


def without_clashes(named: Mapping[str, Intervention], seen: rehearsal.Seen | None = None) -> Intervention:
    """Compose the interventions. ``ValueError`` if two of them set the same part of the network."""
    problem = clashes({label.partition(".")[2] or label: each for label, each in named.items()})
    if problem:
        raise ValueError(problem)
    return compose(*(rehearsal.labelled(label, each, seen) for label, each in named.items()))


def _period(every: Any, spec: StreamSpec) -> list[int]:
    """A period in env steps; ``visit``: the length of the shortest visit."""
    return [min(visit.steps for visit in spec.visits)] if every == "visit" else [every]


def _monitor_periods(experiment: Experiment, monitors: Sequence[MemberConfig], spec: StreamSpec) -> dict[str, int]:
    """Env steps between two measurements, by monitor path: the monitor's own ``every``, else its metadata's ``period``.

    ``period`` counts periods of ``monitor_every``. It is reduced until the monitor is measured within every visit, or
    else at the ends of visits and at least four times. If no number fits, the monitor is measured once per visit.
    """
    (usual,) = _period(experiment.monitor_every, spec)
    (shortest,) = _period("visit", spec)
    lengths = [visit.steps for visit in spec.visits]

    def fits(period: int) -> bool:
        within = all(steps % period == 0 for steps in lengths)
        return within or (all(period % steps == 0 for steps in lengths) and 4 * period <= sum(lengths))

    found = {}
    for path, each in zip(paths("monitors", monitors), monitors, strict=True):
        multiple = metadata_of(each.factory).period
        rarely = (count * usual for count in range(multiple, 1, -1) if fits(count * usual))
        default = usual if multiple == 1 else next(rarely, max(usual, shortest))
        (found[path],) = [default] if each.every is None else _period(each.every, spec)
    return found


def _warn_of_periods(periods: Mapping[str, Sequence[int]], total: int) -> None:
    """Warn of a period that is longer than the run. It is not an error: configs are often shortened for a trial."""
    for key, values in periods.items():
        for steps in values:
            if steps > total and key != "checkpoint_every":  # a checkpoint is due at the end anyway
                warnings.warn(f"{key}: {steps} is more than the {total} steps of the run: never due", stacklevel=2)


def _evaluation(experiment: Experiment) -> Evaluation | None:
    asked = experiment.evaluation
    if asked is None:
        return None
    every = None if asked.every == "visit" else asked.every
    return Evaluation(every, asked.tasks, asked.episodes, asked.steps, asked.epsilon)


def _job(experiment: Experiment, source: StreamFactory, each: ProgramSettings) -> Job:
    """One program of an arm, ready to run."""
    spec = source.spec
    every = _monitor_periods(experiment, each.monitors, spec)
    program = _program(experiment, source, each, every)
    placement = _placement(experiment, program, each)
    _check_task_aware(each, spec)
    fingerprint = _fingerprint(experiment, each, placement, every, spec)
    save_every = None if experiment.checkpoint_every == "visit" else experiment.checkpoint_every
    return Job(each.arm, each.index, program, placement, _columns(each), save_every, fingerprint)


def _program(experiment: Experiment, source: StreamFactory, each: ProgramSettings, every: Mapping[str, int]) -> Program:
    """``every``: the period of each monitor, in env steps, by its path."""
    evaluated = _evaluation(experiment)
    labels, built = _labels("monitors", each.monitors), each.build({}).monitors
    monitors = zip(labels, each.monitors, built, every.values(), strict=True)
    return Program(
        spec=source.spec,
        build=functools.partial(_agent, each, source.spec),
        make_stream=source.make,
        monitors=tuple(
            Monitoring(checked_monitor(label, kind.kind, _checked(label, made)), steps, label)
            for label, kind, made, steps in monitors
        ),
        hyper=each.hyper,
        seeds=each.seeds,
        chunk=_chunk(experiment, each, source.spec, every, evaluated),
        probe_size=experiment.probe_size,
        evaluation=evaluated,
    )


def _chunk(
    experiment: Experiment,
    each: ProgramSettings,
    spec: StreamSpec,
    every: Mapping[str, int],
    evaluated: Evaluation | None,
) -> int:
    """Env steps of a chunk: all periodic operations fall on the end of a chunk."""
    usual = any(monitor.every is None for monitor in each.monitors)
    periods = {"monitor_every": _period(experiment.monitor_every, spec) if usual else []}
    periods["checkpoint_every"] = [] if experiment.checkpoint_every == "visit" else [experiment.checkpoint_every]
    periods |= {f"{path}.every": [steps] for path, steps in every.items()}
    periods["evaluation.every"] = [evaluated.every] if evaluated and evaluated.every else []
    own = [f"{path}.every" for path, monitor in zip(every, each.monitors, strict=True) if monitor.every is not None]
    asked = {key: steps for key, steps in periods.items() if key in own or not key.startswith("monitors.")}
    _warn_of_periods(asked, sum(visit.steps for visit in spec.visits))
    return int(_checked("", chunk_steps, spec.visits, periods, experiment.record_every))


def _placement(experiment: Experiment, program: Program, each: ProgramSettings) -> Placement:
    """``UserError`` if more devices are requested than exist."""
    width, wanted, available = experiment.placement.width, experiment.placement.devices, len(devices())
    if isinstance(wanted, int) and wanted > available:
        raise UserError(f"placement.devices: {wanted} is not allowed; this machine has {available}")
    return place(
        len(each.seeds),
        devices=available if wanted == "auto" else wanted,
        backend=devices()[0].platform,
        work=_work(program, each),
        width=None if width == "auto" else width,
    )


def _columns(each: ProgramSettings) -> dict[str, list[Any]]:
    """The program's rows of ``lanes.parquet``."""
    found: dict[str, list[Any]] = {"lane": each.lanes.tolist(), "seed": each.seeds.tolist()}
    found["program"] = [each.index] * len(each.seeds)
    return found | {path: [point[path] for point in each.points] for path in each.points[0]}


def _work(program: Program, each: ProgramSettings) -> int:
    """Parameters x envs of one lane: the work of one step."""

    def parameters(hyper: Hyper) -> Any:
        agent = program.build(hyper)
        return agent.init(jax.random.key(0), None).learner.params  # type: ignore[arg-type]

    hyper = {path: jax.ShapeDtypeStruct((), np.float32) for path in each.hyper}
    shapes = _checked(f"arms.{each.arm}", jax.eval_shape, parameters, hyper)
    return size(shapes) * program.spec.envs


def _fingerprint(
    experiment: Experiment,
    each: ProgramSettings,
    placement: Any,
    every: Mapping[str, int],
    spec: StreamSpec,
) -> str:
    """Equal for programs that compute the same; data are identified by content, not by path."""
    resolved = experiment.resolve()
    facts: dict[str, Any] = {
        key: resolved[key]
        for key in ("stream", "transforms", "schedule", "monitors", "monitor_every", "record_every", "probe_size")
    }
    facts |= {"agent": each.agent.dump(), "interventions": [member.dump() for member in each.interventions]}
    facts |= {"hyper": {path: values.tolist() for path, values in each.hyper.items()}}
    facts["monitor_periods"] = dict(every)
    facts |= {"seeds": each.seeds.tolist(), "placement": placement._asdict()}
    if spec.data:
        facts["stream"] = {key: value for key, value in resolved["stream"].items() if key != "path"}
        facts["data"] = [sha for _, sha in spec.data]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def check_memory(planned: Plan) -> None:
    """``UserError`` if an arm needs more memory than its devices have; arms run one after another."""
    for job, need in zip(planned.jobs, planned.memory, strict=True):
        has = memory.capacity(devices()[0], job.placement.devices)
        if need.total > has:
            raise UserError(
                f"arm {job.arm}: {len(job.program.seeds)} lanes need {readable(need.total)} on each of "
                f"{job.placement.devices} devices, which have {readable(has)}\n"
                "use fewer seeds at a time, a smaller network or replay buffer, or more devices"
            )
