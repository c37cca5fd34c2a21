"""Classification as a decision process: states, rewards and observations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import clock_at, lane_keys, play, player, random_actions, visit_of
from sklearn.datasets import load_digits

from plasticity.envs.classification import classification_mdp

PIXELS, LABELS = load_digits(return_X_y=True)
KNOWN = (PIXELS[:100] - PIXELS[:100].mean()) / PIXELS[:100].std()
STEPS, ENVS = 60, 20


def rows_of(seen: Any) -> np.ndarray:
    flat = np.asarray(seen).reshape(-1, 64)
    row = np.abs(flat[:, None] - KNOWN).max(-1).argmin(1)
    np.testing.assert_allclose(flat, KNOWN[row], atol=1e-5)
    return row.reshape(seen.shape[:-1])


def is_uniform(states: np.ndarray) -> bool:
    """Chi-squared with 9 degrees, 0.1 % tail."""
    counts, even = np.bincount(states.ravel(), minlength=10), states.size / 10
    return bool(((counts - even) ** 2 / even).sum() < 27.9)


@pytest.fixture(scope="module")
def life() -> tuple[np.ndarray, Any]:
    stream = classification_mdp(samples=100, envs=ENVS).make(1)
    actions = random_actions(stream, STEPS, 1)
    return actions, play(player(stream), lane_keys(0), visit_of(0), actions)


def test_the_reward_says_whether_the_action_is_the_class_of_the_image(life: Any) -> None:
    actions, lived = life
    states = LABELS[rows_of(lived.observation)]
    np.testing.assert_array_equal(lived.reward[1:], states[:-1] == actions)
    assert 0 < lived.reward.sum() < 0.3 * actions.size


def test_states_are_uniform_and_the_process_never_ends(life: Any) -> None:
    states = LABELS[rows_of(life[1].observation)]
    assert is_uniform(states)
    assert is_uniform((states[1:] - states[:-1]) % 10)  # the next state does not depend on the last
    assert (life[1].discount == 1).all()
    assert (life[1].step_type[1:] == 1).all()


def test_each_image_of_a_class_is_shown(life: Any) -> None:
    assert set(rows_of(life[1].observation).ravel()) == set(range(100))


def test_sparse_by_following_the_states() -> None:
    """Always choosing the state walks 0, 1, ..., 9, 0 and is rewarded in 9 alone; never choosing it gives no reward."""
    stream = classification_mdp(mdp="sparse", samples=100, envs=ENVS).make(1)
    reset, step = jax.jit(stream.reset), jax.jit(stream.step)
    keys = lane_keys(0)
    for right in (True, False):
        state, timestep = reset(keys, visit_of(0), jnp.int32(0))
        visited = []
        for t in range(25):
            now = LABELS[rows_of(timestep.observation)]
            state, timestep = step(keys, state, jnp.asarray(now if right else (now + 1) % 10), clock_at(t))
            following = LABELS[rows_of(timestep.observation)]
            np.testing.assert_array_equal(timestep.reward, (now == 9) & right)
            visited.append(following)
            if right:
                np.testing.assert_array_equal(following, (now + 1) % 10)
        assert is_uniform(np.stack(visited)) or right


@pytest.mark.parametrize("change", ["none", "labels"])
def test_random_labels_are_even_and_change_with_the_task(change: Any) -> None:
    stream = classification_mdp(mdp="random_label", samples=100, classes=10, envs=1000, change=change).make(1)
    reset = jax.jit(stream.reset)
    labels = []
    for task in range(2 if change == "labels" else 1):
        state, timestep = reset(lane_keys(0), visit_of(task), jnp.int32(0))
        rows, states = rows_of(timestep.observation)[0], np.asarray(state.envs)[0]
        shown = [set(states[rows == row]) for row in range(100)]
        assert [len(found) for found in shown] == [1] * 100  # every image belongs to one state
        labels.append(np.array([next(iter(found)) for found in shown]))
        np.testing.assert_array_equal(np.bincount(labels[-1]), 10)
        assert (labels[-1] == LABELS[:100]).mean() < 0.4
    if change == "labels":
        assert (labels[0] == labels[1]).mean() < 0.4


def test_true_classes_change_places() -> None:
    stream = classification_mdp(samples=100, envs=300, change="labels").make(1)
    reset = jax.jit(stream.reset)
    orders = []
    for task in range(3):
        state, timestep = reset(lane_keys(0), visit_of(task), jnp.int32(0))
        classes, states = LABELS[rows_of(timestep.observation)[0]], np.asarray(state.envs)[0]
        found = [np.unique(classes[states == s]) for s in range(10)]
        assert [len(one) for one in found] == [1] * 10
        orders.append(np.concatenate(found))
    np.testing.assert_array_equal(orders[0], np.arange(10))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])


def test_tasks_and_visits() -> None:
    same = classification_mdp(tasks=3, steps_per_task=5).spec
    assert (same.tasks, same.visits, same.episodic) == (("classes",), ((0, 5),) * 3, False)
    changing = classification_mdp(tasks=3, steps_per_task=5, change="labels").spec
    assert [plan.task for plan in changing.visits] == [0, 1, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": "gaussian"}, "inputs: gaussian is not allowed; this stream needs inputs with true labels"),
        ({"samples": 7}, "samples: the 7 rows used include no sample of class 7 of 10"),
        ({"mdp": "random_label", "samples": 7}, "samples: 7 is not allowed; must be at least 10, one for each class"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_mdp(**settings)
