"""Networks as data: a ``NetworkSpec`` says everything, ``build`` turns it into functions and their wiring.

A hidden layer is kernel, optional bias, optional normalisation, non-linearity, in this order. The parameters of layer
``i`` lie under ``hidden_i`` and all of them have the layer's units on their last axis::

    {"hidden_0": {"kernel": ..., "bias": ..., "norm": {"scale": ..., "offset": ...}}, ..., "output": {"kernel", "bias"}}
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from plasticity.convolution import METHODS, convolve
from plasticity.fields import Count
from plasticity.layers import ACTIVATIONS, INITIALISERS, NORMALISATIONS, Normalisation
from plasticity.types import Activation, Array, Key, Network, Params, Path, Units

Shape = tuple[int, ...]
Padding = Literal["VALID", "SAME"]
ActivationName = Literal["relu", "leaky_relu", "tanh", "gelu", "silu", "swish", "elu", "identity", "linear", "crelu"]
NormalisationName = Literal["none", "layer", "rms", "map"]
InitialiserName = Literal["he", "lecun", "glorot", "orthogonal", "sparse"]
Method = Literal["auto", "patches", "lax"]


def check_name(key: str, value: str, known: Iterable[str]) -> None:
    """``ValueError`` that lists the known names if ``value`` is none of them."""
    if value not in known:
        raise ValueError(f"{key} must be one of {', '.join(known)}; got {value!r}")


def check_count(key: str, value: int) -> None:
    """``ValueError`` if ``value`` is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{key} must be a whole number of at least 1; got {value!r}")


