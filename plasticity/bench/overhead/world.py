"""MinAtar Breakout with sticky actions for the hand-written learners; the rules are those of the stream.

The step after the end of an episode starts the next one and ignores its action.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, Key
from plasticity.envs.minatar_games import SIZE, breakout

GAME = breakout(False)
ACTIONS, STICKY = len(GAME.actions), 0.1
SHAPE = (SIZE, SIZE, GAME.channels)


class World(NamedTuple):
    game: Any
    action: Array  # the last one
    first: Array  # bool: an episode has just started
    over: Array  # bool: it has just ended


def reset(key: Key) -> World:
    game = GAME.start(jax.random.bits(key, (GAME.words,)))
    return World(game, jnp.int32(0), jnp.bool_(True), jnp.bool_(False))


def step(key: Key, world: World, action: Array) -> tuple[World, Array]:
    """The next state and the reward."""

    def play() -> tuple[World, Array]:
        words = jax.random.bits(key, (GAME.words + 1,))
        sticks = words[-1] < jnp.uint32(round(STICKY * (2**32 - 1)))
        moved = jnp.where(sticks, world.action, jnp.array(GAME.actions)[action])
        game, reward, over = GAME.act(words, world.game, moved)
        return World(game, moved, jnp.bool_(False), over), reward

    return jax.lax.cond(world.over, lambda: (reset(key), jnp.zeros(())), play)


def picture(world: World) -> Array:
    """bool[10, 10, 4]."""
    return ((GAME.picture(world.game)[:, None, :] >> jnp.arange(SIZE)[:, None]) & 1).astype(bool)


class Tally(NamedTuple):
    """What a learner records of a step."""

    reward: Array
    over: Array
    episodic_return: Array  # of the episode if it ended, else 0


def tally(total: Array, reward: Array, over: Array) -> tuple[Array, Tally]:
    """Add a reward to the return of an episode; the return is 0 again after its end."""
    total = total + reward
    ended = jnp.where(over, total, 0.0)
    return total - ended, Tally(reward, over, ended)


def recorded(seen: Tally) -> dict[str, Array]:
    """The metrics of a chunk; the return is NaN if no episode ended."""
    episodes = jnp.sum(seen.over)
    returns = jnp.where(episodes > 0, jnp.sum(seen.episodic_return) / jnp.maximum(episodes, 1), jnp.nan)
    return {"reward": jnp.mean(seen.reward), "episodes": episodes.astype(jnp.float32), "episodic_return": returns}
