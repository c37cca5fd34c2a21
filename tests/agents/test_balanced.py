"""Replay balanced over visits: what is kept of each, how often it is drawn, priorities and ages within a visit."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from agent_cases import program, run

from plasticity.agents.balanced import drawn_visits
from plasticity.agents.priorities import above
from plasticity.agents.replay_source import Memory, Sampling
from plasticity.agents.replays import task_balanced
from plasticity.core import schedules
from plasticity.core.errors import UserError
from plasticity.core.types import FIRST, MID, StreamSpec, TimeStep, Transition, VisitPlan
from plasticity.runs import launch

ENVS, STEPS, DRAWN = 2, 2, 6_000
SPEC = StreamSpec(jax.ShapeDtypeStruct((1,), jnp.float32), 500, ("a",), (VisitPlan(0, 30),), ENVS, True)
SAMPLING = Sampling(DRAWN, STEPS, 0.5, None)


def timestep(t: int, kinds: tuple[int, ...] = (MID, MID)) -> TimeStep:
    """The step's number in the observation of env 0, and 1,000 more in that of env 1."""
    numbers = jnp.full(ENVS, t, jnp.float32)
    return TimeStep(jnp.asarray(kinds, jnp.int8), numbers, jnp.ones(ENVS), numbers[:, None] + jnp.array([[0], [1000]]))


@functools.cache
def compiled(memory: Memory) -> tuple[Any, Any]:
    assert memory.switch is not None
    return jax.jit(memory.add), jax.jit(memory.switch)


def lived(memory: Memory, visits: tuple[int, ...], first: frozenset[int] = frozenset()) -> Any:
    """The memory after visits of these lengths; both envs open an episode in the steps ``first``."""
    add, switch = compiled(memory)
    state, t = memory.init(), 0
    for number, steps in enumerate(visits):
        state = switch(state) if number else state
        for i in range(steps):
            kinds = [(FIRST if i + ahead == 0 or t + ahead in first else MID,) * ENVS for ahead in (0, 1)]
            pair = Transition(timestep(t, kinds[0]), jnp.full(ENVS, t, jnp.int32), timestep(t + 1, kinds[1]))
            state = add(state, pair, jax.random.fold_in(jax.random.key(6), t))
            t += 1
    return state


def made(size: int = 64, visits: int = 3, **settings: Any) -> Memory:
    return task_balanced(SPEC, SAMPLING, **({"capacity": size * visits, "minimum": 4, "visits": visits} | settings))


def drawn(memory: Memory, state: Any, seed: int = 0) -> tuple[Any, np.ndarray, np.ndarray]:
    """A sample, its weights, and the numbers of its transitions' first steps."""
    sample = jax.jit(memory.sample)(state, jax.random.key(seed), jnp.int32(0))
    return sample.batch, np.asarray(sample.weights), np.asarray(sample.batch.observation[:, 0]).astype(int)


@pytest.mark.parametrize("keep", ["reservoir", "newest"])
def test_every_visit_is_drawn_equally_often_and_every_transition_of_it(keep: Any) -> None:
    """Visits of 10, 25 and 5 steps: 8, 23 and 3 windows of each env, each visit a third of the sample."""
    memory = made(keep=keep)
    batch, weights, seen = drawn(memory, lived(memory, (10, 25, 5)))
    assert (weights == 1).all()
    assert batch.valid.all()
    step = seen % 1000
    np.testing.assert_array_equal(batch.action, step)
    np.testing.assert_allclose(batch.reward, step + 1 + 0.5 * (step + 2))
    np.testing.assert_allclose(batch.discount, 0.25)
    np.testing.assert_allclose(batch.next_observation[:, 0], seen + 2)
    starts = {0: range(8), 1: range(10, 33), 2: range(35, 38)}
    for steps in starts.values():
        counts = np.array([np.sum(seen == each + env) for each in steps for env in (0, 1000)])
        assert counts.sum() == DRAWN / 3
        share = 1 / len(counts)
        assert np.all(np.abs(counts - DRAWN / 3 * share) < 5 * np.sqrt(DRAWN / 3 * share))


def test_the_newest_of_a_visit_stay_and_the_oldest_visit_goes() -> None:
    """Room for 8 windows of each of two visits; the third replaces the first."""
    memory = made(size=8, visits=2, keep="newest")
    _, _, seen = drawn(memory, lived(memory, (9, 9)))
    kept = [[start + env for start in range(end - 4, end) for env in (0, 1000)] for end in (7, 16)]
    assert set(seen) == {*kept[0], *kept[1]}
    _, _, seen = drawn(memory, lived(memory, (9, 9, 4)))
    assert set(seen) == {*kept[1], *(start + env for start in (18, 19) for env in (0, 1000))}


