"""Replays: the sources of a replay agent's transitions."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax.numpy as jnp
from pydantic import Field

from plasticity.agents.priorities import prioritised as prioritised_memory
from plasticity.agents.replay import Replay, replay
from plasticity.agents.replay_regime import Memory, Sample, Sampling
from plasticity.agents.sequences import Start, sequence_buffer, uniform_sequences
from plasticity.agents.sequences import prioritised_sequences as prioritised_by_sequence
from plasticity.config.fields import Count, Fraction, Member, Repeats, metadata
from plasticity.core.types import Array, Key, StreamSpec

Steps = Annotated[int, Field(ge=0, le=10_000)]
UNWEIGHTED = {"kind": "constant", "value": 0.0}
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


@metadata(paper="Kapturowski et al. 2019, Recurrent Experience Replay in Distributed Reinforcement Learning")
def sequences(
    spec: StreamSpec,
    sampling: Sampling,
    *,
    capacity: Count = 100_000,
    minimum: Count = 20_000,
    length: Repeats = 80,
    burn_in: Steps = 40,
    overlap: Steps = 40,
    carry: Start = "stored",
) -> Memory:
    """Sample sequences of consecutive steps uniformly, for a network with memory.

    The network starts from the carry that the agent had before the first step. It is unrolled over ``burn_in`` steps
    without a loss, then over ``length`` steps with a loss. The ``n_step`` steps after them only supply targets, so that
    every step has its full n-step return. A sequence may contain several episodes: the carry is reset where one starts.

    Args:
      spec: the stream.
      sampling: how the agent samples.
      capacity: steps of all envs, rounded down to whole sequences; the oldest are overwritten. Static.
      minimum: steps before the first update. Static.
      length: steps to learn from. Static.
      burn_in: steps before them. Static.
      overlap: steps to learn from that the next sequence has too; a sequence starts every ``length - overlap`` steps.
        Static.
      carry: "stored", or "initial": every sequence starts with the carry of a fresh episode. Static.

    Raises:
      ValueError: the sizes are inconsistent, or the network has no memory.
    """
    sizes: Any = {"length": length, "burn_in": burn_in, "overlap": overlap, "carry": carry}
    buffer = sequence_buffer(spec, sampling, capacity=capacity, minimum=minimum, **sizes)
    return uniform_sequences(buffer, spec, sampling.batch_size, -(-minimum // spec.envs))


@metadata(paper="Kapturowski et al. 2019, Recurrent Experience Replay in Distributed Reinforcement Learning")
def prioritised_sequences(
    spec: StreamSpec,
    sampling: Sampling,
    *,
    capacity: Count = 100_000,
    minimum: Count = 20_000,
    length: Repeats = 80,
    burn_in: Steps = 40,
    overlap: Steps = 40,
    carry: Start = "stored",
    exponent: Fraction = 0.9,
    eta: Fraction = 0.9,
    importance: Annotated[Any, Member("schedules")] = UNWEIGHTED,
) -> Memory:
    """Sample sequences in proportion to ``p^exponent``, with ``p = eta max_t |d_t| + (1 - eta) mean_t |d_t|``.

    ``d_t`` are the errors of the sequence's steps in the last update that used it: temporal-difference errors of
    ``dqn``, cross-entropies of ``c51`` and ``rainbow``. New sequences get the largest priority so far.

    Args:
      spec: the stream.
      sampling: how the agent samples.
      capacity: steps of all envs, rounded down to whole sequences; the oldest are overwritten. Static.
      minimum: steps before the first update. Static.
      length: steps to learn from. Static.
      burn_in: steps before them. Static.
      overlap: steps to learn from that the next sequence has too. Static.
      carry: "stored", or "initial": every sequence starts with the carry of a fresh episode. Static.
      exponent: of the priorities; 0 is uniform. Traced.
      eta: share of the largest error. Traced.
      importance: schedule of the exponent of the weights ``(N P)^-importance``, over the env steps of each env since
        the agent was initialised; 0, as in the paper: no weights.

    Raises:
      ValueError: the sizes are inconsistent, or the network has no memory.
    """
    sizes: Any = {"length": length, "burn_in": burn_in, "overlap": overlap, "carry": carry}
    return prioritised_by_sequence(
        sequence_buffer(spec, sampling, capacity=capacity, minimum=minimum, **sizes),
        spec,
        batch_size=sampling.batch_size,
        eta=eta,
        exponent=exponent,
        correction=importance(),
        first=-(-minimum // spec.envs),
    )


REPLAYS: Mapping[str, Callable[..., Memory]] = {
    "uniform": uniform,
    "prioritised": prioritised,
    "sequences": sequences,
    "prioritised_sequences": prioritised_sequences,
}
