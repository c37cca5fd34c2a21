"""FIRE against the singular value decomposition; what it leaves alone; optimizer and target."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP, Loop, Run, make

from plasticity.interventions import fire, reset
from plasticity.interventions.base import Intervention, compose, unchanged
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import adam

KEY = jax.random.key(1)


def switched(method: Intervention, spec: NetworkSpec = MLP) -> tuple[Loop, Run, Run]:
    """A learner with random parameters, slots of 2 and a target of 1, before and after a switch."""
    loop = make(method, adam(), spec)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(loop.init, KEY).learner
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes.params)
    slots = jax.tree.map(lambda x: np.full(x.shape, 2, x.dtype), shapes.opt_state)
    ones = jax.tree.map(np.ones_like, params)
    before = Run(method.init(KEY, params, loop.network), shapes._replace(params=params, opt_state=slots, target=ones))
    return loop, before, loop.switch(KEY, before, jnp.int32(3))


def isometry(kernel: Any) -> np.ndarray:
    """``sqrt(units / inputs) U V^T`` of a matrix."""
    u, _, v = np.linalg.svd(np.asarray(kernel, np.float64), full_matrices=False)
    return float(np.sqrt(kernel.shape[1] / kernel.shape[0])) * u @ v


def test_every_kernel_becomes_the_nearest_isometry_and_biases_stay() -> None:
    _, before, after = switched(fire(iterations=40))
    for name, old in before.learner.params.items():
        new = after.learner.params[name]
        np.testing.assert_allclose(new["kernel"], isometry(old["kernel"]), atol=1e-5)
        np.testing.assert_array_equal(new["bias"], old["bias"])
    wide = np.asarray(after.learner.params["hidden_0"]["kernel"], np.float64)  # 3 inputs, 5 units
    np.testing.assert_allclose(wide @ wide.T, 5 / 3 * np.eye(3), atol=1e-5)
    tall = np.asarray(after.learner.params["output"]["kernel"], np.float64)  # 4 inputs, 2 units
    np.testing.assert_allclose(tall.T @ tall, 2 / 4 * np.eye(2), atol=1e-5)


def test_ten_iterations_map_each_singular_value_by_itself() -> None:
    _, before, after = switched(fire())
    u, s, v = np.linalg.svd(np.asarray(before.learner.params["hidden_1"]["kernel"], np.float64), full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(10):
        s = s * (3 - s**2) / 2
    np.testing.assert_allclose(after.learner.params["hidden_1"]["kernel"], np.sqrt(4 / 5) * (u * s) @ v, atol=1e-5)


def test_a_convolution_is_projected_position_by_position() -> None:
    _, before, after = switched(fire(iterations=60), CNN)
    for name in ("hidden_0", "hidden_1"):
        old, new = before.learner.params[name]["kernel"], after.learner.params[name]["kernel"]
        for row in range(2):
            for column in range(2):
                np.testing.assert_allclose(new[row, column], isometry(old[row, column]) / 4, atol=1e-5)
    dense = before.learner.params["hidden_2"]["kernel"]
    np.testing.assert_allclose(after.learner.params["hidden_2"]["kernel"], isometry(dense), atol=1e-5)


def test_without_the_ratio_of_the_sides() -> None:
    _, before, after = switched(fire(iterations=40, scale="one"))
    kernel = before.learner.params["hidden_0"]["kernel"]
    np.testing.assert_allclose(after.learner.params["hidden_0"]["kernel"], isometry(kernel) / np.sqrt(5 / 3), atol=1e-5)


def test_layers_optimizer_and_target() -> None:
    loop, before, after = switched(fire(layers=["hidden_1"], optimizer="slots", target=False))
    moments, old = after.learner.opt_state.direction[1], before.learner.params
    for name in ("hidden_0", "hidden_1", "output"):
        projected = name == "hidden_1"
        assert np.array_equal(after.learner.params[name]["kernel"], old[name]["kernel"]) != projected
        for slot in (moments.mu, moments.nu):
            assert np.all(np.asarray(slot[name]["kernel"]) == (0 if projected else 2))
            assert np.all(np.asarray(slot[name]["bias"]) == 2)
    assert int(moments.count) == 2
    jax.tree.map(np.testing.assert_array_equal, after.learner.target, before.learner.target)
    _, _, kept = switched(fire(optimizer="keep"))
    jax.tree.map(np.testing.assert_array_equal, kept.learner.opt_state, before.learner.opt_state)
    jax.tree.map(np.testing.assert_array_equal, kept.learner.target, kept.learner.params)
    _, _, whole = switched(fire())
    jax.tree.map(np.testing.assert_array_equal, whole.learner.opt_state, loop.optimizer.init(old))
    _, _, hidden = switched(fire(layers="hidden"))
    np.testing.assert_array_equal(hidden.learner.params["output"]["kernel"], old["output"]["kernel"])


def test_convolutions_projected_and_dense_layers_redrawn_as_in_the_authors_dqn() -> None:
    both = compose(
        fire(layers=["hidden_0", "hidden_1"], optimizer="keep", iterations=60),
        reset(modules=["hidden_2", "output"], optimizer=False),
    )
    loop, before, after = switched(both, CNN)
    fresh = loop.context(jnp.int32(3)).fresh(jax.random.fold_in(KEY, 1)).params
    for learned in (after.learner.params, after.learner.target):
        first = before.learner.params["hidden_0"]["kernel"]
        np.testing.assert_allclose(learned["hidden_0"]["kernel"][0, 1], isometry(first[0, 1]) / 4, atol=1e-5)
        for name in ("hidden_2", "output"):
            jax.tree.map(np.testing.assert_array_equal, learned[name], fresh[name])
    jax.tree.map(np.testing.assert_array_equal, after.learner.opt_state, before.learner.opt_state)


def test_constraints_of_the_network_hold_afterwards() -> None:
    _, _, after = switched(fire(), replace(MLP, sphere=True))
    kernel = np.asarray(after.learner.params["output"]["kernel"])
    np.testing.assert_allclose(np.square(kernel).sum(0), np.ones(2), rtol=1e-5)


def test_when_and_what_is_refused() -> None:
    periodic = fire(when="periodic", period=2)
    assert periodic.switch is unchanged
    loop = make(periodic, adam())
    run = loop.init(KEY)
    first = loop.update(KEY, run, jnp.int32(0)).learner.params["hidden_1"]["kernel"]
    second = loop.update(KEY, run, jnp.int32(1)).learner.params["hidden_1"]["kernel"]
    lengths = [float(np.square(np.asarray(each)).sum()) for each in (first, second)]
    assert lengths[1] == pytest.approx(4 / 5 * 4, rel=0.05)
    assert lengths[0] != pytest.approx(4 / 5 * 4, rel=0.05)
    with pytest.raises(ValueError, match='scale: "two" is not allowed; must be one of ratio, one'):
        fire(scale="two")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='layers: "hidden_9" is not allowed; must be all, hidden, or a list of'):
        switched(fire(layers=["hidden_9"]))
    with pytest.raises(ValueError, match="fire needs a network with hidden layers; this one has none"):
        switched(fire(layers="hidden"), NetworkSpec((3,), 2))
