"""Transforms of streams. ``TRANSFORMS`` maps names to factories: settings -> (Source -> Source)."""

from collections.abc import Callable, Mapping

from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.observations import (
    frame_stack,
    observation_dropout,
    observation_noise,
    observation_offset,
)
from plasticity.envs.transforms.permutations import permute_actions, permute_observations
from plasticity.envs.transforms.rewards import clip_reward, delay_reward, flip_reward, scale_reward
from plasticity.envs.transforms.sticky import sticky_actions
from plasticity.envs.transforms.time import time_in_episode

TRANSFORMS: Mapping[str, Callable[..., Callable[[StreamFactory], StreamFactory]]] = {
    "permute_observations": permute_observations,
    "permute_actions": permute_actions,
    "scale_reward": scale_reward,
    "clip_reward": clip_reward,
    "flip_reward": flip_reward,
    "delay_reward": delay_reward,
    "observation_noise": observation_noise,
    "observation_offset": observation_offset,
    "observation_dropout": observation_dropout,
    "sticky_actions": sticky_actions,
    "frame_stack": frame_stack,
    "time_in_episode": time_in_episode,
}
