"""Rules of MinAtar's Seaquest; packed boards and random numbers as in ``envs.minatar_games``.

Fish, submarines, divers and the player's bullets occupy a fixed number of slots, enough for as many as the rules allow:
an enemy stays for at most 10 * 3 steps when one appears at every step, a diver for 60 when one appears every 30, a
bullet for 9 when one is fired every 5. Enemy bullets with the same cell and direction count as one, so one packed board
per direction stores them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.types import Array
from plasticity.envs.minatar_games import (
    DOWN,
    FIRE,
    FULL,
    LEFT,
    RIGHT,
    ROWS,
    UP,
    Game,
    below,
    cell,
    dot,
    integers,
    step_of,
)

ENEMIES, DIVERS, AIR, CREW = 32, 4, 200, 6
NEVER = 2**31 - 1


class Swimmers(NamedTuple):
    """Fish and submarines, or divers: arrays with one entry per slot."""

    there: Array  # bool
    x: Array
    y: Array
    right: Array  # bool: direction of the swimmer
    wait: Array  # steps until it moves
    appeared: Array  # step at which it appeared; the rules process swimmers in this order


class Bullets(NamedTuple):
    """The player's bullets, the older one first: arrays of two."""

    there: Array
    x: Array
    y: Array
    right: Array


class Seaquest(NamedTuple):
    row: Array
    column: Array
    right: Array  # bool: the player's direction
    rest: Array  # steps until the player may fire
    bullets: Bullets
    enemies: Swimmers  # [32]
    armed: Array  # bool[32]: submarine (fires) or fish
    bomb: Array  # int32[32]: steps until a submarine fires
    leftward: Array  # int32[10], packed: enemies' bullets
    rightward: Array
    divers: Swimmers  # [4]
    aboard: Array  # number of divers on board
    air: Array
    surfaced: Array  # bool
    enemy: Array  # steps until an enemy appears
    enemy_every: Array
    diver: Array  # steps until a diver appears
    move_every: Array  # steps between moves of enemies
    level: Array
    time: Array


def no_swimmers(count: int) -> Swimmers:
    zero, no = jnp.zeros(count, jnp.int32), jnp.zeros(count, bool)
    return Swimmers(no, zero, zero, no, zero, zero)


def seaquest_start(words: Array) -> Seaquest:
    zero, no, empty = jnp.zeros(2, jnp.int32), jnp.zeros(2, bool), jnp.zeros(10, jnp.int32)
    armed, bomb = jnp.zeros(ENEMIES, bool), jnp.zeros(ENEMIES, jnp.int32)
    bullets = Bullets(no, zero, zero, no)
    rest, aboard, air, enemy, every, diver, move, level, time = integers(0, 0, AIR, 20, 20, 30, 5, 0, 0)
    row, column = integers(0, 5)
    return Seaquest(
        row, column, jnp.bool_(False), rest, bullets, no_swimmers(ENEMIES), armed, bomb, empty, empty,
        no_swimmers(DIVERS), aboard, air, jnp.bool_(True), enemy, every, diver, move, level, time,
    )  # fmt: skip


def placed(swimmers: Swimmers, now: Array, y: Array, right: Array, wait: Array, time: Array) -> tuple[Swimmers, Array]:
    """Add a swimmer in the first free slot if ``now``; also returns that slot, bool[slots]."""
    slots = jnp.arange(len(swimmers.there))
    here = now & (slots == jnp.where(swimmers.there, len(slots), slots).min())
    new = Swimmers(jnp.bool_(True), jnp.where(right, 0, 9), y, right, wait, time)
    return jax.tree.map(lambda old, one: jnp.where(here, one, old), swimmers, new), here


