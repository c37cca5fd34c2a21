"""Streams with environments outside XLA: any vector environment on the host, stepped through a callback.

One compiled program serves every task of a stream; the host selects a block's emulators by the block's number. XLA does
not order the callbacks. A counter passes through each of them, so data dependence orders them, and the host checks the
counter. A block's next visit must not start before the steps of its last one are finished: the caller waits for their
results before it calls ``reset``, ``save``, ``load`` or ``close``.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from plasticity.core.types import FIRST, Array, Clock, Key, Stream, StreamSpec, TimeStep, Visit
from plasticity.envs.base import EMULATOR, chance, tasks_of

# Observation, float32 reward, float32 discount, int8 step type; float32[M, measures] too if the spec names measures.
Stepped = tuple[np.ndarray, ...]


class Pool(Protocol):
    """A vector of ``M`` environments on the host; takes and returns new NumPy arrays ``[M, ...]`` at each call.

    The step after LAST returns FIRST with reward 0 and ignores the action. If the stream's spec names measures,
    ``step`` also returns those of the step, float32[M, measures].
    """

    def reset(self) -> np.ndarray: ...

    def step(self, actions: np.ndarray) -> Stepped: ...

    def close(self) -> None: ...


MakePool = Callable[[int, np.ndarray], Pool]  # task, seeds int32[M, ...] -> Pool
# keys[W], visit, envs -> int32[W, E, ...]: each env's seed, or that and other numbers from which it is made
SeedsOf = Callable[[Key, Visit, int], Array]


class PoolGroup:
    """Several pools as one, for a block whose lanes are in different tasks.

    ``members``: for each pool, the indices of its environments in the group.
    """

    def __init__(self, pools: Sequence[Pool], members: Sequence[np.ndarray]) -> None:
        self.pools = pools
        self.back = np.argsort(np.concatenate(members))
        self.members = members

    def reset(self) -> np.ndarray:
        return np.concatenate([pool.reset() for pool in self.pools])[self.back]

    def step(self, actions: np.ndarray) -> Stepped:
        parts = [pool.step(actions[members]) for pool, members in zip(self.pools, self.members, strict=True)]
        return tuple(np.concatenate(arrays)[self.back] for arrays in zip(*parts, strict=True))

    def close(self) -> None:
        for pool in self.pools:
            pool.close()


def pool_of(make_pool: MakePool, tasks: np.ndarray, seeds: np.ndarray) -> Pool:
    """Make one pool for environments of the given tasks, int32[M]."""
    members = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    pools = [make_pool(int(tasks[each[0]]), seeds[each]) for each in members]
    return pools[0] if len(pools) == 1 else PoolGroup(pools, members)


class HostState(NamedTuple):
    """The compiled program's view of a block's emulators, int32[W].

    The number is the same for each lane: every state of a stream has the lanes on its leading axis.
    """

    block: Array
    visit: Array
    steps: Array  # since the start of the visit
    measures: Any = ()  # float32[W, E, measures], of the newest step; () if the spec names none


class Actions:
    """A growing array ``[T, M, ...]``."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.rows = np.empty((1024, *shape), dtype)
        self.count = 0

    def append(self, row: np.ndarray) -> None:
        if self.count == len(self.rows):
            self.rows = np.concatenate([self.rows, np.empty_like(self.rows)])
        self.rows[self.count] = row
        self.count += 1

    def taken(self) -> np.ndarray:
        return self.rows[: self.count]


class Block:
    """One block's emulators during one visit, and everything needed to restore them to the same point."""

    def __init__(self, pool: Pool, visit: int, tasks: np.ndarray, seeds: np.ndarray, actions: Actions) -> None:
        self.pool, self.visit, self.tasks, self.seeds, self.actions = pool, visit, tasks, seeds, actions
        self.newest = pool.reset()

    def step(self, actions: np.ndarray) -> Stepped:
        self.actions.append(actions)
        result = self.pool.step(actions)
        self.newest = result[0]
        return result

    def checksum(self) -> np.ndarray:
        return np.asarray(zlib.crc32(np.ascontiguousarray(self.newest).data), np.uint32)

    def saved(self) -> dict[str, np.ndarray]:
        return {
            "visit": np.asarray(self.visit, np.int32),
            "tasks": self.tasks,
            "seeds": self.seeds,
            "actions": self.actions.taken().copy(),
            "checksum": self.checksum(),
        }


