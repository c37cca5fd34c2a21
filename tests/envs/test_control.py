"""Catch by hand; the classic problems against gymnasium's; time limits and changes on all of them."""

import json
from functools import cache, partial
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import Player, clock_at, lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs import STREAMS
from plasticity.envs.changes import permutation
from plasticity.envs.control import (
    Physics,
    acrobot_seen,
    acrobot_step,
    cartpole,
    cartpole_step,
    pendulum,
    pendulum_seen,
    pendulum_step,
)
from plasticity.envs.toys import CatchState, catch, catch_task

STANDARD = Physics(jnp.float32(1), jnp.float32(1), jnp.float32(1))


@cache
def player_of(name: str, settings: str, lanes: int) -> Player:
    """Compiled once for all visits."""
    return player(STREAMS[name](**json.loads(settings)).make(lanes))


def lives(name: str, visit: int, steps: int, actions: Any = None, lanes: int = 1, **settings: Any) -> Any:
    """One visit, time steps ``[1 + T, lanes, 1, ...]``; the task is the one that the spec plans."""
    made = player_of(name, json.dumps(settings), lanes)
    played = random_actions(made.stream, steps, lanes) if actions is None else actions
    return play(made, lane_keys(*range(lanes)), visit_of(visit, made.stream.spec.visits[visit].task), played)


# Catch


def catch_game() -> Any:
    return catch_task(catch(rows=4, columns=3, change="none").spec, lambda key, visit: jnp.float32(1))


def test_catch_by_hand() -> None:
    """Rows 4, columns 3: the ball falls in column 0, the paddle goes 1 -> 2 -> 1 -> 0 and catches it."""
    game, seen, said = catch_game(), [], []
    state = CatchState(jnp.int32(0), jnp.int32(0), jnp.int32(1))
    for action in (2, 0, 0):
        state, board, reward, discount, last = game.step(jax.random.key(0), state, jnp.int32(action), jnp.float32(1))
        seen.append(np.argwhere(np.asarray(board)).tolist())
        said.append((float(reward), float(discount), bool(last)))
    assert seen == [[[1, 0], [3, 2]], [[2, 0], [3, 1]], [[3, 0]]]
    assert said == [(0, 1, False), (0, 1, False), (1, 0, True)]


@pytest.mark.parametrize(("start", "action", "end"), [(0, 0, 0), (2, 2, 2), (1, 0, 0), (1, 1, 1), (1, 2, 2)])
def test_paddle_moves_within_the_board(start: int, action: int, end: int) -> None:
    state = CatchState(jnp.int32(0), jnp.int32(0), jnp.int32(start))
    state, *_ = catch_game().step(jax.random.key(0), state, jnp.int32(action), jnp.float32(1))
    assert int(state.paddle) == end


def test_ball_starts_in_every_column_and_the_paddle_in_the_middle() -> None:
    _, boards = jax.vmap(lambda key: catch_game().reset(key, jnp.float32(1)))(jax.random.split(jax.random.key(1), 300))
    assert set(map(tuple, np.asarray(boards)[:, 0].tolist())) == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    np.testing.assert_array_equal(boards[:, 3], np.broadcast_to([0.0, 1.0, 0.0], (300, 3)))
    np.testing.assert_array_equal(boards[:, 1:3], 0)


def test_catch_is_caught_or_missed_at_the_end_of_nine_steps() -> None:
    life = lives("catch", 0, 60, change="none")
    kinds = life.step_type[:, 0, 0]
    assert kinds[:21].tolist() == [FIRST, *[MID] * 8, LAST] * 2 + [FIRST]
    ends = kinds == LAST
    caught = life.observation[ends, 0, 0].sum((1, 2)) == 1
    np.testing.assert_array_equal(life.reward[ends, 0, 0], np.where(caught, 1, -1))
    np.testing.assert_array_equal(life.reward[~ends], 0)
    np.testing.assert_array_equal(life.discount[:, 0, 0], np.where(ends, 0, 1))


def test_reward_changes_its_sign_at_every_second_visit() -> None:
    spec = catch(change="reward", tasks=5).spec
    assert spec.tasks == ("catch", "avoid")
    assert [plan.task for plan in spec.visits] == [0, 1, 0, 1, 0]
    for visit, sign in ((2, 1), (3, -1)):
        life = lives("catch", visit, 60, change="reward", tasks=5)
        ends = life.step_type == LAST
        caught = life.observation[ends].sum((1, 2)) == 1
        np.testing.assert_array_equal(life.reward[ends], sign * np.where(caught, 1, -1))


