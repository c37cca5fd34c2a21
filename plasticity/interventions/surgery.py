"""The single primitive behind every reset: where (masks) x what (fresh values, zeros, the optimizer's initial slots).

A mask is a tree of bool arrays with the structure of the parameters; each broadcasts to its parameter. It selects a
module or a unit (its incoming weights, bias and normalisation; or its outgoing weights), and may be traced.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity.core import trees
from plasticity.core.types import Array, Learner, ModulePath, Network, Optimizer, Params

Masks = Any
Moment = Literal["first_moment", "second_moment"]

# The names under which optimizers store their moments. The trace of optax's momentum is also a first moment.
MOMENTS: Mapping[Moment, tuple[str, ...]] = {"first_moment": ("mu",), "second_moment": ("nu", "second")}
HAVE: Mapping[Moment, str] = {
    "first_moment": "sgd, adam, rmsprop, muon, adam_cm",
    "second_moment": "adam, rmsprop, adam_cm, adaptive_obgd, adaptive_q, intentional",
}
# Optimizers of optax with moments of other shapes than the parameters.
FACTORED = ("adafactor", "galore", "novograd", "sm3")


def nowhere(params: Params) -> Masks:
    """The mask that selects no parameter."""
    return jax.tree.map(lambda _: jnp.zeros((), bool), params)


def either(first: Masks, second: Masks) -> Masks:
    """The mask that selects what either of two masks selects."""
    return jax.tree.map(jnp.logical_or, first, second)


def everywhere(params: Params) -> Masks:
    """The mask that selects every parameter."""
    return jax.tree.map(lambda _: jnp.ones((), bool), params)


def marked(masks: Masks, path: ModulePath, where: Array) -> Masks:
    """The masks with ``where`` added under ``path``; it must broadcast to each parameter there."""
    return trees.put(masks, path, jax.tree.map(lambda mask: mask | where, trees.get(masks, path)))


def module_mask(params: Params, paths: Iterable[ModulePath]) -> Masks:
    """The mask that selects every parameter of the modules under ``paths`` (static)."""
    masks = nowhere(params)
    for path in paths:
        masks = marked(masks, path, jnp.ones((), bool))
    return masks


def unit_masks(network: Network, params: Params, units: Mapping[str, Array]) -> tuple[Masks, Masks]:
    """The masks of single units: their incoming weights (with bias and normalisation) and their outgoing weights.

    Args:
        network: the network, for its wiring.
        params: the network's parameters.
        units: hidden layer -> ``bool[units]``, traced; no unit of a missing layer is selected.

    Raises:
        KeyError: if ``units`` names something that is not a hidden layer.
    """
    wirings = {wiring.name: wiring for wiring in network.units}
    unknown = set(units) - set(wirings)
    if unknown:
        raise KeyError(f"not hidden layers: {', '.join(sorted(unknown))}")
    incoming, outgoing = nowhere(params), nowhere(params)
    for name, chosen in units.items():
        for source in wirings[name].sources:
            where = owned(chosen, source.owner)
            incoming = trees.on_units(partial(jnp.logical_or, where), incoming, source)
        for sink in wirings[name].sinks:
            # The rows of a kernel are its second-to-last axis.
            outgoing = marked(outgoing, (*sink.path, "kernel"), owned(chosen, sink.owner)[:, None])
    return incoming, outgoing


def owned(values: Array, owner: np.ndarray) -> Array:
    """``values[units]`` for each feature of a source or row of a sink; 0 (False) where it belongs to no unit."""
    if np.array_equal(owner, np.arange(len(owner))):
        return values
    chosen = values[owner]  # -1 is the last unit
    return chosen if (owner >= 0).all() else jnp.where(owner >= 0, chosen, jnp.zeros((), values.dtype))


def rows_of(owner: np.ndarray) -> np.ndarray:
    """The features or rows that each unit owns, int[units, number]; all units own the same number."""
    order = np.argsort(owner, kind="stable")
    return order[(owner < 0).sum() :].reshape(owner.max() + 1, -1)


def without_carry(network: Network, carry: Any, units: Mapping[str, Array]) -> Any:
    """The carry of a recurrent network with zeros for the units selected, ``bool[units]`` by layer."""
    for wiring in network.units:
        for path in wiring.carries if wiring.name in units else ():
            part = jax.tree.map(lambda x, name=wiring.name: jnp.where(units[name], 0, x), trees.get(carry, path))
            carry = trees.put(carry, path, part)
    return carry


def slot_masks(optimizer: Optimizer, state: optax.OptState, params: Params, masks: Masks) -> optax.OptState:
    """The masks of the parameters mapped onto the optimizer's state: the same tree, ``False`` for everything but slots.

    A slot (momentum, second moment, trace) has the parameters' tree.

    Raises:
        ValueError: while tracing, if the slot's shapes or tree differ from the parameters' (factored moments), because
            single units cannot be located there.
    """

    def leaf(slot: Any, param: Array, mask: Array) -> Any:
        if isinstance(slot, optax.MaskedNode):
            return slot
        if slot.shape != param.shape:
            raise ValueError(f"a slot of shape {slot.shape} for a parameter of shape {param.shape}")
        return mask

    try:
        return optax.tree_utils.tree_map_params(
            optimizer,
            leaf,
            state,
            params,
            masks,
            transform_non_params=lambda _: False,
            is_leaf=lambda node: isinstance(node, optax.MaskedNode),
        )
    except ValueError as error:  # ours, or that of JAX for another tree
        raise ValueError(
            "the state of agent.optimizer cannot be reset unit by unit or layer by layer: its moments have other "
            f"shapes than the parameters (as those of optax's {', '.join(FACTORED)}); choose another optimizer, or "
            "leave its state as it is (by the method's `optimizer_slots` or `optimizer`)"
        ) from error


def reset_slots(optimizer: Optimizer, state: optax.OptState, params: Params, masks: Masks) -> optax.OptState:
    """The optimizer's state with ``optimizer.init(params)`` in the masked part of its slots.

    Counts and schedules are unchanged: they belong to all parameters at once. For Adam this means that a parameter
    reset late in a run has no bias correction, and its first step is up to ``(1 - b1) / sqrt(1 - b2)`` times the step
    size (3.2 for the defaults), as in every implementation with a single count. ``adam(counts="parameter")`` has one
    count per parameter, a slot like the moments.
    """
    initial = optimizer.init(params)
    masked = slot_masks(optimizer, state, params, masks)
    return jax.tree.map(
        lambda mask, new, old: old if mask is False else jnp.where(mask, new, old), masked, initial, state
    )


def reset_counts(optimizer: Optimizer, state: optax.OptState, params: Params) -> optax.OptState:
    """The optimizer's state with all but moments and traces (counts, schedules) as in ``optimizer.init(params)``.

    An integer slot is a count, one per parameter.
    """

    def is_kept(slot: Any) -> Any:
        return slot if isinstance(slot, optax.MaskedNode) else not jnp.issubdtype(slot.dtype, jnp.integer)

    kept = optax.tree_utils.tree_map_params(
        optimizer,
        is_kept,
        state,
        transform_non_params=lambda _: False,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )
    return jax.tree.map(lambda keep, new, old: old if keep else new, kept, optimizer.init(params), state)


def reset_moment(optimizer: Optimizer, state: optax.OptState, params: Params, moment: Moment) -> optax.OptState:
    """The optimizer's state with its first or second moments as in ``optimizer.init(params)``, otherwise unchanged.

    Momentum is a first moment, and so is RMSProp's mean of the gradients.

    Raises:
        ValueError: while tracing, if the optimizer has no such moment.
    """

    def fields(node: Any) -> tuple[str, ...]:
        if isinstance(node, optax.TraceState):
            return ("trace",) if moment == "first_moment" else ()
        return tuple(name for name in getattr(node, "_fields", ()) if name in MOMENTS[moment])

    def renewed(node: Any, new: Any) -> Any:
        return node._replace(**{name: getattr(new, name) for name in fields(node)}) if fields(node) else node

    if not any(fields(node) for node in jax.tree.leaves(state, is_leaf=lambda node: bool(fields(node)))):
        raise ValueError(f"what: {moment} is not allowed; this optimizer has none (optimizers that do: {HAVE[moment]})")
    return jax.tree.map(renewed, state, optimizer.init(params), is_leaf=lambda node: bool(fields(node)))


def reinitialise(
    learner: Learner,
    incoming: Masks,
    outgoing: Masks,
    fresh: Params,
    optimizer: Optimizer,
    *,
    optimizer_slots: bool = True,
    target: bool = False,
) -> Learner:
    """Write fresh values into ``incoming`` and zeros into ``outgoing``, and reset the optimizer's slots under either.

    ``theta <- where(outgoing, 0, where(incoming, fresh, theta))``: where both masks hold, ``outgoing`` wins. Everything
    else is unchanged, bit for bit.

    Args:
        learner: the learner to change.
        incoming: mask, may be traced.
        outgoing: mask, may be traced.
        fresh: the parameters of a freshly initialised network.
        optimizer: the learner's optimizer.
        optimizer_slots: whether the slots are reset (static).
        target: whether the target network, if there is one, takes the same values under the same masks (static).
    """

    def rewrite(params: Params) -> Params:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return trees.where(outgoing, zeros, trees.where(incoming, fresh, params))

    params = rewrite(learner.params)
    opt_state = learner.opt_state
    if optimizer_slots:
        opt_state = reset_slots(optimizer, opt_state, params, either(incoming, outgoing))
    has_target = bool(jax.tree.leaves(learner.target))
    new_target = rewrite(learner.target) if target and has_target else learner.target
    return learner._replace(params=params, target=new_target, opt_state=opt_state)
