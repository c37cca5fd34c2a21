"""Networks: wiring, normalisations, initialisers, and what a spec refuses."""

import dataclasses
import functools
import inspect
import typing

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.core.types import Learner
from plasticity.interventions import surgery
from plasticity.networks import spec as specs
from plasticity.networks.activations import ACTIVATIONS, leaky_relu
from plasticity.networks.build import build, join
from plasticity.networks.layers import INITIALISERS, NORMALISATIONS
from plasticity.networks.presets import minatar, mlp, nature, streaming
from plasticity.networks.spec import Convolution, Head, NetworkSpec

# Quick to compile, because most of these tests run outside jit. The patches have tests of their own.
FLAT = NetworkSpec((6,), 3, widths=(5, 4), initialiser="glorot")
STACK = (Convolution(3, 3, 2), Convolution(4, 2, 1, "SAME"))
DEEP = dataclasses.replace(FLAT, observation=(7, 8, 2), convolutions=STACK, convolution="lax")
CHAINS = {"mlp": mlp, "minatar": minatar, "nature": nature, "streaming": streaming}
KEY = jax.random.key(7)


def draw(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def leaves(params):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def rest_of(spec, params, i, post):
    """Layers ``i + 1`` and following, as a network of their own, on the activations of layer ``i``."""
    used = len(spec.convolutions)
    depth = used + len(spec.widths)
    tail = dataclasses.replace(
        spec,
        observation=post.shape[1:],
        convolutions=spec.convolutions[i + 1 :],
        widths=spec.widths[max(i + 1 - used, 0) :],
        parameterisation=spec.parameterisation if i + 1 < depth else "none",
    )
    renamed = {f"hidden_{j}": params[f"hidden_{j + i + 1}"] for j in range(depth - i - 1)}
    return build(tail).forward(renamed | {"output": params["output"]}, post)[0]


def cut(params, units, unit, owner):
    """The parameters with the outgoing rows of a unit of a chain at zero."""
    ((name,),) = (sink.path for sink in units.sinks)
    kernel = jnp.where((owner == unit)[:, None], 0.0, params[name]["kernel"])
    return params | {name: params[name] | {"kernel": kernel}}


def depends(spec, params, i, unit, post):
    """Whether the output depends on the activation of a unit of layer ``i``, given by its channel."""
    size = [*(each.filters for each in spec.convolutions), *spec.widths][i]
    mine = np.arange(post.shape[-1]) % size == unit
    changed = jnp.where(mine, post + 1.0 + draw(post.shape) ** 2, post)
    before, after = (np.asarray(rest_of(spec, params, i, x)) for x in (post, changed))
    return not np.array_equal(before, after)


STYLES = [{"activation": name, "normalisation": norm} for name in ("relu", "crelu") for norm in NORMALISATIONS]
STYLES += [{"activation": name} for name in ACTIVATIONS if name not in ("relu", "crelu", "swish", "linear")]
STYLES += [{"activation": "crelu", "parameterisation": kind} for kind in ("weight", "spectral")]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: "-".join(style.values()))
def test_a_unit_without_its_outgoing_rows_is_out_of_the_network(style):
    spec = dataclasses.replace(DEEP, **style)
    network = build(spec)
    params, x = network.init(KEY), draw((4, 7, 8, 2))
    outputs, activations = network.forward(params, x)
    for i, units in enumerate(network.units):
        post = activations[units.name].post
        np.testing.assert_allclose(rest_of(spec, params, i, post), outputs, rtol=1e-5, atol=1e-6)
        assert depends(spec, params, i, 1, post)
        assert not depends(spec, cut(params, units, 1, units.sinks[0].owner), i, 1, post)


BRANCHED = dataclasses.replace(DEEP, widths=(4,), heads=(Head("a", 1, (3,)), Head("b", 2, (2,))))
RECYCLED = {
    "dense": FLAT,
    "bare_heads": dataclasses.replace(FLAT, heads=(Head("a", 1), Head("b", 2))),
    "injected": dataclasses.replace(FLAT, injected=1, activation="tanh"),
    "injected_output": dataclasses.replace(FLAT, injected=0),
    "injected_crelu_heads": dataclasses.replace(BRANCHED, injected=2, activation="crelu"),
    "auxiliary": dataclasses.replace(FLAT, auxiliary=2),
    **{name: dataclasses.replace(DEEP, activation=name) for name in ACTIVATIONS},
    "weight": dataclasses.replace(DEEP, parameterisation="weight"),
    "weight_fourier_heads": dataclasses.replace(BRANCHED, parameterisation="weight", activation="deep_fourier"),
}


