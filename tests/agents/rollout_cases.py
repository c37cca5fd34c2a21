"""Scripted lives for agents that learn from rollouts."""

from typing import Any

import jax
import jax.numpy as jnp
from agent_cases import clock_at
from q_reference import Script

from plasticity.core.types import Agent, TimeStep, Transition
from plasticity.interventions.base import Intervention

KEY = jax.random.key(5)


def as_pairs(found: Script) -> Transition:
    steps = TimeStep(*(jnp.asarray(x) for x in found[:4]))
    return Transition(
        jax.tree.map(lambda x: x[:-1], steps), jnp.asarray(found.action), jax.tree.map(lambda x: x[1:], steps)
    )


def live(agent: Agent, state: Any, wanted: Transition, start: int = 0, watch: Any = lambda i, state, pair: ()) -> Any:
    """Run these steps, ignoring the agent's actions; returns its state, the metrics and its inputs."""

    def step(state: Any, inputs: Any) -> Any:
        i, pair = inputs
        seen = watch(i, state, pair)
        state, metrics = agent.learn(jax.random.fold_in(KEY, i), state, pair, clock_at(i))
        return state, (metrics, seen)

    steps = start + jnp.arange(len(wanted.current.reward))
    state, (metrics, seen) = jax.lax.scan(step, state, (steps, wanted))
    return state, metrics, seen


def remember(updates: int, rows: int) -> Intervention:
    """Record the observations of every update, in the row of its index."""
    return Intervention(
        init=lambda key, params, network: jnp.full((updates, rows, 3), jnp.nan),
        step=lambda key, state, learner, seen: (state.at[seen.clock.update].set(seen.observation), learner),
    )
