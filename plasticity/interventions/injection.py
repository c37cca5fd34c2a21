"""Plasticity injection: a new head learns on top of a frozen old one."""

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
    """``tree``, structured like ``params``, with ``change(params, tree)`` applied to each network with an injection."""
    if not isinstance(params, Mapping):
        return tree
    if INJECTION in params:
        return change(params, tree)
    return {name: in_networks(part, tree[name], change) for name, part in params.items()}


def thawed(params: Mapping[str, Any], updates: Mapping[str, Any]) -> Mapping[str, Any]:
    """The updates, with zeros for frozen parts.

    Frozen are the gate, the anchor, the new head before the injection and the old head after it.
    """
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
    """The optimizer, restricted to the parameters that :func:`thawed` does not freeze."""

    def update(updates: Params, state: Any, params: Params, **extra: Any) -> tuple[Params, Any]:
        del extra
        return in_networks(params, updates, thawed), state

    return wrap(optimizer, after=optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update))


NOTHING = 2**31 - 1  # no update seen since initialisation: a learner created after `at` has had no injection


@metadata(
    paper="Nikishin, Oh, Ostrovski, Lyle, Pascanu, Dabney, Barreto 2023, Deep Reinforcement Learning with Plasticity "
    "Injection",
    checked="the equation written out in JAX: outputs and gradients, before and after the injection; the equation "
    "follows code by others, and the default of `at` is ours",
    neutral={"at": 0},
    note="list it last among the interventions that wrap the optimizer; the frozen heads double its memory",
)
def plasticity_injection(*, at: Natural = 100_000, layers: Layers = 1) -> Intervention:
    """Plasticity injection: after ``at`` updates a new head takes over the learning, without changing any output.

    The head ``h`` consists of the output layers and the last ``layers`` dense hidden layers before them; ``phi`` is its
    input:

        ``output = h_old(phi) + h_new(phi) - stop_gradient(h_anchor(phi))``

    ``new`` and ``anchor`` are equal and are drawn separately from ``old`` at initialisation. For the first ``at``
    updates only the old head and the layers below it learn, as if the other heads did not exist. From then on only the
    new head and the layers below learn; the gradient reaches those layers through the old head as well.

    Frozen parameters are protected from the gradient, the momentum and anything else the optimizer adds to its step.
    They are not protected from weight decay or noise of an intervention listed after this one, or from interventions
    that write parameters (resets, projections). A network that is later reset as a whole gets its old head back and no
    second injection. Updates are numbered by the clock. If an agent that has already made updates makes none at number
    ``at``, the injection happens after its next update.

    Args:
        at: number of updates before the injection; 0 means never (static).
        layers: number of dense hidden layers in the head (static).

    Raises:
        ValueError: for a negative number and, while tracing, for a network with fewer dense hidden layers.

    The dense hidden layers of the head come directly before the outputs. ``resnet18``, ``residual_mlp``, ``simba``,
    ``simba_v2`` and ``vit`` have none there, nor have recurrent networks with ``widths: []``: these need ``layers`` 0.

    Modules are called ``new_NAME`` and ``anchor_NAME``; methods that look at units count theirs like any others.
    ``layers = 0`` makes the head linear in ``phi``. Old and new head are then one linear layer in other coordinates,
    and only the optimizer can tell them apart. Two additional heads are computed from the start. With noisy networks
    the noise of the new head and that of the anchor do not cancel. The paper draws the new head at the injection; here
    it is drawn at initialisation, which is equivalent. The default of ``at`` is ours: the paper uses the middle of a
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
            # A gate of exactly 0 afterwards means a freshly reset network. Averages with such a network remain open.
            stays: Array = happened & (params[INJECTION]["gate"] != 0)
            return {**params, INJECTION: {"gate": jnp.where(due | stays, 1.0, 0.0)}}

        params = in_networks(learner.params, learner.params, gate)
        return now, learner._replace(params=params)

    return Intervention(network=network, optimizer=without_frozen, init=init, step=step, sets=("injected",))