# Against gymnasium: its state is set before each step, so that differences don't grow.


def differences(env: Any, step: Any, starts: np.ndarray, actions: np.ndarray) -> float:
    """The largest difference, over all steps, between ``step(state, action)`` and gymnasium."""
    env = env.unwrapped
    env.reset(seed=0)
    said = jax.vmap(step)(jnp.asarray(starts, jnp.float32), jnp.asarray(actions))
    worst = 0.0
    for i, (start, action) in enumerate(zip(starts, actions, strict=True)):
        env.state = np.float32(start).astype(np.float64)
        env.steps_beyond_terminated = None
        observation, reward, terminated, _, _ = env.step(action)
        told = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), said)
        assert bool(told[2]) == terminated
        worst = max(worst, np.abs(told[0] - observation).max(), abs(float(told[1]) - reward))
    return worst


def judged(name: str) -> Any:
    """``step(state, action) -> observation, reward, terminated`` of the stream's own task, from a given state."""
    stream = STREAMS[name](change="none").make(1)
    keys = lane_keys(0)
    state, _ = stream.reset(keys, visit_of(0), jnp.int32(0))

    def step(start: Any, action: Any) -> Any:
        begun = state._replace(envs=(start[None, None], state.envs[1]))
        _, said = stream.step(keys, begun, action[None, None], clock_at(0))
        return said.observation[0, 0], said.reward[0, 0], said.discount[0, 0] == 0

    return step


def test_cartpole_is_that_of_gymnasium() -> None:
    draw = np.random.default_rng(0)
    starts = draw.uniform(-1, 1, (400, 4)) * [2.45, 3, 0.22, 3]
    assert differences(gymnasium.make("CartPole-v1"), judged("cartpole"), starts, draw.integers(0, 2, 400)) < 1e-5


def test_acrobot_is_that_of_gymnasium() -> None:
    draw = np.random.default_rng(1)
    starts = draw.uniform(-1, 1, (400, 4)) * [np.pi, np.pi, 4, 6]
    assert differences(gymnasium.make("Acrobot-v1"), judged("acrobot"), starts, draw.integers(0, 3, 400)) < 1e-5


def test_pendulum_is_that_of_gymnasium() -> None:
    draw = np.random.default_rng(2)
    starts = draw.uniform(-1, 1, (400, 2)) * [np.pi, 8]
    actions = draw.uniform(-3, 3, (400, 1)).astype(np.float32)
    assert differences(gymnasium.make("Pendulum-v1"), judged("pendulum"), starts, actions) < 1e-5


def test_physics_is_that_of_gymnasium_with_other_constants() -> None:
    state = np.array([0.1, -0.2, 0.15, 0.4])
    physics = Physics(jnp.float32(1.5), jnp.float32(0.5), jnp.float32(1))
    env: Any = gymnasium.make("CartPole-v1").unwrapped
    env.gravity, env.length, env.polemass_length = 9.8 * 1.5, 0.25, 0.025
    env.reset(seed=0)
    env.state = state
    np.testing.assert_allclose(cartpole_step(jnp.asarray(state), 10.0, physics), env.step(1)[0], atol=1e-6)
    env = gymnasium.make("Acrobot-v1").unwrapped
    env.reset(seed=0)
    env.LINK_LENGTH_1 = 0.5
    env.LINK_COM_POS_1 = env.LINK_COM_POS_2 = 0.25
    env.state = state
    told = acrobot_seen(acrobot_step(jnp.asarray(state), 1.0, physics._replace(gravity=jnp.float32(1))))
    np.testing.assert_allclose(told, env.step(2)[0], atol=1e-6)
    env = gymnasium.make("Pendulum-v1", g=15.0).unwrapped
    env.reset(seed=0)
    env.l = 0.5
    env.state = state[:2]
    told, reward = pendulum_step(jnp.asarray(state[:2]), jnp.float32(0.7), physics)
    observation, said, *_ = env.step(np.array([0.7]))
    np.testing.assert_allclose(pendulum_seen(told), observation, atol=1e-6)
    np.testing.assert_allclose(reward, said, atol=1e-6)


