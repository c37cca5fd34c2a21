"""A reference implementation of PPO in NumPy and float64, with linear networks and gradients by hand."""

from typing import Any, NamedTuple

import numpy as np

FIRST, MID, LAST = 0, 1, 2


class Settings(NamedTuple):
    discount: float = 0.9
    trace: float = 0.8
    clip: float = 0.1
    value_clip: float | None = None
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    normalise: str = "minibatch"
    learning_rate: float = 0.5


def advantages(
    reward: np.ndarray,
    discount: np.ndarray,
    step_type: np.ndarray,
    value: np.ndarray,
    following: np.ndarray,
    gamma: float,
    trace: float,
) -> np.ndarray:
    """``sum_k (gamma trace)^k delta_{t+k}`` up to the episode's end, forwards from every step; ``[T, E]`` each."""
    steps, envs = reward.shape
    found = np.zeros((steps, envs))
    for t, env in np.ndindex(steps, envs):
        weight, k = 1.0, t
        while k < steps and step_type[k, env] != FIRST:
            bootstrap = gamma * discount[k, env] * following[k, env]
            found[t, env] += weight * (reward[k, env] + bootstrap - value[k, env])
            if step_type[k, env] == LAST:
                break
            weight *= gamma * trace * discount[k, env]
            k += 1
    return found


class Terms(NamedTuple):
    """The parts of the loss, and their derivatives in the networks' outputs, for each row of a minibatch."""

    ratio: np.ndarray  # [B]
    policy: np.ndarray  # [B]
    value: np.ndarray  # [B]
    entropy: np.ndarray  # [B]
    d_policy: np.ndarray  # [B, outputs], of policy loss - entropy_coefficient entropy
    d_value: np.ndarray  # [B]
    d_log_std: np.ndarray  # [B, outputs]


def surrogate(ratio: np.ndarray, advantage: np.ndarray, clip: float) -> tuple[np.ndarray, np.ndarray]:
    """Policy loss and its derivative in the ratio."""
    gains = ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage
    return -np.minimum(*gains), np.where(gains[0] <= gains[1] + 1e-12, -advantage, 0.0)


