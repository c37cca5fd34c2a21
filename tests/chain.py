"""A chain of five states, pure and tiny, for tests of agents that act: terminations, truncations, chance."""

from typing import Any

import jax
import jax.numpy as jnp

from plasticity.core.types import StreamSpec, Task, Visit, VisitPlan
from plasticity.envs.base import StreamFactory, vectorise

STATES, LIMIT = 5, 10


def chain(visits: int = 2, steps: int = 20, envs: int = 2, slip: float = 0.0, real: bool = False) -> StreamFactory:
    """Left (0) or right (1) from a random inner state, observed as a unit vector.

    The goal, at the right end in even visits and at the left end in odd ones, gives 1; the other end gives 0.2; both
    end the episode. After ten steps it is cut off. With probability ``slip`` the agent moves the other way. With
    ``real``, the action is a number between -1 and 1, and positive ones move right.
    """
    plan = tuple(VisitPlan(i % 2, steps) for i in range(visits))
    observation = jax.ShapeDtypeStruct((STATES,), jnp.float32)
    spec = StreamSpec(observation, 2, ("right", "left"), plan, envs, True, reward_name="return")
    if real:
        spec = spec._replace(actions=1, discrete=False, action_bounds=((-1.0,), (1.0,)))

    def params(key: Any, visit: Visit) -> Any:
        del key
        return jnp.where(visit.task == 0, STATES - 1, 0)

    def reset(key: Any, goal: Any) -> Any:
        place = jax.random.randint(key, (), 1, STATES - 1)
        return (place, jnp.int32(0)), jnp.eye(STATES)[place]

    def step(key: Any, state: Any, action: Any, goal: Any) -> Any:
        slips, right = jax.random.uniform(key) < slip, action[0] > 0 if real else action == 1
        place = jnp.clip(state[0] + jnp.where(right ^ slips, 1, -1), 0, STATES - 1)
        age = state[1] + 1
        end = (place == 0) | (place == STATES - 1)
        reward = jnp.where(place == goal, 1.0, jnp.where(end, 0.2, 0.0))
        return (place, age), jnp.eye(STATES)[place], reward, jnp.where(end, 0.0, 1.0), end | (age == LIMIT)

    task = Task(spec, params, reset, step)
    return StreamFactory(spec, lambda lanes: vectorise(task, lanes, envs))
