"""A network: dense layers, each half as wide as the one before."""

from typing import Any

from plasticity.config.fields import Few, Size
from plasticity.networks.spec import AnActivation, NetworkSpec


def pyramid(
    observation: Any, outputs: int, *, width: Size = 256, layers: Few = 3, activation: AnActivation = "relu"
) -> NetworkSpec:
    """Dense layers of ``width``, ``width / 2``, ``width / 4``, ... units; all settings are static.

    ``ValueError`` if the last layer would have no unit.
    """
    widths = tuple(width >> i for i in range(layers))
    if widths[-1] < 1:
        raise ValueError(f"layers: {layers} is not allowed with width: {width}; the last layer would have no unit")
    return NetworkSpec(observation.shape, outputs, widths=widths, activation=activation)
