"""The one primitive of every reset: where (masks) x what (fresh values, zeros, the optimizer's initial slots).

A mask is a tree of bool arrays with the structure of the parameters; each broadcasts to its parameter. It says "this
module" or "this unit" (its incoming weights, bias and normalisation; or its outgoing weights), and may be traced.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from plasticity.core import trees
from plasticity.core.types import Array, Learner, Network, Optimizer, Params, Path

Masks = Any
Moment = Literal["first_moment", "second_moment"]

# Under which names optimizers keep their moments; besides, the trace of optax's momentum is a first moment.
MOMENTS: Mapping[Moment, tuple[str, ...]] = {"first_moment": ("mu",), "second_moment": ("nu", "second")}
HAVE: Mapping[Moment, str] = {
    "first_moment": "sgd, adam, rmsprop",
    "second_moment": "adam, rmsprop, adaptive_obgd, adaptive_q",
}


def nowhere(params: Params) -> Masks:
    """The mask that holds for no parameter."""
    return jax.tree.map(lambda _: jnp.zeros((), bool), params)


def either(first: Masks, second: Masks) -> Masks:
    """The mask that holds where one of two does."""
    return jax.tree.map(jnp.logical_or, first, second)


def everywhere(params: Params) -> Masks:
    """The mask that holds for every parameter."""
    return jax.tree.map(lambda _: jnp.ones((), bool), params)


def marked(masks: Masks, path: Path, where: Array) -> Masks:
    """The masks with ``where``, which must broadcast to each parameter under ``path``, added there."""
    return trees.put(masks, path, jax.tree.map(lambda mask: mask | where, trees.get(masks, path)))


def module_mask(params: Params, paths: Iterable[Path]) -> Masks:
    """The mask that holds for every parameter of the modules under ``paths`` (static)."""
    masks = nowhere(params)
    for path in paths:
        masks = marked(masks, path, jnp.ones((), bool))
    return masks


def unit_masks(network: Network, params: Params, units: Mapping[str, Array]) -> tuple[Masks, Masks]:
    """The masks of single units: what comes into them (weights, bias, normalisation), and the weights that leave them.

    ``units`` maps hidden layers to ``bool[units]``, traced; a layer that is missing has none. ``KeyError`` where it
    names something that is no hidden layer.
    """
    unknown = set(units) - {wiring.name for wiring in network.units}
    if unknown:
        raise KeyError(f"no hidden layers: {', '.join(sorted(unknown))}")
    incoming, outgoing = nowhere(params), nowhere(params)
    for wiring in (each for each in network.units if each.name in units):
        chosen = units[wiring.name]
        incoming = marked(incoming, wiring.source, chosen)
        # The rows of a kernel are its second-to-last axis.
        outgoing = marked(outgoing, (*wiring.sink, "kernel"), chosen[wiring.owner][:, None])
    return incoming, outgoing


def slot_masks(optimizer: Optimizer, state: optax.OptState, params: Params, masks: Masks) -> optax.OptState:
    """The masks of the parameters laid over the optimizer's state: the same tree, ``False`` for what is no slot.

    A slot (momentum, second moment, trace) has the parameters' tree. ``ValueError`` while tracing if its arrays have
    other shapes than the parameters (factored moments): single units cannot be found there.
    """

    def leaf(slot: Any, param: Array, mask: Array) -> Any:
        if isinstance(slot, optax.MaskedNode):
            return slot
        if slot.shape != param.shape:
            raise ValueError(
                f"a slot of shape {slot.shape} cannot be reset under the mask of a {param.shape} parameter"
            )
        return mask

    return optax.tree_utils.tree_map_params(
        optimizer,
        leaf,
        state,
        params,
        masks,
        transform_non_params=lambda _: False,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )


def reset_slots(optimizer: Optimizer, state: optax.OptState, params: Params, masks: Masks) -> optax.OptState:
    """The optimizer's state with ``optimizer.init(params)`` in the masked part of its slots.

    Counts and schedules stay: they belong to all parameters at once. For Adam this means that a parameter reset late
    in a run has no bias correction, and its first step is up to ``(1 - b1) / sqrt(1 - b2)`` times the step size (3.2
    for the defaults), as in every implementation with one count; ``adam(counts="parameter")`` has one for each
    parameter, a slot like the moments.
    """
    initial = optimizer.init(params)
    masked = slot_masks(optimizer, state, params, masks)
    return jax.tree.map(
        lambda mask, new, old: old if mask is False else jnp.where(mask, new, old), masked, initial, state
    )


def reset_counts(optimizer: Optimizer, state: optax.OptState, params: Params) -> optax.OptState:
    """The optimizer's state with all that is no moment or trace as in ``optimizer.init(params)``: counts, schedules.

    A slot of integers is a count, one for each parameter.
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
    """The optimizer's state with its first or second moments as in ``optimizer.init(params)``, all else as it is.

    Momentum is a first moment; RMSProp's mean of the gradients is one too. ``ValueError`` while tracing where the
    optimizer has none.
    """

    def fields(node: Any) -> tuple[str, ...]:
        if isinstance(node, optax.TraceState):
            return ("trace",) if moment == "first_moment" else ()
        return tuple(name for name in getattr(node, "_fields", ()) if name in MOMENTS[moment])

    def renewed(node: Any, new: Any) -> Any:
        return node._replace(**{name: getattr(new, name) for name in fields(node)}) if fields(node) else node

    if not any(fields(node) for node in jax.tree.leaves(state, is_leaf=lambda node: bool(fields(node)))):
        raise ValueError(f"what: {moment} is not allowed; this optimizer has none (those that do: {HAVE[moment]})")
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
    """Fresh values into ``incoming``, zeros into ``outgoing`` (which wins where both hold), and the slots under either.

    ``theta <- where(outgoing, 0, where(incoming, fresh, theta))``. ``fresh`` is a newborn network's parameters; the
    masks may be traced, ``optimizer_slots`` and ``target`` are static. With ``target`` the target network, if there is
    one, takes the same values under the same masks. Bit for bit nothing else changes.
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
