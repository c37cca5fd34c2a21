"""Forks into the visits that followed are the run itself, bit for bit, for more agents and streams."""

import shutil

import numpy as np
import pytest
import tiny
from test_forks import numbers, run

from plasticity import results
from plasticity.core.errors import UserError
from plasticity.runs import forks, launch

CATCH = {"kind": "catch", "rows": 5, "columns": 4, "tasks": 3, "steps_per_task": 20, "envs": 2}
GYM = {
    "kind": "gym",
    "id": "CartPole-v1",
    "envs": 2,
    "steps_per_visit": 20,
    "cycles": 3,
    "variations": [{"max_episode_steps": 9}],
}
NETWORK = {"kind": "mlp", "widths": [4]}
PPO = {"kind": "ppo", "network": NETWORK, "rollout_length": 5, "epochs": 2, "minibatches": 2}
CASES = {
    "ppo": {"agent": PPO, "stream": CATCH},
    "ppo with normalisers": {"agent": {**PPO, "normalise": "running", "scale_rewards": True}, "stream": CATCH},
    "ppo with memory": {"agent": {**PPO, "network": {"kind": "gru", "units": 4, "torso": NETWORK}}, "stream": CATCH},
    "host": {"agent": tiny.DQN["agent"], "stream": GYM},
    "shuffled": {"agent": tiny.DQN["agent"], "stream": CATCH, "schedule": {"order": "shuffled"}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_fork_into_the_next_visits_is_the_run_itself(tmp_path, case):
    whole = run(tmp_path / "whole", **CASES[case])
    fork = launch.run(forks.fork_of(whole, [1], overrides=["schedule.skip=1"], fresh=False), tmp_path / "fork")
    expected, found = numbers(whole), numbers(fork, "baseline.after1")
    expected = expected[expected["visit"] >= 1].reset_index(drop=True)
    assert len(found) == len(expected) > 0
    assert found["task"].tolist() == expected["task"].tolist()
    for name in ("reward", "loss"):
        assert expected[name].notna().any()
        np.testing.assert_array_equal(found[name], expected[name])
    if case == "shuffled":
        orders = expected.groupby("lane")["task"].apply(lambda each: tuple(dict.fromkeys(each)))
        assert orders.nunique() == 2


@pytest.mark.slow
def test_a_run_that_was_moved_is_forked_from_its_new_place(tmp_path):
    whole = run(tmp_path / "whole")
    made = forks.fork_of(whole, [1], overrides=["schedule.skip=1"], fresh=False)
    expected = numbers(launch.run(made, tmp_path / "before"))
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(whole, tmp_path / "elsewhere" / "moved")
    with pytest.raises(UserError, match="is not a run"):
        launch.run(made, tmp_path / "old place")
    again = launch.run(forks.fork_of(moved, [1], overrides=["schedule.skip=1"], fresh=False), tmp_path / "after")
    np.testing.assert_array_equal(numbers(again)["loss"], expected["loss"])
    assert results.lanes(again)["seed"].tolist() == results.lanes(moved)["seed"].tolist()
