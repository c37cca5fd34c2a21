"""Generalised advantage estimation against RLax and against its definition as a sum; rollouts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from ppo_reference import FIRST, LAST, MID, advantages

from plasticity.agents.advantages import generalised_advantages, normalised
from plasticity.agents.rollout import Rollout, empty, judged, to_samples, write
from plasticity.core.types import StreamSpec, TimeStep, Transition, VisitPlan

GAMMA, TRACE = 0.9, 0.7
# What the step leads to. m: inside; t: terminal; u: cut off; f: opens an episode; l: inside, a life is lost
EPISODES = ("mmmtfmlmmufmum", "ufmmmmtfufmmlm", "tfmmmmmmmmmmmm")


def episodes() -> tuple[np.ndarray, ...]:
    """Rewards, discounts, step types ``[14, 3]``, and the values before and after each step."""
    letters, rng = np.array([list(episode) for episode in EPISODES]).T, np.random.default_rng(0)
    kind = np.select([letters == "f", np.isin(letters, ["t", "u"])], [FIRST, LAST], MID).astype(np.int8)
    discount = np.where(np.isin(letters, ["t", "l"]), 0.0, 1.0)
    reward, value, final = (rng.normal(size=(n, 3)) for n in (*kind.shape[:1], *kind.shape[:1], 1))
    return reward, discount, kind, value, np.concatenate([value[1:], final])


def estimate(reward: Any, discount: Any, kind: Any, value: Any, following: Any) -> np.ndarray:
    joined = jnp.asarray((kind != FIRST) & (kind != LAST))
    floats = (jnp.asarray(x, jnp.float32) for x in (reward, GAMMA * discount, value, following))
    r, d, v, f = floats
    return np.asarray(generalised_advantages(r, d, joined, v, f, TRACE))


def test_sums_end_at_every_kind_of_episode_end():
    given = episodes()
    expected = advantages(*given, GAMMA, TRACE)
    valid = given[2] != FIRST
    np.testing.assert_allclose(estimate(*given)[valid], expected[valid], atol=1e-5)


def test_a_trace_in_an_unbroken_episode_is_that_of_rlax():
    reward, _, kind, value, following = episodes()
    kind, discount = np.full_like(kind, MID), np.random.default_rng(1).uniform(size=reward.shape)
    values = jnp.concatenate([jnp.asarray(value), jnp.asarray(following[-1:])])
    theirs = jax.vmap(rlax.truncated_generalized_advantage_estimation, (1, 1, None, 1), 1)(
        jnp.asarray(reward), GAMMA * jnp.asarray(discount), TRACE, values
    )
    np.testing.assert_allclose(estimate(reward, discount, kind, value, following), theirs, atol=1e-5)


def test_an_episode_that_is_cut_off_is_a_trace_of_zero_there():
    """RLax takes a trace parameter for each step: at a LAST it is 0, and the discount 1."""
    reward, discount, kind, value, following = episodes()
    traces = TRACE * (kind != LAST)
    values = jnp.concatenate([jnp.asarray(value), jnp.asarray(following[-1:])])
    theirs = jax.vmap(rlax.truncated_generalized_advantage_estimation, 1, 1)(
        jnp.asarray(reward), GAMMA * jnp.asarray(discount), jnp.asarray(traces), values
    )
    valid = kind != FIRST
    np.testing.assert_allclose(estimate(*episodes())[valid], np.asarray(theirs)[valid], atol=1e-5)


def test_by_hand():
    """Errors ``1 + 0.5 * 4 - 2 = 1`` and ``3 + 0.5 * 6 - 4 = 2``, then the end: ``1 + 0.5 * 0.25 * 2`` and 2."""
    columns = (jnp.asarray(x)[:, None] for x in ([1.0, 3.0, 9.0], [0.5] * 3, [True, False, False], [2.0, 4.0, 0.0]))
    reward, discount, joined, value = columns
    found = generalised_advantages(reward, discount, joined, value, jnp.asarray([[4.0], [6.0], [0.0]]), 0.25)
    np.testing.assert_allclose(found[:, 0], [1.25, 2.0, 9.0])


def test_normalisation_leaves_out_what_is_not_valid():
    advantage = jnp.asarray([1.0, 5.0, 3.0, 1e6])
    found = normalised(advantage, jnp.asarray([True, True, True, False]))
    np.testing.assert_allclose(found[:3], np.array([-2.0, 2.0, 0.0]) / np.sqrt(8 / 3), rtol=1e-6)
    np.testing.assert_array_equal(normalised(advantage, advantage == 5.0)[1], 0.0)  # one alone has no spread
    assert np.isfinite(normalised(advantage, advantage > 1e9)).all()


SPEC = StreamSpec(jax.ShapeDtypeStruct((2,), jnp.uint8), 4, ("a",), (VisitPlan(0, 14),), 3, True)


def policy_and_value(observation: Any, action: Any) -> tuple[Any, Any]:
    """The 'log-probability' is the action, the value the observation's first number."""
    return action.astype(jnp.float32), observation[:, 0].astype(jnp.float32)


@pytest.mark.parametrize("bootstrap", [True, False])
@pytest.mark.parametrize("parts", [1, 7])
def test_a_rollout_becomes_rows(bootstrap, parts):
    reward, discount, kind, _, _ = episodes()
    rng = np.random.default_rng(2)
    observation = rng.integers(0, 9, (15, 3, 2)).astype(np.uint8)
    action = rng.integers(0, 4, (14, 3)).astype(np.int32)
    rollout = empty(SPEC, SPEC.observation, 14)
    for t in range(14):
        before = TimeStep(jnp.asarray(kind[0]), jnp.zeros(3), jnp.ones(3), jnp.asarray(observation[t]))
        numbers = (jnp.asarray(kind[t]), jnp.zeros(3), jnp.asarray(discount[t], jnp.float32))
        pair = Transition(before, jnp.asarray(action[t]), TimeStep(*numbers, jnp.asarray(observation[t + 1])))
        rollout = write(rollout, jnp.int32(t), before.observation, jnp.asarray(reward[t], jnp.float32), pair)
    assert rollout.observation.dtype == jnp.uint8
    for written, given in zip(rollout, Rollout(observation[:14], action, reward, discount, kind), strict=True):
        np.testing.assert_allclose(written, given, rtol=1e-6)
    settings = {"gamma": GAMMA, "trace": TRACE, "truncation": "bootstrap" if bootstrap else "terminal"}
    seen = judged(policy_and_value, rollout, jnp.asarray(observation[14]), parts)
    samples = to_samples(rollout, seen, **settings)
    value = observation[:14, :, 0].astype(float)
    kept = discount if bootstrap else np.where(kind == LAST, 0.0, discount)
    expected = advantages(reward, kept, kind, value, observation[1:, :, 0], GAMMA, TRACE)
    valid = (kind != FIRST).ravel()
    np.testing.assert_array_equal(samples.valid, valid)
    np.testing.assert_allclose(samples.advantage, expected.ravel(), atol=1e-5)
    np.testing.assert_allclose(samples.target, np.where(valid, (expected + value).ravel(), 0.0), atol=1e-5)
    np.testing.assert_array_equal(samples.log_probability, action.ravel())
    np.testing.assert_array_equal(samples.observation, observation[:14].reshape(-1, 2))
