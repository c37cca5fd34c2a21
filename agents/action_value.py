"""The updates of Action Value Gradient, one for each transition (see :mod:`plasticity.agents.avg`)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.actors_and_critics import (
    ACTOR,
    Scale,
    StateAction,
    critic_names,
    with_action,
)
from plasticity.agents.base import ACTION, SAMPLE, AgentCore
from plasticity.agents.distributions import Squashed
from plasticity.agents.normalise import Preprocessor
from plasticity.agents.replay import Batch
from plasticity.agents.return_scale import deviation, with_reward
from plasticity.agents.soft import RealActor
from plasticity.agents.streaming import where_valid
from plasticity.agents.truncation import Truncation, kept_discount
from plasticity.agents.value_based import as_batch
from plasticity.core.schedules import Number
from plasticity.core.types import (
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
    TimeStep,
    Transition,
    is_transition,
)

(CRITIC,) = critic_names(1)
PROBE = 0  # the key of a probe's draws, the same at every measurement


class Rules(NamedTuple):
    """The settings of updates and evaluation."""

    discount: Number
    temperature: Number
    truncation: Truncation
    scale_errors: bool
    forget: Number | None  # of the scale's statistics, see `normalise.include`
    evaluate: str


class Noise(NamedTuple):
    """The standard normal numbers of an update, ``[B, size]`` each."""

    now: Array  # of the action in s
    then: Array  # of the action in s'


class Terms(NamedTuple):
    """What the networks make of a batch, ``[B]`` each."""

    errors: Array  # delta, not scaled
    actor: Array
    entropy: Array  # -log pi
    q: Array
    activations: Any


class Networks(NamedTuple):
    """The actor, its critic, and how they are read. Actions are in (-1, 1)."""

    body: AgentCore
    actor: RealActor

    def outputs(self, params: Params, seen: StateAction) -> Mapping[str, Array]:
        made: Mapping[str, Array] = self.body.network.forward(params, seen)[0]
        return made

    def policy(self, params: Params, seen: Any) -> Squashed:
        return self.actor.policy(self.outputs(params, with_action(seen, self.actor.scale))[ACTOR])

    def value(self, params: Params, observation: Array, action: Array) -> Array:
        return self.outputs(params, StateAction(observation, action))[CRITIC][:, 0]

    def terms(self, params: Params, held: Params, batch: Batch, noise: Noise, temperature: Number) -> Terms:
        """The terms of both losses; ``held`` are the parameters that have no gradient."""
        outputs, activations = self.body.network.forward(params, StateAction(batch.observation, batch.action))
        q = outputs[CRITIC][:, 0]
        following, log_p = self.policy(held, batch.next_observation).at(noise.then)
        bootstrap = self.value(held, batch.next_observation, following) - temperature * log_p
        errors = batch.reward + batch.discount * bootstrap - q
        action, log_p = self.actor.policy(outputs[ACTOR]).at(noise.now)
        actor = temperature * log_p - self.value(held, batch.observation, action)
        return Terms(errors, actor, -log_p, q, activations)


def unscaled(scale: Scale, action: Array) -> Array:
    """The inverse of ``scale``."""
    return (action - scale.middle) / scale.half


class Learning(NamedTuple):
    """One update for each transition."""

    nets: Networks
    preprocessor: Preprocessor
    rules: Rules

    def batch(self, transition: Transition, seen: tuple[Array, Array, Array]) -> Batch:
        made = as_batch(transition, self.rules.discount, self.rules.truncation, *seen)
        return made._replace(action=unscaled(self.nets.actor.scale, made.action))

    def sigma(self, rest: Mapping[str, Any]) -> Array:
        return deviation(rest["error_scale"]) if self.rules.scale_errors else jnp.ones(())

    def scaled(
        self, rest: Mapping[str, Any], params: Params, batch: Batch, transition: Transition
    ) -> Mapping[str, Any]:
        """The memory after the reward, with the entropy of the action, has entered the scale of errors."""
        if not self.rules.scale_errors:
            return rest
        log_p = self.nets.policy(params, batch.observation).at(rest["noise"])[1]
        reward = batch.reward - self.rules.temperature * log_p
        current = transition.current
        done = kept_discount(current.discount, current.step_type, self.rules.truncation) == 0
        given = (reward[0], self.rules.discount, done[0], is_transition(transition)[0], self.rules.forget)
        return {**rest, "error_scale": with_reward(rest["error_scale"], *given)}

    def update(
        self, key: Key, learner: Learner, plugins: State, batch: Batch, noise: Noise, sigma: Array, clock: Clock
    ) -> tuple[Learner, State, Metrics]:
        def loss(params: Params) -> tuple[Array, Any, Metrics]:
            held = jax.lax.stop_gradient(params)
            made = self.nets.terms(params, held, batch, noise, self.rules.temperature)
            critic, actor = jnp.square(made.errors[0] / sigma), made.actor[0]
            metrics = {
                "critic_loss": critic,
                "actor_loss": actor,
                "td_error": jnp.abs(made.errors[0]),
                "error_scale": sigma,
                "q_mean": made.q[0],
                "entropy": made.entropy[0],
            }
            return critic + actor, made.activations, metrics

        seen = StateAction(batch.observation, batch.action)
        learner, plugins, made = self.nets.body.update(key, learner, plugins, loss, seen, clock)
        return learner, plugins, {**made, "updates": jnp.ones(())}

    def learn(self, key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        rest, *seen = self.preprocessor.learn(state.rest, transition, clock)
        batch = self.batch(transition, (seen[0], seen[1], seen[2]))
        rest = self.scaled(rest, state.learner.params, batch, transition)
        shape = rest["noise"].shape
        noise = Noise(rest["noise"], jax.random.normal(jax.random.fold_in(key, SAMPLE), shape))
        sigma = self.sigma(rest)

        def updated() -> tuple[Learner, State, Metrics]:
            return self.update(key, state.learner, state.plugins, batch, noise, sigma, clock)

        new, plugins, made = where_valid(self.nets.body, batch.valid[0], updated, state.learner, state.plugins)
        rest = {**rest, "noise": jax.random.normal(jax.random.fold_in(key, ACTION), shape)}
        return AgentState(new, plugins, rest), made

    def probe(self, state: AgentState, transition: Transition, clock: Clock) -> Probe:
        batch = self.batch(transition, self.preprocessor.look(state.rest, transition))
        held, sigma = state.learner.params, self.sigma(state.rest)
        now, then = jax.random.normal(jax.random.key(PROBE), (2, *batch.action.shape))

        def losses(params: Params) -> Array:
            made = self.nets.terms(params, held, batch, Noise(now, then), self.rules.temperature)
            return jnp.square(made.errors / sigma) + made.actor

        def scores(params: Params, seen: Any) -> Array:
            return self.nets.policy(params, seen).mode

        seen = StateAction(batch.observation, batch.action)
        return self.nets.body.probe(state.learner, seen, losses, batch.valid, scores, "prediction", clock)


def avg_agent(learning: Learning) -> Agent:
    """Build the agent; the noise of its next action is part of its memory, so that ``learn`` knows it."""
    nets, preprocessor, rules = learning.nets, learning.preprocessor, learning.rules
    body, scale = nets.body, nets.actor.scale

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Any, clock: Clock) -> Array:
        del key
        seen = preprocessor.act(state.rest, observation, clock)
        return scale(nets.policy(body.acting(state), seen).at(state.rest["noise"])[0])

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        del epsilon
        policy = nets.policy(body.acting(state), preprocessor.play(state.rest, observation))
        return scale(policy.mode if rules.evaluate == "mode" else policy.sample(jax.random.fold_in(key, ACTION))[0])

    def switch(key: Key, state: AgentState, clock: Clock) -> AgentState:
        state = body.switch(key, state, clock)
        return state._replace(rest=preprocessor.switch(state.rest))

    setting = preprocessor.switch_setting
    return Agent(init, act, learning.learn, switch, learning.probe, play, switch_setting=setting)
