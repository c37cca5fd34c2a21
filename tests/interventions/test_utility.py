"""The forms of UPGD, and PGD, against loops in NumPy and finite differences."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree
from update_loop import CNN, MLP, batch_at, error, joined, make

from plasticity.config.experiments import read_experiment
from plasticity.core import trees
from plasticity.core.errors import UserError
from plasticity.interventions import pgd, upgd
from plasticity.interventions.base import compose
from plasticity.interventions.restriction import restricted
from plasticity.interventions.utility import (
    curvature_of_units,
    curvature_of_weights,
    diagonal,
    locally_relative_utility,
    scaled_units,
    unit_gates,
    unit_utility,
)
from plasticity.networks.build import build
from plasticity.networks.learned_activations import rational
from plasticity.optim.optimizers import sgd
from plasticity.runs import launch

KEY = jax.random.key(2)
PARAMS = {"kernel": np.array([[1.0, -2.0, 0.7], [0.5, 0.1, -0.4]]), "bias": np.array([0.3, -0.2, 0.9])}
RNG = np.random.default_rng(0)
GRADIENTS = [{name: RNG.normal(size=x.shape) for name, x in PARAMS.items()} for _ in range(4)]
ETA, BETA, DECAY = 0.1, 0.9, 0.2


def single(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def last(method: Any, gradients: Any = GRADIENTS, params: Any = PARAMS, **extra: Any) -> Any:
    """The parameters after these gradients."""
    optimizer, params = method.optimizer(sgd(learning_rate=ETA)), single(params)
    state, update = optimizer.init(params), lambda *args, key: optimizer.update(*args, key=key, **extra)
    for number, g in enumerate(gradients):
        updates, state = update(single(g), state, params, key=jax.random.fold_in(KEY, number))
        params = jax.tree.map(jnp.add, params, updates)
    return params


def by_hand(relative: str, protect: bool, gain: float) -> dict[str, np.ndarray]:
    """Without noise; local: over the inputs of each output unit, over the whole bias."""
    params = {name: x.copy() for name, x in PARAMS.items()}
    utility = {name: np.zeros_like(x) for name, x in PARAMS.items()}
    for t, g in enumerate(GRADIENTS, start=1):
        utility = {name: BETA * utility[name] - (1 - BETA) * g[name] * params[name] for name in params}
        unbiased = {name: x / (1 - BETA**t) for name, x in utility.items()}
        if relative == "global":
            size: Any = dict.fromkeys(params, max(x.max() for x in unbiased.values()))
        else:
            size = {name: np.sqrt((x**2).sum(0 if x.ndim > 1 else None)) for name, x in unbiased.items()}
        gate = {name: gain / (1 + np.exp(x / size[name])) for name, x in unbiased.items()}
        step = {name: g[name] * (gate[name] if protect else 1.0) for name in params}
        params = {name: (1 - ETA * DECAY) * x - ETA * step[name] for name, x in params.items()}
    return params


@pytest.mark.parametrize("relative", ["global", "local"])
@pytest.mark.parametrize(("protect", "gain"), [(True, 2.0), (True, 1.0), (False, 2.0)])
def test_upgd_of_weights(relative: Any, protect: bool, gain: float) -> None:
    method = upgd(beta=BETA, sigma=0.0, weight_decay=DECAY, relative=relative, protect=protect, gain=gain)
    expected = by_hand(relative, protect, gain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), last(method), expected)


def test_local_utility_of_a_convolution_is_over_all_inputs_of_a_unit() -> None:
    u = RNG.normal(size=(2, 2, 3, 4)).astype(np.float32)
    got = locally_relative_utility({"kernel": jnp.asarray(u)})["kernel"]
    norms = np.linalg.norm(u.reshape(-1, 4), axis=0)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-u / norms)), rtol=1e-5)


@pytest.mark.parametrize(("protect", "gain"), [(True, 2.0), (False, 2.0), (False, 1.0)])
def test_noise_is_gated(protect: bool, gain: float) -> None:
    """All utilities are equal and positive, so 1 - s = 1 - sigmoid(1); the plain step is -eta g, and g = -1."""
    params = {"kernel": np.ones((300, 200))}
    method = upgd(sigma=0.5, weight_decay=0.0, beta=0.0, protect=protect, gain=gain)
    move = np.asarray(last(method, [{"kernel": -np.ones((300, 200))}], params)["kernel"]) - 1.0
    gate = gain * (1 - 1 / (1 + np.exp(-1.0)))
    np.testing.assert_allclose(move.mean(), ETA * (gate if protect else 1.0), rtol=2e-2)
    np.testing.assert_allclose(move.std(), ETA * 0.5 * gate, rtol=2e-2)


def test_pgd() -> None:
    """Noise of standard deviation eta sigma around the plain step, other noise at every update."""
    params = {"kernel": np.ones((300, 200))}
    gradients = [{"kernel": np.ones((300, 200))}] * 2
    first = np.asarray(last(pgd(sigma=0.5), gradients[:1], params)["kernel"]) - 1.0
    second = np.asarray(last(pgd(sigma=0.5), gradients, params)["kernel"]) - 1.0 - first
    for move in (first, second):
        np.testing.assert_allclose(move.mean(), -ETA, rtol=1e-2)
        np.testing.assert_allclose(move.std(), ETA * 0.5, rtol=1e-2)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


# Second order.


def quadratic(params: Any) -> jax.Array:
    """Diagonal Hessian 2, 4, ... for the kernel and 1 for the bias: the estimate is exact."""
    scale = jnp.arange(1.0, 7.0).reshape(2, 3)
    return jnp.sum(scale * params["kernel"] ** 2) + 0.5 * jnp.sum(params["bias"] ** 2)


def test_second_order_utility_of_a_diagonal_hessian() -> None:
    """One update with beta 0: U = -g theta + h theta^2 / 2."""
    method = upgd(beta=0.0, sigma=0.0, weight_decay=0.0, order="second")
    got = last(method, GRADIENTS[:1], loss=quadratic)
    h = {"kernel": 2 * np.arange(1.0, 7.0).reshape(2, 3), "bias": np.ones(3)}
    u = {name: -GRADIENTS[0][name] * x + 0.5 * h[name] * x**2 for name, x in PARAMS.items()}
    largest = max(x.max() for x in u.values())
    for name, x in PARAMS.items():
        gate = 2 / (1 + np.exp(u[name] / largest))
        np.testing.assert_allclose(got[name], x - ETA * gate * GRADIENTS[0][name], rtol=1e-5)


SMOOTH = replace(MLP, activation="tanh")
NETWORK = build(SMOOTH)
INPUTS, TARGETS = batch_at(SMOOTH, jnp.int32(0))
START = NETWORK.init(jax.random.key(0))


def loss_of(params: Any) -> jax.Array:
    return error(NETWORK.forward(params, INPUTS)[0], TARGETS)


def test_the_diagonal_is_unbiased() -> None:
    """The mean of many draws against the diagonal of the full Hessian."""
    flat, unravel = ravel_pytree(START)
    exact = jnp.diag(jax.hessian(lambda x: loss_of(unravel(x)))(flat))
    keys = jax.random.split(KEY, 4000)
    drawn = jax.jit(jax.vmap(lambda key: ravel_pytree(diagonal(loss_of, START, key))[0]))(keys)
    error_of_mean = np.asarray(drawn.std(0)) / np.sqrt(len(keys))
    assert (np.abs(drawn.mean(0) - exact) <= 5 * error_of_mean + 1e-5).all()
    assert np.abs(exact).max() > 20 * error_of_mean.max()
    halves = curvature_of_weights(loss_of, START, keys[0])
    mine = jax.tree.map(lambda h, x: 0.5 * h * x**2, diagonal(loss_of, START, keys[0]), START)
    jax.tree.map(np.testing.assert_array_equal, halves, mine)


# Units.


def gated(gates: Any) -> jax.Array:
    return loss_of(scaled_units(NETWORK, START, gates))


ONES = {wiring.name: jnp.ones(wiring.size) for wiring in NETWORK.units}


@pytest.mark.parametrize("spec", [SMOOTH, CNN])
def test_the_utility_of_a_unit_is_the_slope_of_its_factor(spec: Any) -> None:
    """The sum of -g theta over the weights that read it, also of a flattened map, is -dL/dc by finite differences."""
    network = build(spec)
    inputs, targets = batch_at(spec, jnp.int32(0))
    params = network.init(jax.random.key(0))

    def loss(params: Any) -> jax.Array:
        return error(network.forward(params, inputs)[0], targets)

    product = jax.tree.map(lambda g, x: -g * x, jax.grad(loss)(params), params)
    found = unit_utility(network, product)
    assert set(found) == {wiring.name for wiring in network.units}
    for wiring in network.units:
        for unit in range(wiring.size):
            sides = []
            for step in (1e-2, -1e-2):
                gates = {w.name: jnp.ones(w.size) for w in network.units}
                gates[wiring.name] = gates[wiring.name].at[unit].add(step)
                sides.append(float(loss(scaled_units(network, params, gates))))
            np.testing.assert_allclose(found[wiring.name][unit], -(sides[0] - sides[1]) / 2e-2, rtol=2e-2, atol=1e-4)


def test_a_unit_without_its_factor_is_removed() -> None:
    """With the factor 0 of all units of the last layer, only the output's bias is left."""
    names = [wiring.name for wiring in NETWORK.units]
    gates = {**ONES, names[-1]: jnp.zeros(NETWORK.units[-1].size)}
    outputs = NETWORK.forward(scaled_units(NETWORK, START, gates), INPUTS)[0]
    np.testing.assert_allclose(outputs, jnp.broadcast_to(START["output"]["bias"], outputs.shape), atol=1e-6)


