"""Gems and pits, recomputed from observations and actions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST
from plasticity.envs.gather import gather

SMALL = {"size": 4, "gems": 4, "pits": 3, "blocks": 3, "episode_steps": 12, "levels": 2, "tasks": 3}


@pytest.fixture(scope="module")
def played() -> Any:
    made = player(gather(**SMALL, prize=0.5, steps_per_task=100, envs=4).make(2))
    actions = random_actions(made.stream, 60, 2)
    return actions, play(made, lane_keys(1, 2), visit_of(1), actions)


def test_a_life_follows_the_rules(played: Any) -> None:
    actions, life = played
    moves, met = ((-1, 0), (1, 0), (0, -1), (0, 1)), {-0.5: 0, 0.0: 0, 0.5: 0}
    for t, w, e in np.ndindex(60, 2, 4):
        before, after = life.observation[t, w, e], life.observation[t + 1, w, e]
        if life.step_type[t + 1, w, e] == FIRST:
            continue
        here = np.argwhere(before[..., 0] == 1)[0]
        there = np.clip(here + moves[actions[t, w, e]], 0, 3)
        there = here if before[(*there, 2)] else there
        reward = 0.5 * before[(*there, 1)]
        left = before.copy()
        left[..., 0], left[(*there, 1)] = 0, 0
        left[(*there, 0)] = 1
        np.testing.assert_array_equal(after, left)
        assert life.reward[t + 1, w, e] == reward
        met[float(reward)] += 1
    assert min(met.values()) > 5


def test_episodes_last_as_long_as_set_and_open_in_the_centre(played: Any) -> None:
    _, life = played
    np.testing.assert_array_equal(np.flatnonzero(life.step_type[:, 0, 0] == LAST), [12, 25, 38, 51])
    assert (life.discount == 1).all()
    opens = life.observation[life.step_type == FIRST]
    assert (opens[:, 2, 2] == [1, 0, 0]).all()
    assert ((opens[..., 1] == 1).sum((1, 2)) == 4).all()
    assert ((opens[..., 1] == -1).sum((1, 2)) == 3).all()
    assert ((opens[..., 2] == 1).sum((1, 2)) == 3).all()
    assert not (opens[..., 1] * opens[..., 2]).any()


def layouts(change: str) -> list[set[bytes]]:
    """Those that open episodes in each of the three tasks of a lane."""
    stream = gather(**SMALL, change=change, envs=32, steps_per_task=100).make(1)
    seen = jax.jit(lambda visit: stream.reset(lane_keys(5), visit, jnp.int32(0))[1].observation)
    return [{board.tobytes() for board in np.asarray(seen(visit_of(9, task)))[0]} for task in range(3)]


def test_a_window_has_layouts_of_its_own() -> None:
    found = layouts("window")
    assert [len(each) for each in found] == [2, 2, 2]
    assert len(set.union(*found)) == 6


def test_an_expanding_set_keeps_the_older_layouts() -> None:
    found = layouts("expand")
    assert [len(each) for each in found] == [2, 4, 6]
    assert found[0] < found[1] < found[2]


def test_refuses_more_things_than_cells() -> None:
    with pytest.raises(ValueError, match=r"gems \+ pits \+ blocks: 20 is not allowed; size 4 has 15 cells"):
        gather(size=4)


def test_a_visit_shorter_than_an_episode_warns() -> None:
    with pytest.warns(UserWarning, match="steps_per_task: 50 is shorter than an episode"):
        gather(steps_per_task=50)
