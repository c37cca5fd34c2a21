"""An agent with memory solves a task that needs it; the same agent without memory stays at chance."""

import functools
from typing import Any

import numpy as np
import pytest
from agent_cases import program, run

from plasticity.agents.replays import sequences, uniform
from plasticity.envs.memory import recall
from plasticity.networks.presets import mlp
from plasticity.networks.recurrent import gru
from plasticity.optim.optimizers import adam
from plasticity.optim.schedules import linear

SEEDS = 3
COMMON: dict[str, Any] = {
    "optimizer": functools.partial(adam, learning_rate=3e-3),
    "epsilon": functools.partial(linear, start=1.0, end=0.02, duration=2_000),
    "update_period": 4,
    "target_period": 50,
    "discount": 0.95,
    "double": True,
}
SIZES = {"capacity": 8_000, "minimum": 400}


def success(**settings: Any) -> np.ndarray:
    """The mean return of each seed in the last 500 steps of 5000; two cues, five distractors."""
    stream = recall(symbols=2, delay=5, tasks=1, steps_per_task=5_000, envs=4)
    made = program("dqn", stream=stream, seeds=tuple(range(SEEDS)), chunk=500, **COMMON, **settings)
    return np.asarray([chunk.metrics["episodic_return"] for chunk in run(made, SEEDS).chunks()])[-1]


@pytest.mark.slow
def test_a_network_with_memory_recalls_the_cue_and_one_without_does_not():
    torso = functools.partial(mlp, widths=(16,))
    replay = functools.partial(sequences, length=12, burn_in=6, overlap=6, **SIZES)
    with_memory = success(network=functools.partial(gru, torso=torso, units=16), replay=replay, batch_size=16)
    without = success(
        network=functools.partial(mlp, widths=(16, 16)), replay=functools.partial(uniform, **SIZES), batch_size=64
    )
    assert with_memory.min() > 0.9, with_memory
    assert without.max() < 0.65, without  # chance is 0.5, over 250 episodes
