"""Means over the entries that count."""

import jax.numpy as jnp

from plasticity.core.types import Array


def mean_where(valid: Array, values: Array) -> Array:
    """The mean of ``values [B, ...]`` over the valid rows, ``[...]``; 0 if there is none. ``valid``: bool[B]."""
    mask = valid.reshape(valid.shape + (1,) * (values.ndim - valid.ndim))
    axes = tuple(range(valid.ndim))
    return jnp.sum(jnp.where(mask, values, 0.0), axis=axes) / jnp.maximum(jnp.sum(valid), 1)