def test_the_second_order_of_units_is_unbiased() -> None:
    exact = {name: jnp.diag(h[name]) / 2 for name, h in jax.hessian(gated)(ONES).items()}
    keys = jax.random.split(KEY, 4000)
    draw = jax.jit(jax.vmap(lambda k: unit_utility(NETWORK, curvature_of_units(NETWORK, loss_of, START, k))))
    for name, drawn in draw(keys).items():
        error_of_mean = np.asarray(drawn.std(0)) / np.sqrt(len(keys))
        assert (np.abs(drawn.mean(0) - exact[name]) <= 5 * error_of_mean + 1e-5).all()


@pytest.mark.parametrize("relative", ["global", "local"])
def test_gates_of_units(relative: Any) -> None:
    """All that writes a unit has its gate; the output layer has none."""
    utility = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), jnp.float32), START)
    gates, units = unit_gates(NETWORK, utility, relative), unit_utility(NETWORK, utility)
    largest = max(float(u.max()) for u in units.values())
    for wiring in NETWORK.units:
        u = np.asarray(units[wiring.name])
        opened = 1 / (1 + np.exp(u / (largest if relative == "global" else np.linalg.norm(u))))
        for leaf in jax.tree.leaves(trees.get(gates.open, wiring.path)):
            np.testing.assert_allclose(leaf, np.broadcast_to(opened, leaf.shape), rtol=1e-5)
    for leaf in jax.tree.leaves(gates.open["output"]) + jax.tree.leaves(gates.gated["output"]):
        np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))


