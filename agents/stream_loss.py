"""Streaming agents that descend the gradient of a loss on the newest transition only, without a trace."""

from typing import Annotated, Any

import jax.numpy as jnp

from plasticity.agents.base import AgentCore, assemble
from plasticity.agents.categorical import Targets, action_logits, check_atoms, cross_entropies, expected, spread
from plasticity.agents.normalise import NEEDS, Normalise, Preprocessor, Share
from plasticity.agents.past import complete
from plasticity.agents.replay import Batch
from plasticity.agents.streaming import (
    CONTROL_NETWORK,
    EXPLORATION,
    Newest,
    initial_memory,
    preprocessor_of,
    streaming_agent,
)
from plasticity.agents.truncation import Truncation
from plasticity.agents.value_based import (
    FORMER_EPSILON,
    Losses,
    Scores,
    action_values,
    greedy_policy,
    one_step_losses,
    value_outputs,
)
from plasticity.config.fields import BelowOne, Member, NonNegative, Positive, Repeats, metadata
from plasticity.core.masked import mean_where
from plasticity.core.outputs import OUTPUT, Logits, Outputs
from plasticity.core.schedules import Number, Schedule
from plasticity.core.types import Agent, Array, Clock, Key, Learner, Metrics, Params, State, StreamSpec
from plasticity.interventions.base import Intervention

# No momentum, and an epsilon that keeps steps small when gradients are small.
CALM_ADAM = {"kind": "adam", "learning_rate": 3e-4, "b1": 0.0, "eps": 1e-2}


def batch_of_one(
    body: AgentCore,
    preprocessor: Preprocessor,
    values: Scores,
    epsilon: Schedule,
    losses: Losses,
    discount: Number,
    truncation: Truncation,
) -> Agent:
    """Take one gradient step on the newest transition; the target comes from the same network, held fixed."""

    def loss(params: Params, held: Params, batch: Batch) -> tuple[Array, Any]:
        found, activations = losses(params, held, batch)
        return mean_where(batch.valid, found), activations

    def update(
        key: Key, learner: Learner, plugins: State, newest: Newest, clock: Clock
    ) -> tuple[Learner, State, Metrics]:
        held, batch = learner.params, newest.batch
        return body.update(key, learner, plugins, lambda params: loss(params, held, batch), batch.observation, clock)

    policy = greedy_policy(values)
    return streaming_agent(body, preprocessor, policy, epsilon, update, losses, values, "values", discount, truncation)


@metadata(
    paper="Gogianu, Lutu, Pascanu 2026, Revisiting Adam for Streaming RL",
    checked="a NumPy program over eight time steps, with gradients by hand; the optimizer's defaults are ours",
    renamed=FORMER_EPSILON,
    only_with=NEEDS,
)
def stream_dqn(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = CONTROL_NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = CALM_ADAM,
    discount: BelowOne = 0.99,
    huber: NonNegative = 1.0,
    epsilon: Annotated[Any, Member("schedules")] = EXPLORATION,
    normalise: Normalise = "running",
    normalise_rate: Share = 1e-4,
    scale_rewards: bool = True,
    truncation: Truncation = "bootstrap",
) -> Agent:
    """Deep Q-learning from the newest transition only: no replay, no target network, no trace.

    ``L = h(r + discount d max_a q(s', a) - q(s, a))``, with the target held fixed and ``h`` the Huber loss with
    gradient bound ``huber`` (traced; 0 for half the square). Gogianu, Lutu, Pascanu 2026, "Revisiting Adam for
    Streaming RL", find this bounded derivative necessary. Adam without momentum and with a large epsilon follows their
    diagnosis; its values are ours. Everything else is as in ``stream_q``.
    """
    preprocessor = preprocessor_of("stream_dqn", spec, normalise, normalise_rate, scale_rewards, discount, truncation)
    body = assemble(
        network(preprocessor.observation, spec.actions),
        optimizer(),
        intervention,
        rest=initial_memory(preprocessor),
        envs=1,
    )
    values, losses = action_values(body), one_step_losses(body, huber)

    def make(core: AgentCore) -> Agent:
        return batch_of_one(core, preprocessor, values, epsilon(), losses, discount, truncation)

    return complete(spec, body, value_outputs(values), make)


@metadata(
    paper="Gogianu, Lutu, Pascanu 2026, Revisiting Adam for Streaming RL",
    checked="a NumPy program over eight time steps, with gradients by hand; the defaults of `value_max` and of the "
    "optimizer are ours",
    renamed=FORMER_EPSILON,
    only_with=NEEDS,
)
def stream_c51(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = CONTROL_NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = CALM_ADAM,
    discount: BelowOne = 0.99,
    atoms: Repeats = 51,
    value_max: Positive = 10.0,
    targets: Targets = "distribution",
    sigma: Positive = 0.75,
    epsilon: Annotated[Any, Member("schedules")] = EXPLORATION,
    normalise: Normalise = "running",
    normalise_rate: Share = 1e-4,
    scale_rewards: bool = True,
    truncation: Truncation = "bootstrap",
) -> Agent:
    """Categorical Q-learning (C51) from the newest transition only: no replay, no target network, no trace.

    The network outputs the logits of ``p(s, a)`` over ``atoms`` (static, at least 2) values from ``-value_max`` to
    ``value_max`` (traced). With ``a*`` the action with the largest mean in s', the distribution of ``r + discount d z``
    under ``p(s', a*)`` is projected onto these values, and ``L = -sum_i projected_i log p_i(s, a)``. The derivative of
    this loss is bounded. With ``scale_rewards``, ``value_max`` is in units of scaled rewards. Its default and Adam's
    values are ours. ``targets`` (static) and ``sigma`` (traced) are as in ``c51``. Everything else is as in
    ``stream_q``. ``ValueError`` also for fewer than two atoms.

    References: Bellemare, Dabney, Munos 2017, "A Distributional Perspective on Reinforcement Learning"; as a streaming
    agent, Gogianu, Lutu, Pascanu 2026, "Revisiting Adam for Streaming RL".
    """
    preprocessor = preprocessor_of("stream_c51", spec, normalise, normalise_rate, scale_rewards, discount, truncation)
    check_atoms(atoms)
    spread(targets, sigma)
    body = assemble(
        network(preprocessor.observation, spec.actions * atoms),
        optimizer(),
        intervention,
        rest=initial_memory(preprocessor),
        envs=1,
    )
    logits = action_logits(body.network, spec.actions, atoms)

    def support() -> Array:
        return value_max * jnp.linspace(-1.0, 1.0, atoms)

    def values(params: Params, observation: Array) -> Array:
        return expected(logits(params, observation)[0], support())

    def losses(params: Params, held: Params, batch: Batch) -> tuple[Array, Any]:
        now, activations = logits(params, batch.observation)
        following, _ = logits(held, batch.next_observation)
        greedy = expected(following, support())
        return cross_entropies(batch, now, following, greedy, support(), spread(targets, sigma)), activations

    def outputs(params: Params, observation: Any) -> Outputs:
        return {OUTPUT: Logits(logits(params, observation)[0])}

    def make(core: AgentCore) -> Agent:
        return batch_of_one(core, preprocessor, values, epsilon(), losses, discount, truncation)

    return complete(spec, body, outputs, make)
