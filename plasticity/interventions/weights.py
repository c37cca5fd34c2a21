"""Reinitialise single weights of low utility."""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Fraction, NonNegative, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Context, Key, Learner, ModulePath, Network, State
from plasticity.interventions import surgery, units
from plasticity.interventions.base import Intervention, every, when

Utility = Literal["gradient", "magnitude", "random"]
Prune = Literal["proportion", "threshold"]
Kernels = Literal["all", "hidden"] | list[str]


def kernels_of(network: Network, layers: Kernels, method: str) -> Mapping[str, ModulePath]:
    """The paths of the selected modules; a module that contains others, such as a recurrent cell, selects all of those.

    ``ValueError`` (while tracing) that lists the network's modules.
    """
    known = network.modules()
    words = {"all": known, "hidden": {"/".join(path): path for path in network.hidden}}
    if not known or (isinstance(layers, str) and not words[layers]):
        what = "hidden layers" if layers == "hidden" else "layers"
        raise ValueError(f"{method} needs a network with {what}; this one has none")
    if isinstance(layers, str):
        return words[layers]
    named = units.named_modules(known, layers, "layers", "all, hidden")
    return {name: path for whole in named for name, path in known.items() if units.within(path, whole)}


def lowest(key: Key, utility: Array, proportion: Array | float) -> Array:
    """The mask of the lowest ``proportion`` of the numbers; ties and a fractional count are decided at random.

    Among equal numbers, each is selected with the probability that makes the expected count correct.
    """
    ties, rounding = jax.random.split(key)
    count = jnp.floor(proportion * utility.size + jax.random.uniform(rounding)).astype(jnp.int32)
    cut = jnp.sort(utility.ravel())[jnp.maximum(count - 1, 0)]
    below, level = utility < cut, utility == cut
    share = (count - below.sum()) / jnp.maximum(level.sum(), 1)
    return (count > 0) & (below | (level & (jax.random.uniform(ties, utility.shape) < share)))


@metadata(
    paper="Hernandez-Garcia, Dohare, Luo, Sutton 2025, Reinitializing weights vs units for maintaining plasticity in "
    "neural networks",
    checked="NumPy's order of the utilities; frequencies of ties; the equation is second-hand, the defaults are ours",
    neutral={"proportion": 0.0},
    only_with={"proportion": {"prune": ("proportion",)}, "threshold": {"prune": ("threshold",)}},
)
def selective_weight_reinit(
    *,
    utility: Utility = "gradient",
    prune: Prune = "proportion",
    proportion: Fraction = 0.01,
    threshold: NonNegative = 0.1,
    period: Count = 1000,
    layers: Kernels = "all",
    optimizer_slots: bool = True,
) -> Intervention:
    """Selective weight reinitialisation: the weights of lowest utility in each kernel are redrawn.

    The utility of weight ``w`` is ``|g w|`` ("gradient", with ``g`` its gradient at the update), ``|w|`` ("magnitude")
    or a random number. After every ``period``-th update, separately in each kernel, some weights get values of a
    freshly initialised network, and their optimizer slots are reset. These are the lowest ``proportion``
    (``prune="proportion"``), or the weights whose utility is at most ``threshold`` times the kernel's mean
    (``prune="threshold"``).

    Args:
        utility: static.
        prune: static.
        proportion: traced; has no effect with ``prune="threshold"``.
        threshold: traced; has no effect with ``prune="proportion"``.
        period: number of updates (static).
        layers: the kernels of all layers, of the hidden layers alone, or of the named layers; biases and normalisations
            are unchanged (static).
        optimizer_slots: whether the optimizer's slots are reset (static).

    Raises:
        ValueError: for an unknown name and, while tracing, for a network without such layers.

    The defaults, and including the output layer, are our choice. Ties are broken and fractions of a weight rounded at
    random.
    """
    check("utility", utility, ("gradient", "magnitude", "random"))
    check("prune", prune, ("proportion", "threshold"))
    units.check_layers(layers, ("all", "hidden"))  # type: ignore[arg-type]

    def useful(key: Key, weights: Array, gradient: Array) -> Array:
        if utility == "random":
            return jax.random.uniform(key, weights.shape)
        return jnp.abs(weights) if utility == "magnitude" else jnp.abs(gradient * weights)

    def useless(key: Key, weights: Array, gradient: Array) -> Array:
        draw, pick = jax.random.split(key)
        score = useful(draw, weights, gradient)
        return lowest(pick, score, proportion) if prune == "proportion" else score <= threshold * score.mean()

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        nowhere, modules = (
            surgery.nowhere(learner.params),
            kernels_of(context.network, layers, "selective_weight_reinit"),
        )
        masks = nowhere
        for i, path in enumerate(modules.values()):
            at = (*path, "kernel")
            weights, gradient = trees.get(learner.params, at), trees.get(context.gradients, at)
            masks = trees.put(masks, at, useless(jax.random.fold_in(key, i), weights, gradient))
        fresh = context.fresh(jax.random.fold_in(key, len(modules))).params
        return state, surgery.reinitialise(
            learner, masks, nowhere, fresh, context.optimizer, optimizer_slots=optimizer_slots
        )

    return Intervention(step=when(every(period), step))
