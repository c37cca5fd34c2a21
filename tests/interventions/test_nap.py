"""Normalize-and-Project: norms that stay, predictions that don't feel them."""

import functools
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP, Run, make, train

from plasticity.interventions import layer_norm, nap
from plasticity.interventions.projection import rescaled
from plasticity.networks import NetworkSpec, build
from plasticity.optimizers import adam

KEY = jax.random.key(0)
WIDE = replace(MLP, widths=(16, 16))


def norms(params: dict, leaf: str = "kernel") -> np.ndarray:
    return np.array([np.linalg.norm(module[leaf]) for name, module in sorted(params.items()) if name != "output"])


@functools.cache
def program(spec: NetworkSpec, **settings: object) -> tuple[Run, Callable[..., Run]]:
    """A newborn learner and its compiled update."""
    loop = make(nap(**settings), adam(learning_rate=0.02), spec)
    return loop.init(KEY), jax.jit(loop.update)


def trained(updates: int, spec: NetworkSpec = WIDE, **settings: object) -> tuple[dict, dict]:
    """The parameters before and after some updates."""
    born, update = program(spec, **settings)
    run = born
    for number in range(updates):
        run = update(KEY, run, jnp.int32(number))
    return born.learner.params, run.learner.params


@pytest.mark.parametrize("spec", [WIDE, CNN], ids=["mlp", "cnn"])
def test_fifty_updates_keep_the_hidden_norms_and_move_the_output(spec: NetworkSpec) -> None:
    before, after = trained(50, spec)
    np.testing.assert_allclose(norms(after), norms(before), rtol=1e-6)
    for name in before:
        assert np.abs(after[name]["kernel"] - before[name]["kernel"]).max() > 1e-2
    assert abs(np.linalg.norm(after["output"]["kernel"]) / np.linalg.norm(before["output"]["kernel"]) - 1) > 1e-2


def test_layer_norm_alone_lets_the_norms_grow() -> None:
    loop = make(layer_norm(bias=False), adam(learning_rate=0.02), WIDE)
    run = loop.init(KEY)
    after = jax.jit(lambda run: train(loop, KEY, run, 50))(run).learner.params
    assert (norms(after) > 1.01 * norms(run.learner.params)).all()


def test_projects_at_the_end_of_each_period() -> None:
    """After 3 of 3 updates the norms are the initial ones, after 2 they are not."""
    before, after_two = trained(2, period=3)
    _, after_three = trained(3, period=3)
    assert (np.abs(norms(after_two) / norms(before) - 1) > 1e-4).all()
    np.testing.assert_allclose(norms(after_three), norms(before), rtol=1e-6)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_predictions_do_not_feel_the_length_of_a_kernel(norm: str) -> None:
    network = build(nap(norm=norm).network(WIDE))
    params = network.init(KEY)
    x = jax.random.normal(KEY, (5, 3))
    for path in network.hidden:
        longer = {**params, path[0]: {**params[path[0]], "kernel": 7.0 * params[path[0]]["kernel"]}}
        np.testing.assert_allclose(network.apply(longer, x)[0], network.apply(params, x)[0], rtol=2e-4, atol=1e-5)
    longer = {**params, "output": {**params["output"], "kernel": 7.0 * params["output"]["kernel"]}}
    assert not np.allclose(network.apply(longer, x)[0], network.apply(params, x)[0], rtol=0.1)


def test_which_parameters_there_are() -> None:
    leaves = {
        (affine, bias): set(build(nap(affine=affine, bias=bias).network(MLP)).init(KEY)["hidden_0"])
        for affine in ("none", "joint")
        for bias in (False, True)
    }
    assert leaves[("none", False)] == {"kernel"}
    assert leaves[("joint", False)] == {"kernel", "norm"}
    assert leaves[("joint", True)] == {"kernel", "norm", "bias"}


def test_scale_and_offset_joint_or_free() -> None:
    for affine, kept in (("joint", True), ("free", False)):
        before, after = trained(20, affine=affine)
        pairs = [
            np.hypot(np.linalg.norm(p["hidden_0"]["norm"]["scale"]), np.linalg.norm(p["hidden_0"]["norm"]["offset"]))
            for p in (before, after)
        ]
        np.testing.assert_allclose(pairs[0], 4.0, rtol=1e-6)  # the root of 16 ones
        assert bool(abs(pairs[1] / pairs[0] - 1) < 1e-6) is kept
        assert np.abs(after["hidden_0"]["norm"]["offset"]).max() > 1e-2


def test_rms_norm_has_a_scale_only() -> None:
    before, after = trained(10, norm="rms")
    assert set(after["hidden_0"]["norm"]) == {"scale"}
    np.testing.assert_allclose(np.linalg.norm(after["hidden_0"]["norm"]["scale"]), 4.0, rtol=1e-6)
    np.testing.assert_allclose(norms(after), norms(before), rtol=1e-6)


def test_rescaled_by_hand() -> None:
    part = rescaled({"scale": jnp.array([3.0]), "offset": jnp.array([4.0])}, jnp.float32(10.0))
    np.testing.assert_allclose(part["scale"], [6.0])
    np.testing.assert_allclose(part["offset"], [8.0])
    assert float(rescaled(jnp.zeros(2), jnp.float32(1.0)).sum()) == 0.0


@pytest.mark.parametrize("settings", [{"norm": "batch"}, {"affine": "yes"}, {"period": 0}])
def test_bad_settings(settings: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        nap(**settings)