def recycled(network, params, name, unit):
    """The parameters after a unit was reset, as interventions do it, and the mask of its incoming weights."""
    chosen = jnp.arange(next(each for each in network.units if each.name == name).size) == unit
    incoming, outgoing = surgery.unit_masks(network, params, {name: chosen})
    learner = Learner(params, (), ())
    fresh = network.init(jax.random.key(8))
    rule = optax.identity()
    return surgery.reinitialise(learner, incoming, outgoing, fresh, rule, optimizer_slots=False).params, incoming


def moved(params, mask):
    return jax.tree.map(lambda leaf, m: jnp.where(m, leaf + 1.0, leaf), params, mask)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECYCLED)
def test_a_recycled_unit_has_no_effect_whatever_comes_into_it(name):
    """Neither fresh nor other incoming weights matter, because only outgoing weights connect the unit."""
    spec = RECYCLED[name]
    network = build(spec)
    params, x = network.init(KEY), draw((3, *spec.observation))
    params = jax.tree.map(lambda leaf: leaf + 0.3 * draw(leaf.shape, leaf.size), params)  # anchors and biases too
    apply = jax.jit(lambda params: network.forward(params, x)[0])
    for path in network.hidden:
        severed, incoming = recycled(network, params, path[0], 1)
        assert not np.array_equal(apply(moved(params, incoming)), apply(params))
        np.testing.assert_array_equal(apply(moved(severed, incoming)), apply(severed))


SMALL = {"mlp": (4, 3, 1), "minatar": (5, 5, 2), "nature": (36, 36, 1), "streaming": (1, 53, 53)}


@pytest.mark.parametrize("style", [{}, {"activation": "crelu", "parameterisation": "weight", "injected": 1}])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "mlp" else pytest.mark.slow) for name in CHAINS]
)
def test_a_recycled_unit_of_every_factory_has_no_effect(name, style):
    observation = jax.ShapeDtypeStruct(SMALL[name], jnp.float32)
    spec = CHAINS[name](observation, 2, widths=(4,), activation="tanh", normalisation="none", initialiser="lecun")
    spec = dataclasses.replace(spec, convolution="lax", **style)
    network = build(spec)
    params, x = jax.jit(network.init)(KEY), draw((1, *spec.observation))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * draw(leaf.shape, leaf.size), params)
    apply = jax.jit(lambda params: network.forward(params, x)[0])
    for path in network.hidden:
        severed, incoming = recycled(network, params, path[0], 1)
        np.testing.assert_array_equal(apply(moved(severed, incoming)), apply(severed))


@pytest.mark.parametrize("style", [{"normalisation": "layer"}, {"parameterisation": "spectral"}])
def test_a_severed_unit_is_felt_by_its_neighbours_where_they_share_statistics(style):
    """The exception: mean and variance of a layer, or its largest singular value, are of all its units together."""
    spec = dataclasses.replace(FLAT, **style)
    network = build(spec)
    severed, incoming = recycled(network, network.init(KEY), "hidden_0", 1)
    x = draw((3, 6))
    bent = jax.tree.map(lambda leaf, m: jnp.where(m, 3.0 * leaf + 1.0, leaf), severed, incoming)
    assert not np.allclose(network.forward(severed, x)[0], network.forward(bent, x)[0], atol=1e-3)


def test_an_auxiliary_layer_has_parameters_and_nothing_else():
    plain, more = build(DEEP), build(dataclasses.replace(DEEP, auxiliary=7))
    params, x = more.init(KEY), draw((2, 7, 8, 2))
    assert {name: leaf.shape for name, leaf in params["auxiliary"].items()} == {"kernel": (4, 7), "bias": (7,)}
    for name, leaf in leaves(plain.init(KEY)).items():
        np.testing.assert_array_equal(leaf, leaves(params)[name])
    (outputs, activations), expected = more.forward(params, x), plain.forward(plain.init(KEY), x)
    np.testing.assert_array_equal(outputs, expected[0])
    assert tuple(activations) == (*expected[1], "auxiliary")
    by_hand = activations["hidden_3"].post @ params["auxiliary"]["kernel"]
    np.testing.assert_allclose(activations["auxiliary"].post, by_hand, rtol=1e-5, atol=1e-6)
    assert more.layers == plain.layers
    assert (more.auxiliary, more.outputs, plain.auxiliary) == ((("auxiliary",),), (("output",),), ())
    assert [[sink.path[0] for sink in each.sinks] for each in more.units][-1] == ["output", "auxiliary"]
    assert join({"actor": more, "critic": plain}).auxiliary == (("actor", "auxiliary"),)
    alone = dataclasses.replace(FLAT, widths=(), heads=(Head("a", 1, (3, 2)), Head("b", 2, (4,))), auxiliary=5)
    assert build(alone).init(KEY)["auxiliary"]["kernel"].shape == (2, 5)  # the first head's last
    with pytest.raises(ValueError, match="auxiliary needs a network with a hidden layer"):
        dataclasses.replace(FLAT, widths=(), auxiliary=5)


