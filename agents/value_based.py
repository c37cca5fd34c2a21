"""Agents that learn action values: a loss (scalar) in a regime (replay), with any optimizer."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import rlax

from agents.base import ACTION, SAMPLE, Body, assemble
from agents.replay import Batch, Replay, replay
from plasticity.fields import BelowOne, Count, Fraction, Member, NonNegative, Positive
from plasticity.interventions.base import Intervention
from plasticity.schedules import Number, linear
from plasticity.trees import select
from plasticity.types import (
    Activation,
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

Values = Callable[[Params, Any], tuple[Array, Mapping[str, Activation]]]  # observations [B, ...] -> q [B, actions]


class Timing(NamedTuple):
    """When a replay agent learns (static), in env steps of each env and in updates."""

    first: int  # env steps before the first update
    period: int  # env steps between updates
    gradient_steps: int  # updates each time
    target_period: int  # updates between copies into the target network

    def due(self, clock: Clock) -> Array:
        done = clock.step + 1
        return (done >= self.first) & (done % self.period == 0)

    def update(self, clock: Clock) -> Array:
        """Number of the first update made at this step."""
        return ((clock.step + 1) // self.period - -(-self.first // self.period)) * self.gradient_steps


def q_errors(values: Values, batch: Batch, params: Params, target: Params, double: bool) -> tuple[Array, Any]:
    """n-step (double) Q-learning errors ``R + D max_a q(s', a) - q(s, a)``, ``[B]``, and the activations on s.

    With the double option the online network chooses the action in s' (van Hasselt et al. 2016).
    """
    q_tm1, activations = values(params, batch.observation)
    q_t_value, _ = values(target, batch.next_observation)
    q_t_selector = values(params, batch.next_observation)[0] if double else q_t_value
    errors = jax.vmap(rlax.double_q_learning)(
        q_tm1, batch.action, batch.reward, batch.discount, q_t_value, jax.lax.stop_gradient(q_t_selector)
    )
    return errors, activations


def mean_where(valid: Array, values: Array) -> Array:
    return jnp.sum(jnp.where(valid, values, 0.0)) / jnp.maximum(jnp.sum(valid), 1)


def error_loss(errors: Array, huber: Number) -> Array:
    """``huber``: the bound on the error's gradient; 0 for the plain square ``error^2 / 2``. Traced."""
    return jnp.where(huber > 0, rlax.huber_loss(errors, jnp.maximum(huber, 1e-6)), rlax.l2_loss(errors))


def epsilon_greedy(key: Key, q: Array, epsilon: Array) -> Array:
    """Uniform with probability epsilon, else the (first) greedy action; ``q [E, actions]`` -> int32 ``[E]``."""
    coin, choice = jax.random.split(key)
    explore = jax.random.uniform(coin, q.shape[:1]) < epsilon
    uniform = jax.random.randint(choice, q.shape[:1], 0, q.shape[-1])
    return jnp.where(explore, uniform, jnp.argmax(q, axis=-1)).astype(jnp.int32)


def one_step(transition: Transition, gamma: Number, reward_clip: Number) -> Batch:
    """A batch of neighbouring time steps as 1-step transitions, for probes."""
    previous, action, current = transition
    reward = jnp.clip(current.reward, -reward_clip, reward_clip)
    discount = gamma * current.discount
    return Batch(previous.observation, action, reward, discount, current.observation, is_transition(transition))


def _replay_agent(
    body: Body,
    memory: Replay,
    timing: Timing,
    epsilon: Callable[[Array], Array],
    loss: Callable[[Batch, Params, Params], tuple[Array, Any]],
    gamma: Number,
    reward_clip: Number,
) -> Agent:
    """The replay regime: store every step, learn from samples at a period. ``loss(batch, params, target)``."""

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Any, clock: Clock) -> Array:
        return play(key, state, observation, epsilon(clock.step - state.rest["schedule"]))

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        q, _ = body.network.apply(state.learner.params, observation)
        return epsilon_greedy(jax.random.fold_in(key, ACTION), q, epsilon)

    def one_update(
        key: Key, learner: Learner, plugins: State, stored: Any, clock: Clock
    ) -> tuple[Learner, State, Array]:
        batch = memory.sample(stored, jax.random.fold_in(key, SAMPLE), gamma, reward_clip)
        learner, plugins, metrics = body.update(
            key, learner, plugins, lambda params: loss(batch, params, learner.target), batch.observation, clock
        )
        copy = (clock.update + 1) % timing.target_period == 0
        target = jax.lax.cond(copy, lambda: learner.params, lambda: learner.target)
        return learner._replace(target=target), plugins, metrics["loss"]

    def updates(key: Key, learner: Learner, plugins: State, stored: Any, clock: Clock) -> Any:
        """All updates of one step. A lane whose (new) replay is not ready yet keeps what it has."""

        def body_of_scan(carry: Any, i: Array) -> tuple[Any, Array]:
            now = clock._replace(update=timing.update(clock) + i)
            learner, plugins, value = one_update(jax.random.fold_in(key, i), carry[0], carry[1], stored, now)
            return (learner, plugins), value

        if timing.gradient_steps == 1:
            (new, losses) = body_of_scan((learner, plugins), jnp.zeros((), jnp.int32))
        else:
            new, losses = jax.lax.scan(body_of_scan, (learner, plugins), jnp.arange(timing.gradient_steps))
        ready = memory.ready(stored)
        made = jnp.where(ready, float(timing.gradient_steps), 0.0)
        return select(ready, new, (learner, plugins)), jnp.where(ready, jnp.sum(losses), 0.0), made

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        stored = memory.add(state.rest["replay"], transition)
        zero = jnp.zeros(())
        (learner, plugins), total, made = jax.lax.cond(
            timing.due(clock),
            lambda: updates(key, state.learner, state.plugins, stored, clock),
            lambda: ((state.learner, state.plugins), zero, zero),
        )
        return AgentState(learner, plugins, {**state.rest, "replay": stored}), {"loss": total, "updates": made}

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        batch = one_step(transition, gamma, reward_clip)
        _, activations = body.network.apply(state.learner.params, batch.observation)
        return Probe(
            state.learner,
            body.network,
            body.optimizer,
            activations,
            lambda params: loss(batch, params, state.learner.target)[0],
            clock,
        )

    return Agent(init, act, learn, body.switch, probe, play)


