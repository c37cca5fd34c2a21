"""Shrink and perturb by its moments; the soft reset by hand on quadratic losses."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core.types import Clock, Learner
from plasticity.interventions import shrink_perturb, soft_reset
from plasticity.interventions.base import Intervention, compose
from plasticity.interventions.perturbation import layer_numbers
from plasticity.optim.optimizers import sgd

KEY = jax.random.key(1)
PARAMS = {"hidden_0": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([3.0, 4.0])}}


def fresh(key):
    return Learner(jax.tree.map(lambda x: jax.random.normal(key, x.shape), PARAMS), (), ())


def shaken(key, state=(), **settings):
    context = SimpleNamespace(fresh=fresh)
    learner = Learner(PARAMS, {"target": jnp.ones(1)}, {"slot": jnp.ones(1)})
    _, new = shrink_perturb(**settings).switch(key, state, learner, context)
    assert new._replace(params=PARAMS) == learner
    return new.params["hidden_0"]


def test_gaussian_noise_has_the_mean_and_variance_asked_for():
    params = {"a": jnp.full((300, 200), 3.0), "b": jnp.full((300, 200), -1.0)}
    method = shrink_perturb(shrink=0.8, perturb=0.5, noise="gaussian", sigma=0.2)
    _, learner = method.switch(KEY, (), Learner(params, (), ()), None)
    for name, theta in (("a", 3.0), ("b", -1.0)):
        noise = np.asarray(learner.params[name]) - 0.8 * theta
        np.testing.assert_allclose(noise.mean(), 0.0, atol=0.002)  # 5 standard errors
        np.testing.assert_allclose(noise.var(), 0.01, rtol=0.03)
    a, b = (np.ravel(learner.params[name]) for name in ("a", "b"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02


def test_fresh_noise_is_a_new_network_each_time():
    for key in jax.random.split(KEY):
        got, drawn = shaken(key, shrink=0.9, perturb=0.3), fresh(key).params["hidden_0"]
        for name, theta in PARAMS["hidden_0"].items():
            np.testing.assert_allclose(got[name], 0.9 * theta + 0.3 * drawn[name], rtol=1e-6)


def test_initial_noise_is_the_first_parameters():
    assert shrink_perturb().init(KEY, PARAMS, None) == ()
    first = jax.tree.map(lambda x: x + 1.0, PARAMS)
    state = shrink_perturb(noise="initial").init(KEY, first, None)
    got = shaken(KEY, state, noise="initial", shrink=0.9, perturb=0.1)
    np.testing.assert_allclose(got["kernel"], [[1.1, -1.9]], rtol=1e-6)


def test_kernels_alone():
    got = shaken(KEY, which="kernels", shrink=0.5, perturb=0.0)
    np.testing.assert_allclose(got["kernel"], [[0.5, -1.0]])
    np.testing.assert_array_equal(got["bias"], PARAMS["hidden_0"]["bias"])


def test_never_and_bad_names():
    assert shrink_perturb(when="never")._replace(init=Intervention().init) == Intervention()
    for settings in ({"when": "sometimes"}, {"noise": "uniform"}, {"which": "biases"}):
        with pytest.raises(ValueError, match="must be one of"):
            shrink_perturb(**settings)


# Soft resets: two layers, prior mean mu, present parameters theta, loss |theta - AIM|^2 / 2.

MU = {"first": {"kernel": jnp.array([[0.5, -0.5]])}, "second": {"kernel": jnp.array([[2.0]]), "bias": jnp.array([1.0])}}
THETA = {
    "first": {"kernel": jnp.array([[1.5, 0.5]])},
    "second": {"kernel": jnp.array([[-1.0]]), "bias": jnp.array([2.0])},
}
AIM = jax.tree.map(jnp.zeros_like, MU)
GRADIENTS = jax.tree.map(jnp.ones_like, MU)


def half_square(params, aim=AIM):
    return sum(jnp.sum((x - a) ** 2) / 2 for x, a in zip(*map(jax.tree.leaves, (params, aim)), strict=True))


def prepared(loss, theta=THETA, mu=MU, update=0, **settings):
    """The state and learner after ``prepare``, and the optimizer."""
    method = soft_reset(**settings)
    optimizer = method.optimizer(sgd(learning_rate=0.1))
    clock = Clock(*(jnp.int32(update) for _ in range(4)))
    learner = Learner(theta, (), optimizer.init(theta))
    state, learner = method.prepare(
        KEY, method.init(KEY, mu, None), learner, SimpleNamespace(loss=loss, clock=clock, optimizer=optimizer)
    )
    return state, learner, optimizer


def blend(theta, mu, gamma):
    return jax.tree.map(lambda x, m, c: c * x + (1 - c) * m, theta, mu, gamma)


def test_gamma_follows_the_loss_at_the_mean_by_layer():
    """dL/dgamma = <theta - aim, theta - mu> over a layer: 1.5 + 0.5 = 2 for the first, 3 + 2 = 5 for the second."""
    state, learner, _ = prepared(half_square, predict="mean", gamma_learning_rate=0.1)
    np.testing.assert_allclose(state.gamma, [0.8, 0.5], rtol=1e-6)
    gamma = {"first": {"kernel": 0.8}, "second": {"kernel": 0.5, "bias": 0.5}}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), learner.params, blend(THETA, MU, gamma))
    together, _, _ = prepared(half_square, predict="mean", gamma_learning_rate=0.1, per="network")
    np.testing.assert_allclose(together.gamma, [0.3], rtol=1e-5)


def test_two_steps_on_gamma():
    """At gamma = 0.8 the first layer's mean is (1.3, 0.3), its slope 1.6."""
    state, _, _ = prepared(half_square, predict="mean", gamma_learning_rate=0.1, gamma_steps=2)
    np.testing.assert_allclose(state.gamma[0], 0.8 - 0.16, rtol=1e-5)


