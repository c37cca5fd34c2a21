"""Noisy networks: which noise is drawn, where and when."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import EPSILON, clock_at, prioritised_replay, uniform_replay
from replay_cases import KEY, SPEC, live

from plasticity.agents import rainbow
from plasticity.agents.noisy import noisy, perturbed
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import compose
from plasticity.interventions.hooks import reads_task
from plasticity.networks.build import build
from plasticity.networks.presets import minatar, mlp
from plasticity.optim.optimizers import adam
from plasticity.optim.schedules import constant

PLAIN = build(mlp(jax.ShapeDtypeStruct((30,), jnp.float32), 40, widths=(20,), normalisation="layer"))
NOISY = noisy(PLAIN, 0.5)


@functools.cache
def parameters() -> Any:
    """Those of the noisy network, and 200 draws around them."""
    params = NOISY.init(KEY)
    return params, jax.jit(jax.vmap(lambda key: perturbed(key, params)))(jax.random.split(KEY, 200))


@pytest.mark.slow
def test_what_is_learned_is_the_plain_network_with_a_spread_beside_it():
    params, plain = parameters()[0], PLAIN.init(KEY)
    for module, inputs in (("hidden_0", 30), ("output", 20)):
        for name in ("kernel", "bias"):
            np.testing.assert_array_equal(params[module][name], plain[module][name])
            spread = params[module][f"noise_{name}"]
            assert spread.shape == plain[module][name].shape
            np.testing.assert_allclose(spread, 0.5 / np.sqrt(inputs), rtol=1e-6)
    seen = jax.random.normal(KEY, (5, 30))
    np.testing.assert_array_equal(NOISY.forward(params, seen)[0], PLAIN.forward(plain, seen)[0])


def test_a_draw_is_an_outer_product_and_its_bias():
    params, draws = parameters()
    for module, inputs in (("hidden_0", 30), ("output", 20)):
        spread = 0.5 / np.sqrt(inputs)
        kernel = np.asarray(draws[module]["kernel"] - params[module]["kernel"]) / spread
        units = np.asarray(draws[module]["bias"] - params[module]["bias"]) / spread
        rows = kernel[:, :, :1] / units[:, None, :1]
        np.testing.assert_allclose(kernel, rows * units[:, None], atol=2e-3 * np.abs(kernel).max())
        for values in (rows[np.abs(units[:, 0]) > 0.1], units):  # f(x)^2 = |x|, of mean sqrt(2 / pi)
            assert np.mean(values**2) == pytest.approx(np.sqrt(2 / np.pi), abs=0.04)
            assert np.mean(values) == pytest.approx(0.0, abs=0.05)
    np.testing.assert_array_equal(draws["hidden_0"]["norm"]["scale"][7], params["hidden_0"]["norm"]["scale"])


def test_the_layers_of_a_network_share_no_noise():
    params, draws = parameters()
    first, second = (
        np.asarray(draws[module]["bias"] - params[module]["bias"]).ravel()[:4000] for module in ("hidden_0", "output")
    )
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_convolutions_have_no_noise():
    image = jax.ShapeDtypeStruct((10, 10, 4), jnp.bool_)
    network = noisy(build(minatar(image, 6, widths=(8,))), 0.5)

    @jax.jit
    def born() -> Any:
        params = network.init(KEY)
        return params, perturbed(KEY, params)

    params, draw = born()
    assert "noise_kernel" not in params["hidden_0"]
    assert "noise_kernel" in params["hidden_1"]
    np.testing.assert_array_equal(draw["hidden_0"]["kernel"], params["hidden_0"]["kernel"])
    assert (draw["hidden_1"]["kernel"] != params["hidden_1"]["kernel"]).all()


def small(*interventions: Any, **settings: Any) -> Any:
    sizes = {"replay": uniform_replay(), "epsilon": EPSILON, "batch_size": 8}
    sizes |= {"update_period": 2, "target_period": 3}
    known = {"network": functools.partial(mlp, widths=(6,)), "optimizer": functools.partial(adam, learning_rate=0.01)}
    known |= {
        "atoms": 5,
        "noisy": True,
        "dueling": False,
        **sizes,
        "epsilon": functools.partial(constant, value=0.0),
    }
    return rainbow(SPEC, compose(*interventions), **(known | settings))


def test_noise_explores_and_evaluation_does_without():
    agent = small(noise_scale=2.0)
    seen, keys = jax.random.normal(KEY, (20, 3)), jax.random.split(KEY, 50)

    @jax.jit
    def chosen() -> Any:
        state = agent.init(KEY, None)
        act = jax.vmap(lambda key: agent.act(key, state, seen, clock_at(0)))
        return act(keys), jax.vmap(lambda key: agent.play(key, state, seen, jnp.zeros(())))(keys)

    acted, played = jax.device_get(chosen())
    assert (acted != acted[0]).any()
    assert (played == played[0]).all()


def parts(**settings: Any) -> Any:
    """The parameters of a fresh agent, and those after a part of the script."""
    steps = settings.pop("steps", 30)
    agent = small(**settings)

    @jax.jit
    def whole() -> Any:
        state = agent.init(KEY, None)
        return state.learner.params, live(agent, state, steps=steps)[0].learner.params

    return jax.device_get(whole())


@pytest.mark.slow
def test_the_spread_is_learned():
    before, after = parts()
    for module, part in after.items():
        for name in ("kernel", "bias", "noise_kernel", "noise_bias"):
            assert (part[name] != before[module][name]).any(), (module, name)
            assert np.isfinite(part[name]).all()


@pytest.mark.slow
def test_without_spread_the_first_update_is_the_plain_agent_s():
    plain, still = (parts(noisy=on, noise_scale=0.0, update_period=4, steps=5)[1] for on in (False, True))
    for module, part in plain.items():
        for name, values in part.items():
            np.testing.assert_allclose(still[module][name], values, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in sorted(INTERVENTIONS) if not reads_task(INTERVENTIONS[name])])
def test_every_intervention_takes_it(name):  # those that read the task: tests/test_cross.py, with rainbow
    agent = small(INTERVENTIONS[name](), replay=prioritised_replay(), dueling=True)
    shapes = jax.eval_shape(lambda: agent.init(KEY, None))
    after = jax.eval_shape(lambda: live(agent, agent.init(KEY, None), steps=6)[0])
    switched = jax.eval_shape(lambda state: agent.switch(KEY, state, clock_at(6)), shapes)
    for tree in (after, switched):
        assert jax.tree.map(lambda x: x.shape, tree) == jax.tree.map(lambda x: x.shape, shapes)
