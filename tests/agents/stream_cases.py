"""A scripted life of a streaming agent, and the parts of reference agents that live it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import stream_reference as reference
from agent_cases import clock_at
from stream_reference import Scaled, as_float64, backward, each, forward

from plasticity.core.types import Agent, StreamSpec, TimeStep, Transition, VisitPlan
from plasticity.interventions.base import Intervention
from plasticity.networks.presets import mlp
from plasticity.optim.schedules import linear

KEY = jax.random.key(5)
SPEC = StreamSpec(jax.ShapeDtypeStruct((4,), jnp.float32), 3, ("a",), (VisitPlan(0, 60),), 1, True)
DISCOUNT, LAMBDA = 0.9, 0.7
LIFE = reference.life()
REAL = SPEC._replace(actions=2, discrete=False)
REAL_LIFE = LIFE._replace(action=np.random.default_rng(1).normal(size=(len(LIFE.action), 2)).astype(np.float32))
STEPS = len(LIFE.action)
MLP = functools.partial(mlp, widths=(5,), activation="leaky_relu", normalisation="map", initialiser="lecun")
LINEAR = functools.partial(mlp, widths=(), initialiser="lecun")
PLAIN = {"normalise": "none", "scale_rewards": False}
EXPLORATION = functools.partial(linear, end=0.01, duration=25_000)


def pairs(life: reference.Life = LIFE) -> Transition:
    """The life as neighbouring time steps, ``[51, 1, ...]``."""
    steps = TimeStep(*(jnp.asarray(x)[:, None] for x in life[:4]))
    action = jnp.asarray(life.action)[:, None]
    return Transition(jax.tree.map(lambda x: x[:-1], steps), action, jax.tree.map(lambda x: x[1:], steps))


def penalty(rate: float) -> Intervention:
    """``rate |theta|^2 / 2``, whose gradient is ``rate theta``."""
    squares = lambda params: sum(jnp.sum(x * x) for x in jax.tree.leaves(params))  # noqa: E731
    return Intervention(penalty=lambda state, params, seen: rate * squares(params) / 2)


def count() -> Intervention:
    """Its state is how often ``step`` was called."""
    step = lambda key, state, learner, seen: (state + 1, learner)  # noqa: E731
    return Intervention(init=lambda key, params, network: jnp.int32(0), step=step)


def live(agent: Agent, steps: int = STEPS, life: reference.Life = LIFE) -> Any:
    """The initial parameters, the complete state after each pair of the life, and the metrics."""

    @jax.jit
    def whole() -> Any:
        def step(state: Any, inputs: Any) -> Any:
            i, pair = inputs
            state, metrics = agent.learn(jax.random.fold_in(KEY, i), state, pair, clock_at(i))
            return state, (state, metrics)

        start = agent.init(KEY, None)
        given = jax.tree.map(lambda x: x[:steps], pairs(life))
        return start, jax.lax.scan(step, start, (jnp.arange(steps), given))[1]

    start, (states, metrics) = jax.device_get(whole())
    return start.learner.params, states, metrics


class ReferenceBase:
    """Common base of the reference agents: preprocessing and parameters."""

    def __init__(self, params: Any, rate: float = 0.0, normalise: bool = True) -> None:
        self.params, self.rate, self.normalise = as_float64(params), rate, normalise
        self.preprocessor, self.rewards, self.total = Scaled(), Scaled(), 0.0
        self.seen: dict[str, int] = dict.fromkeys(("lost", "cut", "terminal", "not greedy", "greedy"), 0)
        self.preprocessor.include(LIFE.observation[0])

    def perceive(self, t: int) -> Any:
        """Both observations, the reward, and whether the pair is a transition and the episode has ended."""
        before, after = LIFE.observation[t].astype(float), LIFE.observation[t + 1].astype(float)
        kind, reward, discount = LIFE.step_type[t + 1], float(LIFE.reward[t + 1]), LIFE.discount[t + 1]
        ended = kind == reference.LAST or discount == 0
        if self.normalise:
            before = self.preprocessor(before)
            self.preprocessor.include(after)
            after = self.preprocessor(after)
            if kind != reference.FIRST:
                self.total = DISCOUNT * (0.0 if ended else self.total) + reward
                self.rewards.include(self.total)
                reward = reward / float(self.rewards.deviation)
        self.seen["lost"] += kind == reference.MID and discount == 0
        self.seen["cut"] += kind == reference.LAST and discount == 1
        self.seen["terminal"] += kind == reference.LAST and discount == 0
        return before, after, reward, DISCOUNT * discount, kind != reference.FIRST, ended


class QLambda(ReferenceBase):
    def __init__(self, params: Any, rule: Any, clip: float, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.rule, self.clip, self.trace = rule, clip, each(np.zeros_like, self.params)
        self.error = 0.0

    def learn(self, t: int) -> None:
        before, after, reward, discount, valid, ended = self.perceive(t)
        if not valid:
            return
        q, seen = forward(self.params, before)
        action = LIFE.action[t]
        gradient = backward(self.params, seen, np.eye(3)[action])
        self.trace = each(lambda z, g: DISCOUNT * LAMBDA * z + g, self.trace, gradient)
        self.error = reward + discount * self.following(forward(self.params, after)[0], t) - q[action]
        error = np.clip(self.error, -self.clip, self.clip)
        decay = each(lambda w: self.rate * w, self.params)
        self.params = self.rule.step(self.params, self.trace, gradient, error, decay)
        greedy = action == q.argmax()
        self.seen["greedy" if greedy else "not greedy"] += 1
        if ended or self.cuts(greedy):
            self.trace = each(np.zeros_like, self.trace)

    def following(self, q: np.ndarray, t: int) -> float:
        del t
        return float(q.max())

    def cuts(self, greedy: bool) -> bool:
        return not greedy


def compared(mine: Any, theirs: Any, t: int, **tolerance: float) -> None:
    each(lambda a, b: np.testing.assert_allclose(a[t], b, **tolerance), mine, theirs)
