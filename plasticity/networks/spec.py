"""Networks as data: a ``NetworkSpec`` describes a network, and ``nodes_of`` lists its nodes and their inputs.

The description is a graph (``body``), then a chain of convolutions and dense layers, then an output layer or several
heads, and a style (normalisation, non-linearity, initialiser, ...) that holds for all of them and that interventions
change. A layer of the chain is a kernel, an optional bias, an optional normalisation and a non-linearity, in this
order. The modules of a head are ``NAME_hidden_i`` and ``NAME_output``.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from plasticity.config.fields import Member
from plasticity.core.errors import check, check_least, refused
from plasticity.networks.activations import Choice, chosen
from plasticity.networks.convolution import METHODS
from plasticity.networks.graph import OBSERVATION, Node, chain, copied, ordered, shapes_of
from plasticity.networks.layers import INITIALISERS, NORMALISATIONS, PARAMETERISATIONS, Intervals
from plasticity.networks.modulation import Modulation, check_places
from plasticity.networks.nonlinearity import NonLinearity
from plasticity.networks.operations import (
    SPEC,
    Activate,
    Convolution,
    Dense,
    Normalise,
    Operation,
    Padding,
    Recurrent,
    Shape,
)

__all__ = ["Convolution", "Head", "NetworkSpec", "Padding"]

AnActivation = Annotated[Any, Member("activations")]  # as a setting of a network
ActivationName = AnActivation  # its former name
NormalisationName = Literal["none", "layer", "rms", "map", "batch"]
InitialiserName = Literal["he", "lecun", "glorot", "pytorch", "orthogonal", "sparse"]
Method = Literal["auto", "patches", "lax"]
INJECTION = "injection"  # the module that holds the gate of an injection
DROPOUT = "interval_dropout"  # the module that holds the seed of a dropout
NEW, ANCHOR = "new_", "anchor_"  # prefixes of the names of its two additional heads


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

    observation: Shape  # of one observation of the stream, without the task
    outputs: int
    convolutions: tuple[Convolution, ...] = ()
    widths: tuple[int, ...] = ()  # dense hidden layers, after the flattened convolutions
    activation: Choice = "relu"  # a name, or a member with its settings; stored as a ``NonLinearity``
    normalisation: str = "none"  # before every hidden non-linearity
    affine: bool = True  # learnable scale and offset of `layer` and `batch`, scale of `rms`
    bias: bool = True  # of the hidden layers; the output layer always has one
    initialiser: str = "he"  # of all kernels, including the output layer's; biases are 0
    channels_first: bool = False  # the observation is [channels, H, W]
    scale: float = 1.0  # factor of the observation
    convolution: str = "auto"  # implementation of convolutions: auto, patches, lax
    output_scale: float = 1.0  # factor of the output layer's initial kernel
    heads: tuple[Head, ...] = ()  # instead of an output layer; their outputs are concatenated in this order
    auxiliary: int = 0  # > 0: another layer with this many outputs on the last common hidden layer, for penalties
    parameterisation: str = "none"  # of the hidden kernels: weight, spectral, spectral_first (the first dense ones)
    power_iterations: int = 20  # for the estimate of the spectral norm
    injected: int | None = None  # last dense hidden layers that, like the outputs, have a new head and an anchor
    sphere: bool = False  # the incoming weights of each output keep a Euclidean norm of 1
    body: tuple[Node, ...] = ()  # a graph before the convolutions; the chain (or the head) reads its last node
    part: str = ""  # its name among joined networks, which an agent gives it; "" for a single network
    task_entries: int = 0  # > 0: observations end in so many more entries, the task (``core.task_entries``)
    sees_task: bool = False  # whether the first layers read these too
    task_heads: bool = False  # whether each output layer has units of its own for each task
    dropout: Intervals | None = None  # interval-wise dropout after the spec's non-linearity
    modulation: Modulation | None = None  # of the hidden layers, chosen row by row

    def __post_init__(self) -> None:
        for key in ("observation", "convolutions", "widths", "heads", "body"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        object.__setattr__(self, "activation", chosen(self.activation))
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
        told = self.modulation is not None and self.modulation.choose == "task"
        if (self.sees_task or self.task_heads or told) and not self.task_entries:
            raise ValueError("needs observations that end in the task (`envs.transforms.tasks.with_task`)")
        if self.dropout is not None and self.copies > 1:
            raise ValueError("dropout is not allowed with an activation that has several outputs for a unit")
        if self.heads and sum(head.outputs for head in self.heads) != self.outputs:
            raise ValueError(f"heads must have {self.outputs} outputs in total, got {self.heads}")
        shapes(self)
        if self.modulation is not None:
            check_places(self.modulation, plain_nodes(self))

    @property
    def reads(self) -> Shape:
        """The shape of one observation as the network receives it, with the task."""
        if not self.task_entries:
            return self.observation
        return (*self.observation[:-1], self.observation[-1] + self.task_entries)

    @property
    def has_hidden(self) -> bool:
        """Whether there is a hidden layer or a non-linearity."""
        return any(node.hidden or isinstance(node.operation, Activate) for node in plain_nodes(self))

    @property
    def takes_normalisation(self) -> bool:
        """Whether the spec's normalisation has a place in this network."""
        operations = [node.operation for node in plain_nodes(self)]
        layers = (each for each in operations if isinstance(each, Dense | Convolution | Activate))
        own = (each for each in operations if isinstance(each, Normalise))
        return any(each.normalise for each in layers) or any(each.kind == SPEC for each in own)

    @property
    def takes_activation(self) -> bool:
        """Whether the spec's non-linearity has a place in this network."""
        operations = [node.operation for node in plain_nodes(self)]
        layers = any(each.activate for each in operations if isinstance(each, Dense | Convolution))
        return layers or any(each.function == SPEC for each in operations if isinstance(each, Activate))

    @property
    def nonlinearity(self) -> NonLinearity:
        """The activation."""
        return chosen(self.activation)

    @property
    def copies(self) -> int:
        """The number of outputs per unit of a hidden layer: 2 for crelu and deep_fourier, otherwise 1."""
        return self.nonlinearity.copies


