"""A gridworld with gems, pits and blocks, whose layouts change between tasks."""

from functools import partial
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key, StreamSpec, Task, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import changed, limited, small_spec, stream, task_names
from plasticity.envs.episodes import warn_if_short
from plasticity.envs.gridworld import MOVES

AtLeastThree = Annotated[int, Field(ge=3, le=256)]
Gems = Annotated[int, Field(ge=1, le=1_000)]
Others = Annotated[int, Field(ge=0, le=1_000)]

LAYOUTS = 0  # tag for keys derived from the parameters' key


class GridTask(NamedTuple):
    """A task's layouts, built once per visit: building them at every step would dominate the cost."""

    worth: Array  # int8[layouts, size, size]
    blocks: Array  # int8[layouts, size, size]
    many: Array  # number of layouts that belong to the task


class Board(NamedTuple):
    """The state of one env; planes are float32[size, size]."""

    row: Array
    column: Array
    worth: Array  # 1 at a gem, -1 at a pit; 0 once the agent has been there
    blocks: Array


def laid_out(key: Key, size: int, gems: int, pits: int, blocks: int) -> tuple[Array, Array]:
    """Draw the worth and the blocks of a layout: distinct cells, excluding the centre."""
    centre = (size // 2) * (size + 1)
    draws = jax.random.uniform(key, (size * size,)).at[centre].set(2.0)
    rank = (draws[:, None] > draws).sum(1).reshape(size, size)  # of each cell in a random order
    gem, pit = rank < gems, (rank >= gems) & (rank < gems + pits)
    block = (rank >= gems + pits) & (rank < gems + pits + blocks)
    return gem.astype(jnp.float32) - pit, block.astype(jnp.float32)


def gather_task(spec: StreamSpec, gems: int, pits: int, blocks: int, prize: float, levels: int, change: str) -> Task:
    size = spec.observation.shape[0]
    places, most = np.arange(size), levels * (len(spec.tasks) if change == "expand" else 1)

    def at(row: Array, column: Array) -> Array:
        return ((places[:, None] == row) & (places == column)).astype(jnp.float32)

    def look(board: Board) -> Array:
        return jnp.stack([at(board.row, board.column), board.worth, board.blocks], -1)

    def params(key: Key, visit: Visit) -> GridTask:
        task = jnp.asarray(visit.task, jnp.int32)
        numbers = jnp.arange(most) + (levels * task if change == "window" else 0)
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, LAYOUTS)))(numbers)
        worth, block = jax.lax.map(lambda each: laid_out(each, size, gems, pits, blocks), keys)
        many = levels * (task + 1) if change == "expand" else jnp.int32(levels)
        return GridTask(worth.astype(jnp.int8), block.astype(jnp.int8), many)

    def reset(key: Key, problem: GridTask) -> tuple[Board, Array]:
        drawn = jax.random.randint(key, (), 0, problem.many)
        worth, block = (jnp.float32(planes[drawn]) for planes in problem[:2])
        board = Board(jnp.int32(size // 2), jnp.int32(size // 2), worth, block)
        return board, look(board)

    def step(key: Key, board: Board, action: Array, problem: GridTask) -> tuple[Board, Array, Array, Array, Array]:
        down, right = jnp.asarray(MOVES)[action]
        row, column = jnp.clip(board.row + down, 0, size - 1), jnp.clip(board.column + right, 0, size - 1)
        free = (at(row, column) * board.blocks).sum() == 0
        row, column = jnp.where(free, row, board.row), jnp.where(free, column, board.column)
        here = at(row, column)
        reward = prize * (here * board.worth).sum()
        board = Board(row, column, board.worth * (1 - here), board.blocks)
        return board, look(board), reward, jnp.ones(()), jnp.zeros((), bool)

    return Task(spec, params, reset, step)


@metadata(
    paper="Juliani, Ash 2024, A Study of Plasticity Loss in On-Policy Deep Reinforcement Learning",
    example={"levels": 4, "tasks": 5, "steps_per_task": 20_000},
)
def gather(
    *,
    size: AtLeastThree = 9,
    gems: Gems = 5,
    pits: Others = 5,
    blocks: Others = 10,
    prize: Annotated[float, Field(gt=0)] = 0.75,
    change: Literal["window", "expand", "observation", "action", "none"] = "window",
    levels: Tasks = 10,
    episode_steps: Count = 100,
    tasks: Tasks = 10,
    steps_per_task: Count = 500_000,
    envs: Size = 1,
) -> StreamFactory:
    """A gridworld with gems to collect and pits to avoid, in random layouts: each task has its own layouts.

    Actions 0 ... 3 move up, down, left, right; blocks and the border stop the agent. ``reward = prize`` at a gem,
    ``-prize`` at a pit, once each. An episode starts in the centre of one of the task's layouts and is truncated after
    ``episode_steps`` with discount 1. Observations are float32[size, size, 3]: 1 at the agent; 1 at remaining gems and
    -1 at remaining pits; 1 at blocks.

    Juliani, Ash 2024, "A Study of Plasticity Loss in On-Policy Deep Reinforcement Learning": 9 x 9 cells inside walls,
    ten tasks.

    All settings are static. ``change``: ``window``, task ``u`` has the layouts ``levels * u ... levels * (u + 1) - 1``
    of the lane; ``expand``, all of them from 0 on; ``observation``, a permutation of the cells at each visit;
    ``action``, a permutation of the actions; ``none``. ``tasks``: number of visits, each of ``steps_per_task`` steps.

    ``ValueError`` if there are more objects than cells; a warning for visits shorter than an episode. Differences from
    the paper's program: objects may be anywhere but in the centre, gems and pits are never under a block, and shifts
    are counted in steps, not in updates.
    """
    things = gems + pits + blocks
    if things > size**2 - 1:
        raise ValueError(f"gems + pits + blocks: {things} is not allowed; size {size} has {size**2 - 1} cells for them")
    warn_if_short("steps_per_task", steps_per_task, episode_steps)
    shifts = change in ("window", "expand")
    names = tuple(f"layouts_{i}" for i in range(tasks)) if shifts else task_names("gather", change, tasks, 1)
    spec = small_spec((size, size, 3), 4, names, tasks, steps_per_task, envs, -prize, prize)
    task = gather_task(spec, gems, pits, blocks, prize, levels, change)
    return changed(stream(limited(task, episode_steps), envs), change)
