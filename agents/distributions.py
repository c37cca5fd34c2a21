"""Action distributions defined by a policy's outputs, one per row of a batch."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, Key


class Squashed(NamedTuple):
    """A policy of real-valued actions in (-1, 1) in ``B`` states."""

    sample: Callable[[Key], tuple[Array, Array]]  # actions [B, size] and the logarithms of their densities [B]
    mode: Array  # the squashed means
    at: Callable[[Array], tuple[Array, Array]]  # as `sample`, given the standard normal numbers [B, size]


class Distribution(NamedTuple):
    """The policy in ``B`` states."""

    sample: Callable[[Key], Array]  # actions [B], or [B, size] if real-valued
    log_probability: Callable[[Array], Array]  # actions -> float32[B]; log density if real-valued
    mode: Array  # the most likely actions
    entropy: Array  # float32[B], in nats


def categorical(logits: Array) -> Distribution:
    """``p_a = exp(logits_a) / sum_b exp(logits_b)``, ``H = -sum_a p_a log p_a``; ``logits [B, actions]``."""
    log_p = jax.nn.log_softmax(logits)

    def log_probability(actions: Array) -> Array:
        taken = jnp.arange(logits.shape[-1]) == actions[:, None]
        return jnp.sum(jnp.where(taken, log_p, 0.0), axis=-1)  # a sum: its gradient needs no scatter

    return Distribution(
        lambda key: jax.random.categorical(key, log_p).astype(jnp.int32),
        log_probability,
        jnp.argmax(logits, axis=-1).astype(jnp.int32),
        -jnp.sum(jnp.exp(log_p) * log_p, axis=-1),
    )


def gaussian(mean: Array, log_std: Array) -> Distribution:
    """Independent normals with ``mean [B, size]`` and standard deviations ``exp(log_std)``.

    ``log_std`` is ``[size]``, the same in all states, or ``[B, size]``.

    ``log p = -sum_i [((a_i - mean_i) / std_i)^2 / 2 + log std_i + log(2 pi) / 2]``,
    ``H = sum_i [log std_i + (1 + log(2 pi)) / 2]``.
    """
    half = 0.5 * math.log(2 * math.pi)

    def log_probability(actions: Array) -> Array:
        distance = (actions - mean) * jnp.exp(-log_std)
        return -jnp.sum(0.5 * jnp.square(distance) + log_std + half, axis=-1)

    return Distribution(
        lambda key: mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape),
        log_probability,
        mean,
        jnp.broadcast_to(jnp.sum(log_std + half + 0.5, axis=-1), mean.shape[:1]),
    )


def squashed(mean: Array, log_std: Array) -> Squashed:
    """``a = tanh(u)`` with independent normals ``u``: ``mean, log_std [B, size]``.

    ``log p(a) = sum_i [log N(u_i) - log(1 - tanh(u_i)^2)]``, with
    ``log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))``, which does not lose digits where tanh saturates. Haarnoja
    et al. 2018, "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic Actor",
    appendix C.
    """

    def at(noise: Array) -> tuple[Array, Array]:
        u = mean + jnp.exp(log_std) * noise
        normal = -0.5 * jnp.square(noise) - log_std - 0.5 * math.log(2 * math.pi)
        bent = 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
        return jnp.tanh(u), jnp.sum(normal - bent, axis=-1)

    return Squashed(lambda key: at(jax.random.normal(key, mean.shape)), jnp.tanh(mean), at)
