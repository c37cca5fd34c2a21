"""``vectorise`` on a known task: episodes of three steps, rewarded with the action."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import clock_at, lane_keys, play, player, visit_of

from plasticity.core.types import FIRST, LAST, MID, StreamSpec, Task, Visit, VisitPlan
from plasticity.envs.base import chance, over, vectorise


def counting(episodic: bool, calls: list[str]) -> Task:
    """Observation = 100 * visit + steps in the episode."""
    spec = StreamSpec(jax.ShapeDtypeStruct((), jnp.float32), 9, ("a",), (VisitPlan(0, 9),), 1, episodic)

    def params(key: Any, visit: Visit) -> Any:
        return 100.0 * visit.number

    def reset(key: Any, params: Any) -> Any:
        calls.append("reset")
        return jnp.int32(0), params

    def step(key: Any, state: Any, action: Any, params: Any) -> Any:
        last = (state == 2) if episodic else jnp.zeros((), bool)
        return state + 1, params + state + 1, action, jnp.where(last, 0.0, 1.0), last

    return Task(spec, params, reset, step)


@pytest.mark.parametrize(("lanes", "envs"), [(1, 1), (1, 2), (2, 1), (2, 3)])
def test_next_step_reset(lanes: int, envs: int) -> None:
    stream = vectorise(counting(True, []), lanes, envs)
    actions = jnp.broadcast_to(jnp.arange(1, 10)[:, None, None], (9, lanes, envs))
    life = play(player(stream), lane_keys(*range(lanes)), visit_of(2), actions)
    expected = {
        "step_type": [FIRST, MID, MID, LAST, FIRST, MID, MID, LAST, FIRST, MID],
        "reward": [0, 1, 2, 3, 0, 5, 6, 7, 0, 9],
        "discount": [1, 1, 1, 0, 1, 1, 1, 0, 1, 1],
        "observation": [200, 201, 202, 203, 200, 201, 202, 203, 200, 201],
    }
    for field, values in expected.items():
        full = np.broadcast_to(np.array(values)[:, None, None], (10, lanes, envs))
        np.testing.assert_array_equal(getattr(life, field), full, err_msg=field)


def test_spec_has_the_number_of_envs() -> None:
    assert vectorise(counting(True, []), 1, 5).spec.envs == 5


def primitives(lanes: int, envs: int) -> str:
    stream = vectorise(counting(True, []), lanes, envs)
    keys = lane_keys(*range(lanes))
    state, _ = stream.reset(keys, visit_of(0), jnp.int32(0))
    return str(jax.make_jaxpr(stream.step)(keys, state, jnp.zeros((lanes, envs)), clock_at(0)))


def test_one_env_of_one_lane_is_not_batched() -> None:
    """The branch survives: only one of reset and step runs."""
    assert " cond[" in primitives(1, 1)
    assert " cond[" not in primitives(2, 1)
    assert " cond[" not in primitives(1, 2)


def test_no_reset_is_compiled_into_the_steps_of_an_endless_task() -> None:
    calls: list[str] = []
    stream = vectorise(counting(False, calls), 2, 2)
    state, _ = stream.reset(lane_keys(0, 1), visit_of(0), jnp.int32(0))
    resets = len(calls)
    stream.step(lane_keys(0, 1), state, jnp.zeros((2, 2)), clock_at(0))
    assert len(calls) == resets > 0


@pytest.mark.parametrize("size", [1, 3])
def test_over_maps_keys_and_arrays(size: int) -> None:
    keys, values = lane_keys(*range(size)), jnp.arange(size)
    drawn, doubled = over(lambda key, x: (jax.random.normal(key, (2,)), 2 * x), size)(keys, values)
    np.testing.assert_array_equal(drawn, np.stack([jax.random.normal(key, (2,)) for key in keys]))
    np.testing.assert_array_equal(doubled, 2 * np.arange(size))


def test_replica_0_is_the_visit_itself_traced_or_not() -> None:
    key = jax.random.key(3)
    traced = jax.jit(
        lambda eval_replica: jax.random.key_data(chance(key, Visit(jnp.int32(1), jnp.int32(0), eval_replica)))
    )
    data = [np.asarray(traced(eval_replica)).tolist() for eval_replica in (0, 1, 2)]
    assert data[0] == jax.random.key_data(key).tolist()
    assert jax.random.key_data(chance(key, visit_of(1))).tolist() == data[0]
    assert len({tuple(each) for each in data}) == 3


def test_lanes_may_be_in_different_tasks() -> None:
    """A lane sees the same as if the visit set its task for all lanes."""
    task = counting(True, [])
    named = task._replace(params=lambda key, visit: 100.0 * visit.task)
    stream, keys, tasks = vectorise(named, 2, 1), lane_keys(0, 1), jnp.array([4, 1])
    _, opening = stream.reset(keys, Visit(jnp.int32(0), tasks), jnp.int32(0))
    np.testing.assert_array_equal(opening.observation[:, 0], [400, 100])


def test_params_of_the_moment() -> None:
    """``at`` sees the params of the visit at every step, and where the visit is entered late."""
    task = counting(False, [])._replace(at=lambda params, step: params + 10.0 * step)
    stream = vectorise(task, 1, 1)
    life = play(player(stream), lane_keys(0), visit_of(2), jnp.zeros((4, 1, 1)))
    np.testing.assert_array_equal(life.observation[:, 0, 0], [200, 201, 212, 223, 234])
    _, opening = stream.reset(lane_keys(0), visit_of(2)._replace(elapsed=jnp.int32(7)), jnp.int32(0))
    assert opening.observation == 270
