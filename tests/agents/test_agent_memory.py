"""Agents with networks that have memory: the carry, gradients through time, resets, evaluation and probes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import agent, clock_at, lived, run, source
from agent_cases import program as program_of

from plasticity.core.types import FIRST, LAST, Sequence
from plasticity.interventions import reset
from plasticity.interventions.base import Intervention
from plasticity.interventions.dormant import redo
from plasticity.networks.build import build
from plasticity.networks.presets import mlp
from plasticity.networks.recurrent import gru, lstm, rtu
from plasticity.optim.optimizers import sgd

KEY = jax.random.key(3)
STEPS = 13
FLAT = functools.partial(mlp, widths=())
CELLS = {
    "gru": functools.partial(gru, torso=FLAT, units=4),
    "lstm": functools.partial(lstm, torso=FLAT, units=4, widths=(3,)),
    "rtu": functools.partial(rtu, torso=FLAT, units=4, activation="tanh", widths=(5,)),
}
STILL = {"optimizer": functools.partial(sgd, learning_rate=0.0), "normalise": "none", "scale_rewards": False}
STILL |= {"policy_optimizer": STILL["optimizer"], "value_optimizer": STILL["optimizer"]}
AGENTS = ("stream_q", "stream_dqn", "stream_c51", "stream_ac", "ppo", "pqn", "reinforce")
CASES = [
    pytest.param(name, cell, marks=[] if (name, cell) in {("stream_q", "rtu"), ("ppo", "gru")} else pytest.mark.slow)
    for name in AGENTS
    for cell in CELLS
]


def recording() -> Intervention:
    """Keeps the gradients of the newest update."""
    return Intervention(
        init=lambda key, params, network: jax.tree.map(jnp.zeros_like, params),
        step=lambda key, state, learner, context: (context.gradients, learner),
    )


@functools.cache
def life(name: str, cell: str, steps: int = STEPS) -> Any:
    """An agent whose parameters never change, its state after some steps, and all its transitions."""
    made = agent(name, source(name).spec, recording(), network=CELLS[cell], **STILL)
    return made, *jax.jit(lambda: lived(name, made, steps))()


def steps_of(pairs: Any, carry: Any) -> Sequence:
    return Sequence(pairs.previous.observation, pairs.previous.step_type == FIRST, carry)


def networks(name: str, cell: str) -> Any:
    """The agent's network or networks, built again."""
    spec = source(name).spec
    outputs = {"stream_c51": 5 * spec.actions}.get(name, spec.actions)
    return build(CELLS[cell](spec.observation, outputs))


def carry_of(name: str, learner: Any) -> tuple[Any, Any]:
    """The parameters and the carry of the network that acts."""
    joined = name in ("stream_ac", "ppo", "reinforce")
    return (learner.params["policy"], learner.carry["policy"]) if joined else (learner.params, learner.carry)


