"""The contract that every intervention satisfies."""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from update_loop import Loop, Run, make, traced, train

from plasticity.config.fields import TRACED, metadata_of
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention, compose
from plasticity.interventions.hooks import sees_switches
from plasticity.optim.optimizers import OPTIMIZERS, STREAMING, adam

Factory = Callable[..., Intervention]
KEY = jax.random.key(3)
MEMBERS = sorted(INTERVENTIONS)
NEUTRAL = [name for name in MEMBERS if metadata_of(INTERVENTIONS[name]).neutral is not None]


def settings_of(factory: Factory) -> Mapping[str, Any]:
    """Settings under which a member acts within four updates."""
    names = inspect.signature(factory).parameters
    short: dict[str, Any] = {"period": 2} if "period" in names else {}
    short |= {"tasks": 3, "retrain": 2} if "retrain" in names else {}
    short |= {"updates": 3} if "updates" in names else {}
    short |= {"keep_size": False} if "keep_size" in names else {}  # the network's widths are odd
    return {**short, **({"when": "periodic"} if "when" in names else {})}


def traced_of(factory: Factory) -> Mapping[str, float]:
    """The traced settings and their defaults."""
    hints = typing.get_type_hints(factory, include_extras=True)
    names = [name for name, hint in hints.items() if TRACED in getattr(hint, "__metadata__", ())]
    return {name: inspect.signature(factory).parameters[name].default for name in names}


def switching_of(factory: Factory) -> Mapping[str, tuple[str, ...]]:
    """The settings of which one value is "switch", and their values: the other values must not see task switches."""
    hints = typing.get_type_hints(factory)
    return {name: typing.get_args(hint) for name, hint in hints.items() if "switch" in typing.get_args(hint)}


def as_data(tree: Any) -> list[np.ndarray]:
    leaves = jax.tree.leaves(tree)
    return [np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in leaves]


def assert_same(a: Any, b: Any) -> None:
    for x, y in zip(as_data(a), as_data(b), strict=True):
        np.testing.assert_array_equal(x, y)


def life(loop: Loop, key: jax.Array, run: Run) -> Run:
    """Four updates, then a switch."""
    run = loop.switch(key, train(loop, key, run, 4), jnp.int32(4))
    return run._replace(learner=run.learner._replace(rest={}))


