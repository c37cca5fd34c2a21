"""Neuroplastic expansion: a sparse network whose connections grow during learning."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import Count, Fraction, NonNegative, Positive, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Clock, Context, Key, Learner, ModulePath, Network, Params, State
from plasticity.interventions import surgery, units
from plasticity.interventions.base import Intervention, every, when
from plasticity.interventions.topology import erdos_renyi, largest
from plasticity.interventions.weights import kernels_of

METHOD = "neuroplastic_expansion"
Sparsity = Annotated[float, Field(ge=0, lt=1)]
WHOLE = "network"  # the name of a single one
NEVER = -1  # the update at which growth has ended, before that


class Kernel(NamedTuple):
    """A kernel of which weights may be missing (static)."""

    path: ModulePath
    size: int
    first: int  # how many of its weights exist at first
    space: int  # how many more there are at the final sparsity


class Plan(NamedTuple):
    """The kernels of one network (static)."""

    kernels: tuple[Kernel, ...]  # without those that are always dense
    dense: int  # weights of those
    enough: int  # the number of weights at which growth ends

    def existing(self, masks: Params) -> Array:
        """The number of weights that exist, int32[]."""
        return sum((jnp.sum(trees.get(masks, each.path)) for each in self.kernels), jnp.int32(self.dense))


def plans(network: Network, params: Params, sparsity: float, final: float) -> dict[str, Plan]:
    """What is sparse, for each of the networks that an agent joins, by name."""
    found: dict[str, list[ModulePath]] = {}
    for path in kernels_of(network, "all", METHOD).values():
        found.setdefault(path[0] if network.parts else WHOLE, []).append((*path, "kernel"))
    return {name: plan(paths, params, sparsity, final) for name, paths in found.items()}


def plan(paths: list[ModulePath], params: Params, sparsity: float, final: float) -> Plan:
    shapes = [trees.get(params, path).shape for path in paths]
    sizes = [trees.get(params, path).size for path in paths]
    exist = erdos_renyi(shapes, sparsity)
    kernels = [
        Kernel(path, size, first, max(size - int(final * size) - first, 0))
        for path, size, first in zip(paths, sizes, exist, strict=True)
    ]
    sparse = tuple(kernel for kernel in kernels if kernel.first < kernel.size)
    total = sum(sizes)
    return Plan(sparse, total - sum(kernel.size for kernel in sparse), total - int(final * total))


def masked(masks: Params, tree: Params) -> Params:
    """The tree with 0 where a weight is missing."""
    return jax.tree.map(lambda mask, x: jnp.where(mask, x, 0.0) if mask.shape else x, masks, tree)


def sparse(masks: Params, learner: Learner) -> Learner:
    """The learner whose parameters and target network have 0 where a weight is missing."""
    target = masked(masks, learner.target) if jax.tree.leaves(learner.target) else learner.target
    return learner._replace(params=masked(masks, learner.params), target=target)


def active_share(context: Context) -> Array:
    """The fraction of positive outputs of the hidden units, over the batch, the units and the positions, float32[]."""
    shown = [context.activations[layer.name].post for layer in context.network.layers]
    if not shown:
        raise ValueError("review: true needs a network with hidden layers; this one has none")
    return sum((jnp.sum(post > 0) for post in shown), jnp.int32(0)) / sum(post.size for post in shown)


def of_dormant(context: Context, params: Params, threshold: Array | float) -> surgery.Masks:
    """The incoming weights of the units with ``E|h_i| <= threshold mean_k E|h_k|`` in their layer."""
    sizes = units.activities(context, params, units.hidden_layers(context.network, METHOD))
    dormant = {name: size <= threshold * size.mean() for name, size in sizes.items()}
    return surgery.unit_masks(context.network, params, dormant)[0]


def falling(share: Array | float, done: Array, duration: int) -> Array:
    """``share / 2 (1 + cos(pi done / duration))``, 0 from ``duration`` on."""
    return jnp.where(done < duration, share / 2 * (1 + jnp.cos(jnp.pi * done / duration)), 0.0)


class Numbers(NamedTuple):
    """How many weights of a kernel appear and disappear at once, int32[]."""

    growing: Array  # bool[]: otherwise as many appear as disappear
    appear: Array  # while the network grows
    disappear: Array  # at most


def changed(
    key: Key, mask: Array, weights: Array, gradient: Array, removable: Array, numbers: Numbers
) -> tuple[Array, Array]:
    """The mask of a kernel after some weights disappeared and others appeared, and which disappeared.

    Those with the smallest magnitudes among ``removable`` disappear, then those with the largest ``|gradient|`` among
    the missing ones appear; a weight that does both keeps its value.
    """
    out, into = jax.random.split(key)
    gone = largest(out, -jnp.abs(weights), mask & removable, numbers.disappear)
    kept = mask & ~gone
    appear = jnp.where(numbers.growing, numbers.appear, jnp.sum(gone))
    after = kept | largest(into, jnp.abs(gradient), ~kept, appear)
    return after, mask & ~after


@metadata(
    paper="Liu, Obando-Ceron, Courville, Pan 2025, Neuroplastic Expansion in Deep Reinforcement Learning",
    checked="single kernels by hand, an event of a network in NumPy, frequencies of the review; the equation "
    "follows the authors' code, the paper's could not be read",
    neutral={"sparsity": 0.0, "final": 0.0, "review": False},
    only_with={
        "threshold": {"prune": ("dormant",)},
        "review_below": {"review": (True,)},
        "review_scale": {"review": (True,)},
        "review_share": {"review": (True,)},
    },
)
def neuroplastic_expansion(
    *,
    sparsity: Sparsity = 0.8,
    final: Sparsity = 0.25,
    period: Count = 100,
    rate: Fraction = 0.008,
    schedule: Literal["constant", "cosine"] = "constant",
    duration: Count = 1_000_000,
    grow: Literal["gradient", "random"] = "gradient",
    values: Literal["zero", "fresh"] = "zero",
    prune: Literal["dormant", "magnitude"] = "dormant",
    prune_share: Fraction = 0.4,
    threshold: NonNegative = 0.0,
    exchange: Fraction = 0.2,
    first: Literal["magnitude", "random"] = "magnitude",
    optimizer_slots: bool = True,
    review: bool = True,
    review_below: Fraction = 0.4,
    review_scale: Positive = 0.9,
    review_share: Fraction = 0.3,
) -> Intervention:
    """Neuroplastic expansion (NE): a network with few connections grows where the gradient is large.

    At first each kernel has as many weights as in an Erdos-Renyi network of the given ``sparsity`` (density of a kernel
    in proportion to ``sum(shape) / prod(shape)``). Missing weights are 0 in the parameters and in the target network,
    and have no gradient. After every ``period``-th update, in each kernel of ``n`` weights, of which ``n_0`` existed at
    first:

    ``k = ceil(rate ((1 - final) n - n_0))``

    1. *Pruning*: of the existing incoming weights of dormant units (``E|h_i| <= threshold mean_k E|h_k|``), at most
       ``prune_share k`` disappear, those with the smallest magnitudes first.
    2. *Growth*: of the missing weights, the ``k`` with the largest ``|dL/dw|`` appear, with value 0.

    When a network has the ``final`` sparsity over all its kernels, it stops growing. From then on, existing weights
    with the smallest magnitudes are exchanged for as many missing ones with the largest gradients: in each kernel the
    fraction ``exchange / 2 (1 + cos(pi u / duration))`` of the existing ones, after ``u < duration`` further updates.

    *Experience review*: let ``f`` be the fraction of positive outputs of the hidden units in the last update. If ``f <
    review_below``, the next batch is drawn from the oldest ``review_share`` of the replay alone, with the probability
    ``sigmoid(log(review_scale) + review_below - f)``, which grows as units fall silent. Agents without a replay refuse
    the method unless ``review: false``.

    Of joined networks, each has its own sparsity. Biases and normalisations are dense, and so are kernels so small that
    their density would exceed 1.

    Args:
        sparsity: the share of weights that are missing at first (static).
        final: the share at which growth stops (static).
        period: number of updates (static).
        rate: of growth (traced). The command in the authors' README has this value; the default of their code is 0.5,
            with the cosine schedule.
        schedule: "constant", or "cosine": ``rate / 2 (1 + cos(pi u / duration))`` after ``u`` updates (static).
        duration: updates after which the connections no longer grow; and, counted from the end of growth, no longer
            change (static). The authors' is the whole run.
        grow: "random": weights appear at random, a control (static).
        values: "fresh": weights that appear have values of a freshly initialised network (static).
        prune: "magnitude": while the network grows, weights with the smallest magnitudes disappear, whatever their
            units (static).
        prune_share: traced.
        threshold: of dormant units; 0: they are 0 on the whole batch (traced).
        exchange: traced.
        first: which weights exist at first: those with the largest magnitudes in their kernel, or "random" (static).
        optimizer_slots: whether the optimizer's slots of weights that disappear are reset; otherwise they decay, since
            their gradient is 0 (static).
        review: whether batches may be drawn from the oldest part of the replay alone (static).
        review_below: traced.
        review_scale: traced.
        review_share: traced.

    Raises:
        ValueError: for an unknown word, a ``final`` sparsity above the first one and, while tracing, for a network
            without layers or without hidden units.

    The paper's equations could not be read: the method and its numbers are those of the authors' code for TD3 with
    constant growth. There, in effect, ``prune: magnitude`` is used and Adam's slots decay (``optimizer_slots: false``);
    ``k`` is rounded down, so that small kernels never grow, and is computed as if the final density were the first
    sparsity; an update at which connections change has no optimizer step; and ``f`` is that of the critics on a batch
    drawn beforehand (here of all networks, or of the ``modules`` it is restricted to, on the batch of the update
    before). The code may also halve the batch when ``f`` is low, and shrink the replay; both are left out. The targets
    of the very first update come from the dense network. Noise that an agent adds to its weights is not masked.
    """
    check("schedule", schedule, ("constant", "cosine"))
    check("grow", grow, ("gradient", "random"))
    check("values", values, ("zero", "fresh"))
    check("prune", prune, ("dormant", "magnitude"))
    check("first", first, ("magnitude", "random"))
    if final > sparsity:
        raise ValueError(f"final: {final:g} is not allowed; must be at most the sparsity, {sparsity:g}")

    def init(key: Key, params: Params, network: Network) -> State:
        found = plans(network, params, sparsity, final)
        masks = jax.tree.map(lambda _: jnp.ones((), bool), params)
        kernels = [kernel for each in found.values() for kernel in each.kernels]
        for i, kernel in enumerate(kernels):
            ties, weights = jax.random.fold_in(key, i), trees.get(params, kernel.path)
            scores = jnp.zeros(weights.shape) if first == "random" else jnp.abs(weights)
            exist = largest(ties, scores, jnp.ones(weights.shape, bool), kernel.first)
            masks = trees.put(masks, kernel.path, exist)
        return {"masks": masks, "ended": dict.fromkeys(found, jnp.int32(NEVER)), "active": jnp.ones(())}

    def numbers(kernel: Kernel, mask: Array, ended: Array, clock: Clock) -> Numbers:
        """``ended``: the update at which growth ended."""
        done = clock.update + 1
        share = falling(rate, done, duration) if schedule == "cosine" else jnp.where(done < duration, rate, 0.0)
        appear = jnp.ceil(share * kernel.space)
        swapped = jnp.floor(falling(exchange, clock.update - ended, duration) * jnp.sum(mask))
        growing = ended == NEVER
        gone = jnp.where(growing, jnp.floor(prune_share * appear), swapped)
        return Numbers(growing, appear.astype(jnp.int32), gone.astype(jnp.int32))

    def reconnected(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        found = plans(context.network, learner.params, sparsity, final)
        gradients = jax.grad(context.loss)(learner.params)
        removable = of_dormant(context, learner.params, threshold) if prune == "dormant" else None
        masks, gone, ended = state["masks"], surgery.nowhere(learner.params), dict(state["ended"])
        for name, each in found.items():
            over = (ended[name] == NEVER) & (each.existing(masks) >= each.enough)
            ended[name] = jnp.where(over, context.clock.update, ended[name])
        kernels = [(name, kernel) for name, each in found.items() for kernel in each.kernels]
        for i, (name, kernel) in enumerate(kernels):
            draw, mask = jax.random.fold_in(key, i), trees.get(state["masks"], kernel.path)
            slope = trees.get(gradients, kernel.path)
            number = numbers(kernel, mask, ended[name], context.clock)
            chosen = jnp.ones((), bool) if removable is None else trees.get(removable, kernel.path) | ~number.growing
            slope = jnp.zeros_like(slope) if grow == "random" else slope
            after, lost = changed(draw, mask, trees.get(learner.params, kernel.path), slope, chosen, number)
            masks, gone = trees.put(masks, kernel.path, after), trees.put(gone, kernel.path, lost)
        learner = valued(jax.random.fold_in(key, len(kernels)), state["masks"], masks, learner, context)
        if optimizer_slots:
            slots = surgery.reset_slots(context.optimizer, learner.opt_state, learner.params, gone)
            learner = learner._replace(opt_state=slots)
        return {**state, "masks": masks, "ended": ended}, learner

    def valued(key: Key, before: Params, after: Params, learner: Learner, context: Context) -> Learner:
        """The learner with values for weights that appear, and 0 for those that disappear."""
        if values == "fresh":
            fresh = context.fresh(key).params
            appears = jax.tree.map(lambda old, new: new & ~old, before, after)
            learner = learner._replace(params=trees.where(appears, fresh, learner.params))
        return sparse(after, learner)

    def prepare(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        """What is fresh, or was rewritten by another method, becomes sparse."""
        del key, context
        return state, sparse(state["masks"], learner)

    def gradient(key: Key, state: State, gradients: Params, learner: Learner, context: Context) -> Params:
        del key, learner, context
        return masked(state["masks"], gradients)

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        state = {**state, "active": active_share(context)} if review else state
        return when(every(period), reconnected)(key, state, sparse(state["masks"], learner), context)

    def acting(state: State, params: Params) -> Params:
        return masked(state["masks"], params)

    def reviewed(key: Key, state: State) -> Array:
        """The oldest part of the replay from which the next batch is drawn."""
        rarely = state["active"] < review_below
        chance = jax.nn.sigmoid(jnp.log(review_scale) + review_below - state["active"])
        return jnp.where(rarely & (jax.random.uniform(key) < chance), review_share, 1.0)

    hooks: dict[str, Any] = {"prepare": prepare, "gradient": gradient, "step": step, "acting": acting}
    hooks |= {"review": reviewed} if review else {}
    return Intervention(init=init, **hooks)
