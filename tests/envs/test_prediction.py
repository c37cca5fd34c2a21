"""Value prediction: transition matrices, true values in closed form, and what the stream records."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import clock_at, lane_keys, visit_of

from plasticity.core.types import FIRST, MID
from plasticity.envs.prediction import Process, stationary_distribution, true_values, value_prediction, walk_transitions
from plasticity.envs.transforms import TRANSFORMS


def problem_of(task: int = 0, seed: int = 3, **settings: Any) -> Any:
    """The lane's problem in a task, in float64."""
    stream = value_prediction(tasks=3, **settings).make(1)
    state, _ = stream.reset(lane_keys(seed), visit_of(task), jnp.int32(0))
    return jax.tree.map(lambda x: np.asarray(x[0], np.float64), state.params)


def values_by_iteration(problem: Any, discount: float) -> np.ndarray:
    """``v <- r + discount P v``, as often as needed: no linear solve."""
    expected = (problem.process.transitions * problem.process.rewards).sum(1)
    values = np.zeros(len(expected))
    for _ in range(400):
        values = expected + discount * problem.process.transitions @ values
    return values


@pytest.mark.parametrize("settings", [{"states": 12, "branching": 3}, {"process": "walk", "states": 7}])
def test_true_values_are_those_of_the_bellman_equation_and_standardised(settings):
    problem = problem_of(**settings, discount=0.8)
    mu = np.linalg.matrix_power(problem.process.transitions / 2 + np.eye(settings["states"]) / 2, 3000)[0]
    np.testing.assert_allclose(problem.process.transitions.sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(problem.stationary, mu, atol=1e-5)
    np.testing.assert_allclose(problem.values, values_by_iteration(problem, 0.8), atol=1e-4)
    np.testing.assert_allclose([mu @ problem.values, mu @ problem.values**2], [0.0, 1.0], atol=1e-4)


def test_values_by_hand():
    """Two states in turn, reward 1 for leaving the first: v_0 = 1 + v_1 / 2, v_1 = v_0 / 2."""
    process = Process(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([[0.0, 1.0], [0.0, 0.0]]))
    np.testing.assert_allclose(true_values(process, 0.5), [4 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(stationary_distribution(process.transitions), [0.5, 0.5], rtol=1e-6)


def test_the_walk():
    """Five states: from either end one half of the probability leads back to the middle."""
    expected = np.zeros((5, 5))
    for place, others in enumerate([(2, 1), (0, 2), (1, 3), (2, 4), (3, 2)]):
        expected[place, list(others)] = 0.25, 0.75
    np.testing.assert_allclose(walk_transitions(5, jnp.float32(0.75)), expected)
    problem = problem_of(process="walk", states=5)
    np.testing.assert_allclose(problem.values, -problem.values[::-1], atol=1e-5)  # symmetric: -1 on the left, 1 right
    assert (np.diff(problem.values) > 0).all()


CHANGES = {"rewards": (False, True), "transitions": (True, False), "both": (True, True)}


@pytest.mark.parametrize("process", ["random", "walk"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_tasks(process, change):
    first, second, again = (problem_of(task, process=process, states=9, change=change) for task in (0, 1, 1))
    jax.tree.map(np.testing.assert_array_equal, second, again)
    np.testing.assert_array_equal(first.features, second.features)
    apart = [not np.allclose(a, b) for a, b in zip(first.process.transitions, second.process.transitions, strict=True)]
    moves, pays = CHANGES[change]
    assert any(apart) == moves
    if not moves:  # otherwise the scale of the rewards changes with the values
        assert not np.allclose(first.process.rewards, second.process.rewards)
    if not pays:  # up to shift and scale
        shapes = [(r - r.min()) / np.ptp(r) for r in (first.process.rewards, second.process.rewards)]
        np.testing.assert_allclose(*shapes, atol=1e-5)


def test_without_change_there_is_one_task():
    spec = value_prediction(change="none", tasks=4, steps_per_task=5).spec
    assert spec.tasks == ("process",)
    assert [plan.task for plan in spec.visits] == [0, 0, 0, 0]


@pytest.mark.parametrize(("features", "size"), [("one_hot", 6), ("gaussian", 4), ("binary", 4)])
def test_features_identify_the_state(features, size):
    problem = problem_of(features=features, states=6, dimensions=4)
    assert problem.features.shape == (6, size)
    if features == "one_hot":
        np.testing.assert_array_equal(problem.features, np.eye(6))
    if features == "binary":
        assert set(np.unique(problem.features)) == {0.0, 1.0}


def lived(steps: int, predict: Any, **settings: Any) -> Any:
    """The problem, places, time steps and scores of a life in which ``predict(place)`` is the action."""
    stream = value_prediction(tasks=2, **settings).make(1)
    keys = lane_keys(5)

    def step(carry: Any, i: Any) -> Any:
        action = predict(jax.tree.map(lambda x: x[0], carry.params), carry.envs.place[0])
        after, timestep = stream.step(keys, carry, action[None, :, None], clock_at(i))
        return after, (carry.envs.place[0, 0], after.envs.place[0, 0], timestep, stream.score(after, timestep)[0, 0])

    @jax.jit
    def whole() -> Any:
        state, opening = stream.reset(keys, visit_of(0), jnp.int32(0))
        return state.params, opening, jax.lax.scan(step, state, jnp.arange(steps))[1]

    return jax.device_get(whole())


def test_the_performance_is_the_squared_error_and_the_learner_sees_the_reward():
    found = lived(4000, lambda problem, place: problem.values[place] + 0.5, states=6, branching=2, features="one_hot")
    problem, opening, (before, after, timestep, scores) = found
    np.testing.assert_allclose(scores, -0.25, rtol=1e-3)
    assert (opening.step_type == FIRST).all()
    assert (timestep.step_type == MID).all()
    assert (timestep.discount == 1).all()
    rewards = problem.process.rewards[0][before, after]
    np.testing.assert_allclose(timestep.reward[:, 0, 0], rewards, rtol=1e-5)
    np.testing.assert_array_equal(timestep.observation[:, 0, 0].argmax(-1), after)
    counts = np.zeros((6, 6))
    np.add.at(counts, (before, after), 1.0)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), problem.process.transitions[0], atol=0.08)


def test_a_constant_gets_minus_1_and_noise_changes_rewards_alone():
    """The mean over the stationary distribution; its standard error over 8,000 steps is well below the tolerance."""
    plain = lived(8000, lambda problem, place: jnp.zeros(1), states=6, branching=2)
    noisy = lived(8000, lambda problem, place: jnp.zeros(1), states=6, branching=2, noise=0.5)
    np.testing.assert_allclose(plain[2][3].mean(), -1.0, atol=0.1)
    np.testing.assert_array_equal(plain[2][0], noisy[2][0])
    np.testing.assert_array_equal(plain[2][3], noisy[2][3])
    np.testing.assert_allclose((noisy[2][2].reward - plain[2][2].reward).std(), 0.5, rtol=0.05)


@pytest.mark.parametrize("kind", ["scale_reward", "clip_reward", "flip_reward", "delay_reward", "sticky_actions"])
def test_transforms_of_rewards_and_actions_are_refused(kind):
    with pytest.raises(ValueError, match=rf"{kind}: not allowed on a stream that asks for predictions of values"):
        TRANSFORMS[kind]()(value_prediction())


@pytest.mark.parametrize("setting", ["process", "features", "change"])
def test_unknown_words_are_refused(setting):
    with pytest.raises(ValueError, match=rf'{setting}: "other" is not allowed; must be one of '):
        value_prediction(**{setting: "other"})
