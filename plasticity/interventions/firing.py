"""Self-normalized resets: a unit is reset if it has been silent for longer than its own history leads one to expect."""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import TRACED, Count, Fraction, Size, metadata
from plasticity.core.types import Array, Context, Key, Learner, Network, Params, State, Units
from plasticity.interventions import units
from plasticity.interventions.base import Intervention, every
from plasticity.interventions.units import Layers

Above1 = Annotated[float, Field(gt=1), TRACED]


class Firing(NamedTuple):
    """What is known of the units of one layer."""

    silent: Array  # int32[units], updates since the unit last fired or was reset
    limit: Array  # int32[units], the length of a silence at which it is reset
    counts: Array  # int32[units, longest], ended silences of 1, 2, ... updates since the limits were last renewed


def fires(context: Context, wiring: Units) -> Array:
    """bool[units]: whether the unit is above 0 anywhere in the batch, at any position and in any copy."""
    units.check_shown(wiring)
    posts = [context.activations[name].post.reshape(-1, wiring.size) for name in wiring.activations]
    return jnp.concatenate(posts).max(0) > 0


def ended(firing: Firing, over: Array) -> Firing:
    """Count the silences of the units ``over`` (bool[units]) and begin new ones; a silence of 0 updates is none."""
    longest = firing.counts.shape[1]
    place = jnp.minimum(firing.silent, longest) - 1
    counted = (over & (firing.silent > 0)).astype(jnp.int32)
    counts = firing.counts.at[jnp.arange(place.size), place].add(counted)
    return firing._replace(silent=jnp.where(over, 0, firing.silent), counts=counts)


def observed(firing: Firing, fired: Array) -> Firing:
    """One more update, in which the units ``fired`` (bool[units])."""
    firing = ended(firing, fired)
    longer = jnp.minimum(firing.silent + 1, firing.counts.shape[1])
    return firing._replace(silent=jnp.where(fired, 0, longer))


def renewed(firing: Firing, eta: Array | float, expansion: Array | float) -> Firing:
    """New limits from the counted silences, and no counts."""
    below = jnp.cumsum(firing.counts, axis=1)
    percentile = jnp.argmax(below >= (1 - eta) * below[:, -1:], axis=1) + 1
    wider = jnp.floor(expansion * firing.limit).astype(jnp.int32)
    limit = jnp.where(percentile < firing.limit, percentile, jnp.minimum(wider, firing.counts.shape[1]))
    return firing._replace(limit=limit.astype(jnp.int32), counts=jnp.zeros_like(firing.counts))


@metadata(
    paper="Farias, Jozefiak 2025, Self-Normalized Resets for Plasticity in Continual Learning",
    checked="a NumPy loop over units and 240 updates; the equation follows the authors' code, of the paper only "
    "the abstract was read; three defaults are ours",
    neutral={"layers": []},
    only_with={"streams": {"layers": ("all",)}},
)
def self_normalized_resets(
    *,
    eta: Fraction = 0.01,
    period: Count = 1000,
    longest: Size = 500,
    initial: Size = 250,
    expansion: Above1 = 2.0,
    layers: Layers = "all",
    streams: bool = False,
    optimizer_slots: bool = True,
) -> Intervention:
    """Self-normalized resets (SNR): reset a unit that is silent for improbably long, given its own recent silences.

    A unit fires at an update if it is above 0 anywhere in the batch. ``a_i`` is the number of updates since unit ``i``
    last fired, and ``A_i`` the length of its recent silences. The hypothesis that it still fires as before is rejected
    if ``P(A_i >= a_i) <= eta``. In practice, as in the authors' code, each unit has a limit ``tau_i`` and is reset
    after an update if ``a_i >= tau_i``. A unit's silences, those cut off by a reset included, are counted for
    ``period`` updates. Then ``q_i`` is the smallest ``q`` with ``P(A_i <= q) >= 1 - eta``, and

        ``tau_i <- q_i`` if ``q_i < tau_i``, else ``min(expansion tau_i, longest)``.

    A reset unit gets fresh incoming weights, bias and normalisation and outgoing weights of 0; the optimizer's slots of
    both are reset (counts continue, see ``surgery.reset_slots``). Its limit stays. Only the online network is affected.

    Args:
        eta: rejection threshold, the method's one parameter (traced). 1 makes every limit 1 update.
        period: number of updates between two renewals of the limits (static). The authors' code renews them every 16
            tasks.
        longest: the largest limit, in updates, and the number of bins that each unit has in memory (static).
        initial: the first limit of every unit, in updates (static). Above ``period`` it has no effect: no limit is
            reached before the first renewal, at which every limit becomes ``q_i``, and that of a unit that was silent
            throughout, which has no counted silence, 1: it is reset at the next update, unless it fires there.
        expansion: factor of a limit that is too short (traced).
        layers: names of hidden layers, or all (static).
        streams: whether "all" includes the units of residual streams, which several layers write and read (static).
        optimizer_slots: whether the optimizer's slots are reset (static).

    Raises:
        ValueError: for an unknown layer, an ``initial`` above ``longest`` and, while tracing, for a network without
            hidden units or, with ``streams``, without a residual stream.

    The equations and ``eta`` follow the authors' code; of the paper, only the abstract was read. The code counts
    examples where we count updates: all ages there are multiples of the batch size, and no limit is below it. As there,
    silences of 0 updates are not counted, so that a unit that fired in every batch gets a limit of 1: it is reset at
    its first silent batch. ``period``, ``longest`` and ``initial`` are ours. An agent that learns from one observation
    at a time needs larger ones. Non-linearities with two copies (``crelu``) fire nearly always. Fresh parameters are
    drawn only if a unit is reset; where lanes share one vectorised program (on a GPU), they are drawn at every update.
    """
    units.check_layers(layers)
    if initial > longest:
        raise ValueError(f"initial: {initial} is not allowed; must be at most longest ({longest})")
    due = every(period)

    def init(key: Key, params: Params, network: Network) -> Mapping[str, Firing]:
        del key, params
        units.check_streams(network, streams, default=False)

        def start(size: int) -> Firing:
            limit = jnp.full(size, initial, jnp.int32)
            return Firing(jnp.zeros_like(limit), limit, jnp.zeros((size, longest), jnp.int32))

        return {wiring.name: start(wiring.size) for wiring in network.units}

    def step(key: Key, state: Mapping[str, Firing], learner: Learner, context: Context) -> tuple[State, Learner]:
        found = units.named_layers(context.network, "self_normalized_resets", layers, streams)
        if not found:
            return state, learner
        seen = {name: observed(state[name], fires(context, wiring)) for name, wiring in found.items()}
        over = {name: firing.silent >= firing.limit for name, firing in seen.items()}

        def reset() -> Learner:
            fresh = context.fresh(key).params
            return units.recycled(context, learner, fresh, over, optimizer_slots=optimizer_slots)

        some = jnp.concatenate(list(over.values())).any()
        learner = jax.lax.cond(some, reset, lambda: learner)
        after = {name: ended(firing, over[name]) for name, firing in seen.items()}
        after = jax.lax.cond(
            due(context.clock),
            lambda: {name: renewed(firing, eta, expansion) for name, firing in after.items()},
            lambda: after,
        )
        return {**state, **after}, learner

    return Intervention(init=init, step=step)
