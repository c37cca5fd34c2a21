"""Plasticity injection: nothing before, nothing at its moment, and then only the new head and the trunk learn."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP, Run, batch_at, make

from plasticity.core.types import Network
from plasticity.interventions.base import compose
from plasticity.interventions.decay import weight_decay
from plasticity.interventions.injection import plasticity_injection
from plasticity.interventions.resets import reset
from plasticity.networks.build import build, join
from plasticity.networks.spec import Head
from plasticity.optim.optimizers import adam, sgd

KEY = jax.random.key(11)
HEADS = (Head("policy", 1, (3,)), Head("value", 1))
SPECS = {
    "mlp": (MLP, 1),
    "two_layers": (MLP, 2),
    "output_alone": (MLP, 0),
    "crelu_norm": (replace(MLP, activation="crelu", normalisation="layer"), 1),
    "convolutions": (replace(CNN, convolution="lax"), 1),
    "heads": (replace(MLP, heads=HEADS), 1),
    "deep_heads": (replace(MLP, heads=HEADS), 2),
}


def inputs_of(spec):
    return batch_at(spec, jnp.int32(3))[0]


def opened(params):
    return params | {"injection": {"gate": jnp.ones(())}}


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", SPECS)
def test_outputs_do_not_change_before_or_at_the_injection(name):
    spec, layers = SPECS[name]
    plain, injected = build(spec), build(plasticity_injection(layers=layers).network(spec))
    params, x = injected.init(KEY), inputs_of(spec)
    expected, activations = plain.forward(plain.init(KEY), x)
    for found in (params, opened(params)):
        outputs, seen = jax.jit(injected.forward)(found, x)
        np.testing.assert_array_equal(outputs, jax.jit(plain.forward)(plain.init(KEY), x)[0])
    assert_same({key: params[key] for key in plain.init(KEY)}, plain.init(KEY))
    assert set(activations) <= set(seen)
    assert expected.shape == outputs.shape


def test_the_head_and_its_copies():
    found = {}
    for name, (spec, layers) in SPECS.items():
        params = build(replace(spec, injected=layers)).init(KEY)
        found[name] = sorted(key.removeprefix("new_") for key in params if key.startswith("new_"))
        for part in found[name]:
            assert_same(params["new_" + part], params["anchor_" + part])
            assert not np.array_equal(params["new_" + part]["kernel"], params[part]["kernel"])
    assert found == {
        "mlp": ["hidden_1", "output"],
        "two_layers": ["hidden_0", "hidden_1", "output"],
        "output_alone": ["output"],
        "crelu_norm": ["hidden_1", "output"],
        "convolutions": ["hidden_2", "output"],
        "heads": ["hidden_1", "policy_hidden_0", "policy_output", "value_output"],
        "deep_heads": ["hidden_0", "hidden_1", "policy_hidden_0", "policy_output", "value_output"],
    }


def test_the_wiring_knows_all_three_heads():
    network = build(replace(MLP, injected=1))
    assert [(each.name, each.size, [sink.path[0] for sink in each.sinks]) for each in network.units] == [
        ("hidden_0", 5, ["hidden_1", "new_hidden_1", "anchor_hidden_1"]),
        ("hidden_1", 4, ["output"]),
        ("new_hidden_1", 4, ["new_output"]),
        ("anchor_hidden_1", 4, ["anchor_output"]),
    ]
    assert network.hidden == (("hidden_0",), ("hidden_1",), ("new_hidden_1",), ("anchor_hidden_1",))
    assert network.outputs == (("output",), ("new_output",), ("anchor_output",))


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def by_hand(params, x, after):
    """The equation, with relu, for widths (5, 4) and a head of one hidden layer."""
    still = jax.lax.stop_gradient
    phi = jax.nn.relu(dense(x, params["hidden_0"]))

    def head(prefix, held):
        layers = [params[prefix + "hidden_1"], params[prefix + "output"]]
        first, last = still(layers) if held else layers
        return dense(jax.nn.relu(dense(phi, first)), last)

    if not after:
        return head("", False)
    return head("", True) + head("new_", False) - still(head("anchor_", True))


@pytest.mark.parametrize("after", [False, True])
def test_values_and_gradients_are_those_of_the_equation(after):
    network, x = build(replace(MLP, injected=1)), inputs_of(MLP)
    params = network.init(KEY)
    if after:  # the new head has learned something
        params["new_output"] = jax.tree.map(lambda leaf: leaf * 1.5 + 0.1, params["new_output"])
        params = opened(params)

    def gradient(apply):
        return jax.grad(lambda p: jnp.sum(jnp.sin(apply(p))))(params)

    np.testing.assert_allclose(network.forward(params, x)[0], by_hand(params, x, after), rtol=1e-6, atol=1e-6)
    found, expected = gradient(lambda p: network.forward(p, x)[0]), gradient(lambda p: by_hand(p, x, after))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    still = {name for name, part in found.items() if not any(np.any(leaf) for leaf in jax.tree.leaves(part))}
    assert still == {"injection", "anchor_hidden_1", "anchor_output"} | (
        {"hidden_1", "output"} if after else {"new_hidden_1", "new_output"}
    )


MOMENTUM = sgd(learning_rate=0.05, momentum=0.9)


@pytest.fixture(scope="module")
def history():
    """The parameters before each of six updates and at the end, of the injection after four, and of nothing."""
    found = {}
    for name, method in (("injected", plasticity_injection(at=4)), ("plain", compose())):
        method = compose(weight_decay(rate=1e-2, which="all"), method)
        loop = make(method, MOMENTUM)
        update, run = jax.jit(loop.update), loop.init(KEY)
        found[name] = [run.learner.params]
        for number in range(6):
            run = update(KEY, run, jnp.int32(number))
            found[name].append(run.learner.params)
    return found


def moves(before, after):
    return {
        name
        for name, part in before.items()
        if any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (part, after[name])), strict=True))
    }


def test_until_then_it_learns_as_if_there_were_no_injection(history):
    for injected, plain in zip(history["injected"][:5], history["plain"][:5], strict=True):
        for name, part in plain.items():
            for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(injected[name]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    gates = [float(params["injection"]["gate"]) for params in history["injected"]]
    assert gates == [0, 0, 0, 0, 1, 1, 1]


def test_what_moves_before_and_after(history):
    """Momentum and weight decay move nothing that is frozen, either."""
    params = history["injected"]
    for i in range(3):
        assert moves(params[i], params[i + 1]) == {"hidden_0", "hidden_1", "output"}
    assert moves(params[3], params[4]) == {"hidden_0", "hidden_1", "output", "injection"}
    for i in (4, 5):
        assert moves(params[i], params[i + 1]) == {"hidden_0", "new_hidden_1", "new_output"}


@pytest.mark.slow
def test_an_agent_that_missed_the_moment_is_injected_at_its_next_update():
    loop = make(plasticity_injection(at=4), adam())
    run = loop.update(KEY, loop.update(KEY, loop.init(KEY), jnp.int32(0)), jnp.int32(9))
    assert float(run.learner.params["injection"]["gate"]) == 1.0


def test_a_fresh_learner_has_its_old_head_and_no_second_injection():
    loop = make(compose(plasticity_injection(at=1), reset()), adam())
    run = loop.update(KEY, loop.init(KEY), jnp.int32(0))
    assert float(run.learner.params["injection"]["gate"]) == 1.0
    run = loop.switch(KEY, run, jnp.int32(1))
    run = run._replace(learner=run.learner._replace(rest={}))
    assert float(run.learner.params["injection"]["gate"]) == 0.0
    after = loop.update(KEY, run, jnp.int32(1))
    assert float(after.learner.params["injection"]["gate"]) == 0.0
    assert moves(run.learner.params, after.learner.params) == {"hidden_0", "hidden_1", "output"}


@pytest.mark.parametrize(("last", "gate", "expected"), [(150, 1e-3, 0.0), (250, 0.3, 1.0), (250, 0.0, 0.0)])
def test_what_others_do_to_the_gate_is_put_right(last, gate, expected):
    """Noise before; then an average with a fresh agent; then a fresh agent."""
    loop = make(plasticity_injection(at=200), adam())
    learner = loop.init(KEY).learner
    learner = learner._replace(params=learner.params | {"injection": {"gate": jnp.float32(gate)}})
    step = plasticity_injection(at=200).step
    state, after = step(KEY, jnp.int32(last), learner, loop.context(jnp.int32(last)))
    assert (int(state), float(after.params["injection"]["gate"])) == (last + 1, expected)


def pair() -> Network:
    return join({"actor": build(replace(MLP, injected=1)), "critic": build(replace(MLP, injected=1))})


def test_joined_networks_are_injected_together():
    """An actor and a critic that share nothing: each has a gate, found wherever it is."""
    network, method = pair(), plasticity_injection(at=1)
    rule = method.optimizer(sgd(learning_rate=0.1))
    params = network.init(KEY)
    run = Run(method.init(KEY, params, network), make(method, MOMENTUM).init(KEY).learner._replace(params=params))
    context = make(method, MOMENTUM).context(jnp.int32(0))
    state, learner = method.step(KEY, run.state, run.learner, context)
    assert int(state) == 1
    assert [float(learner.params[name]["injection"]["gate"]) for name in ("actor", "critic")] == [1.0, 1.0]
    updates, _ = rule.update(jax.tree.map(jnp.ones_like, params), rule.init(params), learner.params)
    for part in updates.values():
        moving = {name for name, leaves in part.items() if np.any(leaves.get("kernel", 0.0))}
        assert moving == {"hidden_0", "new_hidden_1", "new_output"}


def test_never_is_no_injection():
    assert plasticity_injection(at=0).network(MLP) == MLP


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: plasticity_injection(at=-1), "at: -1 is not allowed; must be an integer of at least 0"),
        (lambda: plasticity_injection(layers=-1), "layers: -1 is not allowed; must be an integer of at least 0"),
        (
            lambda: plasticity_injection(layers=3).network(MLP),
            "layers: 3 is not allowed; must be at most 2, the number of dense hidden layers",
        ),
        (
            lambda: plasticity_injection().network(replace(CNN, widths=())),
            "at most 0, the number of dense hidden layers",
        ),
    ],
)
def test_refusals(make_it, message):
    with pytest.raises(ValueError, match=message):
        make_it()
