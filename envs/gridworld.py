"""A gridworld whose goal changes between tasks."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Natural, Size, Tasks, metadata
from plasticity.core.types import Array, Key, StreamSpec, Task, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import changed, limited, small_spec, stream, task_names
from plasticity.envs.episodes import warn_if_short

AtLeastTwo = Annotated[int, Field(ge=2, le=1024)]
Walls = Literal["none", "four_rooms", "nine_rooms"]

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right
ROOMS = {"none": 1, "four_rooms": 2, "nine_rooms": 3}  # number of rooms per side
GOALS = 0  # tag for keys derived from the parameters' key


def passable(here: tuple[int, int], there: tuple[int, int], width: int, walls: str) -> bool:
    """Whether there is no wall between two neighbouring cells; rooms are ``width`` cells wide."""
    rooms = {(row // width, column // width) for row, column in (here, there)}
    if len(rooms) == 1:
        return True
    along_a_row = here[0] == there[0]
    if walls == "nine_rooms" and along_a_row and here[0] // width == 1:
        return False  # the middle room has doors only at the top and bottom
    return here[0 if along_a_row else 1] % width == width // 2


def neighbours(size: int, walls: str) -> np.ndarray:
    """int32[cells, 4]: the cell that each action moves to; cell ``r * size + c`` is in row ``r``, column ``c``."""
    table = np.repeat(np.arange(size * size, dtype=np.int32)[:, None], len(MOVES), 1)
    for cell, (row, column) in enumerate(np.ndindex(size, size)):
        for action, (down, right) in enumerate(MOVES):
            there = (row + down, column + right)
            if all(0 <= x < size for x in there) and passable((row, column), there, size // ROOMS[walls], walls):
                table[cell, action] = there[0] * size + there[1]
    return table


def distances(table: np.ndarray) -> np.ndarray:
    """float32[cells, cells]: the length of the shortest path from the first cell to the second."""
    fewest = np.where(np.eye(len(table), dtype=bool), 0.0, np.inf)
    while True:
        better = np.minimum(fewest, 1 + fewest[table].min(1))
        if np.array_equal(better, fewest):
            return fewest.astype(np.float32)
        fewest = better


def goals(size: int, walls: str) -> np.ndarray:
    """Possible goal cells: all except the centre; with nine rooms, the five rooms beside and below the middle one."""
    row, column = np.divmod(np.arange(size * size), size)
    if walls != "nine_rooms":
        return np.flatnonzero((row != size // 2) | (column != size // 2))
    width = size // 3
    return np.flatnonzero((row // width > 0) & ((row // width != 1) | (column // width != 1)))


class GridTask(NamedTuple):
    """The parameters of a task."""

    goal: Array  # int32: index of the goal cell
    cost: Any  # float32[cells], the cost of a step from each cell; () if steps are free


def gridworld_task(spec: StreamSpec, walls: str, moving: bool, prize: float, shaping: float, start: str) -> Task:
    size, _, channels = spec.observation.shape
    table, cells, places = neighbours(size, walls), np.arange(size * size), goals(size, walls)
    costs = shaping * distances(table) if shaping else None

    def look(cell: Array, goal: Array) -> Array:
        planes = jnp.stack([cells == place for place in (cell, goal)[:channels]], -1)
        return planes.astype(jnp.float32).reshape(size, size, channels)

    def params(key: Key, visit: Visit) -> GridTask:
        order = jax.random.permutation(jax.random.fold_in(key, GOALS), jnp.asarray(places, jnp.int32))
        goal = order[visit.task % len(places) if moving else 0]
        return GridTask(goal, () if costs is None else jnp.asarray(costs)[:, goal])

    def reset(key: Key, problem: GridTask) -> tuple[Array, Array]:
        drawn = jax.random.randint(key, (), 0, size * size - 1)
        other = drawn + (drawn >= problem.goal)  # any cell except the goal
        cell = jnp.int32(other if start == "random" else (size // 2) * (size + 1))
        return cell, look(cell, problem.goal)

    def step(key: Key, cell: Array, action: Array, problem: GridTask) -> tuple[Array, Array, Array, Array, Array]:
        there = jnp.asarray(table)[cell, action]
        reached = there == problem.goal
        reward = jnp.where(reached, prize, 0.0) - (0.0 if costs is None else problem.cost[cell])
        return there, look(there, problem.goal), reward, jnp.where(reached, 0.0, 1.0), reached

    return Task(spec, params, reset, step)


def check_grid(size: int, walls: str, episode_steps: int, steps_per_task: int) -> None:
    rooms = ROOMS[walls]
    if size % rooms or (rooms > 1 and size // rooms < 2):
        raise ValueError(f"size: {size} is not allowed with walls: {walls}; must be {rooms} times 2 or more")
    warn_if_short("steps_per_task", steps_per_task, episode_steps)


@metadata(
    paper="Chung et al. 2024, Parseval Regularization for Continual Reinforcement Learning",
    example={"prize": 3.0, "shaping": 0.01, "tasks": 5, "steps_per_task": 10_000},
)
def gridworld(
    *,
    size: AtLeastTwo = 15,
    walls: Walls = "nine_rooms",
    change: Literal["goal", "observation", "action", "none"] = "goal",
    start: Literal["centre", "random"] = "centre",
    show_goal: bool = False,
    prize: Annotated[float, Field(gt=0)] = 1.0,
    shaping: Annotated[float, Field(ge=0)] = 0.0,
    episode_steps: Natural = 100,
    tasks: Tasks = 20,
    steps_per_task: Count = 40_000,
    envs: Size = 1,
) -> StreamFactory:
    """A gridworld with a hidden goal whose location changes with every task.

    Actions 0 ... 3 move up, down, left, right; walls and the border stop the agent. A step from cell ``c`` has
    ``reward = prize [the goal is reached] - shaping * (fewest steps from c to the goal)``. At the goal the episode ends
    with discount 0; after ``episode_steps`` (0: never) it is truncated with discount 1. Observations are
    float32[size, size, 1], 1 at the agent; with ``show_goal`` a second plane has 1 at the goal.

    Chung et al. 2024, "Parseval Regularization for Continual Reinforcement Learning": 15 x 15 cells in nine rooms, a
    new goal every 40,000 of 800,000 steps; their rewards are ``prize: 3`` and ``shaping: 0.01``.

    All settings are static. ``walls``: ``none``, ``four_rooms``, or ``nine_rooms`` with a door in the middle of each
    wall except the middle room's left and right walls. ``change``: ``goal``, a new goal; a lane's goals are distinct
    until all cells are used (with nine rooms they lie in the five rooms beside and below the middle one);
    ``observation``, a new permutation of the cells at each visit; ``action``, a new permutation of the actions;
    ``none``. ``start``: the centre, or any cell except the goal. ``tasks``: number of visits, each of
    ``steps_per_task`` steps.

    ``ValueError`` for a size that the rooms do not divide; a warning for visits shorter than an episode. Differences
    from the paper: the prize is given on reaching the goal, not for a further step from there, and goals are drawn
    without replacement.
    """
    check_grid(size, walls, episode_steps, steps_per_task)
    names = tuple(f"goal_{i}" for i in range(min(tasks, len(goals(size, walls)))))
    names = names if change == "goal" else task_names("gridworld", change, tasks, 1)
    low = -shaping * size**2
    spec = small_spec((size, size, 1 + show_goal), 4, names, tasks, steps_per_task, envs, low, prize)
    task = gridworld_task(spec, walls, change == "goal", prize, shaping, start)
    return changed(stream(limited(task, episode_steps), envs), change)
