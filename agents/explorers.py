"""Exploring a new task with the policies of earlier ones, for interventions that choose the policy.

What was tried is part of what a reset of the whole agent renews: a new agent has no old policies.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.actors_and_critics import ACTOR
from plasticity.agents.base import EXPLORE, AgentCore
from plasticity.core.task_entries import replaced, task_of
from plasticity.core.types import (
    FIRST,
    LAST,
    Agent,
    AgentState,
    Array,
    Clock,
    Key,
    Learner,
    Metrics,
    Network,
    StreamSpec,
    Transition,
    is_transition,
)
from plasticity.interventions.base import Tried, fills

EXPLORER = "explorer"  # its name in ``AgentState.rest``


class Explorer(NamedTuple):
    """Who acts in the random steps of a visit, and what came of it."""

    acting: Array  # int32[E]: the task whose policy acts in the episode; -1: the current one
    returned: Array  # float32[E]: the rewards of the episode so far
    current: Array  # int32[]: the task of the visit; -1 before its first step
    tried: Tried


Choose = Callable[[Key, Tried], Array]


def policies_of(network: Network, entries: int) -> int:
    """How many tasks the policy of a network tells apart; ``entries`` of the observation are the task."""
    return max(entries, 1) if network.parts.get(ACTOR, network).reads_task else 1


def nothing_tried(envs: int, policies: int) -> Explorer:
    def none(*shape: int) -> Array:
        return jnp.full(shape, -1, jnp.int32)

    def zeros() -> Array:
        return jnp.zeros(policies, jnp.int32)

    tried = Tried(jnp.zeros(policies, bool), none(), zeros(), zeros(), jnp.zeros(policies))
    return Explorer(none(envs), jnp.zeros(envs), none(), tried)


def starting(choose: Choose, key: Key, explorer: Explorer, first: Array) -> Explorer:
    """Choose the policy of each env in which an episode starts, bool[E], one env after another."""

    def one(tried: Tried, inputs: tuple[Array, Array]) -> tuple[Tried, Array]:
        i, starts = inputs
        task = jnp.where(jnp.any(tried.ended), choose(jax.random.fold_in(key, i), tried), -1)
        begins = starts & (jnp.arange(len(tried.begun)) == task)
        return tried._replace(begun=tried.begun + begins), task

    tried, chosen = jax.lax.scan(one, explorer.tried, (jnp.arange(len(first)), first))
    return explorer._replace(acting=jnp.where(first, chosen, explorer.acting), tried=tried)


def after_step(choose: Choose, key: Key, explorer: Explorer, transition: Transition, task: Array) -> Explorer:
    """Count the reward of a step; an episode that has ended adds its return, and the next one chooses its policy."""
    now, tried = transition.current, explorer.tried
    returned = explorer.returned + jnp.where(is_transition(transition), now.reward, 0.0)
    last = now.step_type == LAST
    ends = last[:, None] & (explorer.acting[:, None] == jnp.arange(len(tried.begun)))
    tried = tried._replace(
        finished=tried.finished + jnp.sum(ends, axis=0, dtype=jnp.int32),
        returns=tried.returns + jnp.sum(jnp.where(ends, returned[:, None], 0.0), axis=0),
    )
    explorer = explorer._replace(returned=jnp.where(last, 0.0, returned), current=task, tried=tried)
    return starting(choose, key, explorer, now.step_type == FIRST)


def after_visit(choose: Choose, key: Key, explorer: Explorer) -> Explorer:
    """Add the policy of the visit that has ended to the old ones, and choose for the next visit's first episodes."""
    tried, policies = explorer.tried, jnp.arange(len(explorer.tried.begun))
    blank = nothing_tried(len(explorer.acting), len(policies))
    known = blank.tried._replace(ended=tried.ended | (policies == explorer.current), previous=explorer.current)
    return starting(choose, key, blank._replace(tried=known), jnp.ones(len(blank.acting), bool))


def exploring(spec: StreamSpec, core: AgentCore, random_steps: int | None, make: Callable[[AgentCore], Agent]) -> Agent:
    """The agent ``make(core)``, in whose random steps at the start of a visit a policy of an earlier task acts.

    Every episode that starts in these steps has one policy, which an intervention chooses: the agent acts as in the
    task of that policy. What it stores and learns has the task of the stream. Until a visit has ended, actions are
    random.

    Args:
      spec: the stream, whose observations end in the task.
      core: the agent's components.
      random_steps: env steps of each env (static); None: the agent has none.
      make: builds the agent from its components. It explores by its age, ``clock.step - rest["schedule"]``.

    Returns:
      The agent. Its ``rest`` has what was tried as ``explorer``, if an intervention chooses a policy.

    Raises:
      ValueError: an intervention chooses a policy, and the agent has no random steps.
    """
    choose = core.intervention.explore
    if random_steps is None or not fills(core.intervention, "explore"):
        return make(core)
    if not random_steps:
        raise ValueError(
            "agent.random_steps: 0 is not allowed; policies of earlier tasks explore in these steps; must be at least 1"
        )
    policies = policies_of(core.network, spec.task_entries)

    def fresh(key: Key, created: Array) -> Learner:
        learner = core.fresh(key, created)
        return learner._replace(rest={**learner.rest, EXPLORER: nothing_tried(spec.envs, policies)})

    agent = make(core._replace(fresh=fresh))

    def act(key: Key, state: AgentState, observation: Array, clock: Clock) -> Array:
        explorer: Explorer = state.rest[EXPLORER]
        old = jnp.any(explorer.tried.ended) & (clock.step_in_visit < random_steps)
        shown = replaced(observation, jnp.where(old, explorer.acting, -1), spec.task_entries)
        created = jnp.where(old, clock.step - random_steps, state.rest["schedule"])  # too old to act at random
        return agent.act(key, state._replace(rest={**state.rest, "schedule": created}), shown, clock)

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        state, metrics = agent.learn(key, state, transition, clock)
        task = task_of(transition.current.observation, spec.task_entries)[0]
        draw, explorer = jax.random.fold_in(key, EXPLORE), state.rest[EXPLORER]
        explorer = jax.lax.cond(
            clock.step_in_visit < random_steps,
            lambda: after_step(choose, draw, explorer, transition, task),
            lambda: explorer,
        )
        return state._replace(rest={**state.rest, EXPLORER: explorer}), metrics

    def switch(key: Key, state: AgentState, clock: Clock) -> AgentState:
        explorer = after_visit(choose, jax.random.fold_in(key, EXPLORE), state.rest[EXPLORER])
        return agent.switch(key, state._replace(rest={**state.rest, EXPLORER: explorer}), clock)

    return agent._replace(act=act, learn=learn, switch=switch)
