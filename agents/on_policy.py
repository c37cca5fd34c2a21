"""On-policy learning from rollouts with the clipped losses of proximal policy optimization."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.advantages import normalised
from plasticity.agents.base import AgentCore
from plasticity.agents.clipping import policy_loss, ratio_metrics, value_loss, with_excess
from plasticity.agents.distributions import Distribution, categorical, gaussian
from plasticity.agents.rollout import Judged, Rollout, Samples, judged, judged_in_order, sequence_of, to_samples
from plasticity.agents.rollout_regime import Behaviour, End, Learning, Passes, Seen
from plasticity.agents.truncation import Truncation, kept_discount
from plasticity.core.masked import mean_where
from plasticity.core.outputs import Logits, Normal, Outputs, Read, Values
from plasticity.core.schedules import Number
from plasticity.core.types import AgentState, Array, Key, Learner, Metrics, Params, State, StreamSpec, Transition


class Rules(NamedTuple):
    """An agent's settings, except those of its network, optimizer, preprocessing, acting and passes over a rollout."""

    discount: Number
    trace: Number
    clip: Number
    value_clip: Number | None
    value_coefficient: Number
    entropy_coefficient: Number
    normalise_advantages: str
    truncation: Truncation
    optimizer_reset: bool
    target_kl: Number | None


def policy_and_value(body: AgentCore, params: Params, observation: Array) -> tuple[Distribution, Array, Any]:
    """Policy and values ``[B]`` in these states, and the activations; without a value head, values are 0."""
    outputs, activations = body.network.forward(params, observation)
    mean_or_logits = outputs["policy"]
    policy = gaussian(mean_or_logits, outputs["scale"]) if "scale" in outputs else categorical(mean_or_logits)
    value = outputs["value"][:, 0] if "value" in outputs else jnp.zeros(mean_or_logits.shape[0])
    return policy, value, activations


def judged_again(
    body: AgentCore, learner: Learner, plugins: State, rollout: Rollout, end: End, parts: int
) -> tuple[Judged, Any]:
    """The steps of a rollout under the parameters that acted, and its observations as a network with memory reads them.

    Without memory, the observations are those of the rollout; ``parts`` (static) divides the computation.
    """
    acted = body.acting(AgentState(learner, plugins, {}))

    def old(observation: Any, action: Array) -> tuple[Array, Array]:
        policy, value, _ = policy_and_value(body, acted, observation)
        return policy.log_probability(action), value

    if not body.network.remembers:
        return judged(old, rollout, end.observation, parts), rollout.observation
    sequence = sequence_of(rollout, end.start)
    return judged_in_order(old, rollout, sequence, body.batch(end.observation, end.carry)), sequence


def policy_outputs(body: AgentCore) -> Read:
    """Policy and value as what the networks say."""

    def read(params: Params, observation: Any) -> Outputs:
        outputs = body.network.forward(params, observation)[0]
        said = outputs["policy"]
        spread = outputs.get("scale")
        policy = Logits(said) if spread is None else Normal(said, jnp.broadcast_to(spread, said.shape))
        return {"policy": policy} | ({"value": Values(outputs["value"])} if "value" in outputs else {})

    return read


def loss(body: AgentCore, rules: Rules, params: Params, batch: Samples) -> tuple[Array, Any, Metrics]:
    """The loss of a minibatch, the activations of its forward pass, and its metrics."""
    policy, value, activations = policy_and_value(body, params, batch.observation)
    log_ratio = policy.log_probability(batch.action) - batch.log_probability
    log_ratio = jnp.where(batch.valid, log_ratio, 0.0)
    advantage = batch.advantage
    if rules.normalise_advantages == "minibatch":
        advantage = normalised(advantage, batch.valid)
    parts = {
        "policy_loss": mean_where(batch.valid, policy_loss(log_ratio, advantage, rules.clip)),
        "value_loss": mean_where(batch.valid, value_loss(value, batch.value, batch.target, rules.value_clip)),
        "entropy": mean_where(batch.valid, policy.entropy),
    }
    total = parts["policy_loss"] + rules.value_coefficient * parts["value_loss"]
    total -= rules.entropy_coefficient * parts["entropy"]
    return total, activations, parts | ratio_metrics(log_ratio, batch.valid, rules.clip)


