"""Networks as data: a ``NetworkSpec`` says everything, ``build`` turns it into functions and their wiring.

Every hidden layer is kernel, optional bias, optional normalisation, non-linearity, in this order. The parameters of
layer ``i`` lie under ``hidden_i``: all of them have the layer's units on their last axis.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plasticity.convolution import METHODS, convolve
from plasticity.fields import Count
from plasticity.types import Activation, Array, Key, Network, Params, Path, Units


class NonLinearity(NamedTuple):
    """``function`` maps ``[..., units]`` to ``[..., copies * units]``, copy after copy."""

    function: Callable[[Array], Array]
    copies: int = 1


def crelu(z: Array) -> Array:
    """Concatenated ReLU, ``[max(z, 0), max(-z, 0)]`` on the last axis.

    Shang, Sohn, Almeida, Lee 2016, "Understanding and Improving Convolutional Neural Networks via Concatenated
    Rectified Linear Units"; for plasticity Abbas et al. 2023, "Loss of Plasticity in Continual Deep Reinforcement
    Learning".
    """
    return jnp.concatenate([jax.nn.relu(z), jax.nn.relu(-z)], axis=-1)


def sparse(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """For each output unit ``ceil(0.9 fan_in)`` inputs are 0, the others ``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``.

    Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works". ``shape`` (static) is
    ``[..., inputs, outputs]``.
    """
    fan_in, outputs = math.prod(shape[:-1]), shape[-1]
    zeros = -(-9 * fan_in // 10)  # exact, where ceil(0.9 * fan_in) would depend on rounding
    values, order = jax.random.split(key)
    bound = 1.0 / math.sqrt(fan_in)
    kernel = jax.random.uniform(values, (fan_in, outputs), dtype, -bound, bound)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(order, (fan_in, outputs)), axis=0), axis=0)
    return jnp.where(rank < zeros, 0, kernel).reshape(shape)


ACTIVATIONS: Mapping[str, NonLinearity] = {
    "relu": NonLinearity(jax.nn.relu),
    "leaky_relu": NonLinearity(jax.nn.leaky_relu),  # slope 0.01
    "tanh": NonLinearity(jnp.tanh),
    "gelu": NonLinearity(lambda z: jax.nn.gelu(z, approximate=False)),
    "silu": NonLinearity(jax.nn.silu),
    "swish": NonLinearity(jax.nn.silu),
    "elu": NonLinearity(jax.nn.elu),
    "identity": NonLinearity(lambda z: z),
    "linear": NonLinearity(lambda z: z),
    "crelu": NonLinearity(crelu, copies=2),
}

INITIALISERS: Mapping[str, Callable[..., Array]] = {
    "he": jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
    "lecun": jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
    "glorot": jax.nn.initializers.glorot_uniform(),
    "orthogonal": jax.nn.initializers.orthogonal(math.sqrt(2.0)),
    "sparse": sparse,
}

NORMALISATIONS = ("none", "layer", "rms", "map")
PADDINGS = ("VALID", "SAME")
Shape = tuple[int, ...]


def check_name(key: str, value: str, known: Any) -> None:
    """``ValueError`` that lists the known names if ``value`` is none of them."""
    if value not in known:
        raise ValueError(f"{key} must be one of {', '.join(known)}; got {value!r}")


def check_count(key: str, value: int) -> None:
    """``ValueError`` if ``value`` is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key} must be a whole number of at least 1; got {value!r}")


