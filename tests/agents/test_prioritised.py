"""Prioritised replay: the sum tree, sampling frequencies, weights, and which windows it contains."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from q_reference import FIRST, script
from replay_cases import pairs

from plasticity.agents.priorities import above, blank, find, get, importance, prioritised, put, stratified, total
from plasticity.agents.replay import replay
from plasticity.agents.replay_source import Memory
from plasticity.core.schedules import linear
from plasticity.core.types import StreamSpec, TimeStep, Transition, VisitPlan

KEY = jax.random.key(2)


def filled(values: Any, fan: int) -> Any:
    values = jnp.asarray(values, jnp.float32)
    return put(blank(len(values), fan), jnp.arange(len(values)), values)


@pytest.mark.parametrize(("places", "fan", "rows"), [(3, 4, [1]), (60, 4, [15, 4, 1]), (70, 64, [2, 1])])
def test_the_tree_is_exact_after_many_changes(places, fan, rows):
    """Numbers over many orders of magnitude: a tree that adds differences would drift."""
    rng, tree, known = np.random.default_rng(0), blank(places, fan), np.zeros(places, np.float32)
    assert [level.shape for level in tree] == [(n, fan) for n in rows]
    change = jax.jit(put)
    for _ in range(200):
        where = rng.integers(0, places, 8)
        known[where] = rng.lognormal(0, 6, 8).astype(np.float32) * (rng.random(8) < 0.8)
        tree = change(tree, jnp.asarray(where), jnp.asarray(known[where]))  # a place that comes twice: the same value
    np.testing.assert_array_equal(get(tree, jnp.arange(places)), known)
    for level in tree:
        sums = np.zeros(level.size, np.float32)
        sums[: len(known)] = known
        np.testing.assert_allclose(level.ravel(), sums, rtol=1e-6)
        known = sums.reshape(-1, fan).astype(np.float64).sum(1)
    np.testing.assert_allclose(total(tree), known.sum(), rtol=1e-6)


@pytest.mark.parametrize(("places", "fan"), [(3, 4), (60, 4), (70, 64)])
def test_a_tree_over_given_numbers_is_the_one_that_changes_make(places, fan):
    tree = filled(np.random.default_rng(1).random(places), fan)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), above(tree[0]), tree)


def test_finding_by_hand():
    tree = filled([1, 0, 2, 0, 0, 3, 0, 0, 0, 4, 0], fan=3)
    targets = [0.0, 0.5, 1.0, 2.9, 3.0, 5.9, 6.0, 9.9]
    found = jax.jit(jax.vmap(find, in_axes=(None, 0)))(tree, jnp.asarray([*targets, 10.0]))
    assert found.tolist() == [0, 0, 2, 2, 5, 5, 9, 9, 9]  # rounding may reach the total: the last place that is there


def test_a_place_without_priority_is_never_found():
    rng = np.random.default_rng(1)
    values = np.where(rng.random(300) < 0.5, 0.0, rng.lognormal(0, 6, 300))
    tree = filled(values, 8)
    draw = jax.jit(lambda key: stratified(tree, key, 500))
    found = np.concatenate([draw(jax.random.key(i)) for i in range(4)])
    assert (values[found] > 0).all()


@pytest.mark.parametrize("fan", [2, 64])
def test_places_are_found_in_proportion_to_their_numbers(fan):
    numbers = np.arange(1, 41) ** 2.0
    numbers[::7] = 0.0
    draw = jax.jit(jax.vmap(lambda key: stratified(filled(numbers, fan), key, 32)))
    counts = np.bincount(np.ravel(draw(jax.random.split(KEY, 2000))), minlength=40)
    share = numbers / numbers.sum()
    there = share > 0
    assert (counts[~there] == 0).all()
    deviations = (counts - 64_000 * share)[there] / np.sqrt(64_000 * share[there])
    assert (deviations**2).sum() < 60  # 33 degrees of freedom, less for strata; beyond 60 once in 400 times
    assert np.abs(deviations).max() < 4


def test_one_sample_from_each_stratum():
    found = jax.jit(lambda: stratified(filled(np.ones(32), 4), KEY, 32))()
    assert found.tolist() == list(range(32))


def test_importance_weights_by_hand():
    """P = 1/8, 2/8, 4/8 of N = 3: (3 P)^-b over that of the rarest is (1, 1/2, 1/4)^b."""
    numbers = jnp.asarray([1.0, 2.0, 4.0, 0.0])
    np.testing.assert_allclose(importance(numbers, 1.0), [1, 0.5, 0.25, 0])
    np.testing.assert_allclose(importance(numbers, 0.5), [1, 0.5**0.5, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(importance(numbers, 0.0), [1, 1, 1, 0])
    np.testing.assert_allclose(importance(jnp.zeros(2), 0.5), [0, 0])


SPEC = StreamSpec(jax.ShapeDtypeStruct((3,), jnp.float32), 4, ("a",), (VisitPlan(0, 60),), 2, True)
LIFE = script()


def memory(spec: StreamSpec = SPEC, capacity: int = 20, steps: int = 2, batch: int = 64, **settings: Any) -> Memory:
    stored = replay(spec, capacity=capacity, minimum=10, batch_size=batch, steps=steps)
    known = {
        "discount": 0.9,
        "reward_clip": None,
        "exponent": 0.5,
        "correction": linear(0.4, 1.0, 100),
        "first": 5,
        "fan": 4,
    }
    return prioritised(stored, spec, batch_size=batch, **(known | settings))


def pair(t: int) -> Transition:
    return jax.tree.map(lambda x: x[t], pairs())


def numbers(state: Any, rows: int) -> np.ndarray:
    return np.asarray(get(state.tree, jnp.arange(2 * rows))).reshape(2, rows)


@pytest.mark.parametrize("steps", [1, 3])
def test_which_windows_are_there(steps):
    """A replay of 10 rows always contains the windows whose steps are all stored and whose first is a transition."""
    kept = memory(capacity=20, steps=steps)
    add, state = jax.jit(kept.add), kept.init()
    for t in range(30):
        state = add(state, pair(t))
        expected = np.zeros((2, 10))
        for env in range(2):
            for start in range(max(0, t - 9), t - steps + 1):
                expected[env, start % 10] = LIFE.step_type[start + 1, env] != FIRST
        np.testing.assert_array_equal(numbers(state, 10), expected, err_msg=str(t))
    assert 0 < expected.sum() < 2 * (10 - steps)


def test_samples_are_whole_transitions_with_their_weights():
    kept = memory()
    state = functools.reduce(jax.jit(kept.add), map(pair, range(25)), kept.init())
    rng = np.random.default_rng(0)
    places = jnp.flatnonzero(get(state.tree, jnp.arange(20)))
    state = state._replace(tree=put(state.tree, places, jnp.asarray(rng.random(len(places)) + 0.1, jnp.float32)))
    batch, weights, found = jax.jit(kept.sample)(state, KEY, jnp.int32(50))
    assert set(np.asarray(found)) == set(np.asarray(places))  # 64 samples of 15 places
    assert batch.valid.all()
    known = np.asarray(get(state.tree, found))
    np.testing.assert_allclose(weights, (known.min() / known) ** 0.7, rtol=1e-5)  # half-way from 0.4 to 1
    for i, place in enumerate(np.asarray(found)):
        env, row = divmod(int(place), 10)
        t = row + (20 if row < 5 else 10)  # rows 0 to 4 were written a third time
        np.testing.assert_array_equal(batch.observation[i], LIFE.observation[t, env])
        two = LIFE.step_type[t + 2, env] != FIRST
        reward = LIFE.reward[t + 1, env] + two * 0.9 * LIFE.discount[t + 1, env] * LIFE.reward[t + 2, env]
        np.testing.assert_allclose(batch.reward[i], reward, rtol=1e-5)
        np.testing.assert_array_equal(batch.next_observation[i], LIFE.observation[t + 1 + two, env])


def test_losses_become_priorities_and_new_steps_get_the_largest():
    kept = memory(batch=2)
    state = functools.reduce(jax.jit(kept.add), map(pair, range(12)), kept.init())
    before = numbers(state, 10)
    places = jnp.asarray([[3, 14], [3, 15]])
    assert (before.ravel()[[3, 14, 15]] == 1).all()
    losses = jnp.asarray([[9.0, 4.0], [2.25, 0.0]])
    update_priorities = jax.jit(kept.update_priorities)

    unchanged = update_priorities(state, jnp.int32(0), jnp.bool_(True), places, losses)
    np.testing.assert_array_equal(numbers(unchanged, 10), before)
    ignored = update_priorities(
        state, jnp.int32(2), jnp.bool_(False), places, losses
    )  # a lane that waits for its replay
    np.testing.assert_array_equal(numbers(ignored, 10), before)
    assert float(ignored.largest) == 1

    state = update_priorities(state, jnp.int32(2), jnp.bool_(True), places, losses)
    expected = before.copy()
    expected[0, 3], expected[1, 4], expected[1, 5] = 1.5, 2.0, 1e-3  # roots; the later update of place 3; at least 1e-6
    np.testing.assert_allclose(numbers(state, 10), expected, rtol=1e-5)
    np.testing.assert_allclose(total(state.tree), expected.sum(), rtol=1e-6)
    state = kept.add(state, pair(12))  # row 2 is written, the windows from row 0 (step 10) are whole
    expected[:, 2] = 0
    expected[:, 0] = 3.0 * (LIFE.step_type[11] != FIRST)
    np.testing.assert_allclose(numbers(state, 10), expected, rtol=1e-5)
    assert expected[:, 0].any()


def test_what_has_no_window_gets_no_priority():
    """A place without a window keeps its 0, whatever loss is assigned to it."""
    kept = memory(batch=2)
    state = functools.reduce(jax.jit(kept.add), map(pair, range(12)), kept.init())
    blank_place = int(np.flatnonzero(numbers(state, 10).ravel() == 0)[0])
    state = kept.update_priorities(
        state, jnp.int32(1), jnp.bool_(True), jnp.full((1, 2), blank_place), jnp.ones((1, 2))
    )
    assert float(get(state.tree, jnp.int32(blank_place))) == 0


def test_frame_stacks_begin_before_the_transition_does():
    """Stacks of 3: a window of 4 items (here 6 rows of one env); what counts is the third one's transition."""
    shape = jax.ShapeDtypeStruct((3, 2), jnp.uint8)
    spec = StreamSpec(shape, 4, ("a",), (VisitPlan(0, 60),), 1, True, stack=3)
    stored = replay(spec, capacity=6, minimum=4, batch_size=8, steps=1)
    kept = prioritised(
        stored,
        spec,
        batch_size=8,
        discount=0.9,
        reward_clip=None,
        exponent=1.0,
        correction=linear(1, 1, 1),
        first=4,
        fan=4,
    )
    kinds, state = "fmmmtfmmmmm", kept.init()
    add = jax.jit(kept.add)
    step_type = np.asarray([{"f": 0, "m": 1, "t": 2}[kind] for kind in kinds], np.int8)

    def timestep(t: int) -> TimeStep:
        one = np.ones(1, np.float32)
        return TimeStep(step_type[t, None], t * one, one, np.full((1, 3, 2), t, np.uint8))

    for t in range(10):
        state = add(state, Transition(timestep(t), np.asarray([t % 4], np.int32), timestep(t + 1)))
        whole = [s for s in range(max(0, t - 5), t - 2) if kinds[s + 3] != "f"]
        np.testing.assert_array_equal(np.flatnonzero(get(state.tree, jnp.arange(6))), sorted(s % 6 for s in whole))
    batch, _, places = jax.jit(kept.sample)(state, KEY, jnp.int32(0))
    for i, row in enumerate(np.asarray(places)):
        start = 6 + row if row < 4 else row  # steps 4 to 9 are stored
        assert batch.observation[i, -1, 0] == start + 2
        assert batch.next_observation[i, -1, 0] == start + 3
        assert batch.valid[i]
