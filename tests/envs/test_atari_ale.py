"""Atari by ale-py: the games of the other backend, frame by frame, and exact resumption."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ale_py import roms
from playing import assert_resumes_in_mid_visit, lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs.atari import PRESETS, AtariPool, Preset, atari
from plasticity.envs.atari_ale import AlePool, make_ale
from plasticity.envs.atari_games import TWO_PLAYERS, Game, cartridges

pytestmark = pytest.mark.filterwarnings("ignore:frames_per_visit")

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = {"games": ["Pong", "Breakout"], "frames_per_visit": 4000, "backend": "ale"}


def seed_with_one_noop(game: Game, preset: Preset) -> int:
    """A seed for which ale-py begins the episode as envpool does with ``noops: 1``."""
    for seed in range(1, 30):
        envs = make_ale(game, preset._replace(noops=2), 1, 1)
        if envs.reset(seed=np.array([seed], np.int32))[1]["frame_number"][0] == 1:
            return seed
    raise AssertionError("no seed draws one frame without action")


def whole_game(name: str, preset: Preset, steps: int) -> tuple[int, float]:
    """Both backends from the same frame to the end of the game, or ``steps`` steps; how far it went, and the score."""
    game = Game(name)
    seeds = np.array([seed_with_one_noop(game, preset)], np.int32)
    ours, other = AlePool(game, preset._replace(noops=2), seeds, 1), AtariPool(game, preset, seeds, 1)
    np.testing.assert_array_equal(ours.reset(), other.reset())
    rng, score = np.random.default_rng(0), 0.0
    for step in range(steps):  # noqa: B007 (the last one is the result)
        action = rng.integers(0, 18, 1)
        (frames, *rest), (expected, *others) = ours.step(action), other.step(action)
        for found, wanted in zip(rest, others, strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
        score += abs(float(rest[0][0]))
        if rest[2][0] == LAST:
            np.testing.assert_array_equal(frames[:, :3], expected[:, :3])
            break
        np.testing.assert_array_equal(frames, expected)
    ours.close()
    other.close()
    return step, score


@pytest.mark.parametrize("sticky", [0.0, 0.25])
@pytest.mark.parametrize("name", ["Breakout", "SpaceInvaders"])
def test_equals_envpool_from_the_same_frame_to_the_games_end(name: str, sticky: float) -> None:
    """Frames, raw rewards, discounts and step types; the last frame apart."""
    steps, score = whole_game(name, PRESETS["machado18"]._replace(sticky=sticky), 1200)
    assert 50 < steps < 1199  # the game's end is seen
    assert score > 0 or name == "Breakout"


def test_a_lost_life_equals_envpools() -> None:
    preset = PRESETS["dqn_legacy"]._replace(noops=1, fire=False, full_actions=True)
    whole_game("Breakout", preset, 400)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Pong", "Qbert", "MsPacman", "Freeway", "Asterix", "Seaquest"])
def test_more_games_equal_envpool(name: str) -> None:
    _, score = whole_game(name, PRESETS["machado18"], 2000)
    assert score > 0 or name == "Freeway"  # whose chicken does not cross by chance


def life(pool: AlePool, steps: int, actions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng, opening = np.random.default_rng(1), pool.reset()
    made = [pool.step(rng.integers(0, actions, 1)) for _ in range(steps)]
    pool.close()
    frames, *rest = (np.concatenate(field) for field in zip(*made, strict=True))
    return np.concatenate([opening, frames]), *rest


def test_stack_holds_copies_at_first_and_slides_afterwards() -> None:
    pool = AlePool(Game("Breakout"), PRESETS["dqn_legacy"]._replace(episode_frames=100), np.array([3]), 1)
    seen, reward, _, step_type = life(pool, 80, 4)
    types, stack = np.concatenate([[FIRST], step_type]), np.zeros_like(seen[0])
    assert (types == FIRST).sum() >= 3
    assert (reward[step_type == FIRST] == 0).all()
    for observation, kind in zip(seen, types, strict=True):
        newest = observation[-1:]
        stack = np.repeat(newest, 4, 0) if kind == FIRST else np.concatenate([stack[1:], newest])
        np.testing.assert_array_equal(observation, stack)
    assert len(np.unique(seen[:, -1].reshape(len(seen), -1), axis=0)) > 30


def test_four_frames_a_step_and_the_time_limit_has_discount_1() -> None:
    """Ten steps are forty frames: no frame is skipped twice."""
    pool = AlePool(Game("Pong"), PRESETS["machado18"]._replace(episode_frames=40), np.array([1]), 1)
    _, _, discount, step_type = life(pool, 24, 18)
    np.testing.assert_array_equal(np.flatnonzero(step_type == LAST), [9, 20])
    np.testing.assert_array_equal(np.flatnonzero(step_type == FIRST), [10, 21])
    assert (step_type[:9] == MID).all()
    assert (discount == 1).all()


def test_env_of_a_pool_equals_the_env_alone() -> None:
    preset, seeds = PRESETS["cora"], np.array([11, 12, 13])
    together, actions = AlePool(Game("Breakout"), preset, seeds, 2), np.random.default_rng(0).integers(0, 18, (40, 3))
    seen = np.stack([together.reset(), *(together.step(action)[0] for action in actions)])
    assert len({each.tobytes() for each in seen.swapaxes(0, 1)}) == 3
    for env, seed in enumerate(seeds):
        alone = AlePool(Game("Breakout"), preset, np.array([seed]), 1)
        found = np.concatenate([alone.reset(), *(alone.step(action[env : env + 1])[0] for action in actions)])
        np.testing.assert_array_equal(found, seen[:, env])


def test_resumes_in_mid_visit_bit_for_bit() -> None:
    assert_resumes_in_mid_visit(atari(**QUICK, envs=2, episode_frames=120), 1)


def test_a_sequence_of_games_is_one_stream() -> None:
    spec, other = atari(**QUICK, cycles=2).spec, atari(**{**QUICK, "backend": "envpool"}, cycles=2).spec
    assert spec == other
    assert atari(**QUICK, preset="dqn_legacy").spec.actions == 6  # Pong's; Breakout has 4
    stream = atari(**QUICK).make(1)
    lives = [play(player(stream), lane_keys(1), visit_of(i, i), random_actions(stream, 5, 1)) for i in (0, 1)]
    stream.close()
    assert not np.array_equal(*(each.observation for each in lives))


@pytest.mark.parametrize("game", ["Breakout:12", "Breakout:0:1"])
def test_modes_are_refused(game: str) -> None:
    with pytest.raises(ValueError, match=f"games: {game} is not allowed with `backend: ale`.*backend: envpool"):
        atari(games=[game], frames_per_visit=4000, backend="ale")


def test_both_backends_have_the_same_games() -> None:
    from envpool.atari.registration import atari_game_list

    assert set(cartridges().values()) == set(atari_game_list)
    assert set(roms.get_all_rom_ids()) - set(atari_game_list) == set(TWO_PLAYERS)


WITHOUT = """
import sys

