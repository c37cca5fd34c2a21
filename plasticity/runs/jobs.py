"""From a program's settings to a job: the program, its placement, its rows of the tables, and its fingerprint."""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from plasticity.config.experiments import Experiment
from plasticity.config.programs import ProgramSettings
from plasticity.config.settings import paths
from plasticity.core.errors import UserError
from plasticity.core.trees import size
from plasticity.core.types import StreamSpec
from plasticity.engine.lanes import Placement, place
from plasticity.engine.program import Hyper, Monitoring, Program
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.tasks import with_task
from plasticity.interventions.base import Intervention
from plasticity.monitors.base import checked_monitor
from plasticity.runs import starting
from plasticity.runs.building import agent_of, checked, labels_of, monitor_of, of_program, readers_of_task
from plasticity.runs.devices import devices
from plasticity.runs.periods import chunk_of, evaluation_of, monitor_periods
from plasticity.runs.session import Job
from plasticity.runs.sources import evaluation_source

FILES = ("path", "paths")  # settings of streams that name files
LENGTHS = ("tasks", "steps_per_task", "cycles")  # settings of streams that, as numbers, only say how long they are


def job_of(experiment: Experiment, source: StreamFactory, each: ProgramSettings, width: int | None = None) -> Job:
    """One program of an arm, ready to run. ``width``: of its placement, if it is fixed."""
    bare = source.spec
    _check_reads_task(each)
    _check_visits(each, bare)
    source = source_for(each, source)
    spec = source.spec
    every = monitor_periods(experiment, each.monitors, spec)
    program = _program(experiment, source, each, every)
    placement = _placement(experiment, program, each, width)
    _check_task_aware(each, bare)
    facts = _facts(experiment, each, placement, every, spec)
    save_every = None if experiment.checkpoint_every == "visit" else experiment.checkpoint_every
    return Job(
        each.arm, each.index, program, placement, _columns(each), save_every, _digest(facts),
        speed_key=_digest(_facts_of_speed(facts, experiment)), keep=experiment.kept,
        learners=starting.Continued(each) if each.start else None,
    )  # fmt: skip


def source_for(each: ProgramSettings, source: StreamFactory) -> StreamFactory:
    """The stream as this arm sees it: with the task, if a method reads it. ``UserError`` if that is not possible."""
    reading = readers_of_task(each)
    return checked(f"arms.{each.arm}: {' and '.join(reading)}", with_task, source) if reading else source


def _program(experiment: Experiment, source: StreamFactory, each: ProgramSettings, every: Mapping[str, int]) -> Program:
    """``every``: the period of each monitor, in env steps, by its path."""
    evaluated = evaluation_of(experiment)
    labels, built = labels_of("monitors", each.monitors), each.build({}).monitors
    monitors = zip(labels, each.monitors, built, every.values(), strict=True)
    return Program(
        spec=source.spec,
        build=functools.partial(agent_of, each, source.spec),
        make_stream=source.make,
        make_eval_stream=evaluation_source(source).make if evaluated else None,
        monitors=tuple(
            Monitoring(checked_monitor(label, choice.kind, checked(label, monitor_of, choice, made)), steps, label)
            for label, choice, made, steps in monitors
        ),
        hyper=each.hyper,
        seeds=each.seeds,
        chunk=chunk_of(experiment, each, source.spec, every, evaluated),
        probe_size=experiment.probe_size,
        evaluation=evaluated,
        origin=starting.origin_of(each),
    )


def _placement(experiment: Experiment, program: Program, each: ProgramSettings, fixed: int | None) -> Placement:
    """``UserError`` if more devices are requested than exist."""
    width = experiment.placement.width if fixed is None else fixed
    wanted, available = experiment.placement.devices, len(devices())
    if isinstance(wanted, int) and wanted > available:
        raise UserError(f"placement.devices: {wanted} is not allowed; this machine has {available}")
    return place(
        len(each.seeds),
        devices=available if wanted == "auto" else wanted,
        backend=devices()[0].platform,
        work=_work(program, each),
        width=None if width == "auto" else width,
    )


def _work(program: Program, each: ProgramSettings) -> int:
    """Parameters x envs of one lane: the work of one step."""

    def parameters(hyper: Hyper) -> Any:
        agent = program.build(hyper)
        return agent.init(jax.random.key(0), None).learner.params  # type: ignore[arg-type]

    hyper = {path: jax.ShapeDtypeStruct((), np.float32) for path in each.hyper}
    shapes = of_program(each, jax.eval_shape, parameters, hyper)
    return size(shapes) * program.spec.envs


def _columns(each: ProgramSettings) -> dict[str, list[Any]]:
    """The program's rows of ``lanes.parquet``."""
    found: dict[str, list[Any]] = {"lane": each.lanes.tolist(), "seed": each.seeds.tolist()}
    found["program"] = [each.index] * len(each.seeds)
    return found | {path: [point[path] for point in each.points] for path in each.points[0]}


def _facts(
    experiment: Experiment,
    each: ProgramSettings,
    placement: Any,
    every: Mapping[str, int],
    spec: StreamSpec,
) -> dict[str, Any]:
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
    if each.start is not None:
        facts["start"] = [each.start.arm, each.start.visits]
    if spec.data:
        facts["stream"] = {key: value for key, value in resolved["stream"].items() if key not in FILES}
        facts["data"] = [sha for _, sha in spec.data]
    return facts


def _facts_of_speed(facts: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Equal for programs that take the same time per step of a group of lanes: lanes and length do not count."""
    found = {key: value for key, value in facts.items() if key not in ("seeds", "schedule", "start")}
    stream = facts["stream"]
    if isinstance(stream, Mapping):
        lengths = [key for key in LENGTHS if not isinstance(stream.get(key), list)]
        found["stream"] = {key: value for key, value in stream.items() if key not in lengths}
    placement = {key: value for key, value in facts["placement"].items() if key != "groups"}
    return found | {
        "hyper": sorted(facts["hyper"]),
        "placement": placement,
        "evaluation": experiment.resolve()["evaluation"],
        "device": devices()[0].device_kind,
    }


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _check_reads_task(each: ProgramSettings) -> None:
    """``UserError`` if the arm reads the task but is not task-aware."""
    reading = readers_of_task(each)
    if reading and not each.task_aware:
        raise UserError(f"arms.{each.arm}: {' and '.join(reading)} must know the task; set `task_aware: true`")


def _check_task_aware(each: ProgramSettings, spec: StreamSpec) -> None:
    """``UserError`` if the arm acts at task switches but is not task-aware."""
    if each.task_aware or (len(spec.visits) == 1 and not each.start):
        return
    built = each.build({})
    labels = paths("interventions", each.interventions)
    needing = [label for label, made in zip(labels, built.interventions, strict=True) if made().knows_tasks]
    own = built.agent(spec, Intervention()).switch_setting
    needing += [f"agent.{own}"] if own else []
    if needing:
        raise UserError(f"arms.{each.arm}: {' and '.join(needing)} must know of task switches; set `task_aware: true`")


def _check_visits(each: ProgramSettings, spec: StreamSpec) -> None:
    """``UserError`` if a method has no room for all visits of the stream."""
    labels, done = paths("interventions", each.interventions), starting.origin_of(each).visits
    for label, made in zip(labels, each.build({}).interventions, strict=True):
        room = made().visits
        if room is not None and room < done + len(spec.visits):
            had = f" and its learners had {done} before" if done else ""
            raise UserError(
                f"arms.{each.arm}: {label} has room for {room} tasks; the stream has {len(spec.visits)} visits{had}"
            )
