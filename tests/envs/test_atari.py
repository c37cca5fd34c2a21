"""Atari against the emulator itself (ale-py, driven by hand), and exact resumption."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ale_py import ALEInterface, LoggerMode, roms
from jax.sharding import Mesh, PartitionSpec
from playing import assert_resumes_in_mid_visit, clock_at, lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs.atari import PRESETS, AtariPool, Preset, atari, preset_of
from plasticity.envs.atari_games import Game, parse

pytestmark = pytest.mark.filterwarnings("ignore:frames_per_visit")

QUICK = {"games": ["Pong", "Breakout"], "frames_per_visit": 4000}


def run(pool: AtariPool, actions: np.ndarray) -> tuple[np.ndarray, ...]:
    """Observations ``[1 + T, 4, 84, 84]``, rewards, discounts and step types ``[T]`` of a pool of one env."""
    opening, steps = pool.reset(), [pool.step(np.array([action], np.uint8)) for action in actions]
    pool.close()
    observations, *rest = (np.concatenate(field) for field in zip(*steps, strict=True))
    return np.concatenate([opening, observations]), *rest


def emulated(rom: str, preset: Preset, seed: int, actions: np.ndarray) -> list[tuple[float, bool, int]]:
    """Score, end of the game and lives after each step of the bare emulator: four frames a step."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", preset.sticky)
    ale.loadROM(roms.get_rom_path(rom))
    legal = ale.getLegalActionSet() if preset.full_actions else ale.getMinimalActionSet()
    ale.act(legal[0])
    steps: list[tuple[float, bool, int]] = []
    for action in actions:
        if ale.game_over():
            ale.reset_game()
            ale.act(legal[0])
            steps.append((0.0, False, ale.lives()))
            continue
        score = 0
        for _ in range(4):
            score += 0 if ale.game_over() else ale.act(legal[action])
        steps.append((score, ale.game_over(), ale.lives()))
    return steps


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_machado18_is_the_emulator_with_four_frames_a_step(sticky: float) -> None:
    """Also: raw scores (Breakout has rows worth 7), no end at a lost life, next-step reset."""
    preset = PRESETS["machado18"]._replace(sticky=sticky)
    actions = np.random.default_rng(0).integers(0, 18, 1000)
    _, reward, discount, step_type = run(AtariPool(Game("Breakout"), preset, np.array([77]), 1), actions)
    score, over, _ = (np.array(x) for x in zip(*emulated("breakout", preset, 77, actions), strict=True))
    np.testing.assert_array_equal(reward, score)
    np.testing.assert_array_equal(step_type == LAST, over)
    np.testing.assert_array_equal(discount == 0, over)
    assert over.sum() >= 2
    assert score.sum() > 2


def test_a_lost_life_has_discount_0_and_the_episode_goes_on() -> None:
    preset = PRESETS["dqn_legacy"]._replace(noops=1, fire=False)
    actions = np.random.default_rng(1).integers(0, 4, 600)
    _, _, discount, step_type = run(AtariPool(Game("Breakout"), preset, np.array([5]), 1), actions)
    _, over, lives = (np.array(x) for x in zip(*emulated("breakout", preset, 5, actions), strict=True))
    lost = np.diff(lives, prepend=5) < 0
    np.testing.assert_array_equal(discount == 0, lost)
    np.testing.assert_array_equal(step_type == LAST, over)
    assert (lost & (step_type == MID)).sum() >= 4


def test_the_time_limit_has_discount_1() -> None:
    preset = PRESETS["machado18"]._replace(episode_frames=40)
    _, reward, discount, step_type = run(AtariPool(Game("Pong"), preset, np.array([1]), 1), np.zeros(24, int))
    np.testing.assert_array_equal(np.flatnonzero(step_type == LAST), [9, 20])
    np.testing.assert_array_equal(np.flatnonzero(step_type == FIRST), [10, 21])
    assert (discount == 1).all()
    assert (reward[step_type == FIRST] == 0).all()


def test_stack_holds_copies_at_first_and_slides_afterwards() -> None:
    preset = PRESETS["dqn_legacy"]._replace(episode_frames=60)
    seen, *_, step_type = run(AtariPool(Game("Breakout"), preset, np.array([3]), 1), np.arange(50) % 4)
    types = np.concatenate([[FIRST], step_type])
    assert (types == FIRST).sum() == 4
    stack = np.zeros_like(seen[0])
    for observation, kind in zip(seen, types, strict=True):
        newest = observation[-1:]
        stack = np.repeat(newest, 4, 0) if kind == FIRST else np.concatenate([stack[1:], newest])
        np.testing.assert_array_equal(observation, stack)
    assert len(np.unique(seen[:, -1].reshape(len(seen), -1), axis=0)) > 40


