"""The games against their rules in plain Python, Seaquest by hand; then what the stream adds to them."""

import json
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from minatar_rules import RULES
from playing import Player, clock_at, lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs.minatar import GAMES, minatar
from plasticity.envs.minatar_seaquest import Bullets, Seaquest, placed

WORDS = 2


def words_of(values: Any) -> Any:
    return jnp.asarray(values, jnp.uint32)


def caught(state: Any, words: Any) -> Any:
    """Breakout with the paddle at the ball's position, or at its next one, at random."""
    return state._replace(paddle=jnp.clip(state.column + state.right * (words[0] % 2).astype(jnp.int32), 0, 9))


def lived(name: str, words: np.ndarray, actions: np.ndarray, endless: bool) -> Any:
    """Pictures, rewards and ends of a game that restarts when it is over, or continues if ``endless``."""
    game = GAMES[name](True)

    def body(carry: Any, now: Any) -> Any:
        state, over = carry
        words, action = now
        fresh = game.start(words)
        state = jax.tree.map(lambda new, old: jnp.where(over & (not endless), new, old), fresh, state)
        state = caught(state, words) if name == "breakout" and endless else state
        state, reward, over = game.act(words, state, action)
        return (state, over), (game.picture(state), reward, over)

    scan = jax.jit(
        lambda words, actions: jax.lax.scan(body, (game.start(words[0]), jnp.bool_(False)), (words, actions))
    )
    return jax.tree.map(np.asarray, scan(words_of(words)[:, : game.words], jnp.asarray(actions))[1])


def cells(picture: list[set[tuple[int, int]]]) -> np.ndarray:
    """int[10, channels], packed."""
    rows = np.zeros((10, len(picture)), int)
    for channel, shown in enumerate(picture):
        for row, column in shown:
            rows[row, channel] |= 1 << column
    return rows


# Half of the actions are useful ones (shots, crossings), so that the games progress; the others are random.
HABIT = {"asterix": 0, "breakout": 0, "freeway": 2, "space_invaders": 5}


@pytest.mark.parametrize("endless", [False, True])
@pytest.mark.parametrize("name", sorted(RULES))
def test_games_are_played_by_their_rules(name: str, endless: bool) -> None:
    """Endless: the end of a game is overlooked, so that it gets harder; in Breakout the ball is never missed."""
    draw = np.random.default_rng(len(name) + endless)
    steps = 3000 if endless else 700
    words = draw.integers(0, 2**32, (steps, WORDS), dtype=np.uint32)
    actions = np.where(draw.random(steps) < 0.5, HABIT[name], draw.integers(0, 6, steps)).astype(np.int32)
    helped = name == "breakout" and endless
    actions = actions * (not helped)
    pictures, rewards, overs = lived(name, words, actions, endless)
    game, ended = RULES[name](words[0]), False
    for i in range(steps):
        if ended and not endless:
            game = RULES[name](words[i])
        if helped:
            game.paddle = min(9, max(0, game.ball[1] + game.velocity[1] * int(words[i][0] % 2)))
        reward, ended = game.act(int(actions[i]), words[i])
        assert (reward, ended) == (rewards[i], overs[i]), i
        np.testing.assert_array_equal(pictures[i], cells(game.picture()), err_msg=f"step {i}")
    assert rewards.sum() > (30 if helped else 0)  # more than a wall has
    assert overs.any() or name == "freeway" or endless


def test_asterix_gets_harder_every_102_steps_where_it_ramps() -> None:
    for ramping, expected in ((True, (8, 4)), (False, (10, 5))):
        game = GAMES["asterix"](ramping)
        state, _ = jax.lax.scan(
            lambda state, _, game=game: (game.act(words_of([0, 0]), state, jnp.int32(0))[0], None),  # type: ignore[misc]
            game.start(words_of([0, 0])), None, 204,
        )  # fmt: skip
        assert (int(state.spawn_every), int(state.move_every)) == expected


