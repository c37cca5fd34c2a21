"""Tests of memory.

What was seen at the start of an episode decides what is right at its end.
"""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Natural, Size, Tasks, metadata
from plasticity.core.types import Array, Key, StreamSpec, Task, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import changed, limited, small_spec, stream, task_names
from plasticity.envs.episodes import warn_if_short
from plasticity.envs.gridworld import MOVES

Length = Annotated[int, Field(ge=1, le=1_000_000)]
Steps = Annotated[int, Field(ge=0, le=1_000_000)]
Symbols = Annotated[int, Field(ge=2, le=1024)]
Distractors = Annotated[int, Field(ge=0, le=1024)]
StaticPositive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
StaticNonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Change = Literal["mapping", "observation", "action", "none"]


def mappings(change: str, visits: int, cues: int, name: str) -> tuple[str, ...]:
    """Names of the tasks."""
    if change == "mapping":
        return tuple(f"mapping_{i}" for i in range(min(visits, cues)))
    return task_names(name, change, visits, 1)


def shift_of(change: str) -> Callable[[Key, Visit], Array]:
    """The parameter of a task: in task ``u``, ``(cue + shift) mod cues`` is right, with ``shift = u`` if it changes."""
    return lambda key, visit: jnp.asarray(visit.task if change == "mapping" else 0, jnp.int32)


class Maze(NamedTuple):
    """The state of one env."""

    place: Array  # int32[]: 0 at the start, ``length`` at the junction
    cue: Array  # int32[]: 0 or 1


def t_maze_task(spec: StreamSpec, length: int, prize: float, penalty: float, params: Callable[..., Array]) -> Task:
    """The parameter of a task is a shift of the right arms; see :func:`t_maze`."""
    ahead = np.asarray(MOVES)[:, 1]  # along the corridor

    def look(maze: Maze) -> Array:
        return jax.nn.one_hot(jnp.where(maze.place == 0, maze.cue, jnp.where(maze.place == length, 3, 2)), 4)

    def reset(key: Key, shift: Array) -> tuple[Maze, Array]:
        maze = Maze(jnp.int32(0), jax.random.randint(key, (), 0, 2))
        return maze, look(maze)

    def step(key: Key, maze: Maze, action: Array, shift: Array) -> tuple[Maze, Array, Array, Array, Array]:
        last = (maze.place == length) & (jnp.asarray(ahead)[action] == 0)
        place = jnp.clip(maze.place + jnp.asarray(ahead)[action], 0, length)
        right = last & (action == (maze.cue + shift) % 2)
        stays = place == maze.place  # also in a step into an arm
        reward = jnp.where(right, prize, jnp.where(stays, -penalty, 0.0))
        maze = Maze(place, maze.cue)
        return maze, look(maze), reward, jnp.where(last, 0.0, 1.0), last

    return Task(spec, params, reset, step)


@metadata(
    paper="Bakker 2002, Reinforcement Learning with Long Short-Term Memory",
    example={"length": 10, "tasks": 4, "steps_per_task": 5000},
)
def t_maze(
    *,
    length: Length = 10,
    prize: StaticPositive = 4.0,
    penalty: StaticNonNegative = 0.1,
    episode_steps: Natural = 200,
    change: Change = "mapping",
    tasks: Tasks = 10,
    steps_per_task: Count = 20_000,
    envs: Size = 1,
) -> StreamFactory:
    """A corridor that ends in a T-junction; a cue that is visible only at the start says which arm has the prize.

    Actions 0 ... 3 move up, down, left, right. The junction is ``length`` cells to the right of the start; there, up
    and down end the episode with discount 0. ``reward = prize`` in the right arm, ``-penalty`` in the wrong arm and in
    every step that does not move, otherwise 0. After ``episode_steps`` (0: never) the episode is truncated with
    discount 1. Observations are float32[4], one-hot: the two cues, the corridor, the junction.

    A policy with memory obtains the return ``prize``, in ``length + 1`` steps. No policy without memory exceeds the
    chance level ``(prize - penalty) / 2``: the two cues are equally likely and the junction looks the same after both.
    Bakker 2002, "Reinforcement Learning with Long Short-Term Memory", with the rewards of the paper; there, the same
    four observations are coded with three bits.

    All settings are static. ``change``: ``mapping``, the right arm is up after cue 0 and down after cue 1 in even
    tasks, the reverse in odd ones; ``observation``, a permutation of the observation at each visit; ``action``, a
    permutation of the actions; ``none``. ``tasks``: number of visits, each of ``steps_per_task`` steps.

    ``ValueError`` if ``episode_steps`` is too short for the maze or ``penalty`` exceeds ``prize``; a warning for visits
    shorter than an episode.
    """
    if penalty > prize:
        raise ValueError(f"penalty: {penalty:g} is not allowed; must be at most prize, which is {prize:g}")
    if 0 < episode_steps <= length:
        raise ValueError(
            f"episode_steps: {episode_steps} is not allowed with length: {length}; must be 0 or at least {length + 1}"
        )
    warn_if_short("steps_per_task", steps_per_task, episode_steps or length + 1)
    names = mappings(change, tasks, 2, "t_maze")
    spec = small_spec((4,), len(MOVES), names, tasks, steps_per_task, envs, -penalty, prize)
    task = t_maze_task(spec, length, prize, penalty, shift_of(change))
    return changed(stream(limited(task, episode_steps), envs), change)


