"""Streaming agents against an independent reference, and what ends a trace."""

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
    EXPLORATION,
    KEY,
    LAMBDA,
    LIFE,
    LINEAR,
    MLP,
    PLAIN,
    REAL,
    REAL_LIFE,
    SPEC,
    STEPS,
    QLambda,
    ReferenceBase,
    compared,
    count,
    live,
    pairs,
    penalty,
)
from stream_reference import as_float64, backward, each, forward

from plasticity.agents import stream_ac, stream_loss, streaming
from plasticity.agents.base import assemble
from plasticity.agents.stream_ac import log_softplus
from plasticity.agents.stream_sarsa import stream_sarsa as sarsa
from plasticity.agents.streaming import CONTROL_NETWORK
from plasticity.config.settings import Parser
from plasticity.core.types import Learner
from plasticity.interventions import l2, weight_decay
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.build import build
from plasticity.networks.presets import mlp
from plasticity.networks.spec import NetworkSpec
from plasticity.optim import eligibility
from plasticity.optim.optimizers import adam, sgd
from plasticity.optim.schedules import linear
from plasticity.runs import launch

stream_q = functools.partial(streaming.stream_q, epsilon=EXPLORATION)
adaptive_q = functools.partial(streaming.adaptive_q, epsilon=EXPLORATION)
stream_sarsa = functools.partial(sarsa, epsilon=EXPLORATION)
stream_dqn = functools.partial(stream_loss.stream_dqn, epsilon=EXPLORATION)
stream_c51 = functools.partial(stream_loss.stream_c51, epsilon=EXPLORATION)


