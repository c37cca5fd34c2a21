"""Components of the small streams: time limits, changes between tasks, tasks and visits.

Task 0 is the standard problem. A later task depends only on the lane's data key and the task's index.
"""

from typing import Any

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, Key, State, StreamSpec, Task, VisitPlan
from plasticity.envs.base import PARAMS, StreamFactory, vectorise
from plasticity.envs.transforms.base import divided, transformed
from plasticity.envs.transforms.permutations import actions_change, observations_change
from plasticity.envs.transforms.permutations import permutation as permutation

OBSERVATIONS, ACTIONS = 10, 11  # tags for keys derived from the parameters' key


def limited(task: Task, steps: int) -> Task:
    """Truncate episodes after ``steps`` (static) steps, with discount 1 unless the episode terminates there.

    0: ``task`` unchanged.
    """
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


def schedule(tasks: int, visits: int, steps: int) -> tuple[VisitPlan, ...]:
    """``visits`` visits of ``steps`` steps, cycling through ``tasks`` tasks."""
    return tuple(VisitPlan(i % tasks, steps) for i in range(visits))


def task_names(name: str, change: str, visits: int, distinct: int) -> tuple[str, ...]:
    """Names of the tasks: one without change, one per value with ``physics``, one per visit with a permutation."""
    if change == "none":
        return (name,)
    count = min(visits, distinct) if change == "physics" else visits
    kind = {"physics": "physics", "action": "actions", "observation": "observations"}[change]
    return tuple(f"{kind}_{i}" for i in range(count))


def changed(source: StreamFactory, change: str) -> StreamFactory:
    """Apply ``change`` to the observations or discrete actions of ``source``: a permutation for each task."""
    if change == "observation":
        permuted, tag = observations_change(source.spec), OBSERVATIONS
    elif change == "action" and source.spec.discrete:
        permuted, tag = actions_change(source.spec), ACTIONS
    else:
        return source

    def problem_key(key: Key) -> Key:
        return jax.random.fold_in(jax.random.fold_in(key, PARAMS), tag)

    return transformed(f"change_{change}", source, divided(source.spec, "task"), permuted, problem_key=problem_key)


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
    """An episodic stream: ``visits`` visits to the tasks ``names`` in turn, rewards from ``low`` to ``high``."""
    return StreamSpec(
        observation=jax.ShapeDtypeStruct(shape, jnp.float32),
        actions=actions,
        tasks=names,
        visits=schedule(len(names), visits, steps),
        envs=envs,
        episodic=True,
        reward_name="return",
        reward_range=(low, high),
        alike=True,
    )


def stream(task: Task, envs: int) -> StreamFactory:
    return StreamFactory(task.spec, lambda lanes: vectorise(task, lanes, envs))
