"""A reference implementation of Action Value Gradient in NumPy and float64, with backward passes by hand."""

import math
from typing import Any

import numpy as np
from stream_reference import FIRST, LAST, SLOPE, Life, Scaled, as_float64, each


def forward(params: Any, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """A leaky hidden layer, divided by its Euclidean norm, and the output layer, for one observation."""
    z = x @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"]
    h = np.where(z > 0, z, SLOPE * z)
    length = np.sqrt((h**2).sum())
    y = h / length if length > 0 else h  # all 0 at the first observation, whose normalised value is 0
    return y @ params["output"]["kernel"] + params["output"]["bias"], (x, z, length, y)


def backward(params: Any, seen: Any, slope: np.ndarray) -> tuple[Any, np.ndarray]:
    """The gradients of ``slope . outputs`` with respect to the parameters and to the input."""
    x, z, length, y = seen
    dy = params["output"]["kernel"] @ slope
    dz = (dy - y * (dy @ y)) / length * np.where(z > 0, 1.0, SLOPE) if length > 0 else np.zeros_like(z)
    last = {"kernel": np.outer(y, slope), "bias": slope}
    return {"hidden_0": {"kernel": np.outer(x, dz), "bias": dz}, "output": last}, params["hidden_0"]["kernel"] @ dz


class Adam:
    """Without momentum: b1 0, b2 0.999, eps 1e-8."""

    def __init__(self, rate: float) -> None:
        self.rate, self.updates, self.second = rate, 0, None

    def step(self, params: Any, gradients: Any) -> Any:
        self.updates += 1
        whole = 1 - 0.999**self.updates
        second = self.second or each(np.zeros_like, params)
        self.second = each(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradients)
        return each(lambda w, g, v: w - self.rate * g / (np.sqrt(v / whole) + 1e-8), params, gradients, self.second)


class Avg:
    """The agent, given the standard normal numbers of every step."""

    def __init__(
        self, params: Any, life: Life, discount: float, temperature: float, bounds: tuple[np.ndarray, np.ndarray]
    ) -> None:
        self.params, self.life, self.discount, self.temperature = as_float64(params), life, discount, temperature
        self.middle, self.half = (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2
        self.rules = {"actor": Adam(0.01), "critic_1": Adam(0.02)}
        self.normaliser, self.metrics = Scaled(), dict[str, float]()
        self.normaliser.include(life.observation[0])
        self.total, self.rewards, self.discounts, self.returns = 0.0, list[float](), list[float](), list[float]()

    def policy(self, outputs: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, float]:
        """The action in (-1, 1) and the logarithm of its density."""
        mean, log_std = np.split(outputs, 2)
        assert (np.abs(log_std) < 2).all()  # not clipped
        a = np.tanh(mean + np.exp(log_std) * noise)
        return a, (-(noise**2) / 2 - log_std - math.log(2 * math.pi) / 2 - np.log(1 - a**2)).sum()

    @property
    def sigma(self) -> float:
        variance = np.var(self.rewards)
        if self.returns:
            variance += np.var(self.discounts) * np.mean(np.square(self.returns))
        variance = max(variance, 1e-4)
        return 1.0 if variance <= 0.01 and not self.returns else float(np.sqrt(variance))

    def enter(self, reward: float, done: bool) -> None:
        """Include a reward, with its entropy, in the scale of errors."""
        self.total += reward
        self.rewards.append(reward)
        self.discounts.append(0.0 if done else self.discount)
        if done:
            self.returns.append(self.total)
            self.total = 0.0

    def learn(self, t: int, now: np.ndarray, then: np.ndarray) -> bool:
        """One transition; False if the pair is none."""
        before = self.normaliser(self.life.observation[t])
        self.normaliser.include(self.life.observation[t + 1])
        after = self.normaliser(self.life.observation[t + 1])
        if self.life.step_type[t + 1] == FIRST:
            return False
        actor, critic, temperature = self.params["actor"], self.params["critic_1"], self.temperature
        taken = (self.life.action[t] - self.middle) / self.half
        reward, discount = float(self.life.reward[t + 1]), self.discount * float(self.life.discount[t + 1])
        outputs, seen = forward(actor, before)
        b, log_p = self.policy(outputs, now)
        self.enter(reward - temperature * log_p, self.life.discount[t + 1] == 0)

        following, log_p_then = self.policy(forward(actor, after)[0], then)
        q_then = forward(critic, np.concatenate([after, following]))[0][0]
        q, glimpse = forward(critic, np.concatenate([before, taken]))
        error = reward + discount * (q_then - temperature * log_p_then) - q[0]
        critic_gradient, _ = backward(critic, glimpse, np.array([-2 * error / self.sigma**2]))

        q_b, judged = forward(critic, np.concatenate([before, b]))
        dq = backward(critic, judged, np.ones(1))[1][len(before) :]
        std = np.exp(outputs[len(b) :])
        du = 2 * temperature * b - dq * (1 - b**2)  # of temperature log p - q, through the action
        actor_gradient, _ = backward(actor, seen, np.concatenate([du, du * std * now - temperature]))
        gradients = {"actor": actor_gradient, "critic_1": critic_gradient}
        self.params = {name: rule.step(self.params[name], gradients[name]) for name, rule in self.rules.items()}
        self.metrics = {
            "critic_loss": (error / self.sigma) ** 2,
            "actor_loss": temperature * log_p - q_b[0],
            "td_error": abs(error),
            "error_scale": self.sigma,
            "q_mean": q[0],
            "entropy": -log_p,
        }
        return True


def cut(life: Life) -> int:
    """How many episodes of the life were truncated."""
    return int(((life.step_type == LAST) & (life.discount == 1)).sum())
