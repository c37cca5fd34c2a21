"""Networks as data: a ``NetworkSpec`` describes a network, and ``nodes_of`` lists its layers and their inputs.

A hidden layer is a kernel, an optional bias, an optional normalisation and a non-linearity, in this order. A network
may end in several heads instead of one output layer; the modules of a head are ``NAME_hidden_i`` and ``NAME_output``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from plasticity.core.errors import check, check_least, refused
from plasticity.core.types import Units
from plasticity.networks.convolution import METHODS
from plasticity.networks.layers import ACTIVATIONS, INITIALISERS, NORMALISATIONS, PARAMETERISATIONS

Shape = tuple[int, ...]
Padding = Literal["VALID", "SAME"]
ActivationName = Literal[
    "relu",
    "leaky_relu",
    "tanh",
    "gelu",
    "silu",
    "swish",
    "elu",
    "identity",
    "linear",
    "crelu",
    "deep_fourier",
    "smooth_leaky",
]
NormalisationName = Literal["none", "layer", "rms", "map"]
InitialiserName = Literal["he", "lecun", "glorot", "orthogonal", "sparse"]
Method = Literal["auto", "patches", "lax"]
INJECTION = "injection"  # the module that holds the gate of an injection
NEW, ANCHOR = "new_", "anchor_"  # prefixes of the names of its two additional heads


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
            check_least(f"convolutions.{key}", getattr(self, key), 1)
        check("convolutions.padding", self.padding, ("VALID", "SAME"))

    def size(self, inputs: int) -> int:
        """Side length of the output map for an input map of side length ``inputs``."""
        if self.padding == "SAME":
            return -(-inputs // self.stride)
        return (inputs - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class Head:
    """A branch after the last common layer: its own dense hidden layers and an output layer (all static).

    ``ValueError`` for a number below 1.
    """

    name: str
    outputs: int
    widths: tuple[int, ...] = ()
    scale: float = 1.0  # factor of the output layer's initial kernel

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        for number in (self.outputs, *self.widths):
            check_least(f"heads.{self.name}", number, 1)

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of its layers, in order; the output layer is last."""
        return (*(f"{self.name}_hidden_{i}" for i in range(len(self.widths))), f"{self.name}_output")


