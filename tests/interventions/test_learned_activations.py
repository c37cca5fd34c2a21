"""What methods on units and modules do with the parameters of non-linearities."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import MLP, make

from plasticity.interventions.base import Intervention
from plasticity.interventions.continual_backprop import continual_backprop
from plasticity.interventions.dormant import redo
from plasticity.interventions.injection import plasticity_injection
from plasticity.interventions.resets import reset
from plasticity.networks.build import build
from plasticity.networks.learned_activations import prelu
from plasticity.optim.optimizers import adam

KEY = jax.random.key(3)


def after(method: Intervention, learned: str, updates: int = 2) -> Any:
    """The parameters and second moments after some updates of a network with learned slopes, initially 0.25."""
    loop = make(method, adam(learning_rate=0.1), replace(MLP, activation=prelu(learned=learned)))
    run = loop.init(KEY)
    for update in range(updates):
        run = jax.jit(loop.update)(KEY, run, jnp.int32(update))
    slots = next(each.nu for each in jax.tree.leaves(run.learner.opt_state, is_leaf=has_nu) if has_nu(each))
    return jax.tree.map(np.asarray, (run.learner.params, slots))


def has_nu(node: Any) -> bool:
    return hasattr(node, "nu")


def slopes(params: Any) -> list[np.ndarray]:
    return [np.asarray(params[name]["activation"]["slope"]) for name in ("hidden_0", "hidden_1")]


METHODS = {
    "continual_backprop": continual_backprop(maturity_period=0, replacement_rate=1.0),
    "redo": redo(period=2, threshold=0.6),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_reset_unit_gets_the_initial_slope_and_keeps_that_of_its_layer(name):
    for learned in ("unit", "layer"):
        (params, slots), (plain, _) = after(METHODS[name], learned, 2), after(Intervention(), learned, 2)
        for layer, slope, slot in zip(("hidden_0", "hidden_1"), slopes(params), slopes(slots), strict=True):
            was = np.asarray(plain[layer]["activation"]["slope"])
            assert not np.any(was == 0.25)
            if learned == "layer":
                assert slope != 0.25
                assert slot > 0
                continue
            fresh = slope == 0.25
            assert 0 < fresh.sum() < len(fresh)
            np.testing.assert_array_equal(slot == 0, fresh)
            assert not params["output" if layer == "hidden_1" else "hidden_1"]["kernel"][fresh].any()


@pytest.mark.parametrize("learned", ["unit", "layer"])
def test_a_reset_layer_gets_its_initial_slopes(learned):
    params, slots = after(reset(when="periodic", period=2, modules=["hidden_1"]), learned)
    first, second = slopes(params)
    assert (second == 0.25).all()
    assert (slopes(slots)[1] == 0).all()
    assert not (first == 0.25).any()


def test_an_injection_has_slopes_of_its_own():
    spec = plasticity_injection(layers=1).network(replace(MLP, activation="prelu"))
    params = build(spec).init(KEY)
    for part in ("hidden_1", "new_hidden_1", "anchor_hidden_1"):
        assert params[part]["activation"]["slope"].shape == (4,)
