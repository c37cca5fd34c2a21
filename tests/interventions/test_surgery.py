"""Masks and slots, by the wiring of small networks and against ``optimizer.init``."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from update_loop import CNN, MLP

from plasticity.core import trees
from plasticity.core.types import Learner, Network, Optimizer, Params
from plasticity.interventions import surgery, weight_decay
from plasticity.networks.build import build
from plasticity.optim.eligibility import adaptive_q, eligible, obgd
from plasticity.optim.optimizers import adam, rmsprop, sgd, wrap

OPTIMIZERS = {
    "adam": adam(),
    "counted": adam(counts="parameter"),
    "momentum": sgd(momentum=0.9, nesterov=True),
    "rmsprop": rmsprop(momentum=0.9),
    "clipped": adam(max_gradient_norm=1.0),
    "decayed": weight_decay(rate=0.1).optimizer(sgd(momentum=0.9)),
    "chained": wrap(adam(), before=optax.chain(optax.clip(1.0), optax.trace(0.5)), after=optax.trace(0.5)),
    "masked": wrap(adam(), before=optax.masked(optax.trace(0.5), lambda p: jax.tree.map(lambda x: x.ndim > 1, p))),
}
DEAD = {"hidden_0": jnp.array([False, True, False, True, False]), "hidden_1": jnp.array([True, False, False, False])}


@functools.cache
def fresh_values() -> tuple[Params, Params]:
    """The parameters of two fresh networks, none of them 0."""
    init = jax.jit(build(MLP).init)
    first, second = (jax.tree.map(lambda x: x + 0.5, init(jax.random.key(seed))) for seed in (0, 1))
    return first, second


def full(masks: surgery.Masks, params: Params) -> surgery.Masks:
    """The masks in the shapes of the parameters."""
    return jax.tree.map(lambda m, p: np.broadcast_to(m, p.shape), masks, params)


def shapes(network: Network) -> Params:
    return jax.eval_shape(network.init, jax.random.key(0))


def trained(optimizer: Optimizer) -> tuple[Learner, Params]:
    """A learner after two updates, all slots in use, and fresh parameters."""
    params, fresh = fresh_values()
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    return Learner(params, jax.tree.map(lambda x: 2 * x, params), state), fresh


def slots_of(optimizer: Optimizer, state: optax.OptState, like: Params) -> list[Params]:
    """Every part of the state that has the parameters' structure."""
    structure = jax.tree.structure(like)

    def is_slot(node: object) -> bool:
        return jax.tree.structure(node) == structure

    return [node for node in jax.tree.leaves(state, is_leaf=is_slot) if is_slot(node)]


def scalars(state: optax.OptState) -> list[int]:
    """The counts that all parameters share."""
    return [int(x) for x in jax.tree.leaves(state) if x.dtype == jnp.int32 and x.ndim == 0]


@pytest.fixture(scope="module")
def mlp_masks() -> tuple[surgery.Masks, surgery.Masks]:
    network = build(MLP)
    return surgery.unit_masks(network, shapes(network), DEAD)


