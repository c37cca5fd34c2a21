"""T-maze and recall: policies with and without memory against the levels that the docstrings state."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import clock_at, lane_keys, visit_of

from plasticity.core.types import FIRST, LAST
from plasticity.envs.memory import recall, t_maze

UP, DOWN, LEFT, RIGHT = range(4)
EPISODES = 64  # envs: every env plays one episode of each visit


class Seen:
    """Plays one episode in every env, one time step at a time."""

    def __init__(self, source: Any, task: int = 0) -> None:
        stream, self.keys = source.make(1), lane_keys(3)
        self.state, opening = jax.jit(stream.reset)(self.keys, visit_of(task), jnp.int32(0))
        self.move, self.observation = jax.jit(stream.step), np.asarray(opening.observation)[0]
        self.returns, self.over = np.zeros(len(self.observation)), np.zeros(len(self.observation), bool)
        self.steps, self.discount = 0, np.ones(len(self.observation))
        assert (np.asarray(opening.step_type) == FIRST).all()

    def act(self, actions: np.ndarray) -> None:
        self.state, timestep = self.move(self.keys, self.state, jnp.asarray(actions)[None], clock_at(self.steps))
        self.steps += 1
        self.returns += np.where(self.over, 0, np.asarray(timestep.reward)[0])
        self.discount = np.where(self.over, self.discount, np.asarray(timestep.discount)[0])
        self.over |= np.asarray(timestep.step_type)[0] == LAST
        self.observation = np.asarray(timestep.observation)[0]


@pytest.mark.parametrize(("length", "task"), [(1, 0), (4, 1), (4, 2)])
def test_a_policy_with_memory_obtains_the_prize_of_the_maze(length: int, task: int) -> None:
    seen = Seen(t_maze(length=length, prize=3.0, envs=EPISODES), task)
    cues = seen.observation.argmax(1)
    assert set(cues) == {0, 1}
    for place in range(length):
        assert (seen.observation.argmax(1) == (2 if place else cues)).all()
        seen.act(np.full(EPISODES, RIGHT))
        assert not seen.over.any()
    assert (seen.observation.argmax(1) == 3).all()
    seen.act((cues + task) % 2)
    assert seen.over.all()
    assert (seen.returns == 3).all()
    assert (seen.discount == 0).all()
    assert seen.steps == length + 1


def test_rewards_and_observations_of_a_walk_in_the_maze() -> None:
    """Every step that does not move costs 0.1; walking back shows the cue again."""
    seen = Seen(t_maze(length=2, envs=EPISODES))
    cues = seen.observation.argmax(1)
    walk = (UP, LEFT, RIGHT, DOWN, LEFT, RIGHT, RIGHT, RIGHT, LEFT, RIGHT)
    inputs = (0, 0, 2, 2, 0, 2, 3, 3, 2, 3)  # 0: the cue
    costs = np.cumsum([0.1, 0.1, 0, 0.1, 0, 0, 0, 0.1, 0, 0])
    for action, shown, cost in zip(walk, inputs, costs, strict=True):
        seen.act(np.full(EPISODES, action))
        assert (seen.observation.argmax(1) == (shown or cues)).all()
        assert (seen.observation.sum(1) == 1).all()
        np.testing.assert_allclose(seen.returns, -cost, atol=1e-6)
    seen.act(np.full(EPISODES, UP))
    np.testing.assert_allclose(seen.returns, np.where(cues == 0, 4.0, -0.1) - 0.4, atol=1e-6)
    assert seen.over.all()


def maze_return(policy: tuple[int, ...], cue: int, length: int, limit: int, swapped: bool) -> float:
    """The return of a policy that maps each of the four observations to an action, by the published rules."""
    place, total = 0, 0.0
    for _ in range(limit):
        action = policy[cue if place == 0 else 3 if place == length else 2]
        if place == length and action in (UP, DOWN):
            return total + (4.0 if (action == DOWN) == ((cue == 1) != swapped) else -0.1)
        there = min(max(place + {LEFT: -1, RIGHT: 1}.get(action, 0), 0), length)
        total -= 0.1 * (there == place)
        place = there
    return total


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("length", "limit"), [(1, 2), (1, 5), (3, 4), (3, 20)])
def test_the_best_policy_without_memory_is_at_chance_in_the_maze(length: int, limit: int, swapped: bool) -> None:
    """Of all 256 policies."""
    policies = list(itertools.product(range(4), repeat=4))
    means = [sum(maze_return(policy, cue, length, limit, swapped) for cue in range(2)) / 2 for policy in policies]
    assert max(means) == pytest.approx((4 - 0.1) / 2)


@pytest.mark.parametrize("policy", [(3, 3, 3, 0), (3, 0, 3, 0), (3, 3, 2, 1), (3, 3, 3, 3), (2, 3, 3, 1)])
def test_policies_without_memory_earn_what_the_rules_say(policy: tuple[int, ...]) -> None:
    seen = Seen(t_maze(length=3, episode_steps=6, envs=EPISODES))
    cues = seen.observation.argmax(1)
    for _ in range(6):
        seen.act(np.asarray(policy)[seen.observation.argmax(1)])
    expected = np.array([maze_return(policy, cue, 3, 6, False) for cue in range(2)])
    np.testing.assert_allclose(seen.returns, expected[cues], atol=1e-5)
    assert seen.over.all()


def asked(source: Any, task: int = 0, delay: int = 5) -> tuple[Seen, np.ndarray, np.ndarray]:
    """An episode up to the question: the cues, and the inputs that were shown between."""
    seen = Seen(source, task)
    cues, shown = seen.observation.argmax(1), []
    for _ in range(delay + 1):
        seen.act(np.zeros(EPISODES, int))
        assert not seen.over.any()
        assert (seen.returns == 0).all()
        shown.append(seen.observation)
    return seen, cues, np.stack(shown)


@pytest.mark.parametrize("task", [0, 1, 3])
def test_a_policy_with_memory_recalls_every_cue(task: int) -> None:
    seen, cues, shown = asked(recall(symbols=3, delay=5, distractors=2, envs=EPISODES), task)
    assert set(cues) == {0, 1, 2}
    assert (shown[-1] == [0, 0, 0, 0, 0, 1]).all()
    assert (shown[:-1, :, [0, 1, 2, 5]] == 0).all()
    assert (shown[:-1, :, 3:5].sum(-1) == 1).all()
    assert 0.4 < shown[:-1, :, 3].mean() < 0.6
    seen.act((cues + task) % 3)
    assert (seen.returns == 1).all()
    assert (seen.discount == 0).all()
    assert seen.over.all()
    assert seen.steps == 5 + 2


def test_a_policy_without_memory_is_at_chance_in_recall() -> None:
    """The question is the same after every cue, so the answer is too, and it is right for one cue."""
    for answer in range(4):
        seen, cues, _ = asked(recall(symbols=4, delay=2, envs=EPISODES), delay=2)
        assert len(np.unique(seen.observation, axis=0)) == 1
        seen.act(np.full(EPISODES, answer))
        by_cue = [seen.returns[cues == cue].mean() for cue in range(4)]
        assert by_cue == [float(cue == answer) for cue in range(4)]
        assert np.mean(by_cue) == 1 / 4


def test_cues_are_equally_likely() -> None:
    stream = recall(symbols=4, delay=0, envs=8000).make(1)
    cues = np.asarray(stream.reset(lane_keys(5), visit_of(0), jnp.int32(0))[1].observation)[0].argmax(1)
    assert (np.abs(np.bincount(cues) - 2000) < 4 * np.sqrt(8000 * 3 / 16)).all()


def test_recall_without_delay_and_distractors() -> None:
    seen, cues, shown = asked(recall(symbols=2, delay=0, distractors=0, envs=EPISODES), delay=0)
    assert (shown[0] == [0, 0, 1]).all()
    seen.act(cues)
    assert (seen.returns == 1).all()
    blank = asked(recall(symbols=2, delay=3, distractors=0, envs=EPISODES), delay=3)[2]
    assert (blank[:-1] == 0).all()


def test_tasks_are_the_distinct_mappings() -> None:
    assert recall(symbols=3, tasks=7).spec.tasks == ("mapping_0", "mapping_1", "mapping_2")
    assert [plan.task for plan in t_maze(tasks=3).spec.visits] == [0, 1, 0]
    assert recall().spec.reward_range == (0, 1)
    assert t_maze().spec.reward_range == (-0.1, 4)


def test_refuses_and_warns() -> None:
    with pytest.raises(ValueError, match="episode_steps: 10 is not allowed with length: 10; must be 0 or at least 11"):
        t_maze(episode_steps=10)
    with pytest.raises(ValueError, match="penalty: 5 is not allowed; must be at most prize, which is 4"):
        t_maze(penalty=5.0)
    with pytest.warns(UserWarning, match="steps_per_task: 21 is shorter than an episode may last .up to 22 steps"):
        recall(steps_per_task=21)
