"""Storage of a rollout, and its conversion to samples for a policy gradient.

Log-probabilities and values are not stored while the agent acts. The parameters do not change during a rollout, so both
are computed for all steps at once at its end.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.advantages import generalised_advantages
from plasticity.agents.truncation import Truncation, kept_discount
from plasticity.core.schedules import Number
from plasticity.core.types import FIRST, LAST, Array, Sequence, StreamSpec, Transition, take

PolicyAndValue = Callable[[Any, Array], tuple[Array, Array]]
# a batch of observations [B, ...], actions [B, ...] -> log-probabilities [B], values [B]


class Rollout(NamedTuple):
    """``T`` env steps of ``E`` envs, ``[T, E, ...]``."""

    observation: Array  # before the step, as network input
    action: Array
    reward: Array  # of the step, as the agent sees it
    discount: Array  # the environment's, after the step
    step_type: Array  # int8, after the step: FIRST if the pair is not a transition


class Judged(NamedTuple):
    """The steps of a rollout under the parameters that generated it."""

    log_probability: Array  # [T, E], of the actions
    value: Array  # [T, E], of the observations
    after: Array  # [E], the value of the observation after the last step


class Samples(NamedTuple):
    """Training data from a rollout or a part of one: ``[N, ...]``."""

    observation: Any  # with memory a Sequence [T, E, ...], whose rows these are
    action: Array
    valid: Array  # bool: False if the pair is not a transition
    log_probability: Array  # of the action, under the parameters of the rollout
    value: Array  # of the observation, under the same parameters
    advantage: Array
    target: Array  # the value's target: advantage + value


def empty(spec: StreamSpec, observation: Any, length: int) -> Rollout:
    """An empty rollout; ``observation`` has the shape and dtype of the network's input from one env."""
    rows = (length, spec.envs)
    actions = jnp.zeros(rows, jnp.int32) if spec.discrete else jnp.zeros((*rows, spec.actions))
    zero = jnp.zeros(rows)
    seen = jnp.zeros((*rows, *observation.shape), observation.dtype)
    return Rollout(seen, actions, zero, zero, jnp.zeros(rows, jnp.int8))


def write(rollout: Rollout, row: Array, observation: Array, reward: Array, transition: Transition) -> Rollout:
    """Write one step into row ``row`` (int32[]) of the rollout; observation and reward are as the agent sees them."""
    current = transition.current
    new = Rollout(observation, transition.action, reward, current.discount, current.step_type)
    return jax.tree.map(lambda all, one: jax.lax.dynamic_update_index_in_dim(all, one, row, 0), rollout, new)


def judged(policy_and_value: PolicyAndValue, rollout: Rollout, final: Array, parts: int) -> Judged:
    """Evaluate all steps in ``parts`` chunks, to save memory. ``final [E, ...]``: the observation after the last."""
    rows = rollout.reward.shape
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[2:]), (rollout.observation, rollout.action))
    results = jax.lax.map(lambda part: policy_and_value(*part), split)
    log_probability, value = (x.reshape(rows) for x in results)
    return Judged(log_probability, value, policy_and_value(final, rollout.action[-1])[1])


def judged_in_order(policy_and_value: PolicyAndValue, rollout: Rollout, sequence: Sequence, final: Sequence) -> Judged:
    """:func:`judged` for a network with memory, through time."""
    rows = rollout.reward.shape
    action = rollout.action.reshape(-1, *rollout.action.shape[2:])
    log_probability, value = (x.reshape(rows) for x in policy_and_value(sequence, action))
    return Judged(log_probability, value, policy_and_value(final, rollout.action[-1])[1])


def sequence_of(rollout: Rollout, start: Any) -> Sequence:
    """The rollout's observations as a sequence; ``start`` is the carry before the first one."""
    opens = jnp.concatenate([jnp.zeros((1, *rollout.step_type.shape[1:]), bool), rollout.step_type[:-1] == FIRST])
    return Sequence(rollout.observation, opens, start)


def to_samples(
    rollout: Rollout,
    judged: Judged,
    *,
    gamma: Number,
    trace: Number,
    truncation: Truncation = "bootstrap",
) -> Samples:
    """Convert a rollout to samples under the parameters that generated it, ordered by step, then env, ``[T * E, ...]``.

    A truncated episode bootstraps from the value of its last observation, or counts as terminated if ``truncation``
    (static) is "terminal". Advantages and targets of pairs that are not transitions are 0.
    """
    log_probability, value, after = judged
    following = jnp.concatenate([value[1:], after[None]])
    last, valid = rollout.step_type == LAST, rollout.step_type != FIRST
    discount = gamma * kept_discount(rollout.discount, rollout.step_type, truncation)
    advantage = generalised_advantages(rollout.reward, discount, valid & ~last, value, following, trace)
    advantage = jnp.where(valid, advantage, 0.0)
    target = jnp.where(valid, advantage + value, 0.0)
    whole = Samples(rollout.observation, rollout.action, valid, log_probability, value, advantage, target)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), whole)


def part_of(samples: Samples, rows: Array) -> Samples:
    """These rows of the samples; with memory, ``rows`` are envs, each with all of its steps."""
    if not isinstance(samples.observation, Sequence):
        return jax.tree.map(lambda x: x[rows], samples)
    steps, envs = samples.observation.first.shape

    def leaf(x: Array) -> Array:
        return x.reshape(steps, envs, *x.shape[1:])[:, rows].reshape(-1, *x.shape[1:])

    rest = jax.tree.map(leaf, samples._replace(observation=()))
    return rest._replace(observation=take(samples.observation, rows))
