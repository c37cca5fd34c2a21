"""Replays: the sources of a replay agent's transitions."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax.numpy as jnp

from plasticity.agents.priorities import prioritised as prioritised_memory
from plasticity.agents.replay import Replay, replay
from plasticity.agents.replay_regime import Memory, Sample, Sampling
from plasticity.config.fields import Count, Fraction, Member, metadata
from plasticity.core.types import Array, Key, StreamSpec

IMPORTANCE = {"kind": "linear", "start": 0.4, "end": 1.0, "duration": 1_000_000}


def stored(spec: StreamSpec, sampling: Sampling, capacity: int, minimum: int) -> Replay:
    """The buffer of transitions."""
    size, steps = sampling.batch_size, sampling.n_step
    return replay(spec, capacity=capacity, minimum=minimum, batch_size=size, steps=steps)


def uniform(spec: StreamSpec, sampling: Sampling, *, capacity: Count = 100_000, minimum: Count = 20_000) -> Memory:
    """Sample the stored transitions uniformly, with equal weights.

    Args:
      spec: the stream.
      sampling: how the agent samples.
      capacity: transitions of all envs; the oldest are overwritten. Static.
      minimum: transitions before the first update. Static.

    Raises:
      ValueError: the sizes are inconsistent.
    """
    buffer = stored(spec, sampling, capacity, minimum)

    def sample(state: Any, key: Key, age: Array) -> Sample:
        del age
        batch = buffer.sample(state, key, sampling.discount, sampling.reward_clip)
        return Sample(batch, jnp.ones(sampling.batch_size), jnp.zeros(sampling.batch_size, jnp.int32))

    def update_priorities(state: Any, made: Array, counts: Array, places: Array, losses: Array) -> Any:
        del made, counts, places, losses
        return state

    first = -(-minimum // spec.envs)
    return Memory(buffer.init, buffer.add, buffer.ready, sample, update_priorities, sampling.batch_size, first)


@metadata(paper="Schaul, Quan, Antonoglou, Silver 2016, Prioritized Experience Replay")
def prioritised(
    spec: StreamSpec,
    sampling: Sampling,
    *,
    capacity: Count = 100_000,
    minimum: Count = 20_000,
    exponent: Fraction = 0.5,
    importance: Annotated[Any, Member("schedules")] = IMPORTANCE,
) -> Memory:
    """Sample transitions in proportion to ``loss^exponent``, with the loss of the last update that used them.

    A loss is weighted by ``(N P)^-importance``, divided by the largest weight in the batch. New transitions get the
    largest priority so far. No fraction of the samples is uniform.

    Args:
      spec: the stream.
      sampling: how the agent samples.
      capacity: transitions of all envs; the oldest are overwritten. Static.
      minimum: transitions before the first update. Static.
      exponent: of the priorities; 0 is uniform. Traced.
      importance: schedule of the exponent of the weights over the env steps of each env since the agent was
        initialised (DQN Zoo: over its whole run).

    Raises:
      ValueError: the sizes are inconsistent.
    """
    return prioritised_memory(
        stored(spec, sampling, capacity, minimum),
        spec,
        batch_size=sampling.batch_size,
        discount=sampling.discount,
        reward_clip=sampling.reward_clip,
        exponent=exponent,
        correction=importance(),
        first=-(-minimum // spec.envs),
    )


REPLAYS: Mapping[str, Callable[..., Memory]] = {"uniform": uniform, "prioritised": prioritised}