def test_gain_and_damping_of_the_pendulum_by_hand() -> None:
    """Upright at 2 rad/s with torque 0.5: 3 (-2 x 0.5 - 0.1 x 2) = -3.6 rad/s^2; the cost is that of 0.5."""
    physics = STANDARD._replace(gain=jnp.float32(-2), damping=jnp.float32(0.1))
    state, reward = pendulum_step(jnp.array([0.0, 2.0]), jnp.float32(0.5), physics)
    np.testing.assert_allclose(state, [0.05 * 1.82, 1.82], rtol=1e-6)
    np.testing.assert_allclose(reward, -(0.1 * 4 + 0.001 * 0.25), rtol=1e-6)


def test_starts_are_those_of_gymnasium() -> None:
    for name, bounds in (("cartpole", [0.05] * 4), ("acrobot", [0.1] * 4), ("pendulum", [np.pi, 1.0])):
        stream = STREAMS[name](change="none", envs=400).make(1)
        state, _ = jax.jit(stream.reset)(lane_keys(0), visit_of(0), jnp.int32(0))
        starts = np.abs(np.asarray(state.envs[0][0])).max(0)
        assert (starts <= np.array(bounds) * (1 + 1e-6)).all(), name
        assert (starts > 0.95 * np.array(bounds)).all(), name


# Ends


def test_a_time_limit_has_discount_1_and_a_fall_0() -> None:
    left = np.zeros((40, 1, 1), np.int32)
    life = lives("cartpole", 0, 40, left, change="none")  # pushed to one side, the pole falls after 8 to 10 steps
    ends = life.step_type == LAST
    assert np.diff(np.flatnonzero(ends)).max() <= 12
    np.testing.assert_array_equal(life.discount[ends], 0)
    np.testing.assert_array_equal(life.reward[life.step_type != FIRST], 1)  # the last one too
    cut = lives("cartpole", 0, 40, left, change="none", episode_steps=5)
    assert cut.step_type[:7, 0, 0].tolist() == [FIRST, MID, MID, MID, MID, LAST, FIRST]
    np.testing.assert_array_equal(cut.discount, 1)


def test_falling_at_the_time_limit_has_discount_0() -> None:
    left = np.zeros((12, 1, 1), np.int32)
    free = lives("cartpole", 0, 12, left, change="none", episode_steps=0)
    fall = int(np.flatnonzero(free.step_type == LAST)[0])
    both = lives("cartpole", 0, 12, left, change="none", episode_steps=fall)
    assert both.step_type[fall, 0, 0] == LAST
    assert both.discount[fall, 0, 0] == 0


def test_the_step_after_last_ignores_its_action_and_starts_an_episode() -> None:
    life = lives("pendulum", 0, 12, change="none", episode_steps=5)
    other = lives("pendulum", 0, 12, 5 * random_actions(pendulum().make(1), 12, 1), change="none", episode_steps=5)
    assert life.step_type[6, 0, 0] == FIRST
    np.testing.assert_array_equal(life.observation[6], other.observation[6])
    assert abs(life.observation[6, 0, 0, 2]) <= 1


@pytest.mark.parametrize("name", ["catch", "cartpole", "acrobot", "pendulum"])
def test_rewards_stay_in_the_declared_range(name: str) -> None:
    source = STREAMS[name](change="none")
    low, high = source.spec.reward_range
    life = lives(name, 0, 300, change="none")
    assert low <= life.reward.min() <= life.reward.max() <= high
    assert (low, high) == {"catch": (-1, 1), "cartpole": (0, 1), "acrobot": (-1, 0)}.get(name, (low, 0))


# Changes


@pytest.mark.parametrize("size", [2, 3, 50])
def test_permutations_are_permutations_and_each_differs_from_the_one_before(size: int) -> None:
    make = jax.jit(partial(permutation, size=size))
    orders = np.stack([make(jax.random.key(5), jnp.int32(u)) for u in range(12)])
    np.testing.assert_array_equal(orders[0], np.arange(size))
    np.testing.assert_array_equal(np.sort(orders, 1), np.broadcast_to(np.arange(size), orders.shape))
    assert (orders[1:] != orders[:-1]).any(1).all()


def test_permutations_are_uniform() -> None:
    """The six orders of three, each with probability 1/6: 1200 draws, four standard deviations."""
    orders = jax.vmap(lambda key: permutation(key, jnp.int32(9), 3))(jax.random.split(jax.random.key(0), 1200))
    _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(counts) == 6
    assert np.abs(counts - 200).max() < 4 * np.sqrt(1200 * 5 / 36)


