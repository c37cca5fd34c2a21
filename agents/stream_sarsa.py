"""Stream SARSA(lambda): the on-policy counterpart of Stream Q(lambda)."""

from collections.abc import Mapping
from typing import Annotated, Any

import jax.numpy as jnp

from plasticity.agents.base import AgentCore, assemble
from plasticity.agents.choices import AHEAD, Memory
from plasticity.agents.normalise import NEEDS, Normalise, Share
from plasticity.agents.past import complete
from plasticity.agents.streaming import (
    CONTROL_NETWORK,
    EXPLORATION,
    Rule,
    initial_memory,
    never,
    preprocessor_of,
    traced_q,
)
from plasticity.agents.truncation import Truncation
from plasticity.agents.value_based import action_values, value_outputs
from plasticity.config.fields import BelowOne, Fraction, Member, NonNegative, metadata
from plasticity.core.types import Agent, Array, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.optim.eligibility import eligible


def value_of_next(q: Array, memory: Memory) -> Array:
    """The value of the action that the agent will take."""
    return q[memory["action"][0]]


SARSA = Rule(value_of_next, never, AHEAD)


@metadata(
    paper="Elsayed, Vasan, Mahmood 2024, Streaming Deep Reinforcement Learning Finally Works",
    checked="a NumPy program over 51 time steps of a stream, with gradients by hand",
    only_with=NEEDS,
)
def stream_sarsa(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = CONTROL_NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = "obgd",
    discount: BelowOne = 0.99,
    trace_decay: Fraction = 0.8,
    error_clip: NonNegative = 0.0,
    epsilon: Annotated[Any, Member("schedules")] = EXPLORATION,
    normalise: Normalise = "running",
    normalise_rate: Share = 1e-4,
    scale_rewards: bool = True,
    truncation: Truncation = "bootstrap",
) -> Agent:
    """Stream SARSA(lambda): learning the values of the policy that acts, from each step once, with a bounded step.

    ``delta = r + discount d q(s', a') - q(s, a)``, ``z <- discount trace_decay z + grad q(s, a)``,
    ``theta <- theta + alpha delta z``. ``a'`` is epsilon-greedy in ``q(s', .)`` before the update, and it is the action
    that the agent then takes in s'. The trace is therefore not cut at exploratory actions: it is reset after the update
    at terminations, lost lives and truncations only.

    The first action of an episode is drawn in its first observation. (In the paper's code it is the one that was drawn
    in the last observation of the episode before.) The loss that monitors see bootstraps from the greedy action,
    because a transition alone does not tell the next one. Settings and errors are those of ``stream_q``; the defaults
    are those of the paper's code for classic control.

    Reference: Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works".
    """
    preprocessor = preprocessor_of("stream_sarsa", spec, normalise, normalise_rate, scale_rewards, discount, truncation)
    former = initial_memory(preprocessor)

    def rest(created: Array) -> Mapping[str, Any]:
        return {**former(created), "action": jnp.zeros(1, jnp.int32)}

    described = network(preprocessor.observation, spec.actions)
    body = assemble(described, optimizer(), intervention, rest=rest, trace=eligible, envs=1)

    def make(core: AgentCore) -> Agent:
        return traced_q(core, preprocessor, epsilon(), discount, trace_decay, error_clip, truncation, SARSA)

    return complete(spec, body, value_outputs(action_values(body)), make)
