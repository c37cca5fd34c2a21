"""Continual backpropagation: slow, steady replacement of the least useful hidden units."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field

from plasticity.config.fields import LARGEST, BelowOne, Fraction, Size, metadata
from plasticity.core import counting, trees
from plasticity.core.counting import Precise
from plasticity.core.errors import check
from plasticity.core.types import Array, Context, Key, Learner, ModulePath, Network, Params, Sink, State, Units
from plasticity.interventions import surgery, units
from plasticity.interventions.base import Intervention, every
from plasticity.interventions.penalties import total

Utility = Literal[
    "contribution",
    "adaptable_contribution",
    "zero_contribution",
    "weight",
    "adaptation",
    "feature_by_input",
    "random",
]
CHANCE = 10_000  # folded into the key with a layer's number; joined networks fold theirs into it when they are drawn
Edit = Callable[[Array, Array, Array], Array]  # old, fresh for what comes in, fresh for what goes out -> new


class Ledger(NamedTuple):
    """The statistics kept for the units of one layer."""

    age: Array  # int32[units], updates since the unit was initialised
    utility: Array  # float32[units], running mean, not corrected for its initialisation at 0
    budget: Precise  # [], units that may be replaced; below 1 after every update


class Memory(NamedTuple):
    """The method's state. Every layer of hidden units has an entry."""

    ledgers: Mapping[str, Ledger]
    means: Mapping[
        str, Array
    ]  # by layer: float32[features], running mean of its outputs, not corrected; see `features`
    fresh: Params  # freshly initialised parameters; no unit is used twice


class Factors(NamedTuple):
    """What the utility of a unit is the product of (static)."""

    values: bool  # the size of its output
    centred: bool  # measured from its mean
    outgoing: bool  # the size of its outgoing weights
    incoming: bool  # the inverse of the size of its incoming weights


FACTORS: Mapping[Utility, Factors] = {
    "contribution": Factors(True, False, True, False),
    "adaptable_contribution": Factors(True, True, True, True),
    "zero_contribution": Factors(True, True, True, False),
    "weight": Factors(False, False, True, False),
    "adaptation": Factors(False, False, False, True),
    "feature_by_input": Factors(True, True, False, True),
    "random": Factors(False, False, False, False),
}


class Picked(NamedTuple):
    """Units of one layer as indices instead of masks, so that only their rows and columns are written."""

    number: Array  # int32[most]
    replaced: Array  # bool[most], whether the unit is actually replaced


def empty(params: Params, network: Network) -> Memory:
    """The state of a fresh learner."""

    def ledger(count: int) -> Ledger:
        return Ledger(jnp.zeros(count, jnp.int32), jnp.zeros(count), counting.zeros())

    ledgers = {wiring.name: ledger(wiring.size) for wiring in network.units}
    return Memory(ledgers, {wiring.name: jnp.zeros(features(wiring).size) for wiring in network.units}, params)


def aligned(wiring: Units) -> bool:
    """Whether every reader has one row for each output of the layer (for a flattened map: at each position)."""
    first, *others = wiring.sinks
    same = all(np.array_equal(first.owner, sink.owner) for sink in others)
    return same and all(sink.direct for sink in wiring.sinks) and len(wiring.activations) == 1


def features(wiring: Units) -> np.ndarray:
    """The owner of each feature for which a mean is kept, int[features]: the rows of its readers, if they agree.

    Otherwise (behind pooling, in a residual stream) the features are the channels.
    """
    return wiring.sinks[0].owner if aligned(wiring) else np.tile(np.arange(wiring.size), wiring.copies)


def kernels_of(params: Params, wiring: Units) -> list[Array]:
    """The kernels that read the units."""
    return [trees.get(params, (*sink.path, "kernel")) for sink in wiring.sinks]


