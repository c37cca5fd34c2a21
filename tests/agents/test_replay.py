"""Replay: windows into transitions, by hand and against a NumPy walk over the stored steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.agents.replay import Item, held, n_step, replay, stacked, window_to_transition
from plasticity.core.types import FIRST, LAST, MID, StreamSpec, TimeStep, Transition, VisitPlan

BIG = jnp.asarray(1e9)


def spec(stack: int = 0, envs: int = 1) -> StreamSpec:
    shape = (stack, 2, 2) if stack else (3,)
    kind = jax.ShapeDtypeStruct(shape, jnp.uint8 if stack else jnp.float32)
    return StreamSpec(kind, 4, ("a",), (VisitPlan(0, 10),), envs, True, stack=stack)


def flags(*values: int) -> jnp.ndarray:
    return jnp.asarray(values, bool)


@pytest.mark.parametrize(
    ("first", "discount", "expected"),
    [
        # three steps inside an episode: 1 + .5 * 2 + .25 * 4 = 3, bootstrap .125
        (flags(0, 0, 0, 0), (1.0, 1.0, 1.0), (3.0, 0.125, 3)),
        # termination after the second step: its discount 0 cuts return and bootstrap
        (flags(0, 0, 0, 1), (1.0, 0.0, 1.0), (2.0, 0.0, 2)),
        # truncation after the second step: the return stops, the bootstrap stays
        (flags(0, 0, 0, 1), (1.0, 1.0, 1.0), (2.0, 0.25, 2)),
        # the very next item opens an episode: no transition
        (flags(0, 1, 0, 0), (1.0, 1.0, 1.0), (0.0, 1.0, 0)),
        # item 0 itself is a FIRST: that is where an episode starts, not where it ends
        (flags(1, 0, 0, 0), (1.0, 1.0, 1.0), (3.0, 0.125, 3)),
        # a discount of 0 inside an episode (a lost life)
        (flags(0, 0, 0, 0), (1.0, 0.0, 1.0), (2.0, 0.0, 3)),
    ],
)
def test_n_step_by_hand(first, discount, expected):
    # a truncated episode's second item is LAST; the third item's reward belongs to the next episode
    rewards = jnp.asarray([1.0, 2.0, 4.0])
    total, bootstrap, length = n_step(first, rewards, jnp.asarray(discount), jnp.asarray(0.5))
    np.testing.assert_allclose((total, bootstrap, length), expected)


def test_stack_repeats_the_first_frame_of_the_episode():
    frames = jnp.arange(10, 18)
    first = flags(0, 0, 0, 0, 1, 0, 0, 0)
    assert stacked(frames, first, jnp.asarray(3), 4).tolist() == [10, 11, 12, 13]
    assert stacked(frames, first, jnp.asarray(4), 4).tolist() == [14, 14, 14, 14]
    assert stacked(frames, first, jnp.asarray(5), 4).tolist() == [14, 14, 14, 15]
    assert stacked(frames, first, jnp.asarray(7), 4).tolist() == [14, 15, 16, 17]


def test_window_with_frame_stack_by_hand():
    frames = jnp.arange(6, dtype=jnp.uint8)[:, None, None] * jnp.ones((6, 2, 2), jnp.uint8)
    window = Item(
        frames,
        flags(0, 0, 1, 0, 0, 0),
        jnp.arange(6),
        jnp.asarray([9.0, 9, 9, -5, 0.5, 9]),
        jnp.ones(6),
    )
    batch = window_to_transition(window, spec(stack=4), jnp.asarray(0.9), jnp.asarray(1.0))
    assert batch.observation[:, 0, 0].tolist() == [2, 2, 2, 3]  # the stack that ends at item 3
    assert batch.next_observation[:, 0, 0].tolist() == [2, 3, 4, 5]
    assert int(batch.action) == 3
    np.testing.assert_allclose(batch.reward, -1.0 + 0.9 * 0.5)  # the reward of -5 is clipped to -1
    np.testing.assert_allclose(batch.discount, 0.81)


class Walk:
    """A stream of one env with random episode ends, as pairs of consecutive time steps like the runner's."""

    def __init__(self, seed: int, stack: int, length: int) -> None:
        rng = np.random.default_rng(seed)
        self.steps, frame, kind, past = [], 0, FIRST, []
        for t in range(length):
            frame = t % 250
            past = [frame] * stack if kind == FIRST else [*past[1:], frame]
            ends = kind != FIRST and rng.random() < 0.2
            step_type = FIRST if kind == FIRST else (LAST if ends else MID)
            truncated = rng.random() < 0.5
            discount = 0.0 if step_type == LAST and not truncated else 1.0
            reward = 0.0 if step_type == FIRST else float(rng.normal())
            self.steps.append((step_type, reward, discount, np.asarray(past)))
            kind = FIRST if step_type == LAST else MID

    def timestep(self, t: int) -> TimeStep:
        step_type, reward, discount, past = self.steps[t]
        image = jnp.broadcast_to(jnp.asarray(past, jnp.uint8)[None, :, None, None], (1, len(past), 2, 2))
        return TimeStep(
            *(jnp.asarray([x], d) for x, d in ((step_type, jnp.int8), (reward, float), (discount, float))), image
        )

    def transition(self, t: int, steps: int, gamma: float):
        """(return, bootstrap, stack of the end) of the n-step transition from t; None where t joins two episodes."""
        total, weight, at = 0.0, 1.0, t
        for _ in range(steps):
            step_type, reward, discount, _ = self.steps[at + 1]
            if step_type == FIRST:
                break
            total, weight, at = total + weight * reward, weight * gamma * discount, at + 1
        return None if at == t else (total, weight, self.steps[at][3])