def test_parameters_that_units_share_are_not_gated() -> None:
    """A non-linearity of a whole layer belongs to no unit: it follows the plain step, and keeps its shape."""
    network = build(replace(MLP, activation=rational(learned="layer")))
    params = network.init(KEY)
    gates = unit_gates(network, jax.tree.map(jnp.ones_like, params), "global")
    jax.tree.map(lambda gate, x: np.testing.assert_equal(gate.shape, x.shape), gates.open, params)
    for layer in ("hidden_0", "hidden_1"):
        assert not any(jax.tree.leaves(gates.gated[layer]["activation"]))
        assert np.asarray(gates.gated[layer]["kernel"]).all()
        assert np.asarray(gates.gated[layer]["bias"]).all()


def test_an_update_with_units() -> None:
    """The output layer follows the plain gradient; a hidden unit's weights move by 2 (1 - s) times it."""
    method = upgd(beta=0.0, sigma=0.0, weight_decay=0.0, utility="units")
    g = jax.grad(loss_of)(START)
    got = last(method, [g], START, network=NETWORK)
    gates = unit_gates(NETWORK, jax.tree.map(lambda g, x: -g * x, g, START), "global")
    factor = jax.tree.map(lambda opened, on: 2 * opened + 1 - on, gates.open, gates.gated)
    expected = jax.tree.map(lambda x, slope, f: x - ETA * f * slope, START, g, factor)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, expected)
    np.testing.assert_allclose(
        got["output"]["kernel"], START["output"]["kernel"] - ETA * g["output"]["kernel"], rtol=1e-5
    )