@dataclass(frozen=True)
class NetworkSpec:
    """The complete description of a network, as hashable data (all static).

    ``ValueError`` for an unknown name, a number below 1 or a convolution that is larger than its input.
    """

    observation: Shape  # of one observation of the stream
    outputs: int
    convolutions: tuple[Convolution, ...] = ()
    widths: tuple[int, ...] = ()  # dense hidden layers, after the flattened convolutions
    activation: str = "relu"
    normalisation: str = "none"  # before every hidden non-linearity
    affine: bool = True  # learnable scale and offset of `layer`, scale of `rms`
    bias: bool = True  # of the hidden layers; the output layer always has one
    initialiser: str = "he"  # of all kernels, including the output layer's; biases are 0
    channels_first: bool = False  # the observation is [channels, H, W]
    scale: float = 1.0  # factor of the observation
    convolution: str = "auto"  # implementation of convolutions: auto, patches, lax
    output_scale: float = 1.0  # factor of the output layer's initial kernel
    heads: tuple[Head, ...] = ()  # instead of an output layer; their outputs are concatenated in this order
    auxiliary: int = 0  # > 0: another layer with this many outputs on the last common hidden layer, for penalties
    activation_settings: tuple[tuple[str, float], ...] = ()  # of the activation, by name; else the defaults
    parameterisation: str = "none"  # of the hidden kernels: weight, spectral, spectral_first (the first dense ones)
    power_iterations: int = 20  # for the estimate of the spectral norm
    injected: int | None = None  # last dense hidden layers that, like the outputs, have a new head and an anchor

    def __post_init__(self) -> None:
        for key in ("observation", "convolutions", "widths", "heads"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        check("activation", self.activation, ACTIVATIONS)
        object.__setattr__(self, "activation_settings", tuple(self.activation_settings))
        for name, _ in self.activation_settings:
            check(f"activation_settings of {self.activation}", name, ACTIVATIONS[self.activation].settings)
        check("parameterisation", self.parameterisation, PARAMETERISATIONS)
        check_least("power_iterations", self.power_iterations, 1)
        check("normalisation", self.normalisation, NORMALISATIONS)
        check("initialiser", self.initialiser, INITIALISERS)
        check("convolution", self.convolution, METHODS)
        check_least("outputs", self.outputs, 1)
        for key in ("observation", "widths"):
            for number in getattr(self, key):
                check_least(key, number, 1)
        if (self.convolutions or self.channels_first) and len(self.observation) != 3:
            raise ValueError(f"observation must have 3 axes for convolutions or channels_first, got {self.observation}")
        if self.auxiliary:
            check_least("auxiliary", self.auxiliary, 1)
        if self.heads and sum(head.outputs for head in self.heads) != self.outputs:
            raise ValueError(f"heads must have {self.outputs} outputs in total, got {self.heads}")
        feature_maps(self)
        nodes_of(self)
        auxiliary_nodes(self)

    @property
    def layers(self) -> tuple[Convolution | int, ...]:
        """The hidden layers in order; a dense layer is given by its width."""
        return (*self.convolutions, *self.widths)

    @property
    def copies(self) -> int:
        """The number of outputs per unit of a hidden layer: 2 for crelu and deep_fourier, otherwise 1."""
        return ACTIVATIONS[self.activation].copies


def feature_maps(spec: NetworkSpec) -> tuple[Shape, ...]:
    """``(H, W, channels)`` of each convolution's output; ``ValueError`` if a kernel is larger than its input."""
    shape = spec.observation[1:] + spec.observation[:1] if spec.channels_first else spec.observation
    found = []
    for layer in spec.convolutions:
        height, width = layer.size(shape[0]), layer.size(shape[1])
        if min(height, width) < 1:
            side = min(shape[:2])
            raise refused("convolutions.kernel", layer.kernel, f"at most {side}, the side of its input")
        shape = (height, width, layer.filters * spec.copies)
        found.append(shape)
    return tuple(found)


class Node(NamedTuple):
    """One layer and its input layer; a network is a list of nodes, each after its input."""

    name: str
    shape: Convolution | int
    reads: str  # name of the input layer, "" for the observation
    hidden: bool = True
    scale: float = 1.0  # of the initial kernel
    parameterisation: str = "none"

    @property
    def dense_hidden(self) -> bool:
        return self.hidden and not isinstance(self.shape, Convolution)


def chain(names: Sequence[str], shapes: Sequence[Convolution | int], reads: str) -> list[Node]:
    """A chain of hidden layers; the first one reads ``reads``."""
    before = [reads, *names[:-1]]
    return [Node(*each) for each in zip(names, shapes, before, strict=False)]


def plain_nodes(spec: NetworkSpec) -> list[Node]:
    """The layers without injection and without parameterisation."""
    found = chain([f"hidden_{i}" for i in range(len(spec.layers))], spec.layers, "")
    last = found[-1].name if found else ""
    if not spec.heads:
        found.append(Node("output", spec.outputs, last, False, spec.output_scale))
    for head in spec.heads:
        own = chain(head.modules[:-1], head.widths, last)
        found += [*own, Node(head.modules[-1], head.outputs, own[-1].name if own else last, False, head.scale)]
    return found


def parameterised(spec: NetworkSpec, nodes: list[Node]) -> list[Node]:
    """Apply the spec's parameterisation to the layers; ``ValueError`` if no layer is eligible."""
    if spec.parameterisation == "none":
        return nodes
    behind_dense = {node.name for node in nodes if node.dense_hidden}
    kind, _, first = spec.parameterisation.partition("_")
    eligible = {
        node.name
        for node in nodes
        if node.hidden and (not first or (node.dense_hidden and node.reads not in behind_dense))
    }
    if not eligible:
        layer = "dense hidden layer" if first else "hidden layer"
        raise ValueError(f"parameterisation: {spec.parameterisation} is not allowed; it needs a network with a {layer}")
    return [node._replace(parameterisation=kind) if node.name in eligible else node for node in nodes]


def injected_head(nodes: list[Node], layers: int) -> list[Node]:
    """The output layers, the last ``layers`` dense hidden layers before each, and all layers that read one of these.

    ``ValueError`` if there are too few.
    """
    by_name = {node.name: node for node in nodes}
    last = [node for node in nodes if not node.hidden]
    head = {node.name for node in last}
    for _ in range(layers):
        last = [by_name[node.reads] for node in last if node.reads in by_name and by_name[node.reads].dense_hidden]
        if not last:
            raise refused("injected", layers, "at most the number of dense hidden layers")
        head |= {node.name for node in last}
    for node in nodes:
        if node.reads in head:
            head.add(node.name)
    return [node for node in nodes if node.name in head]


def copied(nodes: list[Node], prefix: str) -> list[Node]:
    """The same layers with prefixed names; inputs among them are prefixed too."""
    names = {node.name for node in nodes}
    return [node._replace(name=prefix + node.name, reads=prefix * (node.reads in names) + node.reads) for node in nodes]


def nodes_of(spec: NetworkSpec) -> list[Node]:
    """All layers that the network computes."""
    nodes = parameterised(spec, plain_nodes(spec))
    if spec.injected is None:
        return nodes
    head = injected_head(nodes, spec.injected)
    return [*nodes, *copied(head, NEW), *copied(head, ANCHOR)]


def auxiliary_nodes(spec: NetworkSpec) -> list[Node]:
    """The auxiliary layer, on the last common hidden layer or, without one, on the first head's last hidden layer."""
    if not spec.auxiliary:
        return []
    common = [f"hidden_{i}" for i in range(len(spec.layers))]
    own = [name for head in spec.heads for name in head.modules[:-1]][: len(spec.heads[0].widths) if spec.heads else 0]
    if not common + own:
        raise ValueError("auxiliary needs a network with a hidden layer")
    return [Node("auxiliary", spec.auxiliary, (common or own)[-1], False)]


def wiring(spec: NetworkSpec) -> tuple[Units, ...]:
    """The units that feed each input row of each layer.

    A feature map is flattened position by position with the channels innermost, so the owners of its entries are
    ``arange(channels)``, tiled; the same holds for the copies of crelu.
    """
    nodes = nodes_of(spec) + auxiliary_nodes(spec)
    areas = {f"hidden_{i}": math.prod(shape[:2]) for i, shape in enumerate(feature_maps(spec))}

    def owner(node: Node, reader: Node) -> np.ndarray:
        flattened = isinstance(node.shape, Convolution) and not isinstance(reader.shape, Convolution)
        units = node.shape.filters if isinstance(node.shape, Convolution) else node.shape
        return np.tile(np.arange(units), spec.copies * (areas[node.name] if flattened else 1))

    return tuple(
        Units(node.name, (node.name,), (reader.name,), owner(node, reader))
        for node in nodes
        for reader in nodes
        if node.hidden and reader.reads == node.name
    )


def outputs_of(spec: NetworkSpec) -> list[str]:
    """The names of the output layers without injection, in order."""
    return [head.modules[-1] for head in spec.heads] or ["output"]