class Table:
    """The emulators of all blocks of a stream; its methods ``reset`` and ``step`` run inside the callbacks."""

    def __init__(self, spec: StreamSpec, make_pool: MakePool, lanes: int, envs: int) -> None:
        self.make_pool, self.lanes, self.envs = make_pool, lanes, envs
        self.blocks: dict[int, Block] = {}
        self.discrete = spec.discrete
        small = spec.discrete and spec.actions <= 256
        self.action_type = np.uint8 if small else np.int32 if spec.discrete else np.float32
        self.action_shape = (lanes * envs,) if spec.discrete else (lanes * envs, spec.actions)

    def begin(self, block: int, visit: int, tasks: np.ndarray, seeds: np.ndarray) -> Block:
        """Create new emulators for a block, replacing its earlier ones."""
        if block in self.blocks:
            self.blocks.pop(block).pool.close()
        actions = Actions(self.action_shape, self.action_type)
        pool = pool_of(self.make_pool, np.repeat(tasks, self.envs), seeds)
        self.blocks[block] = Block(pool, visit, tasks, seeds, actions)
        return self.blocks[block]

    def lead(self, array: np.ndarray) -> np.ndarray:
        """``[M, ...] -> [W, E, ...]``."""
        return array.reshape(self.lanes, self.envs, *array.shape[1:])

    def reset(self, block: Any, visit: Any, tasks: Any, seeds: Any) -> tuple[Any, np.ndarray]:
        numbers = np.array(seeds)
        each = numbers.reshape(self.lanes * self.envs, *numbers.shape[2:])
        started = self.begin(int(block), int(visit), np.array(tasks), each)
        return np.int32(0), self.lead(started.newest)

    def step(self, packed: Any) -> tuple[Any, ...]:
        """``packed`` int32: block, visit, steps since its start, and the bits of the actions."""
        numbers = np.asarray(packed)
        block, visit, steps = numbers[:3].tolist()
        here = self.blocks.get(block)
        known = None if here is None else (here.visit, here.actions.count)
        if here is None or known != (visit, steps):
            raise RuntimeError(
                f"block {block}: step {steps} of visit {visit} was requested from emulators that are at "
                f"(visit, step) {known}; a resumed stream needs `load` first"
            )
        actions = numbers[3:] if self.discrete else numbers[3:].view(np.float32)
        taken = actions.reshape(self.action_shape).astype(self.action_type)
        observation, reward, discount, step_type, *measures = (self.lead(x) for x in here.step(taken))
        timestep: Any = (np.int8(step_type), np.float32(reward), np.float32(discount), observation)
        return np.int32(here.actions.count), TimeStep(*timestep), *map(np.float32, measures)

    def save(self) -> dict[str, np.ndarray]:
        return {f"block{i}/{name}": x for i, block in self.blocks.items() for name, x in block.saved().items()}

    def load(self, saved: Mapping[str, np.ndarray]) -> None:
        self.close()
        for block in sorted({name.split("/")[0] for name in saved}):
            field = {name.split("/")[1]: x for name, x in saved.items() if name.split("/")[0] == block}
            self.replay(int(block.removeprefix("block")), field)

    def replay(self, number: int, field: Mapping[str, np.ndarray]) -> None:
        """Replay a block's recorded actions on new emulators; ``RuntimeError`` if they end in a different state."""
        block = self.begin(number, int(field["visit"]), np.asarray(field["tasks"]), np.asarray(field["seeds"]))
        for actions in field["actions"]:
            block.step(actions)
        if block.checksum() != field["checksum"]:
            raise RuntimeError(
                f"block {number}: after {len(field['actions'])} recorded actions the observations differ "
                "from those when saved; check that the emulator's version and the stream's settings are the same"
            )

    def close(self) -> None:
        while self.blocks:
            self.blocks.popitem()[1].pool.close()