def _check(spec: StreamSpec, learn_every: int) -> None:
    """``ValueError`` where the stream does not suit a replay agent."""
    if not spec.discrete or not hasattr(spec.observation, "shape"):
        raise ValueError(
            "agent.kind: dqn is not allowed; it needs a stream with discrete actions and plain observations"
        )
    for visit in spec.visits:
        if visit.steps % learn_every:
            raise ValueError(
                f"agent.learn_every: {learn_every} is not allowed; it must divide the {visit.steps} steps of a visit"
            )


def dqn(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = "adam",
    discount: BelowOne = 0.99,
    double: bool = False,
    n_step: Count = 1,
    huber: NonNegative = 1.0,
    reward_clip: Positive = 1.0,
    epsilon_start: Fraction = 1.0,
    epsilon_end: Fraction = 0.01,
    epsilon_steps: Positive = 250_000,
    replay_capacity: Count = 100_000,
    replay_minimum: Count = 20_000,
    batch_size: Count = 32,
    learn_every: Count = 4,
    gradient_steps: Count = 1,
    target_period: Count = 2_000,
) -> Agent:
    """Deep Q-network (Mnih et al. 2015, Human-level control through deep reinforcement learning), for one lane.

    ``L = mean_B h(R + D max_a q_target(s', a) - q(s, a))`` with ``h`` the Huber loss, R and D the n-step return and
    bootstrap discount; ``double`` lets the online network choose the maximising action (van Hasselt et al. 2016).

    Traced: ``discount``; ``huber`` (gradient bound, 0 for squared error); ``reward_clip`` (rewards are clipped to
    +-this for learning, the stream's records stay raw); ``epsilon_start``, ``epsilon_end``, ``epsilon_steps`` (linear,
    in env steps of each env since the agent's birth). Static: ``n_step``; ``replay_capacity``, ``replay_minimum``,
    ``batch_size`` in transitions; ``learn_every`` in env steps of each env; ``gradient_steps`` each time (the replay
    ratio is ``gradient_steps / (learn_every * envs)`` updates per transition); ``target_period`` in updates.
    ``ValueError`` where the replay sizes do not fit each other, ``learn_every`` does not divide the length of every
    visit, or the stream's actions are not discrete or its observations not one array. The paper clips the error's
    gradient, which is the Huber loss; defaults are those of Dopamine's DQN in agent steps, with a tenth of its replay.
    """
    _check(spec, learn_every)

    def rest(born: Array) -> Mapping[str, Any]:
        return {"replay": memory.init(), "schedule": born}

    def loss(batch: Batch, params: Params, target: Params) -> tuple[Array, Any]:
        errors, activations = q_errors(body.network.apply, batch, params, target, double)
        return mean_where(batch.valid, error_loss(errors, huber)), activations

    def epsilon(age: Array) -> Array:
        return linear(epsilon_start, epsilon_end, epsilon_steps)(age)

    memory = replay(spec, capacity=replay_capacity, minimum=replay_minimum, batch_size=batch_size, steps=n_step)
    body = assemble(
        network(spec.observation, spec.actions), optimizer(), intervention, target=lambda params: params, rest=rest
    )
    timing = Timing(-(-replay_minimum // spec.envs), learn_every, gradient_steps, target_period)
    return _replay_agent(body, memory, timing, epsilon, loss, discount, reward_clip)
