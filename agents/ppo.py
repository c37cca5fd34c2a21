"""Proximal policy optimization."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from agents.actor_critic import Trunk, separate, shared, with_scale
from agents.advantages import normalised
from agents.base import ACTION, SAMPLE, STEP, Body
from agents.clipping import policy_loss, ratio_metrics, value_loss
from agents.distributions import Distribution, categorical, gaussian
from agents.normalise import Normalise, Perception, Share, perception
from agents.rollout import Rollout, Samples, empty, to_samples, write
from agents.value_based import mean_where
from plasticity.fields import BelowOne, Count, Fraction, Member, NonNegative, Positive, Real
from plasticity.interventions.base import Intervention
from plasticity.schedules import Number
from plasticity.types import (
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
)

Gain = Annotated[float, Field(gt=0)]  # static
NormaliseAdvantages = Literal["minibatch", "batch", "none"]
Evaluate = Literal["sample", "mode"]


class Rules(NamedTuple):
    """The agent's settings, apart from those that went into its network, optimizer and perception."""

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
    bootstrap_truncation: bool
    sign_rewards: bool
    reward_clip: Number
    optimizer_reset: bool
    target_kl: Number | None
    evaluate: str

    @property
    def updates(self) -> int:
        """Updates after each rollout."""
        return self.epochs * self.minibatches


def judge(body: Body, params: Params, observation: Array) -> tuple[Distribution, Array, Any]:
    """The policy and the values ``[B]`` in these states, and the activations."""
    outputs, activations = body.network.apply(params, observation)
    mean_or_logits = outputs["policy"]
    policy = gaussian(mean_or_logits, outputs["scale"]) if "scale" in outputs else categorical(mean_or_logits)
    return policy, outputs["value"][:, 0], activations


def loss(body: Body, rules: Rules, params: Params, batch: Samples) -> tuple[Array, Any, Metrics]:
    """The loss of a minibatch, the activations of its forward pass and what is recorded of it."""
    policy, value, activations = judge(body, params, batch.observation)
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
    """The rows of every minibatch, int32 ``[updates, size / minibatches]``: each epoch is a permutation."""
    keys = jax.vmap(lambda epoch: jax.random.fold_in(key, epoch))(jnp.arange(rules.epochs))
    return jax.vmap(lambda key: jax.random.permutation(key, size))(keys).reshape(rules.updates, -1)


def update_phase(
    body: Body, rules: Rules, key: Key, learner: Learner, plugins: State, rollout: Rollout, final: Array, clock: Clock
) -> tuple[Learner, State, Metrics]:
    """All updates after a rollout: epochs over it, minibatch by minibatch. Metrics are sums over the updates made."""

    def old(observation: Array, action: Array) -> tuple[Array, Array]:
        policy, value, _ = judge(body, learner.params, observation)
        return policy.log_probability(action), value

    samples = to_samples(
        rollout,
        final,
        old,
        gamma=rules.discount,
        trace=rules.trace,
        bootstrap_truncation=rules.bootstrap_truncation,
        parts=rules.minibatches,
    )
    if rules.normalise_advantages == "batch":
        samples = samples._replace(advantage=normalised(samples.advantage, samples.valid))
    if rules.optimizer_reset:
        learner = learner._replace(opt_state=body.optimizer.init(learner.params))
    number = clock.step // rules.length * rules.updates

    def step(carry: Any, inputs: tuple[Array, Array]) -> tuple[Any, Metrics]:
        learner, plugins, stopped = carry
        i, rows = inputs
        draw = jax.random.fold_in(jax.random.fold_in(key, STEP), i)
        batch = jax.tree.map(lambda x: x[rows], samples)

        def updated() -> tuple[Learner, State, Metrics]:
            now = clock._replace(update=number + i)
            made = body.update(
                draw, learner, plugins, lambda params: loss(body, rules, params, batch), batch.observation, now
            )
            return *made[:2], {**made[2], "updates": jnp.ones(())}

        if rules.target_kl is None:
            learner, plugins, made = updated()
        else:
            learner, plugins, made = jax.lax.cond(stopped, lambda: no_update(learner, plugins, updated), updated)
            ends = (i + 1) % rules.minibatches == 0
            stopped |= ends & (made["approx_kl"] > rules.target_kl)
        return (learner, plugins, stopped), made

    rows = minibatches(jax.random.fold_in(key, SAMPLE), rules, samples.valid.size)
    start = (learner, plugins, jnp.zeros((), bool))
    (learner, plugins, _), made = jax.lax.scan(step, start, (jnp.arange(rules.updates), rows))
    return learner, plugins, jax.tree.map(jnp.sum, made)


