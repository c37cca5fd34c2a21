"""ReDo with the options of its released code: which units are dormant, when they are recycled, and how."""

from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config.fields import BelowOne, Count, Fraction, Natural, NonNegative, Positive, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Clock, Context, Key, Learner, ModulePath, Params, State, Units
from plasticity.interventions import surgery, units
from plasticity.interventions.base import Due, Intervention, every, when
from plasticity.interventions.continual_backprop import features, mean_of, outgoing
from plasticity.interventions.recycling import observed, started
from plasticity.interventions.units import Layers, Scores

Score = Literal["activity", "centred", "utility", "inverted", "random"]
DRAW = 10_000  # folded into the key for random scores, which are apart from the fresh parameters
TINY = float(np.finfo(np.float32).tiny)


def centred(post: Array, size: int) -> Array:
    """``E|h_i - E h_i|``, float32[units]; each copy of a unit has its own mean."""
    values = post.reshape(-1, post.shape[-1])
    return jnp.abs(values - values.mean(0)).mean(0).reshape(-1, size).mean(0)


def worth(params: Params, wiring: Units) -> Array:
    """``mean|W_out,i| / mean|W_in,i|``, float32[units]."""
    leaving = outgoing(params, wiring)[surgery.rows_of(features(wiring))].mean(-1)
    return leaving / jnp.maximum(units.incoming_of(params, wiring), TINY)


def measured(score: Score, context: Context, params: Params, layers: Mapping[str, Units]) -> Scores:
    """The size of each unit that the score compares, by layer; of a stream, the mean over its activations."""
    if score not in ("centred", "utility"):
        return units.activities(context, params, layers)

    def size(wiring: Units) -> Array:
        units.check_shown(wiring)
        apart = mean_of([centred(context.activations[name].post, wiring.size) for name in wiring.activations])
        return apart * worth(params, wiring) if score == "utility" else apart

    return {name: size(wiring) for name, wiring in layers.items()}


def smallest(values: Array, fraction: Array) -> Array:
    """The mask of the smallest ``fraction`` of the values, at least one unless it is 0; ties with the last are in."""
    count = jnp.maximum(jnp.round(values.size * fraction), 1).astype(jnp.int32)
    return (fraction > 0) & (values <= jnp.sort(values)[count - 1])


def with_norm(fresh: Array, old: Array, recycled: Array, factor: Array | float, axis: int) -> Array:
    """A fresh kernel whose slices along ``axis`` have ``factor`` times the mean norm of the old ones that stay.

    ``recycled`` (bool) broadcasts to the kernel and is constant in each slice. If no slice stays, or none is recycled,
    the kernel is unchanged.
    """
    if not recycled.ndim:
        return fresh
    across = tuple(i for i in range(old.ndim) if i != old.ndim + axis)

    def norms(kernel: Array) -> Array:
        return jnp.sqrt(jnp.square(kernel).sum(across, keepdims=True))

    stays = ~recycled.reshape(norms(old).shape)
    mean = jnp.where(stays, norms(old), 0).sum() / jnp.maximum(stays.sum(), 1)
    return jnp.where(stays.any(), factor * mean * fresh / jnp.maximum(norms(fresh), TINY), fresh)


def scaled(fresh: Params, old: Params, masks: surgery.Masks, factor: Array | float, axis: int) -> Params:
    """:func:`with_norm` of all kernels under the masks; the other parameters are fresh."""

    def leaf(path: ModulePath, new: Array, before: Array, mask: Array) -> Array:
        return with_norm(new, before, mask, factor, axis) if path[-1] == "kernel" else new

    return trees.map_with_path(leaf, fresh, old, masks)


def between(period: int, start: int, end: int | None) -> Due:
    """True at the last of every ``period`` updates, from the ``start``-th update on and before the ``end``-th."""
    due: Callable[[Clock], Array | bool] = every(period)

    def within(clock: Clock) -> Array | bool:
        done = clock.update + 1
        inside = (done >= start) if end is None else (done >= start) & (done < end)
        return due(clock) & inside

    return due if start <= 1 and end is None else within


