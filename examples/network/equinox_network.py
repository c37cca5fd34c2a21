"""An Equinox module as a network, of which methods and monitors know only the outputs."""

import math
from typing import Any

import equinox as eqx
import jax

from plasticity.config.fields import Size
from plasticity.core.types import Array
from plasticity.networks.functions import Functions


def equinox_mlp(observation: Any, outputs: int, *, width: Size = 64) -> Functions:
    """One hidden layer of ``width`` units; all settings static."""

    def make(key: Any) -> Any:
        model = eqx.nn.MLP(math.prod(observation.shape), outputs, width, depth=1, key=key)
        return eqx.partition(model, eqx.is_array)

    def init(key: Any) -> Any:
        return {str(i): array for i, array in enumerate(jax.tree.leaves(make(key)[0]))}

    def apply(params: Any, x: Array) -> Any:
        arrays, rest = make(jax.random.key(0))
        arrays = jax.tree.unflatten(jax.tree.structure(arrays), [params[str(i)] for i in range(len(params))])
        return jax.vmap(eqx.combine(arrays, rest))(x.reshape(len(x), -1)), {}

    return Functions(observation, outputs, init, apply)
