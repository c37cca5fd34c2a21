"""The memory of past visits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import agent, clock_at, one_lane, source

from plasticity.agents import AGENTS
from plasticity.agents.past import PAST, Keeper, Stored, keeper_of, row_of
from plasticity.core.outputs import Logits, Normal, Values
from plasticity.core.types import FIRST, MID, Clock, TimeStep, Transition, Visit
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention, Remember, compose

KEY = jax.random.key(0)


def at(visit: int, step: int) -> Clock:
    return Clock(*(jnp.int32(x) for x in (100 * visit + step, 100 * visit + step, visit, step)))


def pair(numbers: Any) -> Transition:
    """Transitions whose reward is their number."""
    reward = jnp.asarray(numbers, jnp.float32)
    none = jnp.zeros_like(reward)
    step = TimeStep(jnp.full(reward.shape, MID, jnp.int8), none, none, reward[:, None])
    return Transition(step, none.astype(jnp.int32), step._replace(reward=reward))


def empty(keeper: Keeper) -> Stored:
    row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), pair([0]))
    return keeper.empty(row, {"output": Values(jax.ShapeDtypeStruct((1,), jnp.float32))})  # type: ignore[arg-type]


def kept(stored: Stored, slot: int) -> list[float]:
    return np.asarray(stored.rows.current.reward[slot]).tolist()


def test_keeps_everything_while_there_is_room() -> None:
    keeper = Keeper(size=5, slots=2)
    stored = keeper.add(KEY, empty(keeper), pair([1, 2]), jnp.array([True, True]), at(0, 0))
    stored = keeper.add(KEY, stored, pair([3, 4]), jnp.array([False, True]), at(0, 1))
    assert kept(stored, 0) == [1, 2, 4, 0, 0]
    assert stored.seen.tolist() == [3, 0]
    drawn = keeper.of_visit(stored, jnp.int32(0))
    assert drawn.valid.tolist() == [True, True, True, False, False]


def test_every_transition_of_a_visit_is_kept_with_the_same_probability() -> None:
    """Ten steps of three envs, 6 places: each is kept with probability 1/5, in 4,000 memories."""
    keeper = Keeper(size=6, slots=1)

    def life(key: Any) -> Any:
        stored = empty(keeper)
        for step in range(10):
            numbers = 3 * step + jnp.arange(3)
            stored = keeper.add(jax.random.fold_in(key, step), stored, pair(numbers), jnp.ones(3, bool), at(0, step))
        return stored.rows.current.reward[0]

    found = np.asarray(jax.jit(jax.vmap(life))(jax.random.split(KEY, 4_000)))
    shares = np.bincount(found.astype(int).reshape(-1), minlength=30) / 4_000
    # Five standard deviations; two envs that draw the same place at one step lose one of them.
    assert np.abs(shares - 0.2).max() < 0.03 + 5 * np.sqrt(0.16 / 4_000)
    assert all(len(set(row)) == 6 for row in found.tolist())


def test_a_ring_of_visits_keeps_the_newest() -> None:
    keeper = keeper_of(source("classifier", visits=9, steps=10).spec, Remember(4, 2))
    assert keeper == Keeper(4, 3)
    stored = empty(keeper)
    for visit in range(5):
        for step in range(2):
            numbers = [100 * visit + step]
            stored = keeper.add(KEY, stored, pair(numbers), jnp.ones(1, bool), at(visit, step))
    assert [kept(stored, slot)[:2] for slot in range(3)] == [[300, 301], [400, 401], [200, 201]]
    drawn = keeper.draw(KEY, stored, jnp.int32(5), 1_000)
    assert drawn.valid.all()
    assert set(np.asarray(drawn.rows.current.reward).tolist()) == {300, 301, 400, 401}
    counts = np.bincount(np.asarray(drawn.rows.current.reward).astype(int) // 100)
    assert abs(counts[3] - 500) < 80
    assert not keeper.draw(KEY, stored, jnp.int32(0), 10).valid.any()
    assert not keeper.draw(KEY, empty(keeper), jnp.int32(2), 10).valid.any()


def test_room_for_all_visits_at_most() -> None:
    spec = source("classifier", visits=3, steps=10).spec
    assert keeper_of(spec, Remember(4, None)) == Keeper(4, 3)
    assert keeper_of(spec, Remember(4, 0)) == Keeper(4, 1)
    assert keeper_of(spec, Remember(4, 99)) == Keeper(4, 3)


def test_rows_have_the_shapes_of_the_stream() -> None:
    row = row_of(source("sac", visits=2, steps=10).spec)
    assert row.action.dtype == jnp.float32
    assert row.previous.observation.shape == row.current.observation.shape


def two_visits(name: str, method: Intervention, steps: int = 12) -> Any:
    """The agent, its state at the end of the first visit, that after the switch, and the transitions."""
    stream = source(name, visits=2, steps=steps)
    made, world = agent(name, stream.spec, method), stream.make(1)
    state, timestep = world.reset(KEY[None], Visit(jnp.int32(0), jnp.int32(0)), jnp.int32(0))
    timestep = one_lane(timestep)
    mind, learn, seen = made.init(KEY, timestep), jax.jit(made.learn), []
    for i in range(steps):
        now = clock_at(i)
        action = made.act(jax.random.fold_in(KEY, i), mind, timestep.observation, now)
        state, following = world.step(KEY[None], state, action[None], now)
        seen.append(Transition(timestep, action, one_lane(following)))
        mind, _ = learn(jax.random.fold_in(KEY, i), mind, seen[-1], now)
        timestep = seen[-1].current
    return made, mind, made.switch(KEY, mind, clock_at(steps, 1)), seen


@pytest.mark.parametrize("name", ["classifier", "sac", "ppo", "stream_q"])
def test_an_agent_remembers_its_transitions_and_what_it_said(name: str) -> None:
    made, before, after, seen = two_visits(name, INTERVENTIONS["behavioural_cloning"](memory=400, batch=4))
    valid = [np.asarray(each.current.step_type != FIRST) | (name == "classifier") for each in seen]
    rewards = np.concatenate([np.asarray(each.current.reward)[ok] for each, ok in zip(seen, valid, strict=True)])
    stored = before.rest[PAST]
    count = int(stored.seen[0])
    assert count == len(rewards)
    np.testing.assert_array_equal(stored.rows.current.reward[0, :count], rewards)
    said = after.rest[PAST].outputs
    assert all(isinstance(each, Logits | Normal | Values) for each in said.values())
    for leaf in jax.tree.leaves(said):
        assert np.isfinite(leaf[0]).all()
        assert not leaf[1].any()
    assert any(np.asarray(leaf[0, :count]).any() for leaf in jax.tree.leaves(said))
    jax.tree.map(np.testing.assert_array_equal, after.learner, before.learner)
    del made


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_without_a_method_that_asks_there_is_no_memory(name: str) -> None:
    spec = source(name, visits=2, steps=10).spec
    state = jax.eval_shape(lambda: agent(name, spec, compose()).init(KEY, None))  # type: ignore[arg-type]
    assert PAST not in state.rest


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_what_an_agent_says_is_finite_and_has_a_row_for_every_transition(name: str) -> None:
    """Over the registry: shapes of the stored outputs are ``[visits, transitions, ...]``."""
    spec = source(name, visits=2, steps=10).spec
    method = INTERVENTIONS["behavioural_cloning"](memory=7, batch=2)
    state = jax.eval_shape(lambda: agent(name, spec, method).init(KEY, None))  # type: ignore[arg-type]
    leaves = jax.tree.leaves(state.rest[PAST].outputs)
    assert leaves
    assert all(leaf.shape[:2] == (2, 7) and leaf.ndim >= 3 for leaf in leaves)


def test_evaluations_of_old_tasks_see_the_view() -> None:
    """A method whose view is zero plays by zeros on earlier visits and by its own parameters on the current one."""

    def view(state: Any, params: Any, visit: Any, now: Any) -> Any:
        return jax.tree.map(lambda x: jnp.where(visit < now, 0.0, x), params)

    made, before, _, _ = two_visits("classifier", Intervention(view=view), steps=2)
    clock = clock_at(20, 1)
    old, now = (made.view(before, jnp.int32(visit), clock) for visit in (0, 1))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(old.learner.params))
    jax.tree.map(np.testing.assert_array_equal, now.learner.params, before.learner.params)


def test_a_new_agent_remembers_no_past_visits() -> None:
    """A reset of the whole agent at a switch empties the memory; one of the last layer, or a periodic one, does not."""
    cloning = INTERVENTIONS["behavioural_cloning"](memory=40, batch=4)
    reset = INTERVENTIONS["reset"]
    for method, left in ((reset(), False), (reset(modules="last"), True), (reset(when="periodic", period=50), True)):
        _, before, after, _ = two_visits("classifier", compose(cloning, method), steps=4)
        assert int(before.rest[PAST].seen[0]) > 0
        assert bool(after.rest[PAST].seen.any()) == left
