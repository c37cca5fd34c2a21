"""Transforms of observations: noise, offsets, dropout, frame stacking."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config.fields import Few, metadata
from plasticity.core.types import FIRST, Array, Key, Logged, StreamSpec, Supervised, TimeStep
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.base import (
    Done,
    LaneTransform,
    Per,
    Transform,
    Values,
    between,
    by_values,
    check_gradual,
    check_rewarded,
    cycled,
    divided,
    listed_values,
    transformed,
)

Alter = Callable[[Key, Any, Array, Done], Array]  # key, problem, pictures [E, ...], done -> pictures [E, ...]


def observed_array(spec: StreamSpec) -> jax.ShapeDtypeStruct:
    """The observed array. ``ValueError`` if observations consist of several arrays."""
    if isinstance(spec.observation, Logged):
        raise ValueError("not allowed on a stream of recorded transitions; it needs observations that are one array")
    seen = spec.observation.input if isinstance(spec.observation, Supervised) else spec.observation
    if not hasattr(seen, "shape"):
        raise ValueError(f"not allowed on this stream; it needs observations that are one array, got {seen}")
    return jax.ShapeDtypeStruct(seen.shape, seen.dtype)


def frame_of(spec: StreamSpec) -> jax.ShapeDtypeStruct:
    """One frame of the observation; the whole observation without a stack."""
    seen = observed_array(spec)
    return jax.ShapeDtypeStruct(seen.shape[1:], seen.dtype) if spec.stack else seen


def is_first(timestep: TimeStep, like: Array) -> Array:
    """bool[E, 1, ...], with as many axes as ``like``."""
    return (timestep.step_type == FIRST).reshape(-1, *(1 for _ in like.shape[1:]))


def push_frame(stack: Array, frame: Array, opens: Array) -> Array:
    """Push a frame ``[E, ...]`` onto ``[E, n, ...]``, the newest last; at an episode's start it fills the stack."""
    newest = frame[:, None]
    return jnp.where(opens, newest, jnp.concatenate([stack[:, 1:], newest], 1))


def observation_change(spec: StreamSpec, alter: Alter) -> tuple[Callable[[], Any], Callable[..., tuple[Any, TimeStep]]]:
    """The ``memory`` and ``see`` of a change of observations.

    In a stack only the newest frame is altered. Older frames are kept as they were shown, so a replay buffer of single
    frames stores what the agent observed.
    """
    seen = observed_array(spec)

    def memory() -> Any:
        return jnp.zeros((spec.envs, *seen.shape), seen.dtype) if spec.stack else ()

    def see(draw: Key, problem: Any, shown: Any, timestep: TimeStep, done: Done) -> tuple[Any, TimeStep]:
        if isinstance(timestep.observation, Supervised):
            altered = alter(draw, problem, timestep.observation.input, done)
            return shown, timestep._replace(observation=timestep.observation._replace(input=altered))
        if not spec.stack:
            return shown, timestep._replace(observation=alter(draw, problem, timestep.observation, done))
        newest = alter(draw, problem, timestep.observation[:, -1], done)
        shown = push_frame(shown, newest, is_first(timestep, shown))
        return shown, timestep._replace(observation=shown)

    return memory, see


def with_observed_array(spec: StreamSpec, shape: tuple[int, ...], dtype: Any) -> StreamSpec:
    """``spec`` with a different observation array."""
    seen: Any = jax.ShapeDtypeStruct(shape, dtype)
    supervised = isinstance(spec.observation, Supervised)
    return spec._replace(observation=spec.observation._replace(input=seen) if supervised else seen)


def with_real_observations(kind: str, spec: StreamSpec) -> StreamSpec:
    """``spec`` with real-valued observations. ``ValueError`` unless they are, or bool."""
    seen = observed_array(spec)
    if not (jnp.issubdtype(seen.dtype, jnp.floating) or seen.dtype == jnp.bool_):
        raise ValueError(f"{kind}: not allowed on {seen.dtype} observations; must be real-valued or bool")
    return with_observed_array(spec, seen.shape, jnp.promote_types(seen.dtype, jnp.float32))


@metadata(example={"deviation": [0.0, 0.3]})
def observation_noise(*, deviation: Values = 0.1, per: Per = "visit", gradual: float = 0.0) -> Transform:
    """``o <- o + deviation * N(0, 1)``, independently for each place, env and step.

    All settings are static. ``deviation``: a number, or a list to cycle through: at each visit, or (``per: task``) by
    the stream's tasks. Visits with the same task and deviation are one task. ``gradual``: the fraction of the visit
    over which it changes linearly from the last value to the new one; every visit is then its own task.

    Observations must be real-valued, or bool, which becomes real-valued. ``ValueError`` for other types, whose scale a
    network may infer from the type, for negative deviations and for a fraction out of range.
    """
    check_gradual(gradual)
    values = listed_values("deviation", deviation, 0.0, np.inf, "at least 0")

    def alter(draw: Key, problem: Any, seen: Array, done: Done) -> Array:
        return seen + between(problem, done) * jax.random.normal(draw, seen.shape)

    def apply(source: StreamFactory) -> StreamFactory:
        spec = with_real_observations("observation_noise", source.spec)
        if values == (0.0,):
            return source
        memory, see = observation_change(spec, alter)
        change = LaneTransform(problem=cycled(values), memory=memory, see=see)
        return transformed("observation_noise", source, by_values(spec, per, values, gradual), change, gradual)

    return apply


