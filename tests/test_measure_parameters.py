"""``plasticity measure --network``: monitors on parameters that another program trained.

The layout of CleanRL's networks is checked against a channels-first network in NumPy, which knows nothing of the
mapping.
"""

import importlib.util
import json
import struct
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import test_cli
import tiny
import yaml
from numpy.lib.stride_tricks import sliding_window_view

from plasticity.agents.supervised import classifier
from plasticity.config.documents import read_file
from plasticity.core.errors import UserError
from plasticity.core.types import Activation, Clock, Supervised, TimeStep, Transition
from plasticity.engine.lanes import lane_keys
from plasticity.interventions.base import Intervention
from plasticity.monitors.gradients import ntk
from plasticity.monitors.parameters import gradient_norm
from plasticity.monitors.plasticity import plasticity_probe
from plasticity.networks.functions import Functions
from plasticity.networks.graph import OBSERVATION, Node
from plasticity.networks.operations import Activate, Convolution, Flatten
from plasticity.networks.presets import mlp
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import adam
from plasticity.runs import described_network, parameter_files, parameter_mapping
from plasticity.runs.measure_parameters import measure

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "cleanrl"
FRAMES, HIDDEN, ACTIONS = (4, 44, 52), 10, 3  # the last map is 2 high and 3 wide
RNG = np.random.default_rng(0)


def weights(*shape):
    return (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)


def state_dict(heads):
    """A state dict of PyTorch with the names and shapes of CleanRL's Atari agents, and fewer hidden units."""
    made = {}
    for number, shape in ((0, (32, 4, 8, 8)), (2, (64, 32, 4, 4)), (4, (64, 64, 3, 3)), (7, (HIDDEN, 64 * 2 * 3))):
        made |= {f"network.{number}.weight": weights(*shape), f"network.{number}.bias": weights(shape[0])}
    for name, outputs in heads.items():
        made |= {f"{name}.weight": weights(outputs, HIDDEN), f"{name}.bias": weights(outputs)}
    return made


def channels_first(state, pixels):
    """The last hidden layer of PyTorch's network, from its definition: maps are [B, channels, height, width]."""
    x = pixels.astype(np.float64) / 255
    for number, stride in ((0, 4), (2, 2), (4, 1)):
        weight = state[f"network.{number}.weight"]
        patches = sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
        z = np.einsum("bchwij,ocij->bohw", patches, weight, optimize=True)
        x = np.maximum(z + state[f"network.{number}.bias"][:, None, None], 0)
    x = x.reshape(len(x), -1)
    return np.maximum(x @ state["network.7.weight"].T + state["network.7.bias"], 0)


def example(name):
    """The shipped description and mapping, with the test's numbers of hidden units and actions."""
    network = read_file(EXAMPLES / f"{name}.yaml")
    network["network"]["widths"] = [HIDDEN]
    network["outputs"] = {"policy": ACTIONS, "value": 1} if name == "ppo_atari" else ACTIONS
    return network, read_file(EXAMPLES / f"{name}_mapping.yaml")


def prepared(network, observations):
    form = jax.ShapeDtypeStruct(observations.shape[1:], observations.dtype)
    return described_network.prepare(described_network.parse(network), form, adam(), len(observations))


def parameters(made, mapping, state):
    found = parameter_mapping.applied(parameter_mapping.parse(mapping), state, made.wanted, "agent.npz")
    return jax.tree.unflatten(made.tree, list(found.values()))


@pytest.fixture(scope="module")
def pixels():
    return RNG.integers(0, 256, (5, *FRAMES), dtype=np.uint8)


@pytest.fixture(scope="module")
def dqn():
    return state_dict({"network.9": ACTIONS})


# CleanRL's layout.


