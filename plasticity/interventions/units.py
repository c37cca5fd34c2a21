"""Layers, scores and per-unit state, shared by the methods that score single hidden units or weights.

A score is one number per unit, computed along the last axis of an array.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np

from plasticity.core import trees
from plasticity.core.errors import listed, shown, suggestion
from plasticity.core.types import Activation, Array, Context, Learner, ModulePath, Network, Params, Units
from plasticity.interventions import surgery
from plasticity.interventions.penalties import total

Layers = Literal["all"] | list[str]
Scores = Mapping[str, Array]  # float32[units] by layer
NAMED = 300  # characters of a complete list of modules in a message


def by_unit(network: Network, value: float) -> Scores:
    """``value`` for every hidden unit."""
    return {wiring.name: jnp.full(wiring.size, value, jnp.float32) for wiring in network.units}


def hidden_layers(network: Network, method: str, streams: bool = True) -> Mapping[str, Units]:
    """The wiring of each layer of hidden units, in the network's order; without ``streams`` only those inside blocks.

    ``ValueError`` (while tracing) if there is none.
    """
    if not network.units:
        raise ValueError(f"{method} needs a network with hidden units; this one has none")
    found = {wiring.name: wiring for wiring in network.units if streams or not wiring.stream}
    if not found:
        raise ValueError(
            f"{method} needs hidden units inside blocks; this network has only those of a residual stream "
            "(set streams: true to reset them)"
        )
    return found


def check_streams(network: Network, streams: bool, *, default: bool) -> None:
    """Raise a ``ValueError`` (while tracing) if ``streams`` differs from the default but can have no effect."""
    if streams != default and not any(wiring.stream for wiring in network.units):
        value = str(streams).lower()
        raise ValueError(f"streams: {value} has no effect; this network has no units of a residual stream")


def check_layers(layers: Layers, words: Sequence[str] = ("all",)) -> None:
    """Raise a ``ValueError`` if ``layers`` is an unknown word."""
    if isinstance(layers, str) and layers not in words:
        raise ValueError(f"layers: {shown(layers)} is not allowed; must be {', '.join(words)} or a list of names")


def named_layers(network: Network, method: str, layers: Layers, streams: bool = True) -> Mapping[str, Units]:
    """The named layers of hidden units; "all" leaves out residual streams unless ``streams``.

    ``ValueError`` (while tracing) that lists the known layers.
    """
    if layers == "all":
        return hidden_layers(network, method, streams)
    known = hidden_layers(network, method)
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise ValueError(f"layers: {shown(unknown[0])} is not allowed; must be all, or a list of: {', '.join(known)}")
    return {name: known[name] for name in layers}


def named_modules(known: Mapping[str, ModulePath], names: Sequence[str], key: str, words: str) -> list[ModulePath]:
    """The paths of the named modules, or of modules that contain some of them, such as a recurrent cell.

    ``ValueError`` (while tracing) that says which ``words`` the setting ``key`` also takes and lists the known modules.
    """
    paths = {"/".join(path[:i]): path[:i] for path in known.values() for i in range(1, len(path) + 1)}
    for name in names:
        if name not in paths:
            every = ", ".join(known)
            every = every if len(every) <= NAMED else listed(list(known))
            inside = [path for path in paths if path.rpartition("/")[2] == name]
            hint = f"; did you mean {', '.join(inside[:3])}?" if inside else suggestion(name, paths)
            allowed = f"{words}, or a list of: {every}{hint}"
            raise ValueError(f"{key}: {shown(name)} is not allowed; must be {allowed}")
    return [paths[name] for name in names]


def within(path: ModulePath, whole: ModulePath) -> bool:
    """Whether the module is the other one or inside it."""
    return path[: len(whole)] == whole


def activity(activation: Activation, units: int) -> Array:
    """``E|h_i|``, float32[units], over the batch, the positions of a convolution and the copies of an activation."""
    return jnp.abs(activation.post).reshape(-1, units).mean(0)


def incoming(kernel: Array) -> Array:
    """``mean |w|`` over the incoming weights of each unit, float32[units]."""
    return jnp.abs(kernel).mean(tuple(range(kernel.ndim - 1)))


def incoming_of(tree: Params, wiring: Units) -> Array:
    """:func:`incoming` over all kernels that write the units, weighted by their numbers of weights for each unit."""
    modules = [(trees.get(tree, source.path), source.owner) for source in wiring.sources]
    kernels = [(module["kernel"], owner) for module, owner in modules if "kernel" in module]
    means = [by_owner(incoming(kernel), owner) for kernel, owner in kernels]
    if len(kernels) == 1:
        return means[0]
    numbers = [kernel.size // len(owner) * int((owner == 0).sum()) for kernel, owner in kernels]
    return total([mean * number for mean, number in zip(means, numbers, strict=True)]) / sum(numbers)


def by_owner(values: Array, owner: np.ndarray) -> Array:
    """The mean of the values of the features that each unit owns, float32[units]."""
    if np.array_equal(owner, np.arange(len(owner))):
        return values
    return values[surgery.rows_of(owner)].mean(-1)


def check_shown(wiring: Units) -> None:
    """Raise a ``ValueError`` (while tracing) if the network does not return the activation of these units."""
    if not wiring.activations:
        raise ValueError(f"needs the activation of the layer {wiring.name}, which this network does not return")


def activities(context: Context, params: Params, layers: Mapping[str, Units]) -> Scores:
    """:func:`activity` of the update's forward pass, by layer; of a stream, the mean over its activations."""
    del params

    def size(wiring: Units) -> Array:
        check_shown(wiring)
        found = [activity(context.activations[name], wiring.size) for name in wiring.activations]
        return found[0] if len(found) == 1 else total(found) / len(found)

    return {name: size(wiring) for name, wiring in layers.items()}


def gradient_sizes(context: Context, params: Params, layers: Mapping[str, Units]) -> Scores:
    """``mean |dL/dw|`` over the incoming weights of each unit, from the update's gradient, by layer."""
    del params
    return {name: incoming_of(context.gradients, wiring) for name, wiring in layers.items()}


def recycled(
    context: Context, learner: Learner, fresh: Params, units: Mapping[str, Array], *, optimizer_slots: bool
) -> Learner:
    """Recycle units (``bool[units]`` by layer): fresh incoming weights, zero outgoing weights, reset slots."""
    into, out_of = surgery.unit_masks(context.network, learner.params, units)
    learner = learner._replace(carry=surgery.without_carry(context.network, learner.carry, units))
    return surgery.reinitialise(learner, into, out_of, fresh, context.optimizer, optimizer_slots=optimizer_slots)
