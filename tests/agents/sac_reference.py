"""A reference implementation of soft actor-critic and TD3 in NumPy and float64, with backward passes by hand."""

import math
from typing import Any, NamedTuple

import numpy as np
from q_reference import as_float64, backward, forward


class Rows(NamedTuple):
    """A batch of transitions and the standard normal numbers of its update."""

    state: np.ndarray  # [B, 3]
    action: np.ndarray  # float [B, size], or int [B]
    reward: np.ndarray
    discount: np.ndarray
    following: np.ndarray
    valid: np.ndarray
    now: np.ndarray  # [B, size]
    then: np.ndarray


class Adam:
    """One for each part of the parameters (b1 0.9, b2 0.999, eps 1e-8)."""

    def __init__(self, rate: float) -> None:
        self.rate, self.updates = rate, 0
        self.first: dict[Any, Any] = {}
        self.second: dict[Any, Any] = {}

    def step(self, params: Any, gradients: Any) -> Any:
        self.updates += 1

        def moved(path: Any, w: Any, g: Any) -> Any:
            if isinstance(g, dict):
                return {name: moved((*path, name), w[name], g[name]) for name in g}
            m = self.first[path] = 0.9 * self.first.get(path, 0.0) + 0.1 * g
            v = self.second[path] = 0.999 * self.second.get(path, 0.0) + 0.001 * g**2
            step = (m / (1 - 0.9**self.updates)) / (np.sqrt(v / (1 - 0.999**self.updates)) + 1e-8)
            return w - self.rate * step

        return moved((), params, gradients)


def input_gradient(params: Any, hidden: np.ndarray, dq: np.ndarray) -> np.ndarray:
    return ((dq @ params["output"]["kernel"].T) * (hidden > 0)) @ params["hidden_0"]["kernel"].T


