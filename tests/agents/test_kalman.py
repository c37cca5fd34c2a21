"""The Kalman filter against conditioning of the joint distribution, and the classifier around it step by step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.agents.kalman import Belief, corrected, drifted, gaussian_losses, predicted, softmax_losses
from plasticity.agents.kalman_classifier import FILTER, kalman_classifier
from plasticity.core.types import Agent, Clock, StreamSpec, Supervised, TimeStep, Transition, VisitPlan
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention
from plasticity.networks.presets import mlp
from plasticity.networks.residual import simba_v2
from plasticity.optim.optimizers import sgd

KEY = jax.random.key(4)
INPUTS, CLASSES, ENVS = 3, 4, 2
PRIOR, NOISE = 0.7, 0.3


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def spec_of(envs: int = ENVS, inputs: int = INPUTS, classes: int = CLASSES) -> StreamSpec:
    number: Any = jax.ShapeDtypeStruct
    observation = Supervised(number((inputs,), jnp.float32), number((), jnp.int32))
    return StreamSpec(observation, classes, ("task",), (VisitPlan(0, 10),), envs, False)


def made(
    envs: int = ENVS, intervention: Intervention | None = None, widths: tuple[int, ...] = (), **settings: Any
) -> Agent:
    numbers = {"prior_variance": PRIOR, "noise_variance": NOISE, "samples": 8, "calibration_learning_rate": 0.0}
    network = functools.partial(mlp, widths=widths, activation="tanh")
    rule = functools.partial(sgd, learning_rate=0.1)
    chosen = {"network": network, "optimizer": rule, **numbers, **settings}
    return kalman_classifier(spec_of(), intervention or Intervention(), **chosen)


def clock(step: Any) -> Clock:
    step = jnp.asarray(step, jnp.int32)
    return Clock(step, step, jnp.int32(0), step)


def pair(x: Any, labels: Any) -> Transition:
    rows = len(x)
    observation = Supervised(jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.int32))
    timestep = TimeStep(jnp.ones(rows, jnp.int8), jnp.zeros(rows), jnp.zeros(rows), observation)
    return Transition(timestep, jnp.zeros(rows, jnp.int32), timestep)


# The filter.

STEPS = 5
GAMMAS = (0.9, 1.0, 0.5, 0.97, 0.8)


def joint(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The covariance of all targets ``[STEPS * E]``, and of the last weights ``[d]`` with the targets.

    ``cov(w_i, w_j) = prior prod_{i < l <= j} gamma_l``: no recursion is used.
    """
    between = np.array([[np.prod(GAMMAS[min(i, j) + 1 : max(i, j) + 1]) for j in range(STEPS)] for i in range(STEPS)])
    rows, step = x.reshape(-1, x.shape[-1]), np.repeat(np.arange(STEPS), x.shape[1])
    targets = PRIOR * between[np.ix_(step, step)] * (rows @ rows.T) + NOISE * np.eye(len(rows))
    return targets, PRIOR * between[-1][step] * rows.T