def appear(words: Array, state: Seaquest) -> Seaquest:
    """Add an enemy (a submarine with probability 1/3) unless another approaches it in its row; and a diver."""
    kind, which = below(words[0], 48), below(words[1], 16)
    right, y, armed = kind % 2 == 0, kind // 2 % 8 + 1, kind < 16
    now = state.enemy == 0
    against = state.enemies.there & (state.enemies.y == y) & (state.enemies.right != right)
    enemies, here = placed(state.enemies, now & ~against.any(), y, right, state.move_every, state.time)
    then = state.diver == 0
    divers, _ = placed(state.divers, then, which // 2 + 1, which % 2 == 0, jnp.int32(5), state.time)
    return state._replace(
        enemies=enemies,
        armed=jnp.where(here, armed, state.armed),
        bomb=jnp.where(here, 10, state.bomb),
        divers=divers,
        enemy=jnp.where(now, state.enemy_every, state.enemy),
        diver=jnp.where(then, 30, state.diver),
    )


def steer(state: Seaquest, action: Array) -> Seaquest:
    """Move the player, or fire; at most one other bullet exists at that time."""
    fires = (action == FIRE) & (state.rest == 0)
    right = jnp.where(action == LEFT, False, jnp.where(action == RIGHT, True, state.right))
    old = jax.tree.map(lambda leaf: jnp.where(state.bullets.there[1], leaf[1], leaf[0]), state.bullets)
    new = Bullets(jnp.bool_(True), state.column, state.row, state.right)
    bullets = jax.tree.map(
        lambda before, one, two: jnp.where(fires, jnp.stack([one, two]), before), state.bullets, old, new
    )
    return state._replace(
        row=jnp.clip(state.row + step_of(action, UP, DOWN), 0, 8),
        column=jnp.clip(state.column + step_of(action, LEFT, RIGHT), 0, 9),
        right=right,
        rest=jnp.where(fires, 5, state.rest),
        bullets=bullets,
    )


def strike(bullets: Bullets, i: int, enemies: Swimmers, where: Array, turn: Array) -> tuple[Bullets, Swimmers, Array]:
    """Bullet ``i`` hits the enemy with the lowest ``turn`` in its cell and ``where``; also returns the hits, 0 or 1."""
    hit = where & enemies.there & (enemies.x == bullets.x[i]) & (enemies.y == bullets.y[i]) & bullets.there[i]
    first = jnp.where(hit, turn, NEVER).min()
    taken, struck = hit & (turn == first), first < NEVER
    bullets = bullets._replace(there=bullets.there & ~(struck & (jnp.arange(2) == i)))
    return bullets, enemies._replace(there=enemies.there & ~taken), struck.astype(jnp.int32)


def within(x: Array) -> Array:
    return (x >= 0) & (x <= 9)


def shoot(state: Seaquest) -> tuple[Seaquest, Array]:
    """Move the player's bullets, the newer one first; they hit fish before submarines, the oldest first."""
    x = state.bullets.x + jnp.where(state.bullets.right, 1, -1)
    bullets = state.bullets._replace(x=x, there=state.bullets.there & within(x))
    turn = state.enemies.appeared + jnp.where(state.armed, 2**30, 0)
    everywhere = jnp.bool_(True)
    bullets, enemies, one = strike(bullets, 1, state.enemies, everywhere, turn)
    bullets, enemies, two = strike(bullets, 0, enemies, everywhere, turn)
    return state._replace(bullets=bullets, enemies=enemies), one + two


def at_player(state: Seaquest, swimmers: Swimmers) -> Array:
    return swimmers.there & (swimmers.x == state.column) & (swimmers.y == state.row)


def swim(swimmers: Swimmers, every: Array | int) -> tuple[Swimmers, Array]:
    """Move the swimmers that are due, also beyond the edge; also returns which moved."""
    moves = swimmers.there & (swimmers.wait == 0)
    x = swimmers.x + jnp.where(moves, jnp.where(swimmers.right, 1, -1), 0)
    return swimmers._replace(x=x, wait=jnp.where(moves, every, swimmers.wait - 1)), moves


def rescue(state: Seaquest) -> Seaquest:
    """Divers at the player come aboard, before or after their move, the newest first while there is space."""
    moved, moves = swim(state.divers, 5)
    touch = at_player(state, state.divers) | (moves & at_player(state, moved))
    appeared = state.divers.appeared
    rank = (touch & (appeared > appeared[:, None])).sum(1)
    picked = touch & (rank < CREW - state.aboard)
    divers = moved._replace(there=moved.there & ~picked & within(moved.x))
    return state._replace(divers=divers, aboard=state.aboard + picked.sum())


def attack(state: Seaquest) -> tuple[Seaquest, Array, Array]:
    """Move enemies, which may hit the player or bullets (submarines before fish, newest first); submarines fire."""
    enemies, moves = swim(state.enemies, state.move_every)
    met = at_player(state, enemies)
    over = (at_player(state, state.enemies) | met).any()
    enemies = enemies._replace(there=enemies.there & within(enemies.x))
    fires = enemies.there & state.armed & (state.bomb == 0)
    turn = jnp.where(state.armed, 0, 2**30) - enemies.appeared
    bullets, enemies, one = strike(state.bullets, 0, enemies, moves & ~met, turn)
    bullets, enemies, two = strike(bullets, 1, enemies, moves & ~met, turn)
    fired = board_of(enemies, fires, cell(enemies.x) << jnp.where(enemies.right, 10, 0))
    leftward, rightward = state.leftward | fired & FULL, state.rightward | fired >> 10
    bomb = jnp.where(state.bomb == 0, 10, state.bomb - 1)
    state = state._replace(enemies=enemies, bullets=bullets, leftward=leftward, rightward=rightward, bomb=bomb)
    return state, one + two, over


def board_of(swimmers: Swimmers | Bullets, where: Array, bits: Array) -> Array:
    """int32[10]: bitwise or of the ``bits`` in each row, over entries with ``where``; up to three boards at once."""
    lines = jnp.where((swimmers.y == ROWS[:, None]) & where, bits, 0)
    return jax.lax.reduce(lines, jnp.int32(0), jax.lax.bitwise_or, (1,))


def behind(swimmers: Swimmers) -> Array:
    """The bit of the cell behind each swimmer."""
    return cell(swimmers.x - jnp.where(swimmers.right, 1, -1))


def fly(state: Seaquest) -> tuple[Seaquest, Array]:
    """Move the enemies' bullets; also returns whether one hit the player."""
    leftward, rightward = state.leftward >> 1, (state.rightward << 1) & FULL
    player = dot(state.row, state.column)
    over = ((state.leftward | state.rightward | leftward | rightward) & player).any()
    return state._replace(leftward=leftward, rightward=rightward), over


def breathe(state: Seaquest, ramping: bool) -> tuple[Seaquest, Array, Array]:
    """Consume air below the surface; at the surface refill it, release a diver, and increase the difficulty.

    With six divers aboard, all leave, with one reward per tenth of the remaining air, and the number aboard becomes -1.
    This follows the reference implementation, in which air may then be refilled for free until divers are aboard.
    """
    below_surface = state.row > 0
    arrives = ~below_surface & ~state.surfaced
    over = (state.air <= 0) | (arrives & (state.aboard == 0))
    fills = arrives & (state.aboard != 0)
    full = state.aboard == CREW
    reward = jnp.where(fills & full, state.air * 10 // AIR, 0)
    harder = fills & ramping & ((state.enemy_every > 1) | (state.move_every > 2))
    faster = harder & (state.move_every > 2) & (state.level % 2 == 1)
    state = state._replace(
        air=jnp.where(fills, AIR, state.air - below_surface),
        aboard=jnp.where(fills, jnp.where(full, 0, state.aboard) - 1, state.aboard),
        surfaced=~below_surface & (state.surfaced | fills),
        enemy_every=state.enemy_every - (harder & (state.enemy_every > 1)),
        move_every=state.move_every - faster,
        level=state.level + harder,
    )
    return state, reward, over


def seaquest(ramping: bool) -> Game:
    """A submarine among fish, submarines and divers; +1 per enemy shot, up to 9 for bringing up six divers.

    Ends when an enemy or its bullet hits the player, when the air runs out, and at the surface without a diver.
    """

    def act(words: Array, state: Seaquest, action: Array) -> tuple[Seaquest, Array, Array]:
        state = steer(appear(words, state), action)
        state, shot = shoot(state)
        state, run_into, rammed = attack(rescue(state))
        state, bombed = fly(state)
        state = state._replace(
            enemy=jnp.maximum(state.enemy - 1, 0),
            diver=jnp.maximum(state.diver - 1, 0),
            rest=jnp.maximum(state.rest - 1, 0),
            time=state.time + 1,
        )
        state, bonus, drowned = breathe(state, ramping)
        return state, (shot + run_into + bonus).astype(jnp.float32), rammed | bombed | drowned

    return Game(10, (0, LEFT, UP, RIGHT, DOWN, FIRE), 11, 2, seaquest_start, act, seaquest_picture)


def seaquest_picture(state: Seaquest) -> Array:
    enemies, divers, last = state.enemies, state.divers, jnp.int32(9)
    air = jnp.where(last == ROWS, (1 << jnp.maximum(state.air, 0) * 10 // AIR) - 1, 0)
    crew = ((1 << jnp.maximum(state.aboard, 0)) - 1) << 9 - jnp.maximum(state.aboard, 0)
    bits = cell(enemies.x) << jnp.where(state.armed, 10, 0) | behind(enemies) << 20
    foes = board_of(enemies, enemies.there, bits)
    friends = board_of(divers, divers.there, cell(divers.x) | behind(divers) << 20)
    channels = [
        dot(state.row, state.column),
        dot(state.row, state.column - jnp.where(state.right, 1, -1)),
        board_of(state.bullets, state.bullets.there, cell(state.bullets.x)),
        (foes | friends) >> 20,
        state.leftward | state.rightward,
        foes & FULL,
        foes >> 10 & FULL,
        air,
        jnp.where(last == ROWS, crew, 0),
        friends & FULL,
    ]
    return jnp.stack(channels, -1)
