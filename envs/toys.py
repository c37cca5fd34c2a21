"""Catch."""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key, State, StreamSpec, Task, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import changed, small_spec, stream, task_names
from plasticity.envs.episodes import warn_if_short

Side = Annotated[int, Field(ge=1, le=1024)]
AtLeastTwo = Annotated[int, Field(ge=2, le=1024)]


class CatchState(NamedTuple):
    row: Array  # of the ball
    column: Array
    paddle: Array


def catch_task(spec: StreamSpec, params: Callable[[Key, Visit], Array]) -> Task:
    """The game; a task's parameter is the reward for catching the ball, +1 or -1."""
    rows, columns = spec.observation.shape
    row, column = np.arange(rows)[:, None], np.arange(columns)

    def board(state: CatchState) -> Array:
        ball = (row == state.row) & (column == state.column)
        return (ball | ((row == rows - 1) & (column == state.paddle))).astype(jnp.float32)

    def reset(key: Key, prize: Array) -> tuple[CatchState, Array]:
        state = CatchState(jnp.int32(0), jax.random.randint(key, (), 0, columns), jnp.int32(columns // 2))
        return state, board(state)

    def step(key: Key, state: CatchState, action: Array, prize: Array) -> tuple[State, Array, Array, Array, Array]:
        paddle = jnp.clip(state.paddle + action - 1, 0, columns - 1)
        state = CatchState(state.row + 1, state.column, paddle)
        last = state.row == rows - 1
        reward = jnp.where(last, jnp.where(paddle == state.column, prize, -prize), 0.0)
        return state, board(state), reward, jnp.where(last, 0.0, 1.0), last

    return Task(spec, params, reset, step)


@metadata(
    paper="Osband et al. 2020, Behaviour Suite for Reinforcement Learning",
    example={"change": "observation", "tasks": 5, "steps_per_task": 2000},
)
def catch(
    *,
    rows: AtLeastTwo = 10,
    columns: Side = 5,
    change: Literal["none", "observation", "action", "reward"] = "observation",
    tasks: Tasks = 10,
    steps_per_task: Count = 20_000,
    envs: Size = 1,
) -> StreamFactory:
    """A ball falls, one row per step, towards a paddle that moves left, stays or moves right (actions 0, 1, 2).

    At the end of an episode, after ``rows - 1`` steps, the reward is +1 if the paddle is under the ball, else -1.
    Osband et al. 2020, "Behaviour Suite for Reinforcement Learning". Observations are float32[rows, columns], 1 at the
    ball and at the paddle, which starts in the middle of the last row.

    All settings are static. ``change``: ``observation``, a new permutation of the pixels at each visit; ``action``, a
    permutation of the actions; ``reward``, alternates between catching and avoiding the ball; ``none``, every visit is
    to the same task. Visit 0 is the standard problem. ``tasks``: number of visits, each of ``steps_per_task`` steps.

    A warning if a visit is shorter than an episode.
    """
    warn_if_short("steps_per_task", steps_per_task, rows - 1)
    names = ("catch", "avoid")[:tasks] if change == "reward" else task_names("catch", change, tasks, 1)
    spec = small_spec((rows, columns), 3, names, tasks, steps_per_task, envs, -1, 1)

    def params(key: Key, visit: Visit) -> Array:
        return jnp.where((change == "reward") & (visit.task % 2 == 1), -1.0, 1.0)

    return changed(stream(catch_task(spec, params), envs), change)