@metadata(
    paper="Sokar, Agarwal, Castro, Evci 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning",
    checked="scores and rewritten weights by hand; the options by hand or in NumPy",
    neutral={"layers": []},
    only_with={
        "streams": {"layers": ("all",)},
        "threshold": {"select": ("threshold",)},
        "fraction": {"select": ("fraction",)},
        "average": {"statistics": ("update",), "score": ("activity", "centred", "utility", "inverted")},
        "outgoing_norm": {"outgoing": ("random",)},
    },
)
def redo(
    *,
    threshold: NonNegative = 0.025,
    period: Count = 1000,
    average: BelowOne = 0.0,
    layers: Layers = "all",
    streams: bool = False,
    optimizer_slots: bool = True,
    select: Literal["threshold", "fraction"] = "threshold",
    fraction: Fraction = 0.3,
    score: Score = "activity",
    statistics: Literal["update", "reference"] = "update",
    start: Natural = 0,
    end: Count | None = None,
    outgoing: Literal["zero", "random"] = "zero",
    incoming_norm: Positive | None = None,
    outgoing_norm: Positive | None = None,
) -> Intervention:
    """ReDo: recycle dormant hidden units.

    The score of unit ``i`` is ``s_i = E|h_i| / mean_k E|h_k|``, with ``k`` over the units of the layer and ``E`` over
    the batch and, for a convolution, the positions. After every ``period``-th update, each unit with ``s_i <=
    threshold`` is recycled. Its incoming weights, bias and normalisation are freshly initialised and its outgoing
    weights are set to 0. The optimizer's slots of both are reset (counts continue, see ``surgery.reset_slots``),
    including the slots of the bias, which the authors' code leaves unchanged. Only the online network is affected. A
    unit's copies (crelu) are scored together.

    Args:
        threshold: traced. 0.025 is the paper's value for its default replay ratio; its text says 0.1. With 0, only
            units that are 0 on the whole batch are recycled, and no prediction on it changes (unless a layer
            normalisation follows the unit's layer).
        period: number of updates (static).
        average: decay of the running mean of ``E|h_i|`` over updates (traced). 0, the paper's value, uses the newest
            batch alone, which is far too little for an agent that learns from one observation at a time.
        layers: names of hidden layers, or all (static).
        streams: whether "all" includes the units of residual streams, which several layers write and read (static). The
            authors' code recycles units inside residual blocks only.
        optimizer_slots: whether the optimizer's slots are reset (static).
        select: "fraction" recycles a scheduled fraction of each layer instead: the ``max(1, round(units r))`` units
            with the lowest scores, and those that tie with the last one (static). ``r`` is ``fraction``, or ``fraction
            cos(pi/2 u / end)`` after ``u`` updates if there is an ``end``.
        fraction: traced.
        score: "centred" has ``E|h_i - E h_i|`` in place of ``E|h_i|`` (static). With ``select: fraction`` also:
            "utility", ``E|h_i - E h_i| mean|W_out,i| / mean|W_in,i|`` as in continual backprop; "inverted", which
            recycles the most active units; "random".
        statistics: "update" scores units on the update's batch, before the update; "reference", as in the paper, after
            the update on a batch drawn for this purpose (static). That batch has the size of the update's; an agent
            that stores nothing has only the update's own.
        start: the first update at which units may be recycled (static).
        end: the update from which on they no longer are; null: never (static).
        outgoing: what the outgoing weights become: 0 or, "random", fresh values (static).
        incoming_norm: the norm of the incoming weights of recycled units, relative to the mean norm of those that stay
            in the same kernel; null: as initialised (traced).
        outgoing_norm: the same for outgoing weights (traced).

    Raises:
        ValueError: for an unknown word or layer, a ``score`` that needs ``select: fraction``, an ``end`` that is not
            after ``start`` and, while tracing, for a network without hidden units or, with ``streams``, without a
            residual stream.

    The options after ``optimizer_slots`` are those of the authors' code, where incoming weights are always drawn from
    Glorot's uniform distribution; here they have the network's own initialisation. In a layer that is 0 throughout,
    every unit is dormant.
    """
    units.check_layers(layers)
    check("select", select, ("threshold", "fraction"))
    check("statistics", statistics, ("update", "reference"))
    check("outgoing", outgoing, ("zero", "random"))
    check("score", score, ("activity", "centred", "utility", "inverted", "random"))
    if select == "threshold" and score not in ("activity", "centred"):
        raise ValueError(f"score: {score} is not allowed with select: threshold; must be one of activity, centred")
    if end is not None and end <= start:
        raise ValueError(f"end: {end} is not allowed; must be above start ({start})")

    def dormant(key: Key, sizes: Array, clock: Clock) -> Array:
        """bool[units] of one layer."""
        if select == "threshold":
            return sizes <= threshold * sizes.mean()
        done = (clock.update + 1).astype(jnp.float32)
        share = jnp.asarray(fraction, jnp.float32)
        share = share if end is None else share * jnp.cos(jnp.pi / 2 * jnp.minimum(done / end, 1))
        ranked = {"inverted": -sizes, "random": jax.random.uniform(key, sizes.shape)}.get(score, sizes)
        return smallest(ranked, share)

    def rewritten(key: Key, learner: Learner, context: Context, chosen: Mapping[str, Array]) -> Learner:
        fresh, old = context.fresh(key).params, learner.params
        into, out_of = surgery.unit_masks(context.network, old, chosen)
        coming = fresh if incoming_norm is None else scaled(fresh, old, into, incoming_norm, axis=-1)
        params = trees.where(into, coming, old)
        leaving = fresh if outgoing == "random" else jax.tree.map(jnp.zeros_like, params)
        if outgoing_norm is not None:
            leaving = scaled(leaving, params, out_of, outgoing_norm, axis=-2)
        params, slots = trees.where(out_of, leaving, params), learner.opt_state
        if optimizer_slots:
            slots = surgery.reset_slots(context.optimizer, slots, params, surgery.either(into, out_of))
        carry = surgery.without_carry(context.network, learner.carry, chosen)
        return learner._replace(params=params, opt_state=slots, carry=carry)

    def recycle(key: Key, state: Scores, learner: Learner, context: Context) -> tuple[State, Learner]:
        found = units.named_layers(context.network, "redo", layers, streams)
        if not found:
            return state, learner
        sizes = {name: state[name] for name in found}
        if statistics == "reference":
            activations = context.network.forward(learner.params, context.reference())[1]
            sizes = dict(measured(score, context._replace(activations=activations), learner.params, found))
        draw = jax.random.fold_in(key, DRAW)
        keys = {name: jax.random.fold_in(draw, i) for i, name in enumerate(found)}
        chosen = {name: dormant(keys[name], sizes[name], context.clock) for name in found}
        if statistics == "update":  # the past of a recycled unit does not count against it
            state = {**state, **{name: jnp.where(chosen[name], each.mean(), each) for name, each in sizes.items()}}
        return state, rewritten(key, learner, context, chosen)

    def step(key: Key, state: Scores, learner: Learner, context: Context) -> tuple[State, Learner]:
        found = units.named_layers(context.network, "redo", layers, streams)
        if statistics == "update":
            state = observed(state, measured(score, context, learner.params, found), average)
        return when(between(period, start, end), recycle)(key, state, learner, context)

    return Intervention(init=started(0.0, streams), step=step)