def value_error(value: np.ndarray, old: np.ndarray, target: np.ndarray, clip: float | None) -> Any:
    """Value loss and its derivative in the value."""
    free = (value - target) ** 2 / 2
    if clip is None:
        return free, value - target
    held = (np.clip(value, old - clip, old + clip) - target) ** 2 / 2
    return np.maximum(free, held), np.where(held > free + 1e-12, 0.0, value - target)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def normal_log_density(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return np.log(np.exp(-((x - mean) ** 2) / (2 * std**2)) / np.sqrt(2 * np.pi * std**2)).sum(-1)


class Linear:
    """A linear policy and a linear value, with the agent's ``params``."""

    def __init__(self, params: Any, settings: Settings) -> None:
        self.settings = settings
        self.policy, self.value = (
            {name: np.asarray(x, np.float64) for name, x in params[part]["output"].items()}
            for part in ("policy", "value")
        )
        self.log_std = np.asarray(params["scale"]["log_std"], np.float64) if "scale" in params else None

    def outputs(self, x: np.ndarray) -> np.ndarray:
        made: np.ndarray = x @ self.policy["kernel"] + self.policy["bias"]
        return made

    def values(self, x: np.ndarray) -> np.ndarray:
        made: np.ndarray = (x @ self.value["kernel"] + self.value["bias"])[..., 0]
        return made

    def log_probability(self, x: np.ndarray, action: np.ndarray) -> np.ndarray:
        outputs = self.outputs(x)
        if self.log_std is None:
            return np.take_along_axis(log_softmax(outputs), action[..., None], -1)[..., 0]
        return normal_log_density(action, outputs, np.exp(self.log_std))

    def slopes(self, x: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, ...]:
        """Derivatives of the log-probability and the entropy in the outputs and in log_std, and the entropy."""
        outputs, zero = self.outputs(x), np.zeros_like(self.outputs(x))
        if self.log_std is None:
            log_p = log_softmax(outputs)
            entropy = -(np.exp(log_p) * log_p).sum(-1)
            rows = np.eye(outputs.shape[-1])[action] - np.exp(log_p)
            return rows, zero, entropy, -np.exp(log_p) * (log_p + entropy[:, None]), zero
        distance = (action - outputs) / np.exp(self.log_std)
        entropy = np.full(len(x), (self.log_std + 0.5 * np.log(2 * np.pi * np.e)).sum())
        return distance / np.exp(self.log_std), distance**2 - 1, entropy, zero, zero + 1

    def terms(self, rows: dict[str, np.ndarray], advantage: np.ndarray) -> Terms:
        settings = self.settings
        ratio = np.exp(self.log_probability(rows["x"], rows["action"]) - rows["log_probability"])
        policy, d_ratio = surrogate(ratio, advantage, settings.clip)
        value, d_value = value_error(self.values(rows["x"]), rows["value"], rows["target"], settings.value_clip)
        in_outputs, in_scale, entropy, h_outputs, h_scale = self.slopes(rows["x"], rows["action"])
        push = (d_ratio * ratio)[:, None]
        d_policy, d_scale = (
            push * slope - settings.entropy_coefficient * h
            for slope, h in ((in_outputs, h_outputs), (in_scale, h_scale))
        )
        return Terms(ratio, policy, value, entropy, d_policy, settings.value_coefficient * d_value, d_scale)

    def update(self, rows: dict[str, np.ndarray]) -> dict[str, float]:
        """One step of gradient descent on the valid rows; returns its metrics."""
        rows = {name: values[rows["valid"]] for name, values in rows.items()}
        settings, count, advantage = self.settings, len(rows["x"]), rows["advantage"]
        if settings.normalise == "minibatch":
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        terms, x, rate = self.terms(rows, advantage), rows["x"], settings.learning_rate / count
        self.policy["kernel"] = self.policy["kernel"] - rate * x.T @ terms.d_policy
        self.policy["bias"] = self.policy["bias"] - rate * terms.d_policy.sum(0)
        self.value["kernel"] = self.value["kernel"] - rate * x.T @ terms.d_value[:, None]
        self.value["bias"] = self.value["bias"] - rate * terms.d_value.sum()
        if self.log_std is not None:
            self.log_std = self.log_std - rate * terms.d_log_std.sum(0)
        return recorded(terms, settings)

    def samples(self, life: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
        """Steps ``start .. stop - 1`` of a life as rows ``[N, ...]``; ``life``: time steps, and the actions between."""
        settings, now, after = self.settings, slice(start, stop), slice(start + 1, stop + 1)
        x, value = life["observation"][now], self.values(life["observation"][now])
        found = advantages(
            *(life[name][after] for name in ("reward", "discount", "step_type")),
            value,
            self.values(life["observation"][after]),
            settings.discount,
            settings.trace,
        )
        valid = life["step_type"][after] != FIRST
        target = found + value
        if settings.normalise == "batch":
            found = (found - found[valid].mean()) / (found[valid].std() + 1e-8)
        log_probability = self.log_probability(x, life["action"][now])
        names = ("x", "action", "valid", "value", "target", "advantage", "log_probability")
        arrays = (x, life["action"][now], valid, value, target, found, log_probability)
        return {name: each.reshape(-1, *each.shape[2:]) for name, each in zip(names, arrays, strict=True)}


def recorded(terms: Terms, settings: Settings) -> dict[str, float]:
    ratio, clip = terms.ratio, settings.clip
    above, below = ratio[ratio > 1 + clip], ratio[ratio < 1 - clip]
    means = [float(those.mean()) if those.size else 1.0 for those in (above, below)]
    losses = {name: float(getattr(terms, name).mean()) for name in ("policy", "value", "entropy")}
    total = losses["policy"] + settings.value_coefficient * losses["value"]
    return {
        "loss": total - settings.entropy_coefficient * losses["entropy"],
        "policy_loss": losses["policy"],
        "value_loss": losses["value"],
        "entropy": losses["entropy"],
        "approx_kl": float((ratio - 1 - np.log(ratio)).mean()),
        "clip_fraction": float((np.abs(ratio - 1) > clip).mean()),
        "ratio_above": means[0],
        "ratio_below": means[1],
        "updates": 1.0,
    }
