"""Action Value Gradient against an independent reference, and the noise of its actions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stream_reference
from agent_cases import clock_at, source
from avg_reference import Avg, cut
from stream_reference import each

from plasticity.agents import avg
from plasticity.agents.base import SAMPLE
from plasticity.agents.return_scale import blank_scale, deviation, with_reward
from plasticity.core.types import FIRST, Agent, StreamSpec, TimeStep, Transition, VisitPlan
from plasticity.interventions.base import compose
from plasticity.networks.presets import mlp
from plasticity.optim.optimizers import adam

KEY = jax.random.key(5)
LOW, HIGH = np.array([-1.0, 0.0]), np.array([1.0, 4.0])
SPEC = StreamSpec(
    jax.ShapeDtypeStruct((4,), jnp.float32),
    2,
    ("a",),
    (VisitPlan(0, 60),),
    1,
    True,
    discrete=False,
    action_bounds=(tuple(LOW), tuple(HIGH)),
)
LIFE = stream_reference.life()
ACTIONS = np.random.default_rng(1).uniform(LOW, HIGH, (len(LIFE.action), 2)).astype(np.float32)
LIFE = LIFE._replace(action=ACTIONS)
STEPS = len(ACTIONS)
MLP = functools.partial(mlp, widths=(5,), activation="leaky_relu", initialiser="lecun", penultimate="unit")
RATES = {
    "policy_optimizer": functools.partial(adam, learning_rate=0.01, b1=0.0),
    "value_optimizer": functools.partial(adam, learning_rate=0.02, b1=0.0),
}


def small(spec: StreamSpec = SPEC, **changes: Any) -> Agent:
    return avg(spec, compose(), **({"network": MLP, "critic_network": MLP, **RATES, "discount": 0.9} | changes))


def pairs() -> Transition:
    steps = TimeStep(*(jnp.asarray(x)[:, None] for x in LIFE[:4]))
    first, second = (jax.tree.map(lambda x, s=s: x[s], steps) for s in (slice(None, -1), slice(1, None)))
    return Transition(first, jnp.asarray(LIFE.action)[:, None], second)


def live(agent: Agent) -> Any:
    """The first state, the states after each pair of the life, and the metrics."""

    @jax.jit
    def whole() -> Any:
        def step(state: Any, inputs: Any) -> Any:
            i, pair = inputs
            state, metrics = agent.learn(jax.random.fold_in(KEY, i), state, pair, clock_at(i))
            return state, (state, metrics)

        start = agent.init(KEY, None)
        return start, jax.lax.scan(step, start, (jnp.arange(STEPS), pairs()))[1]

    start, (states, metrics) = jax.device_get(whole())
    return start, states, metrics


def test_it_agrees_with_an_independent_reference():
    """51 pairs with terminations, truncations and lost lives: parameters, losses, errors and their scale."""
    start, states, metrics = live(small(temperature=0.2))
    other = Avg(start.learner.params, LIFE, 0.9, 0.2, (LOW, HIGH))
    made = 0
    for t in range(STEPS):
        now = (states.rest["noise"][t - 1] if t else start.rest["noise"])[0]
        then = jax.random.normal(jax.random.fold_in(jax.random.fold_in(KEY, t), SAMPLE), (2,))
        learned = other.learn(t, np.float64(now), np.asarray(then, np.float64))
        assert metrics["updates"][t] == learned
        made += learned
        each(lambda a, b, t=t: np.testing.assert_allclose(a[t], b, atol=1e-5), states.learner.params, other.params)
        if learned:
            for name, value in other.metrics.items():
                np.testing.assert_allclose(metrics[name][t], value, rtol=1e-3, atol=1e-4, err_msg=f"{name} {t}")
            total = other.metrics["critic_loss"] + other.metrics["actor_loss"]
            np.testing.assert_allclose(metrics["loss"][t], total, rtol=1e-3, atol=1e-4)
    assert made >= 40
    assert len(other.returns) >= 5
    assert cut(LIFE) >= 2


def test_pairs_that_join_two_episodes_teach_nothing():
    _, states, _ = live(small())
    for t in np.flatnonzero(LIFE.step_type[1:] == FIRST):
        for x in jax.tree.leaves((states.learner, states.rest["error_scale"])):
            np.testing.assert_array_equal(x[t], x[t - 1])
        assert (states.rest["noise"][t] != states.rest["noise"][t - 1]).all()


def test_the_action_is_that_of_the_noise_in_memory():
    """``middle + half tanh(mean + std noise)``, whatever the key; the first noise depends on the agent's key."""
    agent = small(normalise="none")
    state = agent.init(KEY, None)
    params = jax.tree.map(jnp.zeros_like, state.learner.params)
    params["actor"]["output"]["bias"] = jnp.array([0.5, -1.0, 0.0, -2.0])
    state = state._replace(learner=state.learner._replace(params=params))
    noise = np.asarray(state.rest["noise"][0])
    expected = np.array([0.0, 2.0]) + [1.0, 2.0] * np.tanh([0.5, -1.0] + np.exp([0.0, -2.0]) * noise)
    for key in (KEY, jax.random.key(1)):
        np.testing.assert_allclose(agent.act(key, state, jnp.ones((1, 4)), clock_at(3))[0], expected, rtol=1e-5)
    assert (agent.init(jax.random.key(6), None).rest["noise"] != noise).all()
    noises = live(agent)[1].rest["noise"][:, 0]
    assert len(np.unique(noises)) == noises.size
    assert abs(noises.mean()) < 0.4
    assert 0.7 < noises.std() < 1.3