def test_a_reservoir_keeps_every_transition_of_a_visit_with_the_same_probability() -> None:
    """8 of 2 x 38 windows, in 400 lives: each is kept in 400 * 8 / 76 of them, within five standard deviations."""
    memory = made(size=8, visits=2)

    def life(key: Any) -> Any:
        def step(state: Any, t: Any) -> Any:
            numbers = jnp.full(ENVS, t, jnp.float32)
            now, following = (
                TimeStep(jnp.full(ENVS, MID, jnp.int8), x, jnp.ones(ENVS), x[:, None] + jnp.array([[0], [1000]]))
                for x in (numbers, numbers + 1)
            )
            pair = Transition(now, jnp.zeros(ENVS, jnp.int32), following)
            return memory.add(state, pair, jax.random.fold_in(key, t)), None

        state, _ = jax.lax.scan(step, memory.init(), jnp.arange(40))
        return state.windows.frame[0, :, 0, 0]

    kept = np.asarray(jax.jit(jax.vmap(life))(jax.random.split(jax.random.key(1), 400))).astype(int)
    assert all(len(set(row)) == 8 for row in kept)
    counts = np.array([np.sum(kept == start + env) for start in range(38) for env in (0, 1000)])
    share = 8 / 76
    assert np.all(np.abs(counts - 400 * share) < 5 * np.sqrt(400 * share * (1 - share)))


def test_windows_span_neither_visits_nor_the_start_of_an_episode() -> None:
    """Episodes open in steps 0 and 6 of a visit of 9: no transition starts at 5, and that from 4 ends at step 5."""
    memory = made(keep="newest")
    batch, _, seen = drawn(memory, lived(memory, (9, 5), frozenset({6})))
    assert set(seen % 1000) == {0, 1, 2, 3, 4, 6, 9, 10, 11}
    short = seen % 1000 == 4
    np.testing.assert_allclose(batch.reward[short], 5.0)
    np.testing.assert_allclose(np.asarray(batch.next_observation)[short, 0], seen[short] + 1)


@pytest.mark.parametrize("prefer", ["any", "new", "old"])
def test_priorities_and_ages_act_within_a_visit(prefer: Any) -> None:
    """One transition has 9 times the priority of all others; the visits still have equal shares."""
    settings: Any = {"exponent": 1.0, "importance": lambda: schedules.constant(1.0), "priorities": True}
    settings |= {"prefer": prefer} | ({} if prefer == "any" else {"duration": 20.0, "least": 0.2})
    memory = made(keep="newest", **settings)
    state = lived(memory, (10, 7))  # windows of each env start at 0 ... 7 and 10 ... 14
    first = memory.sample(state, jax.random.key(3), jnp.int32(0))
    chosen = int(np.flatnonzero(np.asarray(first.batch.observation[:, 0]) == 1003)[0])
    place = first.places[chosen : chosen + 1]
    state = memory.update_priorities(state, jnp.int32(1), jnp.bool_(True), place[None], jnp.asarray([[9.0]]))
    _, weights, seen = drawn(memory, state)
    steps = np.array([*range(8), *range(10, 15)])
    age = 17 - (steps + STEPS)  # complete with the item of STEPS steps later; the newest has age 1
    by_age = {"any": np.ones(13), "new": np.maximum(0.2, 1 - age / 20), "old": np.minimum(1, 0.2 + age / 20)}[prefer]
    numbers = np.stack([by_age, by_age])
    numbers[1, 3] *= 9
    for part in (steps < 8, steps >= 8):
        expected = numbers[:, part] / numbers[:, part].sum() * DRAWN / 2
        counts = np.array([[np.sum(seen == step + env) for step in steps[part]] for env in (0, 1000)])
        assert counts.sum() == DRAWN / 2
        assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    # (N P')^-1 of the priorities: 24 / 16 / 9 for the one, 24 / 16 for others of its visit, 1 in the other visit.
    relative = np.where(seen == 1003, 24 / 16 / 9, np.where(seen % 1000 < 8, 24 / 16, 1.0))
    np.testing.assert_allclose(weights, relative / relative.max(), rtol=1e-5)