def test_the_mapping_of_a_dqn_gives_the_network_that_pytorch_computes(pixels, dqn):
    network, mapping = example("dqn_atari")
    made = prepared(network, pixels)
    assert made.wanted.maps == {"hidden_3/kernel": (2, 3, 64)}
    scores = made.scores(parameters(made, mapping, dqn), pixels)
    expected = channels_first(dqn, pixels) @ dqn["network.9.weight"].T + dqn["network.9.bias"]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    mapping["parameters"]["hidden_3/kernel"]["flattened"] = "channels_last"  # the order matters
    assert not np.allclose(made.scores(parameters(made, mapping, dqn), pixels), expected, atol=1e-3)


def test_the_mapping_of_ppo_gives_both_heads(pixels):
    state = state_dict({"actor": ACTIONS, "critic": 1})
    network, mapping = example("ppo_atari")
    made = prepared(network, pixels)
    found = made.core.network.forward(parameters(made, mapping, state), pixels)[0]
    hidden = channels_first(state, pixels)
    for name, theirs in (("policy", "actor"), ("value", "critic")):
        expected = hidden @ state[f"{theirs}.weight"].T + state[f"{theirs}.bias"]
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(made.scores(parameters(made, mapping, state), pixels), found["policy"])


@pytest.mark.parametrize("normalised", [False, True])
def test_a_non_linearity_between_flattening_and_a_dense_layer_keeps_the_order(normalised):
    """Convolution, Flatten, [LayerNorm,] tanh, Linear: in PyTorch's order of axes, in NumPy."""
    spec = NetworkSpec(
        (2, 5, 6), ACTIONS, channels_first=True, scale=1.0, normalisation="layer" if normalised else "none",
        body=(
            Node("conv", Convolution(3, 3, 1, "VALID", normalise=False), (OBSERVATION,)),
            Node("flat", Flatten(), ("conv",)),
            Node("after", Activate("tanh", normalise=normalised), ("flat",)),
        ),
    )  # fmt: skip
    x = weights(7, 2, 5, 6)
    state = {"conv.weight": weights(3, 2, 3, 3), "conv.bias": weights(3)}
    state |= {"norm.weight": 1 + weights(36), "norm.bias": weights(36)} if normalised else {}
    state |= {"fc.weight": weights(ACTIONS, 36), "fc.bias": weights(ACTIONS)}
    rules = {
        "conv/kernel": {"from": "conv.weight", "layout": "oihw"},
        "conv/bias": "conv.bias",
        "output/kernel": {"from": "fc.weight", "layout": "oi", "flattened": "channels_first"},
        "output/bias": "fc.bias",
    }
    if normalised:
        rules |= {
            f"after/{ours}": {"from": f"norm.{theirs}", "flattened": "channels_first"}
            for ours, theirs in (("scale", "weight"), ("offset", "bias"))
        }
    made = prepared({"network": lambda *_: spec, "outputs": ACTIONS, "meaning": "values"}, x)
    flat = ["output/kernel", *(["after/scale", "after/offset"] if normalised else [])]
    assert made.wanted.maps == dict.fromkeys(flat, (3, 4, 3))
    patches = sliding_window_view(x.astype(float), (3, 3), axis=(2, 3))
    z = np.einsum("bchwij,ocij->bohw", patches, state["conv.weight"]) + state["conv.bias"][:, None, None]
    z = np.maximum(z, 0).reshape(7, -1)
    if normalised:
        z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-6)
        z = z * state["norm.weight"] + state["norm.bias"]
    expected = np.tanh(z) @ state["fc.weight"].T + state["fc.bias"]
    found = made.scores(parameters(made, {"parameters": rules}, state), x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    rules["output/kernel"] = {"from": "fc.weight", "layout": "oi"}
    with pytest.raises(UserError, match=r"output/kernel: reads a flattened map of \[3, 4, 3\]"):
        parameters(made, {"parameters": rules}, state)


def test_monitors_of_a_dqn_from_the_command_line(tmp_path, pixels, dqn):
    """The effective rank of the last hidden layer and the norm of the weights, from NumPy."""
    network, _ = example("dqn_atari")
    (tmp_path / "network.yaml").write_text(yaml.safe_dump(network))
    later = {name: array * np.float32(0.5) for name, array in dqn.items()}
    later["network.7.bias"] = later["network.7.bias"] - np.float32(1e3) * (np.arange(HIDDEN) < 4)  # four units die
    np.savez(tmp_path / "first.npz", **dqn)
    np.savez(tmp_path / "later.npz", **later)
    np.savez(tmp_path / "batch.npz", observations=pixels)
    files = [tmp_path / "first.npz", tmp_path / "later.npz"]
    options = ["--network", tmp_path / "network.yaml", "--observations", tmp_path / "batch.npz"]
    options += ["--mapping", EXAMPLES / "dqn_atari_mapping.yaml", "--out", tmp_path / "out.csv"]
    names = "effective_rank,weight_norm,dead_units,distance_from_initialisation"
    done = test_cli.plasticity("measure", *files, *options, "--monitors", names)
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "out.csv")
    assert table["file"].tolist() == list(map(str, files))
    for row, state in enumerate((dqn, later)):
        singular = np.linalg.svd(channels_first(state, pixels), compute_uv=False)
        share = singular[singular > 0] / singular.sum()
        assert table["effective_rank"][row] == pytest.approx(np.exp(-np.sum(share * np.log(share))), rel=1e-2)
        kernels = [array for name, array in state.items() if name.endswith("weight")]
        assert table["weight_norm"][row] == pytest.approx(np.sqrt(sum(np.sum(w**2) for w in kernels)), rel=1e-5)
        dead = np.mean(channels_first(state, pixels).max(axis=0) == 0)
        assert table["dead_units/hidden_3"][row] == pytest.approx(dead)
    assert table["dead_units/hidden_3"][1] >= 0.4
    moved = np.sqrt(sum(np.sum((later[name] - dqn[name]).astype(float) ** 2) for name in dqn))
    assert table["distance_from_initialisation"].tolist() == pytest.approx([0, moved], rel=1e-4)
    assert "measured: " in done.out
    again = test_cli.plasticity("measure", *files, *options, "--monitors", names)
    assert (again.code, "replace it with --force" in again.err) == (2, True)


