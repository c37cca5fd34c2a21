"""Permutations of observations and actions."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from plasticity.config.fields import metadata
from plasticity.core.types import Array, Key, StreamSpec
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.base import (
    Done,
    LaneTransform,
    Per,
    Transform,
    between,
    by_values,
    check_acted,
    check_gradual,
    cycled,
    divided,
    transformed,
)
from plasticity.envs.transforms.observations import Alter, frame_of, observation_change

SIGNS = (1.0, -1.0)  # of real-valued actions
WHEN = 1  # folded into a permutation's key for the times at which places change


def permutation(key: Key, task: Array, size: int) -> Array:
    """int32[size], a permutation of ``0 ... size - 1`` for the ``task``-th task (int32, traced).

    ``order_0`` is the identity and ``order_u = order_{u-1}[q_u]`` with ``q_u`` uniform over the permutations, so
    ``order_u`` is uniform too. If ``q_u`` is the identity, it is replaced by a rotation by one, so consecutive tasks
    differ.
    """
    identity = jnp.arange(size, dtype=jnp.int32)

    def another(u: Array, order: Array) -> Array:
        drawn = jax.random.permutation(jax.random.fold_in(key, u), identity)
        return order[jnp.where((drawn == identity).all(), jnp.roll(identity, 1), drawn)]

    return jax.lax.fori_loop(1, task + 1, another, identity)


def orders(size: int, first: int, gradual: float) -> Callable[[Key, Array], tuple[Any, ...]]:
    """The problem of a permutation: the new order; if gradual, also the last order and the time of each place's change.

    The times are uniform in [0, 1).
    """

    def problem(key: Key, index: Array) -> tuple[Any, ...]:
        new = permutation(key, index + first, size)
        if not gradual:
            return (new,)
        when = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, index), WHEN), (size,))
        return new, permutation(key, jnp.maximum(index - 1, 0) + first, size), when

    return problem


def order_of(problem: tuple[Any, ...], done: Done) -> Array:
    if done is None:
        order: Array = problem[0]
        return order
    new, last, when = problem
    return jnp.where(done > when, new, last)


def permuted_places(spec: StreamSpec, channels: bool) -> tuple[int, Alter]:
    """The number of places to permute, and the function that shows place ``order[i]`` at place ``i``."""
    shape = frame_of(spec).shape
    if channels and len(shape) < 3:
        raise ValueError(f"what: channels is not allowed; it needs images with channels, got shape {shape}")
    size = shape[-1] if channels else math.prod(shape)

    def alter(draw: Key, problem: Any, seen: Array, done: Done) -> Array:
        order = order_of(problem, done)
        if channels:
            return seen[..., order]
        return seen.reshape(len(seen), -1)[:, order].reshape(seen.shape)

    return size, alter


def observations_change(
    spec: StreamSpec, channels: bool = False, first: int = 0, gradual: float = 0.0
) -> LaneTransform:
    size, alter = permuted_places(spec, channels)
    memory, see = observation_change(spec, alter)
    return LaneTransform(problem=orders(size, first, gradual), memory=memory, see=see)


def actions_change(spec: StreamSpec, first: int = 0, gradual: float = 0.0) -> LaneTransform:
    """Permute discrete actions; flip the sign of real-valued actions in every second problem."""

    def permuted(draw: Key, problem: Any, memory: Any, action: Array, done: Done) -> tuple[Any, Array]:
        return memory, order_of(problem, done)[action]

    def flipped(draw: Key, problem: Any, memory: Any, action: Array, done: Done) -> tuple[Any, Array]:
        return memory, between(problem, done) * action

    if spec.discrete:
        return LaneTransform(problem=orders(spec.actions, first, gradual), act=permuted)
    return LaneTransform(problem=cycled(SIGNS[first:] + SIGNS[:first]), act=flipped)


@metadata(
    paper="Goodfellow et al. 2013, An Empirical Investigation of Catastrophic Forgetting in Gradient-Based Neural "
    "Networks",
    example={"what": "pixels", "gradual": 0.2},
)
def permute_observations(
    *,
    what: Literal["pixels", "channels"] = "pixels",
    per: Per = "visit",
    first: Literal["standard", "permuted"] = "standard",
    gradual: float = 0.0,
) -> Transform:
    """Place ``i`` of an observation shows what place ``order_k[i]`` shows without the transform.

    ``order_0`` is the identity, ``order_k = order_{k-1} q_k`` with ``q_k`` a uniform permutation other than the
    identity, drawn from the lane's data key. Goodfellow et al. 2013, "An Empirical Investigation of Catastrophic
    Forgetting in Gradient-Based Neural Networks".

    All settings are static. ``what``: the places of the flattened observation, or the last axis of an image. All
    frames of a stack are permuted in the same way; on a supervised stream the input is permuted. ``per``: k is the
    number of the visit, and every visit becomes its own task, or k is the number of the stream's task. ``first``:
    whether k = 0 is standard or permuted too. ``gradual``: the fraction of the visit over which places change one by
    one, at uniformly distributed times, starting from ``order_{k-1}``; 0: all at once. It is a fraction of the visit's
    length as planned by the stream.

    ``ValueError`` for channels without images, a fraction out of range and observations of several arrays. The paper
    draws permutations independently, which gives the same distribution.
    """
    check_gradual(gradual)

    def apply(source: StreamFactory) -> StreamFactory:
        plan = divided(source.spec, per)
        change = observations_change(source.spec, what == "channels", int(first == "permuted"), gradual)
        return transformed("permute_observations", source, plan, change, gradual)

    return apply


@metadata(
    paper="Juliani, Ash 2024, A Study of Plasticity Loss in On-Policy Deep Reinforcement Learning",
    example={"per": "visit"},
)
def permute_actions(
    *,
    per: Per = "visit",
    first: Literal["standard", "permuted"] = "standard",
    gradual: float = 0.0,
) -> Transform:
    """Action ``a`` does what action ``order_k[a]`` does without the transform.

    ``order_k`` and the settings, all static, are as in :func:`permute_observations`. Real-valued actions have the
    opposite sign at every second k, and visits with the same task and sign are one task. With ``gradual``, the factor
    changes linearly from the last sign to the new one, and every visit is its own task.

    ``ValueError`` for a fraction out of range and on a supervised stream. Juliani, Ash 2024, "A Study of Plasticity
    Loss in On-Policy Deep Reinforcement Learning", change observations and layouts; this transform changes actions.
    """
    check_gradual(gradual)

    def apply(source: StreamFactory) -> StreamFactory:
        check_acted("permute_actions", source.spec)
        spec = source.spec
        plan = divided(spec, per) if spec.discrete else by_values(spec, per, SIGNS, gradual)
        change = actions_change(spec, int(first == "permuted"), gradual)
        return transformed("permute_actions", source, plan, change, gradual)

    return apply