def test_unit_masks_of_dense_layers(mlp_masks: tuple[surgery.Masks, surgery.Masks]) -> None:
    incoming, outgoing = (full(masks, shapes(build(MLP))) for masks in mlp_masks)
    np.testing.assert_array_equal(incoming["hidden_0"]["bias"], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(incoming["hidden_0"]["kernel"], [[0, 1, 0, 1, 0]] * 3)
    np.testing.assert_array_equal(incoming["hidden_1"]["kernel"], [[1, 0, 0, 0]] * 5)
    np.testing.assert_array_equal(outgoing["hidden_1"]["kernel"], np.transpose([[0, 1, 0, 1, 0]] * 4))
    np.testing.assert_array_equal(outgoing["output"]["kernel"], np.transpose([[1, 0, 0, 0]] * 2))
    for masks, path in ((incoming, ("output", "kernel")), (outgoing, ("hidden_0", "kernel"))):
        assert not trees.get(masks, path).any()
    assert not any(outgoing[name]["bias"].any() for name in outgoing)


def test_unit_masks_of_convolutions_and_of_what_reads_them() -> None:
    """hidden_0: 3 maps of 3x3; hidden_1: 2 maps of 2x2, flattened to 8 rows with the channels innermost."""
    network = build(CNN)
    dead = {"hidden_0": jnp.array([False, False, True]), "hidden_1": jnp.array([True, False])}
    masks = surgery.unit_masks(network, shapes(network), dead)
    incoming, outgoing = (full(each, shapes(network)) for each in masks)
    assert incoming["hidden_0"]["kernel"].sum(axis=(0, 1, 2)).tolist() == [0, 0, 8]
    assert outgoing["hidden_1"]["kernel"].sum(axis=(0, 1, 3)).tolist() == [0, 0, 8]
    np.testing.assert_array_equal(outgoing["hidden_2"]["kernel"][:, 0], [1, 0] * 4)


@pytest.mark.parametrize("activation", ["relu", "crelu"])
def test_outgoing_zeros_silence_a_unit(activation: str) -> None:
    """The output no longer depends on what comes into the units whose outgoing weights are zero."""
    network = build(replace(CNN, activation=activation))
    params = jax.jit(network.init)(jax.random.key(0))
    dead = {"hidden_0": jnp.array([False, False, True]), "hidden_1": jnp.array([True, False])}
    incoming, outgoing = surgery.unit_masks(network, params, dead)
    silent = trees.where(outgoing, jax.tree.map(jnp.zeros_like, params), params)
    moved = trees.where(incoming, jax.tree.map(lambda x: x + 1.0, params), silent)
    moved = trees.where(outgoing, jax.tree.map(jnp.zeros_like, params), moved)
    x = jax.random.normal(jax.random.key(2), (3, 4, 4, 2))
    outputs = jax.jit(lambda params: network.forward(params, x)[0])
    np.testing.assert_allclose(outputs(moved), outputs(silent), rtol=1e-5, atol=1e-6)
    assert not np.allclose(outputs(silent), outputs(params))


def test_unknown_layer_is_named() -> None:
    network = build(MLP)
    with pytest.raises(KeyError, match="hidden_9"):
        surgery.unit_masks(network, shapes(network), {"hidden_9": jnp.ones(3, bool)})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_reinitialise_changes_what_the_masks_say_and_nothing_else(
    name: str, mlp_masks: tuple[surgery.Masks, surgery.Masks]
) -> None:
    optimizer = OPTIMIZERS[name]
    learner, fresh = trained(optimizer)
    incoming, outgoing = mlp_masks
    new = surgery.reinitialise(learner, incoming, outgoing, fresh, optimizer)
    both = full(surgery.either(*mlp_masks), fresh)
    expected = jax.tree.map(
        lambda i, o, f, p: np.where(o, 0.0, np.where(i, f, p)), incoming, outgoing, fresh, learner.params
    )
    jax.tree.map(np.testing.assert_array_equal, new.params, expected)
    assert jax.tree.structure(new.opt_state) == jax.tree.structure(learner.opt_state)
    old_slots, new_slots = (slots_of(optimizer, each.opt_state, fresh) for each in (learner, new))
    initial_slots = slots_of(optimizer, optimizer.init(new.params), fresh)
    assert len(old_slots) >= 1
    for old, initial, slot in zip(old_slots, initial_slots, new_slots, strict=True):
        jax.tree.map(lambda m, a, b, c: np.testing.assert_array_equal(np.where(m, b, a), c), both, old, initial, slot)
        assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(initial), strict=True))
    jax.tree.map(np.testing.assert_array_equal, new.target, learner.target)
    assert scalars(learner.opt_state) == scalars(new.opt_state)


def test_masked_slots_are_left_out_and_the_others_found() -> None:
    optimizer = OPTIMIZERS["masked"]
    learner, _ = trained(optimizer)
    state = surgery.reset_slots(optimizer, learner.opt_state, learner.params, surgery.everywhere(learner.params))
    assert float(trees.norm(state.before)) == 0.0
    assert float(trees.norm(learner.opt_state.before)) > 0.0


