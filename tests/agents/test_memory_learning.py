"""An agent with memory solves a task that needs it; the same agent without memory stays at chance."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import program, run

from plasticity.agents.replays import sequences, uniform
from plasticity.core.types import StreamSpec, Task, Visit, VisitPlan
from plasticity.envs.base import StreamFactory, vectorise
from plasticity.networks.presets import mlp
from plasticity.networks.recurrent import gru
from plasticity.optim.optimizers import adam
from plasticity.optim.schedules import linear

WAIT, SEEDS = 5, 3


def cued(steps: int, envs: int) -> StreamFactory:
    """A cue (0 or 1), then ``WAIT`` random distractors; the last action is rewarded if it equals the cue."""
    observation = jax.ShapeDtypeStruct((4,), jnp.float32)
    spec = StreamSpec(observation, 2, ("cue",), (VisitPlan(0, steps),), envs, True, reward_name="return")

    def seen(key: Any, age: Any, cue: Any) -> Any:
        shown = jnp.where(age == 0, 2.0 * cue - 1.0, 0.0)
        noise = jnp.where(age == 0, 0.0, jax.random.rademacher(key, (), jnp.float32))
        return jnp.stack([shown, noise, (age == 0).astype(jnp.float32), (age == WAIT).astype(jnp.float32)])

    def reset(key: Any, params: Any) -> Any:
        cue = jax.random.randint(key, (), 0, 2)
        return (cue, jnp.int32(0)), seen(key, jnp.int32(0), cue)

    def step(key: Any, state: Any, action: Any, params: Any) -> Any:
        cue, age = state
        last = age == WAIT
        reward = jnp.where(last & (action == cue), 1.0, 0.0)
        return (cue, age + 1), seen(key, age + 1, cue), reward, jnp.where(last, 0.0, 1.0), last

    def params(key: Any, visit: Visit) -> Any:
        del key, visit
        return ()

    task = Task(spec, params, reset, step)
    return StreamFactory(spec, lambda lanes: vectorise(task, lanes, envs))


def success(**settings: Any) -> np.ndarray:
    """The mean return of each seed in the last 500 steps of 5000."""
    stream = cued(5_000, 4)
    made = program("dqn", stream=stream, seeds=tuple(range(SEEDS)), chunk=500, **COMMON, **settings)
    return np.asarray([chunk.metrics["episodic_return"] for chunk in run(made, SEEDS).chunks()])[-1]


COMMON: dict[str, Any] = {
    "optimizer": functools.partial(adam, learning_rate=3e-3),
    "epsilon": functools.partial(linear, start=1.0, end=0.02, duration=2_000),
    "update_period": 4,
    "target_period": 50,
    "discount": 0.95,
    "double": True,
}
SIZES = {"capacity": 8_000, "minimum": 400}


@pytest.mark.slow
def test_a_network_with_memory_recalls_the_cue_and_one_without_does_not():
    torso = functools.partial(mlp, widths=(16,))
    replay = functools.partial(sequences, length=12, burn_in=6, overlap=6, **SIZES)
    with_memory = success(network=functools.partial(gru, torso=torso, units=16), replay=replay, batch_size=16)
    without = success(
        network=functools.partial(mlp, widths=(16, 16)), replay=functools.partial(uniform, **SIZES), batch_size=64
    )
    assert with_memory.min() > 0.9, with_memory
    assert without.max() < 0.65, without
