"""The units of a network: which parameters write each unit, and which read it.

Every feature of a node's output is traced to the unit that it belongs to. A layer with a kernel creates new units;
non-linearities, pooling and normalisations keep them; flattening repeats them position by position; and a sum merges
the units of its inputs, one by one. Merged units are those of a *stream* (a residual stream), which several layers
write and several read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from plasticity.core.types import HiddenLayer, ModulePath, Sink, Source, Units
from plasticity.networks.cells import PARTS
from plasticity.networks.graph import OBSERVATION, Node
from plasticity.networks.nonlinearity import OWN, NonLinearity, own_activation
from plasticity.networks.operations import (
    Activate,
    Attention,
    Concatenate,
    Convolution,
    Dense,
    Flatten,
    Interpolate,
    Normalise,
    Pool,
    Recurrent,
    Scale,
    Shape,
    Shift,
    Sphere,
    Sum,
    Token,
    Tokens,
)

NOBODY = -1


class Features(NamedTuple):
    """The units of the features on a node's last axis: int[features] each."""

    group: np.ndarray  # the layer that made the feature; NOBODY for features that are not units
    unit: np.ndarray  # its number among the units of that layer
    direct: bool = True  # the values are those of the layer's activation, position by position

    def indirect(self) -> "Features":
        return self._replace(direct=False)


class Found(NamedTuple):
    """What reads, writes and shows the units of one group."""

    sources: list[Source]
    sinks: list[Sink]
    activations: list[str]
    carries: list[ModulePath]
    size: int
    copies: list[int]  # features per unit, by activation


def nobody(size: int) -> Features:
    return Features(np.full(size, NOBODY), np.zeros(size, int))


def repeated(features: Features, times: int) -> Features:
    return Features(np.tile(features.group, times), np.tile(features.unit, times), features.direct)


def beside(parts: Sequence[Features]) -> Features:
    """The features of a concatenation."""
    group, unit = (np.concatenate([part[i] for part in parts]) for i in range(2))
    return Features(group, unit, all(part.direct for part in parts))


