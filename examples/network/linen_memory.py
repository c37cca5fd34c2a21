"""A flax linen GRU cell as a network with memory."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from plasticity.config.fields import Size
from plasticity.core.types import Activation, Array
from plasticity.networks.functions import Functions, layer_units


class Recurrent(nn.Module):
    units: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array, carry: Array) -> Any:
        carry, h = nn.GRUCell(self.units, name="cell")(carry, x.reshape(len(x), -1))
        return nn.Dense(self.outputs, name="output")(h), {"memory": Activation(h, h)}, carry


def linen_gru(observation: Any, outputs: int, *, width: Size = 32) -> Functions:
    """A GRU of ``width`` units on the observation; all settings static."""
    module = Recurrent(width, outputs)
    readers = [("cell", name) for name in ("hr", "hz", "hn")]  # kernels from the units to the three gates
    writers = [("cell", name) for name in ("ir", "iz", "in")] + readers
    return Functions(
        observation,
        outputs,
        init=lambda key: module.init(key, jnp.zeros((1, *observation.shape)), jnp.zeros((1, width)))["params"],
        apply=lambda params, x, carry: module.apply({"params": params}, x, carry),
        initial=lambda batch: jnp.zeros((batch, width)),
        layers=("memory",),
        hidden=tuple(writers),
        output_layers=(("output",),),
        units=(layer_units("memory", width, writers, *readers, ("output",), carries=[()]),),
    )
