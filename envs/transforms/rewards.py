"""Transforms of rewards. All but :func:`flip_reward` leave the recorded performance unchanged."""

from collections.abc import Callable
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.fields import metadata
from plasticity.core.types import FIRST, LAST, Array, Key, StreamSpec, TimeStep
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.base import (
    Done,
    LaneTransform,
    Per,
    Transform,
    Values,
    between,
    by_values,
    check_acted,
    check_gradual,
    cycled,
    divided,
    listed_values,
    transformed,
)

Delay = Annotated[int, Field(ge=0, le=1_000_000)]
Reward = Callable[[Any, Array, Done], Array]  # problem, rewards [E], done -> rewards [E]


def unchanged_score(problem: Any, score: Array, done: Done) -> Array:
    return score


def reward_change(reward: Reward) -> Callable[..., tuple[Any, TimeStep]]:
    """The ``see`` of a change that affects only the reward; FIRST has no reward."""

    def see(draw: Key, problem: Any, memory: Any, timestep: TimeStep, done: Done) -> tuple[Any, TimeStep]:
        changed = jnp.where(timestep.step_type == FIRST, 0.0, reward(problem, timestep.reward, done))
        return memory, timestep._replace(reward=changed)

    return see


def product(problem: Any, reward: Array, done: Done) -> Array:
    return between(problem, done) * reward


def with_reward_range(spec: StreamSpec, *limits: float) -> StreamSpec:
    """Set the reward range of ``spec`` to that of ``limits`` and 0; the recorded performance keeps its range."""
    recorded = spec.score_range or spec.reward_range
    return spec._replace(reward_range=(min(0.0, *limits), max(0.0, *limits)), score_range=recorded)


@metadata(example={"factor": [1.0, 10.0]})
def scale_reward(*, factor: Values = 1.0, per: Per = "visit", gradual: float = 0.0) -> Transform:
    """``r <- factor * r``; the recorded performance excludes the factor.

    All settings are static. ``factor``: a number, or a list to cycle through: at each visit, or (``per: task``) by the
    stream's tasks. Visits with the same task and factor are one task. ``gradual``: the fraction of the visit over which
    it changes linearly from the last value to the new one; every visit is then its own task.

    ``ValueError`` for factors that are not positive (see :func:`flip_reward`), a fraction out of range and on a
    supervised stream.
    """
    check_gradual(gradual)
    values = listed_values("factor", factor, float(np.finfo(np.float32).tiny), np.inf, "greater than 0")

    def apply(source: StreamFactory) -> StreamFactory:
        check_acted("scale_reward", source.spec)
        if values == (1.0,):
            return source
        spec = with_reward_range(
            source.spec, *(value * limit for value in values for limit in source.spec.reward_range)
        )
        change = LaneTransform(problem=cycled(values), see=reward_change(product), score=unchanged_score)
        return transformed("scale_reward", source, by_values(spec, per, values, gradual), change, gradual)

    return apply


@metadata(
    paper="Mnih et al. 2015, Human-level control through deep reinforcement learning",
    example={"low": -1.0, "high": 1.0},
)
def clip_reward(*, low: float = -1.0, high: float = 1.0) -> Transform:
    """``r <- min(max(r, low), high)``; the recorded performance is the unclipped reward (Mnih et al. 2015,
    "Human-level control through deep reinforcement learning").

    Both are static. ``ValueError`` if ``low`` is not below ``high``, and on a supervised stream.
    """
    if not low < high:
        raise ValueError(f"low: {low} is not allowed; must be below high, {high}")

    def clipped(problem: Any, reward: Array, done: Done) -> Array:
        return jnp.clip(reward, low, high)

    def apply(source: StreamFactory) -> StreamFactory:
        check_acted("clip_reward", source.spec)
        spec = with_reward_range(source.spec, *(min(max(limit, low), high) for limit in source.spec.reward_range))
        change = LaneTransform(see=reward_change(clipped), score=unchanged_score)
        return transformed("clip_reward", source, divided(spec, "task"), change)

    return apply


@metadata(example={"per": "visit"})
def flip_reward(*, per: Per = "visit", gradual: float = 0.0) -> Transform:
    """``r <- -r`` in every second task; the recorded performance has the flipped sign too.

    Both settings are static. ``per``: flip at every second visit, which is then a different task, or (``task``) in
    every second of the stream's tasks. ``gradual``: the fraction of the visit over which the factor changes linearly
    from the last sign to the new one; every visit is then its own task. ``ValueError`` for a fraction out of range and
    on a supervised stream.
    """
    check_gradual(gradual)
    signs = (1.0, -1.0)

    def apply(source: StreamFactory) -> StreamFactory:
        check_acted("flip_reward", source.spec)
        spec = with_reward_range(source.spec, *(sign * limit for sign in signs for limit in source.spec.reward_range))
        low, high = source.spec.score_range or source.spec.reward_range
        spec = spec._replace(score_range=(min(low, -high), max(high, -low)))
        spec = spec._replace(alike=False)  # good returns are high in one task and low in another
        change = LaneTransform(problem=cycled(signs), see=reward_change(product), score=product)
        return transformed("flip_reward", source, by_values(spec, per, signs, gradual), change, gradual)

    return apply


@metadata(example={"steps": [0, 10]})
def delay_reward(
    *, steps: Delay | Annotated[tuple[Delay, ...], Field(max_length=1000)] = 10, per: Per = "visit"
) -> Transform:
    """Rewards are delayed by ``steps`` env steps within an episode; outstanding rewards are paid at its end.

    ``r'_t = r_{t - n}`` and, at LAST, ``r'_t = r_{t - n} + ... + r_t``: the sum over an episode is the same. Rewards
    outstanding at a task switch are lost, as are those of an episode that never ends. The recorded performance is the
    undelayed reward.

    Both settings are static. ``steps``: a number, or a list to cycle through as in
    :func:`plasticity.envs.transforms.rewards.scale_reward`. ``ValueError`` for negative numbers and on a supervised
    stream.
    """
    values = listed_values("steps", steps, 0, 1_000_000, "at least 0")
    places = int(max(values)) + 1

    def see(draw: Key, problem: Any, owed: Array, timestep: TimeStep, done: Done) -> tuple[Array, TimeStep]:
        """``owed[e, k]`` is due in k steps."""
        owed = jnp.concatenate([owed[:, 1:], jnp.zeros_like(owed[:, :1])], 1)
        owed = owed + timestep.reward[:, None] * (jnp.arange(places) == problem[1])
        opens, ends = timestep.step_type == FIRST, timestep.step_type == LAST
        paid = jnp.where(opens, 0.0, jnp.where(ends, owed.sum(1), owed[:, 0]))
        return jnp.where((opens | ends)[:, None], 0.0, owed), timestep._replace(reward=paid)

    def apply(source: StreamFactory) -> StreamFactory:
        check_acted("delay_reward", source.spec)
        if values == (0,):
            return source
        spec = with_reward_range(source.spec, *(limit * places for limit in source.spec.reward_range))
        change = LaneTransform(
            problem=cycled(values), memory=lambda: jnp.zeros((spec.envs, places)), see=see, score=unchanged_score
        )
        return transformed("delay_reward", source, by_values(spec, per, values, 0.0), change)

    return apply
