"""ReDo, ReGraMa and CPR on made-up activations, gradients and fresh values, by hand and against NumPy."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP, Loop, Run, make

from plasticity.core.types import Activation, Context
from plasticity.interventions import cpr, redo, regrama, units
from plasticity.interventions.base import Intervention
from plasticity.networks.build import build, join
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import adam

KEY = jax.random.key(1)
FRESH = 7.0  # every fresh value, slots apart


def ones(shape: tuple[int, ...]) -> Activation:
    return Activation(jnp.ones(shape), jnp.ones(shape))


def seen(values: Any) -> Activation:
    return Activation(jnp.zeros(()), jnp.asarray(values, jnp.float32))


def started(intervention: Intervention, spec: NetworkSpec = MLP) -> tuple[Loop, Run]:
    """A learner whose parameters are all 1 and whose slots are all 2."""
    loop = make(intervention, adam(), spec)
    shapes = jax.eval_shape(loop.init, KEY)
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes.learner.params)
    slots = jax.tree.map(lambda x: np.full(x.shape, 2, x.dtype), shapes.learner.opt_state)
    learner = shapes.learner._replace(params=params, opt_state=slots, target=params)
    return loop, Run(intervention.init(KEY, params, loop.network), learner)


def context(loop: Loop, run: Run, update: int, activations: Mapping[str, Activation], gradients: Any = ()) -> Context:
    fresh = run.learner._replace(params=jax.tree.map(lambda x: np.full_like(x, FRESH), run.learner.params))
    facts = {"activations": activations, "gradients": gradients, "fresh": lambda key: fresh}
    return loop.context(update)._replace(**facts)


DENSE = {  # E|h| of hidden_0: 0, 1, 2, 0.1, 1.9; their mean is 1
    "hidden_0": seen([[0, 1, -4, 0.1, 1.9], [0, -1, 0, 0.1, -1.9]]),
    "hidden_1": ones((2, 4)),
}


def test_redo_rewrites_the_dormant_units_of_a_dense_layer_and_nothing_else() -> None:
    intervention = redo(threshold=0.11, period=1)
    loop, run = started(intervention)
    _, learner = intervention.step(KEY, *run, context(loop, run, 0, DENSE))
    column = np.array([FRESH, 1, 1, FRESH, 1])
    np.testing.assert_array_equal(learner.params["hidden_0"]["bias"], column)
    np.testing.assert_array_equal(learner.params["hidden_0"]["kernel"], np.tile(column, (3, 1)))
    rows = np.array([0.0, 1, 1, 0, 1])
    np.testing.assert_array_equal(learner.params["hidden_1"]["kernel"], np.tile(rows, (4, 1)).T)
    np.testing.assert_array_equal(learner.params["hidden_1"]["bias"], np.ones(4))
    np.testing.assert_array_equal(learner.params["output"]["kernel"], np.ones((4, 2)))
    moments = learner.opt_state.direction[1]
    for slot in (moments.mu, moments.nu):
        np.testing.assert_array_equal(slot["hidden_0"]["bias"], 2 * rows)
        np.testing.assert_array_equal(slot["hidden_0"]["kernel"], 2 * np.tile(rows, (3, 1)))
        np.testing.assert_array_equal(slot["hidden_1"]["kernel"], 2 * np.tile(rows, (4, 1)).T)
        np.testing.assert_array_equal(slot["hidden_1"]["bias"], np.full(4, 2))
        np.testing.assert_array_equal(slot["output"]["kernel"], np.full((4, 2), 2))
    assert int(moments.count) == 2
    jax.tree.map(np.testing.assert_array_equal, learner.target, run.learner.target)


def test_slots_may_stay() -> None:
    intervention = redo(threshold=0.1, period=1, optimizer_slots=False)
    loop, run = started(intervention)
    _, learner = intervention.step(KEY, *run, context(loop, run, 0, DENSE))
    assert np.all(np.asarray(learner.opt_state.direction[1].mu["hidden_0"]["kernel"]) == 2)
    assert np.any(np.asarray(learner.params["hidden_0"]["kernel"]) == FRESH)


def test_redo_averages_over_positions_and_finds_the_rows_of_a_flattened_map() -> None:
    """One of 3 channels fires at one of 18 places with 1.8, the others everywhere with 1.45: scores 0.1 and 1.45."""
    first = np.full((2, 3, 3, 3), 1.45)
    first[..., 0] = 0
    first[1, 2, 0, 0] = 1.8
    second = np.ones((2, 2, 2, 2))
    second[..., 1] = 0
    activations = {"hidden_0": seen(first), "hidden_1": seen(second), "hidden_2": ones((2, 4))}
    for threshold, dormant in ((0.101, [1, 0, 0]), (0.099, [0, 0, 0])):
        intervention = redo(threshold=threshold, period=1)
        loop, run = started(intervention, CNN)
        _, learner = intervention.step(KEY, *run, context(loop, run, 0, activations))
        gone = np.array(dormant, bool)
        assert np.all((np.asarray(learner.params["hidden_0"]["kernel"]) == FRESH) == gone)
        kernel = np.asarray(learner.params["hidden_1"]["kernel"])  # [2, 2, 3, 2]
        np.testing.assert_array_equal(kernel[..., 1], np.broadcast_to(np.where(gone, 0.0, FRESH), (2, 2, 3)))
        np.testing.assert_array_equal(kernel[..., 0], np.broadcast_to(np.where(gone, 0.0, 1.0), (2, 2, 3)))
        flat = np.asarray(learner.params["hidden_2"]["kernel"])  # the channel is the innermost axis of the flat map
        np.testing.assert_array_equal(flat, np.tile([[1.0], [0.0]], (4, 4)))


def test_copies_of_a_unit_are_judged_together() -> None:
    intervention = redo(threshold=0.1, period=1, layers=["hidden_0"])
    loop, run = started(intervention, replace(MLP, activation="crelu"))
    post = [[1, 0, 1, 0, 0.1, 0, 2, 1, 0, 0.1]]  # sizes of the units: 1/2, 2/2, 2/2, 0, 0.2/2; their mean is 0.52
    _, learner = intervention.step(KEY, *run, context(loop, run, 0, {"hidden_0": seen(post)}))
    np.testing.assert_array_equal(learner.params["hidden_0"]["bias"] == FRESH, [0, 0, 0, 1, 0])
    kept = np.array([1.0, 1, 1, 0, 1])
    np.testing.assert_array_equal(learner.params["hidden_1"]["kernel"][:, 0], np.tile(kept, 2))


@pytest.fixture(scope="module")
def dead() -> tuple[Loop, Run, jax.Array]:
    """A network with one unit that never fires, and the fresh values from its own initialiser."""
    loop = make(redo(threshold=0.0, period=1), adam(), MLP)
    run = loop.init(KEY)
    run.learner.params["hidden_0"]["bias"] = run.learner.params["hidden_0"]["bias"].at[2].set(-50.0)
    return loop, run, jnp.sin(jnp.arange(12.0)).reshape(4, 3)


def test_threshold_0_recycles_the_dead_and_changes_no_prediction(dead: tuple[Loop, Run, jax.Array]) -> None:
    loop, run, inputs = dead
    before, activations = loop.network.forward(run.learner.params, inputs)
    silent = {name: np.all(np.asarray(each.post) == 0, axis=0) for name, each in activations.items()}
    assert silent["hidden_0"][2]
    assert not silent["hidden_0"].all()
    facts = loop.context(0)._replace(activations=activations)
    _, learner = redo(threshold=0.0, period=1).step(jax.random.key(4), *run, facts)
    after, again = loop.network.forward(learner.params, inputs)
    np.testing.assert_array_equal(after, before)
    changed = np.any(np.asarray(learner.params["hidden_0"]["kernel"] != run.learner.params["hidden_0"]["kernel"]), 0)
    np.testing.assert_array_equal(changed, silent["hidden_0"])
    assert float(learner.params["hidden_0"]["bias"][2]) == 0
    # Severed: the unit has no effect until its outgoing weights have learned something.
    assert np.any(np.asarray(again["hidden_0"].post)[:, 2] != 0)
    louder = {**learner.params["hidden_0"], "bias": learner.params["hidden_0"]["bias"].at[2].set(9.0)}
    np.testing.assert_array_equal(loop.network.forward({**learner.params, "hidden_0": louder}, inputs)[0], before)


def test_the_running_mean_is_what_is_judged() -> None:
    """Means after two updates with decay 0.5: (0.5 + 2) / 4 = 0.75, then 0.25 and so on, by hand."""
    intervention = redo(threshold=0.5, period=2, average=0.5, layers=["hidden_1"])
    loop, run = started(intervention)
    first, second = seen([[4.0, 4, 0, 4]]), seen([[0.0, 4, 2, 4]])
    state, learner = intervention.step(KEY, *run, context(loop, run, 0, {"hidden_1": first}))
    np.testing.assert_allclose(state["hidden_1"], [2, 2, 0, 2])
    assert np.all(np.asarray(learner.params["hidden_1"]["bias"]) == 1)  # not yet due
    state, learner = intervention.step(KEY, state, learner, context(loop, run, 1, {"hidden_1": second}))
    # 1, 3, 1, 3 with mean 2: units 0 and 2 are at half of it, and start again from the mean
    np.testing.assert_array_equal(learner.params["hidden_1"]["bias"], [FRESH, 1, FRESH, 1])
    np.testing.assert_allclose(state["hidden_1"], [2, 3, 2, 3])


def gradients(run: Run, hidden_0: Any, hidden_1: Any) -> Any:
    params = jax.tree.map(np.zeros_like, run.learner.params)
    found = {"hidden_0": {"kernel": hidden_0, "bias": np.full(5, 99.0)}, "hidden_1": {"kernel": hidden_1}}
    return {name: {**params[name], **found.get(name, {})} for name in params}


def test_regrama_scores_by_the_gradient_of_the_weights_that_come_in() -> None:
    intervention = regrama(threshold=0.5, period=1)
    loop, run = started(intervention)
    into = np.zeros((3, 5), np.float32)
    into[0] = [-3, 3, 0, 6, 3]  # means 1, 1, 0, 2, 1; their mean is 1
    seen_by = context(loop, run, 0, {}, gradients(run, into, np.ones((5, 4), np.float32)))
    state, learner = intervention.step(KEY, *run, seen_by)
    np.testing.assert_array_equal(learner.params["hidden_0"]["bias"], [1, 1, FRESH, 1, 1])
    np.testing.assert_array_equal(learner.params["hidden_1"]["kernel"][:, 0], [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(learner.params["hidden_1"]["bias"], np.ones(4))
    np.testing.assert_allclose(state["hidden_0"], [1, 1, 1, 2, 1])


def test_incoming_means_of_a_convolution() -> None:
    kernel = np.arange(2 * 2 * 3 * 2, dtype=np.float32).reshape(2, 2, 3, 2) - 7
    expected = [np.abs(kernel[:, :, :, unit]).mean() for unit in (0, 1)]
    np.testing.assert_allclose(units.incoming(jnp.asarray(kernel)), expected)


def test_cpr_by_its_equations() -> None:
    rho, k, average = 0.5, 4.0, 0.75
    intervention = cpr(strength=rho, sharpness=k, average=average, period=2)
    loop, run = started(intervention)
    rng = np.random.default_rng(0)
    state, learner = run
    u = {"hidden_0": np.ones(5), "hidden_1": np.ones(4)}
    for update in range(2):
        made = {"hidden_0": rng.normal(size=(3, 5)), "hidden_1": rng.normal(size=(5, 4))}
        state, learner = intervention.step(KEY, state, learner, context(loop, run, update, {}, gradients(run, **made)))
        for name, gradient in made.items():
            size = np.abs(gradient).mean(0)
            u[name] = average * u[name] + (1 - average) * size / size.mean()
        if update == 0:
            np.testing.assert_allclose(state["hidden_1"], u["hidden_1"], rtol=1e-5)
    r0, r1 = (rho * np.minimum(1, 2 / (1 + np.exp(k * (u[name] - 1)))) for name in ("hidden_0", "hidden_1"))
    assert r0.min() < rho == r0.max()
    expected = {
        "hidden_0": np.broadcast_to(1 - r0 + r0 * FRESH, (3, 5)),
        "hidden_1": (1 - r0)[:, None] * (1 - r1 + r1 * FRESH),
        "output": np.broadcast_to((1 - r1)[:, None], (4, 2)),
    }
    for name, kernel in expected.items():
        np.testing.assert_allclose(learner.params[name]["kernel"], kernel, rtol=1e-5)
        assert np.all(np.asarray(learner.params[name]["bias"]) == 1)
    jax.tree.map(np.testing.assert_array_equal, learner.opt_state, run.learner.opt_state)
    assert all(np.all(np.asarray(each) == 1) for each in state.values())


def test_joined_networks_are_recycled_each_by_its_own_layers() -> None:
    intervention = redo(threshold=0.1, period=1, layers=["critic/hidden_0"])
    small = build(NetworkSpec((3,), 2, widths=(2,)))
    joint = join({"actor": small, "critic": small})
    loop, _ = started(intervention)
    rule = adam()
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), jax.eval_shape(joint.init, KEY))
    learner = loop.init(KEY).learner._replace(params=params, opt_state=rule.init(params))
    run = Run(intervention.init(KEY, params, joint), learner)
    facts = context(loop, run, 0, {"critic/hidden_0": seen([[0.0, 1]])})._replace(network=joint, optimizer=rule)
    _, learner = intervention.step(KEY, *run, facts)
    np.testing.assert_array_equal(learner.params["critic"]["hidden_0"]["bias"], [FRESH, 1])
    np.testing.assert_array_equal(learner.params["critic"]["output"]["kernel"][:, 0], [0, 1])
    jax.tree.map(np.testing.assert_array_equal, learner.params["actor"], params["actor"])


@pytest.mark.parametrize("method", [redo, regrama, cpr])
def test_needs_hidden_units(method: Any) -> None:
    loop = make(method(), adam(), NetworkSpec((3,), 2))
    message = f"{method.__name__} needs a network with hidden units; this one has none"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda key: loop.update(key, loop.init(key), jnp.int32(0)), KEY)


def test_unknown_layers() -> None:
    loop = make(redo(layers=["hidden_0", "hidden_9"]), adam())
    with pytest.raises(
        ValueError, match='layers: "hidden_9" is not allowed; must be all, or a list of: hidden_0, hidden_1'
    ):
        jax.eval_shape(lambda key: loop.update(key, loop.init(key), jnp.int32(0)), KEY)
    with pytest.raises(ValueError, match='layers: "last" is not allowed; must be all or a list of names'):
        redo(layers="last")  # type: ignore[arg-type]
