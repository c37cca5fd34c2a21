"""Streams of pure tasks, and the return type of every stream factory."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.lane_axis import over
from plasticity.core.types import FIRST, LAST, MID, Array, Clock, Key, State, Stream, StreamSpec, Task, TimeStep, Visit

# Tags for the keys derived from a lane's data key, one `fold_in` each.
PARAMS, RESET, STEP, EMULATOR, REPLICA = range(5)


class StreamFactory(NamedTuple):
    """A stream as passed to the launcher: its spec, and how to build it for a block of ``lanes`` lanes."""

    spec: StreamSpec
    make: Callable[[int], Stream]
    # For a stream on the host: task number, int32 seeds -> its environments (`envs.host.Pool`), for comparison.
    make_pool: Callable[[int, Any], Any] | None = None
    # Where evaluations take place, if not in the stream itself: how to build a stream from the keys `stream` and
    # `transforms` of a config -> environments with this stream's tasks. `ValueError` if there are none.
    evaluation: Callable[["Build"], "StreamFactory"] | None = None


Build = Callable[[Mapping[str, Any]], StreamFactory]


class PureState(NamedTuple):
    """The state of a pure stream, ``W`` lanes x ``E`` envs."""

    params: Any  # [W, ...]     the visit's problem, one per lane, before `Task.at`
    envs: State  # [W, E, ...]
    step_type: Array  # int8[W, E]   of the newest time step


def first(observation: Any, shape: tuple[int, ...] = ()) -> TimeStep:
    """The first time step of an episode: reward 0, discount 1; ``shape`` is the shape of the scalars."""
    return TimeStep(jnp.full(shape, FIRST, jnp.int8), jnp.zeros(shape), jnp.ones(shape), observation)


def restart(task: Task, params: Any, key: Key) -> tuple[State, TimeStep]:
    """Start an episode: one env's first time step."""
    state, observation = task.reset(key, params)
    return state, first(observation)


def advance(task: Task, params: Any, key: Key, state: State, action: Array) -> tuple[State, TimeStep]:
    """Advance one env by a time step within an episode."""
    state, observation, reward, discount, last = task.step(key, state, action, params)
    step_type = jnp.where(last, LAST, MID).astype(jnp.int8)
    return state, TimeStep(step_type, jnp.float32(reward), jnp.float32(discount), observation)


def proceed(task: Task, params: Any, key: Key, state: State, step_type: Array, action: Array) -> tuple[State, TimeStep]:
    """Advance one env by a time step; after LAST comes FIRST, and the action is ignored."""
    if not task.spec.episodic:
        return advance(task, params, key, state, action)
    return jax.lax.cond(
        step_type == LAST,
        lambda: restart(task, params, key),
        lambda: advance(task, params, key, state, action),
    )


def chance(key: Key, visit: Visit) -> Key:
    """Key of the random events in a visit, as opposed to its problem, derived from the lane's data key."""
    other = jax.random.fold_in(jax.random.fold_in(key, REPLICA), visit.eval_replica)
    return jnp.where(visit.eval_replica == 0, key, other)  # a traced 0 is 0 too


def tasks_of(visit: Visit, lanes: int) -> Array:
    """int32[lanes]: each lane's task, also if the visit has one task for all lanes."""
    return jnp.broadcast_to(jnp.asarray(visit.task, jnp.int32), (lanes,))


def vectorise(task: Task, lanes: int, envs: int) -> Stream:
    """Build a pure stream: ``lanes`` x ``envs`` (static) copies of ``task``, arrays ``[lanes, envs, ...]``.

    Each lane has its own parameters, drawn at ``reset``. Keys: the visit's parameters use ``fold_in(key, PARAMS)``, the
    first observations ``fold_in(fold_in(key, RESET), visit.number)``, a step ``fold_in(fold_in(key, STEP),
    clock.step)``. The last two are split over the envs. A replica of the visit uses another key for the first
    observations (:func:`chance`), and the caller passes that key to ``step``. If ``task.spec.episodic`` is False, the
    task never ends an episode and no reset is compiled into ``step``. The measures are ``task.measures`` of the
    envs' states.
    """
    moment = task.at or (lambda params, step: params)

    def reset(keys: Key, visit: Visit, block: Array) -> tuple[PureState, TimeStep]:
        del block

        def lane(key: Key, own: Array) -> tuple[Any, State, TimeStep]:
            params = task.params(jax.random.fold_in(key, PARAMS), visit._replace(task=own))
            opening = jax.random.fold_in(jax.random.fold_in(chance(key, visit), RESET), visit.number)
            draws = jax.random.split(opening, envs)
            now = moment(params, jnp.asarray(visit.elapsed, jnp.int32))
            return params, *over(partial(restart, task, now), envs)(draws)

        params, state, timestep = over(lane, lanes)(keys, tasks_of(visit, lanes))
        return PureState(params, state, timestep.step_type), timestep

    def step(keys: Key, state: PureState, actions: Array, clock: Clock) -> tuple[PureState, TimeStep]:
        def lane(key: Key, params: Any, *rest: Any) -> tuple[State, TimeStep]:
            draws = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, STEP), clock.step), envs)
            return over(partial(proceed, task, moment(params, clock.step_in_visit)), envs)(draws, *rest)

        new, timestep = over(lane, lanes)(keys, state.params, state.envs, state.step_type, actions)
        return PureState(state.params, new, timestep.step_type), timestep

    stream = Stream(task.spec._replace(envs=envs), reset, step)
    if task.measures is None:
        return stream
    measure = over(over(task.measures, envs), lanes)
    return stream._replace(measures=lambda state, timestep: measure(state.envs))
