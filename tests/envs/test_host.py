"""``host`` with a NumPy environment of known behaviour."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from playing import clock_at, lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import FIRST, LAST, MID, StreamSpec, VisitPlan
from plasticity.envs.host import Table, emulator_seeds, host

SPEC = StreamSpec(jax.ShapeDtypeStruct((3,), jnp.float32), 5, ("a", "b"), (VisitPlan(0, 9),) * 2, 2, True)


class Adder:
    """Observation ``[task, seed, sum of the actions of the episode]``; an episode lasts four steps."""

    opened: list["Adder"]

    def __init__(self, task: int, seeds: np.ndarray) -> None:
        self.task, self.seeds, self.time, self.total = task, seeds, 0, np.zeros(len(seeds))
        self.open = True
        type(self).opened.append(self)

    def see(self) -> np.ndarray:
        return np.stack([np.full(len(self.seeds), self.task), self.seeds % 1000, self.total], 1).astype(np.float32)

    def reset(self) -> np.ndarray:
        self.time, self.total = 0, np.zeros(len(self.seeds))
        return self.see()

    def step(self, actions: np.ndarray) -> Any:
        ones = np.ones(len(self.seeds), np.float32)
        if self.time == 4:
            return self.reset(), 0 * ones, ones, np.full(len(ones), FIRST, np.int8)
        self.time += 1
        self.total = self.total + actions
        last = self.time == 4
        return self.see(), actions.astype(np.float32), ones * (not last), np.full(len(ones), LAST if last else MID)

    def close(self) -> None:
        self.open = False


@pytest.fixture(autouse=True)
def opened() -> list[Adder]:
    Adder.opened = []
    return Adder.opened


def expected_sums(actions: np.ndarray) -> np.ndarray:
    """``[T, W, E] -> [1 + T, W, E]``: every fifth step is a reset."""
    sums = [np.zeros(actions.shape[1:])]
    for t, action in enumerate(actions, start=1):
        sums.append(np.zeros_like(sums[0]) if t % 5 == 0 else sums[-1] + action)
    return np.stack(sums)


def test_life_of_two_lanes() -> None:
    stream = host(SPEC, Adder, lanes=2, envs=2)
    actions = np.random.default_rng(0).integers(0, 5, (12, 2, 2)).astype(np.int32)
    life = play(player(stream), lane_keys(0, 1), visit_of(4, 1), actions)
    np.testing.assert_array_equal(life.observation[..., 2], expected_sums(actions))
    assert (life.observation[..., 0] == 1).all()
    types = np.array([FIRST, MID, MID, MID, LAST, FIRST, MID, MID, MID, LAST, FIRST, MID, MID])
    np.testing.assert_array_equal(life.step_type, np.broadcast_to(types[:, None, None], (13, 2, 2)))
    np.testing.assert_array_equal(life.reward[1:], np.where(types[1:, None, None] == FIRST, 0, actions))
    np.testing.assert_array_equal(life.discount, np.float32(types[:, None, None] != LAST) * np.ones((13, 2, 2)))


def test_seeds_differ_by_lane_env_and_visit_and_are_positive(opened: list[Adder]) -> None:
    stream = host(SPEC, Adder, lanes=2, envs=2)
    for visit in range(2):
        stream.reset(lane_keys(0, 1), visit_of(visit), jnp.int32(0))
    seeds = np.concatenate([pool.seeds for pool in opened])
    assert len(set(seeds.tolist())) == 8
    assert seeds.min() > 0
    alone = emulator_seeds(lane_keys(1), visit_of(0), 1)
    assert int(alone[0, 0]) == opened[0].seeds[2]


def test_a_switch_closes_the_old_emulators(opened: list[Adder]) -> None:
    stream = host(SPEC, Adder, lanes=1, envs=2)
    for visit in range(3):
        stream.reset(lane_keys(0), visit_of(visit, visit % 2), jnp.int32(0))
    assert [pool.open for pool in opened] == [False, False, True]
    stream.close()
    assert not opened[-1].open


def test_a_step_out_of_order_is_refused() -> None:
    stream = host(SPEC, Adder, lanes=1, envs=2)
    state, _ = stream.reset(lane_keys(0), visit_of(0), jnp.int32(0))
    actions = jnp.zeros((1, 2), jnp.int32)
    jax.block_until_ready(stream.step(lane_keys(0), state, actions, clock_at(0)))
    with pytest.raises(Exception, match="step 0 of visit 0 was requested from emulators that are at"):
        jax.block_until_ready(stream.step(lane_keys(0), state, actions, clock_at(0)))


def resumed(actions: np.ndarray, at: int, tamper: Any = dict) -> Any:
    """The time steps after ``at`` of a stream that was saved there and loaded into a new one."""
    before, keys = player(host(SPEC, Adder, 2, 2)), lane_keys(0, 1)
    state, _ = before.reset(keys, visit_of(1), jnp.int32(3))
    state, _ = before.steps(keys, state, actions[:at], jnp.int32(0))
    state = jax.block_until_ready(state)
    saved = {name: np.array(x) for name, x in before.stream.save().items()}
    after = player(host(SPEC, Adder, 2, 2))
    after.stream.load(tamper(saved))
    return after.steps(keys, state, actions[at:], jnp.int32(at))[1]


def test_a_resumed_stream_goes_on_as_if_nothing_had_happened() -> None:
    actions = random_actions(host(SPEC, Adder, 2, 2), 17, 2)
    life = play(player(host(SPEC, Adder, 2, 2)), lane_keys(0, 1), visit_of(1), actions)
    rest = resumed(actions, 7)
    jax.tree.map(np.testing.assert_array_equal, rest, jax.tree.map(lambda leaf: leaf[8:], life))


def test_more_actions_than_the_first_buffer_holds_are_recorded() -> None:
    stream = host(SPEC, Adder, 1, 2)
    actions = random_actions(stream, 2500, 1)
    play(player(stream), lane_keys(0), visit_of(0), actions)
    saved = stream.save()
    np.testing.assert_array_equal(saved["block0/actions"], actions[:, 0])
    assert saved["block0/actions"].dtype == np.uint8


def test_other_emulators_than_those_saved_are_refused() -> None:
    actions = random_actions(host(SPEC, Adder, 2, 2), 9, 2)

    def tamper(saved: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**saved, "block3/seeds": saved["block3/seeds"] + 1}

    with pytest.raises(RuntimeError, match="block 3: after 7 recorded actions"):
        resumed(actions, 7, tamper)


def test_a_resumed_stream_that_was_not_loaded_is_refused() -> None:
    with pytest.raises(Exception, match="a resumed stream needs `load` first"):
        jax.block_until_ready(resumed(random_actions(host(SPEC, Adder, 2, 2), 9, 2), 7, lambda saved: {}))


def test_blocks_on_two_devices_keep_apart() -> None:
    stream, lanes = host(SPEC, Adder, lanes=1, envs=2), PartitionSpec("lanes")
    mesh = Mesh(np.array(jax.devices("cpu")[:2]), ("lanes",))
    actions = np.random.default_rng(0).integers(0, 5, (60, 2, 2)).astype(np.int32)

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(lanes, lanes, PartitionSpec(None, "lanes")), out_specs=lanes)
    def lives(keys: Any, block: Any, actions: Any) -> Any:
        state, _ = stream.reset(keys, visit_of(0), block[0])
        _, steps = jax.lax.scan(lambda s, a: stream.step(keys, s, a, clock_at(0)), state, actions)
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), steps)

    steps = lives(lane_keys(0, 1), jnp.arange(2), actions)
    np.testing.assert_array_equal(np.moveaxis(steps.observation[..., 2], 0, 1), expected_sums(actions)[1:])
    seeds = np.asarray(steps.observation[:, 0, :, 1])
    np.testing.assert_array_equal(seeds, emulator_seeds(lane_keys(0, 1), visit_of(0), 2) % 1000)
    assert sorted(stream.save()) == sorted(
        f"block{i}/{name}" for i in range(2) for name in ("actions", "checksum", "seeds", "tasks", "visit")
    )


def test_lanes_in_different_tasks_have_pools_of_their_own() -> None:
    """Each env of the joined pool lives as in a pool of its task alone; a resumed block is the same."""
    tasks, seeds = np.array([1, 0, 1], np.int32), np.arange(1, 7, dtype=np.int32)
    table = Table(SPEC, Adder, lanes=3, envs=2)
    table.reset(0, 0, tasks, seeds)
    actions = np.random.default_rng(1).integers(0, 5, (8, 3, 2)).astype(np.int32)

    def pack(step: int, row: np.ndarray) -> np.ndarray:
        return np.concatenate([[0, 0, step], row.reshape(-1)]).astype(np.int32)

    lived = [table.step(pack(step, row))[1].observation for step, row in enumerate(actions)]
    for lane, task in enumerate(tasks):
        alone = Table(SPEC, Adder, lanes=1, envs=2)
        alone.reset(0, 0, np.array([task]), seeds[2 * lane : 2 * lane + 2])
        for step, row in enumerate(actions):
            seen = alone.step(pack(step, row[lane : lane + 1]))[1].observation
            np.testing.assert_array_equal(seen[0], lived[step][lane])
    again = Table(SPEC, Adder, lanes=3, envs=2)
    again.load(table.save())
    np.testing.assert_array_equal(again.blocks[0].newest, table.blocks[0].newest)
