"""A sequence of real games in the runner: one program, and its episode statistics."""

import numpy as np
import pytest
import tiny

from plasticity.engine.lanes import place
from plasticity.engine.runner import Run
from plasticity.runs import launch

pytestmark = pytest.mark.filterwarnings("ignore:frames_per_visit")  # visits are short on purpose

STREAM = {"kind": "atari", "games": ["Breakout", "Pong", "Breakout"], "frames_per_visit": 1600}
AGENT = {**tiny.DQN["agent"], "epsilon": {"duration": 100}}


@pytest.fixture(scope="module")
def played():
    """Two lanes on two devices, three visits of 400 steps; the run and its chunks."""
    experiment = tiny.experiment(stream=STREAM, agent=AGENT, seeds=2, monitor_every=200, record_every=100)
    job = launch.plan(experiment).jobs[0]
    run = Run(job.program, place(2, devices=2, width=1), launch.devices())
    chunks = list(run.chunks())
    run.close()
    return run, chunks


@pytest.mark.slow
def test_one_training_step_is_traced_for_the_whole_sequence_of_games(played):
    run, chunks = played
    assert [chunk.task for chunk in chunks] == ["Breakout"] * 4 + ["Pong"] * 4 + ["Breakout"] * 4
    assert run.compiled.traces == {"begin": 1, "chunk": 1, "switch": 1, "measure(0,)": 1}


def test_updates_and_episodes_are_counted(played):
    _, chunks = played
    update = np.stack([chunk.metrics["update"] for chunk in chunks])
    due = [sum(1 for done in range(1, end + 1) if done >= 16 and done % 2 == 0) for end in range(100, 1300, 100)]
    assert update.tolist() == [[n, n] for n in due]
    breakout = np.stack([chunk.metrics["episodes"] for chunk in chunks[:4]])
    returns = np.stack([chunk.metrics["episodic_return"] for chunk in chunks[:4]])
    assert breakout.sum() > 0  # a random player loses five lives within 400 steps
    assert (np.isnan(returns) == (breakout == 0)).all()
    assert (returns[breakout > 0] >= 0).all()


def test_a_revisited_game_goes_differently(played):
    """Emulator seeds depend on the visit: the second stay does not repeat the first."""
    run, chunks = played
    first, second = ([chunk.metrics["reward"] for chunk in chunks[i : i + 4]] for i in (0, 8))
    assert not np.array_equal(first, second)
    assert run.program.spec.tasks == ("Breakout", "Pong")
