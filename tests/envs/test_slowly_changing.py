"""Threshold networks by hand and by counting agreements; bits that flip."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, play, player, random_actions, visit_of

from plasticity.envs.slowly_changing import (
    ThresholdNetwork,
    fire,
    slow_bits,
    slowly_changing_regression,
    threshold_network,
)


def test_threshold_network_by_hand() -> None:
    # 3 bits and the constant; beta (3 + 1) = 2.8; the first unit has one -1, the second three
    network = ThresholdNetwork(
        weights=jnp.array([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]]),
        bias=jnp.array([1.0, -1.0]),
        threshold=jnp.array([1.8, -0.2]),
        output=jnp.array([1.0, -1.0]),
        output_bias=jnp.array(-1.0),
    )
    # (1, 0, 1): sums 1 + 1 + 1 = 3 > 1.8 and -1 + 1 - 1 = -1 < -0.2;  (0, 0, 1): 2 > 1.8 and 0 > -0.2
    np.testing.assert_array_equal(fire(network, jnp.array([1.0, 0.0, 1.0])), 0.0)
    np.testing.assert_array_equal(fire(network, jnp.array([0.0, 0.0, 1.0])), -1.0)


def test_thresholds_count_the_negative_weights() -> None:
    network = jax.tree.map(np.asarray, threshold_network(jax.random.key(0), bits=20, units=300, beta=0.7))
    entering = np.concatenate([network.weights, network.bias[:, None]], 1)
    assert set(np.unique(entering)) == set(np.unique(network.output)) == {-1, 1}
    assert abs(entering.mean()) < 5 / np.sqrt(entering.size)
    np.testing.assert_allclose(network.threshold, 0.7 * 21 - (entering == -1).sum(1), rtol=1e-6)


@pytest.mark.parametrize("flips", ["one", "all"])
def test_slow_bits_between_neighbouring_tasks(flips: Any) -> None:
    bits = np.stack(jax.jit(lambda: [slow_bits(jax.random.key(1), jnp.int32(u), 15, flips) for u in range(8)])())
    assert set(np.unique(bits)) == {0, 1}
    changed = np.abs(np.diff(bits, axis=0)).sum(1)
    if flips == "one":
        np.testing.assert_array_equal(changed, 1)
        assert len(set(np.abs(np.diff(bits, axis=0)).argmax(1))) > 2  # not one and the same bit
    else:
        assert changed.max() > 3
        assert abs(changed.mean() - 7.5) < 5 * np.sqrt(15 / 4 / 7)


@pytest.fixture(scope="module")
def lives() -> tuple[list[Any], list[Any], np.ndarray]:
    """Problems and lives of one lane in three tasks."""
    stream = slowly_changing_regression(bits=9, slow=5, units=30, beta=0.65, envs=4).make(1)
    playing, actions = player(stream), random_actions(stream, 30, 1)
    visits = [visit_of(v) for v in range(3)]
    states = [playing.reset(lane_keys(0), visit, jnp.int32(0))[0] for visit in visits]
    problems = [jax.tree.map(lambda leaf: np.asarray(leaf[0]), state.params) for state in states]
    return problems, [play(playing, lane_keys(0), visit, actions) for visit in visits], actions


def test_slow_bits_stand_still_within_a_task_and_the_others_do_not(lives: Any) -> None:
    for problem, life in zip(*lives[:2], strict=True):
        x = life.observation.input[:, 0]
        np.testing.assert_array_equal(x[..., :5], np.broadcast_to(problem.slow, x[..., :5].shape))
        free = x[..., 5:]
        assert set(np.unique(free)) == {0, 1}
        assert abs(free.mean() - 0.5) < 5 * 0.5 / np.sqrt(free.size)
    held = [problem.slow for problem in lives[0]]
    assert [np.abs(a - b).sum() for a, b in itertools.pairwise(held)] == [1, 1]


def test_the_target_is_one_function_for_life(lives: Any) -> None:
    """A unit fires where more than ``beta (bits + 1)`` of its inputs, with the constant, agree with its weights."""
    jax.tree.map(np.testing.assert_array_equal, lives[0][0].network, lives[0][2].network)
    network = lives[0][0].network
    wanted = np.concatenate([network.weights, network.bias[:, None]], 1) > 0
    for life in lives[1]:
        x = life.observation.input.reshape(-1, 9)
        agree = (np.concatenate([x, np.ones_like(x[:, :1])], 1)[:, None] == wanted).sum(-1)
        y = network.output_bias + (agree > 6.5) @ network.output
        np.testing.assert_array_equal(life.observation.target.reshape(-1), y)
        assert len(np.unique(y)) > 3


def test_the_reward_is_minus_the_squared_error(lives: Any) -> None:
    life, actions = lives[1][1], lives[2]
    np.testing.assert_allclose(life.reward[1:], -np.square(actions - life.observation.target[:-1])[..., 0], rtol=1e-5)


def test_standard_stream_is_that_of_the_paper() -> None:
    spec = slowly_changing_regression().spec
    assert (spec.observation.input.shape, spec.envs, spec.visits[0].steps, spec.discrete) == ((20,), 1, 10_000, False)


@pytest.mark.parametrize("settings", [{"bits": 10, "slow": 11}, {"slow": 0}])
def test_slow_bits_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"slow: {settings['slow']} is not allowed; must be in \[1, .*flips: one"):
        slowly_changing_regression(**settings)
