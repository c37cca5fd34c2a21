"""UPGD and TRAC against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from plasticity.interventions import random_walk, surgery, trac, upgd, weight_decay
from plasticity.interventions.optimization import erfi
from plasticity.interventions.utility import relative_utility
from plasticity.optim.eligibility import eligible
from plasticity.optim.optimizers import adam, sgd

KEY = jax.random.key(4)
PARAMS = {"kernel": np.array([[1.0, -2.0], [0.5, 0.1]]), "bias": np.array([0.3, -0.2])}
RNG = np.random.default_rng(0)
GRADIENTS = [{name: RNG.normal(size=x.shape) for name, x in PARAMS.items()} for _ in range(5)]


def single(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def walk(optimizer, gradients, params=PARAMS, write=None):
    """The parameters after each update; ``write(number, params)`` may change them from outside."""
    params = single(params)
    state, path = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for number, g in enumerate(gradients):
        updates, state = update(single(g), state, params, key=jax.random.fold_in(KEY, number))
        params = jax.tree.map(jnp.add, params, updates)
        params = write(number, params) if write else params
        path.append(jax.tree.map(np.asarray, params))
    return path, state


def upgd_by_hand(steps, beta, decay, eta):
    """``steps(gradients)`` gives the inner optimizer's updates; no noise."""
    params = {name: x.copy() for name, x in PARAMS.items()}
    utility, path = {name: np.zeros_like(x) for name, x in PARAMS.items()}, []
    for t, (g, u) in enumerate(zip(GRADIENTS, steps, strict=True), start=1):
        utility = {name: beta * utility[name] - (1 - beta) * g[name] * params[name] for name in params}
        corrected = {name: x / (1 - beta**t) for name, x in utility.items()}
        largest = max(x.max() for x in corrected.values())
        gate = {name: 1 - 1 / (1 + np.exp(-x / largest)) for name, x in corrected.items()}
        params = {name: (1 - eta * decay) * x + 2 * u[name] * gate[name] for name, x in params.items()}
        path.append(params)
    return path


def close(a, b, rtol):
    for name in b:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=1e-7)


def test_upgd_around_sgd():
    path, _ = walk(upgd(beta=0.9, sigma=0.0, weight_decay=0.2).optimizer(sgd(learning_rate=0.1)), GRADIENTS)
    steps = [{name: -0.1 * x for name, x in g.items()} for g in GRADIENTS]
    for got, expected in zip(path, upgd_by_hand(steps, 0.9, 0.2, 0.1), strict=True):
        close(got, expected, 1e-5)


def test_upgd_around_adam_gates_its_updates():
    inner = adam(learning_rate=0.1)
    state, steps = inner.init(single(PARAMS)), []
    for g in GRADIENTS:
        u, state = inner.update(single(g), state)
        steps.append(u)
    path, _ = walk(upgd(beta=0.9, sigma=0.0, weight_decay=0.2).optimizer(inner), GRADIENTS)
    close(path[-1], upgd_by_hand(steps, 0.9, 0.2, 0.1)[-1], 1e-4)


def test_upgd_noise():
    """Without gradient no utility is positive: s = 1/2, and the step is -eta xi."""
    params = {"a": np.ones((300, 200)), "b": np.ones((300, 200))}
    still = jax.tree.map(np.zeros_like, params)
    optimizer = upgd(sigma=0.5, weight_decay=0.0).optimizer(sgd(learning_rate=0.1))
    path, _ = walk(optimizer, [still, still], params)
    moves = [path[0]["a"] - 1.0, path[0]["b"] - 1.0, path[1]["a"] - path[0]["a"]]
    for move in moves:
        np.testing.assert_allclose(move.mean(), 0.0, atol=1e-3)
        np.testing.assert_allclose(move.std(), 0.05, rtol=0.02)
        assert (abs(np.corrcoef([np.ravel(m) for m in moves])) - np.eye(3) < 0.02).all()


def test_the_most_useful_parameter_moves_least():
    s = relative_utility({"a": jnp.array([4.0, 0.0]), "b": jnp.array([-4.0])})
    np.testing.assert_allclose(s["a"], [1 / (1 + np.exp(-1)), 0.5], rtol=1e-6)
    np.testing.assert_allclose(s["b"], [1 / (1 + np.exp(1))], rtol=1e-6)
    np.testing.assert_array_equal(relative_utility({"a": jnp.array([-1.0, -2.0])})["a"], [0.5, 0.5])