@pytest.mark.parametrize("name", MEMBERS)
def test_init_is_a_function_of_its_key(name: str) -> None:
    loop = make(INTERVENTIONS[name](**settings_of(INTERVENTIONS[name])), adam())
    assert_same(loop.init(KEY), loop.init(KEY))


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("name", MEMBERS)
def test_keeps_structure_shapes_and_dtypes_with_every_optimizer(name: str, optimizer: str) -> None:
    intervention, rule = INTERVENTIONS[name](**settings_of(INTERVENTIONS[name])), OPTIMIZERS[optimizer]()
    loop = make(intervention, rule, trace=traced) if optimizer in STREAMING else make(intervention, rule)
    before = jax.eval_shape(loop.init, KEY)
    after = jax.eval_shape(lambda key: life(loop, key, loop.init(key)), KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_settings_do_nothing(name: str) -> None:
    """Bit for bit, operation by operation (one compiled program may fuse multiply and add, another not)."""
    assert_same(three_updates(INTERVENTIONS[name](**metadata_of(INTERVENTIONS[name]).neutral)), undisturbed())


def three_updates(intervention: Intervention) -> Any:
    """Parameters and target network after them, parameters after a switch."""
    loop = make(intervention, adam(learning_rate=0.05))
    run = loop.init(KEY)
    for number in range(3):
        run = loop.update(KEY, run, jnp.int32(number))
    return run.learner.params, run.learner.target, loop.switch(KEY, run, jnp.int32(3)).learner.params


@functools.cache
def undisturbed() -> Any:
    return three_updates(compose())


GRIDS = ("weight_decay", "redo", "shrink_perturb")  # compiled now; the others are slow tests


@pytest.fixture(scope="module", params=[pytest.param(n, marks=[] if n in GRIDS else pytest.mark.slow) for n in MEMBERS])
def grid(request: pytest.FixtureRequest) -> Any:
    """Three lanes of a member with different settings and keys: the function, its inputs, its results, its traces."""
    factory, traces = INTERVENTIONS[request.param], []
    fixed = settings_of(factory)

    def loop_of(numbers: Mapping[str, jax.Array]) -> Loop:
        return make(factory(**fixed, **numbers), adam(learning_rate=0.05))

    def lane(key: jax.Array, run: Run, numbers: Mapping[str, jax.Array]) -> Any:
        traces.append(key)
        return life(loop_of(numbers), key, run).learner.params

    keys = jax.random.split(KEY, 3)
    numbers = {setting: default * jnp.array([1.0, 0.9, 0.5]) for setting, default in traced_of(factory).items()}
    runs = jax.vmap(lambda key, numbers: loop_of(numbers).init(key))(keys, numbers)
    together = jax.jit(jax.vmap(lane))
    return lane, together, (keys, runs, numbers), together(keys, runs, numbers), traces


def test_a_grid_is_one_program_whose_lanes_do_not_meet(grid: Any) -> None:
    """With other neighbours and in other places, a lane's result is the same, bit for bit."""
    _, together, lanes, lived, traces = grid
    swapped = together(*jax.tree.map(lambda x: x[jnp.array([1, 0, 0])], lanes))
    assert len(traces) == 1
    assert_same(jax.tree.map(lambda x: x[:2][::-1], swapped), jax.tree.map(lambda x: x[:2], lived))
    chex.assert_tree_all_finite(lived)
    first, last = jax.tree.leaves(lived)[-1][0], jax.tree.leaves(lived)[-1][2]
    assert not np.allclose(first, last)  # lanes have their own keys


@pytest.mark.slow
def test_a_lane_of_a_grid_is_a_run_alone(grid: Any) -> None:
    lane, _, lanes, lived, _ = grid
    alone = jax.jit(lane)(*jax.tree.map(lambda x: x[1], lanes))
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[1], lived), alone, rtol=1e-3, atol=1e-5)


RETENTION = {"l2_previous", "ewc", "mas", "synaptic_intelligence", "packnet", "a_gem", "clear", "behavioural_cloning"}
RETENTION |= {"kickstarting", "reset_and_distill", "old_policy_exploration"}
SEE_SWITCHES = {"at_switch", "fire", "modulation", "nap", "optimizer_reset", "reset", "shrink_perturb"} | RETENTION


def test_who_sees_switches() -> None:
    assert {name for name in MEMBERS if sees_switches(INTERVENTIONS[name])} == SEE_SWITCHES


@pytest.mark.parametrize("name", sorted(SEE_SWITCHES))
def test_switches_are_seen_only_where_a_setting_says_so(name: str) -> None:
    factory, switching = INTERVENTIONS[name], switching_of(INTERVENTIONS[name])
    assert factory(**dict.fromkeys(switching, "switch")).knows_tasks
    if switching:
        others = {
            setting: next(value for value in values if value != "switch") for setting, values in switching.items()
        }
        assert not factory(**others).knows_tasks


@pytest.mark.parametrize("name", MEMBERS)
def test_has_settings_by_keyword_and_a_source(name: str) -> None:
    factory = INTERVENTIONS[name]
    assert metadata_of(factory).paper
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(factory).parameters.values())


@pytest.mark.parametrize("name", MEMBERS)
def test_one_cond_for_each_schedule(name: str) -> None:
    """Each ``period`` is one ``cond``, and stays one under ``vmap`` over lanes, since the clock is not batched."""
    factory = INTERVENTIONS[name]
    schedules = [setting for setting in inspect.signature(factory).parameters if setting.endswith("period")]
    loop = make(factory(**settings_of(factory)), adam())
    keys = jax.random.split(KEY, 2)
    runs = jax.eval_shape(jax.vmap(loop.init), keys)
    jaxpr = jax.make_jaxpr(jax.vmap(loop.update, in_axes=(0, 0, None)))(keys, runs, jnp.int32(0))
    assert str(jaxpr).count(" cond[") == len(schedules)
