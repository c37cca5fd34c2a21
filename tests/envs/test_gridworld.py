"""The gridworld against walks by hand and a walk of its own."""

import warnings
from collections import deque
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST
from plasticity.envs.gridworld import distances, goals, gridworld, neighbours

UP, DOWN, LEFT, RIGHT = range(4)
SMALL = {"size": 3, "walls": "none", "episode_steps": 5, "tasks": 3, "steps_per_task": 50}


def cell(observation: np.ndarray) -> np.ndarray:
    """The place of the 1 in a plane [..., rows, columns]."""
    return observation.reshape(*observation.shape[:-2], -1).argmax(-1)


def walk(size: int, walls: str, *actions: int) -> tuple[int, int]:
    """From the centre."""
    at, table = (size // 2) * (size + 1), neighbours(size, walls)
    for action in actions:
        at = int(table[at, action])
    return divmod(at, size)


def test_borders_keep_one_where_one_is() -> None:
    assert walk(3, "none", UP) == (0, 1)
    assert walk(3, "none", UP, UP, UP, LEFT, LEFT, LEFT) == (0, 0)
    assert walk(3, "none", DOWN, DOWN, RIGHT, RIGHT) == (2, 2)


def test_nine_rooms_have_doors_in_the_middle_of_their_walls() -> None:
    assert walk(15, "nine_rooms") == (7, 7)
    assert walk(15, "nine_rooms", *[UP] * 9) == (0, 7)  # through the door above
    assert walk(15, "nine_rooms", *[DOWN] * 9) == (14, 7)
    assert walk(15, "nine_rooms", *[LEFT] * 9) == (7, 5)  # no door
    assert walk(15, "nine_rooms", *[RIGHT] * 9) == (7, 9)
    assert walk(15, "nine_rooms", LEFT, *[UP] * 9) == (5, 6)  # beside the door
    assert walk(15, "nine_rooms", *[UP] * 5, *[LEFT] * 9) == (2, 0)
    assert walk(15, "nine_rooms", *[UP] * 5, *[LEFT] * 5, *[DOWN] * 12, *[RIGHT] * 12) == (14, 4)
    assert walk(15, "nine_rooms", *[UP] * 5, *[LEFT] * 5, *[DOWN] * 10, *[RIGHT] * 12) == (12, 14)


def test_four_rooms() -> None:
    assert walk(6, "four_rooms") == (3, 3)
    assert walk(6, "four_rooms", UP, LEFT) == (3, 3)
    assert walk(6, "four_rooms", RIGHT, *[UP] * 3, DOWN, *[LEFT] * 3) == (1, 1)  # doors at rows and columns 1 and 4


@pytest.mark.parametrize(("size", "walls"), [(4, "none"), (6, "four_rooms"), (15, "nine_rooms")])
def test_distances_are_those_of_a_breadth_first_search(size: int, walls: str) -> None:
    table, start = neighbours(size, walls), (size // 2) * (size + 1)
    found, queue = {start: 0}, deque([start])
    while queue:
        here = queue.popleft()
        for there in set(table[here].tolist()) - set(found):
            found[there] = found[here] + 1
            queue.append(there)
    assert len(found) == size**2  # every cell can be reached
    np.testing.assert_array_equal(distances(table)[start], [found[i] for i in range(size**2)])


def test_goals_are_outside_the_room_one_starts_in() -> None:
    places = goals(15, "nine_rooms")
    row, column = np.divmod(places, 15)
    assert len(places) == 5 * 25
    assert row.min() == 5
    assert not ((row < 10) & (column >= 5) & (column < 10)).any()
    assert len(goals(5, "none")) == 24


@pytest.fixture(scope="module")
def life() -> Any:
    """Two lanes of four envs, 60 steps in task 1, the goal shown."""
    made = player(gridworld(**SMALL, start="random", show_goal=True, prize=2.0, shaping=0.25, envs=4).make(2))
    actions = random_actions(made.stream, 60, 2)
    return actions, play(made, lane_keys(1, 2), visit_of(1), actions)


def test_a_life_follows_the_rules(life: Any) -> None:
    """Position, reward, discount and ends recomputed from the observations and actions alone."""
    actions, steps = life
    at, goal = cell(steps.observation[..., 0]), cell(steps.observation[..., 1])
    assert (goal == goal[0, :, :1]).all()  # one goal in a lane
    assert (steps.observation.sum((-3, -2)) == 1).all()
    row, column = np.divmod(at, 3)
    there, moves = (row[:-1], column[:-1]), np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
    down, right = (np.clip(a + moves[actions, i], 0, 2) for i, a in enumerate(there))
    middle = steps.step_type[1:] != FIRST
    np.testing.assert_array_equal(at[1:][middle], (3 * down + right)[middle])
    reached = (at == goal)[1:] & middle
    assert reached.sum() > 5
    away = np.abs(row - goal // 3) + np.abs(column - goal % 3)
    np.testing.assert_allclose(steps.reward[1:][middle], (2.0 * reached - 0.25 * away[:-1])[middle], rtol=1e-6)
    np.testing.assert_array_equal(steps.discount[1:] == 0, reached)


def test_episodes_end_at_the_goal_or_after_the_limit(life: Any) -> None:
    _, steps = life
    at, goal = cell(steps.observation[..., 0]), cell(steps.observation[..., 1])
    since = np.zeros(at.shape[1:], int)
    for moment in range(1, len(at)):
        since = np.where(steps.step_type[moment] == FIRST, 0, since + 1)
        last = (since > 0) & ((at[moment] == goal[moment]) | (since == 5))
        np.testing.assert_array_equal(steps.step_type[moment] == LAST, last)
    cut = (steps.step_type == LAST) & (at != goal)
    assert cut.any()
    assert (steps.discount[cut] == 1).all()
    opening = steps.step_type == FIRST
    assert (at[opening] != goal[opening]).all()
    assert len(np.unique(at[opening])) > 4


@pytest.fixture(scope="module")
def goal_of() -> Any:
    stream = gridworld(**{**SMALL, "tasks": 9}, show_goal=True).make(3)
    seen = jax.jit(lambda visit: stream.reset(lane_keys(1, 2, 3), visit, jnp.int32(0))[1].observation)
    return lambda number, task: cell(np.asarray(seen(visit_of(number, task)))[:, 0, :, :, 1])


def test_the_goal_follows_from_the_task_and_the_lane(goal_of: Any) -> None:
    found = np.stack([goal_of(task, task) for task in range(8)])
    np.testing.assert_array_equal(np.sort(found, 0)[:, 0], [0, 1, 2, 3, 5, 6, 7, 8])  # all cells but the centre
    assert len({tuple(lane) for lane in found.T}) == 3
    np.testing.assert_array_equal(goal_of(5, 2), found[2])  # a revisited task is the same task


def test_tasks_come_again_when_there_is_no_other_goal() -> None:
    spec = gridworld(**{**SMALL, "tasks": 9}).spec
    assert len(spec.tasks) == 8
    assert [plan.task for plan in spec.visits] == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert gridworld().spec.observation.shape == (15, 15, 1)


@pytest.mark.parametrize("change", ["observation", "action", "none"])
def test_other_changes_leave_the_goal(change: str) -> None:
    spec = gridworld(**SMALL, change=change).spec
    assert len(spec.tasks) == (1 if change == "none" else 3)


@pytest.mark.parametrize(("size", "walls"), [(10, "nine_rooms"), (3, "nine_rooms"), (5, "four_rooms")])
def test_refuses_a_size_that_rooms_do_not_divide(size: int, walls: str) -> None:
    with pytest.raises(ValueError, match=f"size: {size} is not allowed with walls: {walls}"):
        gridworld(size=size, walls=walls)


def test_a_visit_shorter_than_an_episode_warns() -> None:
    with pytest.warns(UserWarning, match=r"steps_per_task: 50 is shorter than an episode may last .*100"):
        gridworld(steps_per_task=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gridworld(steps_per_task=100)