def test_chance_is_fair() -> None:
    """Freeway's eight speeds are each of ten with probability 1/10, to four standard deviations."""
    words = jax.random.bits(jax.random.key(3), (2000, 2))
    speeds = np.asarray(jax.vmap(GAMES["freeway"](True).start)(words).speed)
    values, counts = np.unique(speeds, return_counts=True)
    assert values.tolist() == [-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]
    assert np.abs(counts - 1600).max() < 4 * np.sqrt(16000 * 0.09)


# Seaquest

NOTHING, UP, DOWN, FIRE = 0, 2, 4, 5


@cache
def seaquest_act() -> Any:
    return jax.jit(GAMES["seaquest"](True).act)


def deep(**changes: Any) -> Seaquest:
    """The player at row 4, column 5, facing left, nobody else, and nobody about to come."""
    start = GAMES["seaquest"](True).start(words_of([0, 0]))
    changes = {"row": 4, "surfaced": False, "enemy": 50, "diver": 50, **changes}
    return start._replace(**jax.tree.map(jnp.asarray, changes))


def with_enemy(state: Seaquest, x: int, y: int, right: bool, wait: int, armed: bool, bomb: int = 10) -> Seaquest:
    born = jnp.int32(state.enemies.there.sum())
    enemies, here = placed(state.enemies, jnp.bool_(True), jnp.int32(y), jnp.bool_(right), jnp.int32(wait), born)
    enemies = enemies._replace(x=jnp.where(here, x, enemies.x))
    return state._replace(
        enemies=enemies, armed=jnp.where(here, armed, state.armed), bomb=jnp.where(here, bomb, state.bomb)
    )


def with_diver(state: Seaquest, x: int, y: int, right: bool, wait: int) -> Seaquest:
    born = jnp.int32(state.divers.there.sum())
    divers, here = placed(state.divers, jnp.bool_(True), jnp.int32(y), jnp.bool_(right), jnp.int32(wait), born)
    return state._replace(divers=divers._replace(x=jnp.where(here, x, divers.x)))


def after(state: Seaquest, *actions: int, words: Any = (0, 0)) -> tuple[Seaquest, float, bool]:
    """The state, the sum of rewards and whether it is over."""
    total = 0.0
    for action in actions:
        state, reward, over = seaquest_act()(words_of(words), state, jnp.int32(action))
        total += float(reward)
    return state, total, bool(over)


def channel(state: Seaquest, number: int) -> list[tuple[int, int]]:
    packed = np.asarray(GAMES["seaquest"](True).picture(state))[:, number]
    return [(row, column) for row in range(10) for column in range(10) if packed[row] >> column & 1]


@pytest.mark.slow
def test_a_bullet_flies_a_cell_a_step_and_takes_an_enemy() -> None:
    state = with_enemy(deep(), 2, 4, True, 50, False)
    state, reward, _ = after(state, FIRE)
    assert (channel(state, 2), channel(state, 5), channel(state, 3)) == ([(4, 4)], [(4, 2)], [(4, 1)])
    state, reward, over = after(state, NOTHING, NOTHING)
    assert (channel(state, 2), channel(state, 5), reward, over) == ([], [], 1, False)


def test_there_is_a_shot_every_five_steps_and_two_bullets_at_most() -> None:
    state, _, _ = after(deep(column=9), *[FIRE] * 6)
    assert channel(state, 2) == [(4, 3), (4, 8)]
    state, _, _ = after(state, *[FIRE] * 5)
    assert channel(state, 2) == [(4, 3), (4, 8)]


def test_of_two_enemies_in_a_cell_a_bullet_takes_the_fish_and_the_second_bullet_the_other() -> None:
    state = with_enemy(with_enemy(deep(), 4, 4, True, 50, True), 4, 4, True, 50, False)
    state, reward, _ = after(state, FIRE)
    assert (channel(state, 5), channel(state, 6), reward) == ([], [(4, 4)], 1)


