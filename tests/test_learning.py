"""Agents learn catch (chance is about -0.6, the maximum 1) and Pendulum with the settings of the repository."""

from pathlib import Path

import numpy as np
import pytest

from plasticity.engine.runner import Run
from plasticity.runs import launch

CONFIGS = Path(__file__).parent.parent / "configs"
QUICK = ("stream_q",)  # test_fresh_control.py has one of replay
REST = ("dqn", "ppo", "pqn", "reinforce", "c51", "rainbow", "adaptive_q", "stream_dqn", "stream_c51", "stream_ac")
LEVEL = {"ppo": 0.6, "stream_c51": 0.5, "stream_ac": -0.2}  # after so few steps; all others 0.85


def returns(arm: str, *changes: str, config: str = "catch/agents.yaml", steps: int = 30_000) -> np.ndarray:
    """The mean return of each record and lane, ``[records, lanes]``."""
    settings = [f"stream.steps_per_task={steps}", "seeds=2", "monitors=[]", "evaluation=null", *changes]
    experiment = launch.load_config(CONFIGS / config, settings)
    (job,) = [job for job in launch.plan(experiment).jobs if job.arm == arm]
    run = Run(job.program, job.placement, launch.devices())
    return np.stack([chunk.metrics["episodic_return"] for chunk in run.chunks()])


@pytest.mark.parametrize("arm", [*QUICK, *(pytest.param(arm, marks=pytest.mark.slow) for arm in REST)])
def test_every_lane_learns_catch(arm):
    found = returns(arm)
    assert (found[:2].mean(0) < -0.2).all()
    assert (found[-5:].mean(0) > LEVEL.get(arm, 0.85)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("arm", "steps", "gain"), [("stream_ac", 60_000, 200), ("avg", 20_000, 500)])
def test_streaming_agents_learn_to_swing_up(arm, steps, gain):
    """Real-valued actions on Pendulum, where random actions give about -1,230."""
    found = returns(arm, config="control/pendulum_streaming.yaml", steps=steps)
    tenth = len(found) // 10
    assert (found[:tenth].mean(0) < -1000).all()
    assert (found[-tenth:].mean(0) > found[:tenth].mean(0) + gain).all()


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["dqn", "stream_q"])
def test_nobody_learns_without_a_step(arm):
    """The control: the improvement above does not come from the environment."""
    still = "obgd, learning_rate: 1.0e-9" if arm == "stream_q" else "sgd, learning_rate: 0.0"
    found = returns("dqn", f"agent={{kind: {arm}, optimizer: {{kind: {still}}}}}", "arms={dqn: {}}")
    assert found[-5:].mean() < 0.2
