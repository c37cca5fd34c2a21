"""Plasticity probes on fresh and dead networks, and against NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core.types import Learner
from plasticity.monitors import MONITORS, capacity, plasticity_probe, upgd_plasticity, warm_start_gap
from plasticity.monitors.capacity import divergence
from plasticity.monitors.fitting import Start, current_and_fresh, outputs, plain, train
from plasticity.monitors.plasticity import sine
from plasticity.networks.build import build
from plasticity.networks.spec import NetworkSpec
from plasticity.optim import eligibility
from plasticity.optim.optimizers import adam, sgd

SPEC = NetworkSpec((4,), 2, widths=(8,))
INPUTS = jax.random.normal(jax.random.key(9), (16, 4))
STEPS = 80


def killed(params: Any) -> Any:
    """The same network with all hidden units dead, so that only the output's bias can learn."""
    hidden = {**params["hidden_0"], "bias": jnp.full(8, -100.0)}
    return {**params, "hidden_0": hidden}


def with_adam(probe: Any, rate: float = 0.05) -> Any:
    rule = adam(learning_rate=rate)

    def fresh(key: Any) -> Learner:
        fresh_params = probe.network.init(key)
        return Learner(fresh_params, (), rule.init(fresh_params))

    learner = probe.learner._replace(opt_state=rule.init(probe.learner.params))
    return probe._replace(optimizer=rule, learner=learner, fresh=fresh)


@pytest.fixture(scope="module")
def probing(probes):
    """``plasticity_probe`` of any parameters and key, compiled once and vmapped over both."""
    monitor = plasticity_probe(steps=STEPS, targets=2)

    def one(key, params):
        return monitor.measure(key, (), with_adam(probes.of_network(SPEC, params, INPUTS)))[1]

    return jax.jit(jax.vmap(one))


@pytest.fixture(scope="module")
def fresh_networks():
    return jax.vmap(build(SPEC).init)(jax.random.split(jax.random.key(5), 48))


@pytest.fixture(scope="module")
def of_fresh_networks(probing, fresh_networks):
    return probing(jax.random.split(jax.random.key(6), 48), fresh_networks)


def within_its_error(differences: Any) -> bool:
    return abs(np.mean(differences)) < 3 * np.std(differences, ddof=1) / np.sqrt(len(differences))


def test_a_fresh_network_has_lost_nothing_in_expectation(of_fresh_networks):
    found = {name.removeprefix("plasticity_probe"): np.asarray(value) for name, value in of_fresh_networks.items()}
    assert within_its_error(found[""])
    np.testing.assert_allclose(found[""], found["/loss"] - found["/fresh_loss"], atol=1e-5)
    assert within_its_error(found["/initial_loss"] - found["/fresh_initial_loss"])
    assert np.mean(found["/loss"]) < 0.3 < np.mean(found["/initial_loss"])


def test_a_killed_network_has_lost_its_plasticity(probing, fresh_networks, of_fresh_networks):
    found = probing(jax.random.split(jax.random.key(6), 48), jax.vmap(killed)(fresh_networks))
    gap = np.asarray(found["plasticity_probe"])
    assert gap.mean() > 10 * gap.std(ddof=1) / np.sqrt(len(gap))
    # It can but predict a constant, whose loss is the targets' variance: 0.5 less what the few rows have in common.
    assert 0.4 < np.mean(found["plasticity_probe/loss"]) < 0.5
    np.testing.assert_allclose(
        found["plasticity_probe/fresh_loss"], of_fresh_networks["plasticity_probe/fresh_loss"], 0.05
    )


def test_predicting_the_mean_costs_a_half(probing, fresh_networks):
    """The killed network predicts a constant, its own mean, whatever its scale."""
    moved = jax.vmap(killed)(fresh_networks)
    moved["output"]["bias"] = moved["output"]["bias"] + 50.0
    found = probing(jax.random.split(jax.random.key(7), 48), moved)
    assert np.mean(found["plasticity_probe/initial_loss"]) == pytest.approx(0.5, abs=0.03)
    assert np.mean(found["plasticity_probe/fresh_initial_loss"]) < 5


def test_the_sine_of_a_large_phase():
    values = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    np.testing.assert_allclose(sine(jnp.asarray(values), 1e5), np.sin(1e5 * values.astype(np.float64)), atol=5e-6)
    np.testing.assert_allclose(jax.jit(lambda x: sine(x, 2.0))(values), np.sin(2.0 * values), atol=5e-6)


