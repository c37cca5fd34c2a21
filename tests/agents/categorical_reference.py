"""A reference implementation of categorical Q-learning in NumPy and float64."""

from typing import Any

import numpy as np
from q_reference import Learning, unrolled

SUPPORT = np.linspace(-2.0, 3.0, 5)


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def projected(values: np.ndarray, weights: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Each value's weight, shared between its two neighbours on the support in proportion to their nearness."""
    found, gap = np.zeros(len(support)), support[1] - support[0]
    for value, weight in zip(np.clip(values, support[0], support[-1]), weights, strict=True):
        for i, atom in enumerate(support):
            found[i] += weight * max(0.0, 1.0 - abs(value - atom) / gap)
    return found


class Categorical(Learning):
    """The reference for a linear network: one kernel and bias to the logits of 4 actions x 5 atoms."""

    q_mean = 0.0  # of the last update: the mean of the largest values

    def logits(self, params: Any, x: np.ndarray) -> np.ndarray:
        return (x @ params["output"]["kernel"] + params["output"]["bias"]).reshape(-1, 4, 5)

    def weights(self, places: Any) -> np.ndarray:
        return np.ones(len(places))

    def learned(self, places: Any, losses: Any) -> None:
        """A hook for what subclasses do with the losses."""

    def update(self, batch: np.ndarray) -> float:
        life, settings = self.life, self.settings
        places = [self.find(observation) for observation in batch]
        slope, losses, q_max = np.zeros((len(batch), 4, 5)), {}, []
        weights = self.weights(places)
        for i, (t, env) in enumerate(places):
            total, weight, end = unrolled(life, t, env, settings)
            self.seen["empty"] += end == t
            if end == t:
                continue
            self.seen["cut"] += end < t + settings.n_step
            self.seen["terminal"] += weight == 0.0
            self.seen["clipped"] += abs(life.reward[t + 1, env]) > settings.reward_clip
            following = softmax(self.logits(self.target, life.observation[end, env])[0])
            best = (following @ SUPPORT).argmax()
            if settings.double:
                other = (softmax(self.logits(self.params, life.observation[end, env])[0]) @ SUPPORT).argmax()
                self.seen["other choice"] += other != best
                best = other
            wanted = projected(total + weight * SUPPORT, following[best], SUPPORT)
            now, action = softmax(self.logits(self.params, batch[i])[0]), life.action[t, env]
            losses[i] = -(wanted * np.log(now[action])).sum()
            q_max.append((now @ SUPPORT).max())
            slope[i, action] = weights[i] * (now[action] - wanted)
        self.q_mean = float(np.mean(q_max))
        slope = slope.reshape(len(batch), -1) / max(len(losses), 1)
        self.descend({"output": {"kernel": batch.T.astype(np.float64) @ slope, "bias": slope.sum(0)}})
        self.learned([places[i] for i in losses], list(losses.values()))
        return float(np.mean([weights[i] * loss for i, loss in losses.items()]))