def test_the_numbers_of_an_activation():
    x = np.array([[-3.0, 0.5, 2.0]], np.float32)
    spec = NetworkSpec((3,), 1, widths=(3,), activation=leaky_relu(negative_slope=0.5))
    network = build(spec)
    params = network.init(KEY)
    params["hidden_0"]["kernel"] = jnp.eye(3)
    np.testing.assert_allclose(network.forward(params, x)[1]["hidden_0"].post, [[-1.5, 0.5, 2.0]])
    assert spec == dataclasses.replace(spec, activation=functools.partial(leaky_relu, negative_slope=0.5))
    assert spec != dataclasses.replace(spec, activation="leaky_relu")
    assert dataclasses.replace(spec, activation="leaky_relu").activation == leaky_relu()


@pytest.mark.parametrize("activation", ["leaky_relu", "crelu"])
def test_repeat_in_place_of_tile_leaves_a_convolutional_unit_connected(activation):
    spec = dataclasses.replace(DEEP, activation=activation)
    network = build(spec)
    params, x = network.init(KEY), draw((4, 7, 8, 2))
    units, post = network.units[1], network.forward(params, x)[1]["hidden_1"].post
    assert [sink.path for sink in units.sinks] == [("hidden_2",)]
    owner = units.sinks[0].owner
    repeated = np.repeat(np.arange(4), len(owner) // 4)
    for unit in range(4):
        assert depends(spec, cut(params, units, unit, repeated), 1, unit, post)
        assert not depends(spec, cut(params, units, unit, owner), 1, unit, post)


def wired(network):
    return [units.sources for units in network.units], [units.sinks for units in network.units]


def test_wiring_by_hand():
    network = build(NetworkSpec((3, 4, 1), 2, (Convolution(2, 2), Convolution(3, 2)), (2,), activation="crelu"))
    sources, sinks = ([[part.path[0] for part in parts] for parts in each] for each in wired(network))
    assert [each.name for each in network.units] == ["hidden_0", "hidden_1", "hidden_2"]
    assert (sources, sinks) == ([["hidden_0"], ["hidden_1"], ["hidden_2"]], [["hidden_1"], ["hidden_2"], ["output"]])
    owners = [each.sinks[0].owner.tolist() for each in network.units]  # maps are 2x3, then 1x2
    assert owners == [[0, 1, 0, 1], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2], [0, 1, 0, 1]]
    assert network.hidden == (("hidden_0",), ("hidden_1",), ("hidden_2",))
    assert network.outputs == (("output",),)


