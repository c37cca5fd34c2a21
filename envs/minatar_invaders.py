"""Rules of MinAtar's Space Invaders; packed boards and random numbers as in ``envs.minatar_games``."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.types import Array
from plasticity.envs.minatar_games import FIRE, LEFT, RIGHT, ROWS, SIZE, Game, dot, integers, step_of


class SpaceInvaders(NamedTuple):
    cannon: Array
    rest: Array  # steps until the cannon may fire
    shots: Array  # int32[10], packed: the cannon's
    bombs: Array  # int32[10], packed: the aliens'
    aliens: Array  # int32[10], packed
    right: Array  # the aliens' direction, 1 or -1
    move: Array  # steps until the aliens move
    bomb: Array  # steps until an alien fires
    slowest: Array  # steps between two moves of a full fleet


FLEET = np.where(ROWS < 4, np.int32(0b0011111100), np.int32(0))


def invaders_start(words: Array) -> SpaceInvaders:
    none, (cannon, rest) = jnp.zeros(SIZE, jnp.int32), integers(5, 0)
    return SpaceInvaders(cannon, rest, none, none, jnp.asarray(FLEET), *integers(-1, 12, 10, 12))


def either(board: Array) -> Array:
    """Bitwise or of the rows of a packed board."""
    return jax.lax.reduce(board, jnp.int32(0), jax.lax.bitwise_or, (0,))


def sideways(board: Array, right: Array) -> Array:
    return jnp.where(right > 0, board << 1, board >> 1)


def invaders_move(state: SpaceInvaders, columns: Array) -> tuple[SpaceInvaders, Array, Array]:
    """Move the aliens sideways, or down and back at the edge.

    Returns the state, the aliens' columns, and whether they had landed.
    """
    edge = jnp.where(state.right > 0, 1 << 9, 1)
    turn = (columns & edge) != 0
    aliens = jnp.where(turn, jnp.roll(state.aliens, 1), sideways(state.aliens, state.right))
    columns = jnp.where(turn, columns, sideways(columns, state.right))
    moved = state._replace(aliens=aliens, right=jnp.where(turn, -state.right, state.right))
    return moved, columns, turn & (state.aliens[9] != 0)


def nearest(columns: Array, cannon: Array) -> Array:
    """The bit of ``columns`` nearest to that of the cannon; the left one in case of a tie."""
    left, right = columns & ((2 << cannon) - 1), columns >> cannon << cannon
    below, above = 31 - jax.lax.clz(left), 31 - jax.lax.clz(right & -right)  # -1 if there is none
    closer = (left != 0) & ((right == 0) | (cannon - below <= above - cannon))
    return 1 << jnp.where(closer, below, above)


def invaders_bomb(aliens: Array, column: Array) -> Array:
    """int32[10], packed: the bomb fired by the lowest alien of a column, given as its bit."""
    row = jnp.where((aliens & column) != 0, ROWS, -1).max()
    return jnp.where(row == ROWS, column, 0)


def space_invaders(ramping: bool) -> Game:
    """A cannon below a fleet of 24 aliens; +1 per alien shot; ends when a bomb or an alien hits the cannon.

    A destroyed fleet is replaced by another, whose longest interval between moves is one step shorter, down to 6.
    """

    def act(words: Array, state: SpaceInvaders, action: Array) -> tuple[SpaceInvaders, Array, Array]:
        fires = (action == FIRE) & (state.rest == 0)
        cannon = jnp.clip(state.cannon + step_of(action, LEFT, RIGHT), 0, 9)
        shots = jnp.concatenate([state.shots[1:], jnp.zeros(1, jnp.int32)])
        shots = jnp.where(fires & (ROWS == 8), shots | 1 << cannon, shots)
        bombs = jnp.concatenate([jnp.zeros(1, jnp.int32), state.bombs[:-1]])
        over = ((bombs[9] | state.aliens[9]) >> cannon) & 1 != 0
        columns, count = either(state.aliens), jax.lax.population_count(state.aliens).sum()
        moved, columns_then, landed = invaders_move(state, columns)
        moves = state.move == 0
        aliens = jnp.where(moves, moved.aliens, state.aliens)
        over |= (moves & landed) | ((aliens[9] >> cannon) & 1 != 0)
        column = nearest(jnp.where(moves, columns_then, columns), cannon)
        bombs = jnp.where(state.bomb == 0, bombs | invaders_bomb(aliens, column), bombs)
        killed = aliens & shots
        aliens, shots = aliens & ~killed, shots & ~killed
        kills = jax.lax.population_count(killed).sum()
        gone = count == kills
        quicker = gone & (state.slowest > 6) & ramping
        state = SpaceInvaders(
            cannon,
            jnp.maximum(jnp.where(fires, 5, state.rest) - 1, 0),
            shots,
            bombs,
            jnp.where(gone, FLEET, aliens),
            jnp.where(moves, moved.right, state.right),
            jnp.where(moves, jnp.minimum(count, state.slowest), state.move) - 1,
            jnp.where(state.bomb == 0, 10, state.bomb) - 1,
            state.slowest - quicker,
        )
        return state, kills.astype(jnp.float32), over

    return Game(6, (0, LEFT, RIGHT, FIRE), 2, 1, invaders_start, act, invaders_picture)


def invaders_picture(state: SpaceInvaders) -> Array:
    left, right = (jnp.where(state.right == way, state.aliens, 0) for way in (-1, 1))
    cannon = dot(jnp.int32(9), state.cannon)
    return jnp.stack([cannon, state.aliens, left, right, state.shots, state.bombs], -1)
