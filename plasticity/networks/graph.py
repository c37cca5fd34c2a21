"""Graphs: named nodes, each an operation on the outputs of other nodes or on the observation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from plasticity.core.errors import shown, suggestion
from plasticity.networks.operations import Dense, Operation, Shape, is_layer

OBSERVATION = ""  # as an input: the observation, prepared (float32, scaled, channels last)


@dataclass(frozen=True)
class Node:
    """An operation, its name and the names of its inputs (static).

    The name is also that of the node's module in the parameters and of its activation.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...] = (OBSERVATION,)
    output: bool = False  # an output layer
    parameterisation: str = "none"  # of its kernel

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))

    @property
    def hidden(self) -> bool:
        """Whether it is a layer with a kernel, but not an output layer."""
        return is_layer(self.operation) and not self.output

    @property
    def dense_hidden(self) -> bool:
        return self.hidden and isinstance(self.operation, Dense)


def layer(name: str, operation: Operation, reads: str = OBSERVATION) -> Node:
    """A node with a single input."""
    return Node(name, operation, (reads,))


def chain(names: Sequence[str], operations: Sequence[Operation], reads: str) -> list[Node]:
    """Nodes in a row; the first one reads ``reads``."""
    before = [reads, *names[:-1]]
    return [layer(*each) for each in zip(names, operations, before, strict=False)]


def ordered(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, each after its inputs, otherwise in the given order.

    ``ValueError`` for a repeated name, an unknown input or a cycle.
    """
    by_name = {node.name: node for node in nodes}
    if len(by_name) < len(nodes):
        names = [node.name for node in nodes]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"nodes: {shown(twice)} is not allowed; two nodes have this name")
    for node in nodes:
        if node.name == OBSERVATION or not node.inputs:
            raise ValueError(f"nodes: {shown(node.name)} is not allowed; a node needs a name and at least one input")
        for name in node.inputs:
            if name != OBSERVATION and name not in by_name:
                raise ValueError(f"nodes.{node.name}.inputs: {shown(name)} is not a node{suggestion(name, by_name)}")
    done: dict[str, Node] = {}
    for node in nodes:
        for each in _upstream(node, by_name, done, ()):
            done[each.name] = each
    return list(done.values())


def _upstream(
    node: Node, by_name: Mapping[str, Node], done: Mapping[str, Node], path: tuple[str, ...]
) -> Iterator[Node]:
    """The nodes that ``node`` needs and that are not done, then the node itself."""
    if node.name in path:
        cycle = [*path[path.index(node.name) :], node.name]
        raise ValueError(f"nodes: the inputs form a cycle: {' <- '.join(cycle)}")
    if node.name in done:
        return
    for name in node.inputs:
        if name != OBSERVATION:
            yield from _upstream(by_name[name], by_name, done, (*path, node.name))
    yield node


def shapes_of(nodes: Sequence[Node], observation: Shape, copies: int) -> dict[str, Shape]:
    """The shape of each node's output for one sample; the nodes are ordered.

    ``copies``: features per unit of the spec's non-linearity. ``ValueError`` that names a node whose inputs do not fit.
    """
    found: dict[str, Shape] = {OBSERVATION: observation}
    for node in nodes:
        try:
            found[node.name] = node.operation.shape(tuple(found[name] for name in node.inputs), copies)
        except ValueError as error:
            raise ValueError(f"node {node.name}: {error}") from error
    return found


def copied(nodes: Sequence[Node], prefix: str) -> list[Node]:
    """The same nodes with prefixed names; inputs among them are prefixed too."""
    names = {node.name for node in nodes}
    return [
        replace(
            node,
            name=prefix + node.name,
            inputs=tuple(prefix * (name in names) + name for name in node.inputs),
        )
        for node in nodes
    ]