@dataclass(frozen=True)
class Convolution:
    """A convolutional layer of ``filters`` square kernels of side ``kernel`` (all static).

    ``ValueError`` for a number below 1 or an unknown padding.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: Padding = "VALID"

    def __post_init__(self) -> None:
        for key in ("filters", "kernel", "stride"):
            check_count(f"convolutions.{key}", getattr(self, key))
        check_name("convolutions.padding", self.padding, ("VALID", "SAME"))

    def size(self, inputs: int) -> int:
        """Side of the output map for an input map of side ``inputs``."""
        if self.padding == "SAME":
            return -(-inputs // self.stride)
        return (inputs - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class NetworkSpec:
    """Everything there is to know about a network, as hashable data (all static).

    ``ValueError`` for an unknown name, a number below 1 or a convolution that is larger than its input.
    """

    observation: Shape  # of one observation, as the stream gives it
    outputs: int
    convolutions: tuple[Convolution, ...] = ()
    widths: tuple[int, ...] = ()  # dense hidden layers, after the flattened convolutions
    activation: str = "relu"
    normalisation: str = "none"  # before every hidden non-linearity
    affine: bool = True  # learnable scale and offset of `layer`, scale of `rms`
    bias: bool = True  # of the hidden layers; the output layer always has one
    initialiser: str = "he"  # of all kernels, the output layer's too; biases are 0
    channels_first: bool = False  # the observation is [channels, H, W]
    scale: float = 1.0  # the observation is multiplied by it
    convolution: str = "auto"  # how a convolution is computed: auto, patches, lax

    def __post_init__(self) -> None:
        for key in ("observation", "convolutions", "widths"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        check_name("activation", self.activation, ACTIVATIONS)
        check_name("normalisation", self.normalisation, NORMALISATIONS)
        check_name("initialiser", self.initialiser, INITIALISERS)
        check_name("convolution", self.convolution, METHODS)
        check_count("outputs", self.outputs)
        for key in ("observation", "widths"):
            for number in getattr(self, key):
                check_count(key, number)
        if (self.convolutions or self.channels_first) and len(self.observation) != 3:
            raise ValueError(f"observation must have 3 axes for convolutions or channels_first; got {self.observation}")
        maps(self)

    @property
    def layers(self) -> tuple[Convolution | int, ...]:
        """The hidden layers in order; a dense one is its width."""
        return (*self.convolutions, *self.widths)

    @property
    def copies(self) -> int:
        """How many outputs of a hidden layer belong to one of its units: 2 for crelu, else 1."""
        return ACTIVATIONS[self.activation].copies


def maps(spec: NetworkSpec) -> tuple[Shape, ...]:
    """``(H, W, channels)`` of what leaves each convolution; ``ValueError`` where a kernel is larger than its input."""
    shape = spec.observation[1:] + spec.observation[:1] if spec.channels_first else spec.observation
    found = []
    for layer in spec.convolutions:
        height, width = layer.size(shape[0]), layer.size(shape[1])
        if min(height, width) < 1:
            side = min(shape[:2])
            raise ValueError(f"convolutions.kernel must be at most {side}, the side of its input; got {layer.kernel}")
        shape = (height, width, layer.filters * spec.copies)
        found.append(shape)
    return tuple(found)


class Layer(nn.Module):
    """Kernel and bias, dense or convolutional, then the normalisation; the output layer has always a bias, no norm."""

    spec: NetworkSpec
    shape: Convolution | int
    hidden: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        spec, conv = self.spec, self.shape
        init = INITIALISERS[spec.initialiser]
        if isinstance(conv, Convolution):
            kernel = self.param("kernel", init, (conv.kernel, conv.kernel, x.shape[-1], conv.filters))
            z = convolve(x, kernel, conv.stride, conv.padding, spec.convolution)
        else:
            x = x.reshape(x.shape[0], -1)
            z = x @ self.param("kernel", init, (x.shape[-1], conv))
        if spec.bias or not self.hidden:
            z = z + self.param("bias", nn.initializers.zeros, z.shape[-1:])
        if self.hidden and spec.normalisation != "none":
            z = Normalisation(spec.normalisation, spec.affine, name="norm")(z)
        return z


class Layers(nn.Module):
    """All layers: ``observations[B, *shape]`` -> ``outputs[B, outputs]`` and the hidden activations by layer."""

    spec: NetworkSpec

    @nn.compact
    def __call__(self, observations: Array) -> tuple[Array, dict[str, Activation]]:
        spec = self.spec
        function = ACTIVATIONS[spec.activation].function
        activations = {}
        x = prepare(spec, observations)
        for i, layer in enumerate(spec.layers):
            z = Layer(spec, layer, name=f"hidden_{i}")(x)
            x = function(z)
            activations[f"hidden_{i}"] = Activation(z, x)
        return Layer(spec, spec.outputs, hidden=False, name="output")(x), activations


def prepare(spec: NetworkSpec, observations: Array) -> Array:
    """Observations of any dtype as the first layer wants them: float32, scaled, channels last."""
    x = jnp.asarray(observations, jnp.float32)
    if spec.scale != 1.0:
        x = x * spec.scale
    return jnp.moveaxis(x, 1, -1) if spec.channels_first else x


def wiring(spec: NetworkSpec) -> tuple[Units, ...]:
    """Which units feed which rows of which layer.

    A map is flattened position by position with the channels innermost, so the owners of its entries are
    ``arange(channels)`` tiled, not repeated; likewise the copies of crelu.
    """
    flattened = len(spec.convolutions) - 1
    found = []
    for i, layer in enumerate(spec.layers):
        units = layer.filters if isinstance(layer, Convolution) else layer
        positions = math.prod(maps(spec)[i][:2]) if i == flattened else 1
        sink: Path = (f"hidden_{i + 1}",) if i + 1 < len(spec.layers) else ("output",)
        found.append(Units(f"hidden_{i}", (f"hidden_{i}",), sink, np.tile(np.arange(units), spec.copies * positions)))
    return tuple(found)


def build(spec: NetworkSpec) -> Network:
    """The functions and the wiring of a network (see ``plasticity.types.Network``).

    ``init(key)`` gives the parameters, the same for the same key; ``apply(params, observations[B, *shape])`` the
    outputs ``[B, outputs]`` and, by layer name, what enters and leaves its non-linearity.
    """
    layers = Layers(spec)

    def init(key: Key) -> Params:
        return layers.init(key, jnp.zeros((1, *spec.observation)))["params"]

    def apply(params: Params, observations: Any) -> tuple[Array, Mapping[str, Activation]]:
        found: Any = layers.apply({"params": params}, observations)
        return found

    units = wiring(spec)
    return Network(init, apply, units, tuple(each.source for each in units), ("output",))


def mlp(
    observation: Any,
    outputs: int,
    *,
    widths: tuple[Count, ...] = (256, 256),
    activation: ActivationName = "relu",
    normalisation: NormalisationName = "none",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "he",
) -> NetworkSpec:
    """Dense layers on the flattened observation; all settings static.

    ``observation`` has the ``.shape`` and ``.dtype`` of one observation; unsigned bytes are divided by 255.
    """
    style = (activation, normalisation, affine, bias, initialiser)
    return NetworkSpec(observation.shape, outputs, (), widths, *style, scale=pixel_scale(observation))


def minatar(
    observation: Any,
    outputs: int,
    *,
    filters: Count = 16,
    widths: tuple[Count, ...] = (128,),
    activation: ActivationName = "relu",
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


def nature(
    observation: Any,
    outputs: int,
    *,
    widths: tuple[Count, ...] = (512,),
    padding: Padding = "VALID",
    layout: Literal["auto", "channels_first", "channels_last"] = "auto",
    activation: ActivationName = "relu",
    normalisation: NormalisationName = "none",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "he",
    convolution: Method = "auto",
) -> NetworkSpec:
    """Convolutions of 32 8x8 kernels at stride 4, 64 4x4 at 2, 64 3x3 at 1, and a dense layer; all settings static.

    Mnih et al. 2015, "Human-level control through deep reinforcement learning". Pixels (uint8) are divided by 255.
    ``layout`` "auto" takes the first axis for the channels where it is shorter than the last (stacked frames
    ``[4, 84, 84]``). Images smaller than 36x36 need ``padding`` "SAME". The paper's initialisation is not He's.
    """
    check_name("layout", layout, ("auto", "channels_first", "channels_last"))
    shape = tuple(observation.shape)
    first = shape[:1] < shape[-1:] if layout == "auto" else layout == "channels_first"
    sizes = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    convolutions = tuple(Convolution(*size, padding=padding) for size in sizes)
    style = (activation, normalisation, affine, bias, initialiser)
    return NetworkSpec(shape, outputs, convolutions, widths, *style, first, pixel_scale(observation), convolution)


def pixel_scale(observation: Any) -> float:
    """1/255 for unsigned bytes, else 1."""
    return 1.0 / 255.0 if jnp.dtype(observation.dtype) == jnp.uint8 else 1.0


NETWORKS: Mapping[str, Callable[..., NetworkSpec]] = {"mlp": mlp, "minatar": minatar, "nature": nature}
