"""Atari with ale-py's vector environment, for machines without envpool."""

from typing import Any

import numpy as np

from plasticity.core.types import FIRST, LAST, MID
from plasticity.envs.atari_games import Game, cartridges
from plasticity.envs.atari_presets import FRAME_SKIP, SIDE, STACK, Preset
from plasticity.envs.host import Stepped


def make_ale(game: Game, preset: Preset, count: int, threads: int) -> Any:
    """``count`` emulators of one game, a single frame each; every option with an ale-py default is set explicitly."""
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        cartridges()[game.name],
        num_envs=count,
        num_threads=threads,
        max_num_frames_per_episode=preset.episode_frames,
        repeat_action_probability=preset.sticky,
        full_action_space=preset.full_actions,
        continuous=False,
        autoreset_mode="NextStep",
        img_height=SIDE,
        img_width=SIDE,
        grayscale=True,
        stack_num=1,
        frameskip=FRAME_SKIP,
        maxpool=True,
        noop_max=preset.noops,
        episodic_life=False,
        life_loss_info=False,
        reward_clipping=False,
        use_fire_reset=preset.fire,
    )


def ale_actions(game: Game, preset: Preset) -> int:
    """Number of the game's actions; ``ValueError`` if it names a mode, which the vector environment cannot set."""
    if game.mode >= 0 or game.difficulty >= 0:
        asked = ":".join(str(part) for part in game if part != -1)
        reason = "which has no modes and difficulties; use `backend: envpool`"
        raise ValueError(f"games: {asked} is not allowed with `backend: ale`, {reason}")
    return 18 if preset.full_actions else int(make_ale(game, preset, 1, 1).single_action_space.n)


class AlePool:
    """The :class:`plasticity.envs.host.Pool` of one game.

    Frames are stacked here because ale-py's own stack starts with black frames.
    """

    def __init__(self, game: Game, preset: Preset, seeds: np.ndarray, threads: int) -> None:
        self.envs = make_ale(game, preset, len(seeds), min(threads, len(seeds)))
        self.seeds = np.asarray(seeds, np.int32)
        self.actions = int(self.envs.single_action_space.n)
        self.life_loss = preset.life_loss
        self.lives = np.zeros(len(seeds), np.int32)
        self.ended = np.zeros(len(seeds), bool)
        self.stack = np.zeros((len(seeds), STACK, SIDE, SIDE), np.uint8)

    def seen(self, newest: np.ndarray, opens: np.ndarray) -> np.ndarray:
        """Append the newest frame ``[M, 1, 84, 84]`` to the stack; at an episode's start the stack holds only it."""
        slid = np.concatenate([self.stack[:, 1:], newest], axis=1)
        self.stack = np.where(opens[:, None, None, None], newest, slid) if opens.any() else slid
        return self.stack

    def reset(self) -> np.ndarray:
        newest, info = self.envs.reset(seed=self.seeds)
        self.lives = np.array(info["lives"])
        self.ended = np.zeros(len(self.seeds), bool)
        return self.seen(newest, np.ones(len(self.seeds), bool))

    def step(self, actions: np.ndarray) -> Stepped:
        known = np.where(actions < self.actions, actions, 0).astype(np.int32)  # 0 is NOOP
        newest, reward, terminated, truncated, info = self.envs.step(known)
        opens, self.ended = self.ended, terminated | truncated
        dead = np.array(terminated)
        if self.life_loss:
            dead |= (info["lives"] < self.lives) & ~opens
        self.lives = np.array(info["lives"])
        step_type = np.where(opens, FIRST, np.where(self.ended, LAST, MID)).astype(np.int8)
        return self.seen(newest, opens), reward.astype(np.float32), (~dead).astype(np.float32), step_type

    def close(self) -> None:
        del self.envs  # the emulators' threads end with it
