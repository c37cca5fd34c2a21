"""Replays: the sources of a replay agent's transitions."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.agents.ages import RULES, drawn_ages
from plasticity.agents.balanced import Keep, balanced, layout_of
from plasticity.agents.priorities import prioritised as prioritised_memory
from plasticity.agents.replay import Replay, held, oldest_part, replay
from plasticity.agents.replay_source import Memory, Sample, Sampling
from plasticity.agents.sequences import Start, sequence_buffer, uniform_sequences
from plasticity.agents.sequences import prioritised_sequences as prioritised_by_sequence
from plasticity.config.fields import Count, Fraction, Member, Positive, Repeats, metadata
from plasticity.core.errors import check
from plasticity.core.types import Array, Key, StreamSpec

Steps = Annotated[int, Field(ge=0, le=10_000)]
UNWEIGHTED = {"kind": "constant", "value": 0.0}
IMPORTANCE = {"kind": "linear", "start": 0.4, "end": 1.0, "duration": 1_000_000}


def stored(spec: StreamSpec, sampling: Sampling, capacity: int, minimum: int) -> Replay:
    """The buffer of transitions."""
    size, steps = sampling.batch_size, sampling.n_step
    return replay(spec, capacity=capacity, minimum=minimum, batch_size=size, steps=steps)


def unprioritised(state: Any, made: Array, counts: Array, places: Array, losses: Array) -> Any:
    """Nothing changes with the losses."""
    del made, counts, places, losses
    return state


@metadata(checked="a walk over the stream in NumPy, and the frequencies of samples")
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
    size = sampling.batch_size

    def sample(state: Any, key: Key, age: Array, share: Array | None = None) -> Sample:
        del age
        if share is None:
            batch = buffer.sample(state, key, sampling.discount, sampling.reward_clip)
        else:
            choice, draw = jax.random.split(key)
            first, number = buffer.starts(state)
            row = first + jax.random.randint(draw, (size,), 0, oldest_part(share, number))
            env = jax.random.randint(choice, (size,), 0, spec.envs)
            batch = buffer.at(state, env, row % buffer.rows, sampling.discount, sampling.reward_clip)
        return Sample(batch, jnp.ones(size), jnp.zeros(size, jnp.int32))

    first = -(-minimum // spec.envs)
    memory = Memory(buffer.init, buffer.add, buffer.ready, sample, unprioritised, size, first)
    return memory._replace(held=lambda state: held(state, spec))


@metadata(
    paper="Schaul, Quan, Antonoglou, Silver 2016, Prioritized Experience Replay",
    checked="sums in NumPy, frequencies of samples, weights by hand; priorities in the NumPy program of `rainbow`",
    only_with={"duration": {"prefer": ("new", "old")}, "least": {"prefer": ("new", "old")}},
)
def prioritised(
    spec: StreamSpec,
    sampling: Sampling,
    *,
    capacity: Count = 100_000,
    minimum: Count = 20_000,
    exponent: Fraction = 0.5,
    importance: Annotated[Any, Member("schedules")] = IMPORTANCE,
    prefer: Literal["any", "new", "old"] = "any",
    duration: Positive = 80_000.0,
    least: Fraction = 0.1,
) -> Memory:
    """Sample transitions in proportion to ``loss^exponent``, with the loss of the last update that used them.

    A loss is weighted by ``(N P)^-importance``, divided by the largest weight in the batch. New transitions get the
    largest priority so far. No fraction of the samples is uniform. With ``prefer: new`` or ``old``, the probabilities
    are multiplied by the weights of :func:`age_weighted`, and ``P`` in the weights of losses is without them.

    Args:
      spec: the stream.
      sampling: how the agent samples.
      capacity: transitions of all envs; the oldest are overwritten. Static.
      minimum: transitions before the first update. Static.
      exponent: of the priorities; 0 is uniform. Traced.
      importance: schedule of the exponent of the weights over the env steps of each env since the agent was
        initialised (DQN Zoo: over its whole run).
      prefer: whether transitions of some ages are sampled more often. Static.
      duration, least: of :func:`age_weighted`. Traced.

    Raises:
      ValueError: the sizes are inconsistent, or an unknown word.
    """
    check("prefer", prefer, ("any", *RULES))
    memory = prioritised_memory(
        stored(spec, sampling, capacity, minimum),
        spec,
        batch_size=sampling.batch_size,
        discount=sampling.discount,
        reward_clip=sampling.reward_clip,
        exponent=exponent,
        correction=importance(),
        first=-(-minimum // spec.envs),
        ages=None if prefer == "any" else RULES[prefer](duration, least),
    )
    return memory._replace(held=lambda state: held(state.steps, spec))


@metadata(
    paper="Wu, Tang, Ma, Liu, Zheng, Hao 2026, The Rank and Gradient Lost in Non-stationarity: Sample Weight Decay for "
    "Mitigating Plasticity Loss in Reinforcement Learning",
    checked="cumulative weights in NumPy, and the frequencies of samples; equation and defaults follow the "
    "authors' code, of the paper only summaries were read",
)
def age_weighted(
    spec: StreamSpec,
    sampling: Sampling,
    *,
    capacity: Count = 100_000,
    minimum: Count = 20_000,
    duration: Positive = 80_000.0,
    least: Fraction = 0.1,
    prefer: Literal["new", "old"] = "new",
) -> Memory:
    """Sample weight decay (SWD): sample transitions in proportion to a weight that falls linearly with their age.

    ``w = max(least, 1 - a / duration)`` for the age ``a``, in env steps of each env; the newest transition has age 1.
    All sampled transitions have equal weights in the loss. The paper's control, ``prefer: old``, has ``w = min(1, least
    + a / duration)``.

    Args:
      spec: the stream.
      sampling: how the agent samples.
      capacity: transitions of all envs; the oldest are overwritten. Static.
      minimum: transitions before the first update. Static.
      duration: the age at which the weight would be 0. Traced.
      least: the smallest weight. Traced.
      prefer: which transitions have the larger weights. Static.

    Raises:
      ValueError: the sizes are inconsistent, or an unknown word.

    Equation and defaults are those of the authors' code for SAC; of the paper, only summaries were read.
    """
    check("prefer", prefer, RULES)
    buffer = stored(spec, sampling, capacity, minimum)
    weights = RULES[prefer](duration, least)
    size = sampling.batch_size

    def sample(state: Any, key: Key, age: Array, share: Array | None = None) -> Sample:
        del age
        choice, draw = jax.random.split(key)
        number = buffer.starts(state)[1]
        above = None if share is None else number - oldest_part(share, number)
        ages = drawn_ages(draw, weights, number, size, above)
        env = jax.random.randint(choice, (size,), 0, spec.envs)
        row = (state.current_index - buffer.window + 1 - ages) % buffer.rows
        batch = buffer.at(state, env, row, sampling.discount, sampling.reward_clip)
        return Sample(batch, jnp.ones(size), jnp.zeros(size, jnp.int32))

    first = -(-minimum // spec.envs)
    memory = Memory(buffer.init, buffer.add, buffer.ready, sample, unprioritised, size, first)
    return memory._replace(held=lambda state: held(state, spec))


@metadata(
    paper="Isele, Cosgun 2018, Selective Experience Replay for Lifelong Learning",
    checked="frequencies of samples and of what is kept, weights by hand; the equal shares and the defaults are ours",
    only_with={
        "duration": {"prefer": ("new", "old")},
        "least": {"prefer": ("new", "old")},
        "exponent": {"priorities": (True,)},
    },
)
def task_balanced(
    spec: StreamSpec,
    sampling: Sampling,
    *,
    capacity: Count = 100_000,
    minimum: Count = 5_000,
    visits: Repeats = 10,
    keep: Keep = "reservoir",
    priorities: bool = False,
    exponent: Fraction = 0.5,
    importance: Annotated[Any, Member("schedules")] = IMPORTANCE,
    prefer: Literal["any", "new", "old"] = "any",
    duration: Positive = 80_000.0,
    least: Fraction = 0.1,
) -> Memory:
    """Sample equally often from every visit so far, the current one included; each has ``capacity / visits`` places.

    ``P(i) = 1 / K * n_i / sum_j n_j``: K visits have transitions, and the sum is over the visit of ``i``. Of the ``k``
    transitions of a visit so far, each is kept with probability ``min(1, size / k)`` (``reservoir``), or the last
    ``size`` are kept (``newest``). A recurring task counts as another visit. The arm must be ``task_aware``.

    ``n_i`` is 1; with ``priorities`` the magnitude of the last loss to the power of ``exponent``, as in
    :func:`prioritised`; with ``prefer: new`` or ``old`` also times the weight of the transition's age, as in
    :func:`age_weighted`. With priorities a loss is weighted by ``(N P')^-importance``, divided by the largest weight in
    the batch, with N and ``P'`` those of the priorities within the visit: the balance is not taken back.

    Args:
      spec: the stream.
      sampling: how the agent samples.
      capacity: transitions of all visits together; each is stored with the steps that it consists of (``n_step`` + 1
        frames, and a stack's). Static.
      minimum: transitions before the first update, at most those of one visit. Static.
      visits: visits with a place of their own; the next one replaces the oldest. Static.
      keep: which transitions of a visit are kept. Static.
      priorities: whether losses are priorities; a visit's places are then a multiple of 64. Static.
      exponent, importance: of :func:`prioritised`, with ``priorities`` only.
      prefer: whether transitions of some ages are sampled more often. Static.
      duration, least: of :func:`age_weighted`. Traced.

    Raises:
      ValueError: the sizes are inconsistent, or an unknown word.

    Isele and Cosgun select what to keep of each task; a reservoir is their matching of the tasks' distribution. The
    equal shares and all defaults are ours, and the paper's text could not be read.
    """
    check("keep", keep, ("reservoir", "newest"))
    check("prefer", prefer, ("any", *RULES))
    return balanced(
        layout_of(spec, sampling, capacity, minimum, visits, keep, priorities),
        exponent=exponent,
        correction=importance() if priorities else None,
        ages=None if prefer == "any" else RULES[prefer](duration, least),
    )


@metadata(
    paper="Kapturowski et al. 2019, Recurrent Experience Replay in Distributed Reinforcement Learning",
    checked="a list of what each row holds; updates of `dqn` against loops over sequences and steps",
)
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
    memory = uniform_sequences(buffer, spec, sampling.batch_size, -(-minimum // spec.envs))
    return memory._replace(held=lambda state: held(state.steps, spec))


@metadata(
    paper="Kapturowski et al. 2019, Recurrent Experience Replay in Distributed Reinforcement Learning",
    checked="priorities by hand; updates of `dqn` and priorities against loops over sequences and steps",
)
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
    memory = prioritised_by_sequence(
        sequence_buffer(spec, sampling, capacity=capacity, minimum=minimum, **sizes),
        spec,
        batch_size=sampling.batch_size,
        eta=eta,
        exponent=exponent,
        correction=importance(),
        first=-(-minimum // spec.envs),
    )
    return memory._replace(held=lambda state: held(state.steps, spec))


REPLAYS: Mapping[str, Callable[..., Memory]] = {
    "uniform": uniform,
    "age_weighted": age_weighted,
    "prioritised": prioritised,
    "task_balanced": task_balanced,
    "sequences": sequences,
    "prioritised_sequences": prioritised_sequences,
}
