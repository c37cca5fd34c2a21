"""Interventions on the network's spec, and conflicts between two of them."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP

from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.architecture import (
    crelu,
    deep_fourier,
    layer_norm,
    leaky_relu,
    rms_norm,
    smooth_leaky,
    spectral_norm,
    weight_norm,
)
from plasticity.interventions.base import clashes, undeclared
from plasticity.interventions.decay import weight_decay
from plasticity.interventions.injection import plasticity_injection
from plasticity.interventions.projection import nap
from plasticity.networks.activations import ACTIVATIONS
from plasticity.networks.build import build
from plasticity.networks.layers import spectral_norm as sigma
from plasticity.networks.spec import Convolution, Head, NetworkSpec, nodes_of

KEY = jax.random.key(5)
CNN = replace(CNN, convolution="lax")  # quick to compile


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("method", [crelu, deep_fourier])
def test_keeping_the_size_halves_every_hidden_layer(method):
    heads = (Head("policy", 1, (8,)), Head("value", 1))
    spec = NetworkSpec((6, 6, 2), 2, (Convolution(4, 3), Convolution(2, 2)), (6, 10), heads=heads)
    found = method(keep_size=True).network(spec)
    assert [layer.filters for layer in found.convolutions] == [2, 1]
    assert (found.widths, [head.widths for head in found.heads]) == ((3, 5), [(4,), ()])
    assert found.convolutions[0] == replace(spec.convolutions[0], filters=2)
    assert replace(method(keep_size=False).network(spec), activation="relu") == spec
    plain, made = (jax.eval_shape(build(each).init, KEY) for each in (spec, found))
    assert made["policy_hidden_0"]["kernel"].shape == (10, 4)
    assert plain["policy_output"]["kernel"].shape == made["policy_output"]["kernel"].shape
    with pytest.raises(ValueError, match=f"{method.__name__} with keep_size needs an even number .*, got 5"):
        method(keep_size=True).network(MLP)


def test_the_numbers_of_the_activations_reach_the_network():
    x = draw((2, 3))
    for method, expected in (
        (leaky_relu(slope=0.3), lambda z: np.where(z > 0, z, 0.3 * z)),
        (smooth_leaky(alpha=0.2, c=2.0, p=4.0), lambda z: 0.2 * z + 0.8 * z / (1 + np.exp(-z / 2))),
    ):
        network = build(method.network(replace(MLP, widths=(5,), activation="tanh")))
        seen = network.forward(network.init(KEY), x)[1]["hidden_0"]
        np.testing.assert_allclose(seen.post, expected(np.asarray(seen.pre)), rtol=1e-5, atol=1e-6)
    first = smooth_leaky().network(leaky_relu(slope=0.3).network(MLP))
    assert first.activation == ACTIVATIONS["smooth_leaky"](alpha=0.1, c=5.0, p=3.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: leaky_relu(slope=float("nan")), "slope: nan is not allowed; must be finite"),
        (lambda: smooth_leaky(c=float("inf")), "c: inf is not allowed; must be finite"),
        (lambda: smooth_leaky(p=0.0), "p: 0.0 is not allowed; must not be 0"),
        (lambda: spectral_norm(layers="last"), 'layers: "last" is not allowed; must be one of first, all'),
        (
            lambda: weight_norm().network(replace(MLP, widths=())),
            "weight is not allowed; it needs a network with",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("spec", [MLP, replace(CNN, activation="crelu")])
def test_weight_norm_leaves_the_initial_outputs_unchanged(spec):
    plain, normed = build(spec), build(weight_norm().network(spec))
    x = draw((3, *spec.observation))
    params = normed.init(KEY)
    np.testing.assert_allclose(normed.forward(params, x)[0], plain.forward(plain.init(KEY), x)[0], rtol=1e-5, atol=1e-6)
    for (name,) in normed.hidden:
        assert set(params[name]) == {"kernel", "bias", "gain"}
        kernel = np.asarray(params[name]["kernel"]).reshape(-1, params[name]["gain"].size)
        np.testing.assert_allclose(params[name]["gain"], np.linalg.norm(kernel, axis=0), rtol=1e-6)
    assert set(params["output"]) == {"kernel", "bias"}


def test_weight_norm_by_hand():
    network = build(weight_norm().network(replace(MLP, widths=(2,), activation="identity")))
    params = network.init(KEY)
    params["hidden_0"]["kernel"] = jnp.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.0]])  # lengths 5 and 0
    params["hidden_0"]["gain"] = jnp.array([10.0, 2.0])
    x = jnp.array([[1.0, 1.0, 7.0]])
    pre = network.forward(params, x)[1]["hidden_0"].pre
    np.testing.assert_allclose(pre, [[14.0, 0.0]], rtol=1e-6)  # 10 (3/5 + 4/5)
    slopes = jax.grad(lambda p: network.forward(p, x)[1]["hidden_0"].pre.sum())(params)["hidden_0"]
    # (g/|v|) (x - (x.v) v / |v|^2): at right angles to v.
    np.testing.assert_allclose(
        slopes["kernel"][:, 0], 2 * (np.array([1, 1, 7]) - 7 * np.array([3, 4, 0]) / 25), rtol=1e-5
    )
    np.testing.assert_allclose(slopes["gain"], [1.4, 0.0], rtol=1e-6)
    assert np.isfinite(slopes["kernel"]).all()


def test_spectral_norm_is_the_largest_singular_value():
    for shape in ((2, 2, 3, 5), (7, 3), (3, 7)):
        kernel = draw(shape)
        u, s, v = np.linalg.svd(kernel.reshape(-1, shape[-1]).astype(np.float64), full_matrices=False)
        value, slope = jax.value_and_grad(lambda w: sigma(w, 100))(jnp.asarray(kernel))
        assert float(value) == pytest.approx(s[0], rel=1e-5)
        np.testing.assert_allclose(slope, np.outer(u[:, 0], v[0]).reshape(shape), atol=2e-3)
    assert sigma(jnp.zeros((3, 2)), 3) == 0.0


def test_how_far_the_estimate_falls_short():
    """Gaussian 64x64 matrices, as the docstring says: about 1 % after 20 iterations, 0.1 % after 50."""
    kernels = draw((100, 64, 64))
    exact = np.linalg.svd(kernels, compute_uv=False)[:, 0]
    for iterations, mean, worst in ((20, 1e-2, 0.1), (50, 1e-3, 0.04)):
        estimate = jax.jit(jax.vmap(partial(sigma, iterations=iterations)))(jnp.asarray(kernels))
        short = 1 - np.asarray(estimate) / exact
        assert short.min() > -1e-5  # from below
        assert mean / 2 < short.mean() < 1.5 * mean
        assert short.max() < worst


def test_spectral_norm_divides_the_layers_asked_for():
    spec = replace(CNN, widths=(4, 3), activation="identity")
    x = draw((2, *spec.observation))
    plain = build(spec)
    params = plain.init(KEY)
    before = plain.forward(params, x)[1]
    largest = {
        n: np.linalg.svd(np.asarray(p["kernel"]).reshape(-1, p["kernel"].shape[-1]))[1][0] for n, p in params.items()
    }
    for layers, chosen in (("first", ["hidden_2"]), ("all", ["hidden_0", "hidden_1", "hidden_2", "hidden_3"])):
        network = build(spectral_norm(layers=layers, iterations=60).network(spec))
        outputs, after = network.forward(params, x)
        scale = np.ones(())
        for name in before:  # biases are 0, so that the factors multiply
            scale = scale / (largest[name] if name in chosen else 1.0)
            np.testing.assert_allclose(after[name].pre, before[name].pre * scale, rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(outputs, plain.forward(params, x)[0] * scale, rtol=2e-3, atol=1e-5)
    branched = replace(MLP, widths=(), heads=(Head("a", 1, (3, 2)), Head("b", 1, (2,))))
    first = {node.name for node in nodes_of(spectral_norm().network(branched)) if node.parameterisation == "spectral"}
    assert first == {"a_hidden_0", "b_hidden_0"}


def test_two_interventions_that_set_the_same_are_named():
    found = clashes({"decay": weight_decay(), "norm": layer_norm(), "nap": nap()})
    assert found == "interventions: norm and nap both set the network's normalisation; keep one"
    found = clashes({"a": crelu(), "b": leaky_relu(), "c": deep_fourier(keep_size=False), "d": rms_norm()})
    assert found == "interventions: a, b and c all set the network's activation; keep one"
    found = clashes({"w": weight_norm(), "s": spectral_norm()})
    assert found == "interventions: w and s both set the network's parameterisation; keep one"
    found = clashes({"x": plasticity_injection(layers=0), "y": plasticity_injection(layers=1)})
    assert found == "interventions: x and y both set the network's injection; keep one"
    pair = {"x": INTERVENTIONS["infer"](), "y": INTERVENTIONS["infer"]()}
    assert clashes(pair) == "interventions: x and y both set the network's auxiliary layer; keep one"


NETWORKS_OF_ALL_KINDS = (
    MLP,
    replace(MLP, normalisation="map", activation=ACTIVATIONS["leaky_relu"](negative_slope=0.1)),
    replace(MLP, parameterisation="weight", auxiliary=2),
)


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_what_an_intervention_sets_is_what_it_declares(name: str):
    keep = {"keep_size": False} if name in ("crelu", "deep_fourier") else {}  # else it needs even widths
    intervention = INTERVENTIONS[name](**keep)
    specs = [replace(spec, task_entries=2) for spec in NETWORKS_OF_ALL_KINDS]
    changed = {field for spec in specs for field in undeclared(spec, intervention.network(spec), ())}
    assert changed == set(intervention.sets)


def test_interventions_that_go_together_pass():
    together = {"a": layer_norm(), "b": crelu(), "c": weight_norm(), "d": plasticity_injection(), "e": weight_decay()}
    assert clashes(together) is None