def shapes(spec: NetworkSpec) -> dict[str, Shape]:
    """The shape of every node's output for one sample; ``ValueError`` if the graph is not valid."""
    first = spec.observation[1:] + spec.observation[:1] if spec.channels_first else spec.observation
    if spec.sees_task:
        first = (*first[:-1], first[-1] + spec.task_entries)
    return shapes_of([*nodes_of(spec), *auxiliary_nodes(spec)], first, spec.copies)


def trunk(spec: NetworkSpec) -> list[Node]:
    """The common nodes before the heads, each after its inputs; the heads read the last one."""
    body = ordered(spec.body)
    for node in body:
        if node.output:
            raise ValueError(f"nodes.{node.name}: output layers are not part of the body; they follow it")
        if node is not spec.body[-1] and not any(node.name in other.inputs for other in body):
            raise ValueError(f"nodes.{node.name}: no other node reads it, and it is not the last one")
    operations: list[Operation] = [*spec.convolutions, *map(Dense, spec.widths)]
    names = [f"hidden_{i}" for i in range(len(operations))]
    return [*body, *chain(names, operations, spec.body[-1].name if spec.body else OBSERVATION)]


def end_of(spec: NetworkSpec) -> str:
    """The name of the node that the heads read."""
    names = [f"hidden_{i}" for i in range(len(spec.convolutions) + len(spec.widths))]
    return [OBSERVATION, *(node.name for node in spec.body), *names][-1]


def output_node(name: str, outputs: int, reads: str, scale: float = 1.0, sphere: bool = False, tasks: int = 1) -> Node:
    operation = Dense(outputs, normalise=False, activate=False, bias=True, scale=scale, sphere=sphere, tasks=tasks)
    return Node(name, operation, (reads,), output=True)


def plain_nodes(spec: NetworkSpec) -> list[Node]:
    """The nodes without injection and without parameterisation."""
    found, last = trunk(spec), end_of(spec)
    tasks = spec.task_entries if spec.task_heads else 1
    last_layer = functools.partial(output_node, sphere=spec.sphere, tasks=tasks)
    if not spec.heads:
        found.append(last_layer("output", spec.outputs, last, spec.output_scale))
    for head in spec.heads:
        own = chain(head.modules[:-1], [Dense(width) for width in head.widths], last)
        reads = own[-1].name if own else last
        found += [*own, last_layer(head.modules[-1], head.outputs, reads, head.scale)]
    return found


def nonlinearity_of(spec: NetworkSpec, node: Node) -> NonLinearity | None:
    """The non-linearity of this node, None without one."""
    match node.operation:
        case Activate(function=NonLinearity() as kind):
            return kind
        case Activate():
            return spec.nonlinearity
        case (Dense() | Convolution()) as operation if operation.activate:
            return spec.nonlinearity
        case Recurrent() as operation:
            return operation.nonlinearity
    return None


