"""A gymnasium environment: a corridor with an exit at one end."""

from typing import Any

import gymnasium
import numpy as np


class Corridor(gymnasium.Env[np.ndarray, int]):
    """Walk left (0) or right (1) from the middle; the exit pays 1. ``exit`` is "left" or "right"."""

    def __init__(self, length: int = 5, exit: str = "right") -> None:
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (length,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._length, self._exit, self._place = length, length - 1 if exit == "right" else 0, 0

    def _seen(self) -> np.ndarray:
        return np.eye(self._length, dtype=np.float32)[self._place]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._place = self._length // 2
        return self._seen(), {}

    def step(self, action: int) -> Any:
        self._place = int(np.clip(self._place + (1 if action == 1 else -1), 0, self._length - 1))
        out = self._place == self._exit
        return self._seen(), float(out), out, False, {}


gymnasium.register("Corridor-v0", entry_point="corridor:Corridor", max_episode_steps=20)