# Losses.


LINEAR = {"network": {"kind": "mlp", "widths": []}, "outputs": 2, "meaning": "values"}
LOGITS = {**LINEAR, "meaning": "logits"}
MLP = {"network": "mlp", "outputs": 2, "meaning": "values"}


def linear(rows=6, inputs=3):
    arrays = {"output/kernel": weights(inputs, 2), "output/bias": weights(2)}
    return arrays, weights(rows, inputs)


def only(found):
    (one,) = found
    return one.metrics


def test_the_gradient_and_curvature_of_the_squared_error():
    """A linear network: the Hessian is ``(2 / n) mean x x'`` for each of the n outputs."""
    arrays, x = linear()
    targets = weights(6, 2)
    found = only(measure({"a": arrays}, ["gradient_norm", "hessian_top_eigenvalue"], network=LINEAR, observations=x, targets=targets, say=lambda line: None))  # noqa: E501 # fmt: skip
    inputs = np.hstack([x, np.ones((6, 1))]).astype(float)
    errors = x @ arrays["output/kernel"] + arrays["output/bias"] - targets
    assert found["gradient_norm"] == pytest.approx(np.linalg.norm(inputs.T @ errors / 6), rel=1e-4)
    values = np.linalg.eigvalsh(inputs.T @ inputs / 6)
    assert found["hessian_top_eigenvalue"] == pytest.approx(values[-1], rel=1e-4)
    assert found["hessian_bottom_eigenvalue"] == pytest.approx(values[0], rel=1e-2)
    assert "hessian_top_eigenvalue/times_learning_rate" not in found  # nobody said which


def test_the_gradient_of_the_error_of_the_actions_taken():
    arrays, x = linear()
    targets, actions = weights(6), RNG.integers(0, 2, 6)
    found = only(measure({"a": arrays}, ["gradient_norm"], network=LINEAR, observations=x, targets=targets, actions=actions))  # noqa: E501 # fmt: skip
    values = x @ arrays["output/kernel"] + arrays["output/bias"]
    errors = np.where(np.arange(2) == actions[:, None], values - targets[:, None], 0)
    inputs = np.hstack([x, np.ones((6, 1))])
    assert found["gradient_norm"] == pytest.approx(np.linalg.norm(2 * inputs.T @ errors / 6), rel=1e-4)