def no_update(learner: Learner, plugins: State, updated: Any) -> tuple[Learner, State, Metrics]:
    """What ``updated()`` has the shape of, where nothing is learned."""
    return learner, plugins, {name: jnp.zeros(()) for name in jax.eval_shape(updated)[2]}


def one_step_loss(
    body: Body, rules: Rules, params: Params, held: Params, seen: tuple[Array, Array, Array], pairs: Transition
) -> Array:
    """What monitors see: the policy gradient and the value's error with one-step advantages, no clip, no old policy.

    ``-A log pi(a|s) + value_coefficient (v(s) - v'(s) - A)^2 / 2 - entropy_coefficient H`` in the mean, with
    ``A = r + D v'(s') - v'(s)`` and ``v'`` the value under ``held``. It may be negative.
    """
    previous, current, reward = seen
    valid, values = is_transition(pairs), [judge(body, held, x)[1] for x in (previous, current)]
    target = reward + rules.discount * pairs.current.discount * values[1]
    policy, value, _ = judge(body, params, previous)
    gain = (target - values[0]) * policy.log_probability(pairs.action) + rules.entropy_coefficient * policy.entropy
    return mean_where(valid, 0.5 * rules.value_coefficient * jnp.square(value - target) - gain)


def rollout_agent(spec: StreamSpec, body: Body, eyes: Perception, rules: Rules) -> Agent:
    """The on-policy regime: keep every step of a rollout, learn from all of it, forget it."""

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Any, clock: Clock) -> Array:
        policy, *_ = judge(body, state.learner.params, eyes.act(state.rest, observation, clock))
        return policy.sample(jax.random.fold_in(key, ACTION))

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        coin, choice, draw = jax.random.split(jax.random.fold_in(key, ACTION), 3)
        policy, *_ = judge(body, state.learner.params, eyes.play(state.rest, observation))
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
        rest, previous, current, reward = eyes.learn(state.rest, rewarded(transition), clock)
        row = clock.step % rules.length
        rollout = write(rest["rollout"], row, previous, bounded(reward), transition)

        def updated() -> tuple[Learner, State, Metrics]:
            return update_phase(body, rules, key, state.learner, state.plugins, rollout, current, clock)

        learner, plugins, made = jax.lax.cond(
            row == rules.length - 1, updated, lambda: no_update(state.learner, state.plugins, updated)
        )
        return AgentState(learner, plugins, {**rest, "rollout": rollout}), made

    def switch(key: Key, state: AgentState, clock: Clock) -> AgentState:
        state = body.switch(key, state, clock)
        return state._replace(rest=eyes.switch(state.rest))

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        previous, current, reward = eyes.look(state.rest, rewarded(transition))
        seen, params = (previous, current, bounded(reward)), state.learner.params
        _, _, activations = judge(body, params, previous)
        return Probe(
            state.learner,
            body.network,
            body.optimizer,
            activations,
            lambda p: one_step_loss(body, rules, p, params, seen, transition),
            clock,
        )

    return Agent(init, act, learn, switch, probe, play)


def check(spec: StreamSpec, length: int, minibatches: int) -> None:
    """``ValueError`` where the stream does not suit the agent, or the numbers do not fit each other."""
    if not hasattr(spec.observation, "shape"):
        raise ValueError("agent.kind: ppo is not allowed; it needs a stream with plain observations")
    for visit in spec.visits:
        if visit.steps % length:
            raise ValueError(
                f"agent.rollout_length: {length} is not allowed; it must divide the {visit.steps} steps of a visit"
            )
    if length * spec.envs % minibatches:
        raise ValueError(
            f"agent.minibatches: {minibatches} is not allowed; it must divide the {length * spec.envs} steps of a "
            f"rollout ({length} of each of {spec.envs} envs)"
        )


def check_names(**chosen: tuple[str, tuple[str, ...]]) -> None:
    """``ValueError`` for a setting that is none of its names."""
    for key, (value, known) in chosen.items():
        if value not in known:
            raise ValueError(f"agent.{key}: {value} is not allowed; must be one of {', '.join(known)}")


