"""Both conventions of weight decay, by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.interventions import weight_decay
from plasticity.interventions.base import compose
from plasticity.optim.optimizers import adam, sgd
from plasticity.optim.schedules import linear

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [4.0, 0.5]]), "bias": jnp.array([3.0, -1.0])}
GRADIENTS = {"kernel": jnp.array([[1.0, 1.0], [-2.0, 0.0]]), "bias": jnp.array([1.0, 0.0])}


def after_one_update(optimizer) -> dict:
    updates, _ = optimizer.update(GRADIENTS, optimizer.init(PARAMS), PARAMS)
    return optax.apply_updates(PARAMS, updates)


@pytest.mark.parametrize(("per", "factor"), [("update", 0.9), ("learning_rate", 0.95)])
def test_one_update_of_each_convention(per: str, factor: float) -> None:
    got = after_one_update(weight_decay(rate=0.1, per=per).optimizer(sgd(learning_rate=0.5)))
    np.testing.assert_allclose(got["kernel"], factor * PARAMS["kernel"] - 0.5 * GRADIENTS["kernel"], rtol=1e-6)
    np.testing.assert_allclose(got["bias"], [2.5, -1.0])


def test_all_parameters() -> None:
    got = after_one_update(weight_decay(rate=0.1, which="all").optimizer(sgd(learning_rate=0.5)))
    np.testing.assert_allclose(got["bias"], [0.9 * 3.0 - 0.5, -0.9], rtol=1e-6)


def test_per_learning_rate_is_adamw_along_a_schedule() -> None:
    mine = weight_decay(rate=0.1, per="learning_rate", which="all").optimizer(
        adam(learning_rate=0.5, schedule=functools.partial(linear, duration=4))
    )
    theirs = optax.adamw(optax.linear_schedule(0.5, 0.0, 4), weight_decay=0.1)
    params = [PARAMS, PARAMS]
    states = [mine.init(PARAMS), theirs.init(PARAMS)]
    for _ in range(5):
        for i, rule in enumerate((mine, theirs)):
            updates, states[i] = rule.update(GRADIENTS, states[i], params[i])
            params[i] = optax.apply_updates(params[i], updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), *params)


def test_two_decays_add() -> None:
    both = compose(weight_decay(rate=0.1), weight_decay(rate=0.2, per="learning_rate"))
    got = after_one_update(both.optimizer(sgd(learning_rate=0.5)))
    np.testing.assert_allclose(got["kernel"], 0.8 * PARAMS["kernel"] - 0.5 * GRADIENTS["kernel"], rtol=1e-6)


@pytest.mark.parametrize("settings", [{"per": "step"}, {"which": "biases"}])
def test_unknown_names(settings: dict) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        weight_decay(**settings)