class OneStep(NamedTuple):
    """The settings of :func:`one_step_losses`."""

    discount: Number
    truncation: Truncation
    value_coefficient: Number
    entropy_coefficient: Number


def one_step_losses(
    body: AgentCore, rules: OneStep, params: Params, held: Params, seen: Seen, pairs: Transition
) -> Array:
    """The loss that monitors see: policy gradient and value error with one-step advantages and no clip or old policy.

    ``-A log pi(a|s) + value_coefficient (v(s) - v'(s) - A)^2 / 2 - entropy_coefficient H``, float32[B], with
    ``A = r + D v'(s') - v'(s)`` and ``v'`` the value under ``held``. It may be negative.
    """
    previous, current, reward = seen
    values = [policy_and_value(body, held, x)[1] for x in (previous, current)]
    discount = kept_discount(pairs.current.discount, pairs.current.step_type, rules.truncation)
    target = reward + rules.discount * discount * values[1]
    policy, value, _ = policy_and_value(body, params, previous)
    gain = (target - values[0]) * policy.log_probability(pairs.action) + rules.entropy_coefficient * policy.entropy
    return 0.5 * rules.value_coefficient * jnp.square(value - target) - gain


def policy_learning(spec: StreamSpec, body: AgentCore, rules: Rules, passes: Passes) -> Learning:
    """The updates of PPO."""

    def samples(learner: Learner, plugins: State, rollout: Rollout, end: End) -> Samples:
        seen, observation = judged_again(body, learner, plugins, rollout, end, passes.minibatches)
        made = to_samples(rollout, seen, gamma=rules.discount, trace=rules.trace, truncation=rules.truncation)
        if body.network.remembers:
            made = made._replace(observation=observation)
        if rules.normalise_advantages != "batch":
            return made
        return made._replace(advantage=normalised(made.advantage, made.valid))

    def scores(params: Params, observation: Array) -> Array:
        outputs: Array = body.network.forward(params, observation)[0]["policy"]
        return outputs

    limit = rules.target_kl
    one_step = OneStep(rules.discount, rules.truncation, rules.value_coefficient, rules.entropy_coefficient)
    return Learning(
        samples,
        lambda params, batch: loss(body, rules, params, batch),
        lambda *given: one_step_losses(body, one_step, *given),
        scores,
        "logits" if spec.discrete else "prediction",
        rules.optimizer_reset,
        None if limit is None else lambda made: made["approx_kl"] > limit,
        with_excess,
    )


def policy_behaviour(
    spec: StreamSpec, body: AgentCore, evaluate: str, *, sign_rewards: bool = False, reward_clip: Number = 0.0
) -> Behaviour:
    """Actions sampled from the policy; evaluation may take the most likely one (``evaluate`` "mode", static).

    The agent sees the signs of the rewards with ``sign_rewards`` (static), and scaled rewards clipped to +-
    ``reward_clip`` (traced; 0: not clipped).
    """

    def act(key: Key, params: Params, seen: Array, epsilon: Array) -> Array:
        del epsilon
        return policy_and_value(body, params, seen)[0].sample(key)

    def play(key: Key, params: Params, seen: Array, epsilon: Array) -> Array:
        coin, choice, draw = jax.random.split(key, 3)
        policy, *_ = policy_and_value(body, params, seen)
        actions = policy.mode if evaluate == "mode" else policy.sample(draw)
        if not spec.discrete:
            return actions
        uniform = jax.random.randint(choice, actions.shape, 0, spec.actions)
        return jnp.where(jax.random.uniform(coin, actions.shape) < epsilon, uniform, actions)

    def signed(reward: Array) -> Array:
        return jnp.sign(reward) if sign_rewards else reward

    def bounded(reward: Array) -> Array:
        return jnp.where(reward_clip > 0, jnp.clip(reward, -reward_clip, reward_clip), reward)

    return Behaviour(act, play, raw_reward=signed, scaled_reward=bounded)