def test_the_gradient_of_the_cross_entropy_and_a_named_step_size():
    arrays, x = linear()
    classes = RNG.integers(0, 2, 6)
    rule = {"kind": "sgd", "learning_rate": 0.25}
    chosen = ["gradient_norm", "hessian_top_eigenvalue"]
    found = only(measure({"a": arrays}, chosen, network=LOGITS, observations=x, targets=classes, optimizer=rule))
    logits = x @ arrays["output/kernel"] + arrays["output/bias"]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slopes = np.hstack([x, np.ones((6, 1))]).T @ (shares - np.eye(2)[classes]) / 6
    assert found["gradient_norm"] == pytest.approx(np.linalg.norm(slopes), rel=1e-4)
    top = found["hessian_top_eigenvalue"]
    assert found["hessian_top_eigenvalue/times_learning_rate"] == pytest.approx(0.25 * top, rel=1e-5)


def test_the_numbers_are_those_of_the_probe_of_an_agent():
    """The classifier's own probe of the same parameters and rows."""
    spec = tiny.experiment().stream.build()().spec
    agent = classifier(spec, Intervention(), network=partial(mlp, widths=(8,)), optimizer=partial(adam, learning_rate=0.01))  # noqa: E501 # fmt: skip
    state = agent.init(jax.random.key(3), None)
    x, classes = weights(4, 4), RNG.integers(0, 3, 4).astype(np.int32)
    blank = jnp.zeros(4)
    step = TimeStep(jnp.ones(4, jnp.int8), blank, blank + 1, Supervised(jnp.asarray(x), jnp.asarray(classes)))
    probe = agent.probe(state, Transition(step, blank, step), Clock(*[jnp.int32(0)] * len(Clock._fields)))
    key, expected = lane_keys(jnp.int32(7)).learner, {}
    for i, monitor in enumerate((plasticity_probe(steps=2, targets=1, frequency=10.0), gradient_norm(), ntk(k=4))):
        expected |= monitor.measure(jax.random.fold_in(key, i), (), probe)[1]
    found = only(
        measure(
            {"a": jax.device_get(state.learner.params)},
            [
                {"kind": "plasticity_probe", "steps": 3, "targets": 1, "frequency": 10.0},
                "gradient_norm",
                {"kind": "ntk", "k": 4},
            ],
            network={"network": {"kind": "mlp", "widths": [8]}, "outputs": 3, "meaning": "logits"},
            observations=x,
            targets=classes,
            optimizer={"kind": "adam", "learning_rate": 0.01},
            settings=["monitors.plasticity_probe.steps=2"],
            seed=7,
        )
    )
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


# What is missing is named.


def refusal(*args, **options):
    with pytest.raises(UserError) as caught:
        measure(*args, **options)
    return str(caught.value)


def test_a_monitor_that_needs_more_is_refused_by_name():
    arrays, x = linear()
    for name in ("gradient_norm", "hessian_top_eigenvalue", "gradient_covariance"):
        chosen = {"kind": name, "k": 4} if name == "gradient_covariance" else name
        text = refusal({"a": arrays}, ["weight_norm", chosen], network=LINEAR, observations=x)
        assert text.startswith(f"monitors.{name}: needs a loss; give `targets`")
    for name in ("second_moment", "effective_learning_rate", "update_ratio", "upgd_plasticity"):
        network = {**LOGITS, "network": {"kind": "mlp", "widths": [4]}}
        arrays = {"hidden_0/kernel": weights(3, 4), "hidden_0/bias": weights(4), "output/kernel": weights(4, 2), "output/bias": weights(2)}  # noqa: E501 # fmt: skip
        text = refusal({"a": arrays}, [name], network=network, observations=x, targets=np.zeros(6, int))
        assert text.startswith(f"monitors.{name}: needs the optimizer and its state")
    text = refusal({"a": arrays}, ["distance_from_initialisation"], network=network, observations=x)
    assert text.startswith("monitors.distance_from_initialisation: measures a change")
    text = refusal({"a": linear()[0]}, ["srank"], network=LINEAR, observations=x)
    assert "monitors.srank" in text


