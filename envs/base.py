"""Streams made of pure tasks, and what every stream factory returns."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.lane_axis import over
from plasticity.core.types import FIRST, LAST, MID, Array, Clock, Key, State, Stream, StreamSpec, Task, TimeStep, Visit

# What is derived from a lane's data key, each by a `fold_in` of its own.
PARAMS, RESET, STEP, EMULATOR, REPLICA = range(5)


class Source(NamedTuple):
    """A stream as the launcher gets it: what it is, and how to make it for a block of ``lanes`` lanes."""

    spec: StreamSpec
    make: Callable[[int], Stream]
    # Of a stream on the host: a task's number, int32 seeds -> its environments (`envs.host.Pool`), to compare with.
    make_pool: Callable[[int, Any], Any] | None = None


class PureState(NamedTuple):
    """The state of a pure stream, ``W`` lanes x ``E`` envs."""

    params: Any  # [W, ...]     the visit's problem, one for each lane, before `Task.at`
    envs: State  # [W, E, ...]
    step_type: Array  # int8[W, E]   of the newest time step


def first(observation: Any, shape: tuple[int, ...] = ()) -> TimeStep:
    """The time step that opens an episode: reward 0, discount 1; ``shape`` is that of the scalars."""
    return TimeStep(jnp.full(shape, FIRST, jnp.int8), jnp.zeros(shape), jnp.ones(shape), observation)


def restart(task: Task, params: Any, key: Key) -> tuple[State, TimeStep]:
    """One env's first time step of an episode."""
    state, observation = task.reset(key, params)
    return state, first(observation)


def advance(task: Task, params: Any, key: Key, state: State, action: Array) -> tuple[State, TimeStep]:
    """One env's next time step within an episode."""
    state, observation, reward, discount, last = task.step(key, state, action, params)
    step_type = jnp.where(last, LAST, MID).astype(jnp.int8)
    return state, TimeStep(step_type, jnp.float32(reward), jnp.float32(discount), observation)


def proceed(task: Task, params: Any, key: Key, state: State, step_type: Array, action: Array) -> tuple[State, TimeStep]:
    """One env's next time step; after LAST it is FIRST and the action is ignored."""
    if not task.spec.episodic:
        return advance(task, params, key, state, action)
    return jax.lax.cond(
        step_type == LAST,
        lambda: restart(task, params, key),
        lambda: advance(task, params, key, state, action),
    )


def chance(key: Key, visit: Visit) -> Key:
    """The lane's data key as far as it decides what happens in a visit, not which problem it is."""
    other = jax.random.fold_in(jax.random.fold_in(key, REPLICA), visit.replica)
    return jnp.where(visit.replica == 0, key, other)  # a traced 0 is 0 too


def tasks_of(visit: Visit, lanes: int) -> Array:
    """int32[lanes]: each lane's task, also where the visit says one for all."""
    return jnp.broadcast_to(jnp.asarray(visit.task, jnp.int32), (lanes,))


def vectorise(task: Task, lanes: int, envs: int) -> Stream:
    """A pure stream: ``lanes`` x ``envs`` (static) copies of ``task``, arrays ``[lanes, envs, ...]``.

    Each lane has parameters of its own, drawn at ``reset``. Keys: the visit's parameters from ``fold_in(key, PARAMS)``,
    the first observations from ``fold_in(fold_in(key, RESET), visit.number)``, a step from
    ``fold_in(fold_in(key, STEP), clock.step)``; the last two are split over the envs. For a replica of the visit the
    first observations come from another key (:func:`chance`), and the caller gives ``step`` that key. Where
    ``task.spec.episodic`` is False, the task never ends an episode and no reset is compiled into ``step``.
    """
    moment = task.at or (lambda params, step: params)

    def reset(keys: Key, visit: Visit, block: Array) -> tuple[PureState, TimeStep]:
        del block

        def lane(key: Key, own: Array) -> tuple[Any, State, TimeStep]:
            params = task.params(jax.random.fold_in(key, PARAMS), visit._replace(task=own))
            opening = jax.random.fold_in(jax.random.fold_in(chance(key, visit), RESET), visit.number)
            draws = jax.random.split(opening, envs)
            now = moment(params, jnp.asarray(visit.moment, jnp.int32))
            return params, *over(partial(restart, task, now), envs)(draws)

        params, state, timestep = over(lane, lanes)(keys, tasks_of(visit, lanes))
        return PureState(params, state, timestep.step_type), timestep

    def step(keys: Key, state: PureState, actions: Array, clock: Clock) -> tuple[PureState, TimeStep]:
        def lane(key: Key, params: Any, *rest: Any) -> tuple[State, TimeStep]:
            draws = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, STEP), clock.step), envs)
            return over(partial(proceed, task, moment(params, clock.step_in_visit)), envs)(draws, *rest)

        new, timestep = over(lane, lanes)(keys, state.params, state.envs, state.step_type, actions)
        return PureState(state.params, new, timestep.step_type), timestep

    return Stream(task.spec._replace(envs=envs), reset, step)
