"""A transform: on every other task the learner sees the negated observation."""

from typing import Any

import jax.numpy as jnp

from plasticity.config.fields import metadata
from plasticity.core.types import Array, Key, TimeStep
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.base import Done, LaneTransform, Per, Transform, divided, transformed


@metadata(example={"per": "visit"})
def negate_observations(*, per: Per = "visit") -> Transform:
    """``x <- -x`` at every second visit, or (``per: task``) at every second of the stream's tasks; static.

    ``ValueError`` if an observation is not a single array of real numbers.
    """

    def problem(key: Key, index: Array) -> Array:
        """Return a lane's problem: the sign of its observations."""
        del key
        return jnp.where(index % 2 == 1, -1.0, 1.0)

    def see(draw: Key, sign: Array, memory: Any, timestep: TimeStep, done: Done) -> tuple[Any, TimeStep]:
        del draw, done
        return memory, timestep._replace(observation=sign * timestep.observation)

    def apply(source: StreamFactory) -> StreamFactory:
        seen = source.spec.observation
        if not jnp.issubdtype(getattr(seen, "dtype", bool), jnp.floating):
            raise ValueError("negate_observations: not allowed on this stream; it needs real-valued observations")
        return transformed("negate_observations", source, divided(source.spec, per, 2), LaneTransform(problem, see=see))

    return apply
