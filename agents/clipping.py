"""Clipped losses of proximal policy optimization, row by row, and metrics of the clipping."""

import jax.numpy as jnp

from plasticity.core.masked import mean_where
from plasticity.core.schedules import Number
from plasticity.core.types import Array


def policy_loss(log_ratio: Array, advantage: Array, clip: Number) -> Array:
    """``-min(rho A, clip(rho, 1 - clip, 1 + clip) A)``, ``[B]``, with ``rho = exp(log_ratio)``; ``clip`` is traced."""
    ratio = jnp.exp(log_ratio)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def value_loss(value: Array, old: Array, target: Array, clip: Number | None) -> Array:
    """``(v - target)^2 / 2``, ``[B]``; with a clip, at least its value at ``old + clip(v - old, -clip, clip)``."""
    error = 0.5 * jnp.square(value - target)
    if clip is None:
        return error
    held = old + jnp.clip(value - old, -clip, clip)
    return jnp.maximum(error, 0.5 * jnp.square(held - target))


def ratio_metrics(log_ratio: Array, valid: Array, clip: Number) -> dict[str, Array]:
    """Distance between the policy and the behaviour policy over the valid rows; ``rho = exp(log_ratio)``, ``[B]``.

    * ``approx_kl``: ``mean(rho - 1 - log rho)`` (Schulman 2020, "Approximating KL Divergence").
    * ``clip_fraction``: the fraction with ``|rho - 1| > clip``.
    * ``ratio_above``, ``ratio_below``: the mean of rho over the rows above ``1 + clip`` or below ``1 - clip``. It is 1,
      the ratio of an unchanged policy, if there are no such rows.

    Each rollout also records ``excess_ratio``: the mean of ``ratio_above`` over its updates divided by the mean of
    ``ratio_below`` (Moalla et al. 2024, "No Representation, No Trust").
    """
    ratio = jnp.exp(log_ratio)
    above, below = valid & (ratio > 1 + clip), valid & (ratio < 1 - clip)
    means = [jnp.where(jnp.any(those), mean_where(those, ratio), 1.0) for those in (above, below)]
    return {
        "approx_kl": mean_where(valid, ratio - 1 - log_ratio),
        "clip_fraction": mean_where(valid, (above | below).astype(jnp.float32)),
        "ratio_above": means[0],
        "ratio_below": means[1],
    }


def with_excess(total: dict[str, Array]) -> dict[str, Array]:
    """Add ``excess_ratio`` to the sums over a rollout's updates: the ratio of the means, counted once per update.

    In the first update of a rollout all ratios are 1, so there is no division by 0.
    """
    return {**total, "excess_ratio": total["updates"] * total["ratio_above"] / total["ratio_below"]}