def test_a_network_of_functions_and_parameters_that_are_not_finite():
    def apply(params, x):
        hidden = x @ params["in"]["kernel"]
        return jax.nn.relu(hidden) @ params["out"]["kernel"], {"hidden": Activation(hidden, jax.nn.relu(hidden))}

    def init(key):
        return {"in": {"kernel": jax.random.normal(key, (3, 4))}, "out": {"kernel": jnp.ones((4, 2))}}

    network = Functions(jax.ShapeDtypeStruct((3,), np.float32), 2, init, apply, layers=("hidden",))
    kernel = np.array([[1, -1, 1, -1]] * 3, np.float32)
    good = {"in": {"kernel": kernel}, "out": {"kernel": np.ones((4, 2))}}
    bad = {"in": {"kernel": kernel * np.nan}, "out": {"kernel": np.ones((4, 2))}}
    said = []
    found = measure({"good": good, "bad": bad}, ["dead_units"], network=network, observations=np.ones((5, 3)), say=said.append)  # noqa: E501 # fmt: skip
    assert found[0].metrics["dead_units"] == 0.5  # the two units with negative weights, on positive inputs
    assert np.isnan(found[1].metrics["dead_units"])
    assert said == ["bad: has parameters that are not finite; it has no measurements"]


# The mapping.


WANTED = parameter_mapping.Wanted({"hidden_0/kernel": (6, 2), "hidden_0/bias": (2,)}, {"hidden_0/kernel": (1, 3, 2)})
ENTRIES = {"fc.weight": np.arange(12, dtype=np.float32).reshape(2, 6), "fc.bias": np.zeros(2, np.float32)}
KERNEL = {"from": "fc.weight", "layout": "oi", "flattened": "channels_first"}


def mapped(kernel=KERNEL, bias="fc.bias", entries=ENTRIES, **others):
    raw = {"parameters": {"hidden_0/kernel": kernel, "hidden_0/bias": bias}} | others
    return parameter_mapping.applied(parameter_mapping.parse(raw), entries, WANTED, "agent.npz")


def test_a_permutation_by_hand():
    """Two channels of width 3: theirs are c0w0 c0w1 c0w2 c1w0 ..., ours w0c0 w0c1 w1c0 ..."""
    order = [0, 3, 1, 4, 2, 5]
    expected = ENTRIES["fc.weight"].T[order]
    np.testing.assert_array_equal(mapped()["hidden_0/kernel"], expected)
    np.testing.assert_array_equal(mapped({**KERNEL, "flattened": [2, 1, 3]})["hidden_0/kernel"], expected)
    same = mapped({**KERNEL, "flattened": "channels_last"}, {"value": 0.5}, ignore=["fc.bias"])
    np.testing.assert_array_equal(same["hidden_0/kernel"], ENTRIES["fc.weight"].T)
    assert same["hidden_0/bias"].tolist() == [0.5, 0.5]


