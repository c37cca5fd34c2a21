"""Chains of convolutions and dense layers. Each network is a function that returns a ``NetworkSpec``."""

from typing import Annotated, Any, Literal

import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import Size, Widths, metadata
from plasticity.core.errors import check
from plasticity.networks.graph import OBSERVATION, chain
from plasticity.networks.layers import NORMALISATIONS_WITH_PARAMETERS
from plasticity.networks.operations import Activate, Dense, Normalise, Operation, Sphere
from plasticity.networks.spec import (
    AnActivation,
    Convolution,
    InitialiserName,
    Method,
    NetworkSpec,
    NormalisationName,
    Padding,
)

AFFINE = {"affine": {"normalisation": NORMALISATIONS_WITH_PARAMETERS}}  # as ``Metadata.only_with``
Penultimate = Literal["none", "unit"]
Filters = Annotated[tuple[Size, ...], Field(min_length=1, max_length=3)]


@metadata(only_with=AFFINE)
def mlp(
    observation: Any,
    outputs: int,
    *,
    widths: Widths = (256, 256),
    activation: AnActivation = "relu",
    normalisation: NormalisationName = "none",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "he",
    penultimate: Penultimate = "none",
) -> NetworkSpec:
    """Dense layers on the flattened observation; all settings static.

    ``observation`` has the ``.shape`` and ``.dtype`` of one observation; unsigned bytes are divided by 255.
    ``penultimate`` "unit": the output layer reads the last hidden layer divided by its Euclidean norm (Bjorck, Gomes,
    Weinberger 2022, "Is High Variance Unavoidable in RL? A Case Study in Continuous Control"). ``ValueError`` if there
    is no hidden layer then.
    """
    check("penultimate", penultimate, ("none", "unit"))
    style = (activation, normalisation, affine, bias, initialiser)
    scale = pixel_scale(observation)
    if penultimate == "none":
        return NetworkSpec(observation.shape, outputs, (), widths, *style, scale=scale)
    if not widths:
        raise ValueError("penultimate: unit is not allowed without hidden layers; give widths at least one number")
    names = [*(f"hidden_{i}" for i in range(len(widths))), "penultimate"]
    body = chain(names, [*map(Dense, widths), Sphere()], OBSERVATION)
    return NetworkSpec(observation.shape, outputs, (), (), *style, scale=scale, body=tuple(body))


def layer_norm_mlp(
    observation: Any,
    outputs: int,
    *,
    widths: Annotated[Widths, Field(min_length=1)] = (256, 256, 256, 256),
    activation: AnActivation = "leaky_relu",
    bias: bool = True,
    initialiser: InitialiserName = "glorot",
) -> NetworkSpec:
    """Dense layers, with layer normalisation and tanh after the first and ``activation`` after the others.

    All settings are static. With the defaults, actor and critics of Continual World: Wolczyk et al. 2021, "Continual
    World: A Robotic Benchmark For Continual Reinforcement Learning" (released code), where the slope of the leaky ReLU
    is 0.2 (``interventions: [{kind: leaky_relu, slope: 0.2}]``). Unsigned bytes are divided by 255.
    """
    first = Dense(widths[0], normalise=False, activate=False)
    operations: list[Operation] = [first, Normalise("layer", affine=True), Activate("tanh", normalise=False)]
    body = chain(["first", "first_norm", "first_tanh"], operations, OBSERVATION)
    return NetworkSpec(
        observation.shape, outputs, (), widths[1:], activation, "none", True, bias, initialiser,
        scale=pixel_scale(observation), body=tuple(body),
    )  # fmt: skip


@metadata(only_with=AFFINE)
def minatar(
    observation: Any,
    outputs: int,
    *,
    filters: Size = 16,
    widths: Widths = (128,),
    activation: AnActivation = "relu",
    normalisation: NormalisationName = "none",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "he",
    convolution: Method = "auto",
) -> NetworkSpec:
    """One 3x3 convolution and a dense layer, for maps ``[H, W, channels]``; all settings static.

    Young, Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning
    Experiments".
    """
    style = (activation, normalisation, affine, bias, initialiser)
    convolutions = (Convolution(filters, 3),)
    return NetworkSpec(observation.shape, outputs, convolutions, widths, *style, convolution=convolution)


@metadata(only_with=AFFINE)
def nature(
    observation: Any,
    outputs: int,
    *,
    filters: Filters = (32, 64, 64),
    widths: Widths = (512,),
    padding: Padding = "VALID",
    layout: Literal["auto", "channels_first", "channels_last"] = "auto",
    activation: AnActivation = "relu",
    normalisation: NormalisationName = "none",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "he",
    convolution: Method = "auto",
) -> NetworkSpec:
    """Convolutions of 32 8x8 kernels at stride 4, 64 4x4 at 2, 64 3x3 at 1, and a dense layer; all settings static.

    Mnih et al. 2015, "Human-level control through deep reinforcement learning". With two ``filters``, there is no third
    convolution: ``[16, 32]`` and ``widths: [256]`` are the network of Mnih et al. 2013, "Playing Atari with Deep
    Reinforcement Learning", and of Schulman et al. 2017, "Proximal Policy Optimization Algorithms". Pixels (uint8) are
    divided by 255. ``layout`` "auto" takes the first axis as the channels if it is shorter than the last (stacked
    frames ``[4, 84, 84]``). With three filters, images smaller than 36x36 need ``padding`` "SAME". The paper does not
    use He initialisation.
    """
    shape, first = tuple(observation.shape), is_channels_first(observation, layout)
    sizes = ((8, 4), (4, 2), (3, 1))  # kernels and strides
    if not 1 <= len(filters) <= len(sizes):
        raise ValueError(f"filters: {list(filters)} is not allowed; must be a list with 1 to 3")
    convolutions = tuple(Convolution(n, *size, padding=padding) for n, size in zip(filters, sizes, strict=False))
    style = (activation, normalisation, affine, bias, initialiser)
    return NetworkSpec(shape, outputs, convolutions, widths, *style, first, pixel_scale(observation), convolution)


@metadata(only_with=AFFINE)
def streaming(
    observation: Any,
    outputs: int,
    *,
    widths: Widths = (256,),
    activation: AnActivation = "leaky_relu",
    normalisation: NormalisationName = "map",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "sparse",
    convolution: Method = "auto",
) -> NetworkSpec:
    """Convolutions of 32 8x8 kernels at stride 5, 64 4x4 at 3, 64 3x3 at 2, and a dense layer, for stacked frames.

    Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works"; all settings static. Unsigned
    bytes are divided by 255, which has no effect with an observation normaliser.
    """
    sizes = ((32, 8, 5), (64, 4, 3), (64, 3, 2))
    convolutions = tuple(Convolution(*size) for size in sizes)
    style = (activation, normalisation, affine, bias, initialiser)
    scale = pixel_scale(observation)
    return NetworkSpec(observation.shape, outputs, convolutions, widths, *style, True, scale, convolution)


def is_channels_first(observation: Any, layout: str) -> bool:
    """Whether the first axis holds the channels; "auto": if it is shorter than the last. ``ValueError`` for others."""
    check("layout", layout, ("auto", "channels_first", "channels_last"))
    shape = tuple(observation.shape)
    return shape[:1] < shape[-1:] if layout == "auto" else layout == "channels_first"


def pixel_scale(observation: Any) -> float:
    """1/255 for unsigned bytes, else 1."""
    return 1.0 / 255.0 if jnp.dtype(observation.dtype) == jnp.uint8 else 1.0
