"""Windows of consecutive steps: n-step transitions in sequences, for networks with memory.

A window has ``burn_in`` steps that only bring the carry up to date, then ``length`` steps that are learned from, then
``n`` steps that only supply next observations, so that every transition has its full n-step return. A window may
contain several episodes: a FIRST resets the carry.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.memory import Later
from plasticity.agents.replay import Batch, Item, clipped, n_step, stacked
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Network, Params, Sequence


class Layout(NamedTuple):
    """The parts of a window in steps (static)."""

    burn_in: int
    length: int
    n: int
    stack: int  # frames of an observation, 0 without a stack

    @property
    def lead(self) -> int:
        """Stored items before the first step, for its frames."""
        return max(self.stack - 1, 0)

    @property
    def items(self) -> int:
        """All stored items of a window."""
        return self.lead + self.burn_in + self.length + self.n


class Windows(NamedTuple):
    """``B`` windows; the rows of transitions are ``length * B``, ordered by step, then window."""

    past: Sequence  # [burn_in, B], from the stored carry
    observation: Any  # [length + n, B, ...]
    first: Array  # bool[length + n, B]
    action: Array  # [rows]; this and the following as in Batch
    reward: Array
    discount: Array
    ends: Array  # int32[rows]: the row of the next observation, among (length + n) * B
    valid: Array


def transitions_of(item: Item, layout: Layout, gamma: Number, reward_clip: Number | None) -> tuple[Array, ...]:
    """All transitions of one window of items: action, return, discount, length in steps, ``[length]`` each."""
    start = layout.lead + layout.burn_in
    steps = start + jnp.arange(layout.length)[:, None] + jnp.arange(layout.n + 1)
    reward, inner = clipped(item.reward, reward_clip), steps[:, :-1]
    found = jax.vmap(n_step, (0, 0, 0, None))(item.first[steps], reward[inner], item.discount[inner], gamma)
    return item.action[start : start + layout.length], *found


def observations_of(item: Item, layout: Layout) -> Array:
    """The observations of all steps of one window, ``[burn_in + length + n, ...]``."""
    if not layout.stack:
        return item.frame
    places = jnp.arange(layout.lead, layout.items)
    return jax.vmap(stacked, (None, None, 0, None))(item.frame, item.first, places, layout.stack)


def as_windows(items: Item, carry: Any, layout: Layout, gamma: Number, reward_clip: Number | None) -> Windows:
    """Items ``[B, layout.items, ...]`` with the carry ``[B, ...]`` before each window's first step, as windows."""
    found = jax.vmap(lambda item: (observations_of(item, layout), *transitions_of(item, layout, gamma, reward_clip)))
    observation, *rest = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), found(items))
    first, past = items.first[:, layout.lead :].T, layout.burn_in
    action, reward, discount, taken = (x.reshape(-1) for x in rest)
    rows = jnp.arange(taken.size, dtype=jnp.int32)
    return Windows(
        Sequence(observation[:past], first[:past], carry),
        observation[past:],
        first[past:],
        action,
        reward,
        discount,
        rows + taken.astype(jnp.int32) * first.shape[1],
        taken > 0,
    )


def recalled(network: Network, windows: Windows, params: Params, target: Params) -> Batch:
    """The windows as a batch: each network with the carry that its own parameters make of the burn-in.

    No gradient passes through a carry. The observation is a ``Sequence`` of ``length`` steps.
    """
    past, length = windows.past, windows.action.size // windows.first.shape[1]

    def burned_in(params: Params) -> Any:
        return jax.lax.stop_gradient(network.unroll(params, past)[2] if len(past.first) else past.carry)

    own = burned_in(params)
    observation = Sequence(windows.observation[:length], windows.first[:length], own)
    after, next_own = (
        Later(Sequence(windows.observation, windows.first, carry), windows.ends) for carry in (burned_in(target), own)
    )
    transitions = (windows.action, windows.reward, windows.discount)
    return Batch(observation, *transitions, after, windows.valid, next_own)
