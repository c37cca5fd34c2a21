"""Streaming actor-critic: two networks and two eligibility traces that share one TD error."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from plasticity.agents.actor_critic import separate
from plasticity.agents.base import AgentCore, assemble_built
from plasticity.agents.normalise import NEEDS, Normalise, Share
from plasticity.agents.on_policy import policy_outputs
from plasticity.agents.past import complete
from plasticity.agents.replay import Batch
from plasticity.agents.streaming import (
    CONTROL_NETWORK,
    Update,
    initial_memory,
    preprocessor_of,
    streaming_agent,
    trace_metrics,
)
from plasticity.agents.truncation import Truncation
from plasticity.agents.value_based import Losses, Policy, value_of_action
from plasticity.config.fields import BelowOne, Fraction, Member, NonNegative, metadata
from plasticity.core.schedules import Number
from plasticity.core.types import Agent, Array, Clock, Key, Learner, Metrics, Params, State, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.optim.eligibility import eligible, parts

WIDER_NETWORK = {**CONTROL_NETWORK, "widths": [128, 128]}
POLICY_OPTIMIZER = {"kind": "obgd", "kappa": 3.0}
VALUE_OPTIMIZER = {"kind": "obgd", "kappa": 2.0}


def entropy(log_p: Array) -> Array:
    """``-sum_a p log p``, over the last axis."""
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def log_policy_and_value(body: AgentCore, params: Params, observation: Array) -> tuple[Array, Array, Any]:
    """Log-probabilities ``[B, actions]``, values ``[B]``, and the activations."""
    outputs, activations = body.network.forward(params, observation)
    return jax.nn.log_softmax(outputs["policy"]), outputs["value"][:, 0], activations


def sampled(body: AgentCore, actions: int) -> Policy:
    """Actions from the policy; with probability epsilon, uniform ones."""

    def policy(key: Key, params: Params, observation: Array, epsilon: Array) -> Array:
        coin, choice, draw = jax.random.split(key, 3)
        log_p, _, _ = log_policy_and_value(body, params, observation)
        uniform = jax.random.randint(choice, log_p.shape[:1], 0, actions)
        explore = jax.random.uniform(coin, log_p.shape[:1]) < epsilon
        return jnp.where(explore, uniform, jax.random.categorical(draw, log_p)).astype(jnp.int32)

    return policy


def one_step_losses(body: AgentCore, entropy_coefficient: Number) -> Losses:
    """The loss that monitors see: ``delta^2 / 2 - delta log pi(a|s)`` minus the entropy term, see :func:`stream_ac`."""

    def losses(params: Params, held: Params, batch: Batch) -> tuple[Array, Any]:
        log_p, value, activations = log_policy_and_value(body, params, batch.observation)
        following = log_policy_and_value(body, held, batch.next_observation)[1]
        errors = batch.reward + batch.discount * following - value
        fixed = jax.lax.stop_gradient(errors)
        gain = fixed * value_of_action(log_p, batch.action) + entropy_coefficient * jnp.abs(fixed) * entropy(log_p)
        return 0.5 * jnp.square(errors) - gain, activations

    return losses


def traced_update(
    body: AgentCore, losses: Losses, discount: Number, trace_decay: Number, entropy_coefficient: Number
) -> Update:
    """One update of both networks along their traces; ``losses`` are for interventions."""

    def update(
        key: Key, learner: Learner, plugins: State, batch: Batch, first: Array, ended: Array, clock: Clock
    ) -> tuple[Learner, State, Metrics]:
        held = learner.params
        context = body.context(clock, batch.observation, lambda params: jnp.mean(losses(params, held, batch)[0]))
        learner, plugins = body.prepare(key, learner, plugins, context)
        _, following, _ = log_policy_and_value(body, learner.params, batch.next_observation)
        target = batch.reward + batch.discount * following

        def objective(params: Params) -> tuple[Array, tuple[Array, Any]]:
            log_p, value, activations = log_policy_and_value(body, params, batch.observation)
            error = jax.lax.stop_gradient(target - value)
            bonus = entropy_coefficient * jnp.sign(error) * entropy(log_p)
            return (value_of_action(log_p, batch.action) + bonus + value)[0], (error[0], activations)

        gradient, (error, activations) = jax.grad(objective, has_aux=True)(learner.params)
        learner, plugins = body.finish(
            key,
            learner,
            plugins,
            gradient,
            context._replace(activations=activations),
            batch.valid[0],
            td_error=error,
            trace_decay=jnp.asarray(discount * trace_decay, jnp.float32),
            trace_start=first,
            trace_end=ended,
            penalty=body.penalty_gradients(learner, plugins, context),
        )
        return learner, plugins, trace_metrics(body, learner, error)

    return update


@metadata(renamed={"trace": "trace_decay"}, only_with=NEEDS)
def stream_ac(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = WIDER_NETWORK,
    policy_optimizer: Annotated[Any, Member("optimizers")] = POLICY_OPTIMIZER,
    value_optimizer: Annotated[Any, Member("optimizers")] = VALUE_OPTIMIZER,
    discount: BelowOne = 0.99,
    trace_decay: Fraction = 0.8,
    entropy_coefficient: NonNegative = 0.01,
    normalise: Normalise = "running",
    normalise_rate: Share = 1e-4,
    scale_rewards: bool = True,
    truncation: Truncation = "bootstrap",
) -> Agent:
    """Stream AC(lambda): a streaming actor-critic for discrete actions.

    ``delta = r + discount d v(s') - v(s)``; ``z_v <- discount trace_decay z_v + grad v(s)``;
    ``z_pi <- discount trace_decay z_pi + grad [log pi(a|s) + entropy_coefficient sign(delta) H(pi(.|s))]``. The two
    networks have the same architecture; each is updated along ``delta z`` by its own optimizer. Both traces are reset
    after the update at terminations, lost lives and truncations.

    Traced: ``discount``, ``trace_decay`` (lambda), ``entropy_coefficient``. For the other settings and for errors see
    ``stream_q``. The recorded step size is the policy's. The loss that monitors see is ``delta^2 / 2 - delta log
    pi(a|s)`` minus the entropy term, with ``delta`` held fixed in the second term. It may be negative.

    Reference: Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works".
    """
    preprocessor = preprocessor_of("stream_ac", spec, normalise, normalise_rate, scale_rewards, discount, truncation)
    heads: dict[str, int] = {"policy": spec.actions, "value": 1}
    wired = separate(network, preprocessor.observation, heads, dict.fromkeys(heads), intervention)
    rule = parts({"policy": policy_optimizer(), "value": value_optimizer()})
    rest = initial_memory(preprocessor, scheduled=False)
    body = assemble_built(wired, rule, intervention, rest=rest, trace=eligible, envs=1)
    losses = one_step_losses(body, entropy_coefficient)

    def scores(params: Params, observation: Array) -> Array:
        return log_policy_and_value(body, params, observation)[0]

    policy = sampled(body, spec.actions)

    def make(core: AgentCore) -> Agent:
        update = traced_update(core, losses, discount, trace_decay, entropy_coefficient)
        return streaming_agent(core, preprocessor, policy, None, update, losses, scores, "logits", discount, truncation)

    return complete(spec, body, policy_outputs(body), make)
