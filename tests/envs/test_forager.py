"""Forager against its rules in NumPy, hand-computed cases and closed forms."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from forager_rules import Rules, Thing
from playing import clock_at, lane_keys, play, player, random_actions, visit_of

from plasticity import results
from plasticity.core.types import MID
from plasticity.envs.forager import World, drawn_map, forager, forager_task, vacancy
from plasticity.runs import launch

UP, DOWN, LEFT, RIGHT = range(4)
LIFE = {
    "size": 7, "aperture": 5, "rewards": (0.5, -1.0, 0.25), "delay": 5, "envs": 3,
    "biomes": ((0.3, 0.1, 0.0), (0.0, 0.1, 0.3)), "steps_per_task": 100,
}  # fmt: skip


def states(source: Any, task: int, actions: np.ndarray) -> Any:
    """States and time steps ``[1 + T, E, ...]`` of a visit of one lane."""
    stream, keys = source.make(1), lane_keys(1)

    def body(state: Any, now: Any) -> Any:
        step, action = now
        state, timestep = stream.step(keys, state, action, clock_at(step))
        return state, (state.envs, timestep)

    @jax.jit
    def run() -> Any:
        state, opening = stream.reset(keys, visit_of(task), jnp.int32(0))
        return (state.envs, opening), jax.lax.scan(body, state, (jnp.arange(len(actions)), actions))[1]

    return jax.tree.map(lambda a, b: np.concatenate([np.asarray(a)[None], np.asarray(b)])[:, 0], *run())


@pytest.mark.parametrize("respawn", ["same", "elsewhere"])
def test_a_life_follows_the_rules(respawn: str) -> None:
    source = forager(**LIFE, respawn=respawn)
    actions = random_actions(source.make(1), 300, 1)
    world, seen = states(source, 1, actions)
    moved, rewards = 0, []
    for env in range(3):
        things = [Thing(world.kinds[0, env][cell] - 1, cell) for cell in np.ndindex(7, 7) if world.kinds[0, env][cell]]
        start = int(world.row[0, env]), int(world.column[0, env])
        rules = Rules(7, 5, np.array([-1.0, 0.25, 0.5]), 2, 5, start, things)  # task 1: the next kind's reward
        np.testing.assert_array_equal(seen.observation[0, env], rules.look())
        for t in range(300):
            reward, eaten = rules.step(actions[t, 0, env])
            if eaten and respawn == "elsewhere":  # where it comes back is random: any free cell of its biome
                old = world.kinds[t, env]
                new = [cell for cell in np.ndindex(7, 7) if world.kinds[t + 1, env][cell] != old[cell]]
                back = [cell for cell in new if cell != eaten.cell] or [eaten.cell]
                assert len(back) == 1
                assert back[0] in rules.free(eaten)
                moved += back[0] != eaten.cell
                eaten.cell = back[0]
            assert seen.reward[t + 1, env] == reward
            np.testing.assert_array_equal(seen.observation[t + 1, env], rules.look())
            rewards.append(reward)
    assert set(rewards) == {0.0, 0.5, -1.0, 0.25}
    assert moved > 50 if respawn == "elsewhere" else moved == 0
    assert (seen.step_type[1:] == MID).all()
    assert (seen.discount == 1).all()


def small(kinds: np.ndarray, **settings: Any) -> tuple[Any, World]:
    """A task and a world with the given objects, the rewards being 1, -1."""
    source = forager(size=len(kinds), aperture=3, delay=3, **settings)
    task = forager_task(source.spec, len(kinds), np.float32([1, -1]), np.zeros((1, 2)), False, 3, "none", 1)
    return task, World(jnp.asarray(kinds, jnp.int8), jnp.float32([1, -1]))


def test_the_window_wraps_around_both_edges() -> None:
    kinds = np.zeros((5, 5))
    kinds[0, 0], kinds[4, 3], kinds[2, 2] = 1, 2, 1
    task, world = small(kinds)
    state, _ = task.reset(jax.random.key(0), world)
    state = state._replace(row=jnp.int32(3), column=jnp.int32(4))
    state, seen, reward, _, _ = task.step(jax.random.key(1), state, jnp.int32(DOWN), world)
    assert (int(state.row), int(state.column), float(reward)) == (4, 4, 0.0)
    assert np.argwhere(seen).tolist() == [[1, 0, 1], [2, 2, 0]]  # to the left; down and right, over both edges
    for action, cell, reward in ((DOWN, (0, 4), 0.0), (RIGHT, (0, 0), 1.0), (UP, (4, 0), 0.0), (LEFT, (4, 4), 0.0)):
        state, _, got, _, _ = task.step(jax.random.key(1), state, jnp.int32(action), world)
        assert (int(state.row), int(state.column), float(got)) == (*cell, reward)


def test_an_object_is_back_after_the_delay_and_not_before() -> None:
    kinds = np.zeros((4, 4))
    kinds[1, 1] = 1
    task, world = small(kinds)
    state, _ = task.reset(jax.random.key(0), world)
    state = state._replace(row=jnp.int32(1), column=jnp.int32(0))
    shown, paid = [], []
    for action in (RIGHT, LEFT, RIGHT, LEFT, RIGHT, LEFT, LEFT):  # enters the cell at steps 1, 3 and 5; delay 3
        state, seen, reward, _, _ = task.step(jax.random.key(1), state, jnp.int32(action), world)
        shown.append(float(seen.sum()))
        paid.append(float(reward))
    assert paid == [1, 0, 0, 0, 1, 0, 0]
    assert shown == [0, 0, 0, 1, 0, 0, 0]  # eaten at 1, back at 4; eaten at 5, back at 8


@pytest.mark.parametrize(("delay", "rate"), [(1, 1.0), (4, 1.0), (5, 0.5), (8, 0.5), (9, 1 / 3)])
def test_the_reward_rate_of_walking_straight_on_through_a_full_world(delay: int, rate: float) -> None:
    """Each cell is entered every four steps: one visit in ceil(delay / 4) finds its object."""
    source = forager(size=4, aperture=3, rewards=(1.0,), biomes=((1.0,),), delay=delay, change="none")
    made = player(source.make(1))
    life = play(made, lane_keys(0), visit_of(0), np.full((48, 1, 1), RIGHT, np.int32))
    assert life.reward[1:].mean() == pytest.approx(rate, abs=1e-6)
    assert rate == 1 / math.ceil(delay / 4)


def problem(source: Any, task: int, *lanes: int) -> World:
    stream = source.make(len(lanes))
    return jax.tree.map(np.asarray, stream.reset(lane_keys(*lanes), visit_of(task), jnp.int32(0))[0].params)


def test_at_a_switch_the_kinds_exchange_their_rewards_and_the_map_stays() -> None:
    source = forager(**LIFE, tasks=5)
    worlds = [problem(source, task, 1, 2) for task in range(3)]
    expected = [[0.5, -1, 0.25], [-1, 0.25, 0.5], [0.25, 0.5, -1]]
    for world, rewards in zip(worlds, expected, strict=True):
        np.testing.assert_array_equal(world.rewards, [rewards, rewards])
        np.testing.assert_array_equal(world.kinds, worlds[0].kinds)
    assert (worlds[0].kinds[0] != worlds[0].kinds[1]).any()  # each lane has its own map
    assert source.spec.tasks == ("rewards_0", "rewards_1", "rewards_2")
    assert [plan.task for plan in source.spec.visits] == [0, 1, 2, 0, 1]
    assert (source.spec.episodic, source.spec.reward_name) == (False, "reward_rate")
    assert source.spec.reward_range == (-1, 0.5)


def test_new_rewards_are_uniform_between_the_lowest_and_the_highest() -> None:
    source = forager(rewards=(2.0, -1.0), change="new", tasks=200, aperture=1, size=3)
    stream = source.make(1)
    drawn = jax.jit(lambda task: stream.reset(lane_keys(4), visit_of(0)._replace(task=task), jnp.int32(0))[0].params)
    rewards = np.stack([np.asarray(drawn(jnp.int32(task)).rewards)[0] for task in range(200)])
    np.testing.assert_array_equal(rewards[0], [2, -1])
    assert ((rewards >= -1) & (rewards < 2)).mean() > 0.99
    # 398 numbers with mean 1/2 and standard deviation 3 / sqrt(12): four standard errors
    assert abs(rewards[1:].mean() - 0.5) < 4 * 3 / math.sqrt(12 * 398)
    assert len(np.unique(rewards, axis=0)) == 200


def test_a_new_map_leaves_the_rewards() -> None:
    source = forager(change="map", tasks=3)
    first, other = (problem(source, task, 1) for task in (0, 1))
    np.testing.assert_array_equal(first.rewards, other.rewards)
    assert (first.kinds != other.kinds).any()


@pytest.mark.parametrize(("period", "used"), [(8, 8), (0, 16)])
def test_gradual_rewards_are_a_cosine(period: int, used: int) -> None:
    """In a world full of objects that come back at once, each step has the current reward."""
    source = forager(
        size=3, aperture=1, rewards=(-2.0,), biomes=((1.0,),), delay=1, change="sine", period=period, steps_per_task=16
    )
    life = play(player(source.make(1)), lane_keys(0), visit_of(0), np.zeros((16, 1, 1), np.int32))
    expected = [-2 * math.cos(2 * math.pi * t / used) for t in range(16)]
    np.testing.assert_allclose(life.reward[1:, 0, 0], expected, atol=1e-6)
    assert source.spec.reward_range == (-2, 2)
    assert source.spec.tasks == ("forager",)


def test_a_map_has_the_densities_of_its_biomes() -> None:
    densities = np.array([[0.3, 0.1], [0.0, 0.05], [0.5, 0.5]])
    kinds = np.asarray(drawn_map(jax.random.key(3), 240, densities)).reshape(240, 3, 80)
    for biome, kind in np.ndindex(3, 2):
        share, count = densities[biome, kind], 240 * 80
        found = (kinds[:, biome] == kind + 1).mean()
        assert abs(found - share) <= 4 * math.sqrt(share * (1 - share) / count)
    assert (kinds[:, 2] > 0).all()


def test_a_free_cell_is_drawn_uniformly() -> None:
    vacant = np.zeros((3, 4), bool)
    vacant[[0, 1, 2], [3, 0, 2]] = True
    row, column = jax.vmap(vacancy, (0, None))(jax.random.split(jax.random.key(0), 3000), jnp.asarray(vacant))
    counts = np.zeros((3, 4))
    np.add.at(counts, (np.asarray(row), np.asarray(column)), 1)
    assert (counts[~vacant] == 0).all()
    assert (np.abs(counts[vacant] - 1000) < 4 * math.sqrt(3000 * 2 / 9)).all()


def test_performance_is_the_mean_reward_per_step(tmp_path: Any) -> None:
    full = {"size": 3, "aperture": 1, "rewards": [0.25], "biomes": [[1.0]], "delay": 1, "change": "none"}
    stream = {"kind": "forager", **full, "tasks": 2, "steps_per_task": 10, "envs": 1}
    experiment = tiny.experiment(stream=stream, agent=tiny.DQN["agent"], seeds=1, monitors=[])
    launch.run(experiment, tmp_path / "run")
    assert results.visits(tmp_path / "run")["performance"].tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aperture": 4}, "aperture: 4 is not allowed; must be odd and at most size, which is 15"),
        ({"aperture": 17}, "aperture: 17 is not allowed; must be odd and at most size, which is 15"),
        ({"size": 3, "aperture": 3, "biomes": ((0.1, 0.1),) * 4}, "biomes: 4 are not allowed; there are 3 columns"),
        ({"biomes": ((0.1,),)}, r"biomes: \[0.1\] is not allowed; .* each of the 2 rewards"),
        ({"biomes": ((0.6, 0.5),)}, r"biomes: \[0.6, 0.5\] is not allowed; .* a sum of at most 1"),
        ({"rewards": (1.0, 1.0)}, r"rewards: \[1.0, 1.0\] is not allowed with change: cycle; needs two different"),
        (
            {"biomes": ((0.0, 0.0), (0.0, 0.0))},
            "biomes: all densities are 0; at least one must be above 0, or there is",
        ),
        ({"rewards": (0.0, 0.0)}, r"rewards: \[0.0, 0.0\] is not allowed; at least one must differ from 0"),
    ],
)
def test_refuses_worlds_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forager(**settings)
