"""A Kalman filter over the weights of a linear predictor that drift towards their prior.

The weights of each output are ``w_0 ~ N(0, s I)`` and ``w_n = gamma w_{n-1} + sqrt(1 - gamma^2) e_n`` with
``e_n ~ N(0, s I)``, so that their variance is ``s`` at all times; an example with features ``x`` has the target
``y ~ N(w_n^T x, v)``. All outputs share ``gamma``, ``s``, ``v`` and therefore the covariance of their weights.

Arrays: features ``x[E, d]``, means ``m[d, K]`` of the weights of ``K`` outputs, covariance ``A[d, d]``, targets
``y[E, K]``. The ``E`` examples of a step belong to the same ``n``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.schedules import Number
from plasticity.core.types import Array


class Belief(NamedTuple):
    """The distribution of the weights of every output: ``N(mean[:, k], covariance)``."""

    mean: Array
    covariance: Array


def drifted(belief: Belief, gamma: Number, prior: Number) -> Belief:
    """One step of drift: ``gamma m`` and ``gamma^2 A + (1 - gamma^2) prior I``."""
    added = (1 - jnp.square(gamma)) * prior
    covariance = jnp.square(gamma) * belief.covariance + added * jnp.eye(len(belief.covariance))
    return Belief(gamma * belief.mean, covariance)


def predicted(belief: Belief, features: Array) -> tuple[Array, Array]:
    """The means ``[E, K]`` and the variance ``[E]`` (the same for all outputs, without noise) of ``w^T x``."""
    spread = jnp.einsum("ei,ij,ej->e", features, belief.covariance, features)
    return features @ belief.mean, jnp.maximum(spread, 0.0)


def corrected(belief: Belief, features: Array, targets: Array, noise: Number) -> Belief:
    """The distribution after the targets of ``E`` examples with variance ``noise`` were seen.

    ``S = x A x^T + noise I``, ``m + A x^T S^-1 (y - x m)``, ``A - A x^T S^-1 x A``.
    """
    shared = belief.covariance @ features.T  # [d, E]
    factor = jnp.linalg.cholesky(features @ shared + noise * jnp.eye(len(features)))
    errors = targets - features @ belief.mean
    # With S = L L^T, both corrections are products with L^-1 x A, and the covariance stays symmetric.
    rows = jax.scipy.linalg.solve_triangular(factor, shared.T, lower=True)
    mean = belief.mean + rows.T @ jax.scipy.linalg.solve_triangular(factor, errors, lower=True)
    return Belief(mean, belief.covariance - rows.T @ rows)


def gaussian_losses(means: Array, spread: Array, targets: Array, noise: Number) -> Array:
    """``-log p(y)`` of each example, ``[E]``, with independent outputs ``N(mean, spread + noise)``."""
    variance = (spread + noise)[:, None]
    return 0.5 * jnp.sum(jnp.log(2 * jnp.pi * variance) + jnp.square(targets - means) / variance, axis=-1)


def softmax_losses(means: Array, spread: Array, labels: Array, scale: Number, draws: Array) -> Array:
    """``-log E softmax(scale f)_label`` of each example, ``[E]``, with ``f ~ N(mean, spread I)``.

    The expectation is the mean over ``draws[S, K]``, standard normal numbers that all examples share.
    """
    outputs = means + jnp.sqrt(spread + jnp.finfo(jnp.float32).tiny)[:, None] * draws[:, None]
    logs = jax.nn.log_softmax(scale * outputs)[:, jnp.arange(len(labels)), labels]
    return jnp.log(float(len(draws))) - jax.nn.logsumexp(logs, axis=0)
