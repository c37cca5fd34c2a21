"""Losses of soft actor-critic, for real-valued and discrete actions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.actors_and_critics import (
    ACTOR,
    Scale,
    StateAction,
    critic_values,
    read_critics,
    state_and_action,
    uniform,
    with_action,
)
from plasticity.agents.criteria import Criterion, Found
from plasticity.agents.distributions import Squashed, categorical, squashed
from plasticity.agents.replay import Batch
from plasticity.core.masked import mean_where
from plasticity.core.outputs import Logits, Normal, Outputs, Read
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Key, Metrics, Network, Params

TEMPERATURE = "temperature"
METRICS = ("critic_loss", "actor_loss", "q_mean", "entropy", "temperature")


class Soft(NamedTuple):
    """The settings of the losses."""

    target_entropy: Number
    temperature: Number | None  # None: learned
    target_critics: int  # how many critics, drawn for each update, the target takes the smallest of; static
    actor_value: str  # "min" or "mean" of the critics; static


def temperature_of(outputs: Any, rules: Soft) -> Array:
    """``alpha``, float32[]."""
    return jnp.exp(outputs[TEMPERATURE]) if rules.temperature is None else jnp.asarray(rules.temperature, jnp.float32)


def drawn_critics(key: Key, q: Array, count: int) -> Array:
    """The smallest of ``count`` critics drawn without replacement: ``q[K, ...] -> [...]``."""
    if count < len(q):
        q = q[jax.random.choice(key, len(q), (count,), replace=False)]
    return jnp.min(q, axis=0)


def judged(q: Array, rules: Soft) -> Array:
    """What the actor maximises: the smallest or the mean of the critics, ``q[K, ...] -> [...]``."""
    return jnp.min(q, axis=0) if rules.actor_value == "min" else jnp.mean(q, axis=0)


class RealActor(NamedTuple):
    """How the actor's outputs are read when actions are real-valued."""

    policy: Callable[[Array], Squashed]  # outputs [B, 2 size] -> the policy, in (-1, 1)
    log_std: tuple[float, float]  # bounds of the logarithms of its standard deviations, static
    scale: Scale  # to the stream's actions


def real_actor(scale: Scale, log_std: tuple[float, float]) -> RealActor:
    """Means, and logarithms of standard deviations clipped to ``log_std`` (static)."""

    def policy(outputs: Array) -> Squashed:
        mean, spread = jnp.split(outputs, 2, axis=-1)
        return squashed(mean, jnp.clip(spread, *log_std))

    return RealActor(policy, log_std, scale)


def real_outputs(network: Network, actor: RealActor) -> Read:
    """What the networks say, with the policy before it is squashed."""

    def read(params: Params, seen: Any) -> Outputs:
        made = network.forward(params, with_action(seen, actor.scale))[0]
        mean, spread = jnp.split(made[ACTOR], 2, axis=-1)
        return {ACTOR: Normal(mean, jnp.clip(spread, *actor.log_std)), **read_critics(made)}

    return read


class Parts(NamedTuple):
    """The terms of a batch, ``[B]`` each."""

    critics: Array  # half the squared errors, summed over critics
    actor: Array
    entropy: Array  # minus the log-probabilities, or their mean under the policy
    q: Array  # the smallest action value


def continuous_parts(
    network: Network, actor: RealActor, rules: Soft, key: Key, batch: Batch, params: Params, target: Params
) -> tuple[Parts, Array, Any]:
    """The terms, alpha and the activations for real-valued actions.

    ``y = R + D (min_i q_i'(s', a') - alpha log pi(a'|s'))`` with a' from the policy, critics ``(q_i(s, a) - y)^2 / 2``,
    actor ``alpha log pi(b|s) - min_i q_i(s, b)`` with b from the policy.
    """
    now, then, choice = jax.random.split(key, 3)
    held = jax.lax.stop_gradient(params)
    outputs, activations = network.forward(params, StateAction(batch.observation, batch.action))
    alpha = temperature_of(outputs, rules)
    fixed = jax.lax.stop_gradient(alpha)

    following = network.forward(held, StateAction(batch.next_observation, batch.action))[0]
    action, log_p = actor.policy(following[ACTOR]).sample(then)
    q = critic_values(network.forward(target, StateAction(batch.next_observation, actor.scale(action)))[0])
    wanted = batch.reward + batch.discount * (drawn_critics(choice, q, rules.target_critics) - fixed * log_p)
    taken = critic_values(outputs)
    errors = 0.5 * jnp.sum(jnp.square(taken - jax.lax.stop_gradient(wanted)), axis=0)

    action, log_p = actor.policy(outputs[ACTOR]).sample(now)
    q = critic_values(network.forward(held, StateAction(batch.observation, actor.scale(action)))[0])
    return Parts(errors, fixed * log_p - judged(q, rules), -log_p, jnp.min(taken, axis=0)), alpha, activations


