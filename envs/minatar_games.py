"""Rules of three MinAtar games; ``envs.minatar_invaders`` and ``envs.minatar_seaquest`` contain the others.

Boards are packed: a row of ten cells is an integer whose bit ``x`` is column ``x``, and an image is
int32[10, channels]. A step then takes a few operations on scalars and short vectors, without scatters or gathers.

Young, Tian 2019, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning
Experiments". Actions: 0 no-op, 1 left, 2 up, 3 right, 4 down, 5 fire. Each act receives ``words`` random numbers
(uint32).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from plasticity.core.types import Array

SIZE, LEFT, UP, RIGHT, DOWN, FIRE = 10, 1, 2, 3, 4, 5
FULL = 2**SIZE - 1  # a row with every cell occupied
ROWS = np.arange(SIZE, dtype=np.int32)


class Game(NamedTuple):
    """One game, one env, pure."""

    channels: int
    actions: tuple[int, ...]  # those of the six that have an effect, and 0
    highest: float  # largest reward of one step; the smallest is 0
    words: int
    start: Callable[[Array], Any]  # uint32[words] -> state
    act: Callable[[Array, Any, Array], tuple[Any, Array, Array]]  # words, state, action -> state, reward, over
    picture: Callable[[Any], Array]  # state -> int32[10, channels], packed


def below(word: Array, count: Any) -> Array:
    """int32 uniform over ``0 ... count - 1``, up to a bias of 2**-24, from one random uint32."""
    return ((word >> 8).astype(jnp.float32) * (2.0**-24 * count)).astype(jnp.int32)


def step_of(action: Array, back: int, forth: int) -> Array:
    """-1 for the action ``back``, 1 for ``forth``, else 0."""
    return (action == forth).astype(jnp.int32) - (action == back)


def dot(row: Array, column: Array) -> Array:
    """int32[10]: a board with one occupied cell."""
    return jnp.where(row == ROWS, 1 << column, 0)


def cell(column: Array) -> Array:
    """The bit of a column, 0 outside the board."""
    return jnp.where((column >= 0) & (column < SIZE), 1 << jnp.clip(column, 0, SIZE - 1), 0)


def integers(*values: int) -> tuple[Array, ...]:
    return tuple(jnp.int32(value) for value in values)


# Breakout


class Breakout(NamedTuple):
    paddle: Array
    row: Array  # of the ball
    column: Array
    down: Array  # vertical direction of the ball, 1 or -1
    right: Array
    last_row: Array
    last_column: Array
    bricks: Array  # bit 10 * (row - 1) + column, rows 1 to 3
    inside: Array  # the ball is at a brick's position and cannot break another until it leaves


WALL = 2**30 - 1


def breakout_start(words: Array) -> Breakout:
    right = below(words[0], 2) == 0
    column = jnp.where(right, 0, 9)
    row, one, paddle = integers(3, 1, 4)
    return Breakout(paddle, row, column, one, jnp.where(right, 1, -1), row, column, jnp.int32(WALL), jnp.bool_(False))


def breakout_act(words: Array, state: Breakout, action: Array) -> tuple[Breakout, Array, Array]:
    paddle = jnp.clip(state.paddle + step_of(action, LEFT, RIGHT), 0, 9)
    row, column = state.row + state.down, state.column + state.right
    right = jnp.where((column < 0) | (column > 9), -state.right, state.right)
    column = jnp.clip(column, 0, 9)
    ceiling, floor = row < 0, row == 9
    brick = jnp.where((row >= 1) & (row <= 3), 1 << jnp.clip(10 * (row - 1) + column, 0, 29), 0)
    inside = (state.bricks & brick) != 0
    broken = inside & ~state.inside
    bricks = jnp.where(broken, state.bricks & ~brick, state.bricks)
    bricks = jnp.where(floor & (bricks == 0), WALL, bricks)
    above, beside = floor & (state.column == paddle), floor & (column == paddle)
    returned = broken | above | beside
    state = Breakout(
        paddle,
        jnp.where(ceiling, 0, jnp.where(returned, state.row, row)),
        column,
        jnp.where(ceiling | returned, -state.down, state.down),
        jnp.where(beside & ~above, -right, right),
        state.row,
        state.column,
        bricks,
        inside,
    )
    return state, broken.astype(jnp.float32), floor & ~returned


def breakout_picture(state: Breakout) -> Array:
    rows = (state.bricks >> np.clip(10 * (ROWS - 1), 0, 20)) & FULL
    bricks = jnp.where((ROWS >= 1) & (ROWS <= 3), rows, 0)
    ball, trail = dot(state.row, state.column), dot(state.last_row, state.last_column)
    return jnp.stack([dot(jnp.int32(9), state.paddle), ball, trail, bricks], -1)


def breakout(ramping: bool) -> Game:
    """A paddle, a ball, three rows of bricks; +1 per brick; ends when the ball is lost. Constant difficulty."""
    return Game(4, (0, LEFT, RIGHT), 1, 1, breakout_start, breakout_act, breakout_picture)


# Freeway


class Freeway(NamedTuple):
    player: Array  # row, in column 4
    rest: Array  # steps until the player may move
    time: Array  # steps left
    column: Array  # int32[8]: the cars, in rows 1 to 8
    wait: Array  # int32[8]: steps until a car moves
    speed: Array  # int32[8]: steps between moves, 1 to 5; negative: to the left


LANES = np.arange(1, 9, dtype=np.int32)


def freeway_speeds(words: Array) -> Array:
    """Eight speeds, uniform over ten values: the last four decimal digits of each of two numbers."""
    digits = (words[:, None] // jnp.array([1, 10, 100, 1000], jnp.uint32) % 10).astype(jnp.int32).reshape(8)
    return jnp.where(digits < 5, digits + 1, 4 - digits)


def freeway_start(words: Array) -> Freeway:
    speed = freeway_speeds(words)
    player, rest, time = integers(9, 3, 2500)
    return Freeway(player, rest, time, jnp.zeros(8, jnp.int32), jnp.abs(speed), speed)


def freeway_act(words: Array, state: Freeway, action: Array) -> tuple[Freeway, Array, Array]:
    step = jnp.where(state.rest == 0, step_of(action, UP, DOWN), 0)
    rest = jnp.where(step != 0, 3, state.rest)
    player = jnp.clip(state.player + step, 0, 9)
    across = player == 0
    player = jnp.where(across, 9, player)
    speed = jnp.where(across, freeway_speeds(words), state.speed)
    wait = jnp.where(across, jnp.abs(speed), state.wait)
    moves = wait == 0
    column = jnp.where(moves, (state.column + jnp.sign(speed)) % SIZE, state.column)
    hit = (player == LANES) & ((state.column == 4) | (column == 4))
    wait = jnp.where(moves, jnp.abs(speed), wait - 1)
    time = state.time - 1
    state = Freeway(jnp.where(hit.any(), 9, player), jnp.maximum(rest - 1, 0), time, column, wait, speed)
    return state, across.astype(jnp.float32), time < 0


def freeway_picture(state: Freeway) -> Array:
    cars = 1 << state.column
    trails = 1 << (state.column - jnp.sign(state.speed)) % SIZE
    slowness = jnp.where(jnp.abs(state.speed)[:, None] == jnp.arange(1, 6), trails[:, None], 0)
    lanes = jnp.pad(jnp.concatenate([cars[:, None], slowness], 1), ((1, 1), (0, 0)))
    return jnp.concatenate([dot(state.player, jnp.int32(4))[:, None], lanes], 1)


def freeway(ramping: bool) -> Game:
    """A chicken and eight lanes of traffic; +1 per crossing; ends after 2501 steps. Constant difficulty."""
    return Game(7, (0, UP, DOWN), 1, 2, freeway_start, freeway_act, freeway_picture)


# Asterix


class Asterix(NamedTuple):
    row: Array
    column: Array
    x: Array  # int32[8]: columns of the objects in rows 1 to 8, at most one per row
    right: Array  # bool[8]
    gold: Array  # bool[8]
    there: Array  # bool[8]
    spawn: Array  # steps until an object appears
    spawn_every: Array
    move: Array  # steps until all objects move
    move_every: Array
    ramp: Array  # steps until the difficulty increases
    level: Array


def asterix_start(words: Array) -> Asterix:
    none, five = jnp.zeros(8, bool), jnp.int32(5)
    return Asterix(five, five, jnp.zeros(8, jnp.int32), none, none, none, *integers(10, 10, 5, 5, 100, 0))


def asterix_appear(words: Array, state: Asterix) -> Asterix:
    """Place an object in a random empty row, on a random side; it is gold with probability 1/3."""
    kind = below(words[0], 6)
    right, gold = kind % 2 == 0, kind < 2
    empty = ~state.there
    before = (empty & (LANES[:, None] > LANES)).sum(1)  # empty rows above
    here = empty & (before == below(words[1], empty.sum())) & (state.spawn == 0)
    return state._replace(
        x=jnp.where(here, jnp.where(right, 0, 9), state.x),
        right=jnp.where(here, right, state.right),
        gold=jnp.where(here, gold, state.gold),
        there=state.there | here,
        spawn=jnp.where(state.spawn == 0, state.spawn_every, state.spawn),
    )


def asterix_harder(state: Asterix) -> Asterix:
    """Every 102 steps objects appear more often; every second time they also move more often."""
    on = (state.spawn_every > 1) | (state.move_every > 1)
    now = on & (state.ramp < 0)
    quicker = now & (state.move_every > 1) & (state.level % 2 == 1)
    return state._replace(
        move_every=state.move_every - quicker,
        spawn_every=state.spawn_every - (now & (state.spawn_every > 1)),
        level=state.level + now,
        ramp=jnp.where(now, 100, state.ramp - on),
    )


def asterix(ramping: bool) -> Game:
    """Gold and enemies cross the board; +1 for gold; ends when an enemy is touched."""

    def act(words: Array, state: Asterix, action: Array) -> tuple[Asterix, Array, Array]:
        state = asterix_appear(words, state)
        column = jnp.clip(state.column + step_of(action, LEFT, RIGHT), 0, 9)
        row = jnp.clip(state.row + step_of(action, UP, DOWN), 1, 8)
        touched = state.there & (row == LANES) & (state.x == column)
        there = state.there & ~(touched & state.gold)
        moves = state.move == 0
        x = jnp.where(moves, state.x + jnp.where(state.right, 1, -1), state.x)
        met = moves & there & (row == LANES) & (x == column)
        there = there & (x >= 0) & (x <= 9) & ~(met & state.gold)
        reward = ((touched | met) & state.gold).any().astype(jnp.float32)
        over = ((touched | met) & ~state.gold).any()
        move = jnp.where(moves, state.move_every, state.move) - 1
        state = state._replace(row=row, column=column, x=x, there=there, spawn=state.spawn - 1, move=move)
        return asterix_harder(state) if ramping else state, reward, over

    return Game(4, (0, LEFT, UP, RIGHT, DOWN), 1, 2, asterix_start, act, asterix_picture)


def asterix_picture(state: Asterix) -> Array:
    at = jnp.where(state.there, 1 << jnp.clip(state.x, 0, 9), 0)
    trail = jnp.where(state.there, cell(state.x - jnp.where(state.right, 1, -1)), 0)
    things = [jnp.where(state.gold, 0, at), trail, jnp.where(state.gold, at, 0)]
    return jnp.stack([dot(state.row, state.column), *(jnp.pad(thing, 1) for thing in things)], -1)
