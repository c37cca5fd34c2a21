"""A continuing, partially observable world in which an agent looks for food."""

from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Natural, Size, Tasks, metadata
from plasticity.core.types import Array, Key, StreamSpec, Task, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import schedule, stream
from plasticity.envs.gridworld import MOVES

Side = Annotated[int, Field(ge=3, le=256)]
Aperture = Annotated[int, Field(ge=1, le=255)]
Delay = Annotated[int, Field(ge=1, le=1_000_000)]
Rewards = Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1, max_length=100)]
Densities = Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1, max_length=100)]
Biomes = Annotated[tuple[Densities, ...], Field(min_length=1, max_length=256)]

MAP, REWARDS = range(2)  # tags for keys derived from the parameters' key


class World(NamedTuple):
    """What a lane faces during one visit."""

    kinds: Array  # int8[size, size]: the kind of the object in each cell, from 1; 0: none
    rewards: Array  # float32[kinds]


class Forage(NamedTuple):
    """The state of one env."""

    row: Array
    column: Array
    kinds: Array  # int8[size, size], as in World; an object that has been eaten keeps a cell
    back: Array  # int32[size, size]: the time from which the cell's object is there
    time: Array  # int32[], steps since the visit began


def bands(size: int, biomes: int) -> np.ndarray:
    """int[size]: the biome of each column; the biomes are vertical bands of (nearly) equal width."""
    return np.arange(size) * biomes // size


def drawn_map(key: Key, size: int, densities: np.ndarray) -> Array:
    """int8[size, size]: kinds of objects, drawn for each cell with its biome's ``densities[biome, kind]``."""
    limits = np.cumsum(densities, 1)[bands(size, len(densities))]  # [size, kinds]
    below = (jax.random.uniform(key, (size, size, 1)) >= limits).sum(-1)
    return jnp.where(below == densities.shape[1], 0, below + 1).astype(jnp.int8)


def vacancy(key: Key, vacant: Array) -> tuple[Array, Array]:
    """Row and column of a cell drawn uniformly among those where ``vacant``, bool[size, size]."""
    rank = jnp.cumsum(vacant.ravel())
    cell = (rank > jax.random.randint(key, (), 0, jnp.maximum(rank[-1], 1))).argmax()
    return cell // vacant.shape[1], cell % vacant.shape[1]


def task_rewards(key: Key, task: Array, rewards: np.ndarray, change: str) -> Array:
    """float32[kinds]: the rewards of a task (traced) at its beginning."""
    if change == "cycle":
        return jnp.asarray(rewards)[(jnp.arange(len(rewards)) + task) % len(rewards)]
    if change == "new":
        own = jax.random.fold_in(jax.random.fold_in(key, REWARDS), task)
        drawn = jax.random.uniform(own, rewards.shape, minval=rewards.min(), maxval=rewards.max())
        return jnp.where(task == 0, rewards, drawn)
    return jnp.asarray(rewards)


def forager_task(
    spec: StreamSpec, size: int, rewards: np.ndarray, densities: np.ndarray, elsewhere: bool, delay: int, change: str,
    period: int,
) -> Task:  # fmt: skip
    aperture, _, kinds = spec.observation.shape
    offsets, biome, moves = np.arange(aperture) - aperture // 2, bands(size, len(densities)), np.asarray(MOVES)

    def look(state: Forage) -> Array:
        window = ((state.row + offsets) % size)[:, None], (state.column + offsets) % size
        seen = jnp.where(state.back[window] <= state.time, state.kinds[window], 0)
        return (seen[..., None] == np.arange(1, kinds + 1)).astype(jnp.float32)

    def params(key: Key, visit: Visit) -> World:
        drawn = jax.random.fold_in(key, MAP)
        drawn = jax.random.fold_in(drawn, visit.task) if change == "map" else drawn
        return World(drawn_map(drawn, size, densities), task_rewards(key, visit.task, rewards, change))

    def at(world: World, step: Array) -> World:
        return world._replace(rewards=world.rewards * jnp.cos(2 * jnp.pi * (step % period) / period))

    def reset(key: Key, world: World) -> tuple[Forage, Array]:
        row, column = jax.random.randint(key, (2,), 0, size)
        state = Forage(row, column, world.kinds, jnp.zeros((size, size), jnp.int32), jnp.int32(0))
        return state, look(state)

    def step(key: Key, state: Forage, action: Array, world: World) -> tuple[Forage, Array, Array, Array, Array]:
        down, right = jnp.asarray(moves)[action]
        row, column, time = (state.row + down) % size, (state.column + right) % size, state.time + 1
        kind = state.kinds[row, column]
        eaten = (kind > 0) & (state.back[row, column] <= time)
        reward = jnp.where(eaten, world.rewards[kind - 1], 0.0)
        place, objects = (row, column), state.kinds
        if elsewhere:
            objects = objects.at[place].set(jnp.where(eaten, 0, kind))
            place = vacancy(key, (objects == 0) & (biome == jnp.asarray(biome)[column]))
            objects = objects.at[place].set(jnp.where(eaten, kind, objects[place]))
        back = state.back.at[place].set(jnp.where(eaten, time + delay, state.back[place]))
        state = Forage(row, column, objects, back, time)
        return state, look(state), reward, jnp.ones(()), jnp.zeros((), bool)

    return Task(spec, params, reset, step, at if change == "sine" else None)