@pytest.mark.parametrize("activation", ["relu", "crelu"])
@pytest.mark.parametrize("name", CHAINS)
def test_shapes_agree_with_the_wiring(name, activation):
    pixels = jax.ShapeDtypeStruct((10, 10, 4) if name == "minatar" else (4, 84, 84), jnp.uint8)
    spec = CHAINS[name](pixels, 5, activation=activation, normalisation="layer")
    network = build(spec)
    params = jax.eval_shape(network.init, KEY)
    outputs, activations = jax.eval_shape(network.forward, params, jax.ShapeDtypeStruct((2, *pixels.shape), jnp.uint8))
    assert outputs.shape == (2, 5)
    assert tuple(activations) == tuple(each.name for each in network.units)
    for units in network.units:
        ((source,), (sink,)), size = (units.sources, units.sinks), units.size
        rows = params[sink.path[0]]["kernel"].shape[-2]
        assert {leaf.shape[-1] for leaf in jax.tree.leaves(params[source.path[0]])} == {size}
        assert activations[units.name].pre.shape[-1] == size
        assert activations[units.name].post.shape[-1] == size * units.copies
        assert sink.owner.shape == (rows,)
        assert set(np.bincount(sink.owner)) == {rows // size}


def test_parameters_by_name():
    spec = dataclasses.replace(FLAT, widths=(5,), normalisation="layer")
    names = {
        "layer": {"['hidden_0']['norm']['scale']", "['hidden_0']['norm']['offset']"},
        "rms": {"['hidden_0']['norm']['scale']"},
        "batch": {"['hidden_0']['norm']['scale']", "['hidden_0']['norm']['offset']"},
        "map": set(),
        "none": set(),
    }
    always = {"['hidden_0']['kernel']", "['hidden_0']['bias']", "['output']['kernel']", "['output']['bias']"}
    for normalisation, expected in names.items():
        found = build(dataclasses.replace(spec, normalisation=normalisation)).init(KEY)
        assert set(leaves(found)) == always | expected
    bare = build(dataclasses.replace(spec, affine=False, bias=False)).init(KEY)
    assert set(leaves(bare)) == always - {"['hidden_0']['bias']"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", [0.0, 0.0, 2.0]),
        ("leaky_relu", [-0.01, 0.0, 2.0]),
        ("tanh", [-0.7615942, 0.0, 0.9640276]),
        ("gelu", [-0.1586553, 0.0, 1.9544997]),  # z Phi(z)
        ("silu", [-0.2689414, 0.0, 1.7615942]),
        ("swish", [-0.2689414, 0.0, 1.7615942]),
        ("elu", [-0.6321206, 0.0, 2.0]),
        ("identity", [-1.0, 0.0, 2.0]),
        ("linear", [-1.0, 0.0, 2.0]),
        ("crelu", [0.0, 0.0, 2.0, 1.0, 0.0, 0.0]),
        ("deep_fourier", [-0.8414710, 0.0, 0.9092974, 0.5403023, 1.0, -0.4161468]),
        ("smooth_leaky", [-0.2429822, 0.0, 1.9379987]),  # 0.1 z + 0.9 z / (1 + exp(-5 z / 3))
    ],
)
def test_activation_values(name, expected):
    network = build(NetworkSpec((3,), 1, widths=(3,), activation=name))
    params = network.init(KEY)
    params["hidden_0"]["kernel"] = jnp.eye(3)
    _, activations = network.forward(params, jnp.array([[-1.0, 0.0, 2.0]]))
    np.testing.assert_allclose(activations["hidden_0"].pre[0], [-1.0, 0.0, 2.0])
    np.testing.assert_allclose(activations["hidden_0"].post[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "slopes"),
    [
        ("relu", [0.0]),
        ("leaky_relu", [0.01]),
        ("elu", [1.0]),
        ("crelu", [0.0, 0.0]),
        ("smooth_leaky", [0.55]),
    ],
)
def test_slopes_at_zero_are_those_of_pytorch(name, slopes):
    """Of a streaming agent all pre-activations are exactly 0 at the first step; the slopes are PyTorch's, by its rules:
    relu ``z > 0``, leaky_relu ``z > 0 ? 1 : slope``, elu ``z > 0 ? 1 : alpha exp(z)``."""
    network = build(NetworkSpec((1,), 1, widths=(1,), activation=name))
    params = network.init(KEY)
    params["hidden_0"] = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}
    found = jax.jacobian(lambda x: network.forward(params, x[None])[1]["hidden_0"].post[0])(jnp.zeros(1))
    np.testing.assert_allclose(found.ravel(), slopes, rtol=1e-6)


def passed_through(normalisation, x, **settings):
    """The input of the non-linearity if the kernel is the identity."""
    size = x.shape[-1]
    layers = {"widths": (size,)} if x.ndim == 2 else {"convolutions": (Convolution(size, 1),), "convolution": "lax"}
    network = build(NetworkSpec(x.shape[1:], 1, normalisation=normalisation, **layers, **settings))
    params = network.init(KEY)
    params["hidden_0"]["kernel"] = jnp.eye(size).reshape(params["hidden_0"]["kernel"].shape)
    if "norm" in params["hidden_0"]:
        params["hidden_0"]["norm"]["scale"] = 2.0 * jnp.ones(size)
    if normalisation in ("layer", "batch") and "norm" in params["hidden_0"]:
        params["hidden_0"]["norm"]["offset"] = jnp.arange(size) * 1.0
    return network.forward(params, x)[1]["hidden_0"].pre