sys.modules["envpool"] = None  # what an import of it meets where it is not installed
from plasticity.runs import launch
from plasticity.core.errors import UserError

launch.registry()
document = {"name": "without", "seeds": 1, "agent": {"kind": "stream_q", "network": {"kind": "mlp", "widths": [8]}}}
stream = {"kind": "atari", "games": ["Pong"], "frames_per_visit": 4000}
launch.plan(launch.experiment_of({**document, "stream": {**stream, "backend": "ale"}}))
for wanted in (stream, {"kind": "dmc", "tasks": ["CheetahRun"]}):
    try:
        launch.plan(launch.experiment_of({**document, "stream": wanted}))
    except UserError as error:
        print(error)
"""


def test_only_its_own_streams_need_envpool() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    atari_line, dmc_line = done.stdout.splitlines()
    assert "use `backend: ale`" in atari_line
    assert "pip install envpool" in dmc_line


COMMANDS = """
import sys

sys.modules["envpool"] = None
from plasticity.cli.main import app

for words in (["list"], ["list", "streams", "atari"], ["plan", "quickstart"]):
    app(words, standalone_mode=False)
"""


@pytest.mark.slow
def test_the_command_line_does_not_need_envpool() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COMMANDS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "continual_world" in done.stdout
    assert "task-aware arms: reset_last, fresh" in done.stdout
