"""The fresh control and partial resets in launched runs: what is reset at a switch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from agent_cases import SOME_SOON, agent, clock_at, program, run, source, uniform_replay

from plasticity.core import trees
from plasticity.engine.lanes import Placement
from plasticity.engine.program import NEVER, Program
from plasticity.engine.runner import Position, Run
from plasticity.interventions import reset
from plasticity.networks.presets import mlp
from plasticity.optim.schedules import linear
from plasticity.runs import launch

VISIT, SEEDS = 20, (3, 8)


def around_switch(started: Run, **changes: Any) -> tuple[list[Any], list[Any]]:
    """The carries of all groups at the end of the first visit (with ``changes``), and right after the switch."""
    chunks, spec = started.chunks(), started.program.spec
    while started.position.step < spec.visits[0].steps:
        next(chunks)
    started.carries = [carry._replace(**changes) for carry in started.carries]
    before = jax.device_get(started.carries)
    started.position = Position(1, 0, started.position.step)
    started._switch()
    return before, jax.device_get(started.carries)


def planned(name: str, *interventions: Any, seeds: tuple[int, ...] = SEEDS) -> Program:
    return program(name, *interventions, stream=source(name, steps=VISIT), seeds=seeds)


@functools.cache
def switched(name: str, **settings: Any) -> Any:
    """Around the switch of an arm with this ``reset``; without settings: of the baseline."""
    arm = (functools.partial(reset, **settings),) if settings else ()
    return around_switch(run(planned(name, *arm)))


def fresh(name: str) -> Any:
    return switched(name, when="switch")


def leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def named(name: str, params: Any) -> list[np.ndarray]:
    """All parameters of this name (kernel, bias), whatever module they belong to."""
    return [np.asarray(trees.get(params, path)) for path in trees.paths(params) if path[-1] == name]


def all_differ(a: Any, b: Any) -> bool:
    """Every number of every kernel is another one, except of kernels that begin at 0."""
    pairs = zip(named("kernel", a), named("kernel", b), strict=True)
    return all((x != y).all() or not (np.any(x) and np.any(y)) for x, y in pairs)


def equal(a: Any, b: Any) -> bool:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def certain(rest: Any) -> Any:
    """The memory without what is drawn and when it began."""
    return {name: each for name, each in rest.items() if name not in ("schedule", "noise")}


def assert_fresh(fresh: Any, state: Any, step: int) -> None:
    """Everything except the random parameters equals that of an agent created at this step."""
    assert all((bias == 0).all() for bias in named("bias", state.learner.params))
    if jax.tree.leaves(fresh.learner.target):
        assert equal(state.learner.target, state.learner.params)
    assert equal(state.learner.opt_state, fresh.learner.opt_state)
    assert equal(certain(state.rest), certain(fresh.rest))
    if "schedule" in state.rest:
        assert int(state.rest["schedule"]) == step


@pytest.mark.parametrize("name", SOME_SOON)
def test_the_fresh_control_is_a_fresh_agent(name):
    created = jax.jit(lambda key: agent(name, source(name).spec).init(key, None))(jax.random.key(0))
    first = run(planned(name))
    first.begin()
    for group, (before, after) in enumerate(zip(*fresh(name), strict=True)):
        mind, past = (jax.tree.map(lambda x: x[0], carry.agent) for carry in (after, before))
        assert_fresh(created, mind, VISIT)
        assert not equal(past.learner.opt_state, created.learner.opt_state)  # there was something to reset
        initial = first.carries[group].agent.learner.params
        assert all_differ(mind.learner.params, past.learner.params)
        assert all_differ(mind.learner.params, jax.tree.map(lambda x: x[0], initial))  # another draw than at first
        for kept in ("updates", "recent", "diverged_at", "monitors"):  # not the agent's
            assert equal(getattr(before, kept), getattr(after, kept))


@pytest.mark.parametrize("name", SOME_SOON)
def test_other_arms_keep_their_agent_and_see_the_same_stream(name):
    before, after = switched(name)
    renewed_before, renewed = fresh(name)
    for i in range(len(SEEDS)):
        assert equal(before[i].agent.learner, renewed_before[i].agent.learner)
        assert equal(before[i].agent, after[i].agent)
        assert equal(after[i].timestep, renewed[i].timestep)
        assert equal(after[i].stream, renewed[i].stream)
        assert (after[i].episode_return.value == 0).all()
        assert (after[i].timestep.step_type == 0).all()


@pytest.mark.parametrize("name", SOME_SOON)
def test_a_lane_is_renewed_as_it_would_be_alone(name):
    _, together = fresh(name)
    assert all_differ(*(carry.agent.learner.params for carry in together))  # no two lanes draw the same
    alone = run(planned(name, reset, seeds=SEEDS[1:]))
    assert equal(around_switch(alone)[1][0], together[1])


def test_a_lane_that_diverged_stays_as_it_is():
    before, after = around_switch(run(planned("dqn", reset)), diverged_at=jnp.asarray([12], jnp.int32))
    for i in range(len(SEEDS)):
        assert equal(before[i].agent, after[i].agent)
        assert int(after[i].diverged_at[0]) == 12 != NEVER


def test_last_layer_reset_keeps_replay_schedule_and_the_other_modules():
    for before, after in zip(*switched("dqn", modules="last"), strict=True):
        assert equal(before.agent.rest, after.agent.rest)
        past, now = before.agent.learner, after.agent.learner
        for then, new in ((past.params, now.params), (past.target, now.target)):
            assert equal(then["hidden_0"], new["hidden_0"])
            assert (then["output"]["kernel"] != new["output"]["kernel"]).all()
        assert equal(now.target["output"], now.params["output"])
        for then, new in zip(moments(past.opt_state), moments(now.opt_state), strict=True):
            assert equal(then["hidden_0"], new["hidden_0"])
            assert (new["output"]["kernel"] == 0).all()
            assert (then["output"]["kernel"] != 0).any()
        assert counts(past.opt_state) == counts(now.opt_state) == [9, 9]


def moments(opt_state: Any) -> tuple[Any, Any]:
    """Adam's two slots, each with the parameters' structure."""
    adam = [x for x in jax.tree.leaves(opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(x, "mu")]
    return adam[0].mu, adam[0].nu


def counts(opt_state: Any) -> list[int]:
    return [int(x[0]) for x in leaves(opt_state) if np.issubdtype(x.dtype, np.integer)]


def after_reset(**settings: Any) -> tuple[Any, Any]:
    """The first lane's agent at the end of the first visit, and what this reset makes of it."""
    state = jax.tree.map(lambda x: x[0], switched("dqn")[0][0].agent)._replace(plugins=((),))
    resetting = agent("dqn", source("dqn").spec, reset(**settings))
    return state, jax.jit(resetting.switch)(jax.random.key(7), state, clock_at(VISIT, visit=1))