def test_axes_of_a_convolution_by_hand():
    theirs = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # outputs, inputs, height, width
    wanted = parameter_mapping.Wanted({"c/kernel": (4, 5, 3, 2)}, {})
    rules = parameter_mapping.parse({"parameters": {"c/kernel": {"from": "w", "layout": "oihw"}}})
    made = parameter_mapping.applied(rules, {"w": theirs}, wanted, "agent.npz")["c/kernel"]
    assert made[3, 1, 2, 0] == theirs[0, 2, 3, 1]
    assert made[0, 4, 1, 1] == theirs[1, 1, 0, 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kernel": {**KERNEL, "from": "fc.weigth"}}, ["agent.npz: has no entry", "did you mean `fc.weight`"]),
        ({"entries": {**ENTRIES, "steps": np.zeros(3)}}, ["agent.npz: these entries are not used: steps", "ignore"]),
        ({"kernel": {**KERNEL, "layout": "io"}}, ["hidden_0/kernel", "[2, 6]", "[6, 2]"]),
        ({"kernel": {**KERNEL, "layout": "oihw"}}, ["hidden_0/kernel.layout", "does not fit"]),
        ({"kernel": {**KERNEL, "layout": "xy"}}, ["layout", "oihw"]),
        ({"kernel": {**KERNEL, "flattened": [2, 3, 1]}}, ["flattened", "[1, 3, 2]"]),
        ({"kernel": {**KERNEL, "flattened": "sideways"}}, ["flattened", "channels_first"]),
        ({"kernel": {"from": "fc.weight", "layout": "oi"}}, ["reads a flattened map of [1, 3, 2]", "channels_first"]),
        ({"kernel": {**KERNEL, "form": 1}}, ["unknown key `form`", "did you mean `from`"]),
        ({"kernel": {"layout": "oi"}}, ["needs either `from`"]),
        ({"bias": {"value": "zero"}}, ["hidden_0/bias", "one number"]),
        (
            {"bias": {"from": "n"}, "entries": {**ENTRIES, "n": np.zeros(2, int)}, "ignore": ["fc.bias"]},
            ["real numbers"],
        ),
        ({"ignored": []}, ["unknown key `ignored`", "did you mean `ignore`"]),
    ],
)
def test_a_mistake_in_a_mapping_is_named(change, words):
    with pytest.raises(UserError) as caught:
        mapped(**change)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_square_kernel_needs_a_layout_because_its_shape_does_not_show_one():
    wanted = parameter_mapping.Wanted({"hidden_1/kernel": (3, 3)}, {})
    entries = {"fc.weight": np.arange(9, dtype=np.float32).reshape(3, 3)}

    def made(rule):
        mapping = parameter_mapping.parse({"parameters": {"hidden_1/kernel": rule}})
        return parameter_mapping.applied(mapping, entries, wanted, "agent.npz")["hidden_1/kernel"]

    with pytest.raises(UserError, match="which does not show its axes; say `layout: oi`"):
        made("fc.weight")
    np.testing.assert_array_equal(made({"from": "fc.weight", "layout": "oi"}), entries["fc.weight"].T)
    np.testing.assert_array_equal(made({"from": "fc.weight", "layout": "io"}), entries["fc.weight"])


def test_an_entry_is_one_parameter():
    wanted = parameter_mapping.Wanted({"a/bias": (3,), "b/bias": (3,)}, {})
    mapping = parameter_mapping.parse({"parameters": {"a/bias": "bias", "b/bias": "bias"}})
    with pytest.raises(UserError, match='"bias" is mapped to two parameters'):
        parameter_mapping.applied(mapping, {"bias": np.zeros(3)}, wanted, "agent.npz")


def test_names_of_parameters_are_checked_and_entries_ignored():
    rules = {"hidden_0/kernal": KERNEL, "hidden_0/bias": "fc.bias"}
    with pytest.raises(UserError, match=r"unknown parameter `hidden_0/kernal`.*did you mean `hidden_0/kernel`"):
        parameter_mapping.applied(parameter_mapping.parse({"parameters": rules}), ENTRIES, WANTED, "agent.npz")
    few = parameter_mapping.parse({"parameters": {"hidden_0/bias": "fc.bias"}})
    with pytest.raises(UserError, match=r"also has hidden_0/kernel \[6, 2\]; say where they come from"):
        parameter_mapping.applied(few, ENTRIES, WANTED, "agent.npz")
    deep = parameter_mapping.Wanted({f"hidden_{i}/bias": (3,) for i in range(9)}, {})
    with pytest.raises(UserError) as caught:  # all of them, to copy from
        parameter_mapping.applied(few, ENTRIES, deep, "agent.npz")
    assert all(f"hidden_{i}/bias [3]" in str(caught.value) for i in range(1, 9))
    more = {**ENTRIES, "target.fc.weight": np.zeros(3), "steps": np.zeros(1)}
    assert set(mapped(entries=more, ignore=["target.*", "steps"])) == set(WANTED.shapes)
    with pytest.raises(UserError, match=r"a\.npz: has no entry .*--mapping"):
        parameter_mapping.applied(None, ENTRIES, WANTED, "a.npz")