@pytest.mark.parametrize(("name", "cell"), CASES)
def test_the_carry_is_that_of_the_episode_so_far(name, cell):
    _, state, pairs = life(name, cell)
    params, carry = carry_of(name, state.learner)
    network, envs = networks(name, cell), source(name).spec.envs
    expected = network.unroll(params, steps_of(pairs, network.initial(envs)))[2]
    opens = pairs.current.step_type[-1] == FIRST
    assert (pairs.current.step_type == LAST).any()
    for found, wanted in zip(jax.tree.leaves(carry), jax.tree.leaves(expected), strict=True):
        wanted = jnp.where(opens.reshape(-1, *[1] * (wanted.ndim - 1)), 0.0, wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", ["rtu", pytest.param("gru", marks=pytest.mark.slow)])
def test_the_gradient_of_a_streaming_agent(cell):
    """Of RTUs it is that through the whole episode, of a GRU that through one step."""
    kinds = np.asarray(life("stream_q", cell, 40)[2].current.step_type[:, 0])
    end = next(t for t in range(2, 40) if (kinds[t - 2 : t + 1] != FIRST).all())  # the third step of an episode
    start = end - 2
    _, state, pairs = life("stream_q", cell, end + 1)
    spec = source("stream_q").spec
    settings = {"gradient": "bptt"} if cell == "rtu" else {}
    network = build(CELLS[cell](spec.observation, spec.actions, **settings))

    def value(params: Any) -> jax.Array:
        carry = network.initial(1)
        for t in range(start, end + 1):
            q, _, carry = network.apply(params, pairs.previous.observation[t], carry, None)
            if cell == "gru":
                carry = jax.lax.stop_gradient(carry)
        return q[0, pairs.action[end, 0]]

    expected = jax.grad(value)(state.learner.params)
    for found, wanted in zip(jax.tree.leaves(state.plugins[0]), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def advantages(reward: Any, discount: Any, kinds: Any, value: Any, following: Any) -> np.ndarray:
    made, later = np.zeros(reward.shape), np.zeros(reward.shape[1:])
    for t in reversed(range(len(reward))):
        error = reward[t] + 0.9 * discount[t] * following[t] - value[t]
        later = error + np.where(kinds[t] == LAST, 0.0, 0.8 * 0.9 * discount[t]) * later
        later = np.where(kinds[t] == FIRST, 0.0, later)
        made[t] = later
    return made


def test_ppo_learns_through_time():
    """One update on one rollout against an independent program that unrolls the network step by step."""
    rate, length, name = 0.1, STEPS, "ppo"
    settings = {
        "optimizer": functools.partial(sgd, learning_rate=rate),
        "rollout_length": length,
        "epochs": 1,
        "minibatches": 1,
        "normalise_advantages": "none",
        "discount": 0.9,
        "gae_lambda": 0.8,
        "trunk": "shared",
    }
    stream = source(name, steps=2 * length)
    made = agent(name, stream.spec, network=CELLS["gru"], **settings)
    state, pairs = jax.jit(lambda: lived(name, made, length))()
    start = made.init(jax.random.key(0), None).learner.params
    from plasticity.agents.actor_critic import shared

    heads = {"policy": stream.spec.actions, "value": 1}
    network = shared(CELLS["gru"], stream.spec.observation, heads, {"policy": 0.01, "value": 1.0}, Intervention())
    first = pairs.previous.step_type == FIRST

    def forward(params: Any) -> tuple[Any, Any, Any]:
        carry, log_p, values = network.initial(stream.spec.envs), [], []
        for t in range(length):
            out, _, carry = network.apply(params, pairs.previous.observation[t], carry, first[t])
            log_p.append(jax.nn.log_softmax(out["policy"]))
            values.append(out["value"][:, 0])
        final = network.apply(params, pairs.current.observation[-1], carry, None)[0]["value"][:, 0]
        return jnp.stack(log_p), jnp.stack(values), final

    _, old, final = forward(start)
    kinds, reward, discount = (np.asarray(x) for x in pairs.current[:3])
    gain = advantages(reward, discount, kinds, np.asarray(old), np.concatenate([old[1:], final[None]]))
    valid = kinds != FIRST

    def loss(params: Any) -> jax.Array:
        log_p, value, _ = forward(params)
        chosen = jnp.take_along_axis(log_p, pairs.action[..., None], -1)[..., 0]
        ratio = jnp.exp(chosen - jax.lax.stop_gradient(chosen))
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, -1)
        each = -ratio * gain + 0.25 * (value - (gain + old)) ** 2 - 0.01 * entropy
        return jnp.sum(jnp.where(valid, each, 0.0)) / valid.sum()

    expected = jax.tree.map(lambda p, g: p - rate * g, start, jax.grad(loss)(start))
    for found, wanted in zip(jax.tree.leaves(state.learner.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_reset_unit_forgets():
    """Every unit counts as dormant: after an update the carry of all units is zero."""
    name = "stream_q"
    made = agent(name, source(name).spec, redo(threshold=1e9, period=1), network=CELLS["rtu"], **STILL)
    state, pairs = jax.jit(lambda: lived(name, made, 3))()
    assert (pairs.current.step_type[-1] != FIRST).all()  # the last step made an update
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.learner.carry))
    plain = jax.jit(lambda: lived(name, agent(name, source(name).spec, network=CELLS["rtu"], **STILL), 3))()[0]
    assert any(np.any(leaf) for leaf in jax.tree.leaves(plain.learner.carry))


@pytest.mark.parametrize("method", [None, reset])
def test_a_switch_starts_an_episode(method):
    name = "stream_q"
    interventions = [method()] if method else []
    made = agent(name, source(name).spec, *interventions, network=CELLS["rtu"], **STILL)
    state, _ = jax.jit(lambda: lived(name, made, 3))()
    after = made.switch(KEY, state, clock_at(3, 1))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(state.learner.carry))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(after.learner.carry))


