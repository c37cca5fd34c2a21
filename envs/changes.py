"""What can be done to any pure task: a time limit, and a change of its problem from task to task; small streams.

Task 0 is the standard problem. What a later task is follows from the lane's data key and the task's index alone.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from envs.base import Source, vectorise
from plasticity.types import Array, Key, State, StreamSpec, Task, Visit, VisitPlan

OBSERVATIONS, ACTIONS = 10, 11  # what is derived from the key of the parameters


def limited(task: Task, steps: int) -> Task:
    """Cuts episodes after ``steps`` (static) steps; there the discount is 1 unless the episode ends by itself.
    0: ``task`` as it is."""
    if steps == 0:
        return task

    def reset(key: Key, params: Any) -> tuple[State, Any]:
        state, observation = task.reset(key, params)
        return (state, jnp.zeros((), jnp.int32)), observation

    def step(key: Key, state: State, action: Array, params: Any) -> tuple[State, Any, Array, Array, Array]:
        inner, observation, reward, discount, last = task.step(key, state[0], action, params)
        time = state[1] + 1
        return (inner, time), observation, reward, discount, last | (time >= steps)

    return task._replace(reset=reset, step=step)


def permutation(key: Key, task: Array, size: int) -> Array:
    """int32[size], a permutation of ``0 ... size - 1`` for the ``task``-th task (int32, traced).

    ``order_0`` is the identity and ``order_u = order_{u-1}[q_u]`` with ``q_u`` uniform over the permutations, so that
    ``order_u`` is; only where ``q_u`` is the identity is it a rotation by one, so that neighbouring tasks differ.
    """
    identity = jnp.arange(size, dtype=jnp.int32)

    def another(u: Array, order: Array) -> Array:
        drawn = jax.random.permutation(jax.random.fold_in(key, u), identity)
        return order[jnp.where((drawn == identity).all(), jnp.roll(identity, 1), drawn)]

    return jax.lax.fori_loop(1, task + 1, another, identity)


def permuted_observations(task: Task) -> Task:
    """Place ``i`` of the flattened observation shows what place ``order[i]`` shows in task 0."""
    shape = task.spec.observation.shape

    def show(seen: Array, order: Array) -> Array:
        return seen.reshape(-1)[order].reshape(shape)

    def params(key: Key, visit: Visit) -> tuple[Any, Array]:
        return task.params(key, visit), permutation(jax.random.fold_in(key, OBSERVATIONS), visit.task, math.prod(shape))

    def reset(key: Key, problem: tuple[Any, Array]) -> tuple[State, Any]:
        state, observation = task.reset(key, problem[0])
        return state, show(observation, problem[1])

    def step(key: Key, state: State, action: Array, problem: Any) -> tuple[State, Any, Array, Array, Array]:
        state, observation, *rest = task.step(key, state, action, problem[0])
        return state, show(observation, problem[1]), *rest

    return task._replace(params=params, reset=reset, step=step)


def permuted_actions(task: Task) -> Task:
    """Action ``a`` does what action ``order[a]`` does in task 0."""

    def params(key: Key, visit: Visit) -> tuple[Any, Array]:
        order = permutation(jax.random.fold_in(key, ACTIONS), visit.task, task.spec.actions)
        return task.params(key, visit), order

    def step(key: Key, state: State, action: Array, problem: Any) -> tuple[State, Any, Array, Array, Array]:
        return task.step(key, state, problem[1][action], problem[0])

    return task._replace(params=params, reset=lambda key, problem: task.reset(key, problem[0]), step=step)


def schedule(tasks: int, visits: int, steps: int) -> tuple[VisitPlan, ...]:
    """``visits`` stays of ``steps`` steps in ``tasks`` tasks, over and over."""
    return tuple(VisitPlan(i % tasks, steps) for i in range(visits))


def task_names(name: str, change: str, visits: int, distinct: int) -> tuple[str, ...]:
    """No change: one task. ``physics``: as many as there are values. A permutation: a new one at each visit."""
    if change == "none":
        return (name,)
    count = min(visits, distinct) if change == "physics" else visits
    kind = {"physics": "physics", "action": "actions", "observation": "observations"}[change]
    return tuple(f"{kind}_{i}" for i in range(count))


def changed(task: Task, change: str) -> Task:
    """``task`` with what ``change`` does to its observations or discrete actions."""
    if change == "observation":
        return permuted_observations(task)
    return permuted_actions(task) if change == "action" and task.spec.discrete else task


def small_spec(
    shape: tuple[int, ...],
    actions: int,
    names: tuple[str, ...],
    visits: int,
    steps: int,
    envs: int,
    low: float,
    high: float,
) -> StreamSpec:
    """An episodic stream of ``visits`` visits to the tasks ``names`` in turn, rewards from ``low`` to ``high``."""
    return StreamSpec(
        observation=jax.ShapeDtypeStruct(shape, jnp.float32),
        actions=actions,
        tasks=names,
        visits=schedule(len(names), visits, steps),
        envs=envs,
        episodic=True,
        reward_name="return",
        reward_range=(low, high),
    )


def stream(task: Task, envs: int) -> Source:
    return Source(task.spec, lambda lanes: vectorise(task, lanes, envs))