Q_CASES = {
    "obgd, linear": (
        stream_q, LINEAR, lambda: eligibility.obgd(learning_rate=0.5), lambda: reference.Obgd(0.5, 2.0), {}, 0.0,
    ),
    "obgd, mlp": (
        stream_q, MLP, lambda: eligibility.obgd(learning_rate=0.5), lambda: reference.Obgd(0.5, 2.0), {}, 0.0,
    ),
    "obgd with a penalty": (
        stream_q, MLP, lambda: eligibility.obgd(kappa=1.0), lambda: reference.Obgd(1.0, 1.0), PLAIN, 0.3,
    ),
    "adaptive_obgd, mlp": (
        stream_q, MLP, eligibility.adaptive_obgd, lambda: reference.Obgd(1.0, 2.0, 0.999), {}, 0.0,
    ),
    "adaptive_q, linear": (
        adaptive_q, LINEAR, lambda: eligibility.adaptive_q(learning_rate=0.01),
        lambda: reference.AdaptiveQ(0.01, 0.1, DISCOUNT * LAMBDA), {}, 0.0,
    ),
    "adaptive_q, mlp": (
        adaptive_q, MLP, lambda: eligibility.adaptive_q(learning_rate=0.01),
        lambda: reference.AdaptiveQ(0.01, 0.1, DISCOUNT * LAMBDA), {}, 0.1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", Q_CASES)
def test_q_lambda_agrees_with_an_independent_reference(name):
    make, network, optimizer, rule, settings, rate = Q_CASES[name]
    numbers = {"discount": DISCOUNT, "trace_decay": LAMBDA}
    agent = make(SPEC, penalty(rate), network=network, optimizer=optimizer, **numbers, **settings)
    start, states, metrics = live(agent)
    clip = 1.0 if make is adaptive_q else np.inf
    other = QLambda(start, rule(), clip, rate=rate, normalise=not settings)
    for t in range(STEPS):
        other.learn(t)
        compared(states.learner.params, other.params, t, atol=1e-5)
        if LIFE.step_type[t + 1] != reference.FIRST:
            size = abs(other.error)
            np.testing.assert_allclose(metrics["td_error"][t], size, rtol=1e-3, atol=1e-4)
            expected = size**2 / 2 if size < clip else clip * (size - clip / 2)
            np.testing.assert_allclose(metrics["loss"][t], expected, rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(metrics["step_size"][t], other.rule.alpha, rtol=1e-3)
    assert min(other.seen.values()) >= 3


class ActorCritic(ReferenceBase):
    params: Any

    def __init__(self, params: Any, coefficient: float) -> None:
        super().__init__(params)
        self.coefficient = coefficient
        self.rules = {"policy": reference.Obgd(1.0, 3.0), "value": reference.Obgd(1.0, 2.0)}
        self.trace = each(np.zeros_like, self.params)

    def learn(self, t: int) -> None:
        before, after, reward, discount, valid, ended = self.perceive(t)
        if not valid:
            return
        (outputs, seen), (value, glimpse) = (forward(self.params[k], before) for k in ("policy", "value"))
        error = reward + discount * forward(self.params["value"], after)[0][0] - value[0]
        self.error = error
        gradients = {
            "policy": backward(self.params["policy"], seen, self.slope(outputs, t, self.coefficient * np.sign(error))),
            "value": backward(self.params["value"], glimpse, np.ones(1)),
        }
        self.trace = each(lambda z, g: DISCOUNT * LAMBDA * z + g, self.trace, gradients)
        nothing = each(np.zeros_like, self.trace)
        self.params = {
            k: rule.step(self.params[k], self.trace[k], None, error, nothing[k]) for k, rule in self.rules.items()
        }
        if ended:
            self.trace = nothing

    def slope(self, logits: np.ndarray, t: int, bonus: float) -> np.ndarray:
        """The gradient of ``log pi(a|s) + bonus H`` with respect to the outputs."""
        p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        surprise = -np.log(p)
        return np.eye(3)[LIFE.action[t]] - p + bonus * p * (surprise - (p * surprise).sum())


class RealActorCritic(ActorCritic):
    """Normal actions: means, and standard deviations ``log(1 + e^x)``."""

    def slope(self, outputs: np.ndarray, t: int, bonus: float) -> np.ndarray:
        mean, x = outputs[:2], outputs[2:]
        std, apart = np.log1p(np.exp(x)), REAL_LIFE.action[t] - mean
        return np.concatenate([apart / std**2, (apart**2 / std**3 - 1 / std + bonus / std) / (1 + np.exp(-x))])


@pytest.mark.parametrize(
    ("spec", "life", "other"), [(SPEC, LIFE, ActorCritic), (REAL, REAL_LIFE, RealActorCritic)], ids=["discrete", "real"]
)
def test_actor_and_critic_agree_with_an_independent_reference(spec, life, other):
    agent = stream_ac(
        spec,
        compose(),
        network=MLP,
        policy_optimizer=functools.partial(eligibility.obgd, kappa=3.0),
        value_optimizer=eligibility.obgd,
        discount=DISCOUNT,
        trace_decay=LAMBDA,
        entropy_coefficient=0.3,
    )
    start, states, metrics = live(agent, life=life)
    given, traces = other(start, 0.3), states.learner.opt_state
    for t in range(STEPS):
        given.learn(t)
        compared(states.learner.params, given.params, t, atol=1e-5)
        if LIFE.step_type[t + 1] != reference.FIRST:
            np.testing.assert_allclose(metrics["step_size"][t], given.rules["policy"].alpha, rtol=1e-3)
            np.testing.assert_allclose(metrics["loss"][t], given.error**2 / 2, rtol=1e-4, atol=1e-5)
            compared(each(lambda z: (z.T * traces.going).T, traces.trace), given.trace, t, rtol=1e-3, atol=1e-4)
    moved = each(
        lambda a, b: np.abs(a - b).max(), given.params["policy"]["output"], as_float64(start["policy"]["output"])
    )
    assert min(moved.values()) > 1e-3  # a hundred times the tolerance


def test_an_actor_draws_from_its_policy():
    agent = stream_ac(SPEC, compose(), network=LINEAR, policy_optimizer=sgd, value_optimizer=sgd, **PLAIN)
    state = agent.init(KEY, None)
    p = np.array([0.7, 0.2, 0.1])
    params = jax.tree.map(jnp.zeros_like, state.learner.params)
    params["policy"]["output"]["bias"] = jnp.log(p)
    state = state._replace(learner=state.learner._replace(params=params))
    n = 20_000
    seen = jnp.zeros((n, 4))
    actions = {
        "act": agent.act(KEY, state, seen, clock_at(3)),
        "play": agent.play(KEY, state, seen, jnp.float32(0.0)),
        "half": agent.play(KEY, state, seen, jnp.float32(0.5)),
    }
    for name, found in actions.items():
        expected = (p + 1 / 3) / 2 if name == "half" else p
        np.testing.assert_allclose(np.bincount(found, minlength=3) / n, expected, atol=0.015)


def test_an_actor_draws_real_actions_from_its_policy():
    """Mean 1 and -2, standard deviations softplus(0) = log 2 and softplus(-30) = e^-30, without bounds."""
    agent = stream_ac(REAL, compose(), network=LINEAR, policy_optimizer=sgd, value_optimizer=sgd, **PLAIN)
    state = agent.init(KEY, None)
    params = jax.tree.map(jnp.zeros_like, state.learner.params)
    params["policy"]["output"]["bias"] = jnp.array([1.0, -2.0, 0.0, -30.0])
    state = state._replace(learner=state.learner._replace(params=params))
    seen = jnp.zeros((20_000, 4))
    for actions in (agent.act(KEY, state, seen, clock_at(3)), agent.play(KEY, state, seen, jnp.float32(0.5))):
        assert actions.dtype == jnp.float32
        np.testing.assert_allclose(actions.mean(0), [1.0, -2.0], atol=0.015)
        np.testing.assert_allclose(actions[:, 0].std(), np.log(2.0), rtol=0.02)
        assert actions[:, 0].max() > 3.0
        assert actions[:, 1].std() < 1e-6


@pytest.mark.parametrize("x", [-90.0, -30.0, -20.0, -19.0, 0.0, 3.0, 50.0])
def test_the_logarithm_of_a_standard_deviation_keeps_its_digits(x):
    value, slope = jax.value_and_grad(log_softplus)(jnp.float32(x))
    softplus = np.log1p(np.exp(np.float64(x)))
    np.testing.assert_allclose(value, np.log(softplus), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-np.float64(x))) / softplus, rtol=1e-5)


def test_the_loss_of_a_real_action_that_monitors_see():
    """Row by row ``delta^2 / 2 - delta log pi(a|s) - 0.3 |delta| H``, by statistics of now."""
    agent = stream_ac(
        REAL, compose(), network=MLP, policy_optimizer=sgd, value_optimizer=sgd, entropy_coefficient=0.3, **PLAIN
    )
    state = agent.init(KEY, None)
    probe = agent.probe(state, jax.tree.map(lambda x: x[:, 0], pairs(REAL_LIFE)), clock_at(STEPS))
    params = as_float64(jax.device_get(state.learner.params))
    assert probe.meaning == "prediction"
    for t in np.flatnonzero(LIFE.step_type[1:] != reference.FIRST)[:8]:
        before, after = (LIFE.observation[i].astype(float) for i in (t, t + 1))
        outputs, value = forward(params["policy"], before)[0], forward(params["value"], before)[0][0]
        std = np.log1p(np.exp(outputs[2:]))
        error = LIFE.reward[t + 1] + 0.99 * LIFE.discount[t + 1] * forward(params["value"], after)[0][0] - value
        half = np.log(2 * np.pi) / 2
        log_p = -(((REAL_LIFE.action[t] - outputs[:2]) / std) ** 2 / 2 + np.log(std) + half).sum()
        expected = error**2 / 2 - error * log_p - 0.3 * abs(error) * (np.log(std) + half + 0.5).sum()
        np.testing.assert_allclose(probe.losses(probe.learner.params)[t], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            probe.scores(probe.learner.params, before[None])[0], outputs[:2], rtol=1e-4, atol=1e-5
        )


AGENTS = {
    "stream_q": lambda *methods, **s: stream_q(
        SPEC, compose(*methods), network=MLP, optimizer=eligibility.adaptive_obgd, **s
    ),
    "adaptive_q": lambda *methods, **s: adaptive_q(
        SPEC, compose(*methods), network=MLP, optimizer=eligibility.adaptive_q, **s
    ),
    "stream_q with adam": lambda *methods, **s: stream_q(
        SPEC, compose(*methods), network=MLP, optimizer=functools.partial(adam, learning_rate=0.01), **s
    ),
    "stream_sarsa": lambda *methods, **s: stream_sarsa(
        SPEC, compose(*methods), network=MLP, optimizer=eligibility.obgd, **s
    ),
    "stream_dqn": lambda *methods, **s: stream_dqn(SPEC, compose(*methods), network=MLP, optimizer=adam, **s),
    "stream_c51": lambda *methods, **s: stream_c51(SPEC, compose(*methods), network=MLP, optimizer=adam, **s),
    "stream_ac": lambda *methods, **s: stream_ac(
        SPEC, compose(*methods), network=MLP, policy_optimizer=adam, value_optimizer=adam, **s
    ),
}


METHODS: dict[str, Any] = {
    "none": tuple,
    "after the optimizer": lambda: (count(),),
    "in the optimizer": lambda: (weight_decay(rate=0.1), l2(strength=0.1)),
}
TAUGHT = [
    pytest.param(name, methods, marks=[] if name == "stream_q" else pytest.mark.slow)
    for name in AGENTS
    for methods in METHODS
]


@pytest.mark.parametrize(("name", "methods"), TAUGHT)
def test_pairs_that_join_two_episodes_teach_nothing(name, methods):
    """Parameters, optimizer and plug-in stay unchanged; every other pair is one update."""
    _, states, metrics = live(AGENTS[name](*METHODS[methods]()), 20)
    first = LIFE.step_type[1:21] == reference.FIRST
    assert first.sum() == 4
    np.testing.assert_array_equal(metrics["updates"], ~first)
    if methods == "after the optimizer":
        np.testing.assert_array_equal(states.plugins[0], np.cumsum(~first))
    for t in np.flatnonzero(first):
        for x in jax.tree.leaves((states.learner, states.plugins)):
            np.testing.assert_array_equal(x[t], x[t - 1])
        assert all(metric[t] == 0 for metric in metrics.values())
    for t in np.flatnonzero(~first[1:]) + 1:
        assert any((x[t] != x[t - 1]).any() for x in jax.tree.leaves(states.learner.params))
    assert (states.rest["normaliser"].seen == np.arange(2, 22)).all()  # observations count at every pair


@pytest.mark.parametrize("settings", [{}, PLAIN], ids=["normalised", "raw"])
@pytest.mark.parametrize("name", AGENTS)
def test_the_size_of_observations_is_that_of_what_the_network_sees(name: str, settings: dict[str, Any]) -> None:
    _, states, metrics = live(AGENTS[name](**settings), 20)
    other = ReferenceBase(states.learner.params, normalise=not settings)
    for t in range(20):
        _, after, _, _, valid, _ = other.perceive(t)
        expected = np.sqrt(np.square(after).mean()) if valid else 0.0
        np.testing.assert_allclose(metrics["observation_rms"][t], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("methods", "trace", "masks"),
    [((), True, True), ((l2(), weight_decay()), True, True), ((count(),), True, False), ((), False, False)],
)
def test_an_update_masks_itself_if_it_ends_with_a_trace(methods, trace, masks):
    """Then there is no branch, which a vmap would turn into a select over all arrays."""
    spec = NetworkSpec((3,), 2, widths=(4,))
    body = assemble(spec, adam(), compose(*methods), **({"trace": eligibility.eligible} if trace else {}))
    assert body.masks == masks


def test_without_bounds_any_optimizer_follows_the_trace():
    """Plain descent along ``-delta z + penalty``, the ablation of the bounded step."""

    class Descent:
        alpha = 0.01

        def step(self, params: Any, trace: Any, gradient: Any, error: float, decay: Any) -> Any:
            return each(lambda w, z, p: w - 0.01 * (p - error * z), params, trace, decay)

    optimizer = functools.partial(sgd, learning_rate=0.01)
    numbers = {"discount": DISCOUNT, "trace_decay": LAMBDA}
    start, states, _ = live(stream_q(SPEC, penalty(0.2), network=MLP, optimizer=optimizer, **numbers), 30)
    other = QLambda(start, Descent(), np.inf, rate=0.2)
    for t in range(30):
        other.learn(t)
        compared(states.learner.params, other.params, t, atol=1e-5)


def test_the_gradient_of_one_transition():
    """stream_dqn with plain descent: ``theta + rate clip(delta) grad q``; stream_c51 against its loss by hand."""
    descent = functools.partial(sgd, learning_rate=0.1)
    start, states, metrics = live(stream_dqn(SPEC, compose(), network=MLP, optimizer=descent, discount=DISCOUNT), 8)
    given = ReferenceBase(start)
    for t in range(8):
        before, after, reward, discount, valid, _ = given.perceive(t)
        if not valid:
            continue
        q, seen = forward(given.params, before)
        error = reward + discount * forward(given.params, after)[0].max() - q[LIFE.action[t]]
        gradient = backward(given.params, seen, np.eye(3)[LIFE.action[t]])
        given.params = each(lambda w, g, e=error: w + 0.1 * max(-1, min(e, 1)) * g, given.params, gradient)
        compared(states.learner.params, given.params, t, atol=1e-5)
        size = abs(error)
        expected = size**2 / 2 if size < 1 else size - 0.5
        np.testing.assert_allclose(metrics["loss"][t], expected, rtol=1e-3)


def projected(values: np.ndarray, weights: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Each value's weight, shared between its two neighbours on the support."""
    found = np.zeros(len(support))
    for value, weight in zip(np.clip(values, support[0], support[-1]), weights, strict=True):
        place = (value - support[0]) / (support[1] - support[0])
        low = min(int(np.floor(place)), len(support) - 2)
        found[low] += weight * (low + 1 - place)
        found[low + 1] += weight * (place - low)
    return found


def test_the_categorical_gradient_of_one_transition():
    descent = functools.partial(sgd, learning_rate=0.1)
    settings = {"atoms": 5, "value_max": 2.0, "discount": DISCOUNT}
    start, states, metrics = live(stream_c51(SPEC, compose(), network=MLP, optimizer=descent, **settings), 8)
    given, support = ReferenceBase(start), np.linspace(-2.0, 2.0, 5)

    def distributions(logits: np.ndarray) -> np.ndarray:
        p = np.exp(logits.reshape(3, 5))
        return p / p.sum(1, keepdims=True)

    for t in range(8):
        before, after, reward, discount, valid, _ = given.perceive(t)
        if not valid:
            continue
        outputs, seen = forward(given.params, before)
        now, following = distributions(outputs), distributions(forward(given.params, after)[0])
        best, action = (following @ support).argmax(), LIFE.action[t]
        target = projected(reward + discount * support, following[best], support)
        slope = np.zeros((3, 5))
        slope[action] = now[action] - target
        gradient = backward(given.params, seen, slope.ravel())
        given.params = each(lambda w, g: w - 0.1 * g, given.params, gradient)
        compared(states.learner.params, given.params, t, atol=1e-5)
        np.testing.assert_allclose(metrics["loss"][t], -(target * np.log(now[action])).sum(), rtol=1e-4)


@pytest.mark.slow
def test_the_loss_that_monitors_see():
    """Mean half square of the error over transitions, by statistics of now; the target is held fixed."""
    agent = stream_q(SPEC, compose(), network=MLP, optimizer=eligibility.obgd, discount=DISCOUNT)
    _, states, _ = live(agent)
    state = jax.tree.map(lambda x: x[-1], states)
    batch = jax.tree.map(lambda x: x[:, 0], pairs())
    probe = agent.probe(state, batch, clock_at(STEPS))
    given = ReferenceBase(state.learner.params)
    for t in range(STEPS):
        given.perceive(t)
    valid = LIFE.step_type[1:] != reference.FIRST
    errors, slopes = [], each(np.zeros_like, given.params)
    for t in np.flatnonzero(valid):
        q, seen = forward(given.params, given.preprocessor(LIFE.observation[t]))
        following = forward(given.params, given.preprocessor(LIFE.observation[t + 1]))[0].max()
        reward = LIFE.reward[t + 1] / given.rewards.deviation
        errors.append(reward + DISCOUNT * LIFE.discount[t + 1] * following - q[LIFE.action[t]])
        gradient = backward(given.params, seen, np.eye(3)[LIFE.action[t]] * -errors[-1] / valid.sum())
        slopes = each(np.add, slopes, gradient)
    loss, gradient = jax.value_and_grad(probe.loss)(probe.learner.params)
    np.testing.assert_allclose(loss, np.mean(np.square(errors)) / 2, rtol=1e-4)
    each(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), jax.device_get(gradient), slopes)


def test_epsilon_falls_from_birth_and_play_has_its_own():
    agent = AGENTS["stream_q"](epsilon=functools.partial(linear, start=0.9, end=0.1, duration=100.0), normalise="none")
    state = agent.init(KEY, None)
    n = 20_000
    seen = jnp.broadcast_to(jnp.array([1.0, -1.0, 2.0, 0.5]), (n, 4))
    greedy = int(agent.play(KEY, state, seen[:1], jnp.float32(0.0))[0])

    def exploring(actions: Any) -> float:
        return 1.5 * float(np.mean(np.asarray(actions) != greedy))

    for step, expected in ((0, 0.9), (25, 0.7), (100, 0.1), (5000, 0.1)):
        np.testing.assert_allclose(exploring(agent.act(KEY, state, seen, clock_at(step))), expected, atol=0.02)
    assert exploring(agent.play(KEY, state, seen, jnp.float32(0.0))) == 0
    np.testing.assert_allclose(exploring(agent.play(KEY, state, seen, jnp.float32(0.5))), 0.5, atol=0.02)
    late = state._replace(rest={**state.rest, "schedule": jnp.int32(5000)})
    np.testing.assert_allclose(exploring(agent.act(KEY, late, seen, clock_at(5000))), 0.9, atol=0.02)


def test_a_task_switch_blanks_the_statistics_only_if_asked():
    for normalise, seen in (("running", 6), ("switch", 0)):
        agent = AGENTS["stream_q"](normalise=normalise)
        _, states, _ = live(agent, 5)
        state = jax.tree.map(lambda x: x[-1], states)
        after = agent.switch(KEY, state, clock_at(5))
        assert float(after.rest["normaliser"].seen) == seen
        for a, b in zip(jax.tree.leaves(after.learner), jax.tree.leaves(state.learner), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["stream_q with adam", "stream_ac"])
def test_an_episode_that_a_task_switch_cut_short_leaves_no_trace(name):
    """The first pair of a visit comes after FIRST though no episode ended: what was before does not count."""
    agent = AGENTS[name](**PLAIN)
    given = jax.tree.map(lambda x: x[1], pairs())
    opening = given._replace(previous=given.previous._replace(step_type=jnp.zeros_like(given.previous.step_type)))
    fresh_state = agent.init(KEY, None)

    def trace(state: Any) -> list[Any]:
        opt_state = state.learner.opt_state
        return jax.tree.leaves(opt_state.trace)

    state = fresh_state._replace(
        learner=fresh_state.learner._replace(opt_state=with_trace(fresh_state.learner.opt_state, 7.0))
    )
    for pair, same in ((given, False), (opening, True)):
        after, expected = (agent.learn(KEY, s, pair, clock_at(1))[0] for s in (state, fresh_state))
        for a, b in zip(trace(after), trace(expected), strict=True):
            assert np.allclose(a, b) == same


@pytest.mark.parametrize(
    "name",
    [
        "stream_q with adam",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("stream_dqn", "stream_c51", "stream_ac")),
    ],
)
def test_a_truncation_may_count_as_an_end(name):
    """ "terminal" learns from a truncated episode as "bootstrap" does from one that terminates there."""
    given = jax.tree.map(lambda x: x[int(np.flatnonzero(LIFE.step_type[1:] == reference.LAST)[1])], pairs())
    assert float(given.current.discount[0]) == 1.0
    ended = given._replace(current=given.current._replace(discount=jnp.zeros(1)))
    found = {}
    for truncation in ("bootstrap", "terminal"):
        agent = AGENTS[name](**PLAIN, truncation=truncation)
        learn = jax.jit(agent.learn)
        fresh_state = agent.init(KEY, None)
        for kind, pair in (("cut", given), ("ended", ended)):
            found[truncation, kind] = jax.tree.leaves(learn(KEY, fresh_state, pair, clock_at(1))[0].learner)
        loss = agent.probe(fresh_state, given, clock_at(1)).loss(fresh_state.learner.params)
        found[truncation, "cut"].append(loss)
        found[truncation, "ended"].append(agent.probe(fresh_state, ended, clock_at(1)).loss(fresh_state.learner.params))
    for a, b in zip(found["terminal", "cut"], found["bootstrap", "ended"], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)  # two programs, which XLA may round differently
    for same in (0, -1):
        assert any(
            not np.allclose(a, b, rtol=1e-4)
            for a, b in zip(found["bootstrap", "cut"][same:], found["bootstrap", "ended"][same:], strict=True)
        )