def behind_dense(nodes: Sequence[Node]) -> set[str]:
    """The nodes that come after a dense hidden layer, directly or not."""
    dense, found = {node.name for node in nodes if node.dense_hidden}, set[str]()
    for node in nodes:
        if any(name in dense or name in found for name in node.inputs):
            found.add(node.name)
    return found


def parameterised(spec: NetworkSpec, nodes: list[Node]) -> list[Node]:
    """Apply the spec's parameterisation to the layers; ``ValueError`` if no layer is eligible."""
    if spec.parameterisation == "none":
        return nodes
    if any(isinstance(node.operation, Dense) and node.operation.sphere for node in nodes):
        raise ValueError(
            f"parameterisation: {spec.parameterisation} is not allowed; this network keeps the incoming weights of "
            "every unit at norm 1"
        )
    kind, _, first = spec.parameterisation.partition("_")
    later = behind_dense(nodes) if first else set()
    eligible = {
        node.name for node in nodes if node.hidden and (not first or (node.dense_hidden and node.name not in later))
    }
    if not eligible:
        needed = "dense hidden layer" if first else "hidden layer"
        raise ValueError(
            f"parameterisation: {spec.parameterisation} is not allowed; it needs a network with a {needed}"
        )
    return [replace(node, parameterisation=kind) if node.name in eligible else node for node in nodes]


def injected_head(nodes: list[Node], layers: int) -> list[Node]:
    """The output layers, the last ``layers`` dense hidden layers before each, and all nodes that read one of these.

    ``ValueError`` if there are too few.
    """
    by_name = {node.name: node for node in nodes}
    last = [node for node in nodes if node.output]
    head = {node.name for node in last}
    for found in range(layers):
        before = [name for node in last for name in node.inputs]
        last = [by_name[name] for name in before if name in by_name and by_name[name].dense_hidden]
        if not last:
            raise refused("layers", layers, f"at most {found}, the number of dense hidden layers before the outputs")
        head |= {node.name for node in last}
    for node in nodes:
        if head & set(node.inputs):
            head.add(node.name)
    return [node for node in nodes if node.name in head]


def nodes_of(spec: NetworkSpec) -> list[Node]:
    """All nodes that the network computes, each after its inputs."""
    nodes = parameterised(spec, plain_nodes(spec))
    if spec.injected is not None:
        head = injected_head(nodes, spec.injected)
        nodes = [*nodes, *copied(head, NEW), *copied(head, ANCHOR)]
    return ordered(nodes)


def auxiliary_nodes(spec: NetworkSpec) -> list[Node]:
    """The auxiliary layer, on the last common node or, without one, on the first head's last hidden layer."""
    if not spec.auxiliary:
        return []
    own = spec.heads[0].modules[:-1] if spec.heads else ()
    last = end_of(spec) or next(reversed(own), OBSERVATION)
    if not spec.has_hidden or last == OBSERVATION:
        raise ValueError("auxiliary needs a network with a hidden layer")
    return [output_node("auxiliary", spec.auxiliary, last)]


def outputs_of(spec: NetworkSpec) -> list[str]:
    """The names of the output layers without injection, in order."""
    return [head.modules[-1] for head in spec.heads] or ["output"]


def halved(spec: NetworkSpec, name: str) -> NetworkSpec:
    """The spec with half as many units in every layer that has a non-linearity of its own.

    ``ValueError`` if such a layer has an odd number of units, or if a non-linearity follows something else.
    """

    def half(units: int) -> int:
        if units % 2:
            raise ValueError(f"{name} with keep_size needs an even number of units in every hidden layer, got {units}")
        return units // 2

    def smaller(operation: Operation) -> Operation:
        match operation:
            case Activate(function=kind) if kind == SPEC:
                raise ValueError(
                    f"{name} with keep_size needs a network whose non-linearities follow a layer; this one has others "
                    "(after a residual sum, say), whose inputs cannot be halved"
                )
            case Convolution() if operation.activate:
                return replace(operation, filters=half(operation.filters))
            case Dense() if operation.activate:
                return replace(operation, units=half(operation.units))
        return operation

    return replace(
        spec,
        body=tuple(replace(node, operation=smaller(node.operation)) for node in spec.body),
        convolutions=tuple(replace(each, filters=half(each.filters)) for each in spec.convolutions),
        widths=tuple(half(width) for width in spec.widths),
        heads=tuple(replace(head, widths=tuple(half(width) for width in head.widths)) for head in spec.heads),
    )