# Files.


def as_safetensors(path, arrays):
    """The format, from its description: the header's length, the header as JSON, the arrays."""
    header, data, kinds = {}, b"", {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        place = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": kinds[str(array.dtype)], "shape": list(array.shape), "data_offsets": place}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.skipif(importlib.util.find_spec("safetensors") is None, reason="an extra")
def test_safetensors_are_read(tmp_path):
    arrays = {"a.weight": weights(2, 3), "b": weights(4).astype(np.float16)}
    as_safetensors(tmp_path / "x.safetensors", arrays)
    found = parameter_files.read(tmp_path / "x.safetensors")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    (tmp_path / "x.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"cannot be read as \.safetensors"):
        parameter_files.read(tmp_path / "x.safetensors")


@pytest.mark.skipif(importlib.util.find_spec("safetensors") is None, reason="an extra")
def test_bfloat16_is_read_exactly_and_measured_in_float32(tmp_path):
    """The upper halves of float32: 1.5, -2.25 and 0.1 rounded to 205 / 2048."""
    kernel = jnp.array([[1.5], [-2.25], [0.1]], jnp.bfloat16)
    as_safetensors(tmp_path / "x.safetensors", {"output/kernel": np.asarray(kernel), "output/bias": weights(1)})
    found = parameter_files.read(tmp_path / "x.safetensors")["output/kernel"]
    assert found.astype(np.float64).ravel().tolist() == [1.5, -2.25, 205 / 2048]
    network = {"network": {"kind": "mlp", "widths": []}, "outputs": 1, "meaning": "values"}
    sources = {"x": tmp_path / "x.safetensors"}
    norm = only(measure(sources, ["weight_norm"], network=network, observations=weights(2, 3)))["weight_norm"]
    assert norm == pytest.approx(np.sqrt(1.5**2 + 2.25**2 + (205 / 2048) ** 2), rel=1e-6)


def test_safetensors_without_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    as_safetensors(tmp_path / "x.safetensors", {})
    with pytest.raises(UserError, match=r"needs the library safetensors: pip install .*\[safetensors\]"):
        parameter_files.read(tmp_path / "x.safetensors")


def test_a_folder_of_orbax_is_read(tmp_path):
    orbax = pytest.importorskip("orbax.checkpoint")
    tree = {"params": {"Dense_0": {"kernel": weights(2, 3)}, "list": [weights(2)]}, "step": 3}
    with orbax.StandardCheckpointer() as writer:
        (tmp_path / "saved").mkdir()
        writer.save(tmp_path / "saved" / "default", tree)
        writer.wait_until_finished()
    found = parameter_files.read(tmp_path / "saved" / "default")
    assert set(found) == {"params/Dense_0/kernel", "params/list/0", "step"}
    np.testing.assert_array_equal(found["params/Dense_0/kernel"], tree["params"]["Dense_0"]["kernel"])
    with pytest.raises(UserError, match=r"give the folder of the item: .*default"):
        parameter_files.read(tmp_path / "saved")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.npz: no such file"):
        parameter_files.read(tmp_path / "none.npz")
    for name, words in (("x.npz", "cannot be read as .npz"), ("x.pt", "save a PyTorch state dict as .npz")):
        (tmp_path / name).write_bytes(b"damaged")
        with pytest.raises(UserError) as caught:
            parameter_files.read(tmp_path / name)
        assert words in str(caught.value)
    np.savez(tmp_path / "object.npz", x=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"object\.npz: cannot be read"):
        parameter_files.read(tmp_path / "object.npz")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"observation": np.zeros((2, 3))}, "did you mean `observations`"),
        ({"targets": np.zeros(2)}, "has no array `observations`"),
        ({"observations": np.zeros((2, 3)), "targets": np.zeros(3)}, "targets [3] do not fit 2 observations"),
        ({"observations": np.full((2, 3), np.nan)}, "not finite"),
        ({"observations": np.zeros((0, 3))}, "the first axis is the batch"),
        ({"observations": np.zeros((2, 3)), "actions": np.zeros(2, int)}, "actions are not allowed without targets"),
        ({"observations": np.array(["a"])}, "must be numbers"),
        ({"observations": np.full((2, 4, 4, 1), 200.0, np.float32)}, "save them as uint8, or divided"),
    ],
)
def test_a_batch_is_checked(tmp_path, arrays, words):
    np.savez(tmp_path / "batch.npz", **arrays)
    with pytest.raises(UserError) as caught:
        parameter_files.read_batch(tmp_path / "batch.npz")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": np.array([0, 5]), "network": LOGITS}, "must be classes 0 ... 1"),
        ({"targets": np.array([0, 1])}, "cross_entropy is not allowed with meaning: values"),
        ({"targets": np.zeros((2, 2), np.float32), "network": LOGITS}, "the outputs must be values or prediction"),
        ({"seed": -1}, "seed: -1 is not allowed"),
        ({"targets": np.zeros((2, 3), np.float32)}, "do not fit 2 outputs"),
        ({"targets": np.zeros(2), "loss": "cross_entropy", "network": LOGITS}, "must be classes [B]"),
        ({"targets": np.zeros(2, int), "loss": "hinge"}, "must be one of cross_entropy, squared"),
        ({"loss": "squared"}, "not allowed without targets"),
        ({"network": {"network": "mpl", "outputs": 2, "meaning": "values"}}, "did you mean `mlp`"),
        ({"network": {"network": "mlp"}}, "`outputs` is missing"),
        ({"network": {"network": "mlp", "outputs": 2}}, "`meaning` is missing"),
        ({"network": {"network": "mlp", "outputs": {"actor": 2, "v": 1}, "meaning": "logits"}}, "are called `policy`"),
        ({"network": {"network": ":thing", "outputs": 2, "meaning": "values"}}, "must be module:function"),
        ({"network": {"network": "mlp", "outputs": 2, "meaning": "value"}}, "did you mean `values`"),
        (
            {"network": {"network": "mlp", "outputs": 2, "trunk": "separate", "meaning": "values"}},
            "for several outputs",
        ),
        ({"network": {"network": "no_such:thing", "outputs": 2, "meaning": "values"}}, "no_such"),
        ({"network": NetworkSpec((5,), 2)}, "reads observations of [5]; the batch has [3]"),
        ({"network": {"network": {"kind": "gru"}, "outputs": 2, "meaning": "values"}}, "has memory"),
        ({"optimizer": "adan"}, "did you mean `adam`"),
        ({"settings": ["monitors.srank.delta=1"]}, "there is no `srank` in this list"),
    ],
)
def test_a_mistake_in_the_arguments_is_named(options, words):
    given = {
        "network": {"network": "mlp", "outputs": 2, "meaning": "values"},
        "observations": np.zeros((2, 3), np.float32),
    } | options
    assert words in refusal({"a": {}}, ["weight_norm"], **given)


def test_options_that_belong_to_a_network(tmp_path):
    done = test_cli.plasticity("measure", tmp_path, "--monitors", "srank", "--observations", "x.npz")
    assert (done.code, "--observations: is allowed only with --network" in done.err) == (2, True)
    (tmp_path / "a.npz").touch()
    done = test_cli.plasticity("measure", tmp_path / "a.npz", "--monitors", "srank")
    assert (done.code, "describe the network of its parameters" in test_cli.flat(done.err)) == (2, True)
    done = test_cli.plasticity("measure", tmp_path / "a.npz", "--network", "mlp", "--monitors", "srank")
    assert (done.code, "--observations: is required" in done.err) == (2, True)
