"""Decompositions that may be vmapped on a CPU.

On a CPU, jaxlib (0.10) splits a batch of decompositions into tasks for the thread pool that the caller itself may
occupy, and waits for them. We observed two devices of a two-core machine doing so at the same time, each in the SVD of
an effective rank, and waiting indefinitely. Processing one matrix after another creates no such tasks.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, Key


def one_by_one(decompose: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``decompose`` a loop under ``vmap`` on a CPU; on other backends it is unchanged."""
    looped = jax.custom_batching.sequential_vmap(decompose)

    def call(*args: Any) -> Any:
        return (looped if jax.default_backend() == "cpu" else decompose)(*args)

    return call


@one_by_one
def singular_values(matrix: Array) -> Array:
    """Descending, ``float32[min(n, d)]`` of a matrix ``[n, d]``."""
    return jnp.linalg.svd(matrix, compute_uv=False)


@one_by_one
def eigenvalues(matrix: Array) -> Array:
    """Ascending, ``float32[n]`` of a symmetric matrix ``[n, n]``."""
    return jnp.linalg.eigvalsh(matrix)


@one_by_one
def qr(matrix: Array) -> tuple[Array, Array]:
    """The reduced factors of a matrix ``[n, d]``."""
    q, r = jnp.linalg.qr(matrix)
    return q, r


def orthogonal(key: Key, shape: tuple[int, ...], scale: float) -> Array:
    """``scale`` times a random matrix ``[prod(shape[:-1]), shape[-1]]`` that is orthonormal on its short side.

    Uniform over such matrices: the QR decomposition of a Gaussian matrix, with the signs of R's diagonal given to Q.
    Saxe, McClelland, Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear networks".
    """
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = qr(jax.random.normal(key, (max(rows, columns), min(rows, columns))))
    q = q * jnp.sign(jnp.diagonal(r))
    return (scale * (q if rows >= columns else q.T)).reshape(shape)


def newton_schulz(matrices: Array, iterations: int) -> Array:
    """``U V^T`` of each matrix ``U S V^T``, ``[..., n, d]``, approximately: the nearest isometry.

    ``X <- W / |W|_F``, then ``X <- 3/2 X - 1/2 X X^T X``, ``iterations`` (static) times. Every singular value ``s``, at
    first between 0 and 1, becomes ``s (3 - s^2) / 2``: a small one grows by a half each time, and all tend to 1. Zeros
    stay zero.
    """
    wide = matrices.shape[-2] < matrices.shape[-1]
    x = jnp.swapaxes(matrices, -1, -2) if wide else matrices
    length = jnp.sqrt(jnp.square(x).sum((-2, -1), keepdims=True))
    multiply = partial(jnp.matmul, precision="highest")

    def iterate(_: Any, x: Array) -> Array:
        return 1.5 * x - 0.5 * multiply(x, multiply(jnp.swapaxes(x, -1, -2), x))

    x = jax.lax.fori_loop(0, iterations, iterate, x / jnp.maximum(length, jnp.finfo(jnp.float32).tiny))
    return jnp.swapaxes(x, -1, -2) if wide else x
