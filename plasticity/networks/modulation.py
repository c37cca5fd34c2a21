"""Modulation of a network: small changes of its hidden layers, one for each task or for each key of a pool.

The parameters of all modulators are under ``modulation``::

    {"frozen": float32[], "keys": [size, features], "layers": {"hidden_0": {"change": [size, units]}, ...}}

or ``{"down": [size, inputs, rank], "up": [size, rank, units]}`` for each layer. ``frozen`` above 0 says that the
network itself no longer learns; until then the modulators do not.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.core.errors import check, check_least, refused
from plasticity.core.task_entries import task_of
from plasticity.core.types import Activation, Array, Key, Params
from plasticity.networks.graph import Node
from plasticity.networks.operations import Convolution, Dense, Recurrent, Shape

MODULATION = "modulation"  # the module with all of this, and the name of its activation
FROZEN, KEYS, LAYERS = "frozen", "keys", "layers"
FORMS, CHOICES = ("low_rank", "scale"), ("keys", "task")
DRAW = 7  # folded into the key of the network's parameters, which are those of the network without modulation


@dataclass(frozen=True)
class Modulation:
    """What is modulated and how a modulator is chosen (static)."""

    form: str = "low_rank"  # scale: the units of each hidden layer; low_rank: a change of its kernel
    choose: str = "keys"  # for each row, by the similarity of its features to keys, or by its task
    size: int = 30  # number of modulators; with `task`, that of tasks
    rank: int = 8
    alpha: float = 16.0
    outputs_learn: bool = True  # whether the output layers learn when the network is frozen

    def __post_init__(self) -> None:
        check("form", self.form, FORMS)
        check("choose", self.choose, CHOICES)
        check_least("size", self.size, 1)
        check_least("rank", self.rank, 1)
        if not 0 < self.alpha < math.inf:
            raise refused("alpha", self.alpha, "above 0 and finite")

    @property
    def strength(self) -> float:
        """The factor of a change of low rank."""
        return self.alpha / self.rank


def is_modulated(node: Node) -> bool:
    return node.hidden and isinstance(node.operation, Dense | Convolution)


def check_places(modulation: Modulation, nodes: Sequence[Node]) -> None:
    """Raise a ``ValueError`` if these nodes cannot be modulated."""
    if not any(map(is_modulated, nodes)):
        raise ValueError("modulation needs a network with a dense hidden layer or a convolution")
    if modulation.choose == KEYS and any(isinstance(node.operation, Recurrent) for node in nodes):
        raise ValueError(
            "choose: keys is not allowed; it needs a network without memory (`choose: task` works with one)"
        )


def initial(
    modulation: Modulation, nodes: Sequence[Node], shapes: Mapping[str, Shape], features: int, key: Key
) -> Params:
    """Modulators that change nothing, and keys ``U(-1, 1)`` for ``features`` numbers."""
    key = jax.random.fold_in(key, DRAW)
    layers = {
        node.name: modulator(modulation, node, shapes, jax.random.fold_in(key, i + 1))
        for i, node in enumerate(nodes)
        if is_modulated(node)
    }
    made = {FROZEN: jnp.zeros(()), LAYERS: layers}
    if modulation.choose == KEYS:
        keys = jax.random.uniform(jax.random.fold_in(key, 0), (modulation.size, features), minval=-1.0)
        made[KEYS] = keys
    return made


def modulator(modulation: Modulation, node: Node, shapes: Mapping[str, Shape], key: Key) -> Params:
    """Of one layer, for all tasks or keys: scales ``1 + change`` of 1, or ``down`` random and ``up`` 0."""
    size, rank, reads, operation = modulation.size, modulation.rank, shapes[node.inputs[0]], node.operation
    assert isinstance(operation, Dense | Convolution)
    if modulation.form == "scale":
        return {"change": jnp.zeros((size, shapes[node.name][-1]))}
    if isinstance(operation, Convolution):
        inputs: Shape = (operation.kernel, operation.kernel, reads[-1])
    else:
        inputs = (math.prod(reads) if operation.flatten else reads[-1],)
    bound = 1 / math.sqrt(math.prod(inputs))
    down = jax.random.uniform(key, (size, *inputs, rank), minval=-bound, maxval=bound)
    return {"down": down, "up": jnp.zeros((size, rank, operation.units))}


def held(params: Mapping[str, Any], torso: Collection[str]) -> Params:
    """The parameters: no gradient reaches the ``torso`` of a frozen network, or the modulation of another."""
    frozen = is_frozen(params[MODULATION])

    def kept(name: str, part: Params) -> Params:
        if name == MODULATION:
            return jax.tree.map(lambda x: jnp.where(frozen, x, jax.lax.stop_gradient(x)), part)
        if name in torso:
            return jax.tree.map(lambda x: jnp.where(frozen, jax.lax.stop_gradient(x), x), part)
        return part

    return {name: kept(name, part) for name, part in params.items()}


def is_frozen(modulation: Mapping[str, Any]) -> Array:
    """bool[]: whether the network of these modulators no longer learns."""
    frozen: Array = modulation[FROZEN] > 0
    return frozen


def similarities(query: Array, keys: Array) -> Array:
    """The cosine of each query ``[B, features]`` with each key ``[size, features]``; 0 where either is 0."""

    def unit(x: Array) -> Array:
        squares = jnp.square(x).sum(-1, keepdims=True)
        some = squares > jnp.finfo(jnp.float32).tiny
        return jnp.where(some, x * jax.lax.rsqrt(jnp.where(some, squares, 1.0)), 0.0)

    return jnp.einsum("bf,kf->bk", unit(query), unit(keys), precision="highest")


def by_keys(keys: Array, query: Array) -> tuple[Array, Activation]:
    """-> int32[B], the most similar key of each row; the similarities and, as zeros and ones, the choice."""
    found = similarities(jax.lax.stop_gradient(query.reshape(len(query), -1)), keys)
    number = jnp.argmax(found, axis=-1)
    return number, Activation(found, jax.nn.one_hot(number, len(keys)))


def by_task(modulation: Modulation, observations: Any) -> Array:
    """int32[B]: the task of each row."""
    return task_of(jnp.asarray(observations), modulation.size)


def chosen(layers: Mapping[str, Any], number: Array) -> dict[str, Any]:
    """The modulators of each row, ``[B, ...]``, by layer."""
    found: dict[str, Any] = jax.tree.map(lambda x: x[number], dict(layers))
    return found


def scaled_units(post: Array, own: Mapping[str, Array]) -> Array:
    """``(1 + change) post`` for ``post[B, ..., units]``."""
    change = own["change"]
    return post * (1.0 + change.reshape(len(change), *(1 for _ in post.shape[1:-1]), -1))


def widened(reduced: Array, own: Mapping[str, Array], modulation: Modulation) -> Array:
    """``alpha / rank * reduced @ up`` for ``reduced[B, ..., rank]``, row by row."""
    return modulation.strength * jnp.einsum("b...r,bru->b...u", reduced, own["up"])
