"""A stream: a bandit whose best arm changes at every visit."""

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key, StreamSpec, Task, Visit, VisitPlan
from plasticity.envs.base import StreamFactory, vectorise


@metadata(example={"bandit_arms": 4, "tasks": 3, "steps_per_task": 500})
def moving_bandit(
    *, bandit_arms: Size = 10, tasks: Tasks = 10, steps_per_task: Count = 1000, envs: Size = 1
) -> StreamFactory:
    """A bandit. One arm pays 1, the others 0; the task and the lane's seed determine which one.

    The observation is a single number, always 1. There are no episodes: the performance is the mean reward. All
    settings are static.
    """
    spec = StreamSpec(
        observation=jax.ShapeDtypeStruct((1,), jnp.float32),
        actions=bandit_arms,
        tasks=tuple(f"bandit_{i}" for i in range(tasks)),
        visits=tuple(VisitPlan(i, steps_per_task) for i in range(tasks)),
        envs=envs,
        episodic=False,
        reward_range=(0, 1),
    )

    def params(key: Key, visit: Visit) -> Array:
        """Return the arm that pays: the same at every visit to the task, and in every arm of the experiment."""
        return jax.random.randint(jax.random.fold_in(key, visit.task), (), 0, bandit_arms)

    def reset(key: Key, best: Array) -> tuple[tuple[()], Array]:
        del key, best
        return (), jnp.ones(1)

    def step(key: Key, state: tuple[()], action: Array, best: Array) -> tuple[tuple[()], Array, Array, Array, Array]:
        del key
        reward = (action == best).astype(jnp.float32)
        return state, jnp.ones(1), reward, jnp.ones(()), jnp.zeros((), bool)

    task = Task(spec, params, reset, step)
    return StreamFactory(spec, lambda lanes: vectorise(task, lanes, envs))
