"""A reference implementation of streaming learning in NumPy and float64: statistics, traces, bounded steps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

FIRST, MID, LAST = 0, 1, 2
SLOPE, NORM_EPSILON = 0.01, 1e-5
Tree = Mapping[str, Mapping[str, np.ndarray]]


class Life(NamedTuple):
    """Time steps of one env, ``[T, ...]``, and the T - 1 actions between them."""

    step_type: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    observation: np.ndarray
    action: np.ndarray


# f: opens an episode; m: inside; t: terminal; u: cut off; l: inside, a life is lost (discount 0)
EPISODES = "fmmmtfmlmmufmmmmtfufmmlmmmmmtfmmmmmufmmmmtfmtfmmlmmm"


def life(seed: int = 0, actions: int = 3, size: int = 4) -> Life:
    rng = np.random.default_rng(seed)
    letters = np.array(list(EPISODES))
    kind = np.select([letters == "f", np.isin(letters, ["t", "u"])], [FIRST, LAST], MID)
    reward = np.where(kind == FIRST, 0.0, rng.normal(scale=2.0, size=len(kind)))
    discount = np.where(np.isin(letters, ["t", "l"]), 0.0, 1.0)
    observation = rng.normal(size=(len(kind), size)) * [1.0, 5.0, 0.1, 2.0][:size] + 1.0
    floats = (x.astype(np.float32) for x in (reward, discount, observation))
    return Life(kind.astype(np.int8), *floats, rng.integers(0, actions, len(kind) - 1).astype(np.int32))


def as_float64(params: Any) -> Any:
    return {k: as_float64(v) if isinstance(v, Mapping) else np.asarray(v, np.float64) for k, v in params.items()}


def each(function: Any, *trees: Any) -> Any:
    """The function on every array of nested mappings."""
    if not isinstance(trees[0], Mapping):
        return function(*trees)
    return {key: each(function, *(tree[key] for tree in trees)) for key in trees[0]}


def arrays(tree: Any) -> list[np.ndarray]:
    return [x for part in tree.values() for x in arrays(part)] if isinstance(tree, Mapping) else [tree]


def forward(params: Tree, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """One observation through a hidden layer (dense, normalised over all its units, leaky) and the output layer.

    Without a hidden layer the outputs are linear.
    """
    if "hidden_0" not in params:
        return x @ params["output"]["kernel"] + params["output"]["bias"], (x,)
    z = x @ params["hidden_0"]["kernel"] + params["hidden_0"]["bias"]
    centred = z - z.mean()
    length = np.sqrt((centred**2).mean() + NORM_EPSILON)
    y = centred / length
    hidden = np.where(y > 0, y, SLOPE * y)
    return hidden @ params["output"]["kernel"] + params["output"]["bias"], (x, length, y, hidden)


def backward(params: Tree, seen: Any, slope: np.ndarray) -> Any:
    """The gradient of ``slope . outputs``."""
    last = {"kernel": np.outer(seen[-1], slope), "bias": slope}
    if "hidden_0" not in params:
        return {"output": last}
    x, length, y, _ = seen
    dy = (params["output"]["kernel"] @ slope) * np.where(y > 0, 1.0, SLOPE)  # at 0 the small slope, as in PyTorch
    dz = (dy - dy.mean() - y * (dy * y).mean()) / length
    return {"hidden_0": {"kernel": np.outer(x, dz), "bias": dz}, "output": last}


class Obgd:
    """The published step, or with ``b2`` its adaptive form; the bound counts the penalty's gradient in."""

    def __init__(self, learning_rate: float, kappa: float, b2: float | None = None) -> None:
        self.learning_rate, self.kappa, self.b2 = learning_rate, kappa, b2
        self.second: Any = None
        self.done, self.alpha, self.bounded = 0, learning_rate, 0

    def step(self, params: Any, trace: Any, gradient: Any, td_error: float, penalty: Any) -> Any:
        del gradient
        if self.b2 is not None:
            b2 = self.b2
            self.done += 1
            self.second = self.second or each(np.zeros_like, trace)
            self.second = each(lambda v, z: b2 * v + (1 - b2) * (td_error * z) ** 2, self.second, trace)
            trace = each(lambda z, v: z / np.sqrt(v / (1 - b2**self.done) + 1e-8), trace, self.second)
        size = sum(np.abs(z).sum() for z in arrays(trace))
        reach = max(abs(td_error), 1.0) * size + sum(np.abs(p).sum() for p in arrays(penalty))
        overshoot = self.learning_rate * self.kappa * reach
        self.alpha = self.learning_rate / overshoot if overshoot > 1 else self.learning_rate
        self.bounded += overshoot > 1
        return each(lambda w, z, p: w + self.alpha * (td_error * z - p), params, trace, penalty)


