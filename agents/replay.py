"""Replay buffer: time steps are stored once, in order; n-step transitions and frame stacks are rebuilt when sampled.

One item per environment step holds the newest frame of the observation, whether it starts an episode, the action, and
the reward and discount that followed. flashbax stores the items and samples windows of consecutive items. An episode
ends by termination (discount 0), by truncation (discount 1) or at a task switch, which cuts it off. In all cases the
next item is a FIRST, so FIRST is the only boundary that this module checks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flashbax
import jax
import jax.numpy as jnp

from plasticity.core.schedules import Number
from plasticity.core.types import FIRST, Array, Held, Key, Logged, StreamSpec, Transition


class Item(NamedTuple):
    """The stored data of one environment step, ``[E, ...]``."""

    frame: Array  # the newest frame of the observation (the whole observation without a stack)
    first: Array  # bool: the observation starts an episode
    action: Array
    reward: Array  # of the step that the action led to
    discount: Array


class Batch(NamedTuple):
    """n-step transitions, ``[B, ...]``. A transition ends early if its episode ends within the n steps."""

    observation: Any  # a ``Sequence`` for a network with memory, whose B rows are its steps times its envs
    action: Array
    reward: Array  # sum_i gamma^i r_i over the steps up to the end
    discount: Array  # gamma^m times the product of the discounts: the factor of the bootstrap value
    next_observation: Any
    valid: Array  # bool: False where the window's first step spans two episodes
    next_own: Any = None  # of a network with memory: `next_observation`, with the online network's carry

    @property
    def selection(self) -> Any:
        """The next observations as the online network sees them."""
        return self.next_observation if self.next_own is None else self.next_own


class Replay(NamedTuple):
    init: Callable[[], Any]
    add: Callable[[Any, Transition], Any]
    sample: Callable[[Any, Key, Number, Number | None], Batch]  # state, key, gamma, reward_clip
    ready: Callable[[Any], Array]  # bool[]: whether it holds at least the minimum
    at: Callable[[Any, Array, Array, Number, Number | None], Batch]
    # state, env [B], row [B], gamma, reward_clip -> the transitions whose windows start there
    rows: int  # capacity in time steps of each env
    window: int  # items per transition

    def starts(self, state: Any) -> tuple[Array, Array]:
        """The row where the oldest complete window of an env starts, and the number of such windows, int32[]."""
        written = jnp.where(state.is_full, self.rows, state.current_index)
        return (state.current_index - written) % self.rows, written - self.window + 1


def clipped(reward: Array, bound: Number | None) -> Array:
    """Clip ``reward`` to ``[-bound, bound]`` (traced); unchanged if ``bound`` is None (static)."""
    return reward if bound is None else jnp.clip(reward, -bound, bound)


def newest_frame(spec: StreamSpec, observation: Array) -> Array:
    """``[E, stack, ...] -> [E, ...]``; the observation unchanged without a stack."""
    return observation[:, -1] if spec.stack else observation


def stacked(frames: Array, first: Array, position: Array, stack: int) -> Array:
    """The stack of frames that ends at ``position`` of one window, oldest first: ``[stack, ...]``.

    ``frames [T, ...]``, ``first bool[T]``, ``position int[]`` (>= stack - 1). Frames from before the episode's FIRST
    are replaced by the FIRST frame, as the environment's own stack does.
    """
    places = jnp.arange(first.shape[0])
    opening = jnp.max(jnp.where(first & (places <= position), places, 0))
    wanted = position - jnp.arange(stack - 1, -1, -1)
    return frames[jnp.maximum(wanted, opening)]


def n_step(first: Array, reward: Array, discount: Array, gamma: Number) -> tuple[Array, Array, Array]:
    """Return, bootstrap discount and length of the transition that starts at item 0.

    With ``m`` the number of steps before the next FIRST, at most n:
    ``R = sum_{i<m} gamma^i (prod_{j<i} d_j) r_i`` and ``D = gamma^m prod_{j<m} d_j``. ``first bool[n + 1]``,
    ``reward, discount float32[n]``. If item 1 is a FIRST, ``m = 0`` and ``R = 0``: this is not a transition.
    """
    taken = jnp.cumsum(first[1:]) == 0  # [n]: step i lies within the episode
    factors = jnp.where(taken, gamma * discount, 1.0)
    weights = jnp.concatenate([jnp.ones(1), jnp.cumprod(factors)])
    return jnp.sum(jnp.where(taken, weights[:-1] * reward, 0.0)), weights[-1], jnp.sum(taken)


def window_to_transition(window: Item, spec: StreamSpec, gamma: Number, reward_clip: Number | None) -> Batch:
    """One window of ``stack - 1 + 1 + n`` items -> one n-step transition."""
    start = max(spec.stack - 1, 0)
    reward = clipped(window.reward[start:-1], reward_clip)
    total, discount, length = n_step(window.first[start:], reward, window.discount[start:-1], gamma)
    if spec.stack:
        observation, following = (
            stacked(window.frame, window.first, jnp.asarray(p), spec.stack) for p in (start, start + length)
        )
    else:
        observation, following = window.frame[0], window.frame[length]
    return Batch(observation, window.action[start], total, discount, following, length > 0)


def held(state: Any, spec: StreamSpec) -> Held:
    """The 1-step transitions in a buffer of items, in the order of time; see :class:`~plasticity.core.types.Held`.

    The newest item has no next observation yet, so its row is not valid. With a stack, the oldest rows lack frames.
    """
    rows, lead = state.experience.first.shape[1], max(spec.stack - 1, 0)
    count = jnp.where(state.is_full, rows, state.current_index)
    oldest = jnp.where(state.is_full, state.current_index, 0)
    number = jnp.arange(rows)

    def item(offset: int) -> Array:
        return (oldest + number + offset) % rows

    windows = jnp.stack([item(offset) for offset in range(-lead, 2)], axis=1)  # [rows, lead + 2]

    def one(items: Item) -> tuple[Batch, Array]:
        each = jax.tree.map(lambda x: x[windows], items)
        found = jax.vmap(lambda window: window_to_transition(window, spec, 1.0, None))(each)
        ends = items.first[item(2)] & (number + 2 < count)
        return found, ends & (found.discount > 0)

    batch, truncated = jax.vmap(one)(state.experience)
    inside = (number >= lead) & (number + 1 < count)
    logged = Logged(batch.observation, batch.action, batch.reward, batch.discount, batch.next_observation)
    return Held(logged, truncated, batch.valid & inside, count)


class Storage(NamedTuple):
    """The stored items of all envs, in a flashbax buffer of ``rows`` items for each env."""

    init: Callable[[], Any]
    add: Callable[[Any, Transition], Any]
    sample: Callable[[Any, Key], Any]
    ready: Callable[[Any], Array]
    rows: int


def oldest_part(share: Array | None, number: Array) -> Array:
    """The size, int32[], of the oldest ``share`` of ``number`` items, at least one; of None: all of them."""
    number = jnp.maximum(number, 1)
    return number if share is None else jnp.clip(jnp.ceil(share * number).astype(jnp.int32), 1, number)


def storage(spec: StreamSpec, *, capacity: int, minimum: int, batch_size: int, window: int, stride: int = 1) -> Storage:
    """A buffer of ``capacity`` items in which every ``stride``-th may start a window of ``window`` (all static).

    The number of rows is rounded down to a multiple of ``stride``. ``ValueError`` if the sizes are inconsistent.
    """
    rows, least = capacity // spec.envs // stride * stride, -(-(window + stride - 1) // stride) * stride
    if rows < least:
        raise ValueError(f"agent.replay.capacity: {capacity} is not allowed; must be at least {least * spec.envs}")
    if not window * spec.envs <= minimum <= rows * spec.envs:
        raise ValueError(
            f"agent.replay.minimum: {minimum} is not allowed; must be between {window * spec.envs} and "
            f"{rows * spec.envs}, the capacity of the replay"
        )
    buffer = flashbax.make_trajectory_buffer(
        add_batch_size=spec.envs,
        sample_batch_size=batch_size,
        sample_sequence_length=window,
        period=1,
        min_length_time_axis=-(-minimum // spec.envs),
        max_length_time_axis=rows,
    )

    def init() -> Any:
        observation = jnp.zeros(spec.observation.shape, spec.observation.dtype)
        frame = newest_frame(spec, observation[None])[0]
        zero = jnp.zeros((), jnp.float32)
        action = jnp.zeros((), jnp.int32) if spec.discrete else jnp.zeros(spec.actions, jnp.float32)
        state = buffer.init(Item(frame, jnp.zeros((), bool), action, zero, zero))
        # flashbax uses `jnp.empty`, which newer JAX leaves uninitialised: identical runs would differ in these bytes.
        return state.replace(experience=jax.tree.map(jnp.zeros_like, state.experience))

    def add(state: Any, transition: Transition) -> Any:
        previous, action, current = transition
        frame = newest_frame(spec, previous.observation)
        item = Item(frame, previous.step_type == FIRST, action, current.reward, current.discount)
        return buffer.add(state, jax.tree.map(lambda x: x[:, None], item))

    return Storage(init, add, buffer.sample, buffer.can_sample, rows)


def replay(spec: StreamSpec, *, capacity: int, minimum: int, batch_size: int, steps: int) -> Replay:
    """Uniform replay buffer of ``capacity`` environment steps for one lane (all arguments static).

    Sampling starts once it holds ``minimum`` steps. ``ValueError`` if the sizes are inconsistent.
    """
    window = max(spec.stack, 1) + steps
    buffer = storage(spec, capacity=capacity, minimum=minimum, batch_size=batch_size, window=window)

    def transitions(windows: Item, gamma: Number, reward_clip: Number | None) -> Batch:
        return jax.vmap(lambda w: window_to_transition(w, spec, gamma, reward_clip))(windows)

    def sample(state: Any, key: Key, gamma: Number, reward_clip: Number | None) -> Batch:
        return transitions(buffer.sample(state, key).experience, gamma, reward_clip)

    def at(state: Any, env: Array, row: Array, gamma: Number, reward_clip: Number | None) -> Batch:
        places = (row[:, None] + jnp.arange(window)) % buffer.rows
        windows = jax.tree.map(lambda x: x[env[:, None], places], state.experience)
        return transitions(windows, gamma, reward_clip)

    return Replay(buffer.init, buffer.add, sample, buffer.ready, at, buffer.rows, window)
