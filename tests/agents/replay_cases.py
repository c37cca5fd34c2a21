"""The reference's script, as a replay agent sees it."""

from typing import Any

import jax
import jax.numpy as jnp
from agent_cases import clock_at
from q_reference import script

from plasticity.core.types import Agent, StreamSpec, TimeStep, Transition, VisitPlan
from plasticity.interventions.base import Intervention

KEY = jax.random.key(5)
SPEC = StreamSpec(jax.ShapeDtypeStruct((3,), jnp.float32), 4, ("a",), (VisitPlan(0, 60),), 2, True)
STEPS = 30


def pairs() -> Transition:
    """The script as neighbouring time steps, ``[30, 2, ...]``."""
    life = script()
    steps = TimeStep(*(jnp.asarray(x) for x in life[:4]))
    return Transition(
        jax.tree.map(lambda x: x[:-1], steps), jnp.asarray(life.action), jax.tree.map(lambda x: x[1:], steps)
    )


def remember(updates: int, batch: int = 8) -> Intervention:
    """Record the observations of every update, in the row of its index."""
    return Intervention(
        init=lambda key, params, network: jnp.full((updates, batch, 3), jnp.nan),
        step=lambda key, state, learner, seen: (state.at[seen.clock.update].set(seen.observation), learner),
    )


def live(agent: Agent, state: Any, start: int = 0, steps: int = STEPS, watch: Any = lambda state: ()) -> Any:
    """Run ``steps`` steps of the script from ``start``, ignoring the agent's actions; returns state, metrics, views."""

    def step(state: Any, inputs: Any) -> Any:
        i, pair = inputs
        state, metrics = agent.learn(jax.random.fold_in(KEY, i), state, pair, clock_at(i))
        return state, (metrics, watch(state))

    wanted = jax.tree.map(lambda x: jnp.resize(x, (60, *x.shape[1:]))[start : start + steps], pairs())
    state, (metrics, seen) = jax.lax.scan(step, state, (start + jnp.arange(steps), wanted))
    return state, metrics, seen