LAYERS = {name: {"kernel": np.ones((60, 50)), "bias": np.ones(50)} for name in ("first", "second")}
SLOPES = {
    name: jax.tree.map(lambda x, scale=scale: scale * x, LAYERS[name])
    for name, scale in (("first", 3.0), ("second", -0.5))
}


def test_a_random_walk_is_as_long_as_the_updates():
    """Its steps: |u| of the whole network, in a direction that the gradient has no part in, another one each time."""
    params = single(LAYERS)
    path, _ = walk(random_walk().optimizer(sgd(learning_rate=0.1)), [SLOPES, SLOPES], LAYERS)
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (params, *path, SLOPES)]
    steps, slope = [flat[1] - flat[0], flat[2] - flat[1]], flat[3]
    for step in steps:
        np.testing.assert_allclose(np.linalg.norm(step), 0.1 * np.linalg.norm(slope), rtol=1e-4)
        np.testing.assert_allclose(step.std(), 0.1 * np.sqrt((9.0 + 0.25) / 2), rtol=1e-2)
    assert (abs(np.corrcoef([*steps, slope])) - np.eye(3) < 0.05).all()


def test_a_random_walk_by_layer():
    path, _ = walk(random_walk(per="layer").optimizer(sgd(learning_rate=0.1)), [SLOPES], LAYERS)
    for name, scale in (("first", 3.0), ("second", 0.5)):
        steps = [path[0][name][part] - LAYERS[name][part] for part in ("kernel", "bias")]
        length = np.sqrt(sum((step**2).sum() for step in steps))
        np.testing.assert_allclose(length, 0.1 * scale * np.sqrt(60 * 50 + 50), rtol=1e-4)


def test_a_random_walk_stands_still_where_the_optimizer_does():
    still = jax.tree.map(np.zeros_like, PARAMS)
    path, _ = walk(random_walk().optimizer(adam()), [still])
    close(path[0], PARAMS, 1e-7)


@pytest.mark.parametrize(("name", "method"), [("upgd", upgd), ("random_walk", random_walk)])
def test_methods_that_draw_need_a_key(name, method):
    optimizer = method().optimizer(sgd())
    with pytest.raises(ValueError, match=f"{name} needs a key"):
        optimizer.update(single(PARAMS), optimizer.init(single(PARAMS)), single(PARAMS))


def test_erfi():
    x = np.concatenate([np.linspace(-9.0, 9.0, 2001), [1e-6, -1e-3, 1e-30, 0.0]]).astype(np.float32)
    np.testing.assert_allclose(erfi(jnp.asarray(x)), scipy.special.erfi(x.astype(np.float64)), rtol=1e-5)
    np.testing.assert_allclose(erfi(jnp.array([40.0, -40.0])), scipy.special.erfi([9.0, -9.0]), rtol=1e-5)


BETAS = (0.9, 0.99, 0.999)


def trac_by_hand(gradients, steps, betas=BETAS, start=1e-8, eps=1e-8, write=None):
    """``theta = theta_ref + S Delta``; ``write`` shifts the reference."""
    betas = np.array(betas)
    reference = {name: np.asarray(x, np.float64).copy() for name, x in PARAMS.items()}
    delta = {name: np.zeros_like(x) for name, x in reference.items()}
    v, sigma, path, scales = np.zeros(len(betas)), np.full(len(betas), 1e-8), [], []
    for number, (g, u) in enumerate(zip(gradients, steps, strict=True)):
        h = sum(np.sum(g[name] * delta[name]) for name in delta)
        v, sigma = betas**2 * v + h**2, betas * sigma - h
        s = start / scipy.special.erfi(np.sqrt(0.5)) * scipy.special.erfi(sigma / (np.sqrt(2 * v) + eps))
        scales.append(max(s.sum(), 0.0))
        delta = {name: delta[name] + u[name] for name in delta}
        reference = write(number, reference) if write else reference
        path.append({name: reference[name] + scales[-1] * delta[name] for name in delta})
    return path, scales


