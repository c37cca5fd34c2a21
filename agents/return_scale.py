"""Return-based scaling: the standard deviation by which temporal-difference errors are divided."""

from typing import NamedTuple

import jax.numpy as jnp

from plasticity.agents.normalise import Statistics, blank, include
from plasticity.core.schedules import Number
from plasticity.core.types import Array

LEAST = 1e-4  # of the variance
EARLY = 1e-2  # before the first return, errors are scaled only if the variance is larger


class ReturnScale(NamedTuple):
    """What the scale is computed from; part of an agent's memory (``rest["error_scale"]``)."""

    total: Array  # float32[]: the sum of rewards since the last termination, not discounted
    rewards: Statistics
    discounts: Statistics
    squares: Statistics  # of the sums at terminations, squared


def blank_scale() -> ReturnScale:
    return ReturnScale(jnp.zeros(()), blank(()), blank(()), blank(()))


def with_reward(
    scale: ReturnScale, reward: Array, discount: Number, done: Array, valid: Array, rate: Number | None = None
) -> ReturnScale:
    """The scale after one more reward (float32[]); unchanged, bit for bit, unless ``valid`` (bool[]).

    ``done`` (bool[]): the episode terminated. The discount of that step is then 0, the sum of rewards counts as a
    return, and the next sum starts from 0. ``rate`` as in ``normalise.include``.
    """
    total = scale.total + reward
    discount = jnp.where(done, 0.0, jnp.asarray(discount, jnp.float32))
    return ReturnScale(
        jnp.where(valid, jnp.where(done, 0.0, total), scale.total),
        include(scale.rewards, reward[None], valid, rate),
        include(scale.discounts, discount[None], valid, rate),
        include(scale.squares, jnp.square(total)[None], valid & done, rate),
    )


def deviation(scale: ReturnScale) -> Array:
    """``sigma = sqrt(max(V[r] + V[gamma] E[G^2], 1e-4))``, float32[], with population variances.

    1 as long as no return is known and the variance is at most 0.01, as in the code of Vasan et al. 2024. Schaul,
    Ostrovski, Kemaev, Borsa 2021, "Return-based Scaling: Yet Another Normalisation Trick for Deep RL".
    """
    returns = jnp.where(scale.squares.seen > 0, scale.squares.mean, 0.0)
    variance = jnp.maximum(scale.rewards.variance + scale.discounts.variance * returns, LEAST)
    early = (scale.squares.seen == 0) & (variance <= EARLY)
    return jnp.where(early, 1.0, jnp.sqrt(variance))