def check_world(size: int, aperture: int, rewards: Rewards, biomes: Biomes, change: str) -> None:
    if aperture % 2 == 0 or aperture > size:
        raise ValueError(f"aperture: {aperture} is not allowed; must be odd and at most size, which is {size}")
    if len(biomes) > size:
        raise ValueError(f"biomes: {len(biomes)} are not allowed; there are {size} columns for them")
    for row in biomes:
        if len(row) != len(rewards) or sum(row) > 1 + 1e-6:
            raise ValueError(
                f"biomes: {list(row)} is not allowed; each biome needs a density for each of the {len(rewards)} "
                "rewards, with a sum of at most 1"
            )
    if not np.any(biomes):
        raise ValueError("biomes: all densities are 0; at least one must be above 0, or there is nothing to eat")
    if not np.any(rewards):
        raise ValueError(f"rewards: {list(rewards)} is not allowed; at least one must differ from 0")
    if change in ("cycle", "new") and len(set(rewards)) == 1:
        raise ValueError(f"rewards: {list(rewards)} is not allowed with change: {change}; needs two different numbers")


def tasks_of(change: str, visits: int, kinds: int) -> tuple[str, ...]:
    """Names of the tasks."""
    if change in ("sine", "none"):
        return ("forager",)
    count = min(visits, kinds) if change == "cycle" else visits
    return tuple(f"{'map' if change == 'map' else 'rewards'}_{i}" for i in range(count))


@metadata(
    paper="Tang et al. 2026, Forager: a lightweight testbed for continual learning with partial observability in "
    "reinforcement learning",
    example={"change": "cycle", "tasks": 4, "steps_per_task": 10_000},
    only_with={"period": {"change": ("sine",)}},
)
def forager(
    *,
    size: Side = 15,
    aperture: Aperture = 5,
    rewards: Rewards = (1.0, -1.0),
    biomes: Biomes = ((0.1, 0.02), (0.02, 0.1)),
    respawn: Literal["same", "elsewhere"] = "same",
    delay: Delay = 50,
    change: Literal["cycle", "new", "sine", "map", "none"] = "cycle",
    period: Natural = 0,
    tasks: Tasks = 10,
    steps_per_task: Count = 50_000,
    envs: Size = 1,
) -> StreamFactory:
    """A world without borders or episodes, of which the agent sees the cells around it; food comes back after a delay.

    Actions 0 ... 3 move up, down, left, right by one cell on a torus of ``size`` x ``size`` cells. An object of kind
    ``k`` in the cell that the agent enters is eaten: ``reward = rewards[k]``, otherwise 0. It comes back ``delay``
    steps later, in the ``same`` cell or ``elsewhere``, in any free cell of its biome. Observations are
    float32[aperture, aperture, kinds] with the agent in the centre: 1 at the objects of each kind. The process is
    continuing: the discount is 1, no episode ends, and performance is the reward rate, the mean reward per step.

    Tang et al. 2026, "Forager: a lightweight testbed for continual learning with partial observability in reinforcement
    learning": agents with memory or other state construction gain more there than from methods against loss of
    plasticity.

    All settings are static. ``rewards``: one for each kind of object. ``biomes``: vertical bands of equal width, from
    left to right; each gives the probability that a cell holds an object of each kind. The map is drawn once per lane.
    ``change``, between visits: ``cycle``, the kinds exchange their rewards (kind ``k`` has ``rewards[(k + u) mod
    kinds]`` in task ``u``); ``new``, from task 1 on, rewards drawn uniformly between the lowest and the highest of
    ``rewards``; ``map``, a new map; ``none``. With ``sine`` they change gradually, like a temperature: ``rewards[k] *
    cos(2 pi t / period)`` in step ``t = 0, 1, ...`` of a visit; ``period`` is in steps, 0: ``steps_per_task``.
    ``tasks``: number of visits, each of ``steps_per_task`` steps.

    ``gather`` differs in everything but the moves: episodes, a visible board inside walls, and objects that are
    collected once.

    ``ValueError`` if ``aperture`` is even or exceeds ``size``, if a biome does not match ``rewards``, if all densities
    or all rewards are 0, or if equal rewards are to be exchanged. This is a design of its own after the public
    description: sizes, densities, delays and rewards are not the paper's, whose program also has objects that block and
    observations in colour. At a switch the agent moves to a random cell and all objects are back on the map; for
    changes without a restart, use ``sine`` in a single visit.
    """
    check_world(size, aperture, rewards, biomes, change)
    worth = np.asarray(rewards, np.float32)
    names = tasks_of(change, tasks, len(rewards))
    most = float(np.abs(worth).max())
    spec = StreamSpec(
        observation=jax.ShapeDtypeStruct((aperture, aperture, len(rewards)), jnp.float32),
        actions=len(MOVES),
        tasks=names,
        visits=schedule(len(names), tasks, steps_per_task),
        envs=envs,
        episodic=False,
        reward_name="reward_rate",
        reward_range=(-most, most) if change == "sine" else (min(0.0, *rewards), max(0.0, *rewards)),
    )
    densities = np.asarray(biomes)
    task = forager_task(spec, size, worth, densities, respawn == "elsewhere", delay, change, period or steps_per_task)
    return stream(task, envs)