def test_layer_and_rms_normalisation_by_hand():
    x = jnp.array([[1.0, 2.0, 3.0, 4.0]])  # mean 2.5, variance 1.25, mean square 7.5
    layer = np.array([[-1.5, -0.5, 0.5, 1.5]]) / np.sqrt(1.25 + 1e-6)
    np.testing.assert_allclose(passed_through("layer", x), 2 * layer + np.arange(4), rtol=1e-6)
    np.testing.assert_allclose(passed_through("layer", x, affine=False), layer, rtol=1e-6)
    rms = np.array([[1.0, 2.0, 3.0, 4.0]]) / np.sqrt(7.5 + 1e-6)
    np.testing.assert_allclose(passed_through("rms", x), 2 * rms, rtol=1e-6)
    np.testing.assert_allclose(passed_through("rms", x, affine=False), rms, rtol=1e-6)


def test_epsilon_is_inside_the_root():
    x = jnp.array([[0.0, 2e-3]])  # mean 1e-3, variance 1e-6, mean square 2e-6
    np.testing.assert_allclose(passed_through("layer", x, affine=False), [[-0.7071068, 0.7071068]], rtol=1e-4)
    np.testing.assert_allclose(passed_through("rms", x, affine=False), [[0.0, 2 / np.sqrt(3)]], rtol=1e-4)
    np.testing.assert_allclose(passed_through("map", x), np.array([[-1.0, 1.0]]) / np.sqrt(11), rtol=1e-4)


