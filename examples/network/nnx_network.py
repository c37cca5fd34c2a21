"""A flax nnx module as a network; methods and monitors see its activations and its kernels."""

import math
from typing import Any

import jax
from flax import nnx

from plasticity.config.fields import Size
from plasticity.core.types import Activation, Array
from plasticity.networks.functions import Functions


class MLP(nnx.Module):
    def __init__(self, inputs: int, width: int, outputs: int, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(inputs, width, rngs=rngs)
        self.output = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, x: Array) -> Any:
        z = self.hidden(x.reshape(len(x), -1))
        h = nnx.relu(z)
        return self.output(h), {"hidden": Activation(z, h)}


def nnx_mlp(observation: Any, outputs: int, *, width: Size = 64) -> Functions:
    """One hidden layer of ``width`` units; all settings static."""

    def make(key: Any) -> MLP:
        return MLP(math.prod(observation.shape), width, outputs, nnx.Rngs(key))

    def apply(params: Any, x: Array) -> Any:
        graph, state = nnx.split(nnx.eval_shape(make, jax.random.key(0)))
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state)(x)

    return Functions(
        observation,
        outputs,
        init=lambda key: nnx.to_pure_dict(nnx.state(make(key))),
        apply=apply,
        layers=("hidden",),
        hidden=(("hidden",),),
        output_layers=(("output",),),
    )