@pytest.mark.parametrize("prefer", ["new", "old"])
def test_ages_alone(prefer: Any) -> None:
    memory = made(size=10, keep="newest", prefer=prefer, duration=8.0, least=0.25)
    _, weights, seen = drawn(memory, lived(memory, (7,)))
    assert (weights == 1).all()
    age = 7 - (np.arange(5) + STEPS)
    numbers = np.maximum(0.25, 1 - age / 8) if prefer == "new" else np.minimum(1, 0.25 + age / 8)
    expected = numbers / numbers.sum() / 2 * DRAWN
    counts = np.array([[np.sum(seen == step + env) for step in range(5)] for env in (0, 1000)])
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_a_visit_with_small_numbers_beside_one_with_large_ones() -> None:
    """In one float32 sum over both visits, the numbers of the second would be rounded away."""
    memory = made(keep="newest", exponent=1.0, importance=lambda: schedules.constant(1.0), priorities=True)
    state = lived(memory, (10, 7))
    tree = np.asarray(state.tree[0]).copy().reshape(-1)
    tree[:64] *= 1e9
    state = state._replace(tree=above(jnp.asarray(tree.reshape(state.tree[0].shape))))
    _, _, seen = drawn(memory, state)
    counts = np.array([np.sum(seen == step + env) for step in range(10, 15) for env in (0, 1000)])
    assert counts.sum() == DRAWN / 2
    assert np.all(np.abs(counts - DRAWN / 20) < 5 * np.sqrt(DRAWN / 20))


def test_a_visit_in_which_all_numbers_are_0_is_drawn_from_equally() -> None:
    memory = made(size=10, keep="newest", prefer="new", duration=3.0, least=0.0)
    _, _, seen = drawn(memory, lived(memory, (7, 9)))
    counts = np.array([np.sum(seen == step + env) for step in range(5) for env in (0, 1000)])
    assert counts.sum() == DRAWN / 2
    assert np.all(np.abs(counts - DRAWN / 20) < 5 * np.sqrt(DRAWN / 20))


def test_draws_of_visits_differ_by_one_at_most() -> None:
    known = jnp.array([True, False, True, True, False])
    found = np.asarray(drawn_visits(jax.random.key(0), known, 32))
    counts = np.bincount(found, minlength=5)
    assert counts[[1, 4]].tolist() == [0, 0]
    assert sorted(counts[[0, 2, 3]]) == [10, 11, 11]
    others = [np.asarray(drawn_visits(jax.random.key(i), known, 1))[0] for i in range(60)]
    assert set(others) == {0, 2, 3}


def test_it_is_ready_at_its_minimum_and_new_windows_have_the_largest_priority() -> None:
    memory = made(priorities=True, minimum=6, importance=lambda: schedules.constant(1.0))
    states = [lived(memory, (steps,)) for steps in (4, 5)]
    assert [bool(memory.ready(state)) for state in states] == [False, True]
    place = jnp.zeros((1, 1), jnp.int32)
    state = memory.update_priorities(states[1], jnp.int32(1), jnp.bool_(True), place, jnp.asarray([[4.0]]))
    add, _ = compiled(memory)
    pair = Transition(timestep(5), jnp.full(ENVS, 5, jnp.int32), timestep(6))
    state = add(state, pair, jax.random.key(0))
    np.testing.assert_allclose(np.asarray(state.tree[0]).ravel()[:9], [2, 1, 1, 1, 1, 1, 2, 2, 0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capacity": 5, "visits": 3}, r"agent.replay.capacity: 5 is not allowed; must be at least 6, for 3 visits"),
        ({"capacity": 90, "visits": 3, "priorities": True}, "agent.replay.capacity: 90 .* at least 192, for 3 visits"),
        ({"minimum": 65}, r"agent.replay.minimum: 65 is not allowed; must be between 2 and 64, the part of a visit"),
        ({"keep": "best"}, r"keep: .best. is not allowed; must be one of reservoir, newest"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: Any, message: str) -> None:
    importance = {"importance": lambda: schedules.constant(1.0)}
    with pytest.raises(ValueError, match=message):
        made(**(settings | importance))


def asked(**arm: Any) -> Any:
    agent = tiny.DQN["agent"] | {"replay": {"kind": "task_balanced", "capacity": 200, "minimum": 10, "visits": 2}}
    stream = {"kind": "catch", "rows": 5, "columns": 4, "tasks": 3, "steps_per_task": 40, "envs": 2}
    document = tiny.document(agent=agent, stream=stream, arms={"balanced": arm}, seeds=1, monitors=[])
    return launch.experiment_of(document)


def test_an_arm_must_know_of_switches() -> None:
    with pytest.raises(UserError, match=r"^arms.balanced: agent.replay must know of task switches; set `task_aware"):
        launch.plan(asked())


def test_an_agent_learns_from_it_through_a_switch() -> None:
    """Two visits of ten steps of two envs: each part has its windows, and the second visit is not the first."""
    replay = functools.partial(task_balanced, capacity=128, minimum=4, visits=2)
    started = run(program("dqn", replay=functools.partial(replay, importance=None)))
    chunks = list(started.chunks())
    assert all(np.isfinite(chunk.metrics["loss"]).all() for chunk in chunks)
    state = started.carries[0].agent.rest["replay"]
    assert (int(state.visit[0]), int(state.step[0])) == (1, 20)
    seen = np.asarray(state.seen[0])
    assert (seen > 8).all()
    assert (seen < 20).all()