@pytest.mark.parametrize("agent", [stream_q, adaptive_q, stream_sarsa, stream_dqn, stream_c51, stream_ac])
def test_what_a_truncation_cannot_be(agent):
    with pytest.raises(
        ValueError, match=r"agent\.truncation: never is not allowed; must be one of bootstrap, terminal"
    ):
        agent(SPEC, compose(), truncation="never")


def with_trace(opt_state: Any, value: float) -> Any:
    """The state with all its traces in force and filled with a number."""
    full = jax.tree.map(lambda x: jnp.full_like(x, value), opt_state.trace)
    return opt_state._replace(trace=full, going=jnp.ones(()))


MAKERS = {
    "stream_q": stream_q,
    "adaptive_q": adaptive_q,
    "stream_sarsa": stream_sarsa,
    "stream_dqn": stream_dqn,
    "stream_c51": stream_c51,
    "stream_ac": stream_ac,
}


@pytest.mark.parametrize("name", MAKERS)
def test_other_streams_are_refused(name):
    make = MAKERS[name]
    refused = [SPEC._replace(envs=2), SPEC._replace(discrete=False), source("classifier").spec]
    for spec in refused[::2] if name == "stream_ac" else refused:
        with pytest.raises(ValueError, match=rf"agent\.kind: {name} is not allowed; it needs a stream with one env"):
            make(spec, compose())


