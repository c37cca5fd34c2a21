"""Replay balanced over visits: every visit has a part of the memory, and every part is sampled equally often.

What is stored is a *window*: the items of one env (``agents.replay``) from which one n-step transition is made. The
newest items of each env wait in a small buffer until their window is complete; a task switch empties it, so that no
window spans two visits. A visit's part is filled by reservoir sampling, or the oldest window of the visit is replaced.
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.ages import Weights
from plasticity.agents.priorities import FAN, Tree, above, blank, get, importance, put, revised
from plasticity.agents.replay import Item, newest_frame, window_to_transition
from plasticity.agents.replay_source import Memory, Sample, Sampling
from plasticity.core.schedules import Number, Schedule
from plasticity.core.types import FIRST, Array, Key, StreamSpec, Transition

Keep = Literal["reservoir", "newest"]


class Parts(NamedTuple):
    """State of the memory."""

    windows: Item  # [visits, size, window, ...]
    stored_at: Array  # int32[visits, size]: the step at which each window was complete
    seen: Array  # int32[visits]: windows of the visit so far
    pending: Item  # [E, window, ...]: the newest items, the newest last
    filled: Array  # int32[]: steps of the current visit
    visit: Array  # int32[]: visits so far, without the current one
    step: Array  # int32[]: steps so far
    tree: Tree | tuple[()] = ()  # of the priorities of all places; () without priorities
    largest: Any = ()  # float32[]: the largest number so far


class Layout(NamedTuple):
    """Sizes and rules (static)."""

    spec: StreamSpec
    sampling: Sampling
    visits: int
    size: int  # windows of each visit
    window: int  # items of a window
    minimum: int
    keep: Keep
    prioritised: bool

    @property
    def places(self) -> int:
        return self.visits * self.size


def layout_of(
    spec: StreamSpec, sampling: Sampling, capacity: int, minimum: int, visits: int, keep: Keep, prioritised: bool
) -> Layout:
    """``ValueError`` if the sizes are inconsistent. With priorities, a part is a whole number of rows of the tree."""
    window, size = max(spec.stack, 1) + sampling.n_step, capacity // visits
    size -= size % FAN if prioritised else 0
    least = FAN if prioritised else max(1, spec.envs)
    if size < max(least, spec.envs):
        raise ValueError(
            f"agent.replay.capacity: {capacity} is not allowed; must be at least {max(least, spec.envs) * visits}, "
            f"for {visits} visits"
        )
    if not spec.envs <= minimum <= size:
        raise ValueError(
            f"agent.replay.minimum: {minimum} is not allowed; must be between {spec.envs} and {size}, "
            "the part of a visit"
        )
    return Layout(spec, sampling, visits, size, window, minimum, keep, prioritised)


def item_of(spec: StreamSpec, transition: Transition) -> Item:
    """One item of each env."""
    previous, action, current = transition
    frame = newest_frame(spec, previous.observation)
    return Item(frame, previous.step_type == FIRST, action, current.reward, current.discount)


def empty(layout: Layout) -> Parts:
    spec = layout.spec
    frame = spec.observation.shape[1:] if spec.stack else spec.observation.shape
    action = jnp.zeros((), jnp.int32) if spec.discrete else jnp.zeros(spec.actions, jnp.float32)
    zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
    item = Item(jnp.zeros(frame, spec.observation.dtype), jnp.zeros((), bool), action, zero, zero)

    def repeated(*lead: int) -> Item:
        made: Item = jax.tree.map(lambda x: jnp.zeros((*lead, *x.shape), x.dtype), item)
        return made

    place = jnp.zeros((layout.visits, layout.size), jnp.int32)
    numbers: dict[str, Any] = {}
    if layout.prioritised:
        numbers = {"tree": blank(layout.places), "largest": jnp.ones(())}
    return Parts(
        repeated(layout.visits, layout.size, layout.window), place, jnp.zeros(layout.visits, jnp.int32),
        repeated(spec.envs, layout.window), none, none, none, **numbers,
    )  # fmt: skip


def placed(layout: Layout, key: Key, parts: Parts, whole: Array) -> tuple[Array, Array]:
    """Where in the current part each env's window goes, ``size`` for nowhere, and the windows of the visit so far.

    The ``k``-th window of a visit (from 0) goes to place ``k`` while there is room. Later, ``newest``: to ``k % size``;
    ``reservoir``: to a place drawn from 0 ... k, nowhere if it is beyond the end, so that every window of the visit is
    kept with the same probability.
    """
    before = parts.seen[parts.visit % layout.visits]
    number = before + jnp.cumsum(whole) - 1
    if layout.keep == "newest":
        place = jnp.maximum(number, 0) % layout.size
    else:
        drawn = jax.random.randint(key, number.shape, 0, jnp.maximum(number, 0) + 1)
        place = jnp.where(number < layout.size, number, drawn)
    later = jnp.triu(jnp.ones((len(place), len(place)), bool), 1)
    replaced = jnp.any((place[:, None] == place) & later & whole, axis=-1)  # by a later env at this step
    place = jnp.where(whole & ~replaced & (place < layout.size), place, layout.size)
    return place, before + jnp.sum(whole, dtype=jnp.int32)


def added(layout: Layout, parts: Parts, transition: Transition, key: Key) -> Parts:
    """With the items of one step, and the windows that they complete."""
    spec, slot = layout.spec, parts.visit % layout.visits
    item = item_of(spec, transition)
    pending = jax.tree.map(lambda old, new: jnp.concatenate([old[:, 1:], new[:, None]], 1), parts.pending, item)
    filled = parts.filled + 1
    joins = pending.first[:, max(spec.stack, 1)]  # the second item of the transition opens an episode
    place, seen = placed(layout, key, parts, (filled >= layout.window) & ~joins)
    windows = jax.tree.map(lambda x, new: x.at[slot, place].set(new, mode="drop"), parts.windows, pending)
    made = parts._replace(
        windows=windows,
        stored_at=parts.stored_at.at[slot, place].set(parts.step, mode="drop"),
        seen=parts.seen.at[slot].set(seen),
        pending=pending,
        filled=filled,
        step=parts.step + 1,
    )
    if not layout.prioritised:
        return made
    kept = place < layout.size
    places = slot * layout.size + jnp.where(kept, place, 0)
    # An env without a window repeats the number of a place, which one of this step's windows may have changed.
    filled_now = jnp.any((place[:, None] == jnp.where(kept, place, 0)[None, :]), axis=0)
    numbers = jnp.where(kept | filled_now, parts.largest, get(parts.tree, places))
    return made._replace(tree=put(parts.tree, places, numbers))


def switched(layout: Layout, parts: Parts) -> Parts:
    """At the start of a visit: its part is empty, if an earlier visit had it."""
    visit = parts.visit + 1
    slot = visit % layout.visits
    made = parts._replace(visit=visit, filled=jnp.zeros_like(parts.filled), seen=parts.seen.at[slot].set(0))
    if not layout.prioritised:
        return made
    places = jnp.arange(layout.places).reshape(parts.tree[0].shape) // layout.size
    return made._replace(tree=above(jnp.where(places == slot, 0.0, parts.tree[0])))


def counts(layout: Layout, parts: Parts) -> Array:
    """int32[visits]: the windows in each part."""
    return jnp.minimum(parts.seen, layout.size)


def drawn_visits(key: Key, known: Array, number: int) -> Array:
    """Draw ``number`` (static) of the visits for which ``known bool[visits]``: one from each of ``number`` equal parts
    of the list, with a random start, so that any two visits differ by one draw at most."""
    count = jnp.maximum(jnp.sum(known), 1)
    order = jnp.argsort(~known)  # stable: the known ones first
    start, mix = jax.random.split(key)
    turns = (jnp.arange(number) + jax.random.randint(start, (), 0, count)) % count
    return order[jax.random.permutation(mix, turns)]


def weighed(layout: Layout, parts: Parts, ages: Weights | None) -> Tree:
    """The tree of all places: priorities, or 1 without them, times the weights of the ages."""
    if ages is None:
        assert parts.tree
        return parts.tree
    inside = jnp.arange(layout.size) < counts(layout, parts)[:, None]
    weights = jnp.where(inside, ages.at(parts.step - parts.stored_at), 0.0)
    if parts.tree:
        return above(parts.tree[0] * weights.reshape(parts.tree[0].shape))
    flat = weights.reshape(-1)
    rows = -(-layout.places // FAN)
    return above(jnp.pad(flat, (0, rows * FAN - layout.places)).reshape(rows, FAN))


def by_weight(layout: Layout, key: Key, tree: Tree, visit: Array, held: Array) -> Array:
    """Draw a place in each of these visits, in proportion to the numbers of the tree; equally if all of them are 0.

    Sums are those within a visit: in a sum over all, the numbers of a visit with small ones would be rounded away.
    """
    numbers = tree[0].reshape(-1)[: layout.places].reshape(layout.visits, layout.size)
    inside = (jnp.arange(layout.size) < held[:, None]).astype(numbers.dtype)
    summed = jnp.cumsum(jnp.where(jnp.any(numbers > 0, axis=1, keepdims=True), numbers, inside), axis=1)
    target = jax.random.uniform(key, visit.shape) * summed[visit, -1]
    low, high = jnp.zeros_like(visit), jnp.full_like(visit, layout.size - 1)
    for _ in range((layout.size - 1).bit_length()):  # the first place whose sum exceeds the target
        middle = (low + high) // 2
        beyond = summed[visit, middle] <= target
        low, high = jnp.where(beyond, middle + 1, low), jnp.where(beyond, high, middle)
    return visit * layout.size + jnp.minimum(low, jnp.maximum(held[visit] - 1, 0))


def balanced(layout: Layout, *, exponent: Number, correction: Schedule | None, ages: Weights | None) -> Memory:
    """The memory; ``correction`` is the exponent of the weights of losses, with priorities only.

    ``P(i) = 1 / K * n_i / sum_j n_j`` with K the visits that have windows, ``n`` the numbers of the places (priorities
    to the power of ``exponent``, weights of ages, both multiplied, or 1) and the sum over the visit of ``i``. With
    priorities a loss is weighted by ``(N p_i / sum_j p_j)^-correction``, N and the sum those of its visit, divided by
    the largest such weight in the batch: the weights take back the priorities, but not the balance.
    """
    spec, sampling = layout.spec, layout.sampling
    size = sampling.batch_size

    def draw(parts: Parts, key: Key) -> Array:
        which, where = jax.random.split(key)
        held = counts(layout, parts)
        visit = drawn_visits(which, held > 0, size)
        if ages is None and not layout.prioritised:
            return visit * layout.size + jax.random.randint(where, (size,), 0, jnp.maximum(held[visit], 1))
        return by_weight(layout, where, weighed(layout, parts, ages), visit, held)

    def weights_of(parts: Parts, places: Array, age: Array) -> Array:
        if not layout.prioritised or correction is None:
            return jnp.ones(size)
        numbers, visit = get(parts.tree, places), places // layout.size
        sums = jnp.sum(parts.tree[0].reshape(layout.visits, layout.size), axis=1)
        means = sums / jnp.maximum(counts(layout, parts), 1)
        return importance(numbers / jnp.maximum(means[visit], jnp.finfo(jnp.float32).tiny), correction(age))

    def sample(parts: Parts, key: Key, age: Array, share: Array | None = None) -> Sample:
        if share is not None:
            raise ValueError(
                "agent.replay: task_balanced is not allowed with a method that draws from the oldest transitions"
            )
        places = draw(parts, key)
        visit, place = places // layout.size, places % layout.size
        windows = jax.tree.map(lambda x: x[visit, place], parts.windows)
        batch = jax.vmap(lambda w: window_to_transition(w, spec, sampling.discount, sampling.reward_clip))(windows)
        batch = batch._replace(valid=batch.valid & (place < counts(layout, parts)[visit]))
        return Sample(batch, weights_of(parts, places, age), places.astype(jnp.int32))

    def revise(parts: Parts, made: Array, learned: Array, places: Array, losses: Array) -> Parts:
        if not layout.prioritised:
            return parts
        tree, largest = revised(parts.tree, parts.largest, made, learned, places, losses, exponent)
        return parts._replace(tree=tree, largest=largest)

    def ready(parts: Parts) -> Array:
        return jnp.sum(counts(layout, parts)) >= layout.minimum

    first = -(-layout.minimum // spec.envs) + layout.window - 1
    init, add, switch = (functools.partial(function, layout) for function in (empty, added, switched))
    return Memory(init, add, ready, sample, revise, size, first, switch=switch, draws=True)
