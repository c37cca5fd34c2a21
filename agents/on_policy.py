"""On-policy learning: store the steps of a rollout, learn from all of them with clipped losses, discard them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents import memory
from plasticity.agents.advantages import normalised
from plasticity.agents.base import ACTION, REFERENCE, SAMPLE, STEP, AgentCore, Meaning
from plasticity.agents.clipping import policy_loss, ratio_metrics, value_loss, with_excess
from plasticity.agents.distributions import Distribution, categorical, gaussian
from plasticity.agents.normalise import Preprocessor
from plasticity.agents.rollout import (
    Rollout,
    Samples,
    judged,
    judged_in_order,
    part_of,
    sequence_of,
    to_samples,
    write,
)
from plasticity.agents.truncation import Truncation, kept_discount
from plasticity.core.masked import mean_where
from plasticity.core.schedules import Number
from plasticity.core.trees import select
from plasticity.core.types import (
    FIRST,
    Agent,
    AgentState,
    Array,
    Clock,
    Key,
    Learner,
    Metrics,
    Params,
    Probe,
    State,
    StreamSpec,
    TimeStep,
    Transition,
    is_transition,
    take,
)


class Rules(NamedTuple):
    """An agent's settings, except those of its network, optimizer and preprocessing."""

    length: int  # env steps of a rollout
    epochs: int
    minibatches: int
    discount: Number
    trace: Number
    clip: Number
    value_clip: Number | None
    value_coefficient: Number
    entropy_coefficient: Number
    normalise_advantages: str
    truncation: Truncation
    sign_rewards: bool
    reward_clip: Number
    optimizer_reset: bool
    target_kl: Number | None
    evaluate: str

    @property
    def updates(self) -> int:
        """Updates after each rollout."""
        return self.epochs * self.minibatches


def policy_and_value(body: AgentCore, params: Params, observation: Array) -> tuple[Distribution, Array, Any]:
    """Policy and values ``[B]`` in these states, and the activations."""
    outputs, activations = body.network.forward(params, observation)
    mean_or_logits = outputs["policy"]
    policy = gaussian(mean_or_logits, outputs["scale"]) if "scale" in outputs else categorical(mean_or_logits)
    return policy, outputs["value"][:, 0], activations


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


def minibatches(key: Key, rules: Rules, size: int) -> Array:
    """Rows of every minibatch, int32 ``[updates, size / minibatches]``; each epoch is a permutation of all rows."""
    keys = jax.vmap(lambda epoch: jax.random.fold_in(key, epoch))(jnp.arange(rules.epochs))
    return jax.vmap(lambda key: jax.random.permutation(key, size))(keys).reshape(rules.updates, -1)


class End(NamedTuple):
    """What follows a rollout, and what preceded it."""

    observation: Array  # [E, ...], after the last step
    carry: Any  # before that observation
    start: Any  # the carry before the first observation of the rollout; () without memory


def samples_of(body: AgentCore, rules: Rules, acted: Params, rollout: Rollout, end: End) -> tuple[Samples, int]:
    """The samples of a rollout and how many units minibatches are drawn from: rows, with memory envs.

    ``acted`` are the parameters that generated it.
    """

    def old(observation: Any, action: Array) -> tuple[Array, Array]:
        policy, value, _ = policy_and_value(body, acted, observation)
        return policy.log_probability(action), value

    numbers: dict[str, Any] = {"gamma": rules.discount, "trace": rules.trace, "truncation": rules.truncation}
    if not body.network.remembers:
        samples = to_samples(rollout, judged(old, rollout, end.observation, rules.minibatches), **numbers)
        return samples, samples.valid.size
    sequence = sequence_of(rollout, end.start)
    seen = judged_in_order(old, rollout, sequence, body.batch(end.observation, end.carry))
    return to_samples(rollout, seen, **numbers)._replace(observation=sequence), rollout.reward.shape[1]


def update_phase(
    body: AgentCore,
    rules: Rules,
    key: Key,
    learner: Learner,
    plugins: State,
    rollout: Rollout,
    end: End,
    clock: Clock,
) -> tuple[Learner, State, Metrics]:
    """Perform all updates after a rollout: epochs of minibatches over it. Metrics are sums over the updates made."""
    samples, size = samples_of(body, rules, body.acting(AgentState(learner, plugins, {})), rollout, end)
    if rules.normalise_advantages == "batch":
        samples = samples._replace(advantage=normalised(samples.advantage, samples.valid))
    if rules.optimizer_reset:
        learner = learner._replace(opt_state=body.optimizer.init(learner.params))
    number = clock.step // rules.length * rules.updates

    def step(carry: Any, inputs: tuple[Array, Array]) -> tuple[Any, Metrics]:
        learner, plugins, stopped = carry
        i, rows = inputs
        draw = jax.random.fold_in(jax.random.fold_in(key, STEP), i)
        batch = part_of(samples, rows)

        def updated() -> tuple[Learner, State, Metrics]:
            now = clock._replace(update=number + i)
            objective = functools.partial(loss, body, rules, batch=batch)
            made = body.update(draw, learner, plugins, objective, batch.observation, now, reference)
            return *made[:2], {**made[2], "updates": jnp.ones(())}

        def reference() -> Any:
            others = jax.random.choice(jax.random.fold_in(draw, REFERENCE), size, rows.shape, False)
            return take(samples.observation, others)

        if rules.target_kl is None:
            learner, plugins, made = updated()
        else:
            learner, plugins, made = jax.lax.cond(stopped, lambda: no_update(learner, plugins, updated), updated)
            ends = (i + 1) % rules.minibatches == 0
            stopped |= ends & (made["approx_kl"] > rules.target_kl)
        return (learner, plugins, stopped), made

    rows = minibatches(jax.random.fold_in(key, SAMPLE), rules, size)
    start = (learner, plugins, jnp.zeros((), bool))
    (learner, plugins, _), made = jax.lax.scan(step, start, (jnp.arange(rules.updates), rows))
    return learner, plugins, with_excess(jax.tree.map(jnp.sum, made))