def test_against_numpy(probes):
    """A linear network, plain descent, a slow sine: every number of the definition by hand."""
    spec, rate, steps = NetworkSpec((3,), 2), 0.1, 4
    inputs = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    valid = np.array([1, 1, 0, 1, 1, 0], bool)
    params = probes.initial(spec, 3)
    probe = probes.of_network(spec, params, inputs, rate)._replace(valid=jnp.asarray(valid))
    key = jax.random.key(2)
    found = plasticity_probe(steps=steps, targets=1, frequency=3.0).measure(key, (), probe)[1]
    drawn, fresh_key, *_ = jax.random.split(jax.random.split(key, 1)[0], 4)

    def fit(start):
        w, b = (np.asarray(start["output"][name], np.float64) for name in ("kernel", "bias"))
        random = probe.network.init(drawn)["output"]
        x = inputs[valid].astype(np.float64)
        target = np.mean(x @ w + b, axis=0) + np.sin(3 * (x @ np.asarray(random["kernel"]) + random["bias"]))
        losses = []
        for _ in range(steps + 1):
            error = x @ w + b - target
            losses.append(np.mean(error**2))
            w, b = w - rate * 2 * x.T @ error / error.size, b - rate * 2 * error.sum(axis=0) / error.size
        return losses[0], losses[-1]

    (before, after), (fresh_before, fresh_after) = fit(params), fit(probe.network.init(fresh_key))
    expected = {"": after - fresh_after, "/loss": after, "/fresh_loss": fresh_after}
    expected |= {"/initial_loss": before, "/fresh_initial_loss": fresh_before}
    assert set(found) == {f"plasticity_probe{name}" for name in expected}
    for name, value in expected.items():
        assert float(found[f"plasticity_probe{name}"]) == pytest.approx(value, abs=1e-5), name


@pytest.mark.slow
def test_the_continued_optimizer_has_names_of_its_own(probes):
    """The learner's momentum drives it away; a fresh network has none."""
    spec = NetworkSpec((4,), 2)
    rule = sgd(learning_rate=0.05, momentum=0.9)
    params = probes.initial(spec)
    plainly = probes.of_network(spec, params, INPUTS)

    def fresh(key):
        fresh_params = plainly.network.init(key)
        return Learner(fresh_params, (), rule.init(fresh_params))

    moved = jax.tree.map(lambda x: x + 30.0 * (jnp.shape(x) == (4, 2)), rule.init(params))
    probe = plainly._replace(optimizer=rule, learner=Learner(params, (), moved), fresh=fresh)
    found = {}
    for kind in ("fresh", "continued"):
        found |= probes.measured(plasticity_probe(steps=3, targets=1, optimizer=kind), probe)
    assert found["plasticity_probe/continued_loss"] > 20 * found["plasticity_probe/loss"]
    assert found["plasticity_probe/continued_fresh_loss"] < 20 * found["plasticity_probe/fresh_loss"]
    assert found["plasticity_probe/continued"] > 10


def test_minibatches_are_the_same_for_both(probes):
    """A learner with the fresh parameters ends where the fresh network ends, whatever rows are drawn."""
    params = probes.initial(SPEC)
    probe = probes.of_network(SPEC, params, INPUTS)
    probe = probe._replace(fresh=lambda key: probe.learner)
    found = probes.measured(plasticity_probe(steps=5, targets=2, batch=4), probe)
    assert found["plasticity_probe"] == pytest.approx(0, abs=1e-5)
    whole = probes.measured(plasticity_probe(steps=5, targets=2), probe)
    assert found["plasticity_probe/loss"] != pytest.approx(whole["plasticity_probe/loss"], rel=1e-3)
    assert found["plasticity_probe/initial_loss"] == pytest.approx(whole["plasticity_probe/initial_loss"], rel=1e-2)


@pytest.mark.slow
def test_a_learner_that_is_not_finite_has_no_numbers(probes):
    """Not even those of the fresh network."""
    params = jax.tree.map(lambda x: x * jnp.nan, probes.initial(SPEC))
    probe = probes.of_network(SPEC, params, INPUTS)
    for monitor in (plasticity_probe(steps=2, targets=1), warm_start_gap(steps=2), upgd_plasticity(), capacity()):
        assert np.isnan(list(probes.measured(monitor, probe).values())).all()