def test_gamma_is_kept_or_reset():
    for restart, expected in ((True, 0.8), (False, 0.64)):
        method = soft_reset(predict="mean", gamma_learning_rate=0.1, restart=restart)
        state = method.init(KEY, MU, None)
        optimizer = method.optimizer(sgd())
        context = SimpleNamespace(loss=half_square, clock=Clock(*(jnp.int32(0) for _ in range(4))))
        for _ in range(2):
            state, _ = method.prepare(KEY, state, Learner(THETA, (), optimizer.init(THETA)), context)
        np.testing.assert_allclose(state.gamma[0], expected, rtol=1e-5)


def test_full_drift_is_the_prior_mean_and_the_largest_step_once():
    state, learner, optimizer = prepared(half_square, predict="mean", gamma_learning_rate=1e3, spread=0.5)
    np.testing.assert_array_equal(state.gamma, [0.0, 0.0])
    jax.tree.map(np.testing.assert_array_equal, learner.params, MU)
    np.testing.assert_allclose(optimizer.learning_rate(learner.opt_state), 0.4)
    updates, opt_state = optimizer.update(GRADIENTS, learner.opt_state, learner.params)
    jax.tree.map(lambda u: np.testing.assert_allclose(u, -0.4 * np.ones_like(u)), updates)
    updates, _ = optimizer.update(GRADIENTS, opt_state, learner.params)
    jax.tree.map(lambda u: np.testing.assert_allclose(u, -0.1 * np.ones_like(u)), updates)


def test_no_drift_where_it_would_only_harm():
    """Where theta is best, gamma stays at its bound 1, and nothing changes bit for bit."""

    def best_here(params):
        return half_square(params, jax.tree.map(lambda x, m: x + 0.1 * (x - m), THETA, MU))

    state, learner, optimizer = prepared(best_here, predict="mean", gamma_learning_rate=1.0)
    np.testing.assert_array_equal(state.gamma, [1.0, 1.0])
    jax.tree.map(np.testing.assert_array_equal, learner.params, THETA)
    np.testing.assert_allclose(optimizer.learning_rate(learner.opt_state), 0.1)


def test_a_partial_drift_scales_the_update_by_layer():
    _, learner, optimizer = prepared(half_square, predict="mean", gamma_learning_rate=0.1, spread=0.5)
    updates, _ = optimizer.update(GRADIENTS, learner.opt_state, learner.params)
    np.testing.assert_allclose(updates["first"]["kernel"], -0.1 * (0.64 + 0.36 * 4) * np.ones((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(updates["second"]["bias"], [-0.1 * (0.25 + 0.75 * 4)], rtol=1e-5)


def test_a_sampled_prediction_has_the_drifted_variance():
    """At gamma = 1: dL/dgamma = <theta - aim, theta - mu> + n sigma0^2 (spread^2 - 1), but for sampling error."""
    n, sigma, spread, rate = 40_000, 0.2, 0.5, 1e-4
    mu = {"layer": {"kernel": sigma * jnp.asarray(np.resize([1.0, -1.0], (200, 200)), jnp.float32)}}
    theta = jax.tree.map(lambda x: x + 0.3, mu)

    def loss(params):
        return jnp.sum((params["layer"]["kernel"] - theta["layer"]["kernel"] - 0.2) ** 2) / 2

    state, _, _ = prepared(loss, theta, mu, gamma_learning_rate=rate, spread=spread, restart=True)
    expected = -0.2 * 0.3 * n + n * sigma**2 * (spread**2 - 1)
    assert expected < 0  # towards more than 1: clipped
    np.testing.assert_array_equal(state.gamma, [1.0])

    def up(params):
        return -loss(params)

    state, _, _ = prepared(up, theta, mu, gamma_learning_rate=rate, spread=spread)
    np.testing.assert_allclose(1.0 - state.gamma[0], -rate * expected, rtol=0.02)


def test_zero_prior_keeps_what_is_no_kernel_at_its_start():
    _, learner, _ = prepared(half_square, predict="mean", gamma_learning_rate=1e3, prior="zero")
    np.testing.assert_array_equal(learner.params["second"]["kernel"], [[0.0]])
    np.testing.assert_array_equal(learner.params["second"]["bias"], MU["second"]["bias"])


def test_between_periods_nothing_drifts():
    _, learner, _ = prepared(half_square, predict="mean", gamma_learning_rate=0.1, period=3, update=1)
    jax.tree.map(np.testing.assert_array_equal, learner.params, THETA)


def test_a_normalisation_belongs_to_its_layer():
    layer = {"kernel": jnp.ones((1, 1)), "norm": {"scale": jnp.ones(1), "offset": jnp.ones(1)}}
    assert layer_numbers({"hidden_0": layer, "output": {"kernel": jnp.ones((1, 1))}}, "layer") == [0, 0, 0, 1]


def test_soft_resets_do_not_combine():
    method = compose(soft_reset(), soft_reset())
    optimizer = method.optimizer(sgd())
    context = SimpleNamespace(loss=half_square, clock=Clock(*(jnp.int32(0) for _ in range(4))))
    with pytest.raises(ValueError, match="a second soft_reset is not allowed; an arm can have one"):
        method.prepare(KEY, method.init(KEY, MU, None), Learner(THETA, (), optimizer.init(THETA)), context)


@pytest.mark.parametrize("settings", [{"per": "unit"}, {"predict": "all"}, {"prior": "one"}, {"gamma_steps": 0}])
def test_bad_settings_of_soft_resets(settings):
    with pytest.raises(ValueError, match="must be"):
        soft_reset(**settings)
