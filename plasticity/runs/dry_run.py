"""Trace a job once before it runs: what does not fit or has no effect is refused now and not at a task switch."""

import functools
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from plasticity.config.fields import metadata_of
from plasticity.config.programs import ProgramSettings
from plasticity.core.errors import UserError
from plasticity.core.types import Context, Key, Learner, State
from plasticity.engine import memory
from plasticity.engine.measures import OWN, columns
from plasticity.engine.memory import Memory
from plasticity.engine.runner import Run
from plasticity.interventions import hooks
from plasticity.interventions.base import Intervention
from plasticity.monitors.base import recording_writes
from plasticity.runs.building import agent_of, interventions_of, of_program
from plasticity.runs.devices import devices
from plasticity.runs.parquet import IDENTITY
from plasticity.runs.session import Job


class Traced(NamedTuple):
    """Results of tracing a program."""

    memory: Memory
    measured: frozenset[str]  # the metrics of its monitors
    wrote: frozenset[str]  # the paths of those that write any
    columns: int  # of the table of metrics
    names: frozenset[str]  # of its metrics


def trace_once(jobs: Sequence[Job], asked: Sequence[ProgramSettings]) -> list[Traced]:
    """The trace of each job; jobs that differ only in traced numbers and seeds share one."""
    found: dict[Hashable, Traced] = {}
    keys = [_computation(job, each) for job, each in zip(jobs, asked, strict=True)]
    for key, job, each in zip(keys, jobs, asked, strict=True):
        of_program(each, _check_filled, each)
        if key not in found:
            found[key] = of_program(each, _trace, job, each)
    return [found[key] for key in keys]


def _computation(job: Job, each: ProgramSettings) -> Hashable:
    """Equal for jobs of one experiment whose traces are the same."""
    members = (each.agent.static(), *(one.static() for one in each.interventions))
    shapes = (len(each.seeds), job.placement, job.program.chunk, *each.hyper)
    return members, shapes, each.task_aware, tuple(job.lanes), bool(each.start)


def _trace(job: Job, settings: ProgramSettings) -> Traced:
    """Trace every function of a program, so that an unsuitable setting is found now and not at a switch.

    ``ValueError`` if an intervention cannot take effect, or two numbers would be written to one column.
    """
    seen: hooks.Seen = set()
    wrote: set[str] = set()
    noted = tuple(
        each._replace(monitor=recording_writes(each.path, each.monitor, wrote)) for each in job.program.monitors
    )
    sizes = [0]
    build = functools.partial(agent_of, settings, job.program.spec, seen=seen, wrap=functools.partial(weighed, sizes))
    watched = job.program._replace(build=build, monitors=noted)
    run = Run(watched, job.placement, devices())
    hyper, seeds, block = run.inputs[0]
    carry, clock, which = run.carry_shape(), run.clock(), tuple(range(len(job.program.monitors)))
    _check_used(settings, seen, hooks.AT_BIRTH)
    _check_measures(job)
    _, made = jax.eval_shape(run.compiled.chunk, hyper, seeds, carry, clock)
    jax.eval_shape(run.compiled.switch, hyper, seeds, carry, clock, np.int32(0), block)
    if job.program.evaluation:
        jax.eval_shape(run.compiled.evaluate, hyper, seeds, carry, clock, np.int32(0), np.int32(0), block)
    _, record = jax.eval_shape(lambda carry: run.compiled.measure(hyper, seeds, carry, clock, which), carry)
    _check_used(settings, seen, hooks.ASKED)
    _check_columns(job, made.names, record.names)
    names = frozenset({*made.names, *record.names})
    columns = len({*IDENTITY, *names})
    return Traced(memory.estimate(run, max(sizes)), frozenset(record.names), frozenset(wrote), columns, names)


def weighed(sizes: list[int], intervention: Intervention) -> Intervention:
    """The intervention; ``sizes`` gets the bytes of the activations of every update batch that is traced."""

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        sizes.append(memory.size_of(context.activations))
        return intervention.step(key, state, learner, context)

    return intervention._replace(step=step)


def _check_filled(settings: ProgramSettings) -> None:
    """``ValueError`` if an intervention fills no hook, unless its settings are the neutral ones."""
    made = interventions_of(settings.build({}), settings)
    for (label, intervention), choice in zip(made.items(), settings.interventions, strict=True):
        neutral = metadata_of(choice.factory).neutral or {}
        asked = neutral and all(choice.values.get(key) == value for key, value in neutral.items())
        if not asked and not hooks.own_fields(intervention):
            raise ValueError(f"{label} changes nothing: it returns no function of its own")


def _check_used(settings: ProgramSettings, seen: hooks.Seen, fields: Sequence[str]) -> None:
    """``ValueError`` if the agent does not use one of these hooks of an intervention."""
    for label, why in hooks.unused(interventions_of(settings.build({}), settings), seen, fields):
        raise ValueError(f"{label} is not allowed with agent `{settings.agent.kind}`: {why}")


def _check_columns(job: Job, made: Sequence[str], measured: Sequence[str]) -> None:
    """``ValueError`` if a metric has the name of another column of the tables."""
    taken = {*IDENTITY, *job.lanes}
    for whose, names, others in (("agent.kind", made, taken), ("monitors", measured, {*taken, *made})):
        doubled = [name for name in names if name in others or name.startswith("evaluation_")]
        if doubled:
            raise ValueError(f"{whose}: the metric `{doubled[0]}` has the name of another column; rename it")


def _check_measures(job: Job) -> None:
    """``ValueError`` if a measure of the stream has the name of another column."""
    taken, names = {*IDENTITY, *job.lanes, *OWN}, columns(job.program.spec.measures)
    doubled = [name for name in names if name in taken or name.startswith("evaluation_") or names.count(name) > 1]
    if doubled:
        raise ValueError(f"stream: the measure `{doubled[0]}` has the name of another column; leave it out")


def check_silent(traced: Sequence[Traced], jobs: Sequence[Job]) -> None:
    """``UserError`` if a monitor writes nothing in any arm; a monitor that writes nothing in some arms is allowed."""
    for each in jobs[0].program.monitors:
        if not any(each.path in one.wrote for one in traced):
            raise UserError(
                f"{each.path} writes nothing for this network and agent: what it measures, such as hidden layers, "
                "does not exist; remove it"
            )
