"""Networks that end in several heads, and networks joined of several."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core.types import Probe
from plasticity.interventions.surgery import unit_masks
from plasticity.monitors import effective_rank
from plasticity.networks.build import build, join
from plasticity.networks.spec import Convolution, Head, NetworkSpec

KEY = jax.random.key(5)
HEADS = (Head("value", 1, (3,), 2.0), Head("advantage", 4, (2, 5), 0.5))
SPEC = NetworkSpec((6,), 5, widths=(7,), heads=HEADS, activation="relu")


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dense(x, layer):
    return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


def test_heads_are_branches_behind_the_trunk():
    network, x = build(SPEC), draw((4, 6))
    params = network.init(KEY)
    output, activations = network.forward(params, x)
    trunk = np.maximum(dense(x, params["hidden_0"]), 0)
    value = dense(np.maximum(dense(trunk, params["value_hidden_0"]), 0), params["value_output"])
    deep = np.maximum(dense(trunk, params["advantage_hidden_0"]), 0)
    deep = np.maximum(dense(deep, params["advantage_hidden_1"]), 0)
    advantage = dense(deep, params["advantage_output"])
    np.testing.assert_allclose(output, np.concatenate([value, advantage], -1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(activations["advantage_hidden_1"].post, deep, rtol=1e-5, atol=1e-6)


def test_wiring_of_heads():
    network = build(SPEC)
    found = [(each.name, [(sink.path[0], sink.owner.tolist()) for sink in each.sinks]) for each in network.units]
    assert found == [
        ("hidden_0", [("value_hidden_0", list(range(7))), ("advantage_hidden_0", list(range(7)))]),
        ("value_hidden_0", [("value_output", [0, 1, 2])]),
        ("advantage_hidden_0", [("advantage_hidden_1", [0, 1])]),
        ("advantage_hidden_1", [("advantage_output", [0, 1, 2, 3, 4])]),
    ]
    assert [(layer.name, layer.distance) for layer in network.layers] == [
        ("hidden_0", 2),
        ("value_hidden_0", 1),
        ("advantage_hidden_0", 2),
        ("advantage_hidden_1", 1),
    ]
    names = ("hidden_0", "value_hidden_0", "advantage_hidden_0", "advantage_hidden_1")
    assert network.hidden == tuple((name,) for name in names)
    assert network.outputs == (("value_output",), ("advantage_output",))
    assert list(network.modules()) == [*names, "value_output", "advantage_output"]


def test_a_unit_of_the_trunk_leaves_through_every_head():
    network = build(SPEC)
    params = network.init(KEY)
    chosen = jnp.arange(7) == 2
    incoming, outgoing = unit_masks(network, params, {"hidden_0": chosen})
    assert incoming["hidden_0"]["kernel"].tolist() == chosen.tolist()
    for sink in ("value_hidden_0", "advantage_hidden_0"):
        assert outgoing[sink]["kernel"][:, 0].tolist() == chosen.tolist()
    assert not any(np.any(mask) for mask in jax.tree.leaves((outgoing["value_output"], incoming["value_hidden_0"])))


def test_scale_of_an_output_layer():
    plain = dataclasses.replace(SPEC, heads=tuple(dataclasses.replace(head, scale=1.0) for head in HEADS))
    scaled, unscaled = build(SPEC).init(KEY), build(plain).init(KEY)
    for head in HEADS:
        name = f"{head.name}_output"
        np.testing.assert_allclose(scaled[name]["kernel"], head.scale * unscaled[name]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(scaled["hidden_0"]["kernel"], unscaled["hidden_0"]["kernel"])
    one = NetworkSpec((6,), 2, widths=(3,))
    tiny = dataclasses.replace(one, output_scale=0.01)
    kernels = [np.asarray(build(spec).init(KEY)["output"]["kernel"]) for spec in (tiny, one)]
    np.testing.assert_allclose(kernels[0], 0.01 * kernels[1], rtol=1e-6)


def test_a_head_on_a_flattened_map():
    spec = NetworkSpec((5, 5, 2), 3, (Convolution(4, 3),), heads=(Head("a", 1), Head("b", 2)), convolution="lax")
    network = build(spec)
    params = network.init(KEY)
    (units,) = network.units
    assert {sink.path[0]: sink.owner.tolist() for sink in units.sinks} == {
        "a_output": list(range(4)) * 9,
        "b_output": list(range(4)) * 9,
    }
    assert params["b_output"]["kernel"].shape == (36, 2)


def test_heads_must_add_up():
    with pytest.raises(ValueError, match="heads must have 4 outputs in total"):
        dataclasses.replace(SPEC, outputs=4)
    with pytest.raises(ValueError, match=r"heads\.value: 0 is not allowed; must be an integer of at least 1"):
        Head("value", 0)


def joined():
    parts = {"policy": NetworkSpec((6,), 3, widths=(4,)), "value": NetworkSpec((6,), 1, widths=(5, 2))}
    return parts, join({name: build(spec) for name, spec in parts.items()})


def test_joined_networks_share_nothing():
    parts, network = joined()
    params, x = network.init(KEY), draw((3, 6))
    outputs, activations = network.forward(params, x)
    for name, spec in parts.items():
        alone, seen = build(spec).forward(params[name], x)
        np.testing.assert_array_equal(outputs[name], alone)
        for layer, values in seen.items():
            np.testing.assert_array_equal(activations[f"{name}/{layer}"].post, values.post)
    gradient = jax.grad(lambda p: jnp.sum(network.forward(p, x)[0]["value"]))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["policy"]))
    equal = parts["policy"]
    twins = join({"a": build(equal), "b": build(equal)}).init(KEY)
    assert (twins["a"]["output"]["kernel"] != twins["b"]["output"]["kernel"]).all()


def test_wiring_of_joined_networks():
    _, network = joined()
    assert [(each.name, each.path, [sink.path for sink in each.sinks]) for each in network.units] == [
        ("policy/hidden_0", ("policy", "hidden_0"), [("policy", "output")]),
        ("value/hidden_0", ("value", "hidden_0"), [("value", "hidden_1")]),
        ("value/hidden_1", ("value", "hidden_1"), [("value", "output")]),
    ]
    assert [layer.name for layer in network.layers] == [each.name for each in network.units]
    assert network.outputs == (("policy", "output"), ("value", "output"))
    assert list(network.modules()) == [
        "policy/hidden_0", "value/hidden_0", "value/hidden_1", "policy/output", "value/output"
    ]  # fmt: skip


def test_the_last_layers_of_several_outputs():
    """The layer before the first output gives the metric its bare name."""
    _, network = joined()
    params, x = network.init(KEY), draw((8, 6))
    _, activations = network.forward(params, x)
    probe = Probe(**(dict.fromkeys(Probe._fields) | {"network": network, "activations": activations}))
    _, found = effective_rank().measure(KEY, (), probe)
    assert set(found) == {"effective_rank", "effective_rank/value/hidden_1"}
    values = np.linalg.svd(np.asarray(activations["policy/hidden_0"].post), compute_uv=False)
    share = values / values.sum()
    np.testing.assert_allclose(found["effective_rank"], np.exp(-np.sum(share * np.log(share))), rtol=1e-4)