class Episode(NamedTuple):
    """The state of one env."""

    cue: Array  # int32[]
    time: Array  # int32[], steps since the episode began


def recall_task(spec: StreamSpec, symbols: int, delay: int, distractors: int, params: Callable[..., Array]) -> Task:
    """The parameter of a task is a shift of the right answers; see :func:`recall`."""
    inputs = spec.observation.shape[0]

    def reset(key: Key, shift: Array) -> tuple[Episode, Array]:
        cue = jax.random.randint(key, (), 0, symbols)
        return Episode(cue, jnp.int32(0)), jax.nn.one_hot(cue, inputs)

    def step(key: Key, state: Episode, action: Array, shift: Array) -> tuple[Episode, Array, Array, Array, Array]:
        asked = state.time == delay + 1
        right = asked & (action == (state.cue + shift) % symbols)
        time = state.time + 1
        between = jax.random.randint(key, (), symbols, symbols + distractors) if distractors else -1
        shown = jnp.where(time == delay + 1, inputs - 1, jnp.where(asked, -1, between))  # -1: zeros
        return Episode(state.cue, time), jax.nn.one_hot(shown, inputs), right, jnp.where(asked, 0.0, 1.0), asked

    return Task(spec, params, reset, step)


@metadata(
    paper="Osband et al. 2020, Behaviour Suite for Reinforcement Learning",
    example={"symbols": 2, "delay": 10, "tasks": 4, "steps_per_task": 5000},
)
def recall(
    *,
    symbols: Symbols = 4,
    delay: Steps = 20,
    distractors: Distractors = 2,
    change: Change = "mapping",
    tasks: Tasks = 10,
    steps_per_task: Count = 20_000,
    envs: Size = 1,
) -> StreamFactory:
    """A cue is shown once, then ``delay`` distractors; the agent must then name the cue.

    An episode shows one of ``symbols`` cues, ``delay`` observations of one of ``distractors`` random distractors each
    (0: blank observations), and the question. The action on the question ends the episode with discount 0: ``reward =
    1`` if it is right, otherwise 0; the ``delay + 1`` actions before it have no effect. Observations are one-hot,
    float32[symbols + distractors + 1], the question last.

    The return is the accuracy. A policy with memory obtains 1; every policy without memory is at the chance level ``1 /
    symbols``, since the cues are equally likely and the question is always the same. Like ``memory_len`` of Osband et
    al. 2020, "Behaviour Suite for Reinforcement Learning", where the cue is one bit and a wrong answer costs 1.

    All settings are static. ``change``: ``mapping``, in task ``u`` the right answer to cue ``c`` is ``(c + u) mod
    symbols``; ``observation``, a permutation of the observation at each visit; ``action``, a permutation of the
    actions; ``none``. ``tasks``: number of visits, each of ``steps_per_task`` steps.

    A warning if a visit is shorter than an episode.
    """
    warn_if_short("steps_per_task", steps_per_task, delay + 2)
    names = mappings(change, tasks, symbols, "recall")
    spec = small_spec((symbols + distractors + 1,), symbols, names, tasks, steps_per_task, envs, 0, 1)
    return changed(stream(recall_task(spec, symbols, delay, distractors, shift_of(change)), envs), change)
