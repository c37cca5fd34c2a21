"""Treatment of truncated episodes."""

from typing import Literal, get_args

import jax.numpy as jnp

from plasticity.core.types import LAST, Array

Truncation = Literal["bootstrap", "terminal"]
# bootstrap: use the value of the last observation, as if the episode continued; terminal: as if it had terminated


def check_truncation(truncation: Truncation) -> None:
    """Raise ``ValueError`` for an unknown name."""
    if truncation not in get_args(Truncation):
        known = ", ".join(get_args(Truncation))
        raise ValueError(f"agent.truncation: {truncation} is not allowed; must be one of {known}")


def kept_discount(discount: Array, step_type: Array, truncation: Truncation) -> Array:
    """The environment's discount; with "terminal" (static), 0 at truncations."""
    return discount if truncation == "bootstrap" else jnp.where(step_type == LAST, 0.0, discount)
