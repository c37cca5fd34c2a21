"""A non-linearity with a parameter: ReLU whose threshold each unit learns."""

from typing import Any

import jax
import jax.numpy as jnp

from plasticity.networks.nonlinearity import NonLinearity


def shifted_relu(*, threshold: float = 0.0) -> NonLinearity:
    """``max(z - t, 0)`` with a threshold ``t`` for each unit; ``threshold`` is its initial value (static)."""

    def function(parameters: Any, z: jax.Array) -> jax.Array:
        return jax.nn.relu(z - parameters["threshold"])

    def initial(key: jax.Array, units: int) -> dict[str, jax.Array]:
        del key
        return {"threshold": jnp.full(units, threshold)}

    return NonLinearity(function, initial=initial)