def order_of(plain: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The permutation that makes the columns of ``shown`` from those of ``plain``, which differ from each other."""
    return np.array([int(np.flatnonzero(np.isclose(column, plain.T, atol=1e-5).all(1))[0]) for column in shown.T])


@pytest.mark.parametrize(
    "name", ["cartpole", *(pytest.param(n, marks=pytest.mark.slow) for n in ("acrobot", "pendulum"))]
)
def test_observations_are_permuted_and_nothing_else_is(name: str) -> None:
    plain, shown = (lives(name, 1, 30, change=change, lanes=2) for change in ("none", "observation"))
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), plain[:3], shown[:3])
    for lane in range(2):
        order = order_of(plain.observation[:, lane, 0], shown.observation[:, lane, 0])
        assert sorted(order) == list(range(len(order))) != order.tolist()


def test_pixels_are_permuted() -> None:
    plain, shown = (lives("catch", 1, 30, change=change).observation[:, 0, 0] for change in ("none", "observation"))
    assert not np.array_equal(plain, shown)
    assert [sorted(map(tuple, x.reshape(31, -1).T.tolist())) for x in (plain, shown)] == [
        sorted(map(tuple, plain.reshape(31, -1).T.tolist()))
    ] * 2


@pytest.mark.parametrize("name", ["catch", "cartpole", pytest.param("acrobot", marks=pytest.mark.slow)])
def test_actions_are_permuted(name: str) -> None:
    """The same life as that of the standard task under the permuted actions."""
    actions = random_actions(STREAMS[name]().make(1), 30, 1)
    life = lives(name, 1, 30, actions, change="action")
    count = STREAMS[name]().spec.actions
    orders = [np.array(order) for order in np.ndindex((count,) * count) if len(set(order)) == count]
    same = [
        order.tolist()
        for order in orders
        if np.array_equal(lives(name, 1, 30, order[actions], change="none").observation, life.observation)
    ]
    assert len(same) == 1
    assert same[0] != list(range(count))


def test_visit_0_is_the_standard_problem() -> None:
    for change in ("observation", "action"):
        plain, first = (lives("catch", 0, 20, change=which) for which in ("none", change))
        jax.tree.map(np.testing.assert_array_equal, plain, first)


def test_torque_is_reversed_at_every_second_visit_and_clipped() -> None:
    actions = random_actions(pendulum().make(1), 20, 1)
    life = lives("pendulum", 3, 20, 3 * actions, change="action")
    mirrored = lives("pendulum", 3, 20, np.clip(-3 * actions, -2, 2), change="none")
    jax.tree.map(np.testing.assert_array_equal, life, mirrored)
    assert (np.abs(3 * actions) > 2).any()


def test_physics_come_again_in_turn() -> None:
    source = cartpole(change="physics", gravity=(1.0, 2.0, 0.5), tasks=5)
    assert source.spec.tasks == ("physics_0", "physics_1", "physics_2")
    assert [plan.task for plan in source.spec.visits] == [0, 1, 2, 0, 1]
    reset = jax.jit(source.make(1).reset)
    problems = [reset(lane_keys(0), visit_of(i, i % 3), jnp.int32(0))[0].params for i in range(5)]
    assert [float(problem.gravity[0]) for problem in problems] == [1, 2, 0.5, 1, 2]
    assert [float(problem.length[0]) for problem in problems] == [1] * 5


def test_without_a_change_every_visit_is_to_the_same_task() -> None:
    spec = catch(change="none", tasks=3).spec
    assert spec.tasks == ("catch",)
    assert [plan.task for plan in spec.visits] == [0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gravity": (1.0, 0.0), "change": "physics"}, r"gravity: \(1.0, 0.0\) is not allowed"),
        (
            {"gravity": (1.0, 2.0), "length": (1.0, 2.0, 3.0), "change": "physics"},
            "2 factors for gravity and 3 factors for length are not allowed; each setting must have one",
        ),
        (
            {"gravity": (1.0, 2.0)},
            "change: observation is not allowed with 2 factors for gravity or length; must be physics",
        ),
        (
            {"change": "physics"},
            "change: physics is not allowed with one factor each for gravity and length; give one of them several",
        ),
    ],
)
def test_impossible_physics_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cartpole(**settings)