class ActorCritic:
    """What all three variants share: critics' errors, Adam, target networks."""

    slow: tuple[str, ...] = ("actor", "temperature")

    def __init__(self, params: Any, rate: float, target_rate: float, policy_period: int, target_period: int) -> None:
        self.params = {part: as_float64({"": each})[""] for part, each in params.items() if part == "temperature"}
        self.params |= {part: as_float64(each) for part, each in params.items() if part != "temperature"}
        self.target = self.params
        self.adam = {part: Adam(rate) for part in params}
        self.target_rate, self.periods, self.updates = target_rate, (policy_period, target_period), 0
        self.critics = [part for part in params if part.startswith("critic")]

    def value(self, params: Any, critic: str, *inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = np.concatenate(inputs, axis=1)
        return x, *forward(params[critic], x)

    def descend(self, gradients: Any) -> None:
        self.updates += 1
        new = dict(self.params)
        for part, gradient in gradients.items():
            if part not in self.slow or self.updates % self.periods[0] == 0:
                new[part] = self.adam[part].step(self.params[part], gradient)
        self.params = new
        if self.updates % self.periods[1] == 0:
            self.target = blended(self.target, new, self.target_rate)


def blended(old: Any, new: Any, rate: float) -> Any:
    if isinstance(old, dict):
        return {name: blended(old[name], new[name], rate) for name in old}
    return old + rate * (new - old)


class Sac(ActorCritic):
    """Real-valued actions ``middle + half tanh(u)``."""

    def __init__(self, middle: np.ndarray, half: np.ndarray, target_entropy: float, *given: Any) -> None:
        super().__init__(*given)
        self.middle, self.half, self.target_entropy = middle, half, target_entropy

    def policy(self, state: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
        outputs, hidden = forward(self.params["actor"], state)
        mean, raw = np.split(outputs, 2, axis=1)
        log_std = np.clip(raw, -20.0, 2.0)
        u = mean + np.exp(log_std) * noise
        a = np.tanh(u)
        normal = -(noise**2) / 2 - log_std - math.log(2 * math.pi) / 2
        free = (raw > -20.0) & (raw < 2.0)
        return {"hidden": hidden, "log_std": log_std, "free": free, "a": a, "log_p": (normal - np.log(1 - a**2)).sum(1)}

    def update(self, rows: Rows) -> dict[str, float]:
        alpha, n = float(np.exp(self.params["temperature"]["log_alpha"])), max(rows.valid.sum(), 1)
        share = rows.valid / n
        then = self.policy(rows.following, rows.then)
        q = [self.value(self.target, c, rows.following, self.middle + self.half * then["a"])[1] for c in self.critics]
        wanted = rows.reward + rows.discount * (np.min(q, axis=0)[:, 0] - alpha * then["log_p"])
        gradients, critic_loss, taken = {}, 0.0, []
        for c in self.critics:
            x, q_c, hidden = self.value(self.params, c, rows.state, rows.action)
            error = q_c[:, 0] - wanted
            critic_loss += (share * error**2 / 2).sum()
            gradients[c] = backward(self.params[c], x, hidden, (share * error)[:, None])
            taken.append(q_c[:, 0])
        now = self.policy(rows.state, rows.now)
        given = [self.value(self.params, c, rows.state, self.middle + self.half * now["a"]) for c in self.critics]
        least = np.argmin([q_c[:, 0] for _, q_c, _ in given], axis=0)
        slope = np.zeros_like(now["a"])  # of the smallest critic with respect to the action
        for i, (c, (_, _, hidden)) in enumerate(zip(self.critics, given, strict=True)):
            whole = input_gradient(self.params[c], hidden, np.ones((len(slope), 1)))[:, rows.state.shape[1] :]
            slope += np.where((least == i)[:, None], whole, 0.0)
        du = alpha * 2 * now["a"] - slope * self.half * (1 - now["a"] ** 2)
        spread = du * np.exp(now["log_std"]) * rows.now - alpha
        outputs = np.concatenate([du, np.where(now["free"], spread, 0.0)], axis=1)
        gradients["actor"] = backward(self.params["actor"], rows.state, now["hidden"], share[:, None] * outputs)
        surplus = (share * (-now["log_p"] - self.target_entropy)).sum()
        gradients["temperature"] = {"log_alpha": alpha * surplus}
        smallest = np.min([q_c[:, 0] for _, q_c, _ in given], axis=0)
        self.descend(gradients)
        return {
            "critic_loss": critic_loss,
            "actor_loss": (share * (alpha * now["log_p"] - smallest)).sum(),
            "q_mean": (share * np.min(taken, axis=0)).sum(),
            "entropy": -(share * now["log_p"]).sum(),
            "temperature": alpha,
        }


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


class DiscreteSac(ActorCritic):
    """Critics with an output for each action."""

    def __init__(self, target_entropy: float, *given: Any) -> None:
        super().__init__(*given)
        self.target_entropy = target_entropy

    def update(self, rows: Rows) -> dict[str, float]:
        alpha, n = float(np.exp(self.params["temperature"]["log_alpha"])), max(rows.valid.sum(), 1)
        share, places = rows.valid / n, np.arange(len(rows.valid))
        p = softmax(forward(self.params["actor"], rows.following)[0])
        q = np.min([self.value(self.target, c, rows.following)[1] for c in self.critics], axis=0)
        wanted = rows.reward + rows.discount * (p * (q - alpha * np.log(p))).sum(1)
        gradients, critic_loss, all_q = {}, 0.0, []
        for c in self.critics:
            x, q_c, hidden = self.value(self.params, c, rows.state)
            error = q_c[places, rows.action] - wanted
            critic_loss += (share * error**2 / 2).sum()
            slope = np.zeros_like(q_c)
            slope[places, rows.action] = share * error
            gradients[c] = backward(self.params[c], x, hidden, slope)
            all_q.append(q_c)
        logits, hidden = forward(self.params["actor"], rows.state)
        p = softmax(logits)
        cost = alpha * np.log(p) - np.min(all_q, axis=0)  # the derivative of the first term's log adds a constant
        slope = p * (cost - (p * cost).sum(1, keepdims=True))
        gradients["actor"] = backward(self.params["actor"], rows.state, hidden, share[:, None] * slope)
        entropy = -(p * np.log(p)).sum(1)
        gradients["temperature"] = {"log_alpha": alpha * (share * (entropy - self.target_entropy)).sum()}
        taken = np.min([q_c[places, rows.action] for q_c in all_q], axis=0)
        self.descend(gradients)
        return {
            "critic_loss": critic_loss,
            "actor_loss": (share * (p * cost).sum(1)).sum(),
            "q_mean": (share * taken).sum(),
            "entropy": (share * entropy).sum(),
            "temperature": alpha,
        }


class Td3(ActorCritic):
    """A deterministic actor; ``rows.then`` is the noise of the target's action."""

    slow = ("actor",)

    def __init__(self, middle: np.ndarray, half: np.ndarray, noise: float, limit: float, *given: Any) -> None:
        super().__init__(*given)
        self.middle, self.half, self.noise, self.limit = middle, half, noise, limit

    def update(self, rows: Rows) -> dict[str, float]:
        share = rows.valid / max(rows.valid.sum(), 1)
        action = np.tanh(forward(self.target["actor"], rows.following)[0])
        action = np.clip(action + np.clip(self.noise * rows.then, -self.limit, self.limit), -1, 1)
        q = [self.value(self.target, c, rows.following, self.middle + self.half * action)[1] for c in self.critics]
        wanted = rows.reward + rows.discount * np.min(q, axis=0)[:, 0]
        gradients, critic_loss, taken = {}, 0.0, []
        for c in self.critics:
            x, q_c, hidden = self.value(self.params, c, rows.state, rows.action)
            error = q_c[:, 0] - wanted
            critic_loss += (share * error**2 / 2).sum()
            gradients[c] = backward(self.params[c], x, hidden, (share * error)[:, None])
            taken.append(q_c[:, 0])
        outputs, own = forward(self.params["actor"], rows.state)
        action = np.tanh(outputs)
        _, q_1, hidden = self.value(self.params, "critic_1", rows.state, self.middle + self.half * action)
        slope = input_gradient(self.params["critic_1"], hidden, -np.ones_like(q_1))[:, rows.state.shape[1] :]
        slope = slope * self.half * (1 - action**2)
        gradients["actor"] = backward(self.params["actor"], rows.state, own, share[:, None] * slope)
        self.descend(gradients)
        return {
            "critic_loss": critic_loss,
            "actor_loss": -(share * q_1[:, 0]).sum(),
            "q_mean": (share * np.min(taken, axis=0)).sum(),
        }