@pytest.mark.parametrize("capacity", [400, 40], ids=["not full", "wrapped"])
def test_samples_agree_with_a_walk_over_the_stream(capacity):
    steps, gamma, length = 3, 0.9, 120
    walk, memory = Walk(3, 4, length + 1), replay(spec(4), capacity=capacity, minimum=20, batch_size=256, steps=steps)
    add, state = jax.jit(memory.add), memory.init()
    for t in range(length):
        assert bool(memory.ready(state)) == (t >= 20)
        pair = Transition(walk.timestep(t), jnp.asarray([t % 4]), walk.timestep(t + 1))
        state = add(state, pair)
    batch = jax.jit(memory.sample)(state, jax.random.key(1), jnp.asarray(gamma), BIG)
    seen = set()
    for i in range(256):
        newest = int(batch.observation[i, -1, 0, 0])  # frames are numbered by time: the frame names the step
        expected = walk.transition(newest, steps, gamma)
        seen.add(newest)
        assert bool(batch.valid[i]) == (expected is not None)
        np.testing.assert_array_equal(batch.observation[i, :, 0, 0], walk.steps[newest][3])
        assert int(batch.action[i]) == newest % 4
        if expected is not None:
            np.testing.assert_allclose((batch.reward[i], batch.discount[i]), expected[:2], atol=1e-5)
            np.testing.assert_array_equal(batch.next_observation[i, :, 0, 0], expected[2])
    oldest = max(0, length - capacity)
    assert min(seen) >= oldest + 3
    assert max(seen) <= length - 1 - steps
    assert len(seen) > 0.8 * (length - oldest - 3 - steps) * (1 if capacity == 40 else 0.8)


@pytest.mark.parametrize("capacity", [70, 40], ids=["not full", "wrapped"])
def test_what_is_held_agrees_with_a_walk_over_the_stream(capacity):
    """Row by row: transitions of one step with their rewards as received, and how their episodes ended."""
    length, stack = 60, 4
    walk, memory = Walk(5, stack, length + 1), replay(spec(stack), capacity=capacity, minimum=20, batch_size=2, steps=2)
    add, state = jax.jit(memory.add), memory.init()
    for t in range(length):
        state = add(state, Transition(walk.timestep(t), jnp.asarray([t % 4]), walk.timestep(t + 1)))
    found = jax.device_get(jax.jit(lambda state: held(state, spec(stack)))(state))
    count = min(length, capacity)
    assert (int(found.filled), found.valid.shape) == (count, (1, capacity))
    assert not found.valid[0, count:].any()
    ends = 0
    for row in range(count):
        t = length - count + row
        expected = walk.transition(t, 1, 1.0)
        assert found.valid[0, row] == (expected is not None and row >= stack - 1 and row + 1 < count)
        if not found.valid[0, row]:
            continue
        logged = jax.tree.map(lambda x, row=row: x[0, row], found.transitions)
        np.testing.assert_array_equal(logged.observation[:, 0, 0], walk.steps[t][3])
        np.testing.assert_array_equal(logged.next_observation[:, 0, 0], expected[2])
        np.testing.assert_allclose((logged.action, logged.reward, logged.discount), (t % 4, *expected[:2]), rtol=1e-6)
        last = walk.steps[t + 1][0] == LAST and t + 2 < length
        assert found.truncated[0, row] == (last and walk.steps[t + 1][2] == 1.0)
        ends += last
    assert ends > 4


@pytest.mark.parametrize(
    ("sizes", "key"),
    [({"capacity": 3, "minimum": 3}, "replay.capacity"), ({"capacity": 50, "minimum": 60}, "replay.minimum")],
)
def test_sizes_that_do_not_fit_are_named(sizes, key):
    with pytest.raises(ValueError, match=key):
        replay(spec(4), batch_size=4, steps=1, **sizes)


def test_a_new_replay_is_zero_whatever_memory_held(monkeypatch):
    """Newer JAX leaves ``jnp.empty`` uninitialised; here it holds sevens."""
    monkeypatch.setattr(jnp, "empty_like", lambda x, *args, **kwargs: jnp.full_like(x, 7))
    state = replay(spec(), capacity=20, minimum=5, batch_size=2, steps=1).init()
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state))
