"""Runs on a stream of each family, interrupted within a visit and at a switch: nothing is different afterwards."""

import os
import signal
from typing import Any, NamedTuple

import pytest
import tiny
from crashes import Laboratory, Watcher, assert_same, tables

from plasticity.core.errors import Interrupted

pytestmark = pytest.mark.usefixtures("usual_signals")

SUPERVISED = tiny.document()["agent"]
REGRESSOR = {**SUPERVISED, "kind": "regressor"}
STEPS, EVERY = (8, 12, 8), 4  # of the visits; of the chunks: visits of two, three and two
slow = pytest.mark.slow


class Case(NamedTuple):
    stream: dict[str, Any]
    agent: dict[str, Any] = tiny.DQN["agent"]
    transforms: tuple[Any, ...] = ()
    order: str = "fixed"


CASES = {
    "permuted_labels": Case({"kind": "permuted_labels", "samples": 20, "gradual": 0.5, "envs": 4}, SUPERVISED),
    "relabelled": Case(
        {"kind": "relabelled", "samples": 40, "fraction": [0.5, 0.1], "label_noise": [0.5, 0.0], "held_out": 0.25,
         "envs": 4},
        SUPERVISED,
    ),
    "regression": Case({"kind": "regression", "dimensions": 4, "gradual": 0.5, "envs": 4}, REGRESSOR),
    "cartpole": Case({"kind": "cartpole", "episode_steps": 5, "tasks": 2, "steps_per_task": 8, "envs": 2}),
    "gridworld": Case({"kind": "gridworld", "size": 6, "episode_steps": 5, "tasks": 2, "steps_per_task": 8}),
    "forager": Case(
        {"kind": "forager", "size": 5, "aperture": 3, "delay": 3, "respawn": "elsewhere", "tasks": 2,
         "steps_per_task": 8, "envs": 2},
    ),
    "minatar": Case({"kind": "minatar", "games": ["breakout", "asterix"], "steps_per_visit": 8, "envs": 2}),
    "gym": Case(
        {"kind": "gym", "id": "CartPole-v1", "variations": [{"max_episode_steps": n} for n in (5, 7)],
         "steps_per_visit": 8, "envs": 2},
    ),
    "transforms": Case(
        {"kind": "catch", "rows": 4, "tasks": 3, "steps_per_task": 8, "change": "none", "envs": 2},
        transforms=(
            {"kind": "sticky_actions", "probability": [0.1, 0.5]},
            {"kind": "permute_observations", "gradual": 0.5},
            "flip_reward",
            {"kind": "delay_reward", "steps": 2},
            {"kind": "observation_noise", "deviation": [0.0, 0.3]},
            {"kind": "observation_offset", "deviation": 2.0, "gradual": 0.5},
            {"kind": "frame_stack", "frames": 2},
        ),
        order="shuffled",
    ),
}  # fmt: skip
QUICK = ("regression", "gridworld")


@pytest.fixture(scope="module", params=[case if case in QUICK else pytest.param(case, marks=slow) for case in CASES])
def laboratory(request: pytest.FixtureRequest) -> Laboratory:
    """Visits to the tasks 0, 1, 0 in a fixed order, two seeds."""
    case = CASES[request.param]
    return Laboratory(
        tiny.experiment(
            stream=case.stream, agent=case.agent, transforms=list(case.transforms), seeds=2, record_every=EVERY,
            schedule={"order": case.order, "visits": [0, 1, 0], "steps": list(STEPS)}, monitors=[],
            placement={"width": 1, "devices": 1},
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(laboratory, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    laboratory.run(run)
    return tables(run)


def test_a_switch_happens_at_the_step_that_the_schedule_says_and_once(whole, laboratory):
    metrics, lanes = whole["baseline"]
    assert lanes["diverged_at"].isna().all()
    tasks = laboratory.plan.spec.tasks
    for _, rows in metrics.groupby("lane"):
        assert rows["step"].tolist() == [4, 8, 12, 16, 20, 24, 28]
        assert rows["visit"].tolist() == [0, 0, 1, 1, 1, 2, 2]
        assert rows["step_in_visit"].tolist() == [4, 8, 4, 8, 12, 4, 8]
        first, second = rows["task"].iloc[0], rows["task"].iloc[2]
        assert rows["task"].tolist() == [first] * 2 + [second] * 3 + [first] * 2
        assert first != second
        if not laboratory.plan.spec.shuffled:
            assert (first, second) == tasks[:2]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [3, 5], ids=["within a visit", "at a switch"])
def test_a_run_that_is_resumed_is_the_run_that_never_ended(laboratory, whole, tmp_path, chunk):
    run = tmp_path / "run"
    watcher = Watcher(lambda count: os.kill(os.getpid(), signal.SIGTERM) if count == chunk else None)
    with pytest.raises(Interrupted):
        laboratory.run(run, progress=watcher)
    resumed = laboratory.run(run, resume=True)
    assert resumed.jobs == [("baseline", 0, EVERY * chunk)]
    assert_same(run, whole)
