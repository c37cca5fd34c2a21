"""What an agent's networks say about a batch, as distributions: of classes and actions, of returns, of targets."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, Params

Vector = Array  # [B, n]
OUTPUT = "output"  # the name of a network's output, if it has no named parts


class Logits(NamedTuple):
    """A categorical distribution."""

    logits: Array  # [B, n], or [B, m, n] for m distributions

    def divergence(self, other: "Logits") -> Array:
        """``KL(self || other)``, float32[B], summed over the distributions."""
        own, theirs = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return over_rows(jnp.exp(own) * (own - theirs))

    def whitened(self) -> Vector:
        """``sqrt(p_a) log p_a``, with the gradient through ``log p_a`` only."""
        log_p = jax.nn.log_softmax(self.logits)
        return flat(jax.lax.stop_gradient(jnp.exp(0.5 * log_p)) * log_p)

    def numbers(self) -> Vector:
        return flat(self.logits)


class Normal(NamedTuple):
    """Independent normal distributions; also those that are squashed afterwards, whose divergences are the same."""

    mean: Array  # [B, n]
    log_std: Array  # [B, n]

    def divergence(self, other: "Normal") -> Array:
        """``KL(self || other)``, float32[B], summed over the ``n`` distributions."""
        distance = jnp.square(self.mean - other.mean) * jnp.exp(-2 * other.log_std)
        change = self.log_std - other.log_std
        return over_rows(0.5 * (distance + jnp.exp(2 * change) - 1) - change)

    def whitened(self) -> Vector:
        """``mean / std`` and ``sqrt(2) log std``, with the gradient through ``mean`` and ``log std`` only."""
        scaled = self.mean * jax.lax.stop_gradient(jnp.exp(-self.log_std))
        return jnp.concatenate([flat(scaled), math.sqrt(2) * flat(self.log_std)], axis=-1)

    def numbers(self) -> Vector:
        return jnp.concatenate([flat(self.mean), flat(self.log_std)], axis=-1)


class Values(NamedTuple):
    """Real numbers, such as action values: the means of normal distributions with variance 1."""

    values: Array  # [B, n]

    def divergence(self, other: "Values") -> Array:
        """``|self - other|^2 / 2``, float32[B], which is the Kullback-Leibler divergence at variance 1."""
        return over_rows(0.5 * jnp.square(self.values - other.values))

    def whitened(self) -> Vector:
        return flat(self.values)

    def numbers(self) -> Vector:
        return flat(self.values)


Output = Logits | Normal | Values
Outputs = Mapping[str, Output]  # by part of the network
Read = Callable[[Params, Any], Outputs]  # parameters, what the network reads [B, ...] -> outputs


def flat(x: Array) -> Vector:
    return x.reshape(len(x), -1)


def over_rows(x: Array) -> Array:
    """The sum of each row, ``[B, ...] -> [B]``."""
    return jnp.sum(flat(x), axis=-1)


def divergence(old: Outputs, new: Outputs) -> Array:
    """``sum_i KL(old_i || new_i)`` over the parts, float32[B]."""
    return sum((each.divergence(new[name]) for name, each in old.items()), jnp.zeros(()))  # type: ignore[arg-type]


def whitened(outputs: Outputs) -> Vector:
    """Numbers ``z [B, n]`` with ``sum_k (dz_k / dtheta)^2`` the diagonal of the Fisher information of each row.

    ``E_a [(d log p(a) / dtheta)^2]`` is ``sum_a p_a (d log p_a)^2`` for :class:`Logits`, ``sum_i [(d mean_i)^2 +
    2 (d std_i)^2] / std_i^2`` for :class:`Normal`, and ``sum_i (d value_i)^2`` for :class:`Values`.
    """
    return jnp.concatenate([each.whitened() for each in outputs.values()], axis=-1)


def numbers(outputs: Outputs) -> Vector:
    """All numbers of the outputs, ``[B, n]``: logits, means, logarithms of standard deviations, values."""
    return jnp.concatenate([each.numbers() for each in outputs.values()], axis=-1)
