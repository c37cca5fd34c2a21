"""Normalize-and-Project: constant norms, unchanged predictions. Weight clipping: limits by fan-in."""

import functools
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import CNN, MLP, Run, make, train

from plasticity.core.types import Learner, Network
from plasticity.interventions import (
    layer_norm,
    nap,
    plasticity_injection,
    random_walk,
    soft_reset,
    trac,
    upgd,
    weight_clip,
    weight_decay,
)
from plasticity.interventions.base import Intervention, compose
from plasticity.interventions.projection import rescaled
from plasticity.networks.build import build
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.eligibility import STREAMING, eligible, parts
from plasticity.optim.optimizers import adam, rmsprop, sgd
from plasticity.optim.schedules import constant, cosine, linear

KEY = jax.random.key(0)
WIDE = replace(MLP, widths=(16, 16))


def norms(params: dict, leaf: str = "kernel") -> np.ndarray:
    return np.array([np.linalg.norm(module[leaf]) for name, module in sorted(params.items()) if name != "output"])


@functools.cache
def program(spec: NetworkSpec, **settings: object) -> tuple[Run, Callable[..., Run]]:
    """A fresh learner and its compiled update."""
    loop = make(nap(**settings), adam(learning_rate=0.02), spec)
    return loop.init(KEY), jax.jit(loop.update)


def trained(updates: int, spec: NetworkSpec = WIDE, **settings: object) -> tuple[dict, dict]:
    """The parameters before and after some updates."""
    fresh_learner, update = program(spec, **settings)
    run = fresh_learner
    for number in range(updates):
        run = update(KEY, run, jnp.int32(number))
    return fresh_learner.learner.params, run.learner.params


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
        np.testing.assert_allclose(network.forward(longer, x)[0], network.forward(params, x)[0], rtol=2e-4, atol=1e-5)
    longer = {**params, "output": {**params["output"], "kernel": 7.0 * params["output"]["kernel"]}}
    assert not np.allclose(network.forward(longer, x)[0], network.forward(params, x)[0], rtol=0.1)


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


def test_a_penalty_draws_scale_and_offset_to_one_and_zero() -> None:
    loop = make(nap(affine="penalty", affine_strength=0.1), adam(), MLP)
    params = loop.init(KEY).learner.params
    penalty = functools.partial(nap(affine="penalty", affine_strength=0.1).penalty, (), context=loop.context(0))
    assert float(penalty(params)) == 0.0
    norm = {"scale": jnp.array([1.0, 3.0, 1.0, 1.0, 0.0]), "offset": jnp.array([0.0, 2.0, 0.0, 0.0, 0.0])}
    params = {**params, "hidden_0": {**params["hidden_0"], "norm": norm}}
    value, gradient = jax.value_and_grad(penalty)(params)
    np.testing.assert_allclose(value, 0.1 * (4 + 1 + 4), rtol=1e-6)
    np.testing.assert_allclose(gradient["hidden_0"]["norm"]["scale"], [0, 0.4, 0, 0, -0.2], atol=1e-6)
    np.testing.assert_allclose(gradient["hidden_0"]["norm"]["offset"], [0, 0.4, 0, 0, 0], atol=1e-6)
    assert not gradient["hidden_0"]["kernel"].any()


def test_with_a_penalty_scale_and_offset_are_not_projected() -> None:
    before, after = trained(10, affine="penalty", affine_strength=1e-3)
    np.testing.assert_allclose(norms(after), norms(before), rtol=1e-6)
    pair = after["hidden_0"]["norm"]
    assert abs(np.hypot(np.linalg.norm(pair["scale"]), np.linalg.norm(pair["offset"])) - 4.0) > 1e-4


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_switch_restarts_the_schedule_and_keeps_the_moments(clip: float | None) -> None:
    rule = adam(learning_rate=0.5, schedule=functools.partial(linear, duration=4), max_gradient_norm=clip)
    for restart, expected in (("never", 0.125), ("switch", 0.5)):
        method = compose(weight_decay(), nap(restart=restart))  # the schedule is inside another wrapper
        loop = make(method, rule, MLP)
        state = loop.optimizer.init(loop.network.init(KEY))
        later = jax.tree.map(lambda x: x + 3, state)
        learner = Learner(loop.network.init(KEY), (), later)
        _, after = method.switch(
            KEY, method.init(KEY, learner.params, loop.network), learner, loop.context(jnp.int32(3))
        )
        assert float(loop.optimizer.learning_rate(later)) == 0.125
        assert float(loop.optimizer.learning_rate(after.opt_state)) == expected
        same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), after.opt_state, later)
        assert sum(not each for each in jax.tree.leaves(same)) == (restart == "switch")


