"""QRC(lambda) against an independent reference, step by step, and its variants."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stream_reference as reference
from agent_cases import clock_at
from stream_cases import (
    DISCOUNT,
    EXPLORATION,
    KEY,
    LAMBDA,
    LIFE,
    LINEAR,
    MLP,
    PLAIN,
    SPEC,
    STEPS,
    ReferenceBase,
    compared,
    live,
    pairs,
    penalty,
)
from stream_reference import as_float64, backward, each, forward

from plasticity.agents.qrc import qrc
from plasticity.interventions.base import compose
from plasticity.optim.optimizers import sgd

RATE, CORRECTION_RATE = 0.02, 0.01
RULES = {
    "optimizer": functools.partial(sgd, learning_rate=RATE),
    "correction_optimizer": functools.partial(sgd, learning_rate=CORRECTION_RATE),
    "discount": DISCOUNT,
    "trace_decay": LAMBDA,
    "epsilon": EXPLORATION,
}


class Qrc(ReferenceBase):
    """The equations of the paper's three traces; ``beta`` regularises the second network."""

    params: Any

    def __init__(self, params: Any, beta: float, gtd2: bool = False, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.beta, self.gtd2 = beta, gtd2
        self.trace, self.estimates, self.error, self.h = each(np.zeros_like, self.params), 0.0, 0.0, 0.0

    def learn(self, t: int) -> None:
        before, after, reward, discount, valid, ended = self.perceive(t)
        if not valid:
            return
        w, theta, action = self.params["value"], self.params["correction"], np.eye(3)[LIFE.action[t]]
        (q, seen), (outputs, glimpse), (following, later) = (
            forward(w, before),
            forward(theta, before),
            forward(w, after),
        )
        gradients = {"value": backward(w, seen, action), "correction": backward(theta, glimpse, action)}
        self.trace = each(lambda z, g: DISCOUNT * LAMBDA * z + g, self.trace, gradients)
        self.h = h = outputs @ action
        self.estimates = DISCOUNT * LAMBDA * self.estimates + h
        self.error = error = reward + discount * following.max() - q @ action
        best = backward(w, later, np.eye(3)[following.argmax()])
        slope = each(lambda b, g: discount * b - g, best, gradients["value"])
        moved = each(
            lambda z, g, d: error * z - h * g - self.estimates * d, self.trace["value"], gradients["value"], slope
        )
        if self.gtd2:
            moved = each(lambda d: -self.estimates * d, slope)
        second = each(
            lambda z, g, x: error * z - h * g - self.beta * x, self.trace["correction"], gradients["correction"], theta
        )
        moved, second = (each(lambda m, x: m - self.rate * x, *pair) for pair in ((moved, w), (second, theta)))
        self.params = {
            "value": each(lambda x, m: x + RATE * m, w, moved),
            "correction": each(lambda x, m: x + CORRECTION_RATE * m, theta, second),
        }
        greedy = LIFE.action[t] == q.argmax()
        self.seen["greedy" if greedy else "not greedy"] += 1
        if ended or not greedy:
            self.trace, self.estimates = each(np.zeros_like, self.trace), 0.0


CASES = {
    "qrc, mlp": (MLP, 1.0, {}, 0.0),
    "qrc, linear, penalised": (LINEAR, 1.0, PLAIN, 0.3),
    "qc": (MLP, 0.0, PLAIN, 0.0),
    "gq2": (MLP, 1.0, {"correction": "gtd2", **PLAIN}, 0.1),
}


@pytest.mark.parametrize("name", CASES)
def test_it_agrees_with_an_independent_reference(name):
    network, beta, settings, rate = CASES[name]
    agent = qrc(SPEC, penalty(rate), network=network, regularisation=beta, **RULES, **settings)
    start, states, metrics = live(agent)
    gtd2 = settings.get("correction") == "gtd2"
    other = Qrc(start, beta, gtd2, rate=rate, normalise="normalise" not in settings)
    for t in range(STEPS):
        other.learn(t)
        compared(states.learner.params, other.params, t, atol=1e-5)
        state = states.learner.opt_state
        np.testing.assert_allclose(state.estimates[t] * state.inner.going[t], other.estimates, rtol=1e-3, atol=1e-5)
        if LIFE.step_type[t + 1] != reference.FIRST:
            np.testing.assert_allclose(metrics["td_error"][t], abs(other.error), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(metrics["correction"][t], abs(other.h), rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(metrics["step_size"][t], RATE)
    assert min(other.seen.values()) >= 3
    moved = each(lambda a, b: np.abs(a - b).max(), other.params, as_float64(start))
    assert min(part["output"]["kernel"] for part in moved.values()) > 1e-2  # a thousand times the tolerance


def test_with_an_estimate_of_0_the_update_of_q_is_that_of_q_learning():
    """By hand, for linear action values: ``w + alpha delta grad q(s, a)``."""
    agent = qrc(SPEC, compose(), network=LINEAR, **RULES, **PLAIN)
    state = agent.init(KEY, None)
    params = {**state.learner.params, "correction": jax.tree.map(jnp.zeros_like, state.learner.params["correction"])}
    state = state._replace(learner=state.learner._replace(params=params))
    pair = jax.tree.map(lambda x: x[0], pairs())
    after, _ = agent.learn(KEY, state, pair, clock_at(0))
    w, before = as_float64(jax.device_get(params["value"])), LIFE.observation[0].astype(float)
    action = np.eye(3)[LIFE.action[0]]
    following = forward(w, LIFE.observation[1].astype(float))[0].max()
    error = LIFE.reward[1] + DISCOUNT * LIFE.discount[1] * following - forward(w, before)[0] @ action
    np.testing.assert_allclose(
        after.learner.params["value"]["output"]["kernel"],
        w["output"]["kernel"] + RATE * error * np.outer(before, action),
        atol=1e-5,
    )


def test_the_loss_that_monitors_see_and_the_scores():
    """``delta^2 / 2 + (delta - h)^2 / 2``; scores are the action values."""
    agent = qrc(SPEC, compose(), network=MLP, **RULES, **PLAIN)
    state = agent.init(KEY, None)
    probe = agent.probe(state, jax.tree.map(lambda x: x[:, 0], pairs()), clock_at(STEPS))
    params = as_float64(jax.device_get(state.learner.params))
    losses = probe.losses(probe.learner.params)
    assert probe.meaning == "values"
    for t in np.flatnonzero(LIFE.step_type[1:] != reference.FIRST)[:8]:
        before, after = (LIFE.observation[i].astype(float) for i in (t, t + 1))
        q, h = (forward(params[part], before)[0] for part in ("value", "correction"))
        following = forward(params["value"], after)[0].max()
        error = LIFE.reward[t + 1] + DISCOUNT * LIFE.discount[t + 1] * following - q[LIFE.action[t]]
        expected = error**2 / 2 + (error - h[LIFE.action[t]]) ** 2 / 2
        np.testing.assert_allclose(losses[t], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(probe.scores(probe.learner.params, before[None])[0], q, rtol=1e-4, atol=1e-5)


def test_an_unknown_correction_is_refused():
    with pytest.raises(ValueError, match=r'agent\.correction: "tdrc" is not allowed; must be one of tdc, gtd2'):
        qrc(SPEC, compose(), network=LINEAR, **RULES, correction="tdrc")