def test_an_enemy_that_swims_into_a_bullet_is_taken() -> None:
    bullets = Bullets(jnp.array([True, False]), jnp.array([3, 0]), jnp.array([6, 0]), jnp.array([False, False]))
    state = with_enemy(deep(bullets=bullets), 1, 6, True, 0, True)
    state, reward, _ = after(state, NOTHING)  # the bullet goes to column 2, and then so does the enemy
    assert (channel(state, 2), channel(state, 6), reward) == ([], [], 1)


@pytest.mark.parametrize("armed", [False, True])
def test_meeting_an_enemy_is_the_end(armed: bool) -> None:
    assert not after(with_enemy(deep(), 4, 4, True, 1, armed), NOTHING)[2]
    assert after(with_enemy(deep(), 4, 4, True, 0, armed), NOTHING)[2]
    assert after(with_enemy(deep(), 5, 5, True, 9, armed), DOWN)[2]


def test_submarines_fire_and_fish_do_not() -> None:
    state, _, _ = after(with_enemy(deep(), 1, 6, True, 9, True, bomb=0), NOTHING)
    assert channel(state, 4) == [(6, 2)]
    state, _, _ = after(state, NOTHING, NOTHING)
    assert channel(state, 4) == [(6, 4)]
    state, _, _ = after(with_enemy(deep(), 1, 6, True, 9, False, bomb=0), NOTHING)
    assert channel(state, 4) == []


def test_an_enemys_bullet_is_the_end() -> None:
    state = with_enemy(deep(), 3, 4, True, 9, True, bomb=0)
    state, _, over = after(state, NOTHING)
    assert (channel(state, 4), over) == ([(4, 4)], False)
    assert after(state, NOTHING)[2]


def test_enemies_come_every_20_steps_but_not_towards_another() -> None:
    """Chance 0: a submarine from the left in row 1."""
    state, _, _ = after(deep(enemy=0), NOTHING)
    assert channel(state, 6) == [(1, 0)]
    assert int(state.enemy) == 19
    against = with_enemy(deep(enemy=0), 7, 1, False, 50, False)
    assert int(after(against, NOTHING)[0].enemies.there.sum()) == 1
    along = with_enemy(deep(enemy=0), 7, 1, True, 50, False)
    assert int(after(along, NOTHING)[0].enemies.there.sum()) == 2


def test_divers_come_aboard_up_to_six() -> None:
    state, _, _ = after(with_diver(deep(aboard=2), 5, 4, True, 3), NOTHING)
    assert (int(state.aboard), channel(state, 9)) == (3, [])
    assert channel(state, 8) == [(9, 6), (9, 7), (9, 8)]
    state, _, _ = after(with_diver(deep(), 4, 4, True, 0), NOTHING)  # it swims to the player
    assert int(state.aboard) == 1
    state, _, _ = after(with_diver(deep(aboard=6), 5, 4, True, 3), NOTHING)
    assert (int(state.aboard), channel(state, 9)) == (6, [(4, 5)])
    both = with_diver(with_diver(deep(aboard=5), 5, 4, True, 3), 5, 4, False, 3)
    state, _, _ = after(both, NOTHING)
    assert (int(state.aboard), channel(state, 3)) == (6, [(4, 4)])  # the older one, whose trail is to its left, stays


def test_air_runs_out() -> None:
    assert int(after(deep(air=100), NOTHING)[0].air) == 99
    assert not after(deep(air=1), NOTHING)[2]
    assert after(deep(air=1), NOTHING, NOTHING)[2]
    assert channel(deep(air=100), 7) == [(9, column) for column in range(5)]
    assert channel(deep(air=19), 7) == []


def test_surfacing_takes_a_diver_and_without_one_is_the_end() -> None:
    state, reward, over = after(deep(row=1, aboard=3, air=50), UP)
    assert (int(state.aboard), int(state.air), reward, over) == (2, 200, 0, False)
    assert after(state, NOTHING)[2] is False  # it is there already
    assert after(deep(row=1, aboard=0), UP)[2]


