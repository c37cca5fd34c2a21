"""A transform that shows the time in the episode."""

from typing import Any

import jax.numpy as jnp

from plasticity.config.fields import Count, metadata
from plasticity.core.types import FIRST, Array, Key, StreamSpec, TimeStep
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.base import Done, LaneTransform, Transform, check_rewarded, divided, transformed
from plasticity.envs.transforms.observations import observed_array, with_observed_array

NAME = "time_in_episode"


def check_timed(spec: StreamSpec) -> None:
    """Raise ``ValueError`` unless observations are vectors of real numbers (or bool), and there are episodes."""
    check_rewarded(NAME, spec)
    seen = observed_array(spec)
    if len(seen.shape) != 1:
        raise ValueError(f"{NAME}: not allowed on observations of shape {tuple(seen.shape)}; must be vectors")
    if not (jnp.issubdtype(seen.dtype, jnp.floating) or seen.dtype == jnp.bool_):
        raise ValueError(f"{NAME}: not allowed on {seen.dtype} observations; must be real-valued or bool")
    if not spec.episodic:
        raise ValueError(f"{NAME}: not allowed on a stream without episodes")


@metadata(
    paper="Elsayed, Vasan, Mahmood 2024, Streaming Deep Reinforcement Learning Finally Works",
    example={"limit": 1000},
)
def time_in_episode(*, limit: Count = 1000) -> Transform:
    """Append ``t / limit - 0.5`` to the observation, t the number of steps since the start of the episode.

    ``limit`` (static): env steps after which the stream truncates an episode; 1000 in most tasks of MuJoCo. The number
    then rises from -0.5 to 0.5, and a value function can tell how much of the episode is left. If episodes are longer,
    it rises further.

    In the paper's code it is appended after the observation is normalised, and is one step late from the first step on.
    Here an agent that normalises its observations normalises it too. Real-valued vectors, or bool, which become
    real-valued. ``ValueError`` for other observations, on a supervised stream and on one without episodes.
    """

    def apply(source: StreamFactory) -> StreamFactory:
        check_timed(source.spec)
        seen = observed_array(source.spec)
        dtype = jnp.promote_types(seen.dtype, jnp.float32)
        spec = with_observed_array(source.spec, (seen.shape[0] + 1,), dtype)

        def memory() -> Array:
            return jnp.zeros(source.spec.envs, jnp.int32)

        def see(draw: Key, problem: Any, age: Array, timestep: TimeStep, done: Done) -> tuple[Array, TimeStep]:
            age = jnp.where(timestep.step_type == FIRST, 0, age + 1)
            time = age.astype(dtype) / limit - 0.5
            shown = jnp.concatenate([timestep.observation.astype(dtype), time[:, None]], axis=1)
            return age, timestep._replace(observation=shown)

        return transformed(NAME, source, divided(spec, "task"), LaneTransform(memory=memory, see=see))

    return apply
