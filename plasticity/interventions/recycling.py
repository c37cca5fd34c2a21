"""Reset hidden units that learn little (regrama), or reset them partially (cpr)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from plasticity.config.fields import BelowOne, Count, Fraction, NonNegative, metadata
from plasticity.core import trees
from plasticity.core.types import Array, Context, Key, Learner, Network, Params, State, Units
from plasticity.interventions import surgery, units
from plasticity.interventions.base import Intervention, Step, every, when
from plasticity.interventions.units import Layers, Scores

Measure = Callable[[Context, Params, Mapping[str, Units]], Scores]


def observed(state: Scores, seen: Scores, share: Array | float) -> Scores:
    """``m <- share m + (1 - share) seen`` in the layers seen."""
    return {**state, **{name: share * state[name] + (1 - share) * value for name, value in seen.items()}}


def started(value: float, streams: bool) -> Callable[[Key, Params, Network], Scores]:
    """The intervention's ``init``: ``value`` for every hidden unit."""

    def init(key: Key, params: Params, network: Network) -> Scores:
        del key, params
        units.check_streams(network, streams, default=False)
        return units.by_unit(network, value)

    return init


def followed(
    method: str, layers: Layers, streams: bool, measure: Measure, share: Array | float, periodic: Step
) -> Step:
    """Update the running means with the measure, then apply ``periodic``."""

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        found = units.named_layers(context.network, method, layers, streams)
        return periodic(key, observed(state, measure(context, learner.params, found), share), learner, context)

    return step


def recycler(
    method: str,
    measure: Measure,
    threshold: Array | float,
    period: int,
    average: Array | float,
    layers: Layers,
    streams: bool,
    optimizer_slots: bool,
) -> Intervention:
    """Recycle units with ``m_i <= threshold mean_k m_k`` every ``period`` updates, where ``m`` is the running measure.

    The running measure of a recycled unit is set to the layer's mean, so that its past does not count against it.
    """
    units.check_layers(layers)

    def recycle(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        found = units.named_layers(context.network, method, layers, streams)
        if not found:
            return state, learner
        means = {name: state[name].mean() for name in found}
        dormant = {name: state[name] <= threshold * mean for name, mean in means.items()}
        state = {**state, **{name: jnp.where(dormant[name], means[name], state[name]) for name in found}}
        fresh = context.fresh(key).params
        return state, units.recycled(context, learner, fresh, dormant, optimizer_slots=optimizer_slots)

    step = followed(method, layers, streams, measure, average, when(every(period), recycle))
    return Intervention(init=started(0.0, streams), step=step)


@metadata(
    paper="Liu et al. 2025, Measure gradients, not activations! Enhancing neuronal activity in deep reinforcement "
    "learning",
    checked="scores and rewritten weights by hand; the score follows public code and was not compared with the paper",
    neutral={"layers": []},
    only_with={"streams": {"layers": ("all",)}},
)
def regrama(
    *,
    threshold: NonNegative = 0.01,
    period: Count = 1000,
    average: BelowOne = 0.0,
    layers: Layers = "all",
    streams: bool = False,
    optimizer_slots: bool = True,
) -> Intervention:
    """ReGraMa: ``redo`` with gradients in place of activations.

    ``s_i = g_i / mean_k g_k``, where ``g_i = mean |dL/dw|`` over the incoming weights of unit ``i``, from the update's
    gradient (of the loss with its penalties). Units with ``s_i <= threshold`` are recycled.

    Args:
        threshold: traced. 0.01 is the default of public code, whose sweeps use 0.25.
        period: as in ``redo``.
        average: as in ``redo``.
        layers: as in ``redo``.
        streams: as in ``redo``.
        optimizer_slots: as in ``redo``.

    The score follows that code; we have not checked it against the paper. If everything after a layer is dead, the
    layer has no gradient at all, and all of its units are recycled.
    """
    return recycler("regrama", units.gradient_sizes, threshold, period, average, layers, streams, optimizer_slots)


def blended(params: Params, fresh: Params, shares: Mapping[str, Array], layers: Mapping[str, Units]) -> Params:
    """``W_in <- (1 - r) W_in + r W_fresh``, then ``W_out <- (1 - r) W_out``, ``r[units]`` by layer."""
    for name, wiring in layers.items():
        for source in wiring.sources:
            if "kernel" in trees.get(params, source.path):
                path, r = (*source.path, "kernel"), surgery.owned(shares[name], source.owner)
                params = trees.put(params, path, (1 - r) * trees.get(params, path) + r * trees.get(fresh, path))
    for name, wiring in layers.items():
        for sink in wiring.sinks:
            path, r = (*sink.path, "kernel"), surgery.owned(shares[name], sink.owner)
            params = trees.put(params, path, (1 - r)[:, None] * trees.get(params, path))
    return params


@metadata(
    paper="arXiv 2607.24996 (2026), CPR: partial resets by gradient utility",
    checked="two updates and a partial reset in NumPy; the equation follows the authors' code",
    neutral={"strength": 0.0},
)
def cpr(
    *,
    strength: Fraction = 0.015,
    sharpness: NonNegative = 16.0,
    average: BelowOne = 0.99,
    period: Count = 1000,
    streams: bool = False,
) -> Intervention:
    """CPR: partial resets by gradient utility. Units that learn less move further towards a fresh initialisation.

    ``s_j = g_j / mean_k g_k``, where ``g_j = mean |dL/dw|`` over the incoming weights of unit ``j``, from the update's
    gradient. At every update ``u_j <- average u_j + (1 - average) s_j``. After every ``period``-th update, with freshly
    initialised weights ``W'``: ``r_j = strength min(1, 2 sigmoid(-sharpness (u_j - 1)))``,
    ``W_in,j <- (1 - r_j) W_in,j + r_j W'_in,j``, ``W_out,j <- (1 - r_j) W_out,j``, and ``u_j <- 1``, which is also its
    initial value. Biases, normalisations and the optimizer's state are unchanged.

    Args:
        strength: traced.
        sharpness: traced.
        average: decay of the running mean ``u_j`` (traced).
        period: number of updates (static).
        streams: whether units of residual streams are reset, too (static).

    Raises:
        ValueError: while tracing, for a network without hidden units or, with ``streams``, without a residual stream.

    The method and its defaults follow the authors' code. A kernel between two hidden layers is blended first and then
    shrunk. In a layer without any gradient the score is 0.
    """

    def scores(context: Context, params: Params, layers: Mapping[str, Units]) -> Scores:
        sizes = units.gradient_sizes(context, params, layers)
        tiny = jnp.finfo(jnp.float32).tiny
        return {name: size / jnp.maximum(size.mean(), tiny) for name, size in sizes.items()}

    def reset(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        layers = units.hidden_layers(context.network, "cpr", streams)
        shares = {
            name: strength * jnp.minimum(1.0, 2 * jax.nn.sigmoid(-sharpness * (state[name] - 1))) for name in layers
        }
        params = blended(learner.params, context.fresh(key).params, shares, layers)
        return jax.tree.map(jnp.ones_like, state), learner._replace(params=params)

    step = followed("cpr", "all", streams, scores, average, when(every(period), reset))
    return Intervention(init=started(1.0, streams), step=step)