def no_update(learner: Learner, plugins: State, updated: Any) -> tuple[Learner, State, Metrics]:
    """The result of a step without an update, in the shape of ``updated()``."""
    return learner, plugins, {name: jnp.zeros(()) for name in jax.eval_shape(updated)[2]}


def one_step_losses(
    body: AgentCore, rules: Rules, params: Params, held: Params, seen: tuple[Array, Array, Array], pairs: Transition
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


def rollout_agent(spec: StreamSpec, body: AgentCore, preprocessor: Preprocessor, rules: Rules) -> Agent:
    """An agent that collects a rollout, then learns from it."""

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Any, clock: Clock) -> Array:
        seen = body.batch(preprocessor.act(state.rest, observation, clock), state.learner.carry)
        policy, *_ = policy_and_value(body, body.acting(state), seen)
        return policy.sample(jax.random.fold_in(key, ACTION))

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        coin, choice, draw = jax.random.split(jax.random.fold_in(key, ACTION), 3)
        seen = body.batch(preprocessor.play(state.rest, observation), state.learner.carry)
        policy, *_ = policy_and_value(body, body.acting(state), seen)
        actions = policy.mode if rules.evaluate == "mode" else policy.sample(draw)
        if not spec.discrete:
            return actions
        uniform = jax.random.randint(choice, actions.shape, 0, spec.actions)
        return jnp.where(jax.random.uniform(coin, actions.shape) < epsilon, uniform, actions)

    def rewarded(pairs: Transition) -> Transition:
        reward = pairs.current.reward
        return pairs._replace(current=pairs.current._replace(reward=jnp.sign(reward) if rules.sign_rewards else reward))

    def bounded(reward: Array) -> Array:
        return jnp.where(rules.reward_clip > 0, jnp.clip(reward, -rules.reward_clip, rules.reward_clip), reward)

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        rest, previous, current, reward = preprocessor.learn(state.rest, rewarded(transition), clock)
        row = clock.step % rules.length
        rollout = write(rest["rollout"], row, previous, bounded(reward), transition)
        carry = state.learner.carry
        start = select(row == 0, carry, rest["start"]) if body.network.remembers else ()
        then = memory.after(body.network, body.acting(state), previous, carry)
        kept = memory.restarted(body.network, then, transition.current.step_type == FIRST)
        learner = state.learner._replace(carry=kept)

        def updated() -> tuple[Learner, State, Metrics]:
            return update_phase(body, rules, key, learner, state.plugins, rollout, End(current, then, start), clock)

        new, plugins, made = jax.lax.cond(
            row == rules.length - 1, updated, lambda: no_update(learner, state.plugins, updated)
        )
        stored = {"rollout": rollout} | ({"start": start} if body.network.remembers else {})
        return AgentState(new, plugins, {**rest, **stored}), made

    def after(state: AgentState, observation: Any, first: Array) -> Any:
        return body.after(state, preprocessor.play(state.rest, observation), first)

    def switch(key: Key, state: AgentState, clock: Clock) -> AgentState:
        state = body.switch(key, state, clock)
        return state._replace(rest=preprocessor.switch(state.rest))

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        params = state.learner.params
        if body.network.remembers:
            transition = memory.in_order(transition, spec.envs, clock.step)
        previous, current, reward = preprocessor.look(state.rest, rewarded(transition))
        recalled = memory.recall_rows(body.network, params, previous, current, transition.previous, spec.envs)
        previous, seen = recalled.previous, (recalled.previous, recalled.current, bounded(reward))

        def losses(p: Params) -> Array:
            return one_step_losses(body, rules, p, params, seen, transition)

        def scores(p: Params, observation: Array) -> Array:
            outputs: Array = body.network.forward(p, observation)[0]["policy"]
            return outputs

        meaning: Meaning = "logits" if spec.discrete else "prediction"
        return body.probe(state.learner, previous, losses, is_transition(transition), scores, meaning, clock)

    initial = functools.partial(body.network.initial, spec.envs)
    return Agent(init, act, learn, switch, probe, play, initial, after, preprocessor.switch_setting)