def test_a_distribution_needs_two_atoms():
    with pytest.raises(ValueError, match=r"agent\.atoms: 1 is not allowed"):
        stream_c51(SPEC, compose(), network=MLP, optimizer=adam, atoms=1)


def test_the_default_network_is_the_published_one():
    """Two hidden layers of 32, normalised over all units of a sample, without learnable parameters."""
    settings = {key: value for key, value in streaming.stream_q.__kwdefaults__["network"].items() if key != "kind"}
    network = build(mlp(jax.ShapeDtypeStruct((20,), jnp.float32), 3, **settings))
    params = network.init(KEY)
    assert set(params) == {"hidden_0", "hidden_1", "output"}
    assert all(set(part) == {"kernel", "bias"} for part in params.values())
    assert params["hidden_1"]["kernel"].shape == (32, 32)
    np.testing.assert_array_equal((params["hidden_1"]["kernel"] == 0).sum(0), 29)  # of 32
    pre = network.forward(params, jnp.arange(40.0).reshape(2, 20))[1]["hidden_1"].pre
    np.testing.assert_allclose(pre.mean(1), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.square(pre).mean(1), 1.0, rtol=1e-3)


def test_a_learner_is_all_that_methods_rewrite():
    """A method's own ``step`` sees the learner after the update, and what it writes stays."""

    def halve(key: Any, state: Any, learner: Learner, seen: Any) -> Any:
        del key
        return state, learner._replace(params=jax.tree.map(lambda x: 0.5 * x, learner.params))

    plain, halved = (live(AGENTS["stream_q"](*methods), 1)[1] for methods in ((), (Intervention(step=halve),)))
    each(lambda a, b: np.testing.assert_allclose(a, 0.5 * b, rtol=1e-6), halved.learner.params, plain.learner.params)


def test_settings_are_laid_over_a_default_that_is_a_mapping():
    parser = Parser(launch.registry())
    choice = parser.member("agents", {"kind": "stream_ac", "network": {"widths": [8]}, "policy_optimizer": "sgd"}, ())
    assert not parser.problems
    assert choice.values["network"].values["widths"] == (8,)
    assert choice.values["network"].values["initialiser"] == "sparse"
    assert choice.values["policy_optimizer"].kind == "sgd"
    assert choice.traced()["value_optimizer.kappa"] == 2.0
    assert CONTROL_NETWORK["widths"] == [32, 32]