def ppo(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = {  # noqa: B006
        "kind": "mlp",
        "widths": [64, 64],
        "activation": "tanh",
        "initialiser": "orthogonal",
    },
    optimizer: Annotated[Any, Member("optimizers")] = {  # noqa: B006
        "kind": "adam",
        "learning_rate": 2.5e-4,
        "eps": 1e-5,
        "max_gradient_norm": 0.5,
    },
    trunk: Trunk = "separate",
    policy_gain: Gain = 0.01,
    value_gain: Gain = 1.0,
    log_std: Real = 0.0,
    rollout_length: Count = 128,
    epochs: Count = 4,
    minibatches: Count = 4,
    discount: BelowOne = 0.99,
    gae_lambda: Fraction = 0.95,
    clip: Positive = 0.2,
    value_clip: Positive | None = None,
    value_coefficient: NonNegative = 0.5,
    entropy_coefficient: NonNegative = 0.01,
    normalise_advantages: NormaliseAdvantages = "minibatch",
    bootstrap_truncation: bool = True,
    target_kl: Positive | None = None,
    optimizer_reset: bool = False,
    normalise: Normalise = "none",
    normalise_rate: Share = 1e-4,
    scale_rewards: bool = False,
    sign_rewards: bool = False,
    reward_clip: NonNegative = 0.0,
    evaluate: Evaluate = "sample",
) -> Agent:
    """Proximal policy optimization with a clipped ratio, for discrete and for real-valued actions.

    ``L = mean_B[-min(rho A, clip(rho, 1 - c, 1 + c) A) + value_coefficient (v - R)^2 / 2 - entropy_coefficient H]``,
    ``rho = pi(a|s) / pi_old(a|s)``, A from generalised advantage estimation, ``R = A + v_old``. After every
    ``rollout_length`` steps of each env, ``epochs`` passes over them in ``minibatches`` parts each, drawn anew in each
    epoch. Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; details as in Huang et al. 2022, "The 37
    Implementation Details of Proximal Policy Optimization".

    Traced: ``log_std`` (initial, learnable, the same in every state; of real-valued actions), ``discount``,
    ``gae_lambda``, ``clip``, ``value_clip`` (the value moves at most this far per rollout for its loss to fall; None:
    freely), both coefficients, ``target_kl`` (no epoch begins after one whose last minibatch had a larger
    ``approx_kl``), ``reward_clip`` (rewards, once scaled, are clipped to +- this; 0: not at all), ``normalise_rate``.
    Static: ``trunk`` (policy and value apart, or two output layers on common hidden ones); ``policy_gain``,
    ``value_gain`` (of the output layers' initial kernels, where hidden ones have sqrt(2)); ``rollout_length``,
    ``epochs``, ``minibatches``; ``normalise_advantages`` (over what); ``bootstrap_truncation`` (False: an episode cut
    off counts as ended); ``optimizer_reset`` (a fresh optimizer state, schedule included, at every rollout);
    ``normalise``, ``scale_rewards`` (see ``agents.normalise``); ``sign_rewards`` (before they are scaled);
    ``evaluate`` (in evaluation, actions are drawn or the likeliest). A ``schedule`` of the optimizer counts updates.

    Metrics, in the mean over the updates: loss and its parts, entropy, and those of ``clipping.ratio_metrics``.
    ``ValueError`` where observations are not one array, ``rollout_length`` does not divide the steps of a visit or
    ``minibatches`` those of a rollout. Real-valued actions are not squashed: the stream clips them. Pairs that join two
    episodes take places in minibatches but enter no mean.
    """
    check(spec, rollout_length, minibatches)
    check_names(
        trunk=(trunk, ("separate", "shared")),
        normalise_advantages=(normalise_advantages, ("minibatch", "batch", "none")),
        evaluate=(evaluate, ("sample", "mode")),
    )
    eyes = perception(spec, normalise=normalise, rate=normalise_rate, scale_rewards=scale_rewards, discount=discount)
    heads, gains = {"policy": spec.actions, "value": 1}, {"policy": policy_gain, "value": value_gain}
    build = separate if trunk == "separate" else shared
    wired = build(network, eyes.observation, heads, gains, intervention)
    wired = wired if spec.discrete else with_scale(wired, spec.actions, log_std)
    rule = intervention.optimizer(optimizer())

    def rest() -> Mapping[str, Any]:
        return {"rollout": empty(spec, eyes.observation, rollout_length), **eyes.init()}

    def newborn(key: Key, born: Array) -> Learner:
        del born
        params = wired.init(key)
        return Learner(params, (), rule.init(params), rest())

    rules = Rules(
        rollout_length,
        epochs,
        minibatches,
        discount,
        gae_lambda,
        clip,
        value_clip,
        value_coefficient,
        entropy_coefficient,
        normalise_advantages,
        bootstrap_truncation,
        sign_rewards,
        reward_clip,
        optimizer_reset,
        target_kl,
        evaluate,
    )
    return rollout_agent(spec, Body(wired, rule, intervention, newborn), eyes, rules)