@pytest.mark.parametrize(
    "settings", [{"utility": "units"}, {"order": "second"}, {"utility": "units", "order": "second"}]
)
def test_of_joined_networks_each_part_is_as_if_it_were_alone(settings: Any) -> None:
    """Restricted to one part, the loss and the network are that part's; the losses are separate."""
    method = upgd(sigma=0.0, beta=0.5, **settings)
    both = joined(restricted(method, ["actor"]), sgd(learning_rate=ETA), ("actor", "critic"))
    alone = make(method, sgd(learning_rate=ETA))
    run, single_run = both.init(KEY), alone.init(KEY)
    params = run.learner.params["actor"]
    single_run = single_run._replace(learner=single_run.learner._replace(params=params))
    after = both.update(KEY, run, jnp.int32(0)).learner.params
    bare = joined(compose(), sgd(learning_rate=ETA), ("actor", "critic"))
    plain = bare.update(KEY, bare.init(KEY), jnp.int32(0))
    jax.tree.map(np.testing.assert_array_equal, after["critic"], plain.learner.params["critic"])
    moved = jax.tree.leaves(
        jax.tree.map(lambda a, b: jnp.abs(a - b).max(), after["actor"], plain.learner.params["actor"])
    )
    assert max(map(float, moved)) > 1e-4
    if "order" not in settings:  # the signs depend on the number of arrays
        expected = alone.update(KEY, single_run, jnp.int32(0)).learner.params
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after["actor"], expected)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(
        ValueError, match="upgd: order: second is not allowed with this agent, whose updates have no loss"
    ):
        last(upgd(order="second"))
    with pytest.raises(ValueError, match='order: "third" is not allowed; must be one of first, second'):
        upgd(order="third")  # type: ignore[arg-type]


def test_a_plan_refuses_the_second_order_where_there_is_no_loss() -> None:
    """Of an agent with eligibility traces; the utility of units needs no loss."""
    catch = {"kind": "catch", "tasks": 2, "steps_per_task": 20}
    agent = {"kind": "stream_q", "network": {"kind": "mlp", "widths": [4]}, "optimizer": "sgd"}
    for settings, said in (({"order": "second"}, "upgd: order: second is not allowed with this agent"), ({}, None)):
        method = {"kind": "upgd", "utility": "units", **settings}
        asked = tiny.document(agent=agent, stream=catch, monitors=[], interventions=[method])
        if said is None:
            launch.plan(read_experiment(asked, launch.registry()))
        else:
            with pytest.raises(UserError, match=said):
                launch.plan(read_experiment(asked, launch.registry()))