def test_axes_of_the_normalisations_of_a_convolution():
    x = draw((2, 3, 4, 5)) + 2.0
    z = np.asarray(x, np.float64)
    map_ = (z - z.mean((1, 2, 3), keepdims=True)) / np.sqrt(z.var((1, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(passed_through("map", x), map_, atol=1e-5)
    layer = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(passed_through("layer", x, affine=False), layer, atol=1e-5)
    batch = (z - z.mean((0, 1, 2))) / np.sqrt(z.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(passed_through("batch", x, affine=False), batch, atol=1e-5)
    np.testing.assert_allclose(passed_through("batch", x), 2 * batch + np.arange(5), atol=1e-5)


def test_batch_statistics_are_those_of_the_lane():
    network = build(dataclasses.replace(DEEP, normalisation="batch"))
    params, x = network.init(KEY), draw((2, 4, *DEEP.observation))
    both = jax.vmap(lambda x: network.forward(params, x)[0])(x.at[1].mul(3.0))
    np.testing.assert_allclose(both[0], network.forward(params, x[0])[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both[1], network.forward(params, 3 * x[1])[0], rtol=1e-4, atol=1e-5)
    alone = network.forward(params, x[0, :2])[0]
    assert float(jnp.abs(alone - both[0, :2]).max()) > 0.01  # other rows, other statistics
    assert network.batch_statistics
    assert not build(dataclasses.replace(DEEP, normalisation="layer")).batch_statistics


@pytest.mark.parametrize("spec", [FLAT, DEEP])
@pytest.mark.parametrize("normalisation", ["layer", "rms", "map", "batch"])
def test_normalised_layers_do_not_feel_the_scale_of_their_kernels(spec, normalisation):
    network = build(dataclasses.replace(spec, normalisation=normalisation, bias=False))
    params, x = network.init(KEY), draw((3, *spec.observation))
    scaled = {
        name: layer | {"kernel": layer["kernel"] * (1.0 if name == "output" else 3.0 + i)}
        for i, (name, layer) in enumerate(params.items())
    }
    expected, found = network.forward(params, x)[0], network.forward(scaled, x)[0]
    np.testing.assert_allclose(found, expected, atol=1e-3 * float(jnp.abs(expected).max()))


def kernels(initialiser):
    """A wide dense, a convolutional and a wide output kernel."""
    wide = NetworkSpec((200,), 250, widths=(300,), initialiser=initialiser)
    deep = NetworkSpec((5, 5, 10), 1, (Convolution(200, 5),), initialiser=initialiser, convolution="lax")
    flat, conv = build(wide).init(KEY), build(deep).init(KEY)
    kernels = [flat["hidden_0"]["kernel"], flat["output"]["kernel"], conv["hidden_0"]["kernel"].reshape(250, 200)]
    assert all(not bias.any() for bias in (flat["hidden_0"]["bias"], flat["output"]["bias"], conv["hidden_0"]["bias"]))
    return [np.asarray(kernel) for kernel in kernels]


@pytest.mark.parametrize(
    ("initialiser", "gain", "kurtosis"),
    [("he", 2.0, 3.0), ("lecun", 1.0, 3.0), ("pytorch", 1 / 3, 1.8)],  # a normal and a uniform distribution
)
def test_moments_of_initialisers(initialiser, gain, kurtosis):
    for kernel in kernels(initialiser):  # at least 50,000 numbers: the standard error of the variance is 0.6 %
        variance = gain / kernel.shape[0]
        assert kernel.var() == pytest.approx(variance, rel=0.03)
        assert abs(kernel.mean()) < 4 * np.sqrt(variance / kernel.size)
        assert (kernel**4).mean() / variance**2 == pytest.approx(kurtosis, rel=0.1)


def test_bounds_of_initialisers_and_orthogonal_kernels():
    dense, output, conv = kernels("glorot")
    for kernel, outputs in ((dense, 300), (output, 250), (conv, 200 * 25)):  # fan_out counts the window too
        bound = np.sqrt(6 / (kernel.shape[0] + outputs))
        assert 0.99 * bound < np.abs(kernel).max() <= bound
    for kernel in kernels("pytorch"):
        bound = 1 / np.sqrt(len(kernel))
        assert 0.99 * bound < np.abs(kernel).max() <= bound
    for kernel in kernels("orthogonal"):
        gram = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
        np.testing.assert_allclose(gram, 2 * np.eye(len(gram)), atol=1e-4)


@pytest.mark.parametrize(("fan_in", "zeros"), [(7, 7), (11, 10), (70, 63)])
def test_sparse_initialiser_leaves_a_tenth(fan_in, zeros):
    kernel = np.asarray(INITIALISERS["sparse"](KEY, (fan_in, 50)))
    assert set((kernel == 0).sum(0)) == {zeros}
    assert np.abs(kernel).max(initial=0) <= 1 / np.sqrt(fan_in)


def test_sparse_initialiser_in_a_network():
    for kernel in kernels("sparse"):
        fan_in = kernel.shape[0]
        assert set((kernel == 0).sum(0)) == {-(-9 * fan_in // 10)}
        used = kernel[kernel != 0]
        assert used.var() == pytest.approx(1 / (3 * fan_in), rel=0.06)  # of U(-b, b): b^2 / 3
        assert (kernel != 0).sum(1).std() > 1  # the units choose their inputs independently


def test_init_is_a_function_of_the_key():
    network = build(DEEP)
    once, again, other = (leaves(network.init(jax.random.key(k))) for k in (1, 1, 2))
    for name, leaf in once.items():
        np.testing.assert_array_equal(leaf, again[name])
        assert "kernel" not in name or not np.array_equal(leaf, other[name])


APPLIED = {
    "mlp": mlp(jax.ShapeDtypeStruct((6,), jnp.float32), 3, widths=(4,), normalisation="layer"),
    "parametric": mlp(jax.ShapeDtypeStruct((6,), jnp.float32), 3, widths=(4,), activation="prelu"),
    "minatar": minatar(jax.ShapeDtypeStruct((10, 10, 4), jnp.bool_), 3, filters=2, widths=(4,), normalisation="rms"),
}


@pytest.mark.parametrize("spec", APPLIED.values(), ids=APPLIED.keys())
def test_applying_a_network_draws_no_parameters(spec, monkeypatch):
    """Not even while it is traced: flax's own ``param`` would trace every initialiser."""
    network = build(spec)
    params = jax.eval_shape(network.init, KEY)

    def drawn(*args, **kwargs):
        raise AssertionError(args)

    monkeypatch.setattr(flax.linen.Module, "param", drawn)
    jax.eval_shape(network.forward, params, jax.ShapeDtypeStruct((2, *spec.observation), jnp.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (7, 4)}, r"hidden_0/kernel: shape \[6, 5\] is not allowed; must be \[6, 7\]"),
        ({"observation": (9,)}, r"hidden_0/kernel: shape \[6, 5\] is not allowed; must be \[9, 5\]"),
        ({"outputs": 1}, r"output/kernel: shape \[4, 3\] is not allowed; must be \[4, 1\]"),
    ],
)
def test_parameters_of_another_network_are_refused(change, message):
    params = build(FLAT).init(KEY)
    other = dataclasses.replace(FLAT, **change)
    with pytest.raises(ValueError, match=message):
        build(other).forward(params, draw((2, *other.observation)))


def test_lanes_by_vmap_equal_lanes_by_loop():
    style = {"normalisation": "layer", "activation": "crelu", "initialiser": "glorot"}
    network = build(NetworkSpec((5, 6, 2), 3, (Convolution(3, 3, 2),), (4,), **style))

    def live(key, x):
        params = network.init(key)
        return params, network.forward(params, x)

    keys, x = jax.random.split(KEY, 3), draw((3, 4, 5, 6, 2))
    together, alone = jax.jit(jax.vmap(live))(keys, x), jax.jit(live)
    for lane in range(3):
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone(keys[lane], x[lane])), strict=True):
            np.testing.assert_allclose(a[lane], b, rtol=1e-5, atol=1e-5)


def test_the_convolution_method_changes_neither_parameters_nor_outputs():
    patches, lax = (build(dataclasses.replace(DEEP, convolution=method)) for method in ("patches", "lax"))
    params, x = patches.init(KEY), draw((4, 7, 8, 2))
    for name, leaf in leaves(lax.init(KEY)).items():
        np.testing.assert_array_equal(leaf, leaves(params)[name])
    np.testing.assert_allclose(patches.forward(params, x)[0], lax.forward(params, x)[0], atol=1e-5)


def test_observations_are_scaled_converted_and_moved():
    frames = np.random.default_rng(3).integers(0, 256, (2, 3, 40, 41)).astype(np.uint8)
    spec = nature(jax.ShapeDtypeStruct(frames.shape[1:], jnp.uint8), 2, widths=(8,), convolution="lax")
    assert (spec.channels_first, spec.scale) == (True, 1 / 255)
    plain = dataclasses.replace(spec, observation=(40, 41, 3), channels_first=False, scale=1.0)
    params = jax.tree.map(lambda leaf: draw(leaf.shape) / leaf.size**0.5, jax.eval_shape(build(spec).init, KEY))
    expected = build(plain).forward(params, jnp.asarray(np.moveaxis(frames, 1, 3) / 255.0, jnp.float32))[0]
    np.testing.assert_allclose(build(spec).forward(params, frames)[0], expected, rtol=1e-4, atol=1e-5)
    flags = np.array([[True, False, True, True, False, False]])
    network = build(FLAT)
    params = network.init(KEY)
    np.testing.assert_array_equal(network.forward(params, flags)[0], network.forward(params, flags * 1.0)[0])


def test_an_output_layer_may_read_features_of_norm_one():
    """The same parameters as without; outputs are ``W h / |h| + b``, and all units are wired as before."""
    flat = jax.ShapeDtypeStruct((6,), jnp.float32)
    plain, unit = (build(mlp(flat, 3, widths=(5, 4), penultimate=each)) for each in ("none", "unit"))
    params, x = plain.init(KEY), draw((7, 6))
    jax.tree.map(np.testing.assert_array_equal, unit.init(KEY), params)
    outputs, activations = unit.forward(params, x)
    h = np.asarray(plain.forward(params, x)[1]["hidden_1"].post)
    np.testing.assert_array_equal(activations["hidden_1"].post, h)
    expected = h / np.linalg.norm(h, axis=1, keepdims=True) @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert [each.name for each in unit.units] == ["hidden_0", "hidden_1"]
    assert [sink.path for each in unit.units for sink in each.sinks] == [("hidden_1",), ("output",)]


def test_features_that_are_all_zero_stay_zero_without_a_gradient():
    network = build(mlp(jax.ShapeDtypeStruct((3,), jnp.float32), 2, widths=(4,), penultimate="unit"))
    params = network.init(KEY)
    outputs, slopes = jax.value_and_grad(lambda p: network.forward(p, jnp.zeros((1, 3)))[0].sum())(params)
    assert float(outputs) == 0.0
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(slopes["hidden_0"]))
    np.testing.assert_array_equal(slopes["output"]["bias"], 1.0)


def test_factories():
    maps = jax.ShapeDtypeStruct((10, 10, 4), jnp.float32)
    assert mlp(maps, 3, widths=[8]) == NetworkSpec((10, 10, 4), 3, widths=(8,))
    assert minatar(maps, 3) == NetworkSpec((10, 10, 4), 3, (Convolution(16, 3),), (128,))
    with pytest.raises(ValueError, match="penultimate: unit is not allowed without hidden layers"):
        mlp(maps, 3, widths=(), penultimate="unit")
    frames = jax.ShapeDtypeStruct((4, 84, 84), jnp.uint8)
    found = build(nature(frames, 6))
    shapes = {k: v["kernel"].shape for k, v in jax.eval_shape(found.init, KEY).items()}
    assert shapes == {
        "hidden_0": (8, 8, 4, 32),
        "hidden_1": (4, 4, 32, 64),
        "hidden_2": (3, 3, 64, 64),
        "hidden_3": (3136, 512),
        "output": (512, 6),
    }
    images = nature(jax.ShapeDtypeStruct((32, 32, 3), jnp.float32), 10, padding="SAME")
    assert (images.channels_first, images.scale, specs.shapes(images)["hidden_2"]) == (False, 1.0, (4, 4, 64))
    assert nature(frames, 6, layout="channels_last", padding="SAME").channels_first is False


@pytest.mark.parametrize(
    ("setting", "known"),
    [("normalisation", NORMALISATIONS), ("initialiser", INITIALISERS)],
)
@pytest.mark.parametrize("name", CHAINS)
def test_the_schema_of_a_factory_knows_every_name(name, setting, known):
    parameter = inspect.signature(CHAINS[name]).parameters[setting]
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    assert typing.get_args(parameter.annotation) == tuple(known)


def test_a_spec_is_hashable_data():
    listed = NetworkSpec([7, 8, 2], 3, [*STACK], [5, 4], initialiser="glorot", convolution="lax")
    assert listed == DEEP
    assert hash(listed) == hash(DEEP)
    assert dataclasses.replace(DEEP, activation="crelu") != DEEP


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "rleu"}, r"activation: .rleu. is not allowed; must be one of relu, .*, smooth_leaky"),
        (
            {"normalisation": "group"},
            "normalisation: .group. is not allowed; must be one of none, layer, rms, map, batch",
        ),
        ({"initialiser": "zero"}, "initialiser: .zero. is not allowed; must be one of he, .*, sparse"),
        ({"convolution": "fft"}, "convolution: .fft. is not allowed; must be one of auto, patches, lax"),
        ({"widths": (8, 0)}, "widths: 0 is not allowed; must be an integer of at least 1"),
        ({"widths": (2.5,)}, "widths: 2.5 is not allowed; must be an integer of at least 1"),
        (
            {"parameterisation": "batch"},
            "parameterisation: .* is not allowed; must be one of none, weight, spectral, spectral_first",
        ),
        ({"power_iterations": 0}, "power_iterations: 0 is not allowed; must be an integer of at least 1"),
        (
            {"parameterisation": "spectral_first", "widths": ()},
            "is not allowed; it needs a network with a dense hidden layer",
        ),
        ({"injected": 3}, "layers: 3 is not allowed; must be at most 2, the number of dense hidden layers"),
        ({"outputs": 0}, "outputs: 0 is not allowed; must be an integer of at least 1"),
        ({"observation": (7, 8)}, r"observation must have 3 axes .*, got \(7, 8\)"),
        ({"observation": (2, 8, 2)}, "kernel: 3 is not allowed; must be at most 2, the side of its input"),
        ({"observation": (0, 8, 2)}, "observation: 0 is not allowed; must be an integer of at least 1"),
    ],
)
def test_a_spec_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(DEEP, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 0}, "convolutions.filters: 0 is not allowed; must be an integer of at least 1"),
        ({"stride": 0}, "convolutions.stride: 0 is not allowed; must be an integer of at least 1"),
        ({"padding": "same"}, "convolutions.padding: .same. is not allowed; must be one of VALID, SAME"),
    ],
)
def test_a_convolution_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        Convolution(**({"filters": 4, "kernel": 3} | change))


