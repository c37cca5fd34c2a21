"""A reference implementation of deep Q-learning in NumPy and float64: targets, errors, backward pass, Adam."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

FIRST, MID, LAST = 0, 1, 2
# f: opens an episode; m: inside; t: terminal; u: cut off; l: inside, a life is lost (discount 0)
EPISODES = ("fmmmtfmlmmufmmmmtfufmmlmmmmmtfm", "fmufmmmmmmmtfmtfmmmlmmufmmmmmmm")


class Script(NamedTuple):
    """31 time steps of two envs, ``[31, 2, ...]``, and the 30 actions between them; no two observations are equal."""

    step_type: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    observation: np.ndarray
    action: np.ndarray


def script(seed: int = 0) -> Script:
    rng = np.random.default_rng(seed)
    letters = np.array([list(episode) for episode in EPISODES]).T
    kind = np.select([letters == "f", np.isin(letters, ["t", "u"])], [FIRST, LAST], MID)
    reward = np.where(kind == FIRST, 0.0, rng.normal(scale=2.0, size=kind.shape))
    discount = np.where(np.isin(letters, ["t", "l"]), 0.0, 1.0)
    observation = rng.normal(size=(*kind.shape, 3))
    floats = (x.astype(np.float32) for x in (reward, discount, observation))
    return Script(kind.astype(np.int8), *floats, rng.integers(0, 4, (len(kind) - 1, 2)).astype(np.int32))


class Settings(NamedTuple):
    discount: float
    huber: float
    reward_clip: float
    n_step: int
    double: bool
    learning_rate: float
    target_period: int


def unrolled(life: Script, t: int, env: int, settings: Settings) -> tuple[float, float, int]:
    """Return, bootstrap discount and last time step of the transition that starts at ``t``; it may be empty."""
    total, weight, now = 0.0, 1.0, t
    while now < t + settings.n_step and life.step_type[now + 1, env] != FIRST:
        now += 1
        total += weight * np.clip(life.reward[now, env], -settings.reward_clip, settings.reward_clip)
        weight *= settings.discount * life.discount[now, env]
    return total, weight, now


def as_float64(params: Any) -> Any:
    return {module: {name: np.asarray(x, np.float64) for name, x in part.items()} for module, part in params.items()}


def forward(params: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hidden = np.maximum(x @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"], 0.0)
    return hidden @ params["output"]["kernel"] + params["output"]["bias"], hidden


def backward(params: Any, x: np.ndarray, hidden: np.ndarray, dq: np.ndarray) -> Any:
    dz = (dq @ params["output"]["kernel"].T) * (hidden > 0)
    return {
        "hidden_0": {"kernel": x.T @ dz, "bias": dz.sum(0)},
        "output": {"kernel": hidden.T @ dq, "bias": dq.sum(0)},
    }


class Learning:
    """One learner: parameters, their copy, Adam's moments; ``seen`` counts the cases that the test must meet."""

    def __init__(self, life: Script, params: Any, settings: Settings) -> None:
        self.life, self.settings, self.updates = life, settings, 0
        self.params = as_float64(params)
        self.target = self.params
        self.first = {m: dict.fromkeys(part, 0.0) for m, part in self.params.items()}
        self.second = {m: dict.fromkeys(part, 0.0) for m, part in self.params.items()}
        self.seen = {"empty": 0, "cut": 0, "terminal": 0, "clipped": 0, "far": 0, "near": 0, "other choice": 0}

    def find(self, observation: np.ndarray) -> tuple[int, int]:
        ((t, env),) = np.argwhere((self.life.observation == observation).all(-1))
        return int(t), int(env)

    def update(self, batch: np.ndarray) -> float:
        """One update on the transitions that start at these observations ``[B, 3]``; the loss before it."""
        life, settings = self.life, self.settings
        places = [self.find(observation) for observation in batch]
        ends = [unrolled(life, t, env, settings) for t, env in places]
        valid = np.array([end > t for (t, _), (_, _, end) in zip(places, ends, strict=True)])
        rows, action = np.arange(len(batch)), np.array([life.action[place] for place in places])
        following = np.array([life.observation[end, env] for (_, env), (_, _, end) in zip(places, ends, strict=True)])
        q, hidden = forward(self.params, batch.astype(np.float64))
        chosen = forward(self.params if settings.double else self.target, following)[0].argmax(1)
        value = forward(self.target, following)[0]
        targets = np.array([e[0] for e in ends]) + np.array([e[1] for e in ends]) * value[rows, chosen]
        error = targets - q[rows, action]
        bound = settings.huber if settings.huber > 0 else np.inf
        size = np.abs(error)
        losses = np.where(size <= bound, error**2 / 2, settings.huber * (size - settings.huber / 2))
        slope = np.zeros_like(q)
        slope[rows, action] = np.where(valid, -np.clip(error, -bound, bound), 0.0) / max(valid.sum(), 1)
        self.count(places, ends, valid, size, chosen != value.argmax(1))
        self.descend(backward(self.params, batch.astype(np.float64), hidden, slope))
        return float(losses[valid].sum() / max(valid.sum(), 1))

    def descend(self, gradients: Mapping[str, Any]) -> None:
        """Adam (b1 0.9, b2 0.999, eps 1e-8), then the copy into the target network."""
        self.updates += 1
        new: dict[str, Any] = {}
        for module, part in gradients.items():
            new[module] = {}
            for name, g in part.items():
                m = self.first[module][name] = 0.9 * self.first[module][name] + 0.1 * g
                v = self.second[module][name] = 0.999 * self.second[module][name] + 0.001 * g**2
                step = (m / (1 - 0.9**self.updates)) / (np.sqrt(v / (1 - 0.999**self.updates)) + 1e-8)
                new[module][name] = self.params[module][name] - self.settings.learning_rate * step
        self.params = new
        if self.updates % self.settings.target_period == 0:
            self.target = new

    def count(self, places: Any, ends: Any, valid: np.ndarray, size: np.ndarray, other: np.ndarray) -> None:
        for i, ((t, env), (_, weight, end)) in enumerate(zip(places, ends, strict=True)):
            self.seen["empty"] += not valid[i]
            self.seen["cut"] += valid[i] and end < t + self.settings.n_step
            self.seen["terminal"] += valid[i] and weight == 0.0
            self.seen["clipped"] += valid[i] and abs(self.life.reward[t + 1, env]) > self.settings.reward_clip
            self.seen["far"] += valid[i] and size[i] > 1.0
            self.seen["near"] += valid[i] and size[i] < 1.0
            self.seen["other choice"] += valid[i] and other[i]