def discrete_parts(
    network: Network, rules: Soft, key: Key, batch: Batch, params: Params, target: Params
) -> tuple[Parts, Array, Any]:
    """The same for discrete actions: expectations over the policy instead of samples.

    Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings".
    """
    held = jax.lax.stop_gradient(params)
    outputs, activations = network.forward(params, batch.observation)
    alpha = temperature_of(outputs, rules)
    fixed = jax.lax.stop_gradient(alpha)

    log_p = jax.nn.log_softmax(network.forward(held, batch.next_observation)[0][ACTOR])
    q = drawn_critics(key, critic_values(network.forward(target, batch.next_observation)[0]), rules.target_critics)
    value = jnp.sum(jnp.exp(log_p) * (q - fixed * log_p), axis=-1)
    wanted = jax.lax.stop_gradient(batch.reward + batch.discount * value)
    q = critic_values(outputs)
    taken = jnp.sum(jnp.where(jnp.arange(q.shape[-1]) == batch.action[:, None], q, 0.0), axis=-1)
    errors = 0.5 * jnp.sum(jnp.square(taken - wanted), axis=0)

    log_p = jax.nn.log_softmax(outputs[ACTOR])
    p = jnp.exp(log_p)
    actor = jnp.sum(p * (fixed * log_p - judged(jax.lax.stop_gradient(q), rules)), axis=-1)
    return Parts(errors, actor, -jnp.sum(p * log_p, axis=-1), jnp.min(taken, axis=0)), alpha, activations


def soft_loss(parts: Parts, alpha: Array, activations: Any, rules: Soft, batch: Batch, weights: Array) -> Found:
    """``critics + actor + alpha (entropy - target_entropy)``, each the mean over the valid transitions.

    Each term has a gradient with respect to its own parameters only. ``weights`` apply to the critics.
    """
    surplus = jax.lax.stop_gradient(parts.entropy) - rules.target_entropy
    made: Metrics = {
        "critic_loss": mean_where(batch.valid, weights * parts.critics),
        "actor_loss": mean_where(batch.valid, parts.actor),
        "q_mean": mean_where(batch.valid, parts.q),
        "entropy": mean_where(batch.valid, parts.entropy),
        "temperature": alpha,
    }
    total = made["critic_loss"] + made["actor_loss"]
    if rules.temperature is None:
        total += mean_where(batch.valid, alpha * surplus)
    return Found(total, parts.critics + parts.actor, activations, made, priorities=parts.critics)


def real_valued(network: Network, actor: RealActor, rules: Soft, random_steps: int, evaluate: str) -> Criterion:
    """Soft actor-critic with real-valued actions; the first ``random_steps`` env steps of an agent are random."""

    def loss(key: Key, batch: Batch, weights: Array, params: Params, target: Params) -> Found:
        parts, alpha, activations = continuous_parts(network, actor, rules, key, batch, params, target)
        return soft_loss(parts, alpha, activations, rules, batch, weights)

    def outputs(params: Params, seen: Array) -> Array:
        made: Array = network.forward(params, with_action(seen, actor.scale))[0][ACTOR]
        return made

    def act(key: Key, params: Params, seen: Any, age: Array) -> Array:
        draw, choice = jax.random.split(key)
        action = actor.policy(outputs(params, seen)).sample(draw)[0]
        return actor.scale(jnp.where(age < random_steps, uniform(choice, action.shape), action))

    def play(key: Key, params: Params, seen: Any, epsilon: Array) -> Array:
        del epsilon
        policy = actor.policy(outputs(params, seen))
        return actor.scale(policy.mode if evaluate == "mode" else policy.sample(key)[0])

    def scores(params: Params, seen: Any) -> Array:
        return actor.policy(outputs(params, seen)).mode

    read = real_outputs(network, actor)
    return Criterion(loss, act, play, scores, "prediction", METRICS, read, inputs=state_and_action)


def discrete(network: Network, rules: Soft, actions: int, random_steps: int, evaluate: str) -> Criterion:
    """Soft actor-critic with discrete actions."""

    def loss(key: Key, batch: Batch, weights: Array, params: Params, target: Params) -> Found:
        parts, alpha, activations = discrete_parts(network, rules, key, batch, params, target)
        return soft_loss(parts, alpha, activations, rules, batch, weights)

    def scores(params: Params, seen: Any) -> Array:
        made: Array = network.forward(params, seen)[0][ACTOR]
        return made

    def act(key: Key, params: Params, seen: Any, age: Array) -> Array:
        return mixed(key, categorical(scores(params, seen)).sample, jnp.where(age < random_steps, 1.0, 0.0))

    def play(key: Key, params: Params, seen: Any, epsilon: Array) -> Array:
        policy = categorical(scores(params, seen))
        return mixed(key, (lambda _: policy.mode) if evaluate == "mode" else policy.sample, epsilon)

    def mixed(key: Key, sample: Callable[[Key], Array], epsilon: Array) -> Array:
        coin, choice, draw = jax.random.split(key, 3)
        chosen = sample(draw)
        random = jax.random.randint(choice, chosen.shape, 0, actions)
        return jnp.where(jax.random.uniform(coin, chosen.shape) < epsilon, random, chosen)

    def read(params: Params, seen: Any) -> Outputs:
        made = network.forward(params, seen)[0]
        return {ACTOR: Logits(made[ACTOR]), **read_critics(made)}

    return Criterion(loss, act, play, scores, "logits", METRICS, read)
