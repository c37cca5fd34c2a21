"""Plasticity injection: a new head learns on top of an old one that stays as it is."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from plasticity.config.fields import Natural, metadata
from plasticity.core.types import Array, Context, Key, Learner, Network, Optimizer, Params, State
from plasticity.interventions.base import Intervention
from plasticity.networks.build import is_open
from plasticity.networks.spec import ANCHOR, INJECTION, NEW, NetworkSpec
from plasticity.optim.optimizers import wrap

Layers = Annotated[int, Field(ge=0, le=100)]

Change = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]


def in_networks(params: Params, tree: Params, change: Change) -> Params:
    """``tree``, laid out as ``params``, with ``change(params, tree)`` of each network in it that has an injection."""
    if not isinstance(params, Mapping):
        return tree
    if INJECTION in params:
        return change(params, tree)
    return {name: in_networks(part, tree[name], change) for name, part in params.items()}


def thawed(params: Mapping[str, Any], updates: Mapping[str, Any]) -> Mapping[str, Any]:
    """The updates with zeros for what must not move: gate, anchor, the new head before the injection, the old after."""
    opened = is_open(params)
    old = {name.removeprefix(NEW) for name in params if name.startswith(NEW)}
    moves = dict.fromkeys(old, ~opened) | {NEW + name: opened for name in old}
    still = {INJECTION} | {ANCHOR + name for name in old}

    def kept(name: str, part: Params) -> Params:
        if name in still:
            return jax.tree.map(jnp.zeros_like, part)
        return jax.tree.map(lambda u: jnp.where(moves[name], u, 0), part) if name in moves else part

    return {name: kept(name, part) for name, part in updates.items()}


def without_frozen(optimizer: Optimizer) -> Optimizer:
    """The optimizer, which moves nothing that :func:`thawed` holds."""

    def update(updates: Params, state: Any, params: Params, **extra: Any) -> tuple[Params, Any]:
        del extra
        return in_networks(params, updates, thawed), state

    return wrap(optimizer, after=optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update))


NOTHING = 2**31 - 1  # no update seen since birth: one born after `at` has no injection before it


@metadata(
    paper="Nikishin, Oh, Ostrovski, Lyle, Pascanu, Dabney, Barreto 2023, Deep Reinforcement Learning with Plasticity "
    "Injection",
    neutral={"at": 0},
    note="stands last among the interventions that wrap the optimizer; the frozen heads double its memory",
)
def plasticity_injection(*, at: Natural = 100_000, layers: Layers = 1) -> Intervention:
    """A new head takes over the learning, and no output changes at that moment.

    The head ``h`` is the output layers and the last ``layers`` dense hidden layers before them, ``phi`` what enters it:

        ``output = h_old(phi) + h_new(phi) - stop_gradient(h_anchor(phi))``

    with ``new = anchor`` a draw of their own at birth. For the first ``at`` updates only the old head and the layers
    below learn, as if the others were not there; from then on only the new head and the layers below, whose gradient
    comes through the old head as well. What is frozen is so against the gradient, the momentum and whatever the
    optimizer adds to its step; not against weight decay or noise of an intervention that comes after this one and not
    against those that write parameters (resets, projections). A network reset as a whole afterwards has its old head
    again, and no second injection. Updates are numbered by the clock; where an agent that has made updates before makes
    none at that number, it happens after the next.

    Both are static; ``at = 0`` is never. Modules are called ``new_NAME`` and ``anchor_NAME``; their units count as any
    other for whoever looks at units. ``layers = 0`` makes the head linear in ``phi``: then old and new are one linear
    layer in other coordinates, which only the optimizer can tell apart. Two further heads are computed from the start.
    With noisy networks the noise of the new head and that of the anchor do not cancel. ``ValueError`` for a negative
    number, and while tracing for a network with fewer dense hidden layers. The paper draws the new head at the
    injection; here at birth, which is the same draw. The default of ``at`` is ours: the paper takes the middle of a
    run.
    """
    for key, value in (("at", at), ("layers", layers)):
        if value < 0:
            raise ValueError(f"{key}: {value} is not allowed; must be an integer of at least 0")
    if at == 0:
        return Intervention()

    def network(spec: NetworkSpec) -> NetworkSpec:
        return replace(spec, injected=layers)

    def init(key: Key, params: Params, network: Network) -> State:
        del key, params, network
        return jnp.asarray(NOTHING, jnp.int32)  # the number of updates made when the last one was seen

    def step(key: Key, last: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        now, seen = context.clock.update + 1, last != NOTHING
        happened = seen & (last >= at)
        due = (now >= at) & jnp.where(seen, last < at, now == at)

        def gate(params: Mapping[str, Any], _: Mapping[str, Any]) -> Mapping[str, Any]:
            # A gate of exactly 0 afterwards is that of a network born anew. Averages with such a one remain open.
            stays: Array = happened & (params[INJECTION]["gate"] != 0)
            return {**params, INJECTION: {"gate": jnp.where(due | stays, 1.0, 0.0)}}

        params = in_networks(learner.params, learner.params, gate)
        return now, learner._replace(params=params)

    return Intervention(network=network, optimizer=without_frozen, init=init, step=step, sets=("injected",))
