"""Non-linearities: values and slopes by hand, their parameters' places and owners, and what methods do with them."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from network_cases import KEY, cut, draw, forward, inputs, moved, shaken, small

from plasticity.core import trees
from plasticity.core.errors import UserError
from plasticity.core.types import Source
from plasticity.interventions import surgery
from plasticity.interventions.decay import weight_decay
from plasticity.networks.activations import ACTIVATIONS, chosen
from plasticity.networks.build import build
from plasticity.networks.catalogue import NETWORKS
from plasticity.networks.learned_activations import BASES, RATIONALS, adalin, linear_mix, prelu, rational, snake, swish
from plasticity.networks.nonlinearity import NonLinearity, own_activation
from plasticity.networks.operations import Activate
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import sgd
from plasticity.runs import launch

Z = np.array([-30.0, -2.5, -1.0, -0.3, 0.0, 0.4, 1.0, 2.0, 3.0, 30.0])
LEARNED = ("prelu", "rational", "snake", "adalin", "linear_mix")  # at their defaults
FLAT = NetworkSpec((3,), 2, widths=(4, 5))


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def gelu(z: Any) -> Any:
    return z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))


def fraction(z: Any, start: str = "leaky_relu") -> Any:
    above, below = RATIONALS[start]
    return sum(a * z**j for j, a in enumerate(above)) / (1 + sum(abs(b * z**k) for k, b in enumerate(below, 1)))


BY_HAND: dict[str, Any] = {
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "tanh": np.tanh,
    "gelu": gelu,
    "silu": lambda z: z * sigmoid(z),
    "swish": lambda z: z * sigmoid(z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "identity": lambda z: z,
    "linear": lambda z: z,
    "crelu": lambda z: np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1),
    "deep_fourier": lambda z: np.concatenate([np.sin(z), np.cos(z)], -1),
    "smooth_leaky": lambda z: 0.1 * z + 0.9 * z * sigmoid(5 * z / 3),
    "prelu": lambda z: np.where(z > 0, z, 0.25 * z),
    "snake": lambda z: z + 2 * np.sin(z / 2) ** 2,
    "rational": fraction,
    "adalin": lambda z: np.maximum(z, 0),  # begins as its base
    "linear_mix": lambda z: np.where(z > 0, z, 0.1 * z),
    "gelu_sine": lambda z: gelu(z) + 0.1 * np.sin(z),
    "gelu_sinc": lambda z: gelu(z) * (1 + 0.5 * np.sinc(z)),
}


def begun(kind: NonLinearity, units: int) -> Any:
    return {} if kind.initial is None else kind.initial(KEY, units)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_at_the_defaults_and_finite_slopes(name):
    kind, z = ACTIVATIONS[name](), jnp.asarray(Z, jnp.float32)
    assert kind == ACTIVATIONS[name]() == chosen(name)
    assert hash(kind) == hash(chosen(name))
    assert set(BY_HAND) == set(ACTIVATIONS)
    made = kind.function(begun(kind, len(Z)), z)
    assert made.shape == (kind.copies * len(Z),)
    np.testing.assert_allclose(made, BY_HAND[name](Z), rtol=2e-5, atol=2e-6)
    slopes = jax.grad(lambda parameters, z: kind.function(parameters, z).sum(), (0, 1))(begun(kind, len(Z)), z)
    assert all(np.isfinite(each).all() for each in jax.tree.leaves(slopes))
    assert (kind.initial is not None) == (name in LEARNED)


@pytest.mark.parametrize("learned", ["unit", "layer"])
@pytest.mark.parametrize("name", [*LEARNED, "swish"])
def test_parameters_are_vectors_or_single_numbers(name, learned):
    """Never of two axes, as methods take those for kernels."""
    kind = ACTIVATIONS[name](learned=learned)
    assert (kind.learns_units, kind.learns_layer) == (learned == "unit", learned == "layer")
    assert {leaf.shape for leaf in jax.tree.leaves(begun(kind, 7))} == {(7,) if learned == "unit" else ()}


def values(kind: NonLinearity, parameters: Any, z: Any) -> np.ndarray:
    parameters = {name: jnp.asarray(each, jnp.float32) for name, each in parameters.items()}
    return np.asarray(kind.function(parameters, jnp.asarray(z, jnp.float32)))


def test_each_unit_has_a_slope_of_its_own():
    z = np.array([[-2.0, -2.0], [3.0, 3.0]])
    np.testing.assert_allclose(values(prelu(), {"slope": [0.5, -1.0]}, z), [[-1.0, 2.0], [3.0, 3.0]])
    found = values(swish(learned="unit"), {"slope": [0.0, 2.0]}, z)
    np.testing.assert_allclose(found, [[-1.0, -2 * sigmoid(-4)], [1.5, 3 * sigmoid(6)]], rtol=1e-6)
    found = values(snake(), {"frequency": [0.0, 3.0]}, z)  # a frequency of 0: the limit
    np.testing.assert_allclose(found[:, 0], z[:, 0])
    np.testing.assert_allclose(found[:, 1], z[:, 1] + np.sin(3 * z[:, 1]) ** 2 / 3, rtol=1e-5)


def test_a_fixed_slope_and_frequency():
    np.testing.assert_allclose(values(swish(slope=1.5), {}, Z), Z * sigmoid(1.5 * Z), rtol=1e-5, atol=1e-6)
    found = values(snake(frequency=2.0, learned="no"), {}, Z[1:-1])
    np.testing.assert_allclose(found, Z[1:-1] + np.sin(2 * Z[1:-1]) ** 2 / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", RATIONALS)
def test_the_rational_start_is_the_closest_one(start):
    """The gradient of the squared error on [-3, 3] is 0 there, and the largest error is the one at 0."""
    z = np.linspace(-3, 3, 6001)
    target = np.where(z > 0, z, z * {"relu": 0.0, "leaky_relu": 0.01}[start])
    error = fraction(z, start) - target
    assert 0.0295 < np.abs(error).max() < 0.03
    assert abs(np.abs(error).max() - error[3000]) < 1e-6
    _, below = RATIONALS[start]
    q = 1 + sum(b * np.abs(z) ** k for k, b in enumerate(below, 1))
    slopes = [z**j / q for j in range(6)] + [-fraction(z, start) * np.abs(z) ** k / q for k in range(1, 5)]
    sizes = [abs(np.mean(error * slope)) / np.sqrt(np.mean(error**2) * np.mean(slope**2)) for slope in slopes]
    assert max(sizes) < 1e-3
    kind = rational(start=start)
    np.testing.assert_allclose(
        values(kind, begun(kind, 3), z[::1000]), fraction(z[::1000], start), rtol=1e-5, atol=1e-6
    )


def test_the_denominator_of_a_rational_is_safe():
    numbers = {f"numerator_{j}": a for j, a in enumerate([1.0, -2.0, 0.5, 0.0, 1.0, -0.1])}
    numbers |= {f"denominator_{k}": b for k, b in enumerate([-1.0, 2.0, -3.0, 0.25], 1)}
    z = np.array([-1.5, 0.0, 2.0])
    above = 1 - 2 * z + 0.5 * z**2 + z**4 - 0.1 * z**5
    below = 1 + np.abs(z) + 2 * z**2 + 3 * np.abs(z) ** 3 + 0.25 * z**4
    np.testing.assert_allclose(values(rational(), numbers, z), above / below, rtol=1e-6)


@pytest.mark.parametrize("base", BASES)
def test_the_steepest_slope_of_each_base(base):
    z = jnp.linspace(-6, 6, 24001)
    slopes = np.abs(BASES[base].slope(z))
    np.testing.assert_allclose(slopes.max(), BASES[base].steepest, rtol=1e-6)


def test_adalin_by_hand():
    """Value, and a slope without that of the gate."""
    z = np.array([-1.7, 0.0, 0.6, 2.5])
    slope = 1 - np.tanh(z) ** 2
    gate = np.cos(np.pi / 2 * slope)
    kind = adalin(base="tanh")
    np.testing.assert_allclose(values(kind, {"share": 0.3}, z), np.tanh(z) + 0.3 * z * gate, rtol=1e-5, atol=1e-6)
    found = jax.vmap(jax.grad(lambda z: kind.function({"share": jnp.float32(0.3)}, z)))(jnp.asarray(z, jnp.float32))
    np.testing.assert_allclose(found, slope + 0.3 * gate, rtol=1e-5, atol=1e-6)
    share = jax.vmap(jax.grad(lambda s, z: kind.function({"share": s}, z)), (None, 0))(jnp.float32(0), jnp.asarray(z))
    np.testing.assert_allclose(share, z * gate, rtol=1e-5, atol=1e-6)


def test_adalin_of_relu_is_prelu_and_a_fixed_linear_mix_leaky_relu():
    share = jnp.linspace(-1, 1, len(Z))
    np.testing.assert_allclose(values(adalin(), {"share": share}, Z), values(prelu(), {"slope": share}, Z), atol=3e-6)
    fixed = values(linear_mix(share=0.2, learned="no"), {}, Z)
    np.testing.assert_allclose(fixed, values(chosen(functools.partial(prelu, slope=0.2)), {"slope": 0.2}, Z), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: prelu(learned="no"), 'learned: "no" is not allowed; must be one of unit, layer'),
        (lambda: swish(learned="units"), 'learned: "units" is not allowed; must be one of no, unit, layer'),
        (lambda: adalin(base="elu"), 'base: "elu" is not allowed; must be one of relu, leaky_relu, tanh, gelu, silu'),
        (lambda: rational(start="tanh"), 'start: "tanh" is not allowed; must be one of relu, leaky_relu'),
        (lambda: ACTIVATIONS["smooth_leaky"](p=0.0), "p: 0.0 is not allowed; must not be 0"),
        (lambda: chosen("rleu"), 'activation: "rleu" is not allowed; must be one of relu, '),
    ],
)
def test_refusals(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_parameters_of_another_shape_are_refused():
    kind = NonLinearity(lambda parameters, z: z, initial=lambda key, units: {"a": jnp.zeros((2, units))})
    network = build(dataclasses.replace(FLAT, activation=kind))
    said = r"activation: its parameters\['a'\] have shape \(2, 4\); must be \(4,\), one for each unit"
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(network.init, KEY)


# Where the parameters are, and whose.


def test_parameters_are_in_their_layers_module_and_beside_other_nodes():
    params = build(dataclasses.replace(FLAT, activation="prelu")).init(KEY)
    assert set(params["hidden_0"]) == {"kernel", "bias", "activation"}
    assert params["hidden_1"]["activation"]["slope"].shape == (5,)
    assert set(params["output"]) == {"kernel", "bias"}
    plain = build(FLAT).init(KEY)
    np.testing.assert_array_equal(params["hidden_1"]["kernel"], plain["hidden_1"]["kernel"])
    norm = build(small("impala", activation=swish(learned="layer"), normalisation="layer"))
    made = jax.eval_shape(norm.init, KEY)
    assert set(made["relu"]) == {"scale", "offset"}
    assert made["relu_activation"]["slope"].shape == ()
    assert all(set(trees.get(made, path)) == {"scale", "offset"} for path in norm.norms)


def places(params: Any, name: str) -> list[Any]:
    """The paths of the learned parameters of the activation ``name``."""
    own, beside = (name, "activation"), (own_activation(name),)
    return [own] if "activation" in params.get(name, {}) else [beside] if beside[0] in params else []


@pytest.mark.parametrize("learned", ["unit", "layer"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_unit_owns_its_parameters_but_not_those_of_its_layer(name, learned):
    """In every network: the mask of a unit selects its own slope in every activation that shows it."""
    network = build(small(name, activation=prelu(learned=learned)))
    params = jax.tree.map(lambda x: np.zeros(x.shape), jax.eval_shape(network.init, KEY))
    found = 0
    for units in network.units:
        chosen_unit = jnp.arange(units.size) == 1
        incoming, outgoing = surgery.unit_masks(network, params, {units.name: chosen_unit})
        for shown in units.activations:
            for path in places(params, shown):
                found += 1
                into, out = trees.get(incoming, path)["slope"], trees.get(outgoing, path)["slope"]
                assert not out.any()
                np.testing.assert_array_equal(into, np.asarray(chosen_unit) if learned == "unit" else False)
    assert found == sum(len(places(params, layer.name)) for layer in network.layers) > 0


@pytest.mark.parametrize("name", ["mlp", pytest.param("impala", marks=pytest.mark.slow)])
@pytest.mark.parametrize("learned", ["unit", "layer"])
def test_a_reset_unit_with_a_learned_slope_has_no_effect(name, learned):
    spec = small(name, activation=swish(learned=learned), normalisation="none")
    network = build(spec)
    params, x = shaken(network), inputs(name, network, spec)
    apply = forward(network, x)
    for units in network.units:
        severed, incoming = cut(network, params, units.name, 1)
        assert not np.array_equal(apply(moved(params, incoming)), apply(params))
        np.testing.assert_array_equal(apply(moved(severed, incoming)), apply(severed))


def test_shared_parts_of_a_source_are_left_out():
    tree = {"a": {"kernel": 1, "norm": {"scale": 2}, "activation": {"slope": 3}}, "b": 4}
    source = Source(("a",), np.arange(3), ("activation",))
    found = trees.on_units(lambda x: 10 * x, tree, source)
    assert found == {"a": {"kernel": 10, "norm": {"scale": 20}, "activation": {"slope": 3}}, "b": 4}
    assert trees.on_units(lambda x: -x, tree, Source(("a", "kernel"), np.arange(3)))["a"]["kernel"] == -1


def test_the_functions_reach_the_outputs_and_monitors_see_both_sides():
    """Two layers by hand; the output is differentiable in the slopes."""
    network = build(dataclasses.replace(FLAT, activation="prelu"))
    params, x = shaken(network), draw((6, 3))
    outputs, activations = network.forward(params, x)
    post = np.asarray(x)
    for name in ("hidden_0", "hidden_1"):
        pre = post @ params[name]["kernel"] + params[name]["bias"]
        post = np.where(pre > 0, pre, np.asarray(params[name]["activation"]["slope"]) * pre)
        np.testing.assert_allclose(activations[name].pre, pre, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(activations[name].post, post, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs, post @ params["output"]["kernel"] + params["output"]["bias"], rtol=1e-4)
    slopes = jax.grad(lambda params: network.forward(params, x)[0].sum())(params)
    passed = np.asarray(params["output"]["kernel"]).sum(1) * np.minimum(activations["hidden_1"].pre, 0)
    np.testing.assert_allclose(slopes["hidden_1"]["activation"]["slope"], passed.sum(0), rtol=1e-4)


def test_the_output_of_a_cell_has_any_non_linearity():
    """That of the recurrent trace units, whose real and imaginary parts share a unit's slope; their state is linear."""
    (linear, plain), (learned, params) = (
        (build(found), build(found).init(KEY)) for found in (cell("identity"), cell(prelu(slope=0.5)))
    )
    slope = np.array([0.5, -1.0, 2.0])
    assert params["memory"]["activation"]["slope"].tolist() == [0.5] * 3
    params = trees.put(params, ("memory", "activation", "slope"), jnp.asarray(slope, jnp.float32))
    assert {**params["memory"], "activation": None}.keys() == {*plain["memory"], "activation"}
    x = inputs("rtu", linear, cell("identity"))
    before, after = (net.forward(each, x)[1]["memory"].post for net, each in ((linear, plain), (learned, params)))
    np.testing.assert_allclose(after, np.where(before > 0, before, np.tile(slope, 2) * before), rtol=1e-5, atol=1e-6)
    wide = build(cell("crelu"))
    (units,) = (each for each in wide.units if each.name == "memory")
    assert (units.size, units.copies) == (3, 4)
    found = wide.forward(wide.init(KEY), x)[1]["memory"].post
    parts = [before[:, :3], before[:, 3:]]
    expected = np.concatenate([np.maximum(sign * part, 0) for part in parts for sign in (1, -1)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def cell(activation: Any, **settings: Any) -> NetworkSpec:
    torso = functools.partial(NETWORKS["mlp"], widths=(4,), activation="tanh")
    shape = jax.ShapeDtypeStruct((5,), jnp.float32)
    return NETWORKS["rtu"](shape, 2, torso=torso, units=3, widths=(), activation=activation, **settings)


@pytest.mark.parametrize("activation", ["crelu", "prelu"])
def test_a_state_with_parameters_or_copies_is_refused(activation):
    with pytest.raises(ValueError, match="nonlinear: true is not allowed with this activation"):
        cell(activation, nonlinear=True)
    assert cell("gelu", nonlinear=True)


def test_a_node_of_the_graph_may_have_a_non_linearity_of_its_own():
    assert Activate("tanh") == Activate(functools.partial(ACTIVATIONS["tanh"])) != Activate("relu")
    assert Activate("crelu").shape(((3,),), copies=1) == (6,)
    with pytest.raises(ValueError, match='function: "tnah" is not allowed'):
        Activate("tnah")


def test_decay_of_the_kernels_leaves_slopes_alone():
    network = build(dataclasses.replace(FLAT, activation="prelu"))
    params = network.init(KEY)
    zero = jax.tree.map(jnp.zeros_like, params)
    for which, share in (("kernels", 1.0), ("all", 0.9)):
        rule = weight_decay(rate=0.1, which=which).optimizer(sgd(learning_rate=1.0))
        updates, _ = rule.update(zero, rule.init(params), params, key=KEY)
        left = params["hidden_0"]["activation"]["slope"] + updates["hidden_0"]["activation"]["slope"]
        np.testing.assert_allclose(left, share * 0.25, rtol=1e-6)


# In configs.


def network_of(activation: Any) -> dict[str, Any]:
    agent = {**tiny.document()["agent"], "network": {"kind": "mlp", "widths": [8], "activation": activation}}
    return {"agent": agent}


def test_a_name_or_a_mapping_with_settings():
    steep = {"kind": "swish", "slope": 1.5}
    for given, wanted in (("tanh", "tanh"), (steep, swish(slope=1.5)), ("linear", "identity")):
        experiment = tiny.experiment(**network_of(given))
        network = experiment.arms["baseline"].points[0].agent.values["network"].build()
        spec = network(jax.ShapeDtypeStruct((3,), jnp.float32), 2)
        assert spec.activation == chosen(wanted)
        assert tiny.read_experiment(experiment.resolve(), launch.registry()).resolve() == experiment.resolve()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("rleu", r"agent.network.activation: unknown activation `rleu`; known: .*; did you mean `relu`?"),
        ({"kind": "relu", "slope": 1}, r"agent.network.activation.slope: unknown key; it has no settings"),
        (
            {"kind": "prelu", "learned": "no"},
            r"agent.network.activation.learned: \"no\" is not allowed; must be `unit`",
        ),
        (
            {"kind": "swish", "slope": float("inf")},
            r"agent.network.activation.slope: Infinity is not allowed; must be a num",
        ),
        ({"kind": "smooth_leaky", "p": 0}, r"agent.network.activation: p: 0.* is not allowed; must not be 0"),
    ],
)
def test_refused_configs(given, said):
    with pytest.raises(UserError, match=said):
        launch.plan(tiny.experiment(**network_of(given)))


def test_activations_are_swept_as_programs_of_their_own():
    sweep = {"agent.network.activation": ["relu", "tanh", {"kind": "prelu", "slope": 0.5}]}
    planned = launch.plan(tiny.experiment(**network_of("relu"), sweep=sweep, seeds=1))
    columns = [job.lanes["agent.network.activation"] for job in planned.jobs]
    assert columns == [["relu"], ["tanh"], ["{kind: prelu, slope: 0.5, learned: unit}"]]
