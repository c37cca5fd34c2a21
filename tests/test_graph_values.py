"""What the built-in networks compute: residual blocks, attention and cells against programs of their own."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_cases import KEY, draw, shaken, small

from plasticity.core.types import Sequence
from plasticity.networks.build import build
from plasticity.networks.catalogue import NETWORKS
from plasticity.networks.presets import mlp

erf = np.vectorize(math.erf)


def numbers(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def relu(z):
    return np.maximum(z, 0)


def conv(x, module, stride=1):
    """Windows one by one; zeros around the map so that it keeps its size (an odd one comes after)."""
    kernel = module["kernel"]
    window, sides = kernel.shape[0], [-(-side // stride) for side in x.shape[1:3]]
    padded = np.zeros((x.shape[0], *(side + window + stride for side in x.shape[1:3]), x.shape[3]))
    before = [max((out - 1) * stride + window - side, 0) // 2 for out, side in zip(sides, x.shape[1:3], strict=True)]
    padded[:, before[0] : before[0] + x.shape[1], before[1] : before[1] + x.shape[2]] = x
    made = np.zeros((x.shape[0], *sides, kernel.shape[-1]))
    for i in range(sides[0]):
        for j in range(sides[1]):
            patch = padded[:, i * stride : i * stride + window, j * stride : j * stride + window]
            made[:, i, j] = np.einsum("bhwc,hwcf->bf", patch, kernel)
    return made + module["bias"]


def norm(x, module):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * module["scale"] + module["offset"]


def dense(x, module):
    return x @ module["kernel"] + module.get("bias", 0.0)


def seen(network, params, x):
    """The pre-activations and activations by name, and the outputs."""
    outputs, activations = jax.jit(network.forward)(params, x)
    return numbers(outputs), {name: numbers(each) for name, each in activations.items()}


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["stage_0_block_1", "stage_2_block_0"])  # the second one halves the map
def test_a_block_of_resnet18(name):
    network = build(small("resnet18"))
    params = shaken(network)
    _, found = seen(network, params, draw((2, 8, 8, 3)))
    params = numbers(params)
    before, stride = {"stage_0_block_1": ("stage_0_block_0", 1), "stage_2_block_0": ("stage_1_block_1", 2)}[name]
    x, shortcut = found[before].post, found[before].post
    z = norm(conv(x, params[f"{name}_conv_0"], stride), params[f"{name}_conv_0"]["norm"])
    close(found[f"{name}_conv_0"].pre, z)
    if f"{name}_shortcut" in params:
        shortcut = norm(conv(x, params[f"{name}_shortcut"], stride), params[f"{name}_shortcut"]["norm"])
    z = norm(conv(relu(z), params[f"{name}_conv_1"]), params[f"{name}_conv_1"]["norm"]) + shortcut
    close(found[name].pre, z)
    close(found[name].post, relu(z))


def test_the_ends_of_resnet18():
    network = build(small("resnet18"))
    params, x = shaken(network), draw((2, 8, 8, 3))
    outputs, found = seen(network, params, x)
    params = numbers(params)
    close(found["stem"].pre, norm(conv(numbers(x), params["stem"]), params["stem"]["norm"]))
    assert {name: each.post.shape[1] for name, each in found.items() if name.endswith("block_1")} == {
        "stage_0_block_1": 8,
        "stage_1_block_1": 4,
        "stage_2_block_1": 2,
        "stage_3_block_1": 1,
    }
    close(outputs, dense(found["stage_3_block_1"].post.mean((1, 2)), params["output"]))


def largest(x):
    """Maxima over 3x3 windows at stride 2, as many as half the side; an odd row comes after."""
    out = -(-x.shape[1] // 2)
    before = ((out - 1) * 2 + 3 - x.shape[1]) // 2
    padded = np.full((x.shape[0], x.shape[1] + 3, x.shape[2] + 3, x.shape[3]), -np.inf)
    padded[:, before : before + x.shape[1], before : before + x.shape[2]] = x
    rows = [[padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2)) for j in range(out)] for i in range(out)]
    return np.stack([np.stack(row, 1) for row in rows], 1)


@pytest.mark.parametrize("normalisation", ["none", "layer"])
def test_impala(normalisation):
    network = build(small("impala", normalisation=normalisation))
    params, x = shaken(network), draw((2, 8, 8, 3))
    outputs, found = seen(network, params, x)
    params, x = numbers(params), numbers(x)

    def active(x, name):
        module = params.get(name, {})
        module = module.get("norm", module)
        return relu(norm(x, module) if normalisation == "layer" else x)

    for stage in range(2):
        x = largest(conv(x, params[f"stage_{stage}_conv"]))
        for block in range(2):
            name = f"stage_{stage}_block_{block}"
            close(found[f"{name}_relu"].post, active(x, f"{name}_relu"))
            inner = active(conv(active(x, f"{name}_relu"), params[f"{name}_conv_0"]), f"{name}_conv_0")
            close(found[f"{name}_conv_0"].post, inner)
            x = x + conv(inner, params[f"{name}_conv_1"])
    close(found["relu"].post, active(x, "relu"))
    hidden = active(dense(active(x, "relu").reshape(2, -1), params["hidden_0"]), "hidden_0")
    close(found["hidden_0"].post, hidden)
    close(outputs, dense(hidden, params["output"]))


def test_layer_norm_mlp():
    """The first layer has a normalisation of its own and tanh, whatever the others have."""
    network = build(small("layer_norm_mlp"))
    params, x = shaken(network), draw((3, 5))
    outputs, found = seen(network, params, x)
    params = numbers(params)
    first = np.tanh(norm(dense(numbers(x), params["first"]), params["first_norm"]))
    close(found["first_tanh"].post, first)
    hidden = dense(first, params["hidden_0"])
    close(outputs, dense(np.where(hidden > 0, hidden, 0.01 * hidden), params["output"]))


def test_residual_mlp():
    network = build(small("residual_mlp"))
    params, x = shaken(network), draw((3, 5))
    outputs, _ = seen(network, params, x)
    params = numbers(params)
    z = dense(numbers(x), params["embedding"])
    for block in range(2):
        name = f"block_{block}"
        inner = dense(relu(norm(z, params[f"{name}_relu"])), params[f"{name}_dense_0"])
        z = z + dense(relu(norm(inner, params[f"{name}_dense_0"]["norm"])), params[f"{name}_dense_1"])
    close(outputs, dense(relu(norm(z, params["relu"])), params["output"]))


def test_multi_skip():
    """The second block reads ``x_0 + x_0 + ...``: it is both what comes before and what the first layer made."""
    network = build(small("multi_skip"))
    params, x = shaken(network), draw((3, 5))
    outputs, found = seen(network, params, x)
    params = numbers(params)
    first = norm(dense(numbers(x), params["embedding"]), params["embedding"]["norm"])
    z = first
    for block in range(2):
        inner, last = (params[f"block_{block}_dense_{i}"] for i in range(2))
        close(found[f"block_{block}_relu"].post, relu(z))
        z = z + norm(dense(relu(norm(dense(relu(z), inner), inner["norm"])), last), last["norm"]) + first
    close(outputs, dense(relu(norm(dense(z, params["head"]), params["head"]["norm"])), params["output"]))


def test_the_encoder_of_multi_skip_is_that_of_nature():
    """Without blocks that act, images go through the same convolutions."""
    image = jax.ShapeDtypeStruct((36, 36, 1), jnp.float32)
    settings = {"normalisation": "none", "initialiser": "he"}
    network = build(NETWORKS["multi_skip"](image, 2, encoder="nature", width=4, blocks=1, **settings))
    other = build(NETWORKS["nature"](image, 2, widths=(4,), **settings))
    params, theirs = shaken(network), shaken(other)
    theirs = {**theirs, **{f"hidden_{i}": params[f"encoder_conv_{i}"] for i in range(3)}}
    x = draw((3, 36, 36, 1))
    _, found = seen(network, params, x)
    _, expected = seen(other, theirs, x)
    close(found["encoder_conv_2"].post, expected["hidden_2"].post)


def test_simba():
    network = build(small("simba"))
    params, x = shaken(network), draw((3, 5))
    outputs, found = seen(network, params, x)
    params = numbers(params)
    z = dense(numbers(x), params["embedding"])
    for block in range(2):
        name = f"block_{block}"
        inner = dense(norm(z, params[f"{name}_norm"]), params[f"{name}_dense_0"])
        close(found[f"{name}_dense_0"].pre, inner)
        z = z + dense(relu(inner), params[f"{name}_dense_1"])
    close(outputs, dense(norm(z, params["norm"]), params["output"]))


def sphere(x):
    return x / np.maximum(np.sqrt((x**2).sum(-1, keepdims=True)), 1e-8)


def test_simba_v2():
    network = build(small("simba_v2"))
    start = jax.jit(network.init)(KEY)
    params, x = shaken(network), draw((3, 5))
    outputs, _ = seen(network, params, x)
    params, x = numbers(params), numbers(x)
    h = dense(sphere(np.concatenate([x, np.full((3, 1), 3.0)], -1)), params["embedding_dense"])
    h = sphere(params["embedding_scale"]["scale"] * h)
    for block in range(2):
        name = f"block_{block}"
        inner = relu(params[f"{name}_scale"]["scale"] * dense(h, params[f"{name}_dense_0"]))
        share = params[f"{name}_mix"]["scale"] * math.sqrt(4) / 3
        h = sphere(h + share * (sphere(dense(inner, params[f"{name}_dense_1"])) - h))
    head = params["head_scale"]["scale"] * dense(h, params["head_dense"])
    close(outputs, dense(head, params["output"]))
    factors = {"embedding_scale": 2 / 4, "block_0_scale": 2 / 8, "block_1_mix": 1 / 4, "head_scale": 1.0}
    for name, square in factors.items():
        np.testing.assert_allclose(start[name]["scale"], math.sqrt(square), rtol=1e-6)
    for name, module in network.project(shaken(network)).items():
        if "kernel" in module:  # those of the output layer, too
            np.testing.assert_allclose(jnp.square(module["kernel"]).sum(0), 1.0, rtol=1e-5)
            close(start[name]["kernel"], network.project(start)[name]["kernel"])


def test_vit():
    network = build(small("vit"))
    params, x = shaken(network), draw((2, 4, 4, 3))
    outputs, found = seen(network, params, x)
    params, x = numbers(params), numbers(x)
    patch = params["embedding_patches"]
    parts = [x[:, i : i + 2, j : j + 2].reshape(2, -1) for i in (0, 2) for j in (0, 2)]
    tokens = [part @ patch["kernel"].reshape(-1, 6) + patch["bias"] for part in parts]
    first = np.broadcast_to(params["embedding_tokens"]["class_token"], (2, 6))
    h = np.stack([first, *tokens], 1) + params["embedding_tokens"]["positions"]
    for block in range(2):
        name = f"block_{block}"
        module, z = params[f"{name}_attention"], norm(h, params[f"{name}_norm_0"])
        query, key, value = (dense(z, module[part]) for part in ("query", "key", "value"))
        mixed = np.zeros_like(z)
        for head in (slice(0, 3), slice(3, 6)):
            for sample in range(2):
                scores = np.exp(query[sample, :, head] @ key[sample, :, head].T / math.sqrt(3))
                mixed[sample, :, head] = scores / scores.sum(-1, keepdims=True) @ value[sample, :, head]
        h = h + dense(mixed, module["out"])
        inner = dense(norm(h, params[f"{name}_norm_1"]), params[f"{name}_dense_0"])
        close(found[f"{name}_dense_0"].pre, inner)
        h = h + dense(inner * (1 + erf(inner / math.sqrt(2))) / 2, params[f"{name}_dense_1"])
    close(outputs, dense(norm(h[:, 0], params["class_norm"]), params["output"]))


GATES = {
    "gru": (nn.GRUCell, {"r": "reset", "z": "update", "n": "new"}),
    "lstm": (nn.OptimizedLSTMCell, {"i": "in", "f": "forget", "g": "cell", "o": "out"}),
}


@pytest.mark.parametrize("name", GATES)
def test_a_cell_is_that_of_flax(name):
    """``h`` of three steps, with the weights copied; flax has the biases of an LSTM on the side of the state."""
    made = small(name)
    network = build(
        NETWORKS[name](jax.ShapeDtypeStruct((5,), jnp.float32), 2, torso=functools.partial(mlp, widths=()), units=3)
    )
    assert made.body[-1].name == "memory"
    params, x = shaken(network), draw((3, 2, 5))
    cell, gates = GATES[name][0](3), GATES[name][1]
    memory, theirs = params["memory"], {}
    for letter, gate in gates.items():
        ours = memory[f"input_{gate}"], memory[f"state_{gate}"]
        biased = {**ours[1], "bias": ours[0]["bias"]} if name == "lstm" else ours[1]
        theirs |= {f"i{letter}": {"kernel": ours[0]["kernel"]} if name == "lstm" else ours[0], f"h{letter}": biased}
    carry = cell.initialize_carry(KEY, (2, 5))
    shift = {"forget_bias": 1.0} if name == "lstm" else {}
    if shift:
        theirs["hf"] = {**theirs["hf"], "bias": theirs["hf"]["bias"] + shift["forget_bias"]}
    _, activations = network.forward(params, Sequence(x, jnp.zeros((3, 2), bool), network.initial(2)))
    for step in range(3):
        carry, h = cell.apply({"params": theirs}, carry, x[step])
        np.testing.assert_allclose(activations["memory"].post.reshape(3, 2, 3)[step], h, rtol=1e-5, atol=1e-6)


def rtu(**settings):
    made = NETWORKS["rtu"](
        jax.ShapeDtypeStruct((5,), jnp.float32),
        3,
        torso=functools.partial(mlp, widths=()),
        units=4,
        widths=(6,),
        **settings,
    )
    return build(made)


@pytest.mark.parametrize("nonlinear", [False, True])
def test_an_rtu_is_a_complex_recurrence(nonlinear):
    network = rtu(activation="tanh", nonlinear=nonlinear)
    params, x = shaken(network), draw((6, 2, 5))
    found = network.forward(params, Sequence(x, jnp.zeros((6, 2), bool), network.initial(2)))[1]["memory"].post
    memory, x = numbers(params["memory"]), numbers(x)
    rate = np.exp(-np.exp(memory["decay"]["nu"]) + 1j * np.exp(memory["decay"]["theta"]))
    kernel = memory["input_real"]["kernel"] + 1j * memory["input_imaginary"]["kernel"]
    c = np.zeros((2, 4), complex)
    for step in range(6):
        c = rate * c + np.sqrt(1 - np.abs(rate) ** 2) * (x[step] @ kernel)
        squashed = np.tanh(c.real) + 1j * np.tanh(c.imag)
        c = squashed if nonlinear else c
        expected = np.concatenate([squashed.real, squashed.imag], -1)
        np.testing.assert_allclose(found.reshape(6, 2, 8)[step], expected, rtol=1e-4, atol=1e-5)


def sizes(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("nonlinear", [False, True])
def test_gradients_in_real_time_are_those_through_time(nonlinear):
    """Of a loss at every step of a sequence with an episode's end, relative to the largest gradient: 1e-5."""
    online, through = (rtu(activation="tanh", nonlinear=nonlinear, gradient=name) for name in ("rtrl", "bptt"))
    params, x = shaken(online), draw((7, 2, 5))
    first, weights = jnp.zeros((7, 2), bool).at[4, 1].set(True), draw((7, 2, 3), 3)

    def loss(network):
        def total(params):
            outputs = network.forward(params, Sequence(x, first, network.initial(2)))[0]
            return jnp.sum(weights.reshape(14, 3) * outputs**2)

        return total

    exact = jax.jit(jax.grad(loss(through)))(params)
    for found in (jax.jit(jax.grad(loss(online)))(params), step_by_step(online, params, x, first, weights)):
        assert set(found["memory"]) == {"decay", "input_real", "input_imaginary"}
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            assert sizes(a - b) <= 1e-5 * sizes(b)