def test_surfacing_with_six_is_rewarded_by_the_air_that_is_left() -> None:
    state, reward, over = after(deep(row=1, aboard=6, air=139), UP)
    assert (int(state.aboard), int(state.air), reward, over) == (-1, 200, 6, False)


def test_each_surfacing_makes_it_harder() -> None:
    state = deep(row=1, aboard=6)
    for _ in range(4):
        state, _, _ = after(state._replace(row=jnp.int32(1), aboard=jnp.int32(5)), UP, DOWN)
    assert (int(state.enemy_every), int(state.move_every)) == (16, 3)


# The stream


@cache
def player_of(settings: str, lanes: int) -> Player:
    """Compiled once for all visits."""
    return player(minatar(**json.loads(settings)).make(lanes))


def lives(visit: int, steps: int, actions: Any = None, lanes: int = 1, **settings: Any) -> Any:
    made = player_of(json.dumps(settings), lanes)
    played = random_actions(made.stream, steps, lanes) if actions is None else actions
    return play(made, lane_keys(*range(lanes)), visit_of(visit, made.stream.spec.visits[visit].task), played)


@pytest.mark.parametrize(("name", "channels", "actions"), [
    ("asterix", 4, 5), ("breakout", 4, 3), ("freeway", 7, 3), ("seaquest", 10, 6), ("space_invaders", 6, 4),
])  # fmt: skip
def test_specs_of_the_games(name: str, channels: int, actions: int) -> None:
    few, full = (minatar(games=[name], full_actions=way).spec for way in (False, True))
    assert few.observation.shape == (10, 10, channels)
    assert (few.actions, full.actions) == (actions, 6)
    assert few.reward_range == (0, {"seaquest": 11, "space_invaders": 2}.get(name, 1))
    assert few.tasks == (name,)


def test_a_sequence_has_the_shape_of_the_richest_game() -> None:
    spec = minatar(games=["breakout", "space_invaders", "breakout"], cycles=2, full_actions=False).spec
    assert spec.tasks == ("breakout", "space_invaders")
    assert [plan.task for plan in spec.visits] == [0, 1, 0, 0, 1, 0]
    assert (spec.observation.shape, spec.actions, spec.reward_range) == ((10, 10, 6), 4, (0, 2))


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_game_in_a_sequence_is_the_game_alone_with_surplus(lanes: int) -> None:
    both = {"games": ["freeway", "breakout"], "sticky": 0.0, "full_actions": False}
    alone = lives(1, 30, lanes=lanes, **{**both, "games": ["breakout"], "cycles": 2})
    other = lives(1, 30, lanes=lanes, **both)
    np.testing.assert_array_equal(other.observation[..., :4], alone.observation)
    assert not other.observation[..., 4:].any()
    jax.tree.map(np.testing.assert_array_equal, other[:3], alone[:3])


@pytest.mark.slow
def test_surplus_actions_do_nothing() -> None:
    """Breakout's are 0, left and right; the fourth is Space Invaders'."""
    games = {"games": ["breakout", "space_invaders"], "sticky": 0.0, "full_actions": False}
    idle, surplus = (np.full((20, 1, 1), action, np.int32) for action in (0, 3))
    jax.tree.map(np.testing.assert_array_equal, lives(0, 20, idle, **games), lives(0, 20, surplus, **games))
    right = lives(0, 3, np.full((3, 1, 1), 2, np.int32), **games)
    assert np.argwhere(right.observation[-1, 0, 0, :, :, 0]).tolist() == [[9, 7]]


def paddle(life: Any) -> np.ndarray:
    return life.observation[:, 0, :, 9, :, 0].argmax(-1)


@pytest.mark.slow
def test_sticky_actions_repeat_the_last_one_with_the_given_probability() -> None:
    """The paddle goes right, right, then left: if it continues to the right, the action was repeated."""
    actions = np.broadcast_to(np.array([3, 3, 1])[:, None, None], (3, 1, 2000)).astype(np.int32)
    repeated = {}
    for sticky in (0.0, 0.25, 1.0):
        at = paddle(lives(0, 3, actions, games=["breakout"], sticky=sticky, envs=2000))
        repeated[sticky] = np.mean(at[3][at[2] == at[1] + 1] == at[2][at[2] == at[1] + 1] + 1) if sticky < 1 else at
    assert repeated[0.0] == 0
    assert abs(repeated[0.25] - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 1200)
    np.testing.assert_array_equal(repeated[1.0], 4)  # an episode begins with nothing done