def test_surplus_actions_do_nothing() -> None:
    preset = PRESETS["dqn_legacy"]
    assert atari(**QUICK, preset="dqn_legacy").spec.actions == 6  # Pong's; Breakout has 4
    surplus, nothing = np.array([3, 5, 5, 4] * 5), np.array([3, 0, 0, 0] * 5)
    lives = [run(AtariPool(Game("Breakout"), preset, np.array([3]), 1), actions) for actions in (surplus, nothing)]
    np.testing.assert_array_equal(lives[0][0], lives[1][0])


def test_env_of_a_pool_equals_the_env_alone() -> None:
    preset, seeds = PRESETS["cora"], np.array([11, 12, 13])
    together, actions = AtariPool(Game("Breakout"), preset, seeds, 2), np.random.default_rng(0).integers(0, 18, (40, 3))
    seen = np.stack([together.reset(), *(together.step(action)[0] for action in actions)])
    together.close()
    for env, seed in enumerate(seeds):
        alone, *_ = run(AtariPool(Game("Breakout"), preset, np.array([seed]), 1), actions[:, env])
        np.testing.assert_array_equal(alone, seen[:, env])


@pytest.mark.parametrize("task", [0, 1])
def test_resumes_in_mid_visit_bit_for_bit(task: int) -> None:
    assert_resumes_in_mid_visit(atari(**QUICK, envs=2, episode_frames=120), task)


def test_blocks_on_two_devices_equal_blocks_alone() -> None:
    stream, lanes = atari(**QUICK).make(1), PartitionSpec("lanes")
    mesh = Mesh(np.array(jax.devices("cpu")[:2]), ("lanes",))
    actions = random_actions(stream, 30, 1)

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(lanes, lanes), out_specs=lanes)
    def lives(keys: Any, block: Any) -> Any:
        state, _ = stream.reset(keys, visit_of(0, 1), block[0])
        _, steps = jax.lax.scan(lambda s, a: stream.step(keys, s, a, clock_at(0)), state, jnp.asarray(actions))
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), steps)

    both = jax.block_until_ready(lives(lane_keys(0, 1), jnp.arange(2)))
    alone = player(stream)
    for block in range(2):
        life = play(alone, lane_keys(block), visit_of(0, 1), actions)
        for leaf, kept in zip(jax.tree.leaves(life), jax.tree.leaves(both), strict=True):
            np.testing.assert_array_equal(leaf[1:, 0], np.asarray(kept[block]))
    stream.close()


def test_spec() -> None:
    spec = atari(games=["Pong", "Breakout:12:1"], frames_per_visit=4000, cycles=2, envs=3).spec
    assert (spec.observation.shape, spec.observation.dtype) == ((4, 84, 84), np.uint8)
    assert (spec.actions, spec.stack, spec.frames_per_step, spec.envs) == (18, 4, 4, 3)
    assert spec.tasks == ("Pong", "Breakout:12:1")
    assert spec.visits == ((0, 1000), (1, 1000), (0, 1000), (1, 1000))


def test_mode_changes_the_game() -> None:
    preset, actions = PRESETS["machado18"]._replace(sticky=0.0), np.ones(20, int)
    plain, other = (
        run(AtariPool(parse(game), preset, np.array([3]), 1), actions)[0] for game in ("Breakout", "Breakout:12")
    )
    assert not np.array_equal(plain, other)


def test_overrides_replace_the_presets_settings() -> None:
    assert preset_of("cora", {"sticky": 0.1, "noops": None}) == PRESETS["cora"]._replace(sticky=0.1)
    assert preset_of("machado18", {"fire": False}) == PRESETS["machado18"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"games": ["Braekout"]}, 'unknown game "Braekout"; 104 are known; did you mean `Breakout`'),
        ({"games": ["space_invaders"]}, "104 are known; did you mean `SpaceInvaders`"),
        ({"games": ["Breakout:5"]}, "games: Breakout has no mode 5; its modes: 0, 4, 8, 12, .*, 44$"),
        ({"games": ["Breakout:4:2"]}, "games: Breakout has no difficulty 2; its difficulties: 0, 1"),
        ({"games": ["Breakout:a"]}, "is not allowed; must be Name, Name:mode or Name:mode:difficulty"),
        ({"frames_per_visit": 4001}, "frames_per_visit: 4001 is not allowed; must be a multiple of 4"),
        ({"episode_frames": 41}, "episode_frames: 41 is not allowed; must be a multiple of 4"),
    ],
)
def test_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        atari(**{**QUICK, **settings})


def test_a_game_that_comes_again_is_the_same_task() -> None:
    spec = atari(games=["Pong", "Breakout", "Pong"], frames_per_visit=400).spec
    assert spec.tasks == ("Pong", "Breakout")
    assert spec.visits == ((0, 100), (1, 100), (0, 100))