def offsets(shape: tuple[int, ...], deviation: float, first: int) -> Callable[[Key, Array], tuple[Array, Array]]:
    """The problem of an offset: the last and the new one, ``deviation * N(0, I)`` by index; 0 below ``first``."""

    def offset(key: Key, index: Array) -> Array:
        drawn = deviation * jax.random.normal(jax.random.fold_in(key, index), shape)
        return jnp.where(index < first, 0.0, drawn)

    return lambda key, index: (offset(key, jnp.maximum(index - 1, 0)), offset(key, index))


@metadata(
    paper="Muppidi et al. 2024, Fast TRAC: A Parameter-Free Optimizer for Lifelong Reinforcement Learning",
    example={"deviation": 2.0},
)
def observation_offset(
    *,
    deviation: float = 1.0,
    per: Per = "visit",
    first: Literal["standard", "offset"] = "standard",
    gradual: float = 0.0,
) -> Transform:
    """``o <- o + e_k`` with a vector ``e_k ~ N(0, deviation^2 I)``, the same in all envs and steps of a task.

    The vectors are independent and drawn from the lane's data key. Muppidi et al. 2024, "Fast TRAC: A Parameter-Free
    Optimizer for Lifelong Reinforcement Learning", and Tang et al. 2025, "Mitigating Plasticity Loss in Continual
    Reinforcement Learning by Reducing Churn", change the tasks of Gym Control so (``deviation: 2``, and no offset in
    the first task).

    All settings are static. ``per``: k is the number of the visit, and every visit becomes its own task, or k is the
    number of the stream's task. ``first``: whether ``e_0`` is 0 (``standard``) or drawn too. ``gradual``: the fraction
    of the visit over which the offset moves linearly from ``e_{k-1}`` to ``e_k``; 0: all at once. All frames of a stack
    have the offset with which they were first shown; on a supervised stream the input is shifted.

    ``ValueError`` for observations that are not real-valued or bool (which become real-valued), a negative or infinite
    deviation and a fraction out of range.
    """
    check_gradual(gradual)
    if not 0 <= deviation < np.inf:
        raise ValueError(f"deviation: {deviation} is not allowed; must be a number of at least 0")

    def alter(draw: Key, problem: Any, seen: Array, done: Done) -> Array:
        return seen + between(problem, done)

    def apply(source: StreamFactory) -> StreamFactory:
        spec = with_real_observations("observation_offset", source.spec)
        if deviation == 0:
            return source
        memory, see = observation_change(spec, alter)
        problem = offsets(frame_of(spec).shape, deviation, int(first == "standard"))
        change = LaneTransform(problem=problem, memory=memory, see=see)
        return transformed("observation_offset", source, divided(spec, per), change, gradual)

    return apply


@metadata(example={"probability": [0.0, 0.3]})
def observation_dropout(
    *,
    probability: Values = 0.1,
    what: Literal["places", "whole"] = "places",
    per: Per = "visit",
    gradual: float = 0.0,
) -> Transform:
    """``o <- 0`` with a probability, independently for each place (or the whole observation), env and step.

    All settings are static and, except for ``what``, as in :func:`observation_noise`. The other values are not
    rescaled to compensate. ``ValueError`` for probabilities outside [0, 1] and a fraction out of range.
    """
    check_gradual(gradual)
    values = listed_values("probability", probability, 0.0, 1.0, "in [0, 1]")

    def alter(draw: Key, problem: Any, seen: Array, done: Done) -> Array:
        shape = seen.shape if what == "places" else (len(seen), *(1 for _ in seen.shape[1:]))
        hidden = jax.random.uniform(draw, shape) < between(problem, done)
        return jnp.where(hidden, jnp.zeros((), seen.dtype), seen)

    def apply(source: StreamFactory) -> StreamFactory:
        memory, see = observation_change(source.spec, alter)
        if values == (0.0,):
            return source
        change = LaneTransform(problem=cycled(values), memory=memory, see=see)
        plan = by_values(source.spec, per, values, gradual)
        return transformed("observation_dropout", source, plan, change, gradual)

    return apply


@metadata(
    paper="Mnih et al. 2015, Human-level control through deep reinforcement learning",
    example={"frames": 4},
)
def frame_stack(*, frames: Few = 4) -> Transform:
    """The last ``frames`` observations in one, on a leading axis, the newest last (Mnih et al. 2015, "Human-level
    control through deep reinforcement learning").

    Static. At the start of an episode the stack repeats its first frame. Agents know of this axis
    (``StreamSpec.stack``), so a replay buffer stores single frames. With 1 the stream is unchanged. ``ValueError`` for
    a number below 1, for frames that are already stacked and on a supervised stream.
    """
    if frames < 1:
        raise ValueError(f"frames: {frames} is not allowed; must be at least 1")

    def apply(source: StreamFactory) -> StreamFactory:
        spec = source.spec
        check_rewarded("frame_stack", spec)
        if spec.stack:
            raise ValueError(f"frame_stack: not allowed on a stream that already stacks {spec.stack} frames")
        if frames == 1:
            return source
        seen = observed_array(spec)
        stacked = with_observed_array(spec, (frames, *seen.shape), seen.dtype)._replace(stack=frames)

        def memory() -> Array:
            return jnp.zeros((spec.envs, frames, *seen.shape), seen.dtype)

        def see(draw: Key, problem: Any, shown: Array, timestep: TimeStep, done: Done) -> tuple[Array, TimeStep]:
            shown = push_frame(shown, timestep.observation, is_first(timestep, shown))
            return shown, timestep._replace(observation=shown)

        return transformed("frame_stack", source, divided(stacked, "task"), LaneTransform(memory=memory, see=see))

    return apply