# One update.


def quadratic(probes: Any, start: float, rate: float, scale: float = 1.0) -> Any:
    """``scale theta^2`` from ``start`` with plain descent: ``theta <- (1 - 2 scale rate) theta``."""
    rule = sgd(learning_rate=rate)
    params = {"x": jnp.asarray(start)}

    def loss(p):
        return scale * p["x"] ** 2

    def fresh(key):
        return Learner({"x": jnp.asarray(3.0)}, (), rule.init(params))

    probe = probes.written({"hidden_0": jnp.ones((2, 2))}, params, loss)
    return probe._replace(optimizer=rule, learner=Learner(params, (), rule.init(params)), fresh=fresh)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0.1, 1 - 0.8**2), (0.5, 1.0), (1.5, 0.0)],  # theta 0.8, 0 and -2 times what it was
)
def test_upgd_plasticity(probes, rate, expected):
    found = probes.measured(upgd_plasticity(), quadratic(probes, 2.0, rate))
    assert found == {"upgd_plasticity": pytest.approx(expected, abs=1e-6)}


@pytest.mark.parametrize("scale", [-1.0, 0.0])
def test_a_loss_that_is_no_error_has_no_ratio(probes, scale):
    assert np.isnan(probes.measured(upgd_plasticity(), quadratic(probes, 2.0, 0.1, scale))["upgd_plasticity"])


def test_warm_start_gap(probes):
    """Three updates multiply theta by 0.8 each; the fresh network starts at 3."""
    found = probes.measured(warm_start_gap(steps=3), quadratic(probes, 5.0, 0.1))
    warm, fresh = (5 * 0.8**3) ** 2, (3 * 0.8**3) ** 2
    expected = {"warm_start_gap": warm - fresh, "warm_start_gap/loss": warm, "warm_start_gap/fresh_loss": fresh}
    assert found == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}


# Behind an eligibility trace.


GRADIENT = {"w": jnp.asarray([3.0, -1.0])}


@pytest.mark.parametrize(
    ("rule", "step"),
    [
        (lambda: sgd(learning_rate=0.1), [-0.3, 0.1]),
        (lambda: eligibility.obgd(learning_rate=1.0, kappa=2.0), [-3 / 8, 1 / 8]),  # 1 / (1 * 2 * max(1, 1) * 4)
        (lambda: eligibility.adaptive_q(learning_rate=0.1, eps=1.0), [-0.1 * 3 / 4, 0.1 / 2]),  # v = g^2
    ],
)
def test_a_trace_is_stood_aside(rule, step):
    """A step along the gradient, whatever the trace contains."""
    traced = eligibility.eligible(rule())
    state = traced.init(GRADIENT)._replace(trace={"w": jnp.asarray([7.0, 7.0])}, going=jnp.ones(()))
    updates, after = plain(traced).update(GRADIENT, state, GRADIENT)
    np.testing.assert_allclose(updates["w"], step, rtol=1e-6)
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_traces_of_an_actor_and_its_critic():
    both = eligibility.parts({name: eligibility.eligible(sgd(learning_rate=0.5)) for name in ("policy", "value")})
    params = {"policy": {"w": jnp.ones(2)}, "value": {"w": jnp.ones(1)}}

    def loss(p, rows):
        return jnp.sum(p["policy"]["w"] ** 2) + jnp.sum(p["value"]["w"] ** 2 / 2)

    found = train(both, Start(params, both.init(params)), loss, 1, jax.random.key(0))
    np.testing.assert_allclose(found["policy"]["w"], 0.0, atol=1e-6)
    np.testing.assert_allclose(found["value"]["w"], 0.5)


# Capacity.


def named(probes: Any, meaning: str = "logits") -> Any:
    """A linear actor and critic, and a deviation that no observation enters."""
    spec = NetworkSpec((4,), 3)
    whole = build(spec)

    def apply(params, x, *memory):
        made = whole.forward(params["layers"], x)[0]
        return {"policy": made[:, :2], "value": made[:, 2:], "scale": params["scale"]}, {}, ()

    def init(key):
        return {"layers": whole.init(key), "scale": jnp.zeros(16)}

    params = init(jax.random.key(1))
    probe = probes.of_network(spec, params["layers"], INPUTS)
    network = whole._replace(init=init, apply=apply)

    def fresh(key):
        return Learner(init(key), (), ())

    return probe._replace(network=network, learner=Learner(params, (), ()), fresh=fresh, meaning=meaning)


