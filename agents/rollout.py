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
from plasticity.core.types import FIRST, LAST, Array, StreamSpec, Transition

PolicyAndValue = Callable[[Array, Array], tuple[Array, Array]]
# observations [B, ...], actions [B, ...] -> log-probabilities [B], values [B]


class Rollout(NamedTuple):
    """``T`` env steps of ``E`` envs, ``[T, E, ...]``."""

    observation: Array  # before the step, as network input
    action: Array
    reward: Array  # of the step, as the agent sees it
    discount: Array  # the environment's, after the step
    step_type: Array  # int8, after the step: FIRST if the pair is not a transition


class Samples(NamedTuple):
    """Training data from a rollout or a part of one: ``[N, ...]``."""

    observation: Array
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


def in_parts(policy_and_value: PolicyAndValue, rollout: Rollout, parts: int) -> tuple[Array, Array]:
    """Log-probabilities and values of all steps, ``[T, E]`` each, computed in ``parts`` chunks to save memory."""
    rows = rollout.reward.shape
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[2:]), (rollout.observation, rollout.action))
    results = jax.lax.map(lambda part: policy_and_value(*part), split)
    log_probability, value = (x.reshape(rows) for x in results)
    return log_probability, value


def to_samples(
    rollout: Rollout,
    final: Array,
    policy_and_value: PolicyAndValue,
    *,
    gamma: Number,
    trace: Number,
    truncation: Truncation = "bootstrap",
    parts: int = 1,
) -> Samples:
    """Convert a rollout to samples under the parameters that generated it, ordered by step, then env, ``[T * E, ...]``.

    ``final [E, ...]`` is the observation after the last step. A truncated episode bootstraps from the value of its last
    observation, or counts as terminated if ``truncation`` (static) is "terminal". Advantages and targets of pairs that
    are not transitions are 0.
    """
    log_probability, value = in_parts(policy_and_value, rollout, parts)
    _, after = policy_and_value(final, rollout.action[-1])
    following = jnp.concatenate([value[1:], after[None]])
    last, valid = rollout.step_type == LAST, rollout.step_type != FIRST
    discount = gamma * kept_discount(rollout.discount, rollout.step_type, truncation)
    advantage = generalised_advantages(rollout.reward, discount, valid & ~last, value, following, trace)
    advantage = jnp.where(valid, advantage, 0.0)
    target = jnp.where(valid, advantage + value, 0.0)
    whole = Samples(rollout.observation, rollout.action, valid, log_probability, value, advantage, target)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), whole)