@pytest.mark.parametrize(("evaluate", "spread"), [("sample", True), ("mode", False)])
def test_evaluation_draws_its_own_noise(evaluate, spread):
    agent = small(normalise="none", evaluate=evaluate)
    state = agent.init(KEY, None)
    played = agent.play(KEY, state, jnp.ones((100, 4)), jnp.float32(0.0))
    assert played.shape == (100, 2)
    assert ((played >= LOW) & (played <= HIGH)).all()
    assert (np.asarray(played).std(0) > 1e-3).all() == spread


def test_without_scaled_errors():
    """Errors are divided by 1, and the memory has no scale."""
    start, _, metrics = live(small(scale_errors=False))
    assert set(start.rest) == {"normaliser", "noise"}
    learned = metrics["updates"] == 1
    np.testing.assert_array_equal(metrics["error_scale"][learned], 1.0)
    np.testing.assert_allclose(metrics["critic_loss"], metrics["td_error"] ** 2, rtol=1e-5)


@pytest.mark.parametrize(("truncation", "extra"), [("bootstrap", 0), ("terminal", cut(LIFE))])
def test_what_counts_as_a_return(truncation, extra):
    _, states, _ = live(small(truncation=truncation))
    ended = int((LIFE.discount == 0).sum())
    assert int(states.rest["error_scale"].squares.seen[-1]) == ended + extra


def test_a_task_switch_resets_the_scale_with_the_statistics():
    for normalise, kept in (("running", True), ("switch", False)):
        agent = small(normalise=normalise)
        state = jax.tree.map(lambda x: x[-1], live(agent)[1])
        after = agent.switch(KEY, state, clock_at(5))
        assert (float(after.rest["error_scale"].rewards.seen) > 0) == kept
        assert (float(after.rest["normaliser"].seen) > 0) == kept
        np.testing.assert_array_equal(after.rest["noise"], state.rest["noise"])


def test_the_scale_of_errors_by_hand():
    """Rewards 1, 3, 2 and a termination: ``V[r] = 2/3``, ``V[gamma] = 0.18``, ``E[G^2] = 36``."""
    scale, yes, no = blank_scale(), jnp.bool_(True), jnp.bool_(False)
    assert float(deviation(scale)) == 1.0
    scale = with_reward(scale, jnp.float32(1.0), 0.9, no, yes)
    assert float(deviation(scale)) == 1.0  # no return yet, no variance
    scale = with_reward(scale, jnp.float32(3.0), 0.9, no, yes)
    np.testing.assert_allclose(deviation(scale), 1.0)  # the standard deviation of 1 and 3
    scale = with_reward(scale, jnp.float32(9.0), 0.9, yes, no)
    scale = with_reward(scale, jnp.float32(2.0), 0.9, yes, yes)
    np.testing.assert_allclose(deviation(scale), np.sqrt(2 / 3 + 0.18 * 36), rtol=1e-6)
    assert float(scale.total) == 0.0


def test_the_scale_has_a_floor_once_a_return_is_known():
    scale = blank_scale()
    for _ in range(3):
        scale = with_reward(scale, jnp.zeros(()), 0.9, jnp.bool_(True), jnp.bool_(True))
    np.testing.assert_allclose(deviation(scale), 0.01, rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SPEC._replace(envs=2), r"agent\.kind: avg is not allowed; it needs a stream with one env"),
        (SPEC._replace(discrete=True), r"bounded real-valued actions; these are discrete"),
        (SPEC._replace(action_bounds=None), r"bounded real-valued actions; these are not bounded"),
        (source("classifier").spec, r"this one is supervised"),
    ],
)
def test_other_streams_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        small(spec)


def test_the_default_networks_are_the_published_ones():
    """Two hidden layers of 256 with features of norm 1, orthonormal output weights, and no momentum."""
    defaults = avg.__kwdefaults__
    given = {key: value for key, value in defaults["network"].items() if key != "kind"}
    make = functools.partial(mlp, **given)
    agent = avg(SPEC, compose(), network=make, critic_network=make, **RATES)
    params = agent.init(KEY, None).learner.params
    assert params["actor"]["hidden_1"]["kernel"].shape == (256, 256)
    assert params["critic_1"]["hidden_0"]["kernel"].shape == (6, 256)
    kernel = np.asarray(params["actor"]["output"]["kernel"])
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(params["critic_1"]["output"]["kernel"]), 1.0, rtol=1e-5)
    assert {defaults[f"{part}_optimizer"]["b1"] for part in ("policy", "value")} == {0.0}
