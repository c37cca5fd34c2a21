"""A network with one residual block: a graph of nodes."""

from typing import Any

from plasticity.config.fields import Size
from plasticity.networks.graph import Node
from plasticity.networks.operations import Activate, Dense, Sum
from plasticity.networks.spec import AnActivation, NetworkSpec


def residual_block(
    observation: Any, outputs: int, *, width: Size = 64, activation: AnActivation = "relu"
) -> NetworkSpec:
    """``x = W_0 o``, ``x <- f(x + W_2 f(W_1 x))``, then the output layer; all settings static."""
    linear = Dense(width, normalise=False, activate=False)
    body = (
        Node("embedding", linear),  # a node without inputs of its own reads the observation
        Node("inner", Dense(width), ("embedding",)),
        Node("outer", linear, ("inner",)),
        Node("sum", Sum(), ("embedding", "outer")),
        Node("features", Activate(), ("sum",)),
    )
    return NetworkSpec(observation.shape, outputs, activation=activation, body=body)
