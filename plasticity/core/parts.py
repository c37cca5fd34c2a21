"""Some of the parts of joined networks: their share of a tree, and a tree with a new share put back.

The networks of an actor-critic are joined into one, whose parameters are a mapping by name; each name is a *part*.
Trees that follow the parameters (gradients, target networks, carries, the slots of an optimizer) have the same mapping
somewhere, and the state of one optimizer for each part is such a mapping itself.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from plasticity.core.errors import listed, shown, suggestion

Tree = Any
NUMBERED = re.compile(r"(.+)_[0-9]+")  # critic_1, critic_2, ...


def is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def groups(known: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The names that stand for several numbered parts: ``critic`` for ``critic_1``, ``critic_2``, ..."""
    found: dict[str, tuple[str, ...]] = {}
    for part in known:
        match = NUMBERED.fullmatch(part)
        if match:
            found[match[1]] = (*found.get(match[1], ()), part)
    return found


class Parts(NamedTuple):
    """Names of parts; a name without number also means all parts of that name with a number."""

    names: tuple[str, ...]

    def has(self, part: str) -> bool:
        """Whether this part is one of them."""
        match = NUMBERED.fullmatch(part)
        return part in self.names or (match is not None and match[1] in self.names)

    def splits(self, node: Any) -> bool:
        """Whether this node of a tree is a mapping by part, with at least one of these."""
        return isinstance(node, Mapping) and any(self.has(part) for part in node)

    def of(self, tree: Tree) -> Tree:
        """The tree with ``optax.MaskedNode()``, which has no leaves, in place of all other parts."""
        return self._kept(tree, True)

    def others(self, tree: Tree) -> Tree:
        """The tree with ``optax.MaskedNode()`` in place of these parts."""
        return self._kept(tree, False)

    def _kept(self, tree: Tree, mine: bool) -> Tree:
        def leaf(node: Any) -> Any:
            if not self.splits(node):
                return node
            return {part: value if self.has(part) == mine else optax.MaskedNode() for part, value in node.items()}

        return jax.tree.map(leaf, tree, is_leaf=self.splits)

    def back(self, new: Tree, old: Tree) -> Tree:
        """``old`` with these parts of ``new``; what belongs to no single part stays that of ``old``."""

        def leaf(node: Any, was: Any) -> Any:
            if not self.splits(node):
                return was
            return {part: node[part] if self.has(part) else value for part, value in was.items()}

        return jax.tree.map(leaf, new, old, is_leaf=self.splits)

    def check(self, known: Iterable[str]) -> None:
        """Raise a ``ValueError`` that lists the ``known`` parts if one of these is unknown, or if there are none."""
        parts = tuple(known)
        if not parts:
            raise ValueError(
                f"modules: {shown(list(self.names))} is not allowed; this agent's network has no parts; "
                "leave out `modules`"
            )
        several = {name: found for name, found in groups(parts).items() if name not in parts}
        allowed = [*several, *parts]  # the nearest name is the first of equally near ones
        for name in self.names:
            if name not in allowed:
                words = [*parts, *(f"{name} (all of them)" for name in several)]
                what = f"must be a list of: {listed(words)}{suggestion(name, allowed)}"
                raise ValueError(f"modules: {shown(name)} is not allowed; {what}")


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether two selections of parts share one; an empty one is the whole network."""
    mine, theirs = Parts(one), Parts(other)
    return not one or not other or any(map(mine.has, other)) or any(map(theirs.has, one))
