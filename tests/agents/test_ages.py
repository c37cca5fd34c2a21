"""Sampling by age: the inverse of the cumulative weights, and which stored transitions are drawn how often."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.agents.ages import Weights, age_at, falling, rising
from plasticity.agents.replay_source import Memory, Sampling
from plasticity.agents.replays import age_weighted, prioritised
from plasticity.core import schedules
from plasticity.core.types import FIRST, MID, StreamSpec, TimeStep, Transition, VisitPlan

WEIGHTS: dict[str, tuple[Callable[..., Weights], Callable[..., np.ndarray]]] = {
    "new": (falling, lambda a, duration, least: np.maximum(least, 1 - a / duration)),
    "old": (rising, lambda a, duration, least: np.minimum(1, least + a / duration)),
}


@pytest.mark.parametrize("prefer", WEIGHTS)
@pytest.mark.parametrize(
    ("duration", "least", "oldest"),
    [
        (10.0, 0.1, 30),
        (10.0, 0.1, 5),
        (10.5, 0.0, 8),
        (7.0, 0.0, 20),
        (3.0, 1.0, 6),
        (0.5, 0.25, 4),
        (80_000.0, 0.1, 900),
    ],
)
def test_each_age_has_its_share_of_the_total_weight(prefer: str, duration: float, least: float, oldest: int) -> None:
    """The middle of each age's share belongs to that age; an age without weight has none."""
    make, by_hand = WEIGHTS[prefer]
    weights = by_hand(np.arange(1, oldest + 1), duration, least)
    ends = np.cumsum(weights) / weights.sum()
    middles = ends - weights / weights.sum() / 2
    found = age_at(make(duration, least), jnp.asarray(middles, jnp.float32), jnp.int32(oldest))
    drawn = weights > 0
    np.testing.assert_array_equal(np.asarray(found)[drawn], np.arange(1, oldest + 1)[drawn])


def test_ages_of_a_million_steps_are_off_by_rounding_alone() -> None:
    """The shares of 10 ages between 1 and a million, with weights that fall over 800,000 steps."""
    ages = np.linspace(1, 1_000_000, 10).astype(int)
    weights = np.maximum(0.1, 1 - np.arange(1, 1_000_001) / 800_000)
    shares = (np.cumsum(weights)[ages - 1] - weights[ages - 1] / 2) / weights.sum()
    found = age_at(falling(800_000.0, 0.1), jnp.asarray(shares, jnp.float32), jnp.int32(1_000_000))
    np.testing.assert_allclose(found, ages, atol=2, rtol=2e-6)


ENVS, ROWS, STEPS, DURATION, LEAST, DRAWN = 2, 10, 2, 6.0, 0.2, 20_000


def filled(memory: Memory, written: int) -> Any:
    """The memory after so many steps; observations and actions name the time step."""

    def step(t: int) -> TimeStep:
        numbers = jnp.full(ENVS, t, jnp.float32)
        kind = jnp.full(ENVS, FIRST if t == 0 else MID, jnp.int8)
        return TimeStep(kind, numbers, jnp.ones(ENVS), numbers[:, None] + jnp.asarray([[0.0], [100.0]]))

    state = memory.init()
    for t in range(written):
        state = memory.add(state, Transition(step(t), jnp.full(ENVS, t, jnp.int32), step(t + 1)))
    return state


def shares(prefer: str, written: int) -> tuple[np.ndarray, np.ndarray]:
    """Times of the stored transitions, and their expected shares in each env."""
    newest, oldest = written - 1 - STEPS, max(0, written - ROWS)
    times = np.arange(oldest, newest + 1)
    weights = WEIGHTS[prefer][1](newest + 1 - times, DURATION, LEAST)
    return times, weights


def check_counts(seen: np.ndarray, times: np.ndarray, expected: np.ndarray) -> None:
    """``expected[2, times]``: of the two envs."""
    expected = expected / expected.sum()
    counts = np.asarray([[np.sum(seen == t + env) for t in times] for env in (0, 100)])
    assert counts.sum() == DRAWN  # nothing else is drawn
    deviation = np.sqrt(DRAWN * expected * (1 - expected))
    assert np.all(np.abs(counts - DRAWN * expected) < 4 * deviation)


SPEC = StreamSpec(jax.ShapeDtypeStruct((1,), jnp.float32), 50, ("a",), (VisitPlan(0, 30),), ENVS, True)
SAMPLING = Sampling(DRAWN, STEPS, 0.5, None)
SETTINGS: dict[str, Any] = {"capacity": ROWS * ENVS, "minimum": 8, "duration": DURATION, "least": LEAST}


@pytest.mark.parametrize("prefer", WEIGHTS)
@pytest.mark.parametrize("written", [7, 23], ids=["not full", "wrapped"])
def test_stored_transitions_are_drawn_by_their_age(prefer: Any, written: int) -> None:
    memory = age_weighted(SPEC, SAMPLING, prefer=prefer, **SETTINGS)
    batch, weights, _ = memory.sample(filled(memory, written), jax.random.key(0), jnp.int32(0))
    seen = np.asarray(batch.observation[:, 0]).astype(int)
    times, expected = shares(prefer, written)
    check_counts(seen, times, np.stack([expected, expected]))
    np.testing.assert_array_equal(np.asarray(batch.action), seen % 100)
    np.testing.assert_allclose(batch.reward, (seen % 100 + 1) + 0.5 * (seen % 100 + 2))
    assert batch.valid.all()
    assert np.all(np.asarray(weights) == 1)


@pytest.mark.parametrize("prefer", WEIGHTS)
@pytest.mark.parametrize("written", [7, 23], ids=["not full", "wrapped"])
def test_ages_and_priorities_multiply(prefer: Any, written: int) -> None:
    """The oldest transition of the second env has 9 times the priority of all others."""
    settings = {"exponent": 1.0, "importance": lambda: schedules.constant(1.0), "prefer": prefer, **SETTINGS}
    memory = prioritised(SPEC, SAMPLING, **settings)
    state = filled(memory, written)
    times, expected = shares(prefer, written)
    place = jnp.asarray([ROWS + times[0] % ROWS])
    state = memory.update_priorities(state, jnp.int32(1), jnp.bool_(True), place[None], jnp.asarray([[9.0]]))
    batch, weights, _ = memory.sample(state, jax.random.key(1), jnp.int32(0))
    priorities = np.ones((2, len(times)))
    priorities[1, 0] = 9.0
    seen = np.asarray(batch.observation[:, 0]).astype(int)
    check_counts(seen, times, expected * priorities)
    np.testing.assert_allclose(weights, np.where(seen == 100 + times[0], 1 / 9, 1.0), rtol=1e-6)


def test_an_unknown_word_is_named() -> None:
    spec = StreamSpec(jax.ShapeDtypeStruct((1,), jnp.float32), 2, ("a",), (VisitPlan(0, 30),), 1, True)
    with pytest.raises(ValueError, match=r"prefer: .newest. is not allowed; must be one of new, old"):
        age_weighted(spec, Sampling(4, 1, 0.9, None), prefer="newest")  # type: ignore[arg-type]