def drifting(updates):
    """Gradients that mostly agree for a while and then turn round."""
    rng = np.random.default_rng(1)
    directions = [1.0 if number < 2 * updates // 3 else -1.0 for number in range(updates)]
    return [{n: d + 0.3 * rng.normal(size=x.shape) for n, x in PARAMS.items()} for d in directions]


def shifted(number, params):
    return {name: x + 0.25 if number == 10 else x for name, x in params.items()}


@pytest.mark.parametrize("write", [None, shifted])
def test_trac_is_the_papers_rule_and_lets_others_write(write):
    gradients = drifting(40)
    steps = [{name: -0.1 * x for name, x in g.items()} for g in gradients]
    path, state = walk(trac(betas=BETAS, start=1e-3).optimizer(sgd(learning_rate=0.1)), gradients, write=write)
    expected, scales = trac_by_hand(gradients, steps, start=1e-3, write=write)
    assert max(scales) > 1.0
    assert min(scales) == 0.0  # clamped once the direction turned
    for got, wanted in zip(path, expected, strict=True):
        close(got, wanted, 1e-3)
    np.testing.assert_allclose(state.scale, scales[-1], rtol=1e-3, atol=1e-6)


def test_trac_begins_with_the_scale_of_the_papers_code():
    """The first argument is b: sigma = 1e-8 b over eps = 1e-8."""
    _, state = walk(trac().optimizer(sgd(learning_rate=0.1)), GRADIENTS[:1])
    betas = np.array([0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999])
    expected = 1e-8 * np.sum(scipy.special.erfi(betas)) / scipy.special.erfi(np.sqrt(0.5))
    np.testing.assert_allclose(state.scale, expected, rtol=1e-4)


def test_a_reset_parameter_starts_from_its_new_value_under_trac():
    optimizer = trac(betas=BETAS, start=1e-2).optimizer(sgd(learning_rate=0.1))
    path, state = walk(optimizer, drifting(30)[:15])
    params = {**single(path[-1]), "bias": jnp.array([5.0, 5.0])}
    masks = {"kernel": jnp.array(False), "bias": jnp.array([True, False])}
    reset = surgery.reset_slots(optimizer, state, params, masks)
    np.testing.assert_array_equal(reset.displacement["bias"], [0.0, state.displacement["bias"][1]])
    np.testing.assert_array_equal(reset.displacement["kernel"], state.displacement["kernel"])
    g = single(GRADIENTS[0])
    updates, after = optimizer.update(g, reset, params)
    assert float(after.scale) > 0
    np.testing.assert_allclose(updates["bias"][0], -0.1 * after.scale * g["bias"][0], rtol=1e-5)


def test_trac_scales_the_learning_rate_it_tells():
    optimizer = trac(start=1e-2).optimizer(sgd(learning_rate=0.5))
    _, state = walk(optimizer, drifting(10))
    np.testing.assert_allclose(optimizer.learning_rate(state), 0.5 * state.scale)


@pytest.mark.parametrize("betas", [(), (1.0,), (-0.1, 0.9)])
def test_betas_are_checked(betas):
    with pytest.raises(ValueError, match=r"betas: .* is not allowed; must be one or more numbers"):
        trac(betas=betas)


@pytest.mark.parametrize("method", [upgd(), trac(start=1e-2), weight_decay()])
def test_behind_a_trace_the_gradient_is_the_direction_of_descent(method):
    """One step of a trace that is the gradient itself: what comes in is -td_error g + penalty."""
    bare = method.optimizer(adam())
    traced = eligible(bare)
    params, g = single(PARAMS), single(GRADIENTS[0])
    penalty = single(GRADIENTS[1])
    facts = {"td_error": jnp.float32(2.0), "trace_decay": 0.0, "trace_end": jnp.array(False), "key": KEY}
    got, state = traced.update(g, traced.init(params), params, penalty=penalty, **facts)
    descent = jax.tree.map(lambda z, p: p - 2.0 * z, g, penalty)
    expected, inner = bare.update(descent, bare.init(params), params, key=KEY)
    jax.tree.map(np.testing.assert_array_equal, (got, state.inner), (expected, inner))