WITH_A_SCHEDULE = functools.partial(constant, warm_up=5), functools.partial(cosine, duration=9)
WRAPPERS = [compose(), weight_decay(), trac(), upgd(), soft_reset(), random_walk(), plasticity_injection(at=5)]


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("rule", [adam, sgd, rmsprop])
def test_a_restart_of_no_schedule_is_refused_when_the_agent_is_built(rule: Callable, wrapper: Intervention) -> None:
    method = compose(wrapper, nap(restart="switch"))
    for whole in (lambda each: each, eligible, lambda each: parts({"policy": each, "value": sgd()})):
        with pytest.raises(ValueError, match=r"restart: switch is not allowed; .* \(schedule\)"):
            method.optimizer(whole(rule()))
        compose(wrapper, nap()).optimizer(whole(rule()))
        for schedule in WITH_A_SCHEDULE:
            method.optimizer(whole(rule(schedule=schedule)))


@pytest.mark.parametrize("rule", STREAMING.values())
def test_the_streaming_optimizers_have_no_schedule(rule: Callable) -> None:
    with pytest.raises(ValueError, match="the agent's optimizer has no schedule"):
        nap(restart="switch").optimizer(rule())


def test_weights_are_clipped_by_their_layers_fan_in() -> None:
    """Four inputs and nine: the limits are 3 / 2 and 3 / 3; a normalisation has none."""
    norm = {"scale": jnp.array([9.0])}
    hidden = {"kernel": jnp.array([[2.0], [-5.0], [1.0], [0.0]]), "bias": jnp.array([7.0]), "norm": norm}
    output = {"kernel": jnp.full((3, 3, 1, 2), -2.0), "bias": jnp.array([0.5, -2.0])}
    network = Network(lambda key: {}, lambda params, x, *memory: (x, {}, ()), (), (("hidden",),), (("output",),))
    context = make(nap(), adam()).context(jnp.int32(0))._replace(network=network)
    for which, biases in (("all", ([1.5], [0.5, -1.0])), ("kernels", ([7.0], [0.5, -2.0]))):
        method = weight_clip(bound=3.0, which=which)
        learner = Learner({"hidden": hidden, "output": output}, (), ())
        after = method.step(KEY, (), learner, context)[1].params
        np.testing.assert_allclose(after["hidden"]["kernel"], [[1.5], [-1.5], [1.0], [0.0]])
        np.testing.assert_allclose(after["output"]["kernel"], np.full((3, 3, 1, 2), -1.0), rtol=1e-6)
        np.testing.assert_allclose(after["hidden"]["bias"], biases[0])
        np.testing.assert_allclose(after["output"]["bias"], biases[1], rtol=1e-6)
        assert float(after["hidden"]["norm"]["scale"][0]) == 9.0


def test_weights_are_clipped_at_the_end_of_each_period() -> None:
    loop = make(weight_clip(bound=0.1, period=2), adam(), MLP)
    run, update = loop.init(KEY), jax.jit(loop.update)
    limit = 0.1 / np.sqrt(3.0) * (1 + 1e-6)
    for number, within in ((0, False), (1, True)):
        run = update(KEY, run, jnp.int32(number))
        assert bool(np.abs(run.learner.params["hidden_0"]["kernel"]).max() <= limit) is within


def test_rescaled_by_hand() -> None:
    part = rescaled({"scale": jnp.array([3.0]), "offset": jnp.array([4.0])}, jnp.float32(10.0))
    np.testing.assert_allclose(part["scale"], [6.0])
    np.testing.assert_allclose(part["offset"], [8.0])
    assert float(rescaled(jnp.zeros(2), jnp.float32(1.0)).sum()) == 0.0


@pytest.mark.parametrize("settings", [{"norm": "batch"}, {"affine": "yes"}, {"period": 0}, {"restart": "always"}])
def test_bad_settings(settings: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        nap(**settings)


@pytest.mark.parametrize("settings", [{"which": "biases"}, {"period": 0}])
def test_bad_settings_of_clipping(settings: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        weight_clip(**settings)