class Tracer:
    """Traces the units through the nodes of a network.

    ``shapes`` are those of the nodes' outputs, ``scales`` tells which normalisations have parameters, and ``kind`` is
    the non-linearity of a node.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        scales: Callable[[Node], bool],
        kind: Callable[[Node], NonLinearity | None],
    ) -> None:
        self.shapes, self.scales, self.kind = shapes, scales, kind
        self.features: dict[str, Features] = {OBSERVATION: nobody((shapes[OBSERVATION] or (1,))[-1])}
        self.groups: list[Found] = []
        self.parents: list[int] = []  # of the groups; a group is merged into its parent
        self.streams: set[int] = set()
        self.spoilt: set[int] = set()  # groups whose units cannot be separated from something else

    def root(self, group: int) -> int:
        while self.parents[group] != group:
            group = self.parents[group]
        return group

    def members(self, features: Features) -> list[tuple[int, np.ndarray]]:
        """The groups among the features with the owner of each feature, NOBODY for those of other groups."""
        groups = [int(group) for group in dict.fromkeys(features.group.tolist()) if group != NOBODY]
        return [(group, np.where(features.group == group, features.unit, NOBODY)) for group in groups]

    def create(self, count: int, sources: Sequence[ModulePath], shared: tuple[str, ...] = ()) -> Features:
        owner = np.arange(count)
        self.groups.append(Found([Source(path, owner, shared) for path in sources], [], [], [], count, []))
        self.parents.append(len(self.groups) - 1)
        return Features(np.full(count, len(self.groups) - 1), owner)

    def read(self, features: Features, paths: Sequence[ModulePath]) -> None:
        """The kernels of ``paths`` read these features, one row each."""
        for group, owner in self.members(features):
            self.groups[group].sinks.extend(Sink(path, owner, features.direct) for path in paths)

    def scaled(self, features: Features, node: Node) -> None:
        """The node's parameters, if it has any, have one entry per feature."""
        if isinstance(node.operation, Normalise | Activate) and not self.scales(node):
            return
        self.written(features, (node.name,))

    def written(self, features: Features, path: ModulePath) -> None:
        """The parameters under ``path`` have one entry per feature."""
        for group, owner in self.members(features):
            self.groups[group].sources.append(Source(path, owner))

    def shown(self, features: Features, name: str) -> None:
        """The activation ``name`` has these features."""
        for group, owner in self.members(features):
            self.groups[group].activations.append(name)
            self.groups[group].copies.append(int((owner == 0).sum()))

    def merge(self, first: Features, second: Features) -> Features:
        """The features of a sum."""
        one, other = first.group, second.group
        for a, b in dict.fromkeys(zip(one.tolist(), other.tolist(), strict=True)):
            same = np.array_equal(*(each.unit[(one == a) & (other == b)] for each in (first, second)))
            if NOBODY in (a, b) or not same:
                self.spoilt |= {group for group in (a, b) if group != NOBODY}
            if NOBODY in (a, b):
                continue
            self.streams |= {a, b}
            self.parents[self.root(b)] = self.root(a)
        return Features(np.where(one == NOBODY, other, one), np.where(one == NOBODY, second.unit, first.unit), False)

    def flattened(self, name: str) -> Features:
        """The features of a node if all axes of a sample are one."""
        shape, features = self.shapes[name], self.features[name]
        return repeated(features, max(int(np.prod(shape, dtype=int)) // len(features.group), 1))

    def activated(self, node: Node, features: Features, copies: int) -> Features:
        features = repeated(features._replace(direct=True), copies)
        self.shown(features, node.name)
        return features

    def node(self, node: Node) -> None:
        self.features[node.name] = RULES[type(node.operation)](self, node)

    def units(self) -> tuple[Units, ...]:
        """The units of every group that has an activation and that can be separated from the rest."""
        merged: dict[int, list[int]] = {}
        for group in range(len(self.groups)):
            merged.setdefault(self.root(group), []).append(group)
        found = []
        for members in merged.values():
            groups = [self.groups[member] for member in members]
            shown = [name for group in groups for name in group.activations]
            copies = {number for group in groups for number in group.copies}
            sinks = tuple(sink for group in groups for sink in group.sinks)
            if not shown or not sinks or self.spoilt & set(members):
                continue
            found.append(
                Units(
                    name=shown[0],
                    size=groups[0].size,
                    copies=max(copies),
                    sources=tuple(source for group in groups for source in group.sources),
                    sinks=sinks,
                    activations=tuple(dict.fromkeys(shown)),
                    stream=bool(self.streams & set(members)),
                    carries=tuple(path for group in groups for path in group.carries),
                )
            )
        return tuple(found)


def layer_rule(tracer: Tracer, node: Node) -> Features:
    operation, path = node.operation, (node.name,)
    assert isinstance(operation, Dense | Convolution)
    flattens = isinstance(operation, Dense) and operation.flatten
    tracer.read(tracer.flattened(node.inputs[0]) if flattens else tracer.features[node.inputs[0]], [path])
    if node.output:
        return nobody(operation.units)
    kind = tracer.kind(node)
    if kind is None:
        return tracer.create(operation.units, [path])
    made = tracer.create(operation.units, [path], (OWN,) if kind.learns_layer else ())
    return tracer.activated(node, made, kind.copies)


def activate_rule(tracer: Tracer, node: Node) -> Features:
    assert isinstance(node.operation, Activate)
    features, kind = tracer.features[node.inputs[0]], tracer.kind(node)
    assert kind is not None
    tracer.scaled(features, node)
    if kind.learns_units:
        tracer.written(features, (own_activation(node.name),))
    return tracer.activated(node, features, kind.copies)


def mixed(tracer: Tracer, node: Node) -> Features:
    """The same units, whose values are changed or combined over positions."""
    return tracer.features[node.inputs[0]].indirect()


def scaled_rule(tracer: Tracer, node: Node) -> Features:
    tracer.scaled(tracer.features[node.inputs[0]], node)
    return tracer.features[node.inputs[0]].indirect()


def sum_rule(tracer: Tracer, node: Node) -> Features:
    first, *others = (tracer.features[name] for name in node.inputs)
    for other in others:
        first = tracer.merge(first, other)
    return first


def interpolate_rule(tracer: Tracer, node: Node) -> Features:
    made = sum_rule(tracer, node)
    tracer.scaled(made, node)
    return made


def concatenate_rule(tracer: Tracer, node: Node) -> Features:
    parts = [tracer.features[name] for name in node.inputs]
    return beside(parts)


def flatten_rule(tracer: Tracer, node: Node) -> Features:
    return tracer.flattened(node.inputs[0])


def shift_rule(tracer: Tracer, node: Node) -> Features:
    return beside([tracer.features[node.inputs[0]], nobody(1)])


def attention_rule(tracer: Tracer, node: Node) -> Features:
    tracer.read(tracer.features[node.inputs[0]], [(node.name, part) for part in ("query", "key", "value")])
    return tracer.create(tracer.shapes[node.name][-1], [(node.name, "out")])


def recurrent_rule(tracer: Tracer, node: Node) -> Features:
    operation = node.operation
    assert isinstance(operation, Recurrent)
    parts = PARTS[operation.cell]
    tracer.read(tracer.flattened(node.inputs[0]), [(node.name, part) for part in parts.inputs])
    kind = tracer.kind(node)
    own = (OWN,) if kind is not None and kind.learns_units else ()
    made = tracer.create(operation.units, [(node.name, part) for part in (*parts.writers, *own)])
    tracer.read(made, [(node.name, part) for part in parts.recurrent])
    tracer.groups[-1].carries.append((node.name,))
    return tracer.activated(node, made, tracer.shapes[node.name][-1] // operation.units)


RULES: Mapping[type, Callable[[Tracer, Node], Features]] = {
    Dense: layer_rule,
    Convolution: layer_rule,
    Normalise: scaled_rule,
    Scale: scaled_rule,
    Tokens: scaled_rule,
    Activate: activate_rule,
    Sum: sum_rule,
    Interpolate: interpolate_rule,
    Concatenate: concatenate_rule,
    Flatten: flatten_rule,
    Pool: mixed,
    Token: mixed,
    Sphere: mixed,
    Shift: shift_rule,
    Attention: attention_rule,
    Recurrent: recurrent_rule,
}


def units_of(
    nodes: Sequence[Node],
    shapes: Mapping[str, Shape],
    scales: Callable[[Node], bool],
    kind: Callable[[Node], NonLinearity | None],
) -> tuple[Units, ...]:
    """The units of a network; the nodes are ordered. For the arguments see :class:`Tracer`."""
    tracer = Tracer(shapes, scales, kind)
    for node in nodes:
        tracer.node(node)
    return tracer.units()


def shows(node: Node) -> bool:
    """Whether the node has a non-linearity, and with it an activation."""
    operation = node.operation
    if isinstance(operation, Dense | Convolution):
        return operation.activate
    return isinstance(operation, Activate | Recurrent)


def hidden_layers_of(nodes: Sequence[Node]) -> tuple[HiddenLayer, ...]:
    """The nodes with an activation, with their distance from the nearest output layer in such nodes."""
    distance: dict[str, int] = {}
    for node in reversed(nodes):
        if node.output:
            distance[node.name] = 0
        if node.name not in distance:
            continue  # nothing reads it
        beyond = distance[node.name] + shows(node)
        for name in node.inputs:
            distance[name] = min(distance.get(name, beyond), beyond)
    return tuple(
        HiddenLayer(node.name, distance[node.name] + 1) for node in nodes if shows(node) and node.name in distance
    )


def modules_of(node: Node) -> list[ModulePath]:
    """The paths of the node's modules that have a kernel."""
    operation = node.operation
    if isinstance(operation, Attention):
        return [(node.name, part) for part in ("query", "key", "value", "out")]
    if isinstance(operation, Recurrent):
        parts = PARTS[operation.cell]
        return [(node.name, part) for part in (*parts.inputs, *parts.recurrent)]
    return [(node.name,)] if isinstance(operation, Dense | Convolution) else []
