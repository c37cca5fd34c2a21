"""Layers, scores and per-unit state, shared by the methods that score single hidden units or weights.

A score is one number per unit, computed along the last axis of an array.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import jax.numpy as jnp

from plasticity.core import trees
from plasticity.core.errors import shown
from plasticity.core.types import Activation, Array, Context, Learner, ModulePath, Network, Params, Units
from plasticity.interventions import surgery

Layers = Literal["all"] | list[str]
Scores = Mapping[str, Array]  # float32[units] by layer


def by_unit(network: Network, value: float) -> Scores:
    """``value`` for every hidden unit."""
    return {wiring.name: jnp.full(count(wiring), value, jnp.float32) for wiring in network.units}


def count(wiring: Units) -> int:
    """Number of units in the layer."""
    return int(wiring.owner.max()) + 1


def hidden_layers(network: Network, method: str) -> Mapping[str, Sequence[Units]]:
    """The wiring of each hidden layer, one entry per reading layer, in the network's order.

    ``ValueError`` (while tracing) if there is no hidden layer.
    """
    if not network.units:
        raise ValueError(f"{method} needs a network with hidden units; this one has none")
    names = dict.fromkeys(wiring.name for wiring in network.units)
    return {name: [wiring for wiring in network.units if wiring.name == name] for name in names}


def check_layers(layers: Layers, words: Sequence[str] = ("all",)) -> None:
    """Raise a ``ValueError`` if ``layers`` is an unknown word."""
    if isinstance(layers, str) and layers not in words:
        raise ValueError(f"layers: {shown(layers)} is not allowed; must be {', '.join(words)} or a list of names")


def named_layers(network: Network, method: str, layers: Layers) -> Mapping[str, ModulePath]:
    """The paths of the named hidden layers; ``ValueError`` (while tracing) that lists the known layers."""
    known = {name: wirings[0].source for name, wirings in hidden_layers(network, method).items()}
    unknown = [] if layers == "all" else [name for name in layers if name not in known]
    if unknown:
        raise ValueError(f"layers: {shown(unknown[0])} is not allowed; must be all, or a list of: {', '.join(known)}")
    return known if layers == "all" else {name: known[name] for name in layers}


def activity(activation: Activation, units: int) -> Array:
    """``E|h_i|``, float32[units], over the batch, the positions of a convolution and the copies of an activation."""
    return jnp.abs(activation.post).reshape(-1, units).mean(0)


def incoming(kernel: Array) -> Array:
    """``mean |w|`` over the incoming weights of each unit, float32[units]."""
    return jnp.abs(kernel).mean(tuple(range(kernel.ndim - 1)))


def activities(context: Context, params: Params, layers: Mapping[str, ModulePath]) -> Scores:
    """:func:`activity` of the update's forward pass, by layer."""
    sizes = {name: trees.get(params, path)["kernel"].shape[-1] for name, path in layers.items()}
    return {name: activity(context.activations[name], size) for name, size in sizes.items()}


def gradient_sizes(context: Context, params: Params, layers: Mapping[str, ModulePath]) -> Scores:
    """``mean |dL/dw|`` over the incoming weights of each unit, from the update's gradient, by layer."""
    del params
    return {name: incoming(trees.get(context.gradients, path)["kernel"]) for name, path in layers.items()}


def recycled(
    context: Context, learner: Learner, fresh: Params, units: Mapping[str, Array], *, optimizer_slots: bool
) -> Learner:
    """Recycle units (``bool[units]`` by layer): fresh incoming weights, zero outgoing weights, reset slots."""
    into, out_of = surgery.unit_masks(context.network, learner.params, units)
    return surgery.reinitialise(learner, into, out_of, fresh, context.optimizer, optimizer_slots=optimizer_slots)
