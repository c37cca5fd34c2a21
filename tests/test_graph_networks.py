"""The built-in networks as graphs: parameter counts, wiring, memory, pooling, and what a graph refuses."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_cases import KEY, REMEMBERING, SMALL, bare, cut, draw, forward, inputs, moved, shaken, small

from plasticity.core import trees
from plasticity.core.types import Sequence
from plasticity.interventions import surgery
from plasticity.networks.build import build
from plasticity.networks.catalogue import NETWORKS
from plasticity.networks.graph import Node, layer
from plasticity.networks.modules import pooled
from plasticity.networks.operations import (
    Activate,
    Attention,
    Concatenate,
    Convolution,
    Dense,
    Flatten,
    Pool,
    Recurrent,
    Sum,
    Token,
    Tokens,
)
from plasticity.networks.presets import mlp
from plasticity.networks.spec import NetworkSpec


def parameters(name, shape, outputs, **settings):
    observation = jax.ShapeDtypeStruct(shape, jnp.float32)
    network = build(NETWORKS[name](observation, outputs, **settings))
    return jax.eval_shape(network.init, KEY)


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


# Large kernels; tests/test_networks.py has more on chains.
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in ("nature", "streaming") else []) for name in SMALL]
WIDE = {"width": 4, "widths": (512,)}
VIT = {"width": 384, "depth": 8, "heads": 12}


@pytest.mark.parametrize(
    ("name", "shape", "outputs", "settings", "expected"),
    [
        ("resnet18", (32, 32, 3), 100, {}, 11_224_932),  # with the biases of the convolutions, as Dohare et al. 2024
        ("resnet18", (32, 32, 3), 100, {"bias": False}, 11_220_132),
        ("resnet18", (32, 32, 3), 10, {}, 11_178_762),
        ("impala", (64, 64, 3), 16, {}, 626_256),  # 15 actions and a value
        ("impala", (84, 84, 4), 18, {}, 1_093_858),
        ("impala", (84, 84, 4), 18, WIDE, 9_491_794),
        ("vit", (32, 32, 3), 100, VIT, 14_279_140),
        ("simba", (30,), 1, {}, 4_218_881),
        ("simba", (24,), 12, {"width": 128, "blocks": 1}, 136_972),
        ("simba_v2", (30,), 101, {}, 4_530_277),
    ],
)
def test_the_numbers_of_parameters_of_the_papers(name, shape, outputs, settings, expected):
    assert size(parameters(name, shape, outputs, **settings)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gru", lambda d, n: 3 * d * n + 3 * n * n + 4 * n),
        ("lstm", lambda d, n: 4 * d * n + 4 * n * n + 4 * n),
        ("rtu", lambda d, n: 2 * d * n + 2 * n),
    ],
)
def test_the_numbers_of_parameters_of_the_cells(name, expected):
    torso = functools.partial(mlp, widths=(512,))
    made = parameters(name, (7,), 3, torso=torso, units=128)
    assert size(made["memory"]) == expected(512, 128)


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_unit_has_no_effect_whatever_comes_into_it(name):
    """Of every layer of units, those of streams included, without normalisations, which mix units."""
    spec = bare(small(name, activation="tanh"))
    network = build(spec)
    params, x = shaken(network), inputs(name, network, spec)
    apply = forward(network, x)
    assert network.units
    for units in network.units:
        for unit in (0, units.size - 1):
            severed, incoming = cut(network, params, units.name, unit)
            for sink in units.sinks:
                rows = trees.get(severed, (*sink.path, "kernel"))[..., np.asarray(sink.owner) == unit, :]
                assert not rows.any()
            assert not np.array_equal(apply(moved(params, incoming)), apply(params))
            np.testing.assert_array_equal(apply(moved(severed, incoming)), apply(severed))


STREAMS = {  # where the units of streams are shown; simba, simba_v2 and vit show theirs nowhere
    "resnet18": [f"stage_{i}_block_{j}" for i in range(4) for j in range(2)],
    "impala": ["stage_0_block_0_relu", "stage_0_block_1_relu", "stage_1_block_0_relu", "stage_1_block_1_relu", "relu"],
    "residual_mlp": ["block_0_relu", "block_1_relu", "relu"],
    "multi_skip": ["block_0_relu", "block_1_relu"],
}


@pytest.mark.parametrize("name", NAMES)
def test_units_of_blocks_and_of_streams(name):
    network = build(small(name))
    streams = [units for units in network.units if units.stream]
    shown = [each for units in streams for each in units.activations if each != "stem"]
    assert shown == STREAMS.get(name, [])
    activations = [each for units in network.units for each in units.activations]
    assert sorted(activations) == sorted(layer.name for layer in network.layers)
    assert all(len(units.sources) > 1 for units in streams)


@pytest.mark.parametrize("name", ["simba", "simba_v2", "vit"])
def test_units_inside_blocks_are_severed_under_the_networks_own_normalisations_too(name):
    spec = small(name)
    network = build(spec)
    params, x = shaken(network), inputs(name, network, spec)
    apply = forward(network, x)
    for units in network.units:
        severed, incoming = cut(network, params, units.name, 1)
        np.testing.assert_array_equal(apply(moved(severed, incoming)), apply(severed))


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_owner_leaves_a_unit_connected(name):
    """Every sink of every layer is needed, each with the owners that it has."""
    spec = bare(small(name, activation="tanh"))
    network = build(spec)
    params, x = shaken(network), inputs(name, network, spec)
    apply = forward(network, x)
    for number, units in enumerate(network.units):
        for i, sink in enumerate(units.sinks):
            wrong = sink._replace(owner=np.where(sink.owner < 0, -1, (sink.owner + 1) % units.size))
            sinks = (*units.sinks[:i], wrong, *units.sinks[i + 1 :])
            others = network.units[:number], network.units[number + 1 :]
            bent = network._replace(units=(*others[0], units._replace(sinks=sinks), *others[1]))
            severed, incoming = cut(bent, params, units.name, 0)
            assert not np.array_equal(apply(moved(severed, incoming)), apply(severed)), (units.name, sink.path)


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_that_nothing_writes_is_dormant_wherever_it_is_shown(name):
    spec = bare(small(name))
    network = build(spec)
    params, x = shaken(network), inputs(name, network, spec)
    apply = jax.jit(lambda params: network.forward(params, x)[1])
    for units in network.units:
        incoming, _ = surgery.unit_masks(network, params, {units.name: jnp.arange(units.size) == 1})
        if name == "rtu" and units.name == "memory":  # the rotation is not an input
            rotation = jax.tree.map(jnp.zeros_like, incoming["memory"]["decay"])
            incoming = trees.put(incoming, ("memory", "decay"), rotation)
        seen = apply(jax.tree.map(lambda leaf, m: jnp.where(m, 0.0, leaf), params, incoming))
        for each in units.activations:
            sizes = jnp.abs(seen[each].post).reshape(-1, units.size).max(0)
            assert sizes[1] == 0, (units.name, each)
            assert (jnp.delete(sizes, 1) > 0).any()


LINEAR = [  # maxima, attention, gates and a tanh of its own are not
    name for name in SMALL if name not in ("impala", "vit", "gru", "lstm", "layer_norm_mlp")
]


@pytest.mark.parametrize("name", LINEAR)
def test_with_the_identity_as_non_linearity_a_network_is_linear(name):
    settings = {"activation": "identity"}
    if name == "rtu":
        made = NETWORKS["rtu"](
            jax.ShapeDtypeStruct((5,), jnp.float32), 2, torso=functools.partial(mlp, widths=(4,)), units=3, **settings
        )
        spec = dataclasses.replace(made, **settings)
    else:
        spec = bare(small(name, **settings))
    network = build(spec)
    params = shaken(network)

    @jax.jit
    def apply(observation):
        if name in REMEMBERING:
            observation = Sequence(observation, jnp.zeros((4, 3), bool), network.initial(3))
        return network.forward(params, observation)[0]

    shape = (4, 3, *spec.observation) if name in REMEMBERING else (3, *spec.observation)
    x, y = draw(shape, 1), draw(shape, 2)
    zero = apply(jnp.zeros(shape))
    expected = 2.0 * apply(x) - apply(y)
    np.testing.assert_allclose(apply(2.0 * x - y), expected, rtol=2e-4, atol=1e-4 * float(jnp.abs(zero).max() + 1))


@pytest.mark.parametrize("name", NAMES)
def test_lanes_by_vmap_equal_lanes_alone(name):
    spec = small(name)
    network = build(spec)

    def live(key):
        params = network.init(key)
        return params, network.forward(params, inputs(name, network, spec))

    keys = jax.random.split(KEY, 3)
    together, alone = jax.jit(jax.vmap(live))(keys), jax.jit(live)
    for lane in (0, 2):
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone(keys[lane])), strict=True):
            np.testing.assert_allclose(a[lane], b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", REMEMBERING)
def test_the_first_step_of_an_episode_resets_the_carry(name):
    network = build(small(name))
    params, x = shaken(network), draw((5, 2, 5), 4)
    first = jnp.zeros((5, 2), bool).at[2, 1].set(True)
    unroll = jax.jit(lambda x, first, carry: network.unroll(params, Sequence(x, first, carry)))
    outputs, _, carry = unroll(x, first, network.initial(2))
    rest, _, end = unroll(x[2:], jnp.zeros((3, 2), bool), network.initial(2))
    outputs, rest = outputs.reshape(5, 2, 2), rest.reshape(3, 2, 2)
    np.testing.assert_allclose(outputs[2:, 1], rest[:, 1], rtol=1e-5, atol=1e-6)
    assert not np.allclose(outputs[2:, 0], rest[:, 0], atol=1e-3)
    for a, b in zip(jax.tree.leaves(carry), jax.tree.leaves(end), strict=True):
        np.testing.assert_allclose(a[1], b[1], rtol=1e-5, atol=1e-6)
        assert not np.allclose(a[0], b[0], atol=1e-4)


@pytest.mark.parametrize("name", REMEMBERING)
def test_the_carry_of_a_reset_unit_is_zero(name):
    network = build(small(name))
    carry = network.unroll(shaken(network), inputs(name, network, small(name)))[2]
    for units in {"memory": jnp.array([False, True, False])}, {"torso_hidden_0": jnp.ones(4, bool)}:
        found = surgery.without_carry(network, carry, units)
        for old, new in zip(jax.tree.leaves(carry), jax.tree.leaves(found), strict=True):
            expected = np.array(old)
            if "memory" in units:
                expected[..., 1] = 0
            np.testing.assert_array_equal(new, expected)
            assert np.asarray(old)[..., 1].any()


@pytest.mark.parametrize("name", [name for name in SMALL if name not in REMEMBERING])
def test_networks_without_memory_have_an_empty_carry(name):
    network = build(small(name))
    assert network.initial(3) == ()
    assert not network.remembers


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("side", "window", "stride"), [(7, 3, 2), (8, 3, 2), (8, 2, 2), (5, 3, 1), (9, 4, 3)])
def test_pooling_is_that_of_reduce_window(side, window, stride, padding):
    x = draw((2, side, side + 1, 3))
    sizes = (1, window, window, 1), (1, stride, stride, 1), padding
    largest = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *sizes)
    np.testing.assert_array_equal(pooled(x, Pool("max", window, stride, padding)), largest)
    sums, counts = (jax.lax.reduce_window(each, 0.0, jax.lax.add, *sizes) for each in (x, jnp.ones_like(x)))
    found = pooled(x, Pool("mean", window, stride, padding))
    np.testing.assert_allclose(found, sums / counts, rtol=1e-5, atol=1e-6)
    assert found.shape[1:] == Pool("mean", window, stride, padding).shape((x.shape[1:],), 1)
    np.testing.assert_allclose(pooled(x, Pool("mean")), np.asarray(x).mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(pooled(x, Pool("max")), np.asarray(x).max((1, 2)))


def spec_of(*nodes, shape=(6,)):
    return NetworkSpec(shape, 2, body=nodes)


IMAGE = (8, 8, 3)
LINEAR_4 = Dense(4, activate=False)


@pytest.mark.parametrize(
    ("nodes", "shape", "message"),
    [
        ([layer("a", LINEAR_4, "b"), layer("b", LINEAR_4, "a")], (6,), "nodes: the inputs form a cycle: a <- b <- a"),
        ([layer("a", LINEAR_4, "a")], (6,), "nodes: the inputs form a cycle: a <- a"),
        ([layer("stem", LINEAR_4), layer("b", LINEAR_4, "stme")], (6,), r'nodes.b.inputs: "stme" is not a node.*stem'),
        ([layer("a", LINEAR_4), layer("a", LINEAR_4)], (6,), 'nodes: "a" is not allowed; two nodes have this name'),
        ([layer("", LINEAR_4)], (6,), "a node needs a name and at least one input"),
        ([Node("a", LINEAR_4, ())], (6,), "a node needs a name and at least one input"),
        ([Node("a", LINEAR_4, output=True)], (6,), "nodes.a: output layers are not part of the body"),
        (
            [layer("a", LINEAR_4), layer("b", Dense(5)), Node("c", Sum(), ("a", "b"))],
            (6,),
            r"node c: a sum needs inputs of one shape, got \(4,\) and \(5,\)",
        ),
        ([layer("a", Sum())], (6,), "node a: a sum reads at least two nodes, got 1"),
        ([layer("a", Concatenate())], (6,), "node a: a concatenation reads at least two nodes, got 1"),
        (
            [layer("a", LINEAR_4), layer("b", Convolution(2, 3)), Node("c", Concatenate(), ("a", "b"))],
            IMAGE,
            "node c: a concatenation needs inputs that differ on the last axis only",
        ),
        ([layer("a", LINEAR_4), Node("b", Flatten(), ("a", "a"))], (6,), "node b: flatten reads one node, got 2"),
        ([layer("a", Convolution(2, 3))], (6,), r"node a: a convolution needs an input with 3 axes, got \(6,\)"),
        ([layer("a", Convolution(2, 9))], IMAGE, "node a: convolutions.kernel: 9 is not allowed; must be at most 8"),
        ([layer("a", Pool())], (6,), r"node a: pooling needs an input with positions, got \(6,\)"),
        ([layer("a", Pool("max", 9))], IMAGE, "node a: window: 9 is not allowed; must be at most 8"),
        ([layer("a", Tokens())], (6,), r"node a: tokens need an input with positions, got \(6,\)"),
        ([layer("a", Token(8))], (8, 3), "node a: number: 8 is not allowed; must be between 0 and 7"),
        ([layer("a", Attention(2))], (8, 3), "node a: heads: 2 is not allowed; must be a divisor of the 3 features"),
        ([layer("a", Attention(2))], (6,), r"node a: attention needs an input with 2 axes, got \(6,\)"),
    ],
)
def test_a_graph_refuses(nodes, shape, message):
    with pytest.raises(ValueError, match=message):
        spec_of(*nodes, shape=shape)


@pytest.mark.parametrize(
    ("operation", "settings", "message"),
    [
        (Dense, {"units": 0}, "units: 0 is not allowed; must be an integer of at least 1"),
        (Dense, {"units": 2, "initialiser": "hee"}, 'initialiser: "hee" is not allowed'),
        (Activate, {"function": "rleu"}, 'function: "rleu" is not allowed'),
        (Pool, {"kind": "sum"}, 'pool: "sum" is not allowed; must be one of max, mean'),
        (Pool, {"padding": "same"}, 'padding: "same" is not allowed; must be one of VALID, SAME'),
        (Attention, {"heads": 0}, "heads: 0 is not allowed; must be an integer of at least 1"),
        (Recurrent, {"cell": "gru", "units": 0}, "units: 0 is not allowed; must be an integer of at least 1"),
        (Recurrent, {"cell": "gur", "units": 3}, 'cell: "gur" is not allowed; must be one of gru, lstm, rtu'),
    ],
)
def test_an_operation_refuses(operation, settings, message):
    with pytest.raises(ValueError, match=message):
        spec_of(layer("a", operation(**settings)))


def test_a_node_that_nothing_reads_is_refused():
    body = (layer("a", Dense(3)), layer("b", Dense(3), "a"), layer("c", Dense(3), "a"))
    with pytest.raises(ValueError, match=r"nodes\.b: no other node reads it, and it is not the last one"):
        NetworkSpec((4,), 2, body=body)


def test_patches_divide_the_image():
    observation = jax.ShapeDtypeStruct((32, 32, 3), jnp.uint8)
    with pytest.raises(ValueError, match="patch: 5 is not allowed; must be a divisor of the image's sides, 32 and 32"):
        NETWORKS["vit"](observation, 2, patch=5)
