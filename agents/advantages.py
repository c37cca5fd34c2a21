"""How much better than expected a rollout's actions were."""

import jax
import jax.numpy as jnp

from plasticity.core.masked import mean_where
from plasticity.core.schedules import Number
from plasticity.core.types import Array

EPSILON = 1e-8


def generalised_advantages(
    reward: Array, discount: Array, joined: Array, value: Array, following: Array, trace: Number
) -> Array:
    """``A_t = delta_t + trace D_t joined_t A_{t+1}`` with ``delta_t = r_t + D_t v(s'_t) - v(s_t)``, ``[T, ...]``.

    Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation". All arrays are
    ``float32[T, ...]``, row t about the step from ``s_t`` to ``s'_t``: ``reward``; ``discount``, D, that of the agent
    times that of the environment; ``joined``, bool, whether row t + 1 goes on where this one ends (no episode ended;
    in the last row it is without effect); ``value`` of ``s_t`` and ``following`` of ``s'_t``. ``trace`` (lambda) is
    traced. An episode that is cut off ends the trace, and the value of its last state still counts.
    """
    error = reward + discount * following - value
    decay = jnp.where(joined, trace * discount, 0.0)

    def back(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        advantage = row[0] + row[1] * later
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(error[0]), (error, decay), reverse=True)[1]


def normalised(advantage: Array, valid: Array) -> Array:
    """``(A - mean) / (std + 1e-8)`` over the valid ones; ``std`` of the population, divided by their number."""
    centred = advantage - mean_where(valid, advantage)
    return centred / (jnp.sqrt(mean_where(valid, jnp.square(centred))) + EPSILON)