def test_the_network_of_2013():
    """Mnih et al. 2013: 16 8x8 filters at stride 4, 32 4x4 filters at stride 2, 256 units."""
    network = build(nature(jax.ShapeDtypeStruct((4, 84, 84), jnp.uint8), 6, filters=(16, 32), widths=(256,)))
    shapes = jax.eval_shape(network.init, KEY)
    kernels = {name: each["kernel"].shape for name, each in shapes.items()}
    assert kernels == {
        "hidden_0": (8, 8, 4, 16), "hidden_1": (4, 4, 16, 32), "hidden_2": (9 * 9 * 32, 256), "output": (256, 6)
    }  # fmt: skip


def test_nature_refuses():
    with pytest.raises(ValueError, match=r"filters: .* is not allowed; must be a list with 1 to 3"):
        nature(jax.ShapeDtypeStruct((4, 84, 84), jnp.uint8), 6, filters=(4, 4, 4, 4))
    with pytest.raises(
        ValueError, match='layout: "nhwc" is not allowed; must be one of auto, channels_first, channels_last'
    ):
        nature(jax.ShapeDtypeStruct((4, 84, 84), jnp.uint8), 6, layout="nhwc")
    with pytest.raises(ValueError, match="observation must have 3 axes"):
        nature(jax.ShapeDtypeStruct((), jnp.float32), 6)
