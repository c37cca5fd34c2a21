"""AppleRetrieval: walks by hand, the tasks, the time limit, and the return of a random walk."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import clock_at, lane_keys, visit_of

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs.apple_retrieval import LEFT, RIGHT, apple_retrieval

PHASE_2, WHOLE = 0, 1


def walk(source: Any, task: int, actions: np.ndarray) -> list[np.ndarray]:
    """Step types, rewards, discounts and observations ``[T + 1, E]`` of these actions ``[T, E]``."""
    stream, keys = source.make(1), lane_keys(3)
    state, opening = jax.jit(stream.reset)(keys, visit_of(task), jnp.int32(0))
    move, seen = jax.jit(stream.step), [opening]
    for i, action in enumerate(actions):
        state, timestep = move(keys, state, jnp.asarray(action)[None], clock_at(i))
        seen.append(timestep)
    return [np.stack([np.asarray(getattr(t, name))[0] for t in seen]) for name in opening._fields]


def test_a_walk_to_the_apple_and_home_by_hand():
    """Home is 0, the apple at 2: against the end of the world, out, away from home with the apple, and back."""
    actions = [LEFT, RIGHT, LEFT, RIGHT, RIGHT, RIGHT, LEFT, RIGHT, LEFT, LEFT, LEFT, RIGHT]
    kind, reward, discount, seen = walk(apple_retrieval(distance=2, c=0.5), WHOLE, np.array(actions)[:, None])
    assert reward[:, 0].tolist() == [0, -1, 1, -1, 1, 1, -1, 1, -1, 1, 1, 0, 1]
    assert seen[:, 0, 0].tolist() == [-0.5] * 5 + [0.5] * 5 + [0.5, -0.5, -0.5]
    assert kind[:, 0].tolist() == [FIRST] + [MID] * 9 + [LAST, FIRST, MID]
    assert discount[:, 0].tolist() == [1] * 10 + [0, 1, 1]


def test_the_first_task_begins_with_the_apple():
    source = apple_retrieval(distance=3, c=-2.0)
    actions = np.array([RIGHT, LEFT, LEFT, LEFT, LEFT])[:, None]
    kind, reward, discount, seen = walk(source, PHASE_2, actions)
    assert reward[:, 0].tolist() == [0, -1, 1, 1, 1, 0]
    assert (seen == -2.0).all()
    assert kind[:, 0].tolist() == [FIRST, MID, MID, MID, LAST, FIRST]
    assert discount[:, 0].tolist() == [1, 1, 1, 1, 0, 1]
    assert source.spec.tasks == ("phase_2", "whole")
    assert [plan.task for plan in source.spec.visits] == [PHASE_2, WHOLE]
    assert not source.spec.alike


@pytest.mark.parametrize(("task", "best"), [(PHASE_2, 4), (WHOLE, 8)])
def test_the_best_walk_earns_the_highest_return(task, best):
    outward = [RIGHT] * 4 if task == WHOLE else []
    kind, reward, *_ = walk(apple_retrieval(distance=4), task, np.array(outward + [LEFT] * 4)[:, None])
    assert reward.sum() == best
    assert kind[-1, 0] == LAST
    assert (kind[:-1] != LAST).all()


def test_an_episode_that_gets_nowhere_is_truncated():
    actions = np.tile([[RIGHT], [LEFT]], (8, 1))
    kind, _, discount, _ = walk(apple_retrieval(distance=4, episode_steps=8), WHOLE, actions)
    assert np.flatnonzero(kind[:, 0] == LAST).tolist() == [8]
    assert (discount == 1).all()


def test_a_random_policy_succeeds_as_often_as_the_chain_says():
    """In ``phase_2`` with P(left) = 0.6: the probability to be home within 12 steps, by powers of the chain."""
    distance, steps, envs, left = 3, 12, 4000, 0.6
    chain = np.zeros((distance + 1, distance + 1))
    chain[0, 0] = 1.0
    for place in range(1, distance + 1):
        chain[place, place - 1] += left
        chain[place, min(place + 1, distance)] += 1 - left
    home = np.linalg.matrix_power(chain, steps)[distance, 0]
    actions = np.where(np.random.default_rng(0).random((steps, envs)) < left, LEFT, RIGHT)
    kind, reward, discount, _ = walk(apple_retrieval(distance=distance, episode_steps=steps, envs=envs), 0, actions)
    assert (discount == 0).any(0).mean() == pytest.approx(home, abs=0.03)
    played = kind[1:] != FIRST
    first = np.cumsum(kind[:-1] == LAST, 0) == 0  # the first episode of each env
    mean = reward[1:][played & first].sum() / (played & first).sum()
    assert mean == pytest.approx(2 * left - 1, abs=0.02)  # the reward per step gives P(left)


def test_an_episode_too_short_to_fetch_the_apple_is_refused():
    with pytest.raises(ValueError, match=r"episode_steps: 59 is not allowed with distance: 30; must be at least 60"):
        apple_retrieval(distance=30, episode_steps=59)
    with pytest.warns(UserWarning, match="steps_per_visit: 50 is shorter than an episode may last"):
        apple_retrieval(steps_per_visit=50)
