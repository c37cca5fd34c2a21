"""Which memories are reset at a task switch, with agents of three regimes."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agent_cases import agent, clock_at, source

from plasticity.core.types import AgentState, Transition, Visit
from plasticity.interventions import at_switch

KEY = jax.random.key(4)
ANEW = {"replay": "clear", "optimizer": "reset", "target": "copy", "schedule": "restart", "normaliser": "reset"}


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@functools.cache
def worn(name: str) -> tuple[Any, AgentState]:
    """A stream's spec, and an agent after sixteen steps in it."""
    spec, built = source(name).spec, agent(name, source(name).spec, at_switch())
    stream = source(name).make(1)
    keys = jax.random.split(jax.random.key(0), 1)

    @jax.jit
    def live(key: jax.Array) -> AgentState:
        zero = jnp.int32(0)
        inner, opening = stream.reset(keys, Visit(zero, zero), zero)
        first = jax.tree.map(lambda x: x[0], opening)

        def body(carry: Any, i: jax.Array) -> Any:
            state, inner, timestep = carry
            draw, clock = jax.random.fold_in(key, i), clock_at(i)
            action = built.act(draw, state, timestep.observation, clock)
            inner, following = stream.step(keys, inner, action[None], clock)
            following = jax.tree.map(lambda x: x[0], following)
            state, _ = built.learn(draw, state, Transition(timestep, action, following), clock)
            return (state, inner, following), None

        return jax.lax.scan(body, (built.init(key, first), inner, first), jnp.arange(16))[0][0]

    return spec, live(KEY)


def switched(name: str, **settings: str) -> tuple[AgentState, AgentState]:
    """Before and after."""
    spec, before = worn(name)
    return before, agent(name, spec, at_switch(**settings)).switch(KEY, before, clock_at(16, 1))


@pytest.mark.parametrize("name", ["dqn", "stream_q", "classifier"])
def test_as_it_stands_everything_is_kept(name: str) -> None:
    before, after = switched(name)
    assert same(before, after)


def test_an_optimizer_that_carries_nothing_over_a_switch_is_not_reset() -> None:
    """Stream Q has only the trace, which ends at a switch anyway; Adaptive Q also has moments."""
    with pytest.raises(ValueError, match=r"reset has no effect; .* keeps nothing across a task switch"):
        switched("stream_q", optimizer="reset")


@pytest.mark.parametrize("name", ["dqn", "adaptive_q", "classifier"])
def test_the_optimizer_alone(name: str) -> None:
    before, after = switched(name, optimizer="reset")
    spec, _ = worn(name)
    assert not same(before.learner.opt_state, after.learner.opt_state)
    fresh = agent(name, spec, at_switch()).init(KEY, None).learner
    assert same(after.learner.opt_state, fresh.opt_state)
    assert same(before._replace(learner=before.learner._replace(opt_state=())),
                after._replace(learner=after.learner._replace(opt_state=())))  # fmt: skip


def test_the_network_is_kept_whatever_else_is_reset() -> None:
    settings = {key: value for key, value in ANEW.items() if key != "normaliser"}
    before, after = switched("dqn", **settings)
    assert same(before.learner.params, after.learner.params)
    assert same(after.learner.target, before.learner.params)
    assert not same(before.learner.target, before.learner.params)
    assert int(after.rest["schedule"]) == 16
    assert int(before.rest["schedule"]) == 0
    fresh = agent("dqn", worn("dqn")[0]).init(KEY, None)
    assert same(after.rest["replay"], fresh.rest["replay"])
    assert not same(before.rest["replay"], fresh.rest["replay"])


def test_one_memory_at_a_time() -> None:
    before, after = switched("dqn", replay="clear")
    assert same((before.learner, before.rest["schedule"]), (after.learner, after.rest["schedule"]))
    assert not same(before.rest["replay"], after.rest["replay"])
    before, after = switched("dqn", schedule="restart")
    assert same((before.learner, before.rest["replay"]), (after.learner, after.rest["replay"]))


def test_the_target_of_a_fresh_agent() -> None:
    before, after = switched("dqn", target="reset")
    assert not same(after.learner.target, before.learner.target)
    assert not same(after.learner.target, before.learner.params)
    _, copied = switched("dqn", target="copy")
    assert same(copied.learner.target, before.learner.params)


def test_statistics_are_reset() -> None:
    before, after = switched("stream_q", normaliser="reset")
    assert float(before.rest["normaliser"].seen) > 0
    assert not any(float(jnp.abs(x).max()) for x in jax.tree.leaves(after.rest["normaliser"]))
    assert not any(float(jnp.abs(x).max()) for x in jax.tree.leaves(after.rest["reward_scale"]))
    assert same((before.learner, before.rest["schedule"]), (after.learner, after.rest["schedule"]))


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("dqn", "normaliser", "normaliser: this agent has none .it has replay, schedule.; must be keep"),
        ("stream_q", "replay", "replay: this agent has none .it has normaliser, reward_scale, schedule."),
        ("stream_q", "target", "target: copy is not allowed; this agent has no target network"),
        ("classifier", "replay", "it has only its network"),
        ("classifier", "schedule", "schedule: this agent has none"),
    ],
)
def test_what_an_agent_lacks_cannot_be_reset(name: str, key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        switched(name, **{key: ANEW[key]})


def test_ppo_has_no_replay() -> None:
    spec = source("ppo").spec
    built = agent("ppo", spec, at_switch(replay="clear"))
    state = jax.eval_shape(lambda key: built.init(key, None), KEY)
    with pytest.raises(ValueError, match=r"replay: this agent has none .it has rollout"):
        jax.eval_shape(lambda state: built.switch(KEY, state, clock_at(0)), state)


@pytest.mark.parametrize("key", sorted(inspect.signature(at_switch).parameters))
def test_unknown_words_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f'{key}: "renew" is not allowed; must be one of keep, '):
        at_switch(**{key: "renew"})