def step_by_step(network, params, x, first, weights):
    """The sum of the gradients of single steps, as an agent that learns from one step at a time takes them."""

    @jax.jit
    def gradient(step, carry):
        def loss(params):
            outputs, _, after = network.apply(params, x[step], carry, first[step])
            return jnp.sum(weights[step] * outputs**2), after

        return jax.grad(loss, has_aux=True)(params)

    total, carry = jax.tree.map(jnp.zeros_like, params), network.initial(2)
    for step in range(len(x)):
        found, carry = gradient(step, carry)
        total = jax.tree.map(jnp.add, total, found)
    return total


@pytest.mark.parametrize("nonlinear", [False, True])
def test_gradients_in_real_time_are_finite_differences(nonlinear):
    """In double precision by NumPy, of the sum of squares of the last outputs of the cell."""
    network = rtu(activation="tanh", nonlinear=nonlinear)
    params, x = shaken(network), draw((5, 2, 5))

    def loss(params):
        found = network.forward(params, Sequence(x, jnp.zeros((5, 2), bool), network.initial(2)))[1]["memory"].post
        return jnp.sum(found[-2:] ** 2)

    def by_numpy(memory):
        rate = np.exp(-np.exp(memory["decay"]["nu"]) + 1j * np.exp(memory["decay"]["theta"]))
        c = np.zeros((2, 4), complex)
        for step in np.asarray(x, np.float64):
            drive = step @ (memory["input_real"]["kernel"] + 1j * memory["input_imaginary"]["kernel"])
            c = rate * c + np.sqrt(1 - np.abs(rate) ** 2) * drive
            c = np.tanh(c.real) + 1j * np.tanh(c.imag) if nonlinear else c
        return np.sum(np.abs(c if nonlinear else np.tanh(c.real) + 1j * np.tanh(c.imag)) ** 2)

    gradient, memory = jax.jit(jax.grad(loss))(params)["memory"], numbers(params["memory"])
    for found, value in zip(jax.tree.leaves(gradient), jax.tree.leaves(memory), strict=True):
        expected = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            ends = []
            for shift in (1e-6, -1e-6):
                value[index] += shift
                ends.append(by_numpy(memory))
                value[index] -= shift
            expected[index] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
