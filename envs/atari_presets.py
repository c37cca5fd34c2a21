"""Atari evaluation protocols from the literature, for every backend."""

from collections.abc import Mapping
from typing import NamedTuple

FRAME_SKIP, STACK, SIDE = 4, 4, 84


class Preset(NamedTuple):
    """The protocol of a game. ``atari`` has a parameter of the same name for each field."""

    sticky: float  # probability that the emulator repeats the last action instead, at each frame
    full_actions: bool  # all 18 actions, otherwise those that a game uses
    life_loss: bool  # a lost life has discount 0; the episode continues
    episode_frames: int  # an episode is truncated here, with discount 1
    noops: int  # an episode starts with 1 ... noops frames without action, one fewer before a FIRE
    fire: bool  # followed by FIRE, if it is among the game's actions


PRESETS: Mapping[str, Preset] = {
    "machado18": Preset(0.25, True, False, 108_000, 1, False),
    "dqn_legacy": Preset(0.0, False, True, 108_000, 30, True),
    "cora": Preset(0.0, True, True, 40_000, 30, True),
}
