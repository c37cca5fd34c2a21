"""The contract that every agent satisfies."""

import functools
import typing
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import SOME_SOON, agent, clock_at, lived, program, run, source

from plasticity.agents import AGENTS
from plasticity.config.fields import TRACED
from plasticity.core import trees
from plasticity.core.types import Agent
from plasticity.engine.flops import flops_of
from plasticity.optim.schedules import constant

KEY = jax.random.key(3)
STEPS = 14


@functools.cache
def made(name: str) -> Agent:
    return agent(name, source(name).spec)


@functools.cache
def life(name: str) -> Any:
    """State and transitions of two lanes, ``[2, ...]``."""
    return jax.jit(jax.vmap(lambda seed: lived(name, made(name), STEPS, seed)))(jnp.arange(2))


def lane(name: str, i: int = 0) -> Any:
    return jax.tree.map(lambda x: x[i], life(name))


def newest(name: str) -> Any:
    """A state, and a transition that the agent has not learned from yet."""
    state, pairs = lane(name)
    return state, jax.tree.map(lambda x: x[-1], pairs)


def as_data(tree: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def kernels(state: Any) -> list[Any]:
    params = state.learner.params
    return [trees.get(params, path) for path in trees.paths(params) if path[-1] == "kernel"]


def drawn_apart(kernel: Any, another: Any) -> bool:
    """Whether all entries differ, or both begin at 0, as the mean of a prior does."""
    return bool((kernel != another).all() or not (kernel.any() or another.any()))


@pytest.mark.parametrize("name", SOME_SOON)
def test_functions_are_pure(name):
    state, pair = newest(name)
    agent = made(name)
    calls = {
        "init": (agent.init, (KEY, pair.previous)),
        "act": (agent.act, (KEY, state, pair.previous.observation, clock_at(STEPS))),
        "learn": (agent.learn, (KEY, state, pair, clock_at(STEPS))),
        "switch": (agent.switch, (KEY, state, clock_at(STEPS))),
    }
    for field, (function, inputs) in calls.items():
        assert not jax.make_jaxpr(function)(*inputs).effects, field


@pytest.mark.parametrize("name", SOME_SOON)
def test_an_action_for_every_env(name):
    state, pair = newest(name)
    spec = source(name).spec
    act = functools.partial(made(name).act, KEY, state, pair.previous.observation)
    action = act(clock_at(STEPS))
    assert action.shape == ((spec.envs,) if spec.discrete else (spec.envs, spec.actions))
    assert action.dtype == (jnp.int32 if spec.discrete else jnp.float32)
    np.testing.assert_array_equal(action, act(clock_at(STEPS)))
    if spec.discrete:
        assert ((action >= 0) & (action < spec.actions)).all()


@pytest.mark.parametrize("name", SOME_SOON)
def test_learn_and_switch_keep_structure_shapes_and_dtypes(name):
    state, pair = newest(name)
    after, metrics = jax.eval_shape(made(name).learn, KEY, state, pair, clock_at(STEPS))
    chex.assert_trees_all_equal_shapes_and_dtypes(after, jax.eval_shape(lambda: state))
    switched = jax.eval_shape(made(name).switch, KEY, state, clock_at(STEPS))
    chex.assert_trees_all_equal_shapes_and_dtypes(switched, after)
    initial = jax.eval_shape(made(name).init, KEY, pair.previous)
    chex.assert_trees_all_equal_shapes_and_dtypes(initial, after)
    assert {"loss", "updates"} <= set(metrics)
    for metric in metrics.values():
        assert (metric.shape, metric.dtype) == ((), jnp.float32)


@pytest.mark.parametrize("name", SOME_SOON)
def test_it_learns(name):
    state, _ = lane(name)
    initial = made(name).init(jax.random.key(0), None)
    for now, then in zip(as_data(state.learner.params), as_data(initial.learner.params), strict=True):
        assert (now != then).any()
    chex.assert_tree_all_finite(state.learner)


@pytest.mark.parametrize("name", SOME_SOON)
def test_a_switch_without_intervention_changes_nothing(name):
    state, _ = newest(name)
    after = made(name).switch(KEY, state, clock_at(STEPS))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for a, b in zip(as_data(after), as_data(state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", SOME_SOON)
def test_probe(name):
    state, pairs = lane(name)
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs)
    probe = made(name).probe(state, batch, clock_at(STEPS))
    loss, gradient = jax.value_and_grad(probe.loss)(probe.learner.params)
    assert loss.shape == ()
    assert 0 < abs(float(loss)) < np.inf  # a policy gradient's may be negative
    chex.assert_tree_all_finite(gradient)
    assert any((x != 0).any() for x in as_data(gradient))
    assert set(probe.activations) == {units.name for units in probe.network.units}
    for units in probe.network.units:
        for values in probe.activations[units.name]:
            assert values.shape == (STEPS * source(name).spec.envs, units.size)
    assert int(probe.clock.step) == STEPS
    for a, b in zip(as_data(probe.learner), as_data(state.learner), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", SOME_SOON)
def test_a_fresh_agent_is_a_function_of_its_key(name):
    init = jax.jit(lambda key: made(name).init(key, None))
    first, again, other = (jax.device_get(init(key)) for key in (KEY, KEY, jax.random.key(4)))
    for a, b in zip(as_data(first), as_data(again), strict=True):
        np.testing.assert_array_equal(a, b)
    for kernel, another in zip(kernels(first), kernels(other), strict=True):
        assert drawn_apart(kernel, another)


@pytest.mark.parametrize("name", SOME_SOON)
def test_a_lane_among_others_is_the_lane_alone(name):
    alone = jax.jit(lambda seed: lived(name, made(name), STEPS, seed))
    for i in (0, 1):
        chex.assert_trees_all_close(alone(jnp.int32(i)), lane(name, i), rtol=1e-4, atol=1e-5)
    params = life(name)[0].learner.params
    assert all((x[0] != x[1]).any() for x in as_data(params))


@pytest.mark.parametrize("name", SOME_SOON)
def test_every_traced_setting_may_be_an_array_of_the_program(name):
    hints = typing.get_type_hints(AGENTS[name], include_extras=True)
    traced = [setting for setting, hint in hints.items() if TRACED in getattr(hint, "__metadata__", ())]
    numbers = {setting: jax.ShapeDtypeStruct((), jnp.float32) for setting in traced}
    whole = jax.eval_shape(lambda numbers: lived(name, agent(name, source(name).spec, **numbers), STEPS), numbers)
    chex.assert_trees_all_equal_shapes_and_dtypes(whole, jax.eval_shape(lambda: lane(name)))


@pytest.mark.parametrize("name", SOME_SOON)
def test_lanes_share_no_initial_parameters(name):
    started = run(program(name, seeds=(0, 1, 2)))
    started.begin()
    first, *others = (kernels(carry.agent) for carry in started.carries)
    assert all(kernel.shape[0] == 1 for kernel in first)
    for other in others:
        for kernel, another in zip(first, other, strict=True):
            assert drawn_apart(kernel, another)


def test_lanes_envs_and_steps_share_no_exploration():
    """All actions random: 40 coin flips of each of two envs of three lanes; any two sequences agree in about half."""
    planned = program(
        "dqn", stream=source("dqn", steps=40), seeds=(0, 1, 2), chunk=40, epsilon=functools.partial(constant, value=1.0)
    )
    started = run(planned._replace(probe_size=80))
    next(started.chunks())
    flips = np.concatenate([np.asarray(carry.recent.action[0]).T for carry in started.carries])
    assert flips.shape == (6, 40)
    for i in range(6):
        assert 8 <= flips[i].sum() <= 32
        for j in range(i):
            assert 8 <= (flips[i] == flips[j]).sum() <= 32
            assert 8 <= (flips[i, 1:] == flips[j, :-1]).sum() <= 31


@pytest.mark.parametrize("name", SOME_SOON)
def test_flops_are_counted_and_updates_are_declared(name):
    found = flops_of(program(name))
    assert (found.why, found.step > 0, found.update > 0) == ("", True, True)
    state, pairs = lane(name)

    @jax.jit
    def updates(i: Any) -> Any:
        pair = jax.tree.map(lambda x: x[i], pairs)
        return made(name).learn(KEY, state, pair, clock_at(STEPS + i))[1]["updates"]

    assert max(int(updates(i)) for i in range(STEPS)) == (made(name).updates or 1)
