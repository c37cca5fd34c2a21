"""Evaluation: which visits, how episodes are counted, and that it does not affect training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import program, run, source
from chain import chain
from tiny import DQN, document

from plasticity import results
from plasticity.config.experiments import read_experiment
from plasticity.core.counting import precise
from plasticity.core.errors import UserError
from plasticity.core.types import FIRST, LAST, MID, TimeStep, Visit, VisitPlan
from plasticity.engine import evaluation
from plasticity.engine.evaluation import Evaluation, Player, Target, blank, evaluate, targets, updated
from plasticity.envs.control import cartpole
from plasticity.runs import launch

ALWAYS = Evaluation(every=10, tasks="all", episodes=6, steps=200)


def test_targets_are_the_last_visits_of_tasks_met_and_the_next_of_others():
    spec = chain().spec._replace(visits=tuple(VisitPlan(task, 5) for task in (0, 1, 0, 2, 1)), tasks=("a", "b", "c"))
    assert targets(spec, 2, "current") == [Target(2, 0)]
    assert targets(spec, 2, "seen") == [Target(2, 0), Target(1, 1)]
    assert targets(spec, 2, "all") == [Target(2, 0), Target(1, 1), Target(3, 2)]
    assert targets(spec, 1, "seen") == [Target(1, 1), Target(0, 0)]
    assert targets(spec, 4, "seen") == [Target(4, 1), Target(2, 0), Target(3, 2)]


def test_books_of_one_env_by_hand():
    """Two episodes count: returns 3 (3 steps) and 5 (1 step); the third does not."""
    books = blank(1)
    kinds = [MID, MID, LAST, FIRST, LAST, FIRST, MID, LAST]
    for kind, reward in zip(kinds, [1.0, 0.0, 2.0, 0.0, 5.0, 0.0, 7.0, 9.0], strict=True):
        timestep = TimeStep(*(jnp.asarray([x]) for x in (np.int8(kind), reward, 1.0)), observation=None)  # type: ignore[misc]
        books = updated(books, timestep, timestep.reward, 2)
    found = evaluation.summary(books, jnp.int32(8), episodic=True)
    assert {name: float(value) for name, value in found.items()} == {
        "episodes": 2, "episodic_return": 4.0, "episode_length": 2.0
    }  # fmt: skip


def test_books_of_episodes_longer_than_a_float_counts():
    """2^24 rewards of 1 so far: one more each is seen, in returns, in lengths and in the mean of all steps."""
    so_far = 2**24

    def books(episodic):
        start, many = blank(2), jnp.full(2, so_far, jnp.int32)
        start = start._replace(age=many, running=precise(many), reward=precise(many))
        for kind in [MID] * 4 + [LAST]:
            timestep = TimeStep(jnp.full(2, kind, jnp.int8), jnp.ones(2), jnp.ones(2), observation=None)
            start = updated(start, timestep, timestep.reward, 1)
        return evaluation.summary(start, jnp.int32(so_far + 5), episodic)

    found = books(True)
    assert abs(float(found["episodic_return"]) - (so_far + 5)) <= 1
    assert abs(float(found["episode_length"]) - (so_far + 5)) <= 1
    np.testing.assert_allclose(books(False)["reward"], 1.0, rtol=1e-7)


def to_the_right(i, carry, observation):
    return jnp.ones(observation.shape[:-1], jnp.int32)


def played(stream, width, settings, play=to_the_right, visit=0, eval_replica=1):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(jnp.arange(width))
    here = Visit(jnp.int32(visit), jnp.int32(visit), jnp.int32(eval_replica))
    player = Player(play, tuple, lambda carry, observation, first: carry)
    go = jax.jit(functools.partial(evaluate, stream.make(width), width, settings, player))
    return {name: np.asarray(x) for name, x in go(keys, here, jnp.int32(0)).items()}


@pytest.mark.parametrize("width", [1, 3])
def test_a_policy_whose_return_is_known(width):
    """Always to the right: 1 where the goal is right, 0.2 where it is left; one to three steps away."""
    for visit, wanted in ((0, 1.0), (1, 0.2)):
        found = played(chain(envs=2), width, ALWAYS, visit=visit)
        np.testing.assert_allclose(found["episodic_return"], np.full(width, wanted), rtol=1e-6)
        assert (found["episodes"] == 6).all()
        assert ((found["episode_length"] >= 1) & (found["episode_length"] <= 3)).all()


def test_another_replica_is_another_chance():
    lengths = {float(played(chain(envs=1), 1, ALWAYS, eval_replica=r)["episode_length"][0]) for r in range(1, 8)}
    assert len(lengths) > 1


def test_too_few_steps_for_an_episode():
    with pytest.warns(UserWarning, match="steps_per_task: 10 is shorter than an episode may last"):
        short = cartpole(tasks=1, steps_per_task=10)
    found = played(short, 1, Evaluation(None, steps=3))
    assert found["episodes"] == 0
    assert np.isnan(found["episodic_return"]).all()


def test_streams_without_episodes_are_played_for_exactly_so_many_steps():
    still = source("regressor")

    def play(i, carry, observation):
        return jnp.broadcast_to(jnp.where(i < 2, jnp.nan, 0.0), observation.target.shape)  # from step 2 on finite

    assert np.isnan(played(still, 1, Evaluation(None, steps=4), play)["reward"]).all()
    zeros = played(still, 1, Evaluation(None, steps=4), lambda i, c, o: jnp.zeros(o.target.shape))
    assert zeros["reward"] < 0


@pytest.fixture(scope="module")
def twins():
    """The same lanes without and with evaluation."""
    planned = program("dqn", seeds=(0, 1))
    return [list(run(each).chunks()) for each in (planned, planned._replace(evaluation=ALWAYS))]


def test_training_does_not_notice(twins):
    for plain, evaluated in zip(*twins, strict=True):
        for name, values in plain.metrics.items():
            np.testing.assert_array_equal(values, evaluated.metrics[name])


def test_what_the_consumers_get(twins):
    assert not any(chunk.evaluations for chunk in twins[0])
    for chunk in twins[1]:
        here, other = chunk.evaluations
        assert (here.visit, other.visit) == (chunk.position.visit, 1 - chunk.position.visit)
        assert (here.task, other.task) == (chunk.task, {"right": "left", "left": "right"}[chunk.task])
        np.testing.assert_array_equal(here.metrics["episodic_return"], chunk.metrics["evaluation_return"])
        assert (here.metrics["episodes"] > 0).all()
        assert ((here.metrics["episodic_return"] >= 0) & (here.metrics["episodic_return"] <= 1)).all()


def test_a_run_keeps_its_evaluations(tmp_path):
    changes = {"evaluation": {"every": 10, "tasks": "seen", "steps": 5}, "seeds": 2}
    experiment = read_experiment(document(**changes), launch.registry())
    assert read_experiment(experiment.resolve(), launch.registry()) == experiment
    table = results.evaluations(launch.run(experiment, tmp_path / "run"))
    expected = [(step, visit) for step in range(10, 70, 10) for visit in range((step - 1) // 20 + 1)]
    for _, lane in table.groupby("lane"):
        assert list(zip(lane["step"], lane["evaluated_visit"], strict=True)) == expected
    assert table["reward"].between(0, 1).all()
    metrics = results.load(tmp_path / "run")
    assert metrics["evaluation_reward"].notna().equals(metrics["step"] % 10 == 0)
    visits = results.visits(tmp_path / "run")
    assert list(visits.columns)[5:8] == ["performance", "performance_end", "performance_evaluated"]
    at_ends = metrics[metrics["step"] % 20 == 0]
    np.testing.assert_array_equal(visits["performance_evaluated"], at_ends["evaluation_reward"])
    np.testing.assert_array_equal(visits["visit"], at_ends["visit"])


def test_accuracy_on_clean_held_out_samples_beside_that_on_noisy_labels(tmp_path):
    """Half of the labels are random, so a tenth of these is right: at most 0.55 in training, without memorising."""
    stream = {"kind": "relabelled", "inputs": "digits", "initial": "true", "fraction": 0.0, "tasks": 1, "envs": 32}
    stream |= {"label_noise": 0.5, "held_out": 0.2, "steps_per_task": 300}
    agent = {**document()["agent"], "network": {"kind": "mlp", "widths": []}}
    changes = {"stream": stream, "agent": agent, "evaluation": {"every": "visit", "steps": 40}, "seeds": 2}
    run = launch.run(read_experiment(document(**changes), launch.registry()), tmp_path / "run")
    visits = results.visits(run)
    assert (visits["performance_end"] < 0.65).all()
    assert (visits["performance_evaluated"] > 0.7).all()


@pytest.mark.slow
def test_a_run_without_evaluation_has_none(tmp_path):
    launch.run(read_experiment(document(seeds=1), launch.registry()), tmp_path / "run")
    assert results.evaluations(tmp_path / "run").empty
    assert "performance_evaluated" not in results.visits(tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every": 7}, "must divide evaluation.every, 7"),
        ({"episodes": 0}, "evaluation.episodes"),
        ({"tasks": "sen"}, "seen"),
    ],
)
def test_bad_settings(given, message):
    with pytest.raises(UserError, match=message):
        launch.plan(read_experiment(document(evaluation=given, **DQN), launch.registry()))