def outgoing(params: Params, wiring: Units) -> Array:
    """``mean |w|`` over the outgoing weights of each feature, across all kernels that read it, float32[features]."""
    kernels = kernels_of(params, wiring)
    sums = [jnp.abs(kernel).sum((*range(kernel.ndim - 2), -1)) for kernel in kernels]
    columns = [kernel.size // kernel.shape[-2] for kernel in kernels]
    if aligned(wiring):
        return total(sums) / sum(columns)
    rows = [surgery.rows_of(sink.owner) for sink in wiring.sinks]
    size = total([each[row].sum(-1) for each, row in zip(sums, rows, strict=True)])
    size = size / sum(row.shape[-1] * number for row, number in zip(rows, columns, strict=True))
    return size[features(wiring)]


def by_channel(means: Array, channels: int) -> Array:
    """The means of a layer's outputs, averaged over the positions of a flattened map, float32[features].

    ``channels`` (static) is the last axis of the activation, including the copies of crelu. For a dense layer, and for
    a convolution that another convolution reads, there is a single position.
    """
    return jnp.tile(means.reshape(-1, channels).mean(0), means.size // channels)


def correction(decay: Array | float, age: Array) -> Array:
    """``1 - decay^age``: the divisor that corrects a running mean for its initialisation at 0."""
    return 1 - jnp.power(jnp.asarray(decay, jnp.float32), age)


def least_useful(ranking: Array, mature: Array, budget: Precise, expected: Array, most: int) -> tuple[Picked, Precise]:
    """The units that rank lowest among the mature ones, as many as the budget allows, and the remaining budget.

    The budget is a compensated sum: at a rate of 1e-8 a float32 would stop growing before it reaches 1.
    """
    budget = counting.plus(budget, expected)
    whole = counting.floor(budget)
    return lowest(ranking, mature, whole, most), counting.plus(budget, -whole)


def by_chance(key: Key, expected: Array) -> Array:
    """``floor(expected)`` or, below 1, 1 with the probability ``expected`` and 0 otherwise."""
    return jnp.where(expected < 1, jax.random.uniform(key) < expected, jnp.floor(expected))


def lowest(ranking: Array, mature: Array, count: Array, most: int) -> Picked:
    """The ``count`` mature units that rank lowest, at most ``most``."""
    ranked = jnp.where(mature, ranking, jnp.inf)
    number = jnp.argmin(ranked)[None] if most == 1 else jnp.argsort(ranked)[:most]
    return Picked(number, (jnp.arange(number.size) < count) & mature[number])


def cleared(values: Array, picked: Picked) -> Array:
    """The units' values, with 0 for the replaced units."""
    return values.at[picked.number].multiply((~picked.replaced).astype(values.dtype))


def column(owner: np.ndarray, number: Array, replaced: Array) -> Edit:
    """Write the incoming side of one unit: kernel, bias and normalisation have the units on their last axis."""
    single = np.array_equal(owner, np.arange(len(owner)))

    def edit(old: Array, into: Array, out: Array) -> Array:
        del out
        where = number if single else jnp.asarray(surgery.rows_of(owner))[number]
        new = jnp.where(replaced, jnp.take(into, where, -1), jnp.take(old, where, -1))
        if single:
            return jax.lax.dynamic_update_index_in_dim(old, new, number, -1)
        return old.at[..., where].set(new, unique_indices=True)

    return edit


def row(rows: Array, replaced: Array) -> Edit:
    """Write the outgoing side of one unit: the rows of a kernel are its second-to-last axis."""

    def edit(old: Array, into: Array, out: Array) -> Array:
        del into
        new = jnp.where(replaced, out[..., rows, :], old[..., rows, :])
        return old.at[..., rows, :].set(new, unique_indices=True)

    return edit


def both(edit: Edit, first: Edit) -> Edit:
    """``first``, then ``edit``."""
    return lambda old, into, out: edit(first(old, into, out), into, out)


def then(edits: Params, path: ModulePath, edit: Edit) -> Params:
    """The edits with one more for every parameter under ``path``."""
    return trees.put(edits, path, jax.tree.map(partial(both, edit), trees.get(edits, path)))


def edits_of(params: Params, wired: Mapping[str, Units], picks: Mapping[str, Picked]) -> Params:
    """The edit of each parameter, in their tree; for a weight between two replaced units the outgoing end wins."""
    edits: Params = jax.tree.map(lambda _: lambda old, into, out: old, params)
    for name, wiring in wired.items():
        for number, replaced in zip(*picks[name], strict=True):
            for source in wiring.sources:
                edits = trees.on_units(partial(both, column(source.owner, number, replaced)), edits, source)
    for name, wiring in wired.items():
        for sink in wiring.sinks:
            for number, replaced in zip(*picks[name], strict=True):
                rows = jnp.asarray(surgery.rows_of(sink.owner))[number]
                edits = then(edits, (*sink.path, "kernel"), row(rows, replaced))
    return edits


def reborn(learner: Learner, edits: Params, fresh: Params, context: Context, optimizer_slots: bool) -> Learner:
    """Replace the picked units, like ``surgery.reinitialise``, but without touching anything else."""
    rule, state = context.optimizer, learner.opt_state
    params = jax.tree.map(lambda edit, old, into: edit(old, into, jnp.zeros_like(old)), edits, learner.params, fresh)
    if optimizer_slots:
        laid, initial = surgery.slot_masks(rule, state, learner.params, edits), rule.init(learner.params)
        state = jax.tree.map(lambda edit, old, new: old if edit is False else edit(old, new, new), laid, state, initial)
    return learner._replace(params=params, opt_state=state)


def transferred(params: Params, sink: Sink, picked: Picked, means: Array) -> Params:
    """The sink's bias plus the mean contribution of the replaced units, ``sum_i W_out,i mean_i``."""
    if "bias" not in trees.get(params, sink.path):
        raise ValueError(f"mean_transfer needs a bias in every layer that follows; {'/'.join(sink.path)} has none")
    kernel, bias = trees.get(params, (*sink.path, "kernel")), (*sink.path, "bias")
    rows = jnp.asarray(surgery.rows_of(sink.owner))[picked.number]
    lost = jnp.where(picked.replaced[:, None], means[rows], 0.0)
    leaving = jnp.moveaxis(kernel, -2, 0)[rows]
    return trees.put(params, bias, trees.get(params, bias) + jnp.einsum("nr,nr...o->o", lost, leaving))


@metadata(
    paper="Dohare, Hernandez-Garcia, Lan, Rahman, Mahmood, Sutton 2024, Loss of plasticity in deep continual learning",
    checked="a NumPy loop over units and 200 updates, with each utility; `random` by its frequencies",
    neutral={"replacement_rate": 0.0},
)
def continual_backprop(
    *,
    replacement_rate: Fraction = 1e-4,
    decay: BelowOne = 0.99,
    maturity_period: Annotated[int, Field(ge=0, le=LARGEST - 1)] = 100,
    utility: Utility = "contribution",
    mean_transfer: bool = False,
    accumulate: bool = True,
    at_once: Size = 1,
    streams: bool = True,
    optimizer_slots: bool = True,
) -> Intervention:
    """Continual backpropagation: after every update, replace a few of the least useful mature units.

    For each unit ``i`` of a hidden layer (for instance a convolution's channel), with ``E`` over the batch and the
    positions and ``a_i`` updates since its initialisation:

    * ``f_i <- decay f_i + (1 - decay) E h_i``, ``f'_i = f_i / (1 - decay^a_i)``;
    * contribution: ``y_i = E|h_i| mean|W_out,i|``;
      adaptable contribution: ``y_i = E|h_i - f'_i| mean|W_out,i| / mean|W_in,i|``;
      zero contribution: ``y_i = E|h_i - f'_i| mean|W_out,i|``; weight: ``y_i = mean|W_out,i|``;
      adaptation: ``y_i = 1 / mean|W_in,i|``; feature by input: ``y_i = E|h_i - f'_i| / mean|W_in,i|``;
    * ``u_i <- decay u_i + (1 - decay) y_i``, ranked by ``u_i / (1 - decay^a_i)`` (random: by random numbers).

    Units with ``a_i > maturity_period`` are mature. The budget of a layer grows by ``replacement_rate`` times their
    number; the lowest ``floor(budget)`` of them are replaced and the fraction is kept. The budget therefore does not
    accumulate while no unit is mature, and when all units mature at once the rate is the usual one. (The authors' code
    for dense layers also counts the mature units; their code for convolutions uses the size of the layer as soon as one
    unit is mature.)

    A replaced unit gets weights, bias and normalisation from a freshly initialised network, outgoing weights of 0,
    ``f_i = u_i = a_i = 0``, and initial optimizer slots. With ``mean_transfer`` the next layer's bias first absorbs
    ``W_out,i f'_i``, which preserves its mean input. If the next layer reads a flattened map, ``f'_i`` is then that of
    each position.

    Args:
        replacement_rate: share of the mature units per update; published values are 1e-6 to 3e-4 (traced).
        decay: traced.
        maturity_period: number of updates; published values are 100 to 10,000 (static).
        utility: static.
        mean_transfer: static.
        accumulate: whether the fraction of a unit is kept, as above; otherwise a number below 1 is the probability of
            replacing one unit, and the fraction of a number above 1 is dropped (static). The authors' code for dense
            layers leaves it to chance by default.
        at_once: the maximum number of units of a layer replaced in one update; the excess of the budget is dropped
            (static). It matters only if ``replacement_rate`` times the units of a layer exceeds it.
        streams: whether units of residual streams are replaced, too (static). The paper does so on ResNet-18, where its
            code zeroes the outgoing weights in the next convolution alone; here they are zeroed in every layer that
            reads the unit. Otherwise only units inside blocks are replaced.
        optimizer_slots: whether the optimizer's slots are reset (static).

    Raises:
        ValueError: for an unknown utility and, while tracing, for a network without hidden units, with
            ``mean_transfer`` without biases, and with ``streams: false`` without a residual stream.

    Fresh parameters are drawn every ``maturity_period + 1`` updates, during which no unit can be replaced twice. The
    paper draws from a uniform distribution; here it is the network's own initialisation. If a unit feeds several rows
    of weights (a flattened map, crelu), ``y_i`` is the mean over them; behind pooling, ``y_i`` is ``E|h_i|`` times the
    mean of all its outgoing weights. In a stream ``E`` includes the activations that show it. ``f'_i`` is shared by all
    positions, as in the authors' code for convolutions, and separate for each copy of crelu.
    """
    check("utility", utility, tuple(FACTORS))
    factors = FACTORS[utility]
    drawing = every(maturity_period + 1)

    def usefulness(params: Params, posts: Sequence[Array], wiring: Units, means: Array) -> Array:
        """``y``, float32[units]."""
        size = jnp.ones(features(wiring).size)
        if factors.values:
            centre = by_channel(means, wiring.copies * wiring.size) if factors.centred else 0.0
            size = mean_of([jnp.abs(post.reshape(-1, size.size) - centre).mean(0) for post in posts])
        if factors.outgoing:
            size = size * outgoing(params, wiring)
        each = size[surgery.rows_of(features(wiring))].mean(-1)
        if not factors.incoming:
            return each
        return each / jnp.maximum(units.incoming_of(params, wiring), jnp.finfo(jnp.float32).tiny)

    def chosen(key: Key, ledger: Ledger) -> tuple[Picked, Precise]:
        """The units to replace and the remaining budget."""
        mature = ledger.age > maturity_period
        expected = jnp.asarray(replacement_rate * mature.sum(), jnp.float32)
        ranking, chance = ledger.utility / correction(decay, ledger.age), jax.random.fold_in(key, 0)
        if utility == "random":
            ranking = jax.random.uniform(jax.random.fold_in(key, 1), mature.shape)
        if accumulate:
            return least_useful(ranking, mature, ledger.budget, expected, at_once)
        return lowest(ranking, mature, by_chance(chance, expected), at_once), ledger.budget

    def observed(
        ledger: Ledger, mean: Array, params: Params, posts: Sequence[Array], wiring: Units
    ) -> tuple[Ledger, Array]:
        """The layer's ledger and mean activations after one more update."""
        owner, age = features(wiring), optax.safe_increment(ledger.age)
        mean = decay * mean + (1 - decay) * mean_of([post.reshape(-1, owner.size).mean(0) for post in posts])
        useful = usefulness(params, posts, wiring, mean / correction(decay, age)[owner])
        return ledger._replace(age=age, utility=decay * ledger.utility + (1 - decay) * useful), mean

    def step(key: Key, state: Memory, learner: Learner, context: Context) -> tuple[State, Learner]:
        wired = units.hidden_layers(context.network, "continual_backprop", streams)
        fresh = jax.lax.cond(drawing(context.clock), lambda: context.fresh(key).params, lambda: state.fresh)
        ledgers, means, params = dict(state.ledgers), dict(state.means), learner.params
        picks = {}
        for i, (name, wiring) in enumerate(wired.items()):
            units.check_shown(wiring)
            posts = [context.activations[each].post for each in wiring.activations]
            ledger, mean = observed(ledgers[name], means[name], learner.params, posts, wiring)
            picked, budget = chosen(jax.random.fold_in(key, CHANCE + i), ledger)
            owner = features(wiring)
            if mean_transfer:
                check_transfer(wiring)
                corrected = mean / correction(decay, ledger.age)[owner]
                for sink in wiring.sinks:
                    params = transferred(params, sink, picked, corrected)
            ledger = Ledger(cleared(ledger.age, picked), cleared(ledger.utility, picked), budget)
            ledgers[name], picks[name] = ledger, picked
            means[name] = jnp.where((ledger.age == 0)[owner], 0.0, mean)
        edits = edits_of(params, wired, picks)
        learner = reborn(learner._replace(params=params), edits, fresh, context, optimizer_slots)
        renewed = {name: ledgers[name].age == 0 for name in wired}
        carry = surgery.without_carry(context.network, learner.carry, renewed)
        return Memory(ledgers, means, fresh), learner._replace(carry=carry)

    def init(key: Key, params: Params, network: Network) -> Memory:
        del key
        units.check_streams(network, streams, default=True)
        return empty(params, network)

    return Intervention(init=init, step=step)


def mean_of(arrays: Sequence[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else total(list(arrays)) / len(arrays)


def check_transfer(wiring: Units) -> None:
    """Raise a ``ValueError`` (while tracing) if the mean input of the units' readers is not known."""
    if not aligned(wiring):
        raise ValueError(
            f"mean_transfer needs layers that read {wiring.name} itself; here something comes between "
            "(pooling, a normalisation or a residual sum)"
        )