@pytest.mark.parametrize("rows", [1, 3])
def test_the_recursions_are_exact(rows):
    """Posterior of the last weights and the probability of all targets, from one joint Gaussian distribution."""
    x, y = draw(STEPS, rows, INPUTS), draw(STEPS, rows, 2, seed=1)
    belief = Belief(jnp.zeros((INPUTS, 2)), PRIOR * jnp.eye(INPUTS))
    told = 0.0
    for n in range(STEPS):
        belief = drifted(belief, GAMMAS[n], PRIOR)
        seen, targets = jnp.asarray(x[n], jnp.float32), jnp.asarray(y[n], jnp.float32)
        told += float(gaussian_losses(*predicted(belief, seen), targets, NOISE).sum())
        belief = corrected(belief, seen, targets, NOISE)
    covariance, cross = joint(x)
    flat = y.reshape(-1, 2)
    gain = cross @ np.linalg.inv(covariance)
    np.testing.assert_allclose(belief.mean, gain @ flat, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(belief.covariance, PRIOR * np.eye(INPUTS) - gain @ cross.T, rtol=2e-4, atol=2e-5)
    if rows == 1:  # of several rows, each has its own probability
        exact = np.trace(flat.T @ np.linalg.inv(covariance) @ flat) + 2 * np.linalg.slogdet(2 * np.pi * covariance)[1]
        np.testing.assert_allclose(told, exact / 2, rtol=1e-4)


def test_a_long_stream_keeps_a_covariance():
    """Without forgetting, 2000 examples: symmetric, positive, and that of least squares."""
    x = jnp.asarray(draw(2000, 1, INPUTS), jnp.float32)

    def step(belief: Belief, seen: Any) -> tuple[Belief, None]:
        return corrected(drifted(belief, 1.0, PRIOR), seen, jnp.zeros((1, 2)), NOISE), None

    start = Belief(jnp.zeros((INPUTS, 2)), PRIOR * jnp.eye(INPUTS))
    found = np.asarray(jax.jit(lambda: jax.lax.scan(step, start, x)[0].covariance)())
    rows = np.asarray(x[:, 0], np.float64)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(
        found, np.linalg.inv(rows.T @ rows / NOISE + np.eye(INPUTS) / PRIOR), rtol=0.02, atol=1e-6
    )


def test_the_probability_of_a_class_by_quadrature():
    """Two classes: the sigmoid of a normal difference with twice the variance."""
    means, spread, scale = np.array([[0.4, -0.3], [1.0, 2.0]]), np.array([0.5, 2.0]), 1.7
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    for labels in ([0, 0], [1, 0]):
        sign = np.where(np.array(labels) == 0, 1, -1)
        apart = sign * (means[:, 0] - means[:, 1])
        at = scale * (apart[:, None] + np.sqrt(2 * spread)[:, None] * nodes)
        exact = -np.log((weights / (1 + np.exp(-at))).sum(1) / weights.sum())
        draws = jax.random.normal(KEY, (200_000, 2))
        found = softmax_losses(jnp.asarray(means), jnp.asarray(spread), jnp.asarray(labels), scale, draws)
        np.testing.assert_allclose(found, exact, rtol=0.01)
    certain = softmax_losses(jnp.asarray(means), jnp.zeros(2), jnp.asarray([0, 1]), 1.0, draws[:3])
    np.testing.assert_allclose(certain, np.log(1 + np.exp([-0.7, -1.0])), rtol=1e-5)


# The agent.


def reference(x: np.ndarray, labels: Any, mean: np.ndarray, covariance: np.ndarray, gamma: float) -> Any:
    """One step in NumPy, with the inverse of the covariance: drift, then precision form of the correction."""
    m, a = gamma * mean, gamma**2 * covariance + (1 - gamma**2) * PRIOR * np.eye(len(mean))
    after = np.linalg.inv(np.linalg.inv(a) + x.T @ x / NOISE)
    return after @ (np.linalg.inv(a) @ m + x.T @ np.eye(CLASSES)[labels] / NOISE), after


def head(state: Any) -> np.ndarray:
    layer = state.learner.params["output"]
    return np.concatenate([layer["kernel"], np.asarray(layer["bias"])[None]]).astype(np.float64)


@pytest.mark.parametrize("features", ["learned", "fixed"])
@pytest.mark.parametrize("widths", [(), (5,)])
def test_the_output_layer_is_the_filter_of_the_features(widths, features):
    """Over several steps; the features before an update are what the last hidden layer showed."""
    agent = made(widths=widths, features=features, gamma=0.9, gamma_learning_rate=0.0)
    state, learn = agent.init(KEY, None), jax.jit(agent.learn)
    mean, covariance = head(state), PRIOR * np.eye(len(head(state)))
    assert not mean.any()
    for n in range(4):
        x, labels = draw(ENVS, INPUTS, seed=n), np.array([n % CLASSES, 1])
        batch = pair(x, labels)
        seen = agent.probe(state, batch, clock(n)).activations["hidden_0"].post if widths else x
        seen = np.concatenate([seen, np.ones((ENVS, 1))], axis=1).astype(np.float64)
        mean, covariance = reference(seen, labels, mean, covariance, 0.9)
        before = state
        state, metrics = learn(jax.random.fold_in(KEY, n), state, batch, clock(n))
        np.testing.assert_allclose(head(state), mean, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(state.rest[FILTER].covariance, covariance, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(metrics["gamma"], 0.9, rtol=1e-6)
        if widths:
            moved = state.learner.params["hidden_0"]["kernel"] != before.learner.params["hidden_0"]["kernel"]
            assert moved.all() if features == "learned" else not moved.any()
    np.testing.assert_array_equal(
        agent.act(KEY, state, batch.previous.observation, clock(4)),
        np.argmax(seen_again(state, x, widths) @ head(state), 1),
    )


def seen_again(state: Any, x: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    if widths:
        layer = state.learner.params["hidden_0"]
        x = np.tanh(x @ layer["kernel"] + layer["bias"])
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def test_gamma_follows_the_slope_of_the_gaussian_likelihood():
    """By finite differences of a NumPy formula in double precision."""
    rate = 0.05
    agent = made(gamma=0.8, gamma_learning_rate=rate, objective="gaussian")
    state, learn = agent.init(KEY, None), jax.jit(agent.learn)
    delta = -2 * np.log(0.8)
    for n in range(3):
        x, labels = draw(ENVS, INPUTS, seed=n), np.array([n, 2])
        mean, covariance = head(state), np.asarray(state.rest[FILTER].covariance, np.float64)
        rows = np.concatenate([x, np.ones((ENVS, 1))], axis=1)

        def loss(delta: float, mean=mean, covariance=covariance, rows=rows, labels=labels) -> float:
            gamma = np.exp(-delta / 2)
            a = gamma**2 * covariance + (1 - gamma**2) * PRIOR * np.eye(len(mean))
            variance = np.einsum("ei,ij,ej->e", rows, a, rows)[:, None] + NOISE
            errors = np.eye(CLASSES)[labels] - gamma * rows @ mean
            return float((0.5 * np.log(2 * np.pi * variance) + errors**2 / (2 * variance)).sum(1).mean())

        delta = max(delta - rate * (loss(delta + 1e-5) - loss(delta - 1e-5)) / 2e-5, 0.0)
        state, metrics = learn(KEY, state, pair(x, labels), clock(n))
        np.testing.assert_allclose(state.rest[FILTER].drift, delta, rtol=1e-3)
        np.testing.assert_allclose(metrics["gamma"], np.exp(-delta / 2), rtol=1e-4)


def test_calibration_and_gamma_follow_the_slope_of_the_loss():
    """That of the probe; both have so many draws that their random numbers hardly matter."""
    rates = {"gamma_learning_rate": 0.02, "calibration_learning_rate": 0.03}
    agent = made(gamma=0.8, calibration=2.0, samples=10_000, **rates)
    state, learn = agent.init(KEY, None), jax.jit(agent.learn)
    for n in range(2):
        state, _ = learn(KEY, state, pair(draw(ENVS, INPUTS, seed=n), [n, 2]), clock(n))
    batch, memory = pair(draw(ENVS, INPUTS, seed=7), [1, 3]), state.rest[FILTER]

    def loss(drift: Any, log_scale: Any) -> Any:
        changed = memory._replace(drift=drift, log_scale=log_scale)
        return agent.probe(state._replace(rest={FILTER: changed}), batch, clock(2)).loss(state.learner.params)

    slopes = jax.grad(loss, (0, 1))(memory.drift, memory.log_scale)
    after, metrics = learn(KEY, state, batch, clock(2))
    new = after.rest[FILTER]
    np.testing.assert_allclose(new.drift - memory.drift, -0.02 * slopes[0], rtol=0.1)
    np.testing.assert_allclose(new.log_scale - memory.log_scale, -0.03 * slopes[1], rtol=0.1)
    np.testing.assert_allclose(metrics["loss"], loss(memory.drift, memory.log_scale), rtol=0.05)


def switching() -> tuple[np.ndarray, np.ndarray]:
    """Gamma ``[2, 400]`` and accuracy of two visits, with another linear labelling in the second one."""
    rows, steps, size = 8, 400, 6
    teachers = jnp.asarray(draw(2, size, CLASSES, seed=3), jnp.float32)
    agent = kalman_classifier(
        spec_of(rows, size), Intervention(), network=functools.partial(mlp, widths=()), optimizer=sgd, features="fixed",
        gamma_learning_rate=1e-3, samples=32,
    )  # fmt: skip

    def step(state: Any, i: Any) -> Any:
        x = jax.random.normal(jax.random.fold_in(KEY, i), (rows, size))
        batch = pair(x, jnp.argmax(x @ teachers[i // steps], axis=-1))
        right = agent.act(KEY, state, batch.previous.observation, clock(i)) == batch.previous.observation.target
        state, metrics = agent.learn(jax.random.fold_in(KEY, i), state, batch, clock(i))
        return state, (metrics["gamma"], jnp.mean(right))

    _, found = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(2 * steps)))(agent.init(KEY, None))
    gamma, accuracy = (np.asarray(each).reshape(2, steps) for each in found)
    return gamma, accuracy


def test_gamma_is_1_on_a_stationary_stream_and_falls_at_a_switch():
    gamma, accuracy = switching()
    assert gamma[0, 200:].mean() > 0.9998
    assert gamma[1, :60].min() < 0.998
    assert gamma[1, 200:].mean() > 0.999
    assert accuracy[0, 300:].mean() > 0.78
    assert accuracy[1, :5].mean() < 0.5
    assert accuracy[1, 300:].mean() > 0.78


def test_the_features_may_be_those_of_any_graph():
    agent = kalman_classifier(
        spec_of(inputs=INPUTS), Intervention(), optimizer=sgd,
        network=functools.partial(mlp, widths=(4,), activation="crelu", penultimate="unit"), samples=4,
    )  # fmt: skip
    state = agent.init(KEY, None)
    assert state.rest[FILTER].covariance.shape == (9, 9)  # twice as many features, and the constant
    after, _ = jax.jit(agent.learn)(KEY, state, pair(draw(ENVS, INPUTS), [0, 1]), clock(0))
    assert np.isfinite(head(after)).all()
    assert head(after).any()


def test_a_reset_of_everything_resets_the_filter():
    for rest, forgets in (("auto", True), ("none", False)):
        agent = made(intervention=INTERVENTIONS["reset"](rest=rest), widths=(4,))
        start = agent.init(KEY, None)
        state, _ = agent.learn(KEY, start, pair(draw(ENVS, INPUTS), [0, 1]), clock(0))
        after = agent.switch(KEY, state, clock(1))
        assert not head(after).any()
        same = np.array_equal(after.rest[FILTER].covariance, start.rest[FILTER].covariance)
        assert same == forgets


OTHER = "needs a network with one output layer, whose weights are free and the same for all tasks"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"intervention": INTERVENTIONS["plasticity_injection"]()}, OTHER),
        ({"network": simba_v2}, OTHER),
        ({"features": "frozen"}, 'features: "frozen" is not allowed; must be one of learned, fixed'),
        ({"objective": "mse"}, 'objective: "mse" is not allowed; must be one of softmax, gaussian'),
    ],
)
def test_refusals(change, said):
    with pytest.raises(ValueError, match=said):
        made(widths=(4,), **change)


def test_real_valued_targets_are_refused():
    spec = spec_of()
    number: Any = jax.ShapeDtypeStruct((2,), jnp.float32)
    with pytest.raises(ValueError, match=r"agent.kind: kalman_classifier is not allowed; it needs a stream with class"):
        kalman_classifier(spec._replace(observation=spec.observation._replace(target=number)), Intervention())
