"""An agent: Q-learning on each transition as it arrives, without replay or traces."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from plasticity.agents.base import ACTION, assemble
from plasticity.agents.value_based import epsilon_greedy
from plasticity.config.fields import BelowOne, Fraction, Member
from plasticity.core.masked import mean_where
from plasticity.core.types import (
    Agent,
    AgentState,
    Array,
    Clock,
    Key,
    Metrics,
    Params,
    Probe,
    StreamSpec,
    TimeStep,
    Transition,
    is_transition,
)
from plasticity.interventions.base import Intervention


def one_step_q(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = "sgd",
    discount: BelowOne = 0.99,
    epsilon: Fraction = 0.1,
) -> Agent:
    """Q-learning: one update at every step, from the newest transition of each env.

    ``delta = r + discount d max_a q(s', a) - q(s, a)``; the loss is ``delta^2 / 2`` with the target held fixed.
    ``discount`` and ``epsilon`` are traced. ``ValueError`` if actions are not discrete.
    """
    if not spec.discrete:
        raise ValueError("agent.kind: one_step_q is not allowed; it needs a stream with discrete actions")
    body = assemble(network(spec.observation, spec.actions), optimizer(), intervention)

    def values(params: Params, observation: Any) -> Array:
        found: Array = body.network.forward(params, observation)[0]
        return found

    def errors(params: Params, held: Params, transition: Transition) -> tuple[Array, Any]:
        """Return ``delta^2 / 2`` for each env, and the activations on its observations."""
        q, activations = body.network.forward(params, transition.previous.observation)
        taken = jnp.take_along_axis(q, transition.action[:, None], axis=-1)[:, 0]
        following = jnp.max(values(held, transition.current.observation), axis=-1)
        target = transition.current.reward + discount * transition.current.discount * following
        return jnp.square(target - taken) / 2, activations

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Any, clock: Clock) -> Array:
        del clock
        return play(key, state, observation, jnp.asarray(epsilon))

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        return epsilon_greedy(jax.random.fold_in(key, ACTION), values(body.acting(state), observation), epsilon)

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        valid, held = is_transition(transition), state.learner.params

        def loss(params: Params) -> tuple[Array, Any]:
            each, activations = errors(params, held, transition)
            return mean_where(valid, each), activations

        seen = transition.previous.observation
        learner, plugins, metrics = body.update(key, state.learner, state.plugins, loss, seen, clock)
        return AgentState(learner, plugins, state.rest), {**metrics, "updates": jnp.ones(())}

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        held, seen = state.learner.params, transition.previous.observation
        valid = is_transition(transition)
        return body.probe(
            state.learner, seen, lambda params: errors(params, held, transition)[0], valid, values, "values", clock
        )

    return Agent(init, act, learn, body.switch, probe, play)
