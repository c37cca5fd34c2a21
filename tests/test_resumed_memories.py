"""What an agent keeps about earlier visits is in its checkpoints: a run that is resumed is one that never ended."""

import crashes
import pytest
import tiny

from plasticity import results
from plasticity.runs import checkpoint

NETWORK = {"kind": "mlp", "widths": [4]}
SAC = {
    "kind": "sac", "network": NETWORK, "critic_network": NETWORK, "batch_size": 4, "random_steps": 10,
    "replay": {"capacity": 128, "minimum": 8},
}  # fmt: skip
BALANCED = {**tiny.DQN["agent"], "replay": {"kind": "task_balanced", "capacity": 120, "minimum": 8, "visits": 3}}
PENDULUM = {"kind": "pendulum", "tasks": 3, "steps_per_task": 20, "envs": 2, "episode_steps": 3}
CATCH = {"kind": "catch", "rows": 5, "columns": 4, "tasks": 3, "steps_per_task": 20, "envs": 2}
MEMORIES = {
    "explorer": (SAC, PENDULUM, ["task_heads", "old_policy_exploration"]),
    "replay": (BALANCED, CATCH, []),
}


@pytest.mark.parametrize("memory", MEMORIES)
def test_resumed_in_mid_visit_bit_for_bit(tmp_path, memory):
    """Killed within the second visit (for the explorer, in its random steps) and within the third."""
    agent, stream, methods = MEMORIES[memory]
    arms = {"a": {"task_aware": True, "interventions": methods}}
    laboratory = crashes.Laboratory(
        tiny.experiment(agent=agent, stream=stream, arms=arms, monitors=[], checkpoint_every=5, seeds=2)
    )
    laboratory.run(tmp_path / "whole")
    whole, table = crashes.tables(tmp_path / "whole"), results.load(tmp_path / "whole")
    assert table.groupby("visit")["loss"].last().notna().all()
    for chunk in (6, 10):  # at env steps 30 and 50, after those at 25 and 45 were saved
        place = tmp_path / str(chunk)
        with pytest.raises(crashes.Killed):
            laboratory.run(place, progress=crashes.Watcher(lambda count, last=chunk: ended(count, last)))
        saved = place / "a/checkpoints/000"
        assert checkpoint.files(saved)[-1].stem == f"{5 * (chunk - 1):012}"
        laboratory.resume(place)
        crashes.assert_same(place, whole, f"{memory} killed at chunk {chunk}")


def ended(count, last):
    if count == last:
        raise crashes.Killed
