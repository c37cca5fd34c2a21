"""A stream with known time steps, pure and on the host: an observation is ``1 + [task, step, sum of the actions]``, the
reward the action, an episode four steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.types import FIRST, LAST, MID, StreamSpec, Task, Visit, VisitPlan
from plasticity.envs.base import StreamFactory, vectorise
from plasticity.envs.host import host

LENGTH = 4


def spec_of(tasks: int = 1, visits: int = 3, steps: int = 8, envs: int = 2, discrete: bool = True) -> StreamSpec:
    return StreamSpec(
        jax.ShapeDtypeStruct((3,), jnp.float32),
        3 if discrete else 2,
        tuple(f"add_{i}" for i in range(tasks)),
        tuple(VisitPlan(i % tasks, steps) for i in range(visits)),
        envs,
        True,
        discrete=discrete,
        reward_range=(0, 2),
    )


def pure(spec: StreamSpec) -> StreamFactory:
    def see(task: Any, state: Any) -> Any:
        return 1 + jnp.stack([jnp.float32(task), *state])

    def reset(key: Any, task: Any) -> Any:
        state = (jnp.zeros(()), jnp.zeros(()))
        return state, see(task, state)

    def step(key: Any, state: Any, action: Any, task: Any) -> Any:
        reward = jnp.sum(jnp.float32(action))
        state = (state[0] + 1, state[1] + reward)
        last = state[0] == LENGTH
        return state, see(task, state), reward, jnp.where(last, 0.0, 1.0), last

    def params(key: Any, visit: Visit) -> Any:
        return visit.task

    return StreamFactory(spec, lambda lanes: vectorise(Task(spec, params, reset, step), lanes, spec.envs))


class Pool:
    """The same, in NumPy."""

    def __init__(self, task: int, seeds: np.ndarray) -> None:
        self.task, self.count = task, len(seeds)
        self.reset()

    def see(self) -> np.ndarray:
        return 1 + np.stack([np.full(self.count, self.task), np.full(self.count, self.time), self.total], 1).astype(
            np.float32
        )

    def reset(self) -> np.ndarray:
        self.time, self.total = 0, np.zeros(self.count)
        return self.see()

    def step(self, actions: np.ndarray) -> Any:
        ones = np.ones(self.count, np.float32)
        if self.time == LENGTH:
            return self.reset(), 0 * ones, ones, np.full(self.count, FIRST, np.int8)
        self.time += 1
        self.total = self.total + actions
        last = self.time == LENGTH
        kind = np.full(self.count, LAST if last else MID, np.int8)
        return self.see(), actions.astype(np.float32), ones * (not last), kind

    def close(self) -> None:
        pass


def on_host(spec: StreamSpec) -> StreamFactory:
    return StreamFactory(spec, lambda lanes: host(spec, Pool, lanes, spec.envs))
