"""What a task is follows from its number and the lane's key: for every stream, and for lanes in different tasks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import Player, lane_keys, play, player, random_actions
from test_contract_stream import LANES, NAMES, differ, source_of

from plasticity.core.types import Visit
from plasticity.envs import host as on_host

STEPS = 6


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pair(name: str) -> Player:
    made = player(source_of(name).make(LANES))
    yield made
    made.stream.close()


def problem(state: Any) -> Any:
    """The visit's problem in a stream's state, under any transforms."""
    if hasattr(state, "inner"):
        return problem(state.inner), state.problem, state.span
    return state.params


def in_tasks(number: int, *tasks: int) -> Visit:
    """Always a task for each lane, so that a stream is compiled once."""
    return Visit(jnp.int32(number), jnp.asarray(tasks, jnp.int32))


def tasks_made(pair: Player, visit: Visit) -> Any:
    """The problem of a visit: parameters, or which tasks emulators were made for."""
    asked: list[list[int]] = []
    pool_of = on_host.pool_of

    def spy(make_pool: Any, tasks: np.ndarray, seeds: np.ndarray) -> Any:
        asked.append(tasks.tolist())
        return pool_of(make_pool, tasks, seeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_host, "pool_of", spy)
        state, opening = pair.reset(lane_keys(3, 8), visit, jnp.int32(0))
        jax.block_until_ready(opening)
    return asked if asked else problem(state)


def test_a_task_that_comes_again_is_the_same_task(pair):
    """Visits 0, 1, 2 to the tasks 0, 1, 0."""
    first, other, again = (tasks_made(pair, in_tasks(n, task, task)) for n, task in ((0, 0), (1, 1), (2, 0)))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert differ(first, other)


def test_lanes_in_different_tasks_live_as_each_does_in_its_own(pair):
    keys, actions = lane_keys(3, 8), random_actions(pair.stream, STEPS, LANES)
    both = play(pair, keys, in_tasks(2, 1, 0), actions)
    for lane, task in enumerate((1, 0)):
        alone = play(pair, keys, in_tasks(2, task, task), actions)
        own = (jax.tree.map(lambda leaf, lane=lane: leaf[:, lane], each) for each in (both, alone))
        jax.tree.map(np.testing.assert_array_equal, *own)