def test_the_last_action_is_forgotten_at_the_end_of_an_episode() -> None:
    actions = np.full((8, 1, 1), 3, np.int32)
    life = lives(0, 8, actions, games=["breakout"], sticky=0.0, episode_steps=3)
    assert life.step_type[:, 0, 0].tolist() == [FIRST, MID, MID, LAST, FIRST, MID, MID, LAST, FIRST]
    assert paddle(life)[:, 0].tolist() == [4, 5, 6, 7, 4, 5, 6, 7, 4]
    np.testing.assert_array_equal(life.discount, 1)  # a time limit


def test_the_end_of_a_game_has_discount_0() -> None:
    life = lives(0, 40, np.zeros((40, 1, 1), np.int32), games=["breakout"])
    ends = life.step_type == LAST
    assert ends.any()
    np.testing.assert_array_equal(life.discount, np.where(ends, 0, 1))


def test_freeway_ends_by_itself() -> None:
    stream = minatar(games=["freeway"]).make(1)
    keys = lane_keys(0)
    state, _ = stream.reset(keys, visit_of(0), jnp.int32(0))
    (playing,) = state.envs.games
    state = state._replace(envs=state.envs._replace(games=(playing._replace(time=playing.time * 0 + 1),)))
    said = []
    for i in range(3):
        state, step = jax.jit(stream.step)(keys, state, jnp.zeros((1, 1), jnp.int32), clock_at(i))
        said.append((int(step.step_type[0, 0]), float(step.discount[0, 0])))
    assert said == [(MID, 1), (LAST, 0), (FIRST, 1)]


@pytest.mark.slow
def test_channels_are_permuted_at_every_visit_but_the_first() -> None:
    games = {"games": ["seaquest"], "cycles": 3}
    assert minatar(**games, change="channels").spec.tasks == ("seaquest_0", "seaquest_1", "seaquest_2")
    orders = []
    for visit in range(3):
        plain, shown = (lives(visit, 40, **games, change=change) for change in ("none", "channels"))
        jax.tree.map(np.testing.assert_array_equal, plain[:3], shown[:3])
        flat, seen = (life.observation.reshape(-1, 10).T for life in (plain, shown))
        assert sorted(map(tuple, flat.tolist())) == sorted(map(tuple, seen.tolist()))
        orders.append([next(i for i in range(10) if np.array_equal(flat[i], row)) for row in seen])
        assert visit > 0 or np.array_equal(flat, seen)
    assert orders[1] != orders[0] != orders[2] != orders[1]


@pytest.mark.slow
def test_actions_are_permuted_at_every_visit_but_the_first() -> None:
    """Where the paddle goes under each of the three actions, in three visits."""
    actions = np.arange(3, dtype=np.int32)[None, None]
    went = [
        (paddle(lives(visit, 1, actions, games=["breakout"], cycles=3, change="actions", sticky=0.0, envs=3,
                      full_actions=False))[1] - 4).tolist()
        for visit in range(3)
    ]  # fmt: skip
    assert went[0] == [0, -1, 1]
    assert all(sorted(way) == [-1, 0, 1] for way in went)
    assert went[1] != went[0]
    assert went[2] != went[1]


@pytest.mark.parametrize(("given", "nearest"), [
    ("Breakout", "breakout"), ("space-invader", "space_invaders"), ("sequest", "seaquest"),
])  # fmt: skip
def test_unknown_games_are_refused_with_the_nearest_name(given: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f'unknown game "{given}"; known: asterix, .*; did you mean `{nearest}`'):
        minatar(games=["freeway", given])
