"""JAX settings that affect numbers: every run uses the same ones, regardless of the environment."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax

from plasticity.core.errors import UserError

# Of single precision and of random numbers. A matrix multiplication's precision is the user's to choose: it changes
# rounding, not which numbers are drawn.
NUMBERS: Mapping[str, Any] = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_numpy_dtype_promotion": "standard",
}


def _others() -> dict[str, Any]:
    """The settings that differ from ``NUMBERS``, with their values."""
    now = {name: getattr(jax.config, name, wanted) for name, wanted in NUMBERS.items()}
    return {name: value for name, value in now.items() if value != NUMBERS[name]}


def restore() -> None:
    """Set the settings that the environment or an installed package has changed, with a warning for each."""
    for name, value in _others().items():
        jax.config.update(name, NUMBERS[name])
        warnings.warn(
            f"{name.upper()} was {value}; runs compute with {NUMBERS[name]}, so it was set to that", stacklevel=3
        )


def check_unchanged() -> None:
    """``UserError`` if a member has changed one of the settings while it was built, as it would again in the run."""
    for name, value in _others().items():
        jax.config.update(name, NUMBERS[name])
        raise UserError(
            f"a member of this experiment sets {name} to {value} while it is built; runs compute with {NUMBERS[name]}"
        )
