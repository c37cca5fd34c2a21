"""Streams of negligible cost, for timing the learner."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config.fields import Count
from plasticity.core.types import Array, Key, StreamSpec, Task, VisitPlan
from plasticity.envs.base import StreamFactory, vectorise

STEPS = 10**8  # of the one visit: it never ends
FILM = 16  # frames


def spec_of(observation: jax.ShapeDtypeStruct, actions: int, stack: int = 0) -> StreamSpec:
    return StreamSpec(observation, actions, ("task",), (VisitPlan(0, STEPS),), envs=1, episodic=False, stack=stack)


def vectors(*, dimensions: Count = 50, actions: Count = 6) -> StreamFactory:
    """A contextual bandit: normal observations, action ``a`` is rewarded with the observation's entry ``a``."""

    def reset(key: Key, params: Any) -> tuple[Array, Array]:
        del params
        seen = jax.random.normal(key, (dimensions,))
        return seen, seen

    def step(key: Key, seen: Array, action: Array, params: Any) -> tuple[Array, Array, Array, Array, Array]:
        following, _ = reset(key, params)
        return following, following, seen[action], jnp.ones(()), jnp.zeros((), bool)

    spec = spec_of(jax.ShapeDtypeStruct((dimensions,), jnp.float32), actions)
    task = Task(spec, lambda key, visit: (), reset, step)
    return StreamFactory(spec, lambda lanes: vectorise(task, lanes, 1))


def frames(*, side: Count = 84, stack: Count = 4, actions: Count = 6) -> StreamFactory:
    """A repeated film, uint8 ``[stack, side, side]``; the correct action is the frame's number."""
    film = np.random.default_rng(0).integers(0, 256, (FILM + stack, side, side), np.uint8)

    def picture(number: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(jnp.asarray(film), number, stack)

    def reset(key: Key, params: Any) -> tuple[Array, Array]:
        del params
        number = jax.random.randint(key, (), 0, FILM)
        return number, picture(number)

    def step(key: Key, number: Array, action: Array, params: Any) -> tuple[Array, Array, Array, Array, Array]:
        del key, params
        following = (number + 1) % FILM
        reward = jnp.float32(action == number % actions)
        return following, picture(following), reward, jnp.ones(()), jnp.zeros((), bool)

    spec = spec_of(jax.ShapeDtypeStruct((stack, side, side), np.uint8), actions, stack)
    task = Task(spec, lambda key, visit: (), reset, step)
    return StreamFactory(spec, lambda lanes: vectorise(task, lanes, 1))