@pytest.mark.parametrize(("rest", "renewed"), [("none", set()), (["replay"], {"replay"}), (["schedule"], {"schedule"})])
def test_the_rest_is_renewed_as_named(rest, renewed):
    before, after = after_reset(rest=rest)
    kept = {part for part in before.rest if equal(before.rest[part], after.rest[part])}
    assert kept == {"replay", "schedule"} - renewed
    assert not equal(before.learner.params, after.learner.params)


def test_what_the_reset_keeps_on_request():
    before, after = after_reset(target=False, optimizer=False)
    assert equal(before.learner.target, after.learner.target)
    assert equal(before.learner.opt_state, after.learner.opt_state)
    assert not equal(before.learner.params, after.learner.params)


def test_a_renewed_lane_learns_again_when_its_replay_is_ready():
    """Updates after steps 4, 6, ..., 20 of the first visit; 8 transitions again after 4 steps of the next."""
    for interventions, expected in (((), [4, 9, 14, 19]), ((reset,), [4, 9, 13, 18])):
        chunks = run(planned("dqn", *interventions)).chunks()
        made = [chunk.metrics["update"].tolist() for chunk in chunks]
        assert made == [[n, n] for n in expected]


def test_the_arm_of_a_launched_experiment_is_this_reset():
    arms = {"fresh": {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]}}
    (job,) = launch.plan(tiny.experiment(seeds=2, arms=arms, monitors=[])).jobs
    before, after = around_switch(Run(job.program, Placement(1, 2, 1), launch.devices()))
    created = jax.jit(lambda key: job.program.build({}).init(key, None))(jax.random.key(0))
    for i in range(2):
        assert_fresh(created, jax.tree.map(lambda x: x[0], after[i].agent), 20)
        assert all_differ(after[i].agent.learner.params, before[i].agent.learner.params)


def test_deep_q_learning_solves_the_chain_and_a_fresh_agent_solves_the_next():
    """The best return is 1, that of random actions about 0.65. Greedy after 400 steps of each visit."""
    epsilon = functools.partial(linear, end=0.0, duration=400)
    learning = {"epsilon": epsilon, "update_period": 2, "target_period": 10, "discount": 0.8}
    sizes = {"replay": uniform_replay(4000, 100), "batch_size": 32}
    network = functools.partial(mlp, widths=(32,))
    stream = source("dqn", steps=800, envs=4)
    arm = program("dqn", reset, stream=stream, seeds=(0, 1, 2), chunk=200, network=network, **learning, **sizes)
    returns = np.stack([chunk.metrics["episodic_return"] for chunk in run(arm).chunks()])
    assert (returns[[0, 4]] < 0.8).all()  # each visit begins at random
    assert (returns[[3, 7]] > 0.97).all()
