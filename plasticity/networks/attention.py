"""Networks with attention."""

from typing import Any

from plasticity.config.fields import Few, Size, metadata
from plasticity.core.errors import refused
from plasticity.networks.graph import OBSERVATION, Node
from plasticity.networks.operations import Attention, Convolution, Dense, Normalise, Operation, Token, Tokens
from plasticity.networks.presets import AFFINE, is_channels_first, pixel_scale
from plasticity.networks.residual import Layout, in_a_row, joined
from plasticity.networks.spec import AnActivation, Method, NetworkSpec, NormalisationName


@metadata(only_with=AFFINE)
def vit(
    observation: Any,
    outputs: int,
    *,
    patch: Few = 4,
    width: Size = 192,
    depth: Few = 6,
    heads: Few = 3,
    expansion: Few = 4,
    layout: Layout = "auto",
    activation: AnActivation = "gelu",
    normalisation: NormalisationName = "none",
    affine: bool = True,
    bias: bool = True,
    convolution: Method = "auto",
) -> NetworkSpec:
    """A small vision transformer; all settings static.

    Patches of ``patch`` x ``patch`` pixels are projected to ``width`` features; a class token and learned positions are
    added; then ``depth`` blocks ``x <- x + A(LN(x))``, ``x <- x + W_2 f(W_1 LN(x))`` with ``heads`` attention heads and
    ``expansion`` times ``width`` units in ``W_1``; then the layer normalisation of the class token. A ``normalisation``
    is an additional one before the non-linearity of each block.

    Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale". With patch 4,
    width 384, depth 8 and 12 heads it has the 14,279,140 parameters of Hernandez-Garcia et al. 2025, "Reinitializing
    weights vs units for maintaining plasticity in neural networks", for 32x32 images and 100 classes. There is no
    dropout. Kernels are Glorot uniform. Pixels (uint8) are divided by 255; ``layout`` as in ``nature``. ``ValueError``
    if ``patch`` does not divide the image's sides.
    """
    first = is_channels_first(observation, layout)
    sides = observation.shape[1:] if first else observation.shape[:2]
    if len(observation.shape) == 3 and any(side % patch for side in sides):
        raise refused("patch", patch, f"a divisor of the image's sides, {sides[0]} and {sides[1]}")
    linear = Dense(width, flatten=False, normalise=False, activate=False)
    patches = Convolution(width, patch, patch, normalise=False, activate=False)
    nodes: list[Node] = in_a_row("embedding", {"patches": patches, "tokens": Tokens(class_token=True)}, OBSERVATION)
    for block in range(depth):
        name, before = f"block_{block}", nodes[-1].name
        norm = Normalise("layer", affine=True)
        attention: dict[str, Operation] = {"norm_0": norm, "attention": Attention(heads)}
        nodes += joined(f"{name}_sum", in_a_row(name, attention, before), before)
        parts: dict[str, Operation] = {
            "norm_1": norm,
            "dense_0": Dense(expansion * width, flatten=False),
            "dense_1": linear,
        }
        nodes += joined(name, in_a_row(name, parts, nodes[-1].name), nodes[-1].name)
    nodes += in_a_row("class", {"token": Token(0), "norm": Normalise("layer", affine=True)}, nodes[-1].name)
    style = (activation, normalisation, affine, bias, "glorot")
    scale = pixel_scale(observation)
    return NetworkSpec(observation.shape, outputs, (), (), *style, first, scale, convolution, body=tuple(nodes))
