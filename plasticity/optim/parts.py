"""Optimizers and some of the parts of joined networks: a view of an optimizer, and a wrapper for these parts alone.

The share of a state is that of :class:`~plasticity.core.parts.Parts`: slots (and states of one optimizer for each part)
with ``optax.MaskedNode()`` in place of the other parts. Counts and schedules that all parts share belong to none.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.core.parts import Parts, is_masked
from plasticity.core.types import Array, Network, Optimizer, Params
from plasticity.optim.step_sizes import forwarded

Wrapper = Callable[[Optimizer], Optimizer]
PartOf = Callable[[Network, Parts], Network]
WHOLE = ("network", "loss")  # extra arguments that the optimizer of all parts receives as they are
EMPTY: Mapping[str, Any] = MappingProxyType({})


class Inside(NamedTuple):
    """The state of the optimizer of all parts, which is inside a wrapper for some of them."""

    state: optax.OptState
    others: Params = ()  # its updates of the other parts, during an update only


@functools.partial(jax.tree_util.register_dataclass, data_fields=["state"], meta_fields=["names"])
@dataclass(frozen=True)
class Owned:
    """The state of a wrapper for the parts ``names`` (static), with :class:`Inside` in it."""

    state: optax.OptState
    names: tuple[str, ...]


def is_inside(node: Any) -> bool:
    return isinstance(node, Inside)


def view(optimizer: Optimizer, chosen: Parts) -> Optimizer:
    """The optimizer as these parts see it: gradients, parameters and states are their shares.

    One update changes what the whole optimizer would change if the gradients of the other parts were zero, also under a
    bound on the norm of all gradients.
    """

    def init(params: Params) -> optax.OptState:
        return chosen.of(optimizer.init(params))

    def update(
        gradients: Params, state: optax.OptState, params: Params = None, **extra: Any
    ) -> tuple[Params, optax.OptState]:
        whole = jax.tree.map(
            lambda own, new: new if is_masked(own) else own, state, optimizer.init(gradients), is_leaf=is_masked
        )
        updates, new = optimizer.update(gradients, whole, params, **extra)
        return updates, chosen.of(new)

    return Optimizer(init, update, optimizer.learning_rate, optimizer.masks)


def put_back(chosen: Parts, new: optax.OptState, old: optax.OptState) -> optax.OptState:
    """The state ``old`` with the share of these parts of ``new``, and with the states of wrappers for them alone."""

    def within_wrapper(node: Any, was: Any) -> Any:
        return Inside(put_back(chosen, node.state, was.state), was.others) if is_inside(node) else node

    def is_owned(node: Any) -> bool:
        return isinstance(node, Owned) and all(map(chosen.has, node.names))

    def leaf(node: Any, was: Any) -> Any:
        if is_owned(node):
            return Owned(jax.tree.map(within_wrapper, node.state, was.state, is_leaf=is_inside), node.names)
        return chosen.back(node, was)

    return jax.tree.map(leaf, new, old, is_leaf=lambda node: is_owned(node) or chosen.splits(node))


def within(wrapper: Wrapper, optimizer: Optimizer, chosen: Parts, part_of: PartOf) -> Optimizer:
    """Wrap the optimizer for these parts alone: ``wrapper`` sees their gradients, parameters and updates.

    The optimizer itself runs once, on all parts, so a bound on the norm of all gradients remains as it is. The other
    parts get its updates, as without the wrapper. The reported step size is that of these parts. ``part_of`` gives the
    network of these parts alone.
    """

    def shared(params: Params = None, gradients: Params = None, extra: Mapping[str, Any] = EMPTY) -> Optimizer:
        """The optimizer of all parts, as ``wrapper`` sees it; what it does not see is in these arguments."""

        def init(mine: Params) -> Inside:
            return Inside(optimizer.init(mine if params is None else params))

        def update(mine: Params, state: Inside, own: Params = None, **given: Any) -> tuple[Params, Inside]:
            given = {
                key: chosen.back(value, extra[key]) if chosen.splits(extra.get(key)) else value
                for key, value in given.items()
            }
            given |= {key: extra[key] for key in WHOLE if key in extra}
            updates, new = optimizer.update(
                chosen.back(mine, gradients), state.state, None if params is None else chosen.back(own, params), **given
            )
            return chosen.of(updates), Inside(new, chosen.others(updates))

        rate = forwarded(optimizer, lambda state: optimizer.learning_rate(chosen.of(state.state)))
        return Optimizer(init, update, rate)

    def init(params: Params) -> Owned:
        return Owned(wrapper(shared(params)).init(chosen.of(params)), chosen.names)

    def update(gradients: Params, state: Owned, params: Params = None, **extra: Any) -> tuple[Params, Owned]:
        mine, others = chosen.of(gradients), chosen.others(gradients)
        zeros = jax.tree.map(jnp.zeros_like, others)
        inner = with_others(state.state, zeros)  # the structure of the state stays, whatever the wrapper does with it
        if not jax.tree.leaves(mine):  # the gradients are those of other parts
            (there,) = insides(inner)
            updates, new = optimizer.update(gradients, there.state, params, **extra)
            return updates, Owned(replaced(state.state, Inside(new)), state.names)
        given = {key: chosen.of(value) for key, value in extra.items() if key not in WHOLE}
        given |= shown(extra, chosen, params, part_of)
        updates, inner = wrapper(shared(params, gradients, extra)).update(mine, inner, chosen.of(params), **given)
        return chosen.back(updates, insides(inner)[0].others), Owned(with_others(inner, ()), state.names)

    wrapped = wrapper(shared())

    def learning_rate(state: Owned) -> Array:
        if is_of_others(chosen, state):
            return optimizer.learning_rate(insides(state.state)[0].state)
        return wrapped.learning_rate(state.state)

    return Optimizer(init, update, forwarded(wrapped, learning_rate))


def shown(extra: Mapping[str, Any], chosen: Parts, params: Params, part_of: PartOf) -> dict[str, Any]:
    """The network and the loss of these parts; the parameters of the others are held fixed."""
    found: dict[str, Any] = {}
    if "network" in extra:
        found["network"] = part_of(extra["network"], chosen)
    if "loss" in extra:
        held = jax.lax.stop_gradient(params)
        found["loss"] = lambda mine: extra["loss"](chosen.back(mine, held))
    return found


def is_of_others(chosen: Parts, state: optax.OptState) -> bool:
    """Whether these parts are masked in the state: it is the share of others."""
    nodes = [node for node in jax.tree.leaves(state, is_leaf=chosen.splits) if chosen.splits(node)]
    return any(is_masked(value) for node in nodes for part, value in node.items() if chosen.has(part))


def insides(state: optax.OptState) -> list[Inside]:
    """The :class:`Inside` of a wrapper's state; ``ValueError`` if the wrapper does not keep it once."""
    found = [node for node in jax.tree.leaves(state, is_leaf=is_inside) if is_inside(node)]
    if len(found) != 1:
        raise ValueError("modules: this method does not keep the state of the optimizer that it wraps")
    return found


def replaced(state: optax.OptState, new: Inside) -> optax.OptState:
    """A wrapper's state with another :class:`Inside`."""
    return jax.tree.map(lambda node: new if is_inside(node) else node, state, is_leaf=is_inside)


def with_others(state: optax.OptState, others: Params) -> optax.OptState:
    """A wrapper's state with these updates of the other parts."""
    return replaced(state, insides(state)[0]._replace(others=others))
