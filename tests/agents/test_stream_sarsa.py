"""Stream SARSA(lambda) against an independent reference, and the action that it draws one step ahead."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import stream_reference as reference
from agent_cases import agent as built
from agent_cases import clock_at, lived, source
from stream_cases import (
    DISCOUNT,
    EXPLORATION,
    KEY,
    LAMBDA,
    LIFE,
    MLP,
    PLAIN,
    SPEC,
    STEPS,
    QLambda,
    compared,
    live,
    penalty,
)
from stream_reference import forward

from plasticity.agents.stream_sarsa import stream_sarsa
from plasticity.interventions import hare_tortoise
from plasticity.interventions.base import compose
from plasticity.optim import eligibility
from plasticity.optim.schedules import constant

NUMBERS = {"discount": DISCOUNT, "trace_decay": LAMBDA, "network": MLP}
GREEDY = functools.partial(constant, value=0.0)


class Sarsa(QLambda):
    """It is told the actions that were drawn ahead, ``drawn[t]`` in the observation at t + 1."""

    def __init__(self, params: Any, drawn: np.ndarray, **settings: Any) -> None:
        super().__init__(params, reference.Obgd(0.5, 2.0), np.inf, **settings)
        self.drawn = drawn
        self.seen |= {"greedy next": 0, "other next": 0}

    def following(self, q: np.ndarray, t: int) -> float:
        self.seen["greedy next" if self.drawn[t] == q.argmax() else "other next"] += 1
        return float(q[self.drawn[t]])

    def cuts(self, greedy: bool) -> bool:
        return False


def test_it_agrees_with_an_independent_reference():
    optimizer = functools.partial(eligibility.obgd, learning_rate=0.5)
    agent = stream_sarsa(SPEC, penalty(0.1), optimizer=optimizer, epsilon=EXPLORATION, **NUMBERS)
    start, states, metrics = live(agent)
    other = Sarsa(start, states.rest["action"][:, 0], rate=0.1)
    for t in range(STEPS):
        other.learn(t)
        compared(states.learner.params, other.params, t, atol=1e-5)
        if LIFE.step_type[t + 1] != reference.FIRST:
            np.testing.assert_allclose(metrics["td_error"][t], abs(other.error), rtol=1e-3, atol=1e-4)
    assert min(other.seen.values()) >= 3


def test_the_next_action_is_greedy_before_the_update_in_every_observation():
    """The first one of an episode included; epsilon is 0."""
    agent = stream_sarsa(SPEC, compose(), optimizer=eligibility.obgd, epsilon=GREEDY, **NUMBERS, **PLAIN)
    start, states, _ = live(agent)
    for t in range(STEPS):
        before = start if t == 0 else jax.tree.map(lambda x, t=t: x[t - 1], states.learner.params)
        q = forward(reference.as_float64(before), LIFE.observation[t + 1].astype(float))[0]
        assert states.rest["action"][t, 0] == q.argmax()
    assert len(np.unique(states.rest["action"])) > 1


def test_a_visit_begins_with_a_new_action_and_goes_on_with_the_one_drawn():
    agent = stream_sarsa(SPEC, compose(), optimizer=eligibility.obgd, epsilon=GREEDY, **NUMBERS, **PLAIN)
    state = agent.init(KEY, None)
    seen = jnp.ones((1, 4))
    best = int(forward(reference.as_float64(jax.device_get(state.learner.params)), np.ones(4))[0].argmax())
    other = (best + 1) % 3
    state = state._replace(rest={**state.rest, "action": jnp.array([other])})
    now = clock_at(7)
    assert int(agent.act(KEY, state, seen, now)[0]) == other
    assert int(agent.act(KEY, state, seen, now._replace(step_in_visit=jnp.int32(0)))[0]) == best


def test_the_actions_of_a_life_are_those_drawn_ahead():
    """After any number of steps, the action in memory is the one taken next."""
    make = built("stream_sarsa", source("stream_sarsa").spec, epsilon=functools.partial(constant, value=0.5))
    _, pairs = lived("stream_sarsa", make, 12)
    drawn = [int(lived("stream_sarsa", make, t)[0].rest["action"][0]) for t in (1, 5, 11)]
    assert drawn == [int(pairs.action[t, 0]) for t in (1, 5, 11)]


def test_actions_drawn_ahead_are_those_of_the_acting_parameters():
    """With averaged parameters for acting, an agent that draws ahead follows them too."""
    method = hare_tortoise(decay=0.999, period=1000)
    agent = stream_sarsa(SPEC, compose(method), optimizer=eligibility.obgd, epsilon=GREEDY, **NUMBERS, **PLAIN)
    start, states, _ = live(agent)
    slow = [
        forward(reference.as_float64(start), LIFE.observation[t + 1].astype(float))[0].argmax() for t in range(STEPS)
    ]
    assert (states.rest["action"][:, 0] == slow).mean() > 0.9