@pytest.mark.parametrize(("name", "cell"), CASES)
def test_advance_is_what_learning_does_to_the_carry(name, cell):
    made, state, pairs = life(name, cell)
    pair = jax.tree.map(lambda x: x[-1], pairs)
    carry = made.advance(state, pair.current.observation, pair.current.step_type == LAST)
    once_more = pair._replace(previous=pair.current)
    after = made.learn(KEY, state, once_more._replace(current=pair.current), clock_at(STEPS))[0].learner.carry
    assert jax.tree.structure(carry) == jax.tree.structure(made.initial()) == jax.tree.structure(after)
    for a, b, c in zip(*map(jax.tree.leaves, (carry, made.initial(), after)), strict=True):
        assert a.shape == b.shape == c.shape


@pytest.mark.parametrize(("name", "cell"), CASES)
def test_a_probe_has_a_row_for_every_transition(name, cell):
    made, state, pairs = life(name, cell)
    rows = STEPS * source(name).spec.envs
    batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs)
    probe = jax.jit(lambda: made.probe(state, batch, clock_at(STEPS)).activations)()
    assert {len(values) for each in probe.values() for values in each} == {rows}
    full = made.probe(state, batch, clock_at(STEPS))
    assert full.losses(full.learner.params).shape == full.valid.shape == (rows,)
    params, _ = carry_of(name, state.learner)
    network = networks(name, cell)
    expected = network.forward(params, steps_of(pairs, network.initial(source(name).spec.envs)))[1]
    prefix = "policy/" if name in ("stream_ac", "ppo", "reinforce") else ""
    np.testing.assert_allclose(probe[f"{prefix}memory"].post, expected["memory"].post, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_a_lane_alone_equals_a_lane_among_others(name):
    planned = program_of(name, seeds=(0, 1, 2), network=CELLS["rtu"])
    alone = program_of(name, seeds=(1,), network=CELLS["rtu"])
    together, single = run(planned), run(alone)
    for each in (together, single):
        each.begin()
        for _ in each.chunks():
            pass
    found = jax.tree.map(lambda x: x[0], together.carries[1].agent.learner)
    wanted = jax.tree.map(lambda x: x[0], single.carries[0].agent.learner)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_network_with_memory_needs_an_agent_with_memory():
    with pytest.raises(ValueError, match=r"agent\.network: has memory, which this agent does not use"):
        agent("classifier", source("classifier").spec, network=CELLS["gru"])


@pytest.mark.parametrize("name", ["ppo", "pqn"])
@pytest.mark.parametrize(("envs", "minibatches"), [(2, 4), (1, 2), (2, 3)])
def test_minibatches_divide_the_envs_with_memory_and_the_steps_without(name, envs, minibatches):
    spec, sizes = source(name, envs=envs).spec, {"rollout_length": 2, "minibatches": minibatches}
    start = rf"agent\.minibatches: {minibatches} is not allowed; must divide the"
    with pytest.raises(ValueError, match=f"^{start} {envs} envs? of the stream, because"):
        agent(name, spec, network=CELLS["gru"], **sizes)
    if 2 * envs % minibatches:
        with pytest.raises(ValueError, match=rf"^{start} {2 * envs} steps of a rollout \(2 of each of {envs} envs\)"):
            agent(name, spec, **sizes)
    else:
        agent(name, spec, **sizes)


@pytest.mark.parametrize("name", ["stream_q", "ppo", pytest.param("stream_ac", marks=pytest.mark.slow)])
def test_without_memory_the_program_is_what_it_was(name, monkeypatch):
    """The text of an agent's programs is the same if everything about memory is cut out."""
    from plasticity.agents import memory, streaming

    def text() -> list[str]:
        made = agent(name, source(name).spec)
        state, pairs = jax.eval_shape(lambda: lived(name, made, 2))
        pair = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), pairs)
        assert (state.learner.carry, made.initial()) == ((), ())
        learn = jax.jit(lambda *given: made.learn(KEY, *given, clock_at(1)))
        act = jax.jit(lambda *given: made.act(KEY, *given, clock_at(1)))
        return [
            learn.lower(state, pair).as_text(),
            act.lower(state, pair.previous.observation).as_text(),
        ]

    with_code = text()
    plain = {
        "single": lambda network, observation, carry: observation,
        "after": lambda network, params, observation, carry: carry,
        "restarted": lambda network, carry, first: carry,
        "remembering": lambda network, learner: learner,
        "recall": lambda network, params, previous, current, kind, carry: memory.Recalled(previous, current, carry),
    }
    for key, function in plain.items():
        for module in (memory, streaming):
            if hasattr(module, key):
                monkeypatch.setattr(module, key, function)
    assert text() == with_code
