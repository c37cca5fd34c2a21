"""The hare and the tortoise against a loop by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import clock_at, make, train

from plasticity.core.types import Learner
from plasticity.interventions import hare_tortoise
from plasticity.optim.optimizers import adam, sgd

KEY = jax.random.key(2)


@pytest.mark.parametrize("renewed", [False, True])
def test_against_a_loop(renewed):
    """The hare walks by the steps given; the tortoise follows; every third update they meet at the tortoise's place."""
    method, optimizer = hare_tortoise(decay=0.9, period=3, optimizer=renewed), sgd(momentum=0.5)
    params = {"w": jnp.array([1.0, -1.0])}
    hare, tortoise = np.array([1.0, -1.0]), np.array([1.0, -1.0])
    state, learner = method.init(KEY, params, None), Learner(params, params, optimizer.init(params))
    for number in range(7):
        _, used = optimizer.update(params, learner.opt_state)
        learner = learner._replace(params={"w": learner.params["w"] + number}, opt_state=used)
        context = SimpleNamespace(clock=clock_at(number), optimizer=optimizer)
        state, learner = method.step(KEY, state, learner, context)
        hare = hare + number
        tortoise = 0.9 * tortoise + 0.1 * hare
        back = (number + 1) % 3 == 0
        hare = tortoise if back else hare
        np.testing.assert_allclose(learner.params["w"], hare, rtol=1e-5)
        np.testing.assert_allclose(method.acting(state, learner.params)["w"], tortoise, rtol=1e-5)
        assert (int(learner.opt_state.done) == 0) is (back and renewed)
    np.testing.assert_array_equal(learner.target["w"], params["w"])


def test_a_fresh_agent_acts_with_its_own_parameters():
    loop = make(hare_tortoise(), adam())
    run = loop.init(KEY)
    jax.tree.map(
        np.testing.assert_array_equal, hare_tortoise().acting(run.state, run.learner.params), run.learner.params
    )


def test_the_tortoise_lags_behind_in_the_order_of_an_update():
    method = hare_tortoise(decay=0.5, period=100)
    loop = make(method, sgd(learning_rate=0.1))
    first = loop.init(KEY)
    once = train(loop, KEY, first, 1)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, first.learner.params, once.learner.params)
    acting = method.acting(once.state, once.learner.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), acting, middle)


def test_a_period_is_at_least_1():
    with pytest.raises(ValueError, match="period: 0 is not allowed; must be at least 1"):
        hare_tortoise(period=0)
