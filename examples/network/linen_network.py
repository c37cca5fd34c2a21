"""A flax linen module as a network, with everything that methods and monitors may use."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from plasticity.config.fields import Size
from plasticity.core.types import Activation, Array
from plasticity.networks.functions import Functions, layer_units


class MLP(nn.Module):
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Any:
        z = nn.Dense(self.width, name="hidden")(x.reshape(len(x), -1))
        h = nn.relu(z)
        return nn.Dense(self.outputs, name="output")(h), {"hidden": Activation(z, h)}


def linen_mlp(observation: Any, outputs: int, *, width: Size = 64) -> Functions:
    """One hidden layer of ``width`` units; all settings static."""
    module = MLP(width, outputs)
    return Functions(
        observation,
        outputs,
        init=lambda key: module.init(key, jnp.zeros((1, *observation.shape)))["params"],
        apply=lambda params, x: module.apply({"params": params}, x),
        layers=("hidden",),
        hidden=(("hidden",),),
        output_layers=(("output",),),
        units=(layer_units("hidden", width, ("hidden",), ("output",)),),
    )