@dataclass(frozen=True)
class Convolution:
    """A convolutional layer: ``filters`` square kernels of side ``kernel`` (all static)."""

    filters: int
    kernel: int
    stride: int = 1
    padding: Literal["VALID", "SAME"] = "VALID"

    def __post_init__(self) -> None:
        for key in ("filters", "kernel", "stride"):
            check_count(f"convolutions.{key}", getattr(self, key))
        check_name("convolutions.padding", self.padding, PADDINGS)

    def size(self, inputs: int) -> int:
        """Side of the output map for an input map of side ``inputs``."""
        if self.padding == "SAME":
            return -(-inputs // self.stride)
        return (inputs - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class NetworkSpec:
    """Everything there is to know about a network, as hashable data (all static).

    ``ValueError`` for an unknown name, a width below 1 or a convolution that is larger than its input.
    """

    observation: Shape  # of one observation, as the stream gives it
    outputs: int
    convolutions: tuple[Convolution, ...] = ()
    widths: tuple[int, ...] = ()  # dense hidden layers, after the flattened convolutions
    activation: str = "relu"
    normalisation: str = "none"
    affine: bool = True  # learnable scale and offset of `layer`, scale of `rms`
    bias: bool = True  # of the hidden layers; the output layer always has one
    initialiser: str = "he"
    channels_first: bool = False  # the observation is [channels, H, W]
    scale: float = 1.0  # the observation is multiplied by it
    convolution: str = "auto"  # how a convolution is computed

    def __post_init__(self) -> None:
        check_name("activation", self.activation, ACTIVATIONS)
        check_name("normalisation", self.normalisation, NORMALISATIONS)
        check_name("initialiser", self.initialiser, INITIALISERS)
        check_name("convolution", self.convolution, METHODS)
        check_count("outputs", self.outputs)
        for width in self.widths:
            check_count("widths", width)
        if (self.convolutions or self.channels_first) and len(self.observation) != 3:
            raise ValueError(f"observation must have three axes for a convolution; got {self.observation}")
        maps(self)

    @property
    def copies(self) -> int:
        """How many outputs of a hidden layer belong to one of its units: 2 for crelu, else 1."""
        return ACTIVATIONS[self.activation].copies


def maps(spec: NetworkSpec) -> tuple[Shape, ...]:
    """The ``(H, W, channels)`` that enter each convolution, and what leaves the last; ``ValueError`` where empty."""
    if not spec.convolutions:
        return ()
    shape = spec.observation[1:] + spec.observation[:1] if spec.channels_first else spec.observation
    shapes = [shape]
    for layer in spec.convolutions:
        height, width = layer.size(shape[0]), layer.size(shape[1])
        if min(height, width) < 1:
            raise ValueError(
                f"convolutions.kernel must be at most {min(shape[:2])}, its input's side; got {layer.kernel}"
            )
        shape = (height, width, layer.filters * spec.copies)
        shapes.append(shape)
    return tuple(shapes)


class Normalisation(nn.Module):
    """Normalises pre-activations: ``layer`` and ``rms`` over the last axis (for a convolution: the channels of each
    position apart), eps 1e-6, with learnable scale and offset (``rms``: scale) where ``affine``; ``map`` over all axes
    of a sample, eps 1e-5, nothing learnable.

    Ba, Kiros, Hinton 2016, "Layer Normalization"; Zhang, Sennrich 2019, "Root Mean Square Layer Normalization"; ``map``
    is the one of Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works".
    """

    kind: str
    affine: bool

    @nn.compact
    def __call__(self, z: Array) -> Array:
        axes = tuple(range(1, z.ndim)) if self.kind == "map" else (-1,)
        if self.kind != "rms":
            z = z - z.mean(axes, keepdims=True)
        epsilon = 1e-5 if self.kind == "map" else 1e-6
        z = z * jax.lax.rsqrt(jnp.square(z).mean(axes, keepdims=True) + epsilon)
        if self.kind == "map" or not self.affine:
            return z
        z = z * self.param("scale", nn.initializers.ones, z.shape[-1:])
        return z if self.kind == "rms" else z + self.param("offset", nn.initializers.zeros, z.shape[-1:])


class Layer(nn.Module):
    """Kernel and bias, dense or convolutional, then the normalisation."""

    spec: NetworkSpec
    units: int
    convolution: Convolution | None = None
    hidden: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        spec, conv = self.spec, self.convolution
        window = (conv.kernel, conv.kernel) if conv else ()
        kernel = self.param("kernel", INITIALISERS[spec.initialiser], (*window, x.shape[-1], self.units))
        z = convolve(x, kernel, conv.stride, conv.padding, spec.convolution) if conv else x @ kernel
        if spec.bias or not self.hidden:
            z = z + self.param("bias", nn.initializers.zeros, (self.units,))
        if self.hidden and spec.normalisation != "none":
            z = Normalisation(spec.normalisation, spec.affine, name="norm")(z)
        return z


class Stack(nn.Module):
    """The whole network: ``observations[B, *shape]`` -> ``outputs[B, outputs]`` and the hidden activations."""

    spec: NetworkSpec

    @nn.compact
    def __call__(self, observations: Array) -> tuple[Array, dict[str, Activation]]:
        spec, activations = self.spec, {}
        x = prepare(spec, observations)
        for i, layer in enumerate((*spec.convolutions, *spec.widths)):
            name = f"hidden_{i}"
            if isinstance(layer, Convolution):
                z = Layer(spec, layer.filters, layer, name=name)(x)
            else:
                x = x.reshape(x.shape[0], -1)
                z = Layer(spec, layer, name=name)(x)
            x = ACTIVATIONS[spec.activation].function(z)
            activations[name] = Activation(z, x)
        x = x.reshape(x.shape[0], -1)
        return Layer(spec, spec.outputs, hidden=False, name="output")(x), activations


def prepare(spec: NetworkSpec, observations: Array) -> Array:
    """Observations as the first layer wants them: float32, scaled, channels last."""
    x = jnp.asarray(observations, jnp.float32)
    if spec.scale != 1.0:
        x = x * spec.scale
    return jnp.moveaxis(x, 1, -1) if spec.channels_first else x


def wiring(spec: NetworkSpec) -> tuple[Units, ...]:
    """Which units feed which rows of which layer.

    A map is flattened row by row with the channels innermost, so the owners of its entries are ``arange(channels)``
    tiled, not repeated; likewise the copies of crelu.
    """
    sizes = [layer.filters for layer in spec.convolutions] + list(spec.widths)
    found = []
    for i, size in enumerate(sizes):
        flattened = i == len(spec.convolutions) - 1
        positions = math.prod(maps(spec)[-1][:2]) if flattened else 1
        sink: Path = (f"hidden_{i + 1}",) if i + 1 < len(sizes) else ("output",)
        owner = np.tile(np.arange(size), spec.copies * positions)
        found.append(Units(f"hidden_{i}", (f"hidden_{i}",), sink, owner))
    return tuple(found)


def build(spec: NetworkSpec) -> Network:
    """The functions and the wiring of a network (see ``plasticity.types.Network``)."""
    stack = Stack(spec)

    def init(key: Key) -> Params:
        return stack.init(key, jnp.zeros((1, *spec.observation)))["params"]

    def apply(params: Params, observations: Array) -> tuple[Array, Mapping[str, Activation]]:
        return stack.apply({"params": params}, observations)

    units = wiring(spec)
    return Network(init, apply, units, tuple(each.source for each in units), ("output",))


ActivationName = Literal["relu", "leaky_relu", "tanh", "gelu", "silu", "swish", "elu", "identity", "linear", "crelu"]
NormalisationName = Literal["none", "layer", "rms", "map"]
InitialiserName = Literal["he", "lecun", "glorot", "orthogonal", "sparse"]
MethodName = Literal["auto", "patches", "lax"]
Observation = Any  # has .shape and .dtype, of one observation


def mlp(
    observation: Observation,
    outputs: int,
    *,
    widths: tuple[Count, ...] = (256, 256),
    activation: ActivationName = "relu",
    normalisation: NormalisationName = "none",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "he",
) -> NetworkSpec:
    """Dense layers on the flattened observation. ``observation`` has ``.shape`` and ``.dtype``; all static."""
    return NetworkSpec(
        tuple(observation.shape),
        outputs,
        widths=tuple(widths),
        activation=activation,
        normalisation=normalisation,
        affine=affine,
        bias=bias,
        initialiser=initialiser,
    )


NETWORKS: Mapping[str, Callable[..., NetworkSpec]] = {"mlp": mlp}
