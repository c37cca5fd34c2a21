"""AltNet: the twin against a second agent that learns by itself."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import Loop, Run, joined, make, train

from plasticity.core.types import Learner
from plasticity.interventions import altnet
from plasticity.interventions.base import Intervention, compose
from plasticity.interventions.penalties import l2
from plasticity.interventions.restriction import restricted
from plasticity.optim.optimizers import adam

KEY = jax.random.key(3)
PERIOD = 4


def lives(*updates: int, method: Intervention | None = None) -> list[Run]:
    """A life with AltNet after each of these numbers of updates."""
    loop = make(method or altnet(period=PERIOD), adam(learning_rate=0.01))
    found, run, done = [], loop.init(KEY), 0
    for number in updates:
        run, done = train(loop, KEY, run, number - done, done), number
        found.append(run)
    return found


def alone(learner: Learner, first: int, number: int) -> Learner:
    """The learner after updates without any method."""
    loop: Loop = make(Intervention(), adam(learning_rate=0.01))
    return train(loop, KEY, Run((), learner), number, first).learner


def test_the_twin_begins_elsewhere_and_learns_as_if_alone() -> None:
    before, after = lives(0, PERIOD - 1)
    twin, active = before.state, before.learner
    assert not np.allclose(twin.params["hidden_0"]["kernel"], active.params["hidden_0"]["kernel"])
    for began, now in ((twin, after.state), (active, after.learner)):
        chex.assert_trees_all_close(now, alone(began, 0, PERIOD - 1), rtol=1e-5, atol=1e-7)


def test_they_alternate_and_the_active_one_is_replaced() -> None:
    """At the exchange the twin stays as it is, and the new one makes its first update."""
    before, exchanged, later = lives(PERIOD - 1, PERIOD, 2 * PERIOD)
    chex.assert_trees_all_equal(exchanged.learner, before.state)
    counts = [leaf for leaf in jax.tree.leaves(exchanged.state.opt_state) if leaf.dtype == jnp.int32]
    assert counts
    assert all(int(count) == 1 for count in counts)
    for old in (before.learner, before.state):
        assert not np.allclose(exchanged.state.params["hidden_0"]["kernel"], old.params["hidden_0"]["kernel"])
    chex.assert_trees_all_close(later.learner, alone(exchanged.state, PERIOD, PERIOD - 1), rtol=1e-5, atol=1e-7)


def test_penalties_are_for_the_active_one() -> None:
    """With an L2 penalty on the active one, the twin learns as without."""
    method = compose(altnet(period=100), l2(strength=1.0))
    before, after = lives(0, 3, method=method)
    chex.assert_trees_all_close(after.state[0], alone(before.state[0], 0, 3), rtol=1e-5, atol=1e-7)
    assert not np.allclose(
        after.learner.params["hidden_0"]["kernel"], alone(before.learner, 0, 3).params["hidden_0"]["kernel"]
    )


def test_it_needs_updates_of_a_further_learner() -> None:
    """A part of joined networks is not a learner; see `REFUSED` for agents."""
    loop = joined(restricted(altnet(), ["actor"]), adam(), ("actor", "critic"))
    with pytest.raises(ValueError, match="learns from a replay, or from minibatches of its stream"):
        jax.eval_shape(lambda key: train(loop, key, loop.init(key), 2), KEY)
