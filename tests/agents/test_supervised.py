"""Classifier and regressor on tiny minibatches, by hand."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import clock_at, program, run

from plasticity.agents import classifier, regressor
from plasticity.core.types import FIRST, MID, Agent, StreamSpec, Supervised, TimeStep, Transition, VisitPlan
from plasticity.envs.targets import relabelled
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.presets import mlp
from plasticity.optim.optimizers import sgd

KEY = jax.random.key(0)
X = jnp.asarray([[1.0, 0.0], [2.0, -1.0]])
RATE = 0.5


def spec_of(outputs: int, target: Any) -> StreamSpec:
    observation = Supervised(jax.ShapeDtypeStruct((2,), jnp.float32), target)
    discrete = target.dtype == jnp.int32
    return StreamSpec(observation, outputs, ("a",), (VisitPlan(0, 4),), 2, False, discrete=discrete)


LABELS = spec_of(2, jax.ShapeDtypeStruct((), jnp.int32))
NUMBERS = spec_of(2, jax.ShapeDtypeStruct((2,), jnp.float32))


def linear(factory: Any, spec: StreamSpec, *interventions: Intervention, **settings: Any) -> Agent:
    """Without a hidden layer, with gradient descent at step size 0.5."""
    flat, descent = functools.partial(mlp, widths=()), functools.partial(sgd, learning_rate=RATE)
    agent: Agent = factory(spec, compose(*interventions), network=flat, optimizer=descent, **settings)
    return agent


def with_weights(agent: Agent, kernel: Any, bias: Any) -> Any:
    state = agent.init(KEY, None)  # type: ignore[arg-type]
    params = {"output": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, state.learner.params)
    return state._replace(learner=state.learner._replace(params=params))


def transition(target: Any, later: Any = None) -> Transition:
    """The minibatch X with these targets; the time step that follows has another (the agent has not seen it yet)."""

    def step(kind: int, inputs: Any, target: Any) -> TimeStep:
        target = jnp.asarray(target)
        return TimeStep(jnp.full(2, kind, jnp.int8), jnp.zeros(2), jnp.zeros(2), Supervised(inputs, target))

    return Transition(step(FIRST, X, target), jnp.zeros(2), step(MID, -X, target if later is None else later))


KERNEL, BIAS = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([0.0, 0.5])
# logits: row 1 [1, 0] + b = [1, 0.5]; row 2 [2, -2] + b = [2, -1.5]
LOGITS = np.array([[1.0, 0.5], [2.0, -1.5]])


def sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_classifier_loss_gradient_and_step(smoothing):
    agent = linear(classifier, LABELS, label_smoothing=smoothing)
    state = with_weights(agent, KERNEL, BIAS)
    pair = transition([0, 1])
    # two classes: p(class 0) = sigmoid(difference of the logits)
    p = np.array([sigmoid(0.5), sigmoid(3.5)])
    y = np.array([1 - smoothing / 2, smoothing / 2])  # smoothed target of class 0
    loss = np.mean(-y * np.log(p) - (1 - y) * np.log(1 - p))
    slope = np.stack([p - y, y - p], axis=1) / 2  # d loss / d logits
    after, metrics = agent.learn(KEY, state, pair, clock_at(0))
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    assert float(metrics["updates"]) == 1
    np.testing.assert_allclose(after.learner.params["output"]["kernel"], KERNEL - RATE * X.T @ slope, rtol=1e-6)
    np.testing.assert_allclose(after.learner.params["output"]["bias"], BIAS - RATE * slope.sum(0), rtol=1e-6)
    probe = agent.probe(state, pair, clock_at(0))
    np.testing.assert_allclose(probe.loss(state.learner.params), loss, rtol=1e-6)
    assert float(probe.loss(after.learner.params)) < loss


def test_label_smoothing_spreads_over_all_classes():
    """Three classes, logits log 2, 0, 0: p = (1/2, 1/4, 1/4); s = 0.3 gives the target (0.8, 0.1, 0.1)."""
    agent = linear(classifier, spec_of(3, LABELS.observation.target), label_smoothing=0.3)
    state = with_weights(agent, np.zeros((2, 3)), [math.log(2.0), 0.0, 0.0])
    _, metrics = agent.learn(KEY, state, transition([0, 0]), clock_at(0))
    np.testing.assert_allclose(metrics["loss"], 0.8 * math.log(2) + 0.2 * math.log(4), rtol=1e-6)


def test_regressor_loss_gradient_and_step():
    agent = linear(regressor, NUMBERS)
    state = with_weights(agent, KERNEL, BIAS)
    targets = np.array([[0.0, 0.5], [3.0, 0.5]])
    # errors: [[1, 0], [-1, -2]]; mean of squares over batch and outputs: 6 / 4
    after, metrics = agent.learn(KEY, state, transition(targets), clock_at(0))
    np.testing.assert_allclose(metrics["loss"], 1.5, rtol=1e-6)
    slope = 2 * (LOGITS - targets) / 4
    np.testing.assert_allclose(after.learner.params["output"]["kernel"], KERNEL - RATE * X.T @ slope, rtol=1e-6)
    np.testing.assert_allclose(after.learner.params["output"]["bias"], BIAS - RATE * slope.sum(0), rtol=1e-6)


def test_regression_by_classification():
    """One output, atoms 0, 1, 2, the target 0.5: half on each of the first two; the prediction is the mean."""
    spec = spec_of(1, NUMBERS.observation.target)
    agent = linear(regressor, spec, loss="two_hot", atoms=3, v_min=0.0, v_max=2.0)
    log_p = np.log([0.5, 0.2, 0.3])
    state = with_weights(agent, np.zeros((2, 3)), log_p)
    np.testing.assert_allclose(agent.act(KEY, state, Supervised(X, jnp.zeros((2, 1))), clock_at(0)), 0.8, rtol=1e-6)
    after, metrics = agent.learn(KEY, state, transition(np.array([[0.5], [0.5]])), clock_at(0))
    np.testing.assert_allclose(metrics["loss"], -(log_p[0] + log_p[1]) / 2, rtol=1e-6)
    slope = np.array([0.5, 0.2, 0.3]) - [0.5, 0.5, 0]
    np.testing.assert_allclose(after.learner.params["output"]["bias"], log_p - RATE * slope, rtol=1e-5)
    for wrong in ({"loss": "gauss"}, {"atoms": 1}, {"v_max": 0.0, "v_min": 0.0}):
        with pytest.raises(ValueError, match=r"agent\.\w+: .* is not allowed"):
            linear(regressor, spec, **{"loss": "hl_gauss", **wrong})


def test_predictions_come_from_the_input_alone():
    agent = linear(classifier, LABELS)
    state = with_weights(agent, KERNEL, BIAS)
    for target in ([0, 1], [1, 0], [1, 1]):
        action = agent.act(KEY, state, Supervised(X, jnp.asarray(target)), clock_at(0))
        assert action.dtype == jnp.int32
        assert action.tolist() == [0, 0]
    assert agent.act(KEY, state, Supervised(-X, jnp.zeros(2, int)), clock_at(0)).tolist() == [1, 1]
    agent = linear(regressor, NUMBERS)
    state = with_weights(agent, KERNEL, BIAS)
    for target in (jnp.zeros((2, 2)), jnp.full((2, 2), jnp.nan)):
        action = agent.act(KEY, state, Supervised(X, target), clock_at(0))
        np.testing.assert_allclose(action, LOGITS, rtol=1e-6)


def test_it_learns_the_batch_it_was_scored_on():
    """The targets of the next time step and the prediction have no effect."""
    agent = linear(classifier, LABELS)
    state = with_weights(agent, KERNEL, BIAS)
    first, other = (agent.learn(KEY, state, transition([0, 1], later), clock_at(0)) for later in ([0, 0], [1, 0]))
    jax.tree.map(np.testing.assert_array_equal, first, other)
    different, _ = agent.learn(KEY, state, transition([1, 1]), clock_at(0))
    assert not np.allclose(different.learner.params["output"]["bias"], first[0].learner.params["output"]["bias"])


def test_an_intervention_sees_the_inputs_and_the_number_of_the_update():
    def step(key: Any, state: Any, learner: Any, seen: Any) -> Any:
        return (seen.observation, seen.clock.update), learner

    watch = Intervention(init=lambda key, params, network: (jnp.zeros((2, 2)), jnp.int32(-1)), step=step)
    agent = linear(classifier, LABELS, watch)
    state, _ = agent.learn(KEY, agent.init(KEY, None), transition([0, 1]), clock_at(5))  # type: ignore[arg-type]
    ((inputs, number),) = state.plugins
    np.testing.assert_array_equal(inputs, X)
    assert int(number) == 5


@pytest.mark.parametrize(("factory", "spec"), [(classifier, NUMBERS), (regressor, LABELS)])
def test_a_stream_with_targets_of_the_other_kind_is_refused(factory, spec):
    with pytest.raises(ValueError, match=r"agent\.kind: "):
        linear(factory, spec)


@pytest.mark.parametrize("factory", [classifier, regressor])
def test_a_stream_without_targets_is_refused(factory):
    spec = StreamSpec(jax.ShapeDtypeStruct((2,), jnp.float32), 2, ("a",), (VisitPlan(0, 4),), 2, True)
    with pytest.raises(ValueError, match=r"agent\.kind: "):
        linear(factory, spec)


@pytest.mark.slow
def test_a_classifier_memorises_sixteen_samples():
    stream = relabelled(inputs="gaussian", samples=16, dimensions=8, classes=4, tasks=1, steps_per_task=400, envs=16)
    network = functools.partial(mlp, widths=(32,))
    seen = [chunk.metrics for chunk in run(program("classifier", stream=stream, network=network, chunk=100)).chunks()]
    assert seen[0]["reward"][0] < 0.95
    assert seen[-1]["reward"][0] > 0.99
    assert seen[-1]["loss"][0] < 0.3 * seen[0]["loss"][0]


@pytest.mark.parametrize(("make", "spec"), [(classifier, LABELS), (regressor, NUMBERS)])
def test_batch_statistics_need_a_minibatch(make, spec):
    settings = {
        "network": functools.partial(mlp, widths=(3,), normalisation="batch"),
        "optimizer": functools.partial(sgd, learning_rate=RATE),
    }
    make(spec, compose(), **settings)
    with pytest.raises(ValueError, match=r"agent\.network: normalisation: batch is not allowed; it needs the classif"):
        make(spec._replace(envs=1), compose(), **settings)
