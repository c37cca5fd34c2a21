"""Arithmetic on whole trees of arrays, and access to a part of one by its path."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, ModulePath, Source

Tree = Any


def get(tree: Tree, path: ModulePath) -> Tree:
    """The part of nested mappings under ``path``; ``KeyError`` if there is none."""
    for name in path:
        tree = tree[name]
    return tree


def put(tree: Tree, path: ModulePath, value: Tree) -> Tree:
    """A copy of nested mappings with ``value`` under ``path``; ``KeyError`` if the path does not exist."""
    if not path:
        return value
    return {**tree, path[0]: put(tree[path[0]], path[1:], value)}


def on_units(change: Callable[[Any], Any], tree: Tree, source: Source) -> Tree:
    """A copy of nested mappings with ``change(leaf)`` for every leaf of the source's units."""
    part = get(tree, source.path)
    shared = {name: part[name] for name in source.shared}
    own = {name: each for name, each in part.items() if name not in shared} if shared else part
    changed = jax.tree.map(change, own)
    return put(tree, source.path, {**changed, **shared} if shared else changed)


def paths(tree: Tree) -> list[ModulePath]:
    """The path of every leaf of nested mappings, in leaf order."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [tuple(str(entry.key) for entry in path) for path, _ in flat]


def map_with_path(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """``function(path, leaf, *leaves)`` of every leaf of nested mappings and its path."""

    def each(path: Any, *leaves: Any) -> Any:
        return function(tuple(str(entry.key) for entry in path), *leaves)

    return jax.tree_util.tree_map_with_path(each, tree, *others)


def where(masks: Tree, yes: Tree, no: Tree) -> Tree:
    """``yes`` where the mask holds, else ``no``; each bool leaf broadcasts to its array."""
    return jax.tree.map(jnp.where, masks, yes, no)


def select(predicate: Array, yes: Tree, no: Tree) -> Tree:
    """The whole of ``yes`` if the bool scalar ``predicate`` holds, else the whole of ``no``."""
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(predicate, a, b), yes, no)


def inner(a: Tree, b: Tree) -> Array:
    """``sum_i a_i b_i`` over all numbers of two trees, float32[]."""
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)), jnp.zeros(()))


def squared_norm(tree: Tree) -> Array:
    """``sum_i x_i^2`` over all numbers of the tree, float32[]."""
    return inner(tree, tree)


def norm(tree: Tree) -> Array:
    """The Euclidean norm of all numbers of the tree, float32[]."""
    return jnp.sqrt(squared_norm(tree))


def cosine(a: Tree, b: Tree) -> Tree:
    """The cosine of the angle between each leaf of ``a`` and that of ``b``, a float32[] per leaf; 0 if either is 0."""

    def leaf(x: Array, y: Array) -> Array:
        length = jnp.linalg.norm(x.ravel()) * jnp.linalg.norm(y.ravel())
        return jnp.where(length > 0, jnp.sum(x * y) / jnp.where(length > 0, length, 1.0), 0.0)

    return jax.tree.map(leaf, a, b)


def is_finite(tree: Tree) -> Array:
    """bool[]: no number of the tree is infinite or NaN (integers, booleans and keys always pass)."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats])) if floats else jnp.array(True)


def size(tree: Tree) -> int:
    """The number of elements in the tree; arrays or their shapes."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
