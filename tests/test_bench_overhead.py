"""The hand-written learners of ``bench overhead`` compute what the agents compute."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.agents import base
from plasticity.bench import timing
from plasticity.bench.cases import ADAM, LABELS, Case, job
from plasticity.bench.overhead import classifier, comparison, parts, ppo, stream_q, world
from plasticity.bench.overhead.c51 import c51
from plasticity.bench.overhead.cases import CASES, Compared
from plasticity.bench.overhead.dqn import dqn
from plasticity.bench.overhead.plain import Plain
from plasticity.engine.lanes import Placement, lane_keys
from plasticity.engine.program import ACT, LEARN, Carry
from plasticity.engine.runner import Chunk, Run
from plasticity.envs.base import STEP
from plasticity.runs import launch

BREAKOUT = {"kind": "minatar", "games": ["breakout"], "full_actions": False, "steps_per_visit": 1 << 24}
TINY = {"kind": "minatar", "filters": 2, "widths": [5]}
# `1 - b2` differs by a factor of 1e-5 if it is not rounded to float32 first, as the traced numbers of an agent are.
IN_SINGLE = {"b1": jnp.float32(0.9), "b2": jnp.float32(0.999)}
KEYS = lane_keys(jnp.int32(0))


def folded(key: Any, *tags: Any) -> Any:
    for tag in tags:
        key = jax.random.fold_in(key, tag)
    return key


def begun(chunk: int, stream: Mapping[str, Any], **agent: Any) -> tuple[Run, Any]:
    """A run of one lane, and its first carry without the lane axis."""
    planned = job(Case({"stream": stream, "agent": agent}, chunk, ()), 1)
    run = Run(planned.program, Placement(1, 1, 1), launch.devices())
    run.begin()
    return run, lane(run)


def lane(run: Run) -> Carry:
    """A copy: the run donates its carry."""
    carry: Carry = jax.tree.map(lambda x: jnp.array(x[0]), run.carries[0])
    return carry


def start_of(carry: Carry, envs: int | None = None) -> world.World:
    """The environments of a carry."""
    playing = carry.stream.envs
    state = world.World(playing.games[0], playing.action, playing.action == 0, playing.action != 0)
    return state if envs else jax.tree.map(lambda x: x[0], state)


def action_and_world(key: Any, step: Any) -> tuple[Any, Any]:
    """The keys that the agent and the stream derive for a step."""
    del key
    return folded(KEYS.learner, ACT, step, base.ACTION), jax.random.split(folded(KEYS.data, STEP, step), 1)[0]


def check(run: Run, plain: Plain, state: Any, chunks: int) -> Any:
    """Both learn for some chunks: the parameters' change and all metrics agree."""
    step, ours = jax.jit(plain.chunk), run.chunks()
    before = lane(run).agent.learner.params
    for _ in range(chunks):
        state, record = step(state)
        made: Chunk = next(ours)
        for name, value in record.items():
            np.testing.assert_allclose(value, made.metrics[name][0], rtol=1e-5, atol=1e-6, err_msg=name)
    after = lane(run).agent.learner.params
    assert jax.tree.structure(after) == jax.tree.structure(state.params)
    assert all(float(jnp.abs(a - b).max()) > 0 for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))
    same(state.params, after)
    return state


def same(a: Any, b: Any) -> None:
    """Equal up to 2e-6 of the largest number."""
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(b))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-6 * largest)


def test_classifier():
    stream = {**LABELS, "samples": 40, "dimensions": 6, "envs": 8, "tasks": 1, "steps_per_task": 1000}
    network = {"kind": "mlp", "widths": [7, 5]}
    run, carry = begun(20, stream, kind="classifier", network=network, optimizer=ADAM)

    def rows(key: Any, step: Any) -> Any:
        """Those of the sample before: the agent learns from the observation that the last step gave."""
        del key
        opening = jax.random.split(folded(KEYS.data, 1, 0), 8)
        drawn = jnp.where(step == 0, opening, jax.random.split(folded(KEYS.data, STEP, step - 1), 8))
        return jax.vmap(lambda key: jax.random.randint(key, (), 0, 40))(drawn)

    plain = classifier.classifier(
        20, samples=40, batch=8, sizes=(6, 7, 5, 10), rows=rows, optimizer=optax.adam(1e-3, **IN_SINGLE)
    )
    problem = carry.stream.params
    state = plain.init(jax.random.key(0))._replace(
        inputs=problem.inputs, labels=problem.targets, params=carry.agent.learner.params
    )
    check(run, plain, state, 3)


@pytest.mark.slow
def test_stream_q():
    network = {**TINY, "activation": "leaky_relu", "normalisation": "map", "initialiser": "sparse"}
    epsilon = {"kind": "linear", "start": 1.0, "end": 0.01, "duration": 300}
    run, carry = begun(128, BREAKOUT, kind="stream_q", network=network, epsilon=epsilon)
    plain = stream_q.stream_q(128, duration=300, draws=action_and_world)
    state = stream_q.begin(jax.random.key(0), start_of(carry), carry.agent.learner.params)
    check(run, plain, state, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "learner"), [("dqn", dqn), ("c51", c51)])
