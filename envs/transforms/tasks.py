"""The task as part of the observation, for arms with a method that reads it; not a member, so no config names it."""

from collections.abc import Callable
from typing import Any

import jax

from plasticity.core.task_entries import appended
from plasticity.core.types import Array, Key, Logged, StreamSpec, Supervised, TimeStep
from plasticity.envs.base import Build, StreamFactory
from plasticity.envs.transforms.base import Done, LaneTransform, divided, transformed
from plasticity.envs.transforms.observations import observed_array, with_observed_array

Evaluation = Callable[[Build], StreamFactory]


def shown_to(observed: Any, task: Array, entries: int) -> Any:
    """The observation with the task: appended to its array, to the input, or to both observations of a transition."""
    if isinstance(observed, Supervised):
        return observed._replace(input=appended(observed.input, task, entries))
    if isinstance(observed, Logged):
        both = (appended(each, task, entries) for each in (observed.observation, observed.next_observation))
        return observed._replace(observation=next(both), next_observation=next(both))
    return appended(observed, task, entries)


def with_array(spec: StreamSpec, shape: tuple[int, ...], dtype: Any) -> StreamSpec:
    """The spec with an observed array of this shape; of recorded transitions, with two."""
    if not isinstance(spec.observation, Logged):
        return with_observed_array(spec, shape, dtype)
    seen: Any = jax.ShapeDtypeStruct(shape, dtype)
    return spec._replace(observation=spec.observation._replace(observation=seen, next_observation=seen))


def told(evaluation: Evaluation | None) -> Evaluation | None:
    """The environments of an evaluation, with the task."""
    if evaluation is None:
        return None
    made = evaluation
    return lambda build: with_task(made(build))


def with_task(source: StreamFactory) -> StreamFactory:
    """The stream, whose observations end in the one-hot of each lane's own task (``core.task_entries``).

    In a supervised stream the input does, in a recorded transition both observations do, and those of the environments
    of an evaluation. Nothing else changes: for the same actions, an arm sees the same episodes.
    ``ValueError`` for a stream with a single task, and for observations that are several arrays or a single number.
    """
    spec, entries = source.spec, len(source.spec.tasks)
    if entries < 2:
        raise ValueError("needs a stream with at least two tasks; this one has 1")
    seen = spec.observation.observation if isinstance(spec.observation, Logged) else observed_array(spec)
    if not seen.shape:
        raise ValueError("not allowed on this stream; it needs observations with an axis, got a single number")

    def problem(key: Key, task: Array) -> Array:
        del key
        return task

    def see(draw: Key, task: Array, memory: Any, timestep: TimeStep, done: Done) -> tuple[Any, TimeStep]:
        return memory, timestep._replace(observation=shown_to(timestep.observation, task, entries))

    shown = with_array(spec, (*seen.shape[:-1], seen.shape[-1] + entries), seen.dtype)
    plan = divided(shown._replace(task_entries=entries), "task")
    made = transformed("task", source, plan, LaneTransform(problem=problem, see=see))
    return made._replace(evaluation=told(source.evaluation))
