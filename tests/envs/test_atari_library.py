"""The Atari stream against envpool used directly, and the emulators' own memory: frames, modes, sticky actions."""

import zlib
from typing import Any

import envpool
import numpy as np
import pytest
from playing import lane_keys, play, player, visit_of

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs.atari import PRESETS, atari, make_envs
from plasticity.envs.atari_games import Game, parse
from plasticity.envs.host import emulator_seeds

pytestmark = pytest.mark.filterwarnings("ignore:frames_per_visit")


def library(name: str, seed: int, actions: np.ndarray, limit: int) -> list[tuple[Any, ...]]:
    """(frames, reward, terminated, truncated) of the library's own step; machado18 written out."""
    envs = envpool.make(
        f"{name}-v5", env_type="gymnasium", num_envs=1, seed=seed, frame_skip=4, stack_num=4, full_action_space=True,
        repeat_action_probability=0.25, max_episode_steps=limit, noop_max=1, use_fire_reset=False, episodic_life=False,
        reward_clip=False,
    )  # fmt: skip
    steps = [(envs.reset()[0][0], 0.0, False, False)]
    for action in actions:
        observation, reward, terminated, truncated, _ = envs.step(np.array([action], np.int32))
        steps.append((observation[0], reward[0], terminated[0], truncated[0]))
    envs.close()
    return steps


def check_against_the_library(games: list[str], steps: int, limit: int) -> None:
    """Same actions, same seed: the same frames, rewards and ends, and a step after an end opens an episode."""
    streamed = player(atari(games=games, frames_per_visit=4 * steps, episode_frames=4 * limit).make(1))
    keys, scored, actions = lane_keys(6), 0, np.random.default_rng(2).integers(0, 18, (steps, 1, 1)).astype(np.int32)
    for task, name in enumerate(games):
        life = play(streamed, keys, visit_of(task), actions)
        seed = int(emulator_seeds(keys, visit_of(task), 1)[0, 0])
        frames, reward, terminated, truncated = zip(*library(name, seed, actions[:, 0, 0], limit), strict=True)
        np.testing.assert_array_equal(life.observation[:, 0, 0], np.stack(frames))
        np.testing.assert_array_equal(life.reward[:, 0, 0], reward)
        ended = np.array(terminated) | np.array(truncated)
        opens = np.concatenate([[True], ended[:-1]])
        np.testing.assert_array_equal(life.step_type[:, 0, 0], np.where(opens, FIRST, np.where(ended, LAST, MID)))
        np.testing.assert_array_equal(life.discount[:, 0, 0] == 0, terminated)
        assert ended.any()
        scored += np.any(reward)
    assert scored >= 2
    streamed.stream.close()


def test_two_games_are_those_of_the_library() -> None:
    check_against_the_library(["Breakout", "Asterix"], 200, 150)


@pytest.mark.slow
def test_five_games_are_those_of_the_library() -> None:
    check_against_the_library(["Breakout", "SpaceInvaders", "MsPacman", "Freeway", "Qbert"], 2000, 900)


# A byte of each game's memory that counts the frames, modulo 256 (found by stepping the bare emulator frame by frame).
@pytest.mark.parametrize(("name", "counter"), [("Breakout", 90), ("Pong", 8), ("Freeway", 1)])
def test_a_step_is_four_frames_of_the_emulator(name: str, counter: int) -> None:
    envs = make_envs(Game(name), PRESETS["machado18"], [4], 1)
    opening = envs.reset()[1]["ram"][0, counter]
    told = [envs.step(np.array([action % 18], np.int32))[4] for action in range(100)]
    envs.close()
    count = np.diff([opening, *(each["ram"][0, counter] for each in told)]).astype(np.uint8)
    assert (count == 4).all()
    assert [int(each["elapsed_step"][0]) for each in told] == list(range(1, 101))


JOYSTICK, STICK = 4, np.array([15, 15, 14, 7, 11, 13])  # Freeway's memory of the last frame's NOOP, FIRE, UP, ... DOWN


def outdated(sticky: float, steps: int, envs: int) -> tuple[int, int]:
    """In how many steps of Freeway the last of the four frames still has an action from before the step, of how many.

    Chosen are only actions unlike the one of the frame before the step, as the game remembers it. An action is outdated
    after four frames if the emulator repeated the last one at each of them: with probability ``sticky ** 4``.
    """
    pool = make_envs(Game("Freeway"), PRESETS["machado18"]._replace(sticky=sticky), list(range(1, envs + 1)), 2)
    draw, stick = np.random.default_rng(0), pool.reset()[1]["ram"][:, JOYSTICK]
    count = total = 0
    for _ in range(steps):
        actions = draw.choice([2, 3, 4, 5], envs)
        information = pool.step(actions.astype(np.int32))[4]
        judged = (STICK[actions] != stick) & (information["elapsed_step"] > 0)
        stick = information["ram"][:, JOYSTICK]
        count, total = count + int((judged & (stick != STICK[actions])).sum()), total + int(judged.sum())
    pool.close()
    return count, total


def test_without_sticky_actions_no_action_is_outdated() -> None:
    count, total = outdated(0.0, 100, 2)
    assert count == 0
    assert total > 120


@pytest.mark.slow
def test_the_probability_of_repeating_is_as_set_at_each_frame() -> None:
    """The standard error of the estimate is 0.005; were whole steps repeated it would be 0.25 ** 0.25 = 0.71."""
    count, total = outdated(PRESETS["machado18"].sticky, 6000, 8)
    assert (count / total) ** 0.25 == pytest.approx(0.25, abs=0.01)


def digest(name: str, steps: int, catch: bool = False) -> int:
    """Of all the frames that a game shows to random actions; ``catch``: to a Breakout paddle that follows the ball, the
    button held."""
    envs, draw = make_envs(parse(name), PRESETS["machado18"]._replace(sticky=0.0), [3], 1), np.random.default_rng(0)
    frames, information = envs.reset()
    seen = zlib.crc32(frames.tobytes())
    for action in draw.integers(0, 6, steps):
        ball, paddle = (int(information["ram"][0, place]) for place in (99, 72))
        follow = 1 if abs(ball - paddle - 8) < 4 else 11 if ball > paddle + 8 else 12  # FIRE, RIGHTFIRE, LEFTFIRE
        frames, *_, information = envs.step(np.array([follow if catch else action], np.int32))
        seen = zlib.crc32(frames.tobytes(), seen)
    envs.close()
    return seen


@pytest.mark.parametrize(
    ("name", "mode", "steps"), [("SpaceInvaders", 1, 20), ("Breakout", 12, 20), ("Freeway", 4, 60)]
)
def test_a_mode_and_a_difficulty_are_other_games(name: str, mode: int, steps: int) -> None:
    """In Freeway a difficulty is seen only when a chicken is hit."""
    seen = {digest(f"{name}:{flavour}", steps) for flavour in ("0:0", "0:1", f"{mode}:0", f"{mode}:1")}
    assert len(seen) == 4
    assert digest(name, 5) == digest(f"{name}:0:0", 5)


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["rusu_space_invaders", "rusu_breakout", "rusu_freeway"])
def test_all_tasks_of_a_curriculum_are_different_games(suite: str) -> None:
    """Three of Breakout's modes differ from others only in that the button catches the ball."""
    breakout = suite == "rusu_breakout"
    tasks = atari(suite=suite).spec.tasks
    assert len({(digest(task, 60), breakout and digest(task, 100, True)) for task in tasks}) == len(tasks)