def test_replay(kind, learner):
    settings = {"optimizer": ADAM, "batch_size": 32, "update_period": 4, "target_period": 7}
    replay = {"capacity": 120, "minimum": 50}
    run, carry = begun(128, BREAKOUT, kind=kind, network=TINY, replay=replay, **settings)

    def batches(key: Any, step: Any) -> Any:
        del key
        return jax.random.split(folded(KEYS.learner, LEARN, step - 1, 0, base.SAMPLE))[1]

    plain = learner(
        128,
        capacity=120,
        minimum=50,
        target_period=7,
        filters=2,
        width=5,
        draws=action_and_world,
        batches=batches,
        optimizer=optax.adam(1e-3, **IN_SINGLE),
    )
    params = carry.agent.learner.params
    state = plain.init(jax.random.key(0))._replace(
        world=start_of(carry), params=params, target=jax.tree.map(jnp.copy, params)
    )
    state = check(run, plain, state, 3)
    assert int(state.updates) == (3 * 128 - 48) // 4 == int(lane(run).updates)
    same(state.target, lane(run).agent.learner.target)


@pytest.mark.slow
def test_ppo():
    network = {"kind": "mlp", "widths": [6, 6], "activation": "tanh", "initialiser": "orthogonal"}
    sizes = {"epochs": 2, "minibatches": 4}
    run, carry = begun(32, {**BREAKOUT, "envs": 3}, kind="ppo", network=network, rollout_length=32, **sizes)

    def draws(key: Any, step: Any) -> ppo.Drawn:
        del key
        order = folded(KEYS.learner, LEARN, step, base.SAMPLE)
        return ppo.Drawn(
            folded(KEYS.learner, ACT, step, base.ACTION),
            jax.random.split(folded(KEYS.data, STEP, step), 3),
            jax.vmap(lambda epoch: jax.random.fold_in(order, epoch))(jnp.arange(2)),
        )

    plain = ppo.ppo(
        32, envs=3, length=32, width=6, draws=draws, optimizer=optax.adam(2.5e-4, eps=1e-5, **IN_SINGLE), **sizes
    )
    params = carry.agent.learner.params
    state = plain.init(jax.random.key(0))._replace(world=start_of(carry, 3), params=params)
    check(run, plain, state, 4)


@pytest.fixture(scope="module")
def tiny() -> Compared:
    """A classifier whose chunk takes no time."""
    stream = {**LABELS, "samples": 40, "dimensions": 6, "envs": 8, "tasks": 1, "steps_per_task": 10**8}
    agent = {"kind": "classifier", "network": {"kind": "mlp", "widths": [5]}, "optimizer": ADAM}
    by_hand = partial(classifier.classifier, samples=40, batch=8, sizes=(6, 5, 10))
    return Compared(Case({"stream": stream, "agent": agent}, 2, ()), by_hand, 6)


@pytest.mark.slow
def test_rows(tiny, monkeypatch):
    """Seconds of two turns: 1 by hand, then a quarter more for each part."""
    calls = dict.fromkeys([comparison.BY_HAND, *comparison.PARTS], 0)

    def timed(works: Any, effort: Any) -> Any:
        for name, work in works.items():
            work()
            calls[name] += 1
        return {name: [1 + i / 4, 2 + i / 2] for i, name in enumerate(works)}

    monkeypatch.setattr(comparison, "interleaved", timed)
    rows = comparison.measure("tiny", 2, timing.Effort(2, 0.0), tiny)
    assert [row.program for row in rows] == list(calls)
    assert set(calls.values()) == {1}
    np.testing.assert_allclose([row.of_hand_written for row in rows], [1 / (1 + i / 4) for i in range(7)])
    assert rows[0].steps_per_second == 2 * 8 * 2 / 1.5  # lanes, envs, steps of a chunk, median of both turns
    assert [row.adds for row in rows] == [None] + [0.25] * 6
    (line,) = comparison.verdicts(rows)
    assert line == (
        "tiny, 2 lanes: 0.40 of the hand-written speed (target 0.95); time: agent +25.0%, metrics +25.0%, "
        "returns and checks +25.0%, ring +25.0%, loop on the host +25.0%, tables and status +25.0%"
    )


def test_the_agent_alone_is_the_agent_of_a_run(tiny):
    """With the keys of a lane, the plain scan makes the same parameters and metrics as the run's chunk."""
    planned = job(tiny.case, 1)
    run = parts.running(planned._replace(placement=Placement(1, 1, 1)))
    alone = parts.agent_alone(planned.program, True)
    state = alone.init(jax.random.key(0))
    run.begin()
    carry = lane(run)
    stream = jax.tree.map(lambda x: x[None], carry.stream)
    state = state._replace(keys=KEYS, agent=carry.agent, stream=stream, timestep=carry.timestep)
    state, record = jax.jit(alone.chunk)(state)
    made = next(run.chunks())
    np.testing.assert_allclose(record["reward"] / 2, made.metrics["reward"][0], rtol=1e-6)
    np.testing.assert_allclose(record["loss"] / 2, made.metrics["loss"][0], rtol=1e-6)
    same(state.agent.learner.params, lane(run).agent.learner.params)


@pytest.mark.slow
@pytest.mark.parametrize("agent", CASES)
def test_cases_are_those_of_the_hand_written_programs(agent):
    """Parameters have the same shapes, and every metric of the hand-written program is one of the agent's."""
    compared = CASES[agent]
    planned = job(compared.case, 1)
    plain = compared.plain(compared.case.chunk)
    state = jax.eval_shape(plain.init, jax.random.key(0))
    record = jax.eval_shape(plain.chunk, state)[1]
    run = parts.running(planned._replace(placement=Placement(1, 1, 1)))
    ours = jax.tree.map(lambda x: x.shape[1:], run.carry_shape().agent.learner.params)
    assert jax.tree.map(lambda x: x.shape, state.params) == ours
    assert compared.steps == compared.case.document["agent"].get("replay", {}).get("minimum", 0)
    hyper, seeds, _ = run.inputs[0]
    packed = jax.eval_shape(run.compiled.chunk, hyper, seeds, run.carry_shape(), run.clock())[1]
    assert set(record) <= set(packed.names)
