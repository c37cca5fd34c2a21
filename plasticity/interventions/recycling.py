"""Hidden units that do or learn little are born again (redo, regrama), or a little of them is (cpr)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from plasticity.config.fields import BelowOne, Count, Fraction, NonNegative, metadata
from plasticity.core import trees
from plasticity.core.types import Array, Context, Key, Learner, Params, Path, State
from plasticity.interventions import units
from plasticity.interventions.base import Intervention, Step, every, when
from plasticity.interventions.units import Layers, Scores

Measure = Callable[[Context, Params, Mapping[str, Path]], Scores]


def observed(state: Scores, seen: Scores, share: Array | float) -> Scores:
    """``m <- share m + (1 - share) seen`` in the layers seen."""
    return {**state, **{name: share * state[name] + (1 - share) * value for name, value in seen.items()}}


def followed(method: str, layers: Layers, measure: Measure, share: Array | float, periodic: Step) -> Step:
    """Takes the measure into the running means, then ``periodic``."""

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        found = units.chosen(context.network, method, layers)
        return periodic(key, observed(state, measure(context, learner.params, found), share), learner, context)

    return step


def recycler(
    method: str,
    measure: Measure,
    threshold: Array | float,
    period: int,
    average: Array | float,
    layers: Layers,
    optimizer_slots: bool,
) -> Intervention:
    """Every ``period`` updates the units with ``m_i <= threshold mean_k m_k`` are recycled, ``m`` the running measure.

    A recycled unit's running measure goes on from the layer's mean, so that it is not judged by its former life.
    """
    units.check_layers(layers)

    def recycle(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        found = units.chosen(context.network, method, layers)
        if not found:
            return state, learner
        means = {name: state[name].mean() for name in found}
        dormant = {name: state[name] <= threshold * mean for name, mean in means.items()}
        state = {**state, **{name: jnp.where(dormant[name], means[name], state[name]) for name in found}}
        fresh = context.fresh(key).params
        return state, units.recycled(context, learner, fresh, dormant, optimizer_slots=optimizer_slots)

    step = followed(method, layers, measure, average, when(every(period), recycle))
    return Intervention(init=lambda key, params, network: units.by_unit(network, 0.0), step=step)


@metadata(
    paper="Sokar, Agarwal, Castro, Evci 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning",
    neutral={"layers": []},
)
def redo(
    *,
    threshold: NonNegative = 0.025,
    period: Count = 1000,
    average: BelowOne = 0.0,
    layers: Layers = "all",
    optimizer_slots: bool = True,
) -> Intervention:
    """ReDo: dormant hidden units are born again.

    ``s_i = E|h_i| / mean_k E|h_k|``, ``k`` over the units of a layer, ``E`` over the batch and, of a convolution, the
    positions. After every ``period``-th update, where ``s_i <= threshold``: the weights into the unit, its bias and its
    normalisation as in a newborn network, the weights out of it 0, the optimizer's slots of both initial (counts go on,
    see ``surgery.reset_slots``), those of the bias too, which the authors' code leaves as they are. Online network
    only. A unit's copies (crelu) are judged together.

    ``threshold`` (traced): 0.025 is the paper's for its default replay ratio; its text says 0.1; 0 recycles the units
    that are 0 on the whole batch and changes no prediction on it (unless a layer normalisation follows the unit's
    layer). ``period`` (updates, static). ``average`` (traced): ``E|h_i|`` is a running mean over updates with this
    decay; 0, the paper's, is the newest batch alone, which for an agent that learns from one observation at a time is
    far too little. ``layers`` (static): names of hidden layers, or all. ``optimizer_slots`` (static). The paper judges
    a batch of its own; here it is the update's, before it was learned from. In a layer that is 0 throughout every unit
    is dormant. ``ValueError`` for an unknown layer or a network without hidden units (while tracing).
    """
    return recycler("redo", units.activities, threshold, period, average, layers, optimizer_slots)


@metadata(
    paper="Liu et al. 2025, Measure gradients, not activations! Enhancing neuronal activity in deep reinforcement "
    "learning",
    neutral={"layers": []},
)
def regrama(
    *,
    threshold: NonNegative = 0.01,
    period: Count = 1000,
    average: BelowOne = 0.0,
    layers: Layers = "all",
    optimizer_slots: bool = True,
) -> Intervention:
    """ReGraMa: :func:`redo` with the gradient in the place of the activation.

    ``s_i = g_i / mean_k g_k``, ``g_i = mean |dL/dw|`` over the weights into unit ``i``, of the update's gradient (the
    loss with its penalties). Recycled where ``s_i <= threshold``. Settings as in :func:`redo`. ``threshold`` (traced):
    0.01 is the default of public code, whose sweeps use 0.25. The score is that of that code, not read
    in the paper. A layer behind which everything is dead has no gradient at all: all of it is recycled.
    """
    return recycler("regrama", units.gradient_sizes, threshold, period, average, layers, optimizer_slots)


def blended(params: Params, fresh: Params, shares: Mapping[str, Array], context: Context) -> Params:
    """``W_in <- (1 - r) W_in + r W_fresh``, then ``W_out <- (1 - r) W_out``, ``r[units]`` by layer."""
    for name, wirings in units.hidden_layers(context.network, "cpr").items():
        path, r = (*wirings[0].source, "kernel"), shares[name]
        params = trees.put(params, path, (1 - r) * trees.get(params, path) + r * trees.get(fresh, path))
    for wiring in context.network.units:
        path, r = (*wiring.sink, "kernel"), shares[wiring.name]
        params = trees.put(params, path, (1 - r[wiring.owner])[:, None] * trees.get(params, path))
    return params


@metadata(
    paper="arXiv 2607.24996 (2026), CPR: partial resets by gradient utility",
    neutral={"strength": 0.0},
)
def cpr(
    *,
    strength: Fraction = 0.015,
    sharpness: NonNegative = 16.0,
    average: BelowOne = 0.99,
    period: Count = 1000,
) -> Intervention:
    """Partial resets: every unit goes a little of the way to a newborn one, the further the less it learns.

    ``s_j = g_j / mean_k g_k``, ``g_j = mean |dL/dw|`` over the weights into unit ``j``, of the update's gradient.
    At every update ``u_j <- average u_j + (1 - average) s_j``; after every ``period``-th, with ``W'`` newborn,
    ``r_j = strength min(1, 2 sigmoid(-sharpness (u_j - 1)))``, ``W_in,j <- (1 - r_j) W_in,j + r_j W'_in,j``,
    ``W_out,j <- (1 - r_j) W_out,j``, and ``u_j <- 1``, with which it also begins. Biases, normalisations and the
    optimizer's state stay.

    ``strength``, ``sharpness`` and ``average`` are traced, ``period`` (updates) is static; the defaults are those of
    its authors' code, from which all this is taken. A kernel between two hidden layers is blended first and shrunk
    then. In a layer without any gradient the score is 0. ``ValueError`` for a network without hidden units (while
    tracing).
    """

    def scores(context: Context, params: Params, layers: Mapping[str, Path]) -> Scores:
        sizes = units.gradient_sizes(context, params, layers)
        tiny = jnp.finfo(jnp.float32).tiny
        return {name: size / jnp.maximum(size.mean(), tiny) for name, size in sizes.items()}

    def reset(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        shares = {
            name: strength * jnp.minimum(1.0, 2 * jax.nn.sigmoid(-sharpness * (state[name] - 1)))
            for name in units.chosen(context.network, "cpr", "all")
        }
        params = blended(learner.params, context.fresh(key).params, shares, context)
        return jax.tree.map(jnp.ones_like, state), learner._replace(params=params)

    step = followed("cpr", "all", scores, average, when(every(period), reset))
    return Intervention(init=lambda key, params, network: units.by_unit(network, 1.0), step=step)