def emulator_seeds(keys: Key, visit: Visit, envs: int) -> Array:
    """int32[W, E], at least 1: different for every lane, env, visit and replica; the same for every arm."""

    def one(key: Key, env: Array) -> Array:
        key = jax.random.fold_in(chance(key, visit), EMULATOR)
        key = jax.random.fold_in(jax.random.fold_in(key, visit.number), env)
        return jax.random.randint(key, (), 1, np.iinfo(np.int32).max)

    return jax.vmap(lambda key: jax.vmap(lambda env: one(key, env))(jnp.arange(envs)))(keys)


def host(spec: StreamSpec, make_pool: MakePool, lanes: int, envs: int, seeds_of: SeedsOf = emulator_seeds) -> Stream:
    """Build a stream of emulators on the host, ``lanes`` x ``envs`` (static) per block.

    Env ``e`` of lane ``w`` is env ``w * envs + e`` of its block's pool. At every ``reset``, ``make_pool(task, seeds)``
    is called on the host for each task of the block's lanes, with the task's number and the numbers of ``seeds_of`` for
    each env: an int32 seed and, in some streams, numbers that define the lane's task and depend on its data key and
    ``visit.task`` only. ``save`` returns each block's seeds and actions of this visit and a checksum of its newest
    observation. ``load`` creates new emulators and replays the actions, which takes as long as the original steps. This
    is exact if the emulators are deterministic; ``RuntimeError`` if the checksum differs.
    """
    table = Table(spec, make_pool, lanes, envs)
    scalar = jax.ShapeDtypeStruct((), jnp.int32)

    def each(dtype: Any, shape: tuple[int, ...] = ()) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((lanes, envs, *shape), dtype)

    observation = each(spec.observation.dtype, spec.observation.shape)
    timestep = TimeStep(each(jnp.int8), each(jnp.float32), each(jnp.float32), observation)  # type: ignore[arg-type]
    rows = [each(jnp.float32, (len(spec.measures),))] if spec.measures else []

    def reset(keys: Key, visit: Visit, block: Array) -> tuple[HostState, TimeStep]:
        seeds = seeds_of(keys, visit, envs)
        steps, seen = io_callback(
            table.reset, (scalar, observation), block, visit.number, tasks_of(visit, lanes), seeds
        )
        opening = TimeStep(
            jnp.full((lanes, envs), FIRST, jnp.int8), jnp.zeros((lanes, envs)), jnp.ones((lanes, envs)), seen
        )
        blank = [jnp.zeros(row.shape, row.dtype) for row in rows]
        return HostState(*(jnp.full(lanes, x, jnp.int32) for x in (block, visit.number, steps)), *blank), opening

    def step(keys: Key, state: HostState, actions: Array, clock: Clock) -> tuple[HostState, TimeStep]:
        del keys, clock
        # One array: each argument of a callback costs 20 microseconds.
        bits = actions if spec.discrete else jax.lax.bitcast_convert_type(actions.astype(jnp.float32), jnp.int32)
        packed = jnp.concatenate([jnp.stack([x[0] for x in state[:3]]), bits.astype(jnp.int32).reshape(-1)])
        steps, seen, *measures = io_callback(table.step, (scalar, timestep, *rows), packed)
        return HostState(state.block, state.visit, jnp.full(lanes, steps), *measures), seen

    stream = Stream(
        spec._replace(envs=envs), reset, step, save=table.save, load=table.load, close=table.close, emulated=True
    )
    return stream._replace(measures=lambda state, timestep: state.measures) if spec.measures else stream
