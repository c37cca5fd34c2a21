"""``plasticity dataset``: the replay of a run as a dataset, and learning from it with evaluation in its environment."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_cli
import tiny
from crashes import tables

import plasticity
from plasticity import results
from plasticity.core.errors import UserError
from plasticity.envs.recorded import read
from plasticity.runs import launch, transitions

ROWS, COLUMNS = 5, 4


def recording(**changes: Any) -> dict[str, Any]:
    """Catch with permuted pixels: two visits of 100 steps of two envs; the replay holds the last 160 steps."""
    stream = {"kind": "catch", "rows": ROWS, "columns": COLUMNS, "tasks": 2, "steps_per_task": 100, "envs": 2}
    agent = tiny.DQN["agent"] | {"replay": {"capacity": 320, "minimum": 16}, "epsilon": {"end": 1.0}}
    settings = {"name": "recording", "stream": stream, "agent": agent, "monitors": [], "seeds": [3, 4]}
    return tiny.document(**(settings | {"record_every": 50, "placement": {"width": 2}} | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("recording") / "run"
    plasticity.run(launch.experiment_of(recording()), place)
    return place


@pytest.fixture(scope="module")
def files(run):
    """The datasets of both visits of the second lane, as the command line writes them."""
    made = [run.parent / f"visit_{visit}.npz" for visit in range(2)]
    for visit, path in enumerate(made):
        done = test_cli.plasticity("dataset", run, "--out", path, "--lane", 1, "--visit", visit)
        assert done.code == 0, done.err
        assert f"of visit {visit}" in test_cli.flat(done.out)
    return made


def test_the_rows_are_the_games_that_were_played(files):
    """An episode takes five steps, one of which opens the next; 160 of 200 steps are kept, 60 of them of visit 0."""
    for path, kept in zip(files, (60, 100), strict=True):
        made = read(str(path))
        rows = len(made.reward)
        assert 2 * (kept * 4 // 5 - 4) <= rows <= 2 * kept * 4 // 5
        assert made.terminated.sum() == (made.reward != 0).sum() > 20
        assert not made.truncated.any()
        assert set(np.unique(made.action)) == {0, 1, 2}
        assert (made.observation.sum((1, 2)) == 2).all()  # the ball and the paddle, wherever their pixels are
        inner = ~made.terminated[:-1]
        same = (made.next_observation[:-1][inner] == made.observation[1:][inner]).all((1, 2))
        assert same.sum() >= len(same) - 2  # all but where one env follows the other
    first, second = (read(str(path)) for path in files)
    assert not np.array_equal(first.observation.mean(0) > 0, second.observation.mean(0) > 0) or not np.allclose(
        first.observation.mean(0), second.observation.mean(0), atol=0.05
    )


def test_the_metadata_name_the_environment_and_the_agent(files):
    for visit, path in enumerate(files):
        with np.load(path) as arrays:
            facts = json.loads(str(arrays["metadata"]))
        environment, source = facts["environment"], facts["source"]
        assert (facts["actions"], facts["stack"]) == (3, 0)
        assert (environment["visit"], environment["task"]) == (visit, visit)
        assert environment["stream"]["kind"] == "catch"
        assert {key: source[key] for key in ("run", "arm", "lane", "seed", "step")} == {
            "run": "recording", "arm": "baseline", "lane": 1, "seed": 4, "step": 200,
        }  # fmt: skip
        assert source["agent"]["kind"] == "dqn"
        assert "plasticity" in source["versions"]


def offline(paths, **changes):
    stream = {"kind": "dataset", "paths": [str(path) for path in paths], "steps_per_task": 20, "envs": 8}
    agent = {"kind": "cql", "network": {"kind": "mlp", "widths": [8]}, "target_period": 5}
    evaluation = {"every": 10, "tasks": "all", "episodes": 8, "steps": 30}
    settings = {"stream": stream, "agent": agent, "evaluation": evaluation, "seeds": 2, "record_every": 10}
    return tiny.document(**(settings | {"name": "offline", "probe_size": 8} | changes))


@pytest.fixture(scope="module")
def learned(files):
    place = files[0].parent / "learned"
    plasticity.run(launch.experiment_of(offline(files)), place)
    return place


def test_learning_from_the_datasets(learned, files):
    """The performance is the agreement; evaluations have returns of catch for each dataset, once in ten steps."""
    plan = results.plan(learned)
    assert plan["stream"]["reward_name"] == "agreement"
    assert plan["evaluation"] == {"reward_name": "return", "episodic": True, "reward_range": [-1.0, 1.0]}
    assert [each["path"] for each in plan["data"]] == [str(path) for path in files]
    visits = results.visits(learned)
    assert visits["performance"].between(0, 1).all()
    assert visits["task"].unique().tolist() == ["visit_0", "visit_1"]
    played = results.evaluations(learned)
    assert set(played["evaluated_task"]) == {"visit_0", "visit_1"}
    assert len(played) == 2 * 4 * 2
    assert played["episodic_return"].between(-1, 1).all()
    assert (played["episode_length"] == ROWS - 1).all()
    assert {"weight_norm", "loss", "q_mean", "evaluation_return"} <= set(results.load(learned).columns)


def test_an_arm_that_is_told_the_task_is_told_it_in_evaluations_too(files):
    """Traced only: observations of catch with an entry for each dataset, in the data and in the game."""
    arms = {"told": {"task_aware": True, "interventions": ["task_input"]}}
    (job,) = launch.plan(launch.experiment_of(offline(files, arms=arms))).jobs
    assert job.program.spec.observation.next_observation.shape == (ROWS, COLUMNS + 2)
    make = job.program.make_eval_stream
    assert make is not None
    assert make(1).spec.observation.shape == (ROWS, COLUMNS + 2)


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_tables(learned, files, tmp_path):
    """Stopped after 20 of 40 steps, continued by another process's program."""
    experiment, place = launch.experiment_of(offline(files)), tmp_path / "again"

    class Stops:
        def job(self, job, position):
            pass

        def chunk(self, chunk):
            if chunk.position.step == 20:
                raise KeyboardInterrupt

        def say(self, line):
            pass

    with pytest.raises(BaseException):  # noqa: B017, PT011  (an interruption, whatever carries it)
        plasticity.run(experiment, place, progress=Stops())
    plasticity.run(experiment, place, resume=True)
    for one, other in zip(tables(learned)["baseline"], tables(place)["baseline"], strict=True):
        pd.testing.assert_frame_equal(one, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"visit": 2}, "--visit: 2 is not allowed; the run has the visits 0 ... 1"),
        ({"lane": 2}, "--lane: 2 is not a lane of baseline, which has 2: 0 ... 1"),
        ({"arm": "other"}, "--arm: other is not an arm; the run has baseline"),
    ],
)
def test_what_cannot_be_saved_is_said(run, settings, message):
    with pytest.raises(UserError) as caught:
        transitions.replay_of(run, **settings)
    assert str(caught.value) == message


def test_an_agent_without_a_replay_has_nothing_to_save(learned):
    with pytest.raises(UserError, match=r"^arms\.baseline: its agent has no replay in the order of time;"):
        transitions.replay_of(learned)


def test_where_a_dataset_is_written(run, files, tmp_path):
    for words, message in (
        (("--out", files[0]), "exists; replace it with --force, or choose another --out"),
        (("--out", tmp_path / "data.csv"), "must end in .npz"),
        (("--out", tmp_path / "none" / "data.npz"), "does not exist"),
    ):
        done = test_cli.plasticity("dataset", run, *words)
        assert (done.code, done.out) == (2, "")
        assert message in test_cli.flat(done.err)


def test_evaluation_of_a_dataset_without_environment_is_refused(tmp_path):
    path = tmp_path / "own.npz"
    seen, rows = np.zeros((4, 3), np.float32), np.zeros(4, bool)
    np.savez(
        path, observation=seen, next_observation=seen, action=np.arange(4) % 2, reward=np.zeros(4), terminated=rows,
        truncated=rows,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"^evaluation: own does not name the environment"):
        launch.plan(launch.experiment_of(offline([path])))
