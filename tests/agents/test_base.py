"""The order of an update, and what an intervention sees in it, at initialisation and at a switch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import STREAMING, agent, lived, source
from method_cases import OFFLINE, SUPERVISED

from plasticity.agents import AGENTS
from plasticity.agents.base import AgentCore, assemble
from plasticity.core import trees
from plasticity.core.types import Activation, Clock, Context, Learner, Optimizer
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.eligibility import Corrected, Eligibility

KEY = jax.random.key(1)
RATE, STRENGTH, NUMBER = 0.1, 0.3, 6
CLOCK = Clock(*(jnp.int32(x) for x in (20, NUMBER, 3, 4)))
SPEC = NetworkSpec((2,), 2, widths=(3,))
INPUTS = jnp.asarray([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.2]])


def remembering(optimizer: Optimizer) -> Optimizer:
    """``theta <- theta - 0.1 g``; its state is the newest gradient."""
    del optimizer

    def update(gradients: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        del state, params, extra
        return jax.tree.map(lambda g: -RATE * g, gradients), gradients

    return Optimizer(lambda params: jax.tree.map(jnp.zeros_like, params), update, lambda state: jnp.asarray(RATE))


def first_hidden(seen: Context) -> Activation:
    return next(iter(seen.activations.values()))


def penalty(state: Any, params: Any, seen: Context) -> Any:
    """``STRENGTH |theta|^2 / 2 + (update + 1) sum(post) + mean(observation) sum(output bias)``."""
    del state
    squares = 0.5 * STRENGTH * sum(jnp.sum(x**2) for x in jax.tree.leaves(params))
    features = (seen.clock.update + 1) * jnp.sum(first_hidden(seen).post)
    bias = trees.get(params, seen.network.outputs[0])["bias"]
    return squares + features + jnp.mean(jax.tree.leaves(seen.observation)[0]) * jnp.sum(bias)


def recording(key: Any, state: Any, learner: Learner, seen: Context) -> Any:
    """An intervention that stores its inputs in its state and adds 1 to every parameter."""
    blank = seen._replace(network=(), optimizer=(), fresh=(), loss=seen.loss(learner.params), reference=(), outputs=())
    found = {"learner": learner, "seen": blank, "draw": key}
    return found, learner._replace(params=jax.tree.map(lambda x: x + 1.0, learner.params))


RECORDER = Intervention(optimizer=remembering, penalty=penalty, step=recording, switch=recording)


def body_of(intervention: Intervention = RECORDER, **rest: Any) -> AgentCore:
    return assemble(SPEC, remembering(None), intervention, **rest)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def one_update() -> Any:
    """One update with a task loss whose gradient is 2 everywhere: the learner before and after, what was shown."""

    @jax.jit
    def made() -> Any:
        body = body_of(target=lambda params: jax.tree.map(jnp.zeros_like, params))
        learner = body.init(KEY).learner

        def loss(params: Any) -> Any:
            return 2.0 * sum(jnp.sum(x) for x in jax.tree.leaves(params)), body.network.forward(params, INPUTS)[1]

        after, shown, metrics = body.update(KEY, learner, (), loss, INPUTS, CLOCK)
        return learner, after, {k: v for k, v in shown.items() if k != "draw"}, metrics

    return jax.device_get(made())


def test_the_gradient_is_that_of_loss_plus_penalty(one_update):
    before, _, shown, metrics = one_update
    hidden, output = before.params["hidden_0"], before.params["output"]
    active = INPUTS @ hidden["kernel"] + hidden["bias"] > 0
    expected = {
        "hidden_0": {
            "kernel": 2 + STRENGTH * hidden["kernel"] + (NUMBER + 1) * INPUTS.T @ active,
            "bias": 2 + STRENGTH * hidden["bias"] + (NUMBER + 1) * active.sum(0),
        },
        "output": {
            "kernel": 2 + STRENGTH * output["kernel"],
            "bias": 2 + STRENGTH * output["bias"] + np.mean(INPUTS),
        },
    }
    assert 0 < active.sum() < active.size
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), shown["seen"].gradients, expected)
    task_loss = 2 * sum(x.sum() for x in jax.tree.leaves(before.params))
    np.testing.assert_allclose(metrics["loss"], task_loss, rtol=1e-5)  # the penalty is not in it


def test_gradient_then_optimizer_then_apply_then_step(one_update):
    before, after, shown, _ = one_update
    learner, gradients = shown["learner"], shown["seen"].gradients
    applied = jax.tree.map(lambda p, g: p - RATE * g, before.params, gradients)
    jax.tree.map(np.testing.assert_array_equal, learner.opt_state, gradients)  # what the optimizer was given
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), learner.params, applied)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 1, rtol=1e-6), after.params, learner.params)
    jax.tree.map(np.testing.assert_array_equal, after.target, before.target)  # the agent handles the target
    assert learner.rest == {}


def test_step_is_shown_the_forward_pass_and_the_clock(one_update):
    before, _, shown, _ = one_update
    seen, hidden = shown["seen"], before.params["hidden_0"]
    pre = INPUTS @ hidden["kernel"] + hidden["bias"]  # of the parameters before the update
    np.testing.assert_allclose(seen.activations["hidden_0"].pre, pre, rtol=1e-5)
    np.testing.assert_allclose(seen.activations["hidden_0"].post, np.maximum(pre, 0), rtol=1e-5)
    np.testing.assert_array_equal(seen.observation, INPUTS)
    assert seen.clock == CLOCK
    np.testing.assert_allclose(seen.loss, 2 * sum(x.sum() for x in jax.tree.leaves(shown["learner"].params)), rtol=1e-5)


def test_prepare_comes_before_the_gradient_and_sees_the_loss():
    """The loss is half the sum of squares, so its gradient equals the parameters after ``prepare``."""

    def loss(params: Any) -> Any:
        return 0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params)), {}

    def prepare(key: Any, state: Any, learner: Learner, seen: Context) -> Any:
        assert (seen.activations, seen.gradients) == ({}, ())
        gradient = jax.grad(seen.loss)(learner.params)
        return seen.reference(), learner._replace(params=jax.tree.map(lambda x, g: 2 * x + g, learner.params, gradient))

    body = body_of(Intervention(optimizer=remembering, prepare=prepare))
    start = body.init(KEY).learner
    after, state, _ = jax.jit(lambda: body.update(KEY, start, (), loss, INPUTS, CLOCK))()
    jax.tree.map(lambda g, x: np.testing.assert_allclose(g, 3 * x, rtol=1e-6), after.opt_state, start.params)
    np.testing.assert_array_equal(state, INPUTS)  # the batch itself, where the agent remembers no other


def test_other_parameters_may_act():
    body = body_of(compose(Intervention(acting=lambda state, params: jax.tree.map(lambda x: 3 * x, params)), RECORDER))
    state = body.init(KEY)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, 3 * b), body.acting(state), state.learner.params)


def test_a_fresh_agent_in_the_middle_of_a_run():
    body = body_of(target=lambda params: params, rest=lambda created: {"schedule": created, "replay": jnp.zeros(3)})
    fresh = body.context(CLOCK).fresh(KEY)
    assert int(fresh.rest["schedule"]) == 20
    jax.tree.map(np.testing.assert_array_equal, fresh.target, fresh.params)
    jax.tree.map(np.testing.assert_array_equal, fresh.params, body.network.init(KEY))
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, 0), fresh.opt_state)
    state = body.init(KEY)
    assert state.learner.rest == {}
    assert int(state.rest["schedule"]) == 0


def test_a_switch_shows_and_takes_back_everything_the_agent_remembers():
    def switch(key: Any, state: Any, learner: Learner, seen: Context) -> Any:
        del key
        assert (seen.observation, seen.activations, seen.gradients) == ((), {}, ())
        rest = {**learner.rest, "replay": learner.rest["replay"] + 5}
        return state + 1, learner._replace(target=learner.params, rest=rest)

    intervention = Intervention(init=lambda key, params, network: jnp.int32(7), switch=switch)
    body = body_of(intervention, rest=lambda created: {"schedule": created, "replay": jnp.zeros(3)})
    before = body.init(KEY)
    after = body.switch(KEY, before, CLOCK)
    assert int(after.plugins) == 8
    assert after.learner.rest == {}
    assert after.rest["replay"].tolist() == [5, 5, 5]
    assert int(after.rest["schedule"]) == 0
    assert after.learner.target is before.learner.params


def test_the_network_is_rewritten_and_the_optimizer_wrapped_once():
    calls = []

    def network(spec: NetworkSpec) -> NetworkSpec:
        calls.append("network")
        return spec.__class__(spec.observation, spec.outputs, widths=(7, 2))

    def optimizer(rule: Optimizer) -> Optimizer:
        calls.append("optimizer")
        return rule

    body = body_of(Intervention(network=network, optimizer=optimizer))
    assert body.init(KEY).learner.params["hidden_0"]["kernel"].shape == (2, 7)
    assert calls == ["network", "optimizer"]


def behind_trace(opt_state: Any) -> Any:
    """The state of the intervention's optimizer, which may be behind an eligibility trace."""
    while isinstance(opt_state, Eligibility | Corrected):
        opt_state = opt_state.inner
    return opt_state


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("dqn", "stream_q") else pytest.mark.slow) for name in sorted(AGENTS)],
)
def test_every_agent_updates_this_way(name):
    """If the target network is copied after every update, it equals the parameters after ``step``."""
    spec = source(name).spec

    def keep(key: Any, state: Any, learner: Learner, seen: Context) -> Any:
        del key, state
        params = jax.tree.map(lambda x: x + 1.0, learner.params)
        facts = (learner.params, behind_trace(learner.opt_state), seen.gradients, first_hidden(seen).pre)
        return facts, learner._replace(params=params)

    rows = spec.envs if name in (*SUPERVISED, *OFFLINE, "ppo", "pqn", "reinforce", *STREAMING) else 4

    def init(key: Any, params: Any, network: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, zeros, zeros, jnp.zeros((rows, 6))

    intervention = Intervention(optimizer=remembering, init=init, penalty=penalty, step=keep)
    every_step = {"update_period": 1, "rollout_length": 1, "epochs": 1, "minibatches": 1, "policy_period": 1}
    acting = agent(name, spec, intervention, target_period=1, target_rate=1.0, **every_step)
    state, before = jax.jit(lambda: (lived(name, acting, 5)[0], lived(name, acting, 4)[0]))()
    (applied, direction, gradients, pre), params = state.plugins[0], state.learner.params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 1, rtol=1e-6), params, applied)
    if not isinstance(state.learner.opt_state, Eligibility | Corrected):
        jax.tree.map(np.testing.assert_array_equal, direction, gradients)
    expected = jax.tree.map(lambda p, g: p - RATE * g, before.learner.params, direction)
    if name == "kalman_classifier":
        applied, expected = ({**each, "output": 0.0} for each in (applied, expected))  # the filter's, added to these
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), applied, expected)
    assert np.abs(pre).sum() > 0
    if jax.tree.leaves(state.learner.target):
        jax.tree.map(np.testing.assert_array_equal, state.learner.target, params)