class AdaptiveQ:
    """Algorithm 1 of the adaptive agent, or with ``b2`` another memory, corrected for its start where asked."""

    def __init__(self, learning_rate: float, eps: float, decay: float, correct: bool = False) -> None:
        self.learning_rate, self.eps, self.decay, self.correct = learning_rate, eps, decay, correct
        self.second: Any = None
        self.done, self.alpha = 0, learning_rate

    def step(self, params: Any, trace: Any, gradient: Any, td_error: float, penalty: Any) -> Any:
        self.done += 1
        self.second = self.second or each(np.zeros_like, trace)
        self.second = each(lambda v, g: self.decay * v + (1 - self.decay) * g**2, self.second, gradient)
        whole = 1 - self.decay**self.done if self.correct else 1.0
        rho = each(lambda z, v: z / (np.sqrt(v / whole) + self.eps), trace, self.second)
        return each(lambda w, z, p: w + self.learning_rate * (td_error * z - p), params, rho, penalty)


class Intentional:
    """The published rule in its full form or without parts; a penalty's gradient shares the step size."""

    def __init__(
        self,
        eta: float,
        decay: float,
        b2: float | None = 0.999,
        running: bool = True,
        clip: tuple[float, float] | None = (20.0, 0.9998),
        relative: float | None = None,
    ) -> None:
        self.eta, self.decay, self.b2, self.running = eta, decay, b2, running
        self.clip, self.relative = clip, relative
        self.second: Any = None
        self.done, self.alpha, self.norm, self.square, self.magnitude, self.clipped = 0, eta, 0.0, 1.0, 0.0, 0

    def bounded(self, td_error: float) -> float:
        bound = 1.0
        if self.clip:
            multiple, decay = self.clip
            self.square = decay * self.square + (1 - decay) * td_error**2
            bound = multiple * np.sqrt(self.square / (1 - decay**self.done))
        self.clipped += abs(td_error) > bound
        error = float(np.clip(td_error, -bound, bound))
        if self.relative is None:
            return error
        self.magnitude = self.relative * self.magnitude + (1 - self.relative) * abs(error)
        return error / (self.magnitude / (1 - self.relative**self.done))

    def step(self, params: Any, trace: Any, gradient: Any, td_error: float, penalty: Any) -> Any:
        self.done += 1
        rho = each(np.ones_like, trace)
        if self.b2 is not None:
            b2 = self.b2
            self.second = self.second or each(np.zeros_like, trace)
            self.second = each(lambda v, g: b2 * v + (1 - b2) * g**2, self.second, gradient)
            rho = each(lambda v: 1 / (np.sqrt(v / (1 - b2**self.done)) + 1e-8), self.second)
        length = sum((r * g**2).sum() for r, g in zip(arrays(rho), arrays(gradient), strict=True))
        reach = sum((r * z**2).sum() for r, z in zip(arrays(rho), arrays(trace), strict=True))
        self.norm += (1 - self.decay) * (length - self.norm)
        if self.running:
            reach = np.sqrt(self.norm / (1 - self.decay**self.done) * reach)
        self.alpha = self.eta / max(reach, 1e-8)
        error = self.bounded(td_error)
        return each(lambda w, r, z, p: w + self.alpha * (error * r * z - p), params, rho, trace, penalty)


class Scaled:
    """Every value met so far, kept as a list; mean and unbiased variance from NumPy."""

    def __init__(self) -> None:
        self.met: list[np.ndarray] = []

    def include(self, value: Any) -> None:
        self.met.append(np.asarray(value, np.float64))

    @property
    def deviation(self) -> Any:
        many = len(self.met) > 1
        return np.sqrt((np.var(self.met, axis=0, ddof=1) if many else 1.0) + 1e-8)

    def __call__(self, value: Any) -> np.ndarray:
        return (np.asarray(value, np.float64) - np.mean(self.met, axis=0)) / self.deviation
