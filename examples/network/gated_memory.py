"""A network with memory: a recurrent node between two dense layers."""

from typing import Any

from plasticity.config.fields import Size
from plasticity.networks.graph import Node
from plasticity.networks.operations import Dense, Recurrent
from plasticity.networks.spec import NetworkSpec


def gated_memory(observation: Any, outputs: int, *, width: Size = 32, units: Size = 32) -> NetworkSpec:
    """A dense layer, a GRU, a dense layer and the output layer; all settings static."""
    body = (
        Node("encoder", Dense(width)),
        Node("memory", Recurrent("gru", units), ("encoder",)),
    )
    return NetworkSpec(observation.shape, outputs, widths=(width,), body=body)
