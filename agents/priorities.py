"""Prioritised replay: a sum tree over the stored transitions, and the memory that samples from it.

Every place (env, row) of the replay has a number: the priority, raised to the exponent, of the transition whose window
starts there, or 0 if there is none. The lowest level of the tree holds these numbers in rows of ``fan``. Each higher
level holds the sums of the rows below it; the top level has one row. Every change recomputes a sum from its row, so
rounding errors do not accumulate. All levels are written in place.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.ages import Weights
from plasticity.agents.replay import Replay, oldest_part
from plasticity.agents.replay_source import Memory, Sample
from plasticity.core.schedules import Number, Schedule
from plasticity.core.types import Array, Key, StreamSpec, Transition

Tree = tuple[Array, ...]  # float32[rows, fan] each, lowest level first; the last has one row
FAN = 64
SMALLEST = 1e-6  # smallest priority, so that every stored transition can be sampled


def blank(places: int, fan: int = FAN) -> Tree:
    """A tree of zeros over ``places`` numbers (static)."""
    rows = -(-places // fan)
    lowest = jnp.zeros((rows, fan))
    return (lowest,) if rows == 1 else (lowest, *blank(rows, fan))


def above(lowest: Array) -> Tree:
    """The tree over these numbers."""
    rows, fan = lowest.shape
    if rows == 1:
        return (lowest,)
    sums = jnp.pad(jnp.sum(lowest, axis=1), (0, -rows % fan))
    return (lowest, *above(sums.reshape(-1, fan)))


def get(tree: Tree, places: Array) -> Array:
    """The numbers at ``places``, int32 of any shape."""
    fan = tree[0].shape[1]
    return tree[0][places // fan, places % fan]


def put(tree: Tree, places: Array, values: Array) -> Tree:
    """Write ``values [k]`` at ``places int32[k]``; repeated places must have equal values."""
    levels = []
    for level in tree:
        rows = places // level.shape[1]
        level = level.at[rows, places % level.shape[1]].set(values)
        levels.append(level)
        places, values = rows, jnp.sum(level[rows], axis=1)
    return tuple(levels)


def total(tree: Tree) -> Array:
    return jnp.sum(tree[-1])


def find(tree: Tree, target: Array) -> Array:
    """The first place where the cumulative sum of the numbers exceeds ``target``, float32[] in ``[0, total)``.

    A place whose number is 0 is never found unless all are 0. Rounding may shift a boundary by the rounding error.
    """
    place = jnp.zeros((), jnp.int32)
    for level in reversed(tree):
        row = level[place]
        sums, fan = jnp.cumsum(row), row.shape[0]
        passed = (sums > target) & (row > 0)
        last = fan - 1 - jnp.argmax(row[::-1] > 0)
        child = jnp.where(jnp.any(passed), jnp.argmax(passed), last).astype(jnp.int32)
        target = target - (sums[child] - row[child])
        place = place * fan + child
    return place


def stratified(tree: Tree, key: Key, number: int) -> Array:
    """Sample ``number`` (static) places, int32: one from each of ``number`` equal parts of the total."""
    parts = (jnp.arange(number) + jax.random.uniform(key, (number,))) / number
    return jax.vmap(find, in_axes=(None, 0))(tree, parts * total(tree))


def importance(numbers: Array, exponent: Number) -> Array:
    """``(N P_i)^-exponent`` divided by the batch maximum, ``[B]``; N cancels. 0 where ``numbers`` is 0."""
    rarest = jnp.min(jnp.where(numbers > 0, numbers, jnp.inf))
    return jnp.where(numbers > 0, (rarest / jnp.where(numbers > 0, numbers, 1.0)) ** exponent, 0.0)


def revised(
    tree: Tree, largest: Array, made: Array, counts: Array, places: Array, losses: Array, exponent: Number
) -> tuple[Tree, Array]:
    """The numbers after ``made`` updates with these places and priorities ``[updates, B]``, and the largest so far.

    A loop over the updates made (none at most steps); a branch would copy the tree.
    """

    def one(i: Array, carry: tuple[Tree, Array]) -> tuple[Tree, Array]:
        tree, largest = carry
        before = get(tree, places[i])
        changes = counts & (before > 0)
        numbers = jnp.where(changes, jnp.maximum(losses[i], SMALLEST) ** exponent, before)
        return put(tree, places[i], numbers), jnp.maximum(largest, jnp.max(jnp.where(changes, numbers, 0.0)))

    changed: tuple[Tree, Array] = jax.lax.fori_loop(0, made, one, (tree, largest))
    return changed


class Stored(NamedTuple):
    """State of :func:`prioritised`."""

    steps: Any  # of the replay
    tree: Tree
    largest: Array  # float32[]: the largest number so far, which new transitions get


def prioritised(
    replay: Replay,
    spec: StreamSpec,
    *,
    batch_size: int,
    discount: Number,
    reward_clip: Number | None,
    exponent: Number,
    correction: Schedule,
    first: int,
    fan: int = FAN,
    ages: Weights | None = None,
) -> Memory:
    """Sample transitions by priority: the magnitude of the loss when the transition was last learned from.

    ``P(i) = p_i^exponent / sum_j p_j^exponent``. A loss is weighted by ``(N P(i))^-correction(age)`` divided by the
    largest such weight in the batch. New transitions get the largest priority so far, initially 1. ``exponent`` and
    ``correction`` (a function of the agent's age in env steps) are traced, ``batch_size`` and ``fan`` static. Pairs
    that span two episodes are never sampled. All updates of one step use the priorities from before the step. With
    ``ages``, ``P(i)`` is also in proportion to the weight of the transition's age, which the weights of losses ignore.
    With a ``share``, only the oldest part is sampled.

    Reference: Schaul, Quan, Antonoglou, Silver 2016, "Prioritized Experience Replay".
    """
    rows, window = replay.rows, replay.window

    def init() -> Stored:
        return Stored(replay.init(), blank(spec.envs * rows, fan), jnp.ones(()))

    def add(state: Stored, transition: Transition) -> Stored:
        """Drop the windows that start at the written row; the window that ends there is now complete."""
        steps = replay.add(state.steps, transition)
        row = (steps.current_index - 1) % rows
        window_start = (row - window + 1) % rows
        joins = steps.experience.first[:, (window_start + max(spec.stack, 1)) % rows]
        whole = steps.is_full | (steps.current_index >= window)
        offset = jnp.arange(spec.envs, dtype=jnp.int32) * rows
        places = jnp.concatenate([offset + row, offset + window_start])
        values = jnp.where(whole & ~joins, state.largest, 0.0)
        return Stored(steps, put(state.tree, places, jnp.concatenate([jnp.zeros(spec.envs), values])), state.largest)

    def by_age(state: Stored, share: Array | None) -> Tree:
        """The tree of the priorities times the weights of the ages, in the oldest part; the newest window has age 1."""
        if ages is None and share is None:
            return state.tree
        row = jnp.arange(state.tree[0].size, dtype=jnp.int32) % rows
        since = (state.steps.current_index - window - row) % rows + 1
        weights = jnp.ones(since.shape) if ages is None else ages.at(since)
        if share is not None:
            number = replay.starts(state.steps)[1]
            weights = jnp.where(since > number - oldest_part(share, number), weights, 0.0)
        return above(state.tree[0] * weights.reshape(state.tree[0].shape))

    def sample(state: Stored, key: Key, age: Array, share: Array | None = None) -> Sample:
        places = jnp.minimum(stratified(by_age(state, share), key, batch_size), spec.envs * rows - 1)
        batch = replay.at(state.steps, places // rows, places % rows, discount, reward_clip)
        numbers = get(state.tree, places)
        batch = batch._replace(valid=batch.valid & (numbers > 0))
        return Sample(batch, importance(numbers, correction(age)), places)

    def update_priorities(state: Stored, made: Array, counts: Array, places: Array, losses: Array) -> Stored:
        tree, largest = revised(state.tree, state.largest, made, counts, places, losses, exponent)
        return state._replace(tree=tree, largest=largest)

    def ready(state: Stored) -> Array:
        return replay.ready(state.steps)

    return Memory(init, add, ready, sample, update_priorities, batch_size, first)
