"""Streaming actor-critic: two networks and two eligibility traces that share one TD error."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.actor_critic import separate
from plasticity.agents.base import AgentCore, Meaning, assemble_built
from plasticity.agents.distributions import Distribution, categorical, gaussian
from plasticity.agents.normalise import NEEDS, Normalise, Share
from plasticity.agents.past import complete
from plasticity.agents.replay import Batch
from plasticity.agents.streaming import (
    CONTROL_NETWORK,
    Newest,
    Update,
    initial_memory,
    preprocessor_of,
    streaming_agent,
    trace_metrics,
)
from plasticity.agents.truncation import Truncation
from plasticity.agents.value_based import Losses, Policy
from plasticity.config.fields import BelowOne, Fraction, Member, NonNegative, metadata
from plasticity.core.outputs import Logits, Normal, Output, Outputs, Values
from plasticity.core.schedules import Number
from plasticity.core.types import Agent, Array, Clock, Key, Learner, Metrics, Params, State, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.optim.eligibility import eligible, parts

WIDER_NETWORK = {**CONTROL_NETWORK, "widths": [128, 128]}
POLICY_OPTIMIZER = {"kind": "obgd", "kappa": 3.0}
VALUE_OPTIMIZER = {"kind": "obgd", "kappa": 2.0}


class Actor(NamedTuple):
    """How the outputs of the policy network are read."""

    outputs: int
    policy: Callable[[Array], Distribution]  # outputs [B, ...] -> the policy
    said: Callable[[Array], Output]  # the policy, for interventions
    scores: Callable[[Array], Array]  # for monitors
    meaning: Meaning


def discrete_actor(actions: int) -> Actor:
    """Logits."""
    return Actor(actions, categorical, Logits, jax.nn.log_softmax, "logits")


def log_softplus(x: Array) -> Array:
    """``log(log(1 + e^x))``, which is ``x`` to the last digit below -20, where ``softplus`` loses its digits."""
    return jnp.where(x > -20.0, jnp.log(jax.nn.softplus(jnp.maximum(x, -20.0))), x)


def real_actor(actions: int) -> Actor:
    """Means, and numbers whose softplus is the standard deviation."""

    def parts(outputs: Array) -> tuple[Array, Array]:
        mean, spread = jnp.split(outputs, 2, axis=-1)
        return mean, log_softplus(spread)

    return Actor(
        2 * actions,
        lambda outputs: gaussian(*parts(outputs)),
        lambda outputs: Normal(*parts(outputs)),
        lambda outputs: parts(outputs)[0],
        "prediction",
    )


class Seen(NamedTuple):
    """What the two networks make of ``B`` observations."""

    policy: Distribution
    value: Array  # [B]
    activations: Any


class Judge(NamedTuple):
    """The networks, and how they are read."""

    body: AgentCore
    actor: Actor

    def __call__(self, params: Params, observation: Array) -> Seen:
        outputs, activations = self.body.network.forward(params, observation)
        return Seen(self.actor.policy(outputs["policy"]), outputs["value"][:, 0], activations)

    def outputs(self, params: Params, observation: Array) -> Outputs:
        """What the networks say, for interventions."""
        made = self.body.network.forward(params, observation)[0]
        return {"policy": self.actor.said(made["policy"]), "value": Values(made["value"])}

    def scores(self, params: Params, observation: Array) -> Array:
        return self.actor.scores(self.body.network.forward(params, observation)[0]["policy"])


def sampled(judge: Judge, spec: StreamSpec) -> Policy:
    """Actions from the policy; with probability epsilon, uniform ones if they are discrete."""

    def policy(key: Key, params: Params, observation: Array, epsilon: Array) -> Array:
        coin, choice, draw = jax.random.split(key, 3)
        actions = judge(params, observation).policy.sample(draw)
        if not spec.discrete:
            return actions
        uniform = jax.random.randint(choice, actions.shape, 0, spec.actions)
        explore = jax.random.uniform(coin, actions.shape) < epsilon
        return jnp.where(explore, uniform, actions).astype(jnp.int32)

    return policy


def one_step_losses(judge: Judge, entropy_coefficient: Number) -> Losses:
    """The loss that monitors see: ``delta^2 / 2 - delta log pi(a|s)`` minus the entropy term, see :func:`stream_ac`."""

    def losses(params: Params, held: Params, batch: Batch) -> tuple[Array, Any]:
        seen = judge(params, batch.observation)
        errors = batch.reward + batch.discount * judge(held, batch.next_observation).value - seen.value
        fixed = jax.lax.stop_gradient(errors)
        bonus = entropy_coefficient * jnp.abs(fixed) * seen.policy.entropy
        gain = fixed * seen.policy.log_probability(batch.action) + bonus
        return 0.5 * jnp.square(errors) - gain, seen.activations

    return losses


def traced_update(
    judge: Judge, losses: Losses, discount: Number, trace_decay: Number, entropy_coefficient: Number
) -> Update:
    """One update of both networks along their traces; ``losses`` are for interventions."""
    body = judge.body

    def update(
        key: Key, learner: Learner, plugins: State, newest: Newest, clock: Clock
    ) -> tuple[Learner, State, Metrics]:
        held, batch = learner.params, newest.batch
        context = body.context(clock, batch.observation, lambda params: jnp.mean(losses(params, held, batch)[0]))
        learner, plugins = body.prepare(key, learner, plugins, context)
        target = batch.reward + batch.discount * judge(learner.params, batch.next_observation).value

        def objective(params: Params) -> tuple[Array, tuple[Array, Any]]:
            seen = judge(params, batch.observation)
            error = jax.lax.stop_gradient(target - seen.value)
            bonus = entropy_coefficient * jnp.sign(error) * seen.policy.entropy
            total = seen.policy.log_probability(batch.action) + bonus + seen.value
            return total[0], (error[0], seen.activations)

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
            trace_start=newest.first,
            trace_end=newest.ended,
            penalty=body.penalty_gradients(learner, plugins, context),
        )
        return learner, plugins, trace_metrics(body, learner, error)

    return update


@metadata(
    paper="Elsayed, Vasan, Mahmood 2024, Streaming Deep Reinforcement Learning Finally Works",
    checked="a NumPy program over 51 time steps of a stream, with gradients by hand, for discrete and real-valued "
    "actions",
    renamed={"trace": "trace_decay"},
    only_with=NEEDS,
)
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
    """Stream AC(lambda): a streaming actor-critic, for discrete and real-valued actions.

    ``delta = r + discount d v(s') - v(s)``; ``z_v <- discount trace_decay z_v + grad v(s)``;
    ``z_pi <- discount trace_decay z_pi + grad [log pi(a|s) + entropy_coefficient sign(delta) H(pi(.|s))]``. The two
    networks have the same hidden layers; each is updated along ``delta z`` by its own optimizer. Both traces are reset
    after the update at terminations, lost lives and truncations.

    Real-valued actions are independent normals. The policy network outputs their means and, as numbers whose softplus
    they are, their standard deviations. Actions are not squashed: the stream clips them, and ``log pi`` is that of the
    action before it is clipped. The paper's code also appends the time in the episode to the normalised observation;
    the transform ``time_in_episode`` does so before the agent normalises it.

    Traced: ``discount``, ``trace_decay`` (lambda), ``entropy_coefficient``. For the other settings and for errors see
    ``stream_q``; ``truncation: terminal`` is that of the paper's scripts. The recorded step size is the policy's. The
    loss that monitors see is ``delta^2 / 2 - delta log pi(a|s)`` minus the entropy term, with ``delta`` held fixed in
    the second term. It may be negative.

    Reference: Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works".
    """
    preprocessor = preprocessor_of(
        "stream_ac", spec, normalise, normalise_rate, scale_rewards, discount, truncation, discrete=False
    )
    actor = discrete_actor(spec.actions) if spec.discrete else real_actor(spec.actions)
    heads: dict[str, int] = {"policy": actor.outputs, "value": 1}
    wired = separate(network, preprocessor.observation, heads, dict.fromkeys(heads), intervention)
    rule = parts({"policy": policy_optimizer(), "value": value_optimizer()})
    rest = initial_memory(preprocessor, scheduled=False)
    body = assemble_built(wired, rule, intervention, rest=rest, trace=eligible, envs=1)
    judge = Judge(body, actor)
    losses, policy = one_step_losses(judge, entropy_coefficient), sampled(judge, spec)

    def make(core: AgentCore) -> Agent:
        update = traced_update(Judge(core, actor), losses, discount, trace_decay, entropy_coefficient)
        scores, meaning = judge.scores, actor.meaning
        return streaming_agent(core, preprocessor, policy, None, update, losses, scores, meaning, discount, truncation)

    return complete(spec, body, judge.outputs, make)
