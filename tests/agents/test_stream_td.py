"""Stream TD(lambda) against an independent reference, its predictions, and that it learns known values."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stream_reference as reference
from agent_cases import clock_at, source
from stream_cases import (
    DISCOUNT,
    KEY,
    LAMBDA,
    LIFE,
    LINEAR,
    MLP,
    PLAIN,
    REAL,
    SPEC,
    STEPS,
    QLambda,
    compared,
    live,
    pairs,
    penalty,
)
from stream_reference import as_float64, backward, each, forward

from plasticity.agents import AGENTS
from plasticity.agents.stream_td import stream_td
from plasticity.engine.lanes import Placement
from plasticity.engine.program import Program
from plasticity.engine.runner import Run
from plasticity.envs.prediction import value_prediction
from plasticity.interventions.base import compose
from plasticity.networks.presets import mlp
from plasticity.optim import eligibility
from plasticity.runs import launch

ASKS = REAL._replace(actions=1, prediction=DISCOUNT)
PREDICTIONS = LIFE._replace(action=np.random.default_rng(2).normal(size=(STEPS, 1)).astype(np.float32))


class Td(QLambda):
    """Values of states; what was predicted does not matter."""

    params: Any
    trace: Any

    def learn(self, t: int) -> None:
        before, after, reward, discount, valid, ended = self.perceive(t)
        if not valid:
            return
        value, seen = forward(self.params, before)
        gradient = backward(self.params, seen, np.ones(1))
        self.trace = each(lambda z, g: DISCOUNT * LAMBDA * z + g, self.trace, gradient)
        self.error = reward + discount * forward(self.params, after)[0][0] - value[0]
        decay = each(lambda w: self.rate * w, self.params)
        error = np.clip(self.error, -self.clip, self.clip)
        self.params = self.rule.step(self.params, self.trace, gradient, error, decay)
        if ended:
            self.trace = each(np.zeros_like, self.trace)


@pytest.mark.parametrize("clip", [0.0, 0.7])
def test_it_agrees_with_an_independent_reference(clip):
    optimizer = functools.partial(eligibility.obgd, learning_rate=0.5)
    agent = stream_td(ASKS, penalty(0.1), network=MLP, optimizer=optimizer, trace_decay=LAMBDA, error_clip=clip)
    start, states, metrics = live(agent, life=PREDICTIONS)
    other = Td(start, reference.Obgd(0.5, 2.0), clip or np.inf, rate=0.1)
    for t in range(STEPS):
        other.learn(t)
        compared(states.learner.params, other.params, t, atol=1e-5)
        if LIFE.step_type[t + 1] != reference.FIRST:
            np.testing.assert_allclose(metrics["td_error"][t], abs(other.error), rtol=1e-3, atol=1e-4)
    assert min(other.seen[case] for case in ("lost", "cut", "terminal")) >= 3


@pytest.mark.parametrize("scaled", [True, False])
def test_predictions_are_in_units_of_the_streams_rewards(scaled):
    agent = stream_td(
        ASKS, compose(), network=LINEAR, optimizer=eligibility.obgd, normalise="none", scale_rewards=scaled
    )
    _, states, _ = live(agent, life=PREDICTIONS)
    state = jax.tree.map(lambda x: x[-1], states)
    given = Td(state.learner.params, None, np.inf)
    for t in range(STEPS):
        given.perceive(t)
    seen = np.arange(4.0)[None]
    value = forward(as_float64(state.learner.params), seen[0])[0]
    expected = value * (given.rewards.deviation if scaled else 1.0)
    found = agent.act(KEY, state, jnp.asarray(seen, jnp.float32), clock_at(9))
    assert found.shape == (1, 1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3)
    np.testing.assert_array_equal(found, agent.play(KEY, state, jnp.asarray(seen, jnp.float32), jnp.float32(0.0)))


def test_the_loss_that_monitors_see():
    agent = stream_td(ASKS, compose(), network=MLP, optimizer=eligibility.obgd, **PLAIN)
    state = agent.init(KEY, None)
    probe = agent.probe(state, jax.tree.map(lambda x: x[:, 0], pairs(PREDICTIONS)), clock_at(STEPS))
    params = as_float64(jax.device_get(state.learner.params))
    losses = probe.losses(probe.learner.params)
    for t in np.flatnonzero(LIFE.step_type[1:] != reference.FIRST)[:8]:
        before, after = (forward(params, LIFE.observation[i].astype(float))[0][0] for i in (t, t + 1))
        error = LIFE.reward[t + 1] + DISCOUNT * LIFE.discount[t + 1] * after - before
        np.testing.assert_allclose(losses[t], error**2 / 2, rtol=1e-4, atol=1e-5)


def value_errors(steps: int, optimizer: Any) -> np.ndarray:
    """Mean squared value errors of the tenths of a visit, [10, 2 lanes]; -1 times the recorded performance."""
    stream = value_prediction(
        process="walk", states=7, features="one_hot", change="none", tasks=1, steps_per_task=steps
    )
    network = functools.partial(mlp, widths=())
    settings = {"network": network, "optimizer": optimizer, "trace_decay": 0.5, **PLAIN}

    def build(numbers: Any) -> Any:
        del numbers
        return stream_td(stream.spec, compose(), **settings)

    program = Program(stream.spec, build, stream.make, (), {}, np.arange(2, dtype=np.int32), steps // 10, probe_size=8)
    chunks = Run(program, Placement(1, 1, 2), launch.devices()).chunks()
    return -np.stack([chunk.metrics["reward"] for chunk in chunks])


def test_it_learns_the_true_values_of_a_walk():
    """Linear in one-hot features, so that the fixed point is exact; what is left is the noise of a constant step."""
    errors = value_errors(20_000, functools.partial(eligibility.obgd, learning_rate=0.01))
    assert (errors[0] > 0.2).all()
    assert (errors[-1] < 0.1).all()
    still = value_errors(5_000, functools.partial(eligibility.obgd, learning_rate=1e-9))
    assert (still > 0.3).all()


def test_other_streams_are_refused_and_agents_that_act_are_refused_there():
    for spec, found in ((SPEC, "does not"), (ASKS._replace(envs=3), "has 3 envs")):
        with pytest.raises(ValueError, match=rf"agent\.kind: stream_td is not allowed; it needs .*this one {found}"):
            stream_td(spec, compose())
    for name in ("stream_ac", "sac", "ppo", "avg"):
        with pytest.raises(ValueError, match=rf"agent\.kind: {name} is not allowed; .* asks for predictions of values"):
            AGENTS[name](ASKS._replace(action_bounds=((-1.0,), (1.0,))), compose())
    with pytest.raises(ValueError, match=r"agent\.kind: stream_td is not allowed"):
        stream_td(source("classifier").spec, compose())
