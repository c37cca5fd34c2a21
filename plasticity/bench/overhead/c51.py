"""Categorical Q-learning by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.bench.overhead import world
from plasticity.bench.overhead.plain import Plain
from plasticity.bench.overhead.replay import DISCOUNT, Batch, Loss, learner, network
from plasticity.core.types import Array, Params

ATOMS, BOUND = 51, 10.0
SUPPORT = np.linspace(-BOUND, BOUND, ATOMS, dtype=np.float32)


def logits(params: Params, observations: Array) -> Array:
    """``[B, actions, atoms]``."""
    return network(params, observations).reshape(-1, world.ACTIONS, ATOMS)


def means(logits: Array) -> Array:
    return jax.nn.softmax(logits) @ SUPPORT


def projected(returns: Array, probabilities: Array) -> Array:
    """Distributions over the returns ``[B, atoms]``, shared out between the neighbouring atoms."""
    apart = jnp.abs(jnp.clip(returns, -BOUND, BOUND)[:, None, :] - SUPPORT[:, None])
    shares = jnp.clip(1.0 - apart * ((ATOMS - 1) / (2 * BOUND)), 0.0, 1.0)
    return jnp.sum(shares * probabilities[:, None, :], -1)


def of_action(logits: Array, action: Array) -> Array:
    return jnp.take_along_axis(logits, action[:, None, None], 1)[:, 0]


def losses(params: Params, target: Params, batch: Batch) -> tuple[Array, Array]:
    """Cross-entropies against the projected target distributions."""
    now, later = logits(params, batch.observation), logits(target, batch.following)
    probabilities = jax.nn.softmax(of_action(later, means(later).argmax(-1)))
    returns = batch.reward[:, None] + DISCOUNT * batch.discount[:, None] * SUPPORT
    wanted = projected(returns, probabilities)
    return -jnp.sum(wanted * jax.nn.log_softmax(of_action(now, batch.action)), -1), means(now)


def c51(steps: int, **settings: Any) -> Plain:
    outputs = world.ACTIONS * ATOMS
    return learner(steps, Loss(outputs, lambda params, x: means(logits(params, x)), losses), **settings)
