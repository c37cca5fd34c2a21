"""The task as part of the observation, for arms with a method that reads it; not a member, so no config names it."""

from typing import Any

from plasticity.core.task_entries import appended
from plasticity.core.types import Array, Key, Supervised, TimeStep
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.base import Done, LaneTransform, divided, transformed
from plasticity.envs.transforms.observations import observed_array, with_observed_array


def with_task(source: StreamFactory) -> StreamFactory:
    """The stream, whose observations end in the one-hot of each lane's own task (``core.task_entries``).

    In a supervised stream the input does. Nothing else changes: for the same actions, an arm sees the same episodes.
    ``ValueError`` for a stream with a single task, and for observations that are several arrays or a single number.
    """
    spec, entries = source.spec, len(source.spec.tasks)
    if entries < 2:
        raise ValueError("needs a stream with at least two tasks; this one has 1")
    seen = observed_array(spec)
    if not seen.shape:
        raise ValueError("not allowed on this stream; it needs observations with an axis, got a single number")

    def problem(key: Key, task: Array) -> Array:
        del key
        return task

    def see(draw: Key, task: Array, memory: Any, timestep: TimeStep, done: Done) -> tuple[Any, TimeStep]:
        observed = timestep.observation
        if isinstance(observed, Supervised):
            return memory, timestep._replace(
                observation=observed._replace(input=appended(observed.input, task, entries))
            )
        return memory, timestep._replace(observation=appended(observed, task, entries))

    shown = with_observed_array(spec, (*seen.shape[:-1], seen.shape[-1] + entries), seen.dtype)
    plan = divided(shown._replace(task_entries=entries), "task")
    return transformed("task", source, plan, LaneTransform(problem=problem, see=see))