def test_outputs_without_observations_are_left_out(probes):
    probe = named(probes)
    found = outputs(probe.network, probe.learner.params, INPUTS)
    assert {name: value.shape for name, value in found.items()} == {"policy": (16, 2), "value": (16, 1)}


def test_divergence():
    p, q = np.array([0.25, 0.75]), np.array([0.5, 0.5])
    expected = 0.25 * np.log(0.25 / 0.5) + 0.75 * np.log(0.75 / 0.5)
    found = divergence(jnp.log(p)[None] + 3.0, jnp.log(q)[None] - 2.0)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


@pytest.mark.parametrize("meaning", ["logits", "prediction"])
def test_capacity_of_actor_and_critic(probes, meaning):
    """With a step size of zero nothing is learned, so these are the divergence and error of the two networks."""
    probe, key = named(probes, meaning), jax.random.key(4)
    found = capacity(learning_rate=0.0).measure(key, (), probe)[1]
    fresh = probe.fresh(jax.random.split(key)[0]).params
    target, mine = (outputs(probe.network, params, INPUTS) for params in (fresh, probe.learner.params))
    policy = [np.asarray(each["policy"], np.float64) for each in (target, mine)]
    p, q = (np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in policy)
    kl = np.mean(np.sum(p * np.log(p / q), axis=1))
    value = np.mean((np.asarray(target["value"]) - np.asarray(mine["value"])) ** 2)
    expected = kl if meaning == "logits" else np.mean((policy[0] - policy[1]) ** 2)
    assert float(found["capacity/policy"]) == pytest.approx(expected, rel=1e-4)
    assert float(found["capacity/value"]) == pytest.approx(value, rel=1e-4)
    assert float(found["capacity"]) == pytest.approx(expected + value, rel=1e-4)
    learned = capacity(learning_rate=0.05, batch=4).measure(key, (), probe)[1]
    assert float(learned["capacity/value"]) < 0.9 * value


def test_one_epoch_sees_every_row_once(probes):
    """Plain sums of gradients cannot tell rows apart, so the rows are counted where they are used."""
    seen = []
    probe = probes.of_network(NetworkSpec((4,), 2), probes.initial(NetworkSpec((4,), 2)), INPUTS)

    def apply(params, x, *memory):
        if x.shape[0] != 16:
            jax.debug.callback(lambda rows: seen.append(np.asarray(rows)), x)
        return x @ params["output"]["kernel"] + params["output"]["bias"], {}, ()

    capacity(batch=5).measure(jax.random.key(0), (), probe._replace(network=probe.network._replace(apply=apply)))
    jax.effects_barrier()
    rows = np.concatenate(seen)
    assert rows.shape == (15, 4)
    assert len(np.unique(rows, axis=0)) == 15


def test_a_smaller_batch_than_asked_for(probes):
    spec = NetworkSpec((4,), 2)
    found = probes.measured(capacity(batch=512), probes.of_network(spec, probes.initial(spec), INPUTS))
    assert set(found) == {"capacity"}
    assert found["capacity"] > 0


def test_fresh_networks_are_redrawn(probes):
    spec = NetworkSpec((4,), 2)
    probe = probes.of_network(spec, probes.initial(spec), INPUTS)
    first, second = (current_and_fresh(probe, jax.random.key(i)).params["output"]["kernel"] for i in (0, 1))
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.allclose(first[1], second[1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("plasticity_probe", {"steps": 0}),
        ("plasticity_probe", {"targets": 0}),
        ("plasticity_probe", {"batch": 0}),
        ("plasticity_probe", {"optimizer": "used"}),
        ("plasticity_probe", {"frequency": 0.0}),
        ("capacity", {"batch": 0}),
        ("warm_start_gap", {"steps": 0}),
    ],
)
def test_settings_out_of_range(name, settings):
    (key, value), *_ = settings.items()
    with pytest.raises(ValueError, match=f"{key}: .?{value}.? is not allowed; must be"):
        MONITORS[name](**settings)