def test_slots_and_target_are_options() -> None:
    optimizer = OPTIMIZERS["adam"]
    learner, fresh = trained(optimizer)
    masks = surgery.module_mask(learner.params, [("output",)]), surgery.nowhere(learner.params)
    new = surgery.reinitialise(learner, *masks, fresh, optimizer, optimizer_slots=False, target=True)
    jax.tree.map(np.testing.assert_array_equal, new.opt_state, learner.opt_state)
    jax.tree.map(np.testing.assert_array_equal, new.target["output"], fresh["output"])
    jax.tree.map(np.testing.assert_array_equal, new.target["hidden_0"], learner.target["hidden_0"])
    assert surgery.reinitialise(learner._replace(target=()), *masks, fresh, optimizer, target=True).target == ()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_counts_alone(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    learner, fresh = trained(optimizer)
    state = surgery.reset_counts(optimizer, learner.opt_state, learner.params)
    assert not any(np.any(x) for x in jax.tree.leaves(state) if x.dtype == jnp.int32)
    for old, new in zip(*(slots_of(optimizer, s, fresh) for s in (learner.opt_state, state)), strict=True):
        if jax.tree.leaves(old)[0].dtype != jnp.int32:
            jax.tree.map(np.testing.assert_array_equal, old, new)


PARTS = {"first_moment": {"mu", "trace"}, "second_moment": {"nu", "second"}}


@pytest.mark.parametrize(
    ("rule", "moment", "gone"),
    [
        (adam(), "first_moment", 1),
        (adam(), "second_moment", 1),
        (adam(counts="parameter"), "second_moment", 1),
        (rmsprop(momentum=0.5), "first_moment", 2),
        (rmsprop(centred=False), "second_moment", 1),
        (sgd(momentum=0.5), "first_moment", 1),
        (OPTIMIZERS["decayed"], "first_moment", 1),
        (eligible(adam()), "first_moment", 1),
        (eligible(adam()), "second_moment", 1),
        (eligible(adaptive_q()), "second_moment", 1),
    ],
)
def test_one_kind_of_moment_alone(rule: Optimizer, moment: surgery.Moment, gone: int) -> None:
    """Only these slots return to 0; everything else stays, including the trace in front of an optimizer."""
    params = {"w": jnp.ones((2, 1))}
    facts = {"td_error": jnp.ones(()), "trace_decay": 0.5, "trace_end": jnp.array(False)}
    _, state = rule.update({"w": jnp.full((2, 1), 3.0)}, rule.init(params), params, **facts)
    new = surgery.reset_moment(rule, state, params, moment)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    old_leaves, new_leaves = (jax.tree_util.tree_leaves_with_path(each) for each in (state, new))
    changed = [path for (path, x), (_, y) in zip(old_leaves, new_leaves, strict=True) if np.any(x != y)]
    assert len(changed) == gone
    assert all({getattr(key, "name", "") for key in path} & PARTS[moment] for path in changed)
    assert not any(path[0] == jax.tree_util.GetAttrKey("trace") for path in changed)
    assert not any(np.any(x) for path, x in new_leaves if path in changed)


@pytest.mark.parametrize(
    ("rule", "moment"),
    [(sgd(momentum=0.5), "second_moment"), (eligible(obgd()), "first_moment"), (adaptive_q(), "first_moment")],
)
def test_an_optimizer_without_the_moment_is_refused(rule: Optimizer, moment: surgery.Moment) -> None:
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match=rf"{moment} is not allowed; .* \(optimizers that do: .*adam"):
        surgery.reset_moment(rule, rule.init(params), params, moment)


def test_masks_of_each_lane_are_its_own() -> None:
    network, optimizer = build(MLP), OPTIMIZERS["adam"]
    learner, fresh = trained(optimizer)

    def lane(dead: jax.Array) -> Learner:
        masks = surgery.unit_masks(network, learner.params, {"hidden_0": dead})
        return surgery.reinitialise(learner, *masks, fresh, optimizer)

    dead = jnp.stack([DEAD["hidden_0"], ~DEAD["hidden_0"]])
    together = jax.jit(jax.vmap(lane))(dead)
    for i in range(2):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[i], y), together, lane(dead[i]))  # noqa: B023


def test_factored_slots_are_refused() -> None:
    def init(params: Params) -> optax.TraceState:
        return optax.TraceState(jax.tree.map(lambda x: jnp.zeros(x.shape[-1:]), params))

    optimizer = Optimizer(init, lambda g, s, p=None: (g, s), lambda s: jnp.ones(()))
    params = {"kernel": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match="cannot be reset unit by unit"):
        surgery.reset_slots(optimizer, init(params), params, surgery.everywhere(params))
