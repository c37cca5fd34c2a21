"""Advantage estimation for rollouts."""

import jax
import jax.numpy as jnp

from plasticity.core.masked import mean_where
from plasticity.core.schedules import Number
from plasticity.core.types import Array

EPSILON = 1e-8


def generalised_advantages(
    reward: Array, discount: Array, joined: Array, value: Array, following: Array, trace: Number
) -> Array:
    """Generalised advantage estimation.

    ``A_t = delta_t + trace D_t joined_t A_{t+1}`` with ``delta_t = r_t + D_t v(s'_t) - v(s_t)``.

    A truncated episode ends the trace, but the value of its last state is still used for bootstrapping.

    Args:
      reward: float32[T, ...]. Row t of every array describes the step from ``s_t`` to ``s'_t``.
      discount: float32[T, ...], ``D``: the agent's discount times the environment's.
      joined: bool[T, ...], whether row t + 1 continues the episode of row t. It has no effect in the last row.
      value: float32[T, ...], the value of ``s_t``.
      following: float32[T, ...], the value of ``s'_t``.
      trace: lambda, traced.

    Returns:
      The advantages, float32[T, ...].

    Reference: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation".
    """
    error = reward + discount * following - value
    decay = jnp.where(joined, trace * discount, 0.0)

    def back(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        advantage = row[0] + row[1] * later
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(error[0]), (error, decay), reverse=True)[1]


def normalised(advantage: Array, valid: Array) -> Array:
    """``(A - mean) / (std + 1e-8)`` over the valid entries; ``std`` is the population standard deviation."""
    centred = advantage - mean_where(valid, advantage)
    return centred / (jnp.sqrt(mean_where(valid, jnp.square(centred))) + EPSILON)
