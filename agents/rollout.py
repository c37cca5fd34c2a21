"""Storage of a rollout, and its conversion to samples with lambda-returns.

Log-probabilities and values are not stored while the agent acts. The parameters do not change during a rollout, so both
are computed for all steps at once at its end.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from plasticity.agents.advantages import generalised_advantages
from plasticity.agents.truncation import Truncation, kept_discount
from plasticity.core.schedules import Number
from plasticity.core.types import FIRST, LAST, Array, Sequence, StreamSpec, Transition, take

Rows = TypeVar("Rows")
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


def in_parts(function: Callable[[Array, Array], Any], rollout: Rollout, parts: int) -> Any:
    """``function(observations [B, ...], actions [B, ...])`` of all steps, ``[T, E]``, in ``parts`` to save memory."""
    rows = rollout.reward.shape
    split = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[2:]), (rollout.observation, rollout.action))
    results = jax.lax.map(lambda part: function(*part), split)
    return jax.tree.map(lambda x: x.reshape(rows), results)


def judged(policy_and_value: PolicyAndValue, rollout: Rollout, final: Array, parts: int) -> Judged:
    """Evaluate all steps in ``parts`` chunks, to save memory. ``final [E, ...]``: the observation after the last."""
    log_probability, value = in_parts(policy_and_value, rollout, parts)
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


class Returns(NamedTuple):
    """Lambda-returns of the steps of a rollout, ``[T, E]``."""

    valid: Array  # bool: False if the pair is not a transition; the other fields are then 0
    advantage: Array
    target: Array  # the lambda-return: advantage + value


def lambda_returns(
    rollout: Rollout, value: Array, after: Array, *, gamma: Number, trace: Number, truncation: Truncation = "bootstrap"
) -> Returns:
    """The lambda-returns of a rollout.

    ``G_t = r_t + D_t ((1 - lambda_t) v(s'_t) + lambda_t G_{t+1})``, where ``D`` is ``gamma`` times the environment's
    discount, and ``lambda_t`` is ``trace`` if the next row continues the episode, else 0. In the last row ``G_{t+1}``
    is ``v(s'_t)``.

    Args:
      rollout: the steps; row t describes the step from ``s_t`` to ``s'_t``.
      value: float32[T, E], ``v(s_t)``; also the value of the state that the step before ended in.
      after: float32[E], the value of the state after the last step.
      gamma: the agent's discount. Traced.
      trace: lambda. Traced.
      truncation: a truncated episode bootstraps from the value of its last observation ("bootstrap") or counts as
        terminated ("terminal"). Static.

    Returns:
      The lambda-returns, and the advantages ``G_t - v(s_t)``.
    """
    following = jnp.concatenate([value[1:], after[None]])
    last, valid = rollout.step_type == LAST, rollout.step_type != FIRST
    discount = gamma * kept_discount(rollout.discount, rollout.step_type, truncation)
    advantage = generalised_advantages(rollout.reward, discount, valid & ~last, value, following, trace)
    return Returns(valid, jnp.where(valid, advantage, 0.0), jnp.where(valid, advantage + value, 0.0))


def as_rows(steps: Rows) -> Rows:
    """``[T, E, ...] -> [T * E, ...]`` for every array, ordered by step, then env."""
    made: Rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), steps)
    return made


def to_samples(
    rollout: Rollout,
    judged: Judged,
    *,
    gamma: Number,
    trace: Number,
    truncation: Truncation = "bootstrap",
) -> Samples:
    """Convert a rollout to samples under the parameters that generated it, ordered by step, then env, ``[T * E, ...]``.

    For the settings see :func:`lambda_returns`.
    """
    log_probability, value, after = judged
    valid, advantage, target = lambda_returns(rollout, value, after, gamma=gamma, trace=trace, truncation=truncation)
    return as_rows(Samples(rollout.observation, rollout.action, valid, log_probability, value, advantage, target))


def part_of(samples: Any, rows: Array) -> Any:
    """These rows of the samples, a record with a field ``observation``.

    With memory, ``rows`` are envs, each with all of its steps.
    """
    if not isinstance(samples.observation, Sequence):
        return jax.tree.map(lambda x: x[rows], samples)
    steps, envs = samples.observation.first.shape

    def leaf(x: Array) -> Array:
        return x.reshape(steps, envs, *x.shape[1:])[:, rows].reshape(-1, *x.shape[1:])

    rest = jax.tree.map(leaf, samples._replace(observation=()))
    return rest._replace(observation=take(samples.observation, rows))
