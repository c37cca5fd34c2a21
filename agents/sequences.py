"""Replay of sequences, for networks with memory: every step is stored once, with the carry before some of them.

Every ``stride``-th item of an env may start a window (``agents.windows``), and the carry before the window's first step
is stored. Place ``env * slots + slot`` stands for the window whose first item is in row ``slot * stride``.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.priorities import Tree, above, blank, get, importance, put, revised, stratified
from plasticity.agents.replay import oldest_part, storage
from plasticity.agents.replay_source import Memory, Sample, Sampling
from plasticity.agents.windows import Layout, Windows, as_windows
from plasticity.core.masked import mean_where
from plasticity.core.schedules import Number, Schedule
from plasticity.core.types import Array, Key, StreamSpec, Transition

Start = Literal["stored", "initial"]


class Stored(NamedTuple):
    """The items, and the carries ``[E, slots, ...]`` before the first steps of windows; () if they are not stored."""

    steps: Any
    carries: Any


class Sequences(NamedTuple):
    """A buffer of windows."""

    init: Callable[[], Stored]
    add: Callable[[Stored, Transition, Any], Stored]  # the carry [E, ...] is the one before the transition
    ready: Callable[[Stored], Array]
    at: Callable[[Stored, Array], Windows]  # places int32[B]
    rows: int
    slots: int
    layout: Layout

    @property
    def stride(self) -> int:
        return self.rows // self.slots

    def row(self, state: Stored) -> Array:
        """The row that was written last."""
        row: Array = (state.steps.current_index - 1) % self.rows
        return row

    def complete(self, state: Stored) -> tuple[Array, Array]:
        """The slot of the oldest complete window of an env, and the number of complete windows from there on."""
        index, stride = state.steps.current_index, self.stride
        oldest = jnp.where(state.steps.is_full, -(-index // stride), 0)
        stored = jnp.where(state.steps.is_full, self.rows - (oldest * stride - index), index)
        return oldest, jnp.maximum((stored - self.layout.items) // stride + 1, 0)


def check_sequences(sampling: Sampling, length: int, overlap: int) -> None:
    """``ValueError`` unless the network has memory and the next sequence starts later than the one before."""
    if not jax.tree.leaves(jax.eval_shape(lambda: sampling.initial(1))):
        raise ValueError(
            "agent.replay: sequences need a network with memory, such as gru; choose uniform or prioritised"
        )
    if overlap >= length:
        raise ValueError(f"agent.replay.overlap: {overlap} is not allowed; must be below the length, {length}")


def sequence_buffer(
    spec: StreamSpec,
    sampling: Sampling,
    *,
    capacity: int,
    minimum: int,
    length: int,
    burn_in: int,
    overlap: int,
    carry: Start,
) -> Sequences:
    """A buffer of windows that overlap in ``overlap`` of the ``length`` steps to learn from (all but gamma static).

    ``ValueError`` if the sizes are inconsistent or the network has no memory.
    """
    check_sequences(sampling, length, overlap)
    layout, stride = Layout(burn_in, length, sampling.n_step, spec.stack), length - overlap
    sizes = {"capacity": capacity, "minimum": minimum, "batch_size": sampling.batch_size, "window": layout.items}
    buffer = storage(spec, **sizes, stride=stride)
    rows, slots = buffer.rows, buffer.rows // stride

    def init() -> Stored:
        one = sampling.initial(spec.envs) if carry == "stored" else ()
        return Stored(buffer.init(), jax.tree.map(lambda x: jnp.repeat(x[:, None], slots, axis=1), one))

    def add(state: Stored, transition: Transition, before: Any) -> Stored:
        steps = buffer.add(state.steps, transition)
        start = (steps.current_index - 1 - layout.lead) % rows
        slot, starts = start // stride, start % stride == 0

        def written(kept: Array, new: Array) -> Array:
            return kept.at[:, slot].set(jnp.where(starts, new, kept[:, slot]))

        return Stored(steps, jax.tree.map(written, state.carries, before if carry == "stored" else ()))

    def at(state: Stored, places: Array) -> Windows:
        env, slot = places // slots, places % slots
        items = (slot[:, None] * stride + jnp.arange(layout.items)) % rows
        found = jax.tree.map(lambda x: x[env[:, None], items], state.steps.experience)
        stored = jax.tree.map(lambda x: x[env, slot], state.carries)
        before = stored if carry == "stored" else sampling.initial(len(places))
        return as_windows(found, before, layout, sampling.discount, sampling.reward_clip)

    return Sequences(init, add, lambda state: buffer.ready(state.steps), at, rows, slots, layout)


def mixed(errors: Array, valid: Array, sequences: int, eta: Number) -> Array:
    """``eta max_t |error| + (1 - eta) mean_t |error|`` over the valid steps of each of the sequences, ``[B]``.

    ``errors``, ``valid``: rows ordered by step, then sequence. 0 for a sequence without a valid step.
    """
    errors, valid = jnp.abs(errors).reshape(-1, sequences), valid.reshape(-1, sequences)
    largest = jnp.max(jnp.where(valid, errors, 0.0), axis=0)
    return eta * largest + (1 - eta) * jax.vmap(mean_where, 1)(valid, errors)


def uniform_sequences(buffer: Sequences, spec: StreamSpec, batch_size: int, first: int) -> Memory:
    """Sample complete windows uniformly, with equal weights."""

    def sample(state: Stored, key: Key, age: Array, share: Array | None = None) -> Sample:
        del age
        env_key, slot_key = jax.random.split(key)
        oldest, count = buffer.complete(state)
        env = jax.random.randint(env_key, (batch_size,), 0, spec.envs)
        slot = jax.random.randint(slot_key, (batch_size,), 0, oldest_part(share, count))
        places = env * buffer.slots + (oldest + slot) % buffer.slots
        windows = buffer.at(state, places)
        return Sample(windows, jnp.ones(windows.valid.shape), places)

    def update_priorities(state: Stored, made: Array, counts: Array, places: Array, losses: Array) -> Stored:
        del made, counts, places, losses
        return state

    def priorities(errors: Array, valid: Array) -> Array:
        return mixed(errors, valid, batch_size, 0.0)

    functions = (buffer.init, buffer.add, buffer.ready, sample, update_priorities)
    return Memory(*functions, batch_size, first, priorities)


class Prioritised(NamedTuple):
    """State of :func:`prioritised_sequences`."""

    stored: Stored
    tree: Tree  # over the places
    largest: Array  # float32[]: the largest number so far, which new windows get


def prioritised_sequences(
    buffer: Sequences,
    spec: StreamSpec,
    *,
    batch_size: int,
    eta: Number,
    exponent: Number,
    correction: Schedule,
    first: int,
) -> Memory:
    """Sample complete windows by the priority of :func:`mixed`; otherwise as ``agents.priorities.prioritised``."""
    rows, slots, stride = buffer.rows, buffer.slots, buffer.stride
    places_of_envs = jnp.arange(spec.envs, dtype=jnp.int32) * slots

    def init() -> Prioritised:
        return Prioritised(buffer.init(), blank(spec.envs * slots), jnp.ones(()))

    def add(state: Prioritised, transition: Transition, carry: Any) -> Prioritised:
        """Drop the window that starts at the written row; a window that ends there is now complete."""
        stored = buffer.add(state.stored, transition, carry)
        row = buffer.row(stored)
        start = (row - buffer.layout.items + 1) % rows
        whole = stored.steps.is_full | (stored.steps.current_index >= buffer.layout.items)

        def changed(tree: Tree, row: Array, applies: Array, number: Array) -> Tree:
            places = places_of_envs + row // stride
            return put(tree, places, jnp.where(applies & (row % stride == 0), number, get(tree, places)))

        tree = changed(state.tree, row, jnp.asarray(True), jnp.zeros(()))
        return Prioritised(stored, changed(tree, start, whole, state.largest), state.largest)

    def among(state: Prioritised, share: Array | None) -> Tree:
        """The tree over the oldest part."""
        if share is None:
            return state.tree
        oldest, count = buffer.complete(state.stored)
        place = jnp.arange(state.tree[0].size, dtype=jnp.int32)
        wanted = (place - oldest) % slots < oldest_part(share, count)
        return above(jnp.where(wanted.reshape(state.tree[0].shape), state.tree[0], 0.0))

    def sample(state: Prioritised, key: Key, age: Array, share: Array | None = None) -> Sample:
        places = jnp.minimum(stratified(among(state, share), key, batch_size), spec.envs * slots - 1)
        windows, numbers = buffer.at(state.stored, places), get(state.tree, places)
        length = buffer.layout.length
        windows = windows._replace(valid=windows.valid & jnp.tile(numbers > 0, length))
        return Sample(windows, jnp.tile(importance(numbers, correction(age)), length), places)

    def update_priorities(state: Prioritised, made: Array, counts: Array, places: Array, losses: Array) -> Prioritised:
        tree, largest = revised(state.tree, state.largest, made, counts, places, losses, exponent)
        return state._replace(tree=tree, largest=largest)

    def ready(state: Prioritised) -> Array:
        return buffer.ready(state.stored)

    def priorities(errors: Array, valid: Array) -> Array:
        return mixed(errors, valid, batch_size, eta)

    return Memory(init, add, ready, sample, update_priorities, batch_size, first, priorities)
