"""Batches from the oldest part of a replay: which transitions and sequences they have, and that agents ask for it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import EPSILON, uniform_replay
from replay_cases import KEY, SPEC, live, pairs, remember

from plasticity.agents import AGENTS
from plasticity.agents.ages import drawn_ages, falling, rising
from plasticity.agents.replay import oldest_part
from plasticity.agents.replay_source import Memory, Sampling
from plasticity.agents.replays import age_weighted, prioritised, prioritised_sequences, sequences, uniform
from plasticity.core.types import FIRST, MID, StreamSpec, TimeStep, Transition, VisitPlan
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.presets import mlp
from plasticity.optim.optimizers import sgd
from plasticity.optim.schedules import constant

ENVS, ROWS, STEPS, DRAWN = 2, 10, 2, 8000
ONE = StreamSpec(jax.ShapeDtypeStruct((1,), jnp.float32), 90, ("a",), (VisitPlan(0, 90),), ENVS, True)
SIZES: dict[str, Any] = {"capacity": ROWS * ENVS, "minimum": 8}
NEW = {"prefer": "new", "duration": 6.0, "least": 0.2}
UNWEIGHTED = functools.partial(constant, value=0.0)
REPLAYS: dict[str, Callable[..., Memory]] = {
    "uniform": uniform,
    "age_weighted": functools.partial(age_weighted, **NEW),
    "prioritised": functools.partial(prioritised, importance=UNWEIGHTED),
    "prioritised_by_age": functools.partial(prioritised, importance=UNWEIGHTED, **NEW),
}
SEQUENCES: dict[str, Callable[..., Memory]] = {
    "sequences": sequences,
    "prioritised_sequences": functools.partial(prioritised_sequences, importance=UNWEIGHTED),
}


def filled(memory: Memory, written: int) -> Any:
    """The memory after so many steps; observations name the time step, those of the second env plus 100."""

    def step(t: int) -> TimeStep:
        numbers = jnp.full(ENVS, t, jnp.float32)
        kind = jnp.full(ENVS, FIRST if t == 0 else MID, jnp.int8)
        return TimeStep(kind, numbers, jnp.ones(ENVS), numbers[:, None] + jnp.asarray([[0.0], [100.0]]))

    add, state = jax.jit(memory.add), memory.init()
    carry = () if memory.sequences is None else (jnp.zeros((ENVS, 1)),)
    for t in range(written):
        state = add(state, Transition(step(t), jnp.full(ENVS, t, jnp.int32), step(t + 1)), *carry)
    return state


def test_the_size_of_the_oldest_part_by_hand() -> None:
    sizes = [int(oldest_part(jnp.float32(share), jnp.int32(8))) for share in (1.0, 0.5, 0.3, 0.25, 1e-6)]
    assert sizes == [8, 4, 3, 2, 1]
    assert [int(oldest_part(share, jnp.int32(0))) for share in (None, jnp.float32(0.3))] == [1, 1]


# Ten rows hold the times 13 to 22 after 23 steps; windows of three items start at the times 13 to 20.
@pytest.mark.parametrize(("written", "share", "times"), [(23, 0.3, 3), (23, 1e-6, 1), (23, 1.0, 8), (7, 0.3, 2)])
@pytest.mark.parametrize("kind", REPLAYS)
def test_transitions_come_from_the_oldest_part_alone(kind: str, written: int, share: float, times: int) -> None:
    """All of them, and with the same relative frequencies as without it."""
    memory = REPLAYS[kind](ONE, Sampling(DRAWN, STEPS, 0.5, None), **SIZES)
    state, oldest = filled(memory, written), max(0, written - ROWS)
    sample = jax.jit(memory.sample)
    batch, weights, _ = sample(state, KEY, jnp.int32(0), share=jnp.float32(share))
    seen = np.asarray(batch.observation[:, 0]).astype(int)
    assert batch.valid.all()
    assert (np.asarray(weights) == 1).all()
    found = np.arange(oldest, oldest + times)
    ages = written - STEPS - found  # of the newest whole transition: 1
    wanted = np.maximum(0.2, 1 - ages / 6) if kind in ("age_weighted", "prioritised_by_age") else np.ones(times)
    chances = np.concatenate([wanted, wanted]) / wanted.sum() / 2
    counts = np.asarray([np.sum(seen == t) for t in (*found, *(found + 100))])
    assert counts.sum() == DRAWN
    assert np.all(np.abs(counts - DRAWN * chances) <= 4 * np.sqrt(DRAWN * chances * (1 - chances)))


@pytest.mark.parametrize(("written", "share"), [(13, 0.5), (31, 0.4), (31, 1e-6), (32, 1.0)])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_sequences_come_from_the_oldest_part_alone(kind: str, written: int, share: float) -> None:
    sampling = Sampling(256, 1, 0.5, None, lambda envs: jnp.zeros((envs, 1)))
    shape: dict[str, Any] = {"length": 2, "burn_in": 0, "overlap": 0, "carry": "initial"}
    memory = SEQUENCES[kind](ONE, sampling, **SIZES, **shape)  # windows of three items start in every second row
    state = filled(memory, written)
    windows = jax.jit(memory.sample)(state, KEY, jnp.int32(0), share=jnp.float32(share)).batch
    starts = [t for t in range(0, written - 2, 2) if t >= written - ROWS]
    kept = starts[: max(1, int(np.ceil(share * len(starts))))]
    assert windows.valid.all()
    assert set(np.asarray(windows.observation[0, :, 0]).astype(int)) == {*kept, *(t + 100 for t in kept)}


@pytest.mark.parametrize("rule", [falling, rising])
@pytest.mark.parametrize("above", [0, 3, 7, 9])
def test_ages_above_a_bound(rule: Any, above: int) -> None:
    """Ages are drawn by their weights, up to age 6 linear."""
    weights = rule(6.0, 0.2)
    drawn = np.asarray(drawn_ages(KEY, weights, jnp.int32(10), DRAWN, jnp.int32(above)))
    ages = np.arange(above + 1, 11)
    chances = np.asarray(weights.at(jnp.asarray(ages, jnp.float32)))
    chances = chances / chances.sum()
    counts = np.asarray([np.sum(drawn == age) for age in ages])
    assert counts.sum() == DRAWN
    assert np.all(np.abs(counts - DRAWN * chances) <= 4 * np.sqrt(DRAWN * chances * (1 - chances)))


def test_an_agent_draws_from_the_part_that_a_method_asks_for() -> None:
    """Every second update from the oldest tenth: after ``4 u`` steps, of ``4 u - 1`` transitions of each env."""
    updates = 6
    review = Intervention(
        init=lambda key, params, network: jnp.int32(0),
        step=lambda key, state, learner, seen: (state + 1, learner),
        review=lambda key, state: jnp.where(state % 2 == 0, 0.1, 1.0),
    )
    settings: dict[str, Any] = {"replay": uniform_replay(200), "batch_size": 8, "update_period": 4, "epsilon": EPSILON}
    parts = {"network": functools.partial(mlp, widths=(4,)), "optimizer": functools.partial(sgd, learning_rate=0.1)}
    agent = AGENTS["dqn"](SPEC, compose(review, remember(updates)), **settings, **parts)
    start = agent.init(KEY, None)  # type: ignore[arg-type]
    state, _, _ = jax.jit(lambda state: live(agent, state, steps=4 * updates))(start)
    made, seen = state.plugins
    assert made == updates
    stored = np.asarray(pairs().previous.observation)
    outside = []
    for update, batch in enumerate(np.asarray(seen)):
        oldest = stored[: -(-(4 * update + 3) // 10)].reshape(-1, 3)
        outside.append(sum(not (row == oldest).all(1).any() for row in batch))
    assert outside[::2] == [0, 0, 0]
    assert min(outside[1::2]) > 0
