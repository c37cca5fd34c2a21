"""Streaming agents: learn from each step once and discard it. They have one env, no replay and no target network.

A value-based streaming agent combines a loss or a trace with any optimizer.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.base import ACTION, AgentCore, Meaning, Rest, assemble
from plasticity.agents.choices import NOW, Choice, Draw, Memory
from plasticity.agents.memory import in_order, recall, recall_rows, truncation_notices
from plasticity.agents.normalise import NEEDS, Normalise, Preprocessor, Share, preprocessing
from plasticity.agents.past import complete
from plasticity.agents.replay import Batch
from plasticity.agents.stream_checks import check_acting
from plasticity.agents.truncation import Truncation, check_truncation
from plasticity.agents.value_based import (
    FORMER_EPSILON,
    Losses,
    Policy,
    Scores,
    action_values,
    as_batch,
    error_loss,
    greedy_policy,
    one_step_losses,
    value_of_action,
    value_outputs,
)
from plasticity.config.fields import BelowOne, Fraction, Member, Moved, NonNegative, metadata
from plasticity.core.schedules import Number
from plasticity.core.types import (
    FIRST,
    LAST,
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
)
from plasticity.interventions.base import Intervention
from plasticity.optim.eligibility import eligible
from plasticity.optim.step_sizes import reports_step_size


class Newest(NamedTuple):
    """The newest transition, from which an agent learns once."""

    batch: Batch  # of one
    first: Array  # bool[]: the first of its episode
    ended: Array  # bool[]: the last of it
    memory: Memory  # after the transition, with the next action if that is drawn ahead


Update = Callable[[Key, Learner, State, Newest, Clock], tuple[Learner, State, Metrics]]
# key, learner, plugins, transition, clock; with a core that masks, the transition may be invalid, and then nothing
# changes (the metrics do not matter)

EXPLORATION = {"kind": "linear", "start": 1.0, "end": 0.01, "duration": 25_000}  # epsilon, in env steps
FORMER: Mapping[str, str | Moved] = {**FORMER_EPSILON, "trace": "trace_decay"}

CONTROL_NETWORK = {
    "kind": "mlp",
    "widths": [32, 32],
    "activation": "leaky_relu",
    "normalisation": "map",
    "initialiser": "sparse",
}


def initial_memory(preprocessor: Preprocessor, *, scheduled: bool = True) -> Rest:
    """Initial memory besides the learner: empty statistics and, if epsilon is scheduled, the step of creation."""
    return lambda created: {**({"schedule": created} if scheduled else {}), **preprocessor.init()}


def where_valid(
    body: AgentCore,
    valid: Array,
    updated: Callable[[], tuple[Learner, State, Metrics]],
    learner: Learner,
    plugins: State,
) -> tuple[Learner, State, Metrics]:
    """The result of ``updated()`` where ``valid`` (bool[]) holds; otherwise nothing changes and the metrics are 0."""

    def unchanged() -> tuple[Learner, State, Metrics]:
        return learner, plugins, {name: jnp.zeros(()) for name in jax.eval_shape(updated)[2]}

    if not body.masks:
        return jax.lax.cond(valid, updated, unchanged)
    *new, made = updated()
    return *new, {name: jnp.where(valid, value, 0.0) for name, value in made.items()}


def streaming_agent(
    body: AgentCore,
    preprocessor: Preprocessor,
    policy: Policy,
    epsilon: Callable[[Array], Array] | None,
    update: Update,
    losses: Losses,
    scores: Scores,
    meaning: Meaning,
    discount: Number,
    truncation: Truncation = "bootstrap",
    choice: Choice = NOW,
) -> Agent:
    """Build a streaming agent: preprocess a transition, update once, discard it.

    Its metrics are those of ``update`` and ``observation_rms``, the root mean square of the newest observation as the
    network sees it, without the task. Normalised by statistics that fit, it is about 1 for inputs that vary.

    ``epsilon(age)`` in env steps (``None``: always 0; ``initial_memory`` then has no schedule). ``losses``, ``scores``
    and their meaning are for probes.
    """

    def draw(params: Params, seen: Any, memory: Memory) -> Draw:
        def drawn(key: Key, step: Array) -> Array:
            explore = jnp.zeros(()) if epsilon is None else epsilon(step - memory["schedule"])
            return policy(key, params, seen, explore)

        return drawn

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Any, clock: Clock) -> Array:
        seen = body.batch(preprocessor.act(state.rest, observation, clock), state.learner.carry)
        return choice.act(key, draw(body.acting(state), seen, state.rest), state.rest, clock)

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        seen = body.batch(preprocessor.play(state.rest, observation), state.learner.carry)
        return policy(jax.random.fold_in(key, ACTION), body.acting(state), seen, epsilon)

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        rest, *seen = preprocessor.learn(state.rest, transition, clock)
        current = transition.current
        before = state.learner
        size = preprocessor.size(seen[1])
        recalled = recall(body.network, before.params, seen[0], seen[1], current.step_type, before.carry)
        rest = choice.ahead(key, draw(body.acting(state), body.batch(seen[1], recalled.carry), rest), rest, clock)
        seen[:2], learner = recalled[:2], before._replace(carry=recalled.carry)
        first = transition.previous.step_type == FIRST
        ended = (current.step_type == LAST) | (current.discount == 0)
        batch = as_batch(transition, discount, truncation, *seen)

        def updated() -> tuple[Learner, State, Metrics]:
            newest = Newest(batch, first[0], ended[0], rest)
            new, plugins, made = update(key, learner, state.plugins, newest, clock)
            return new, plugins, {**made, "observation_rms": size, "updates": jnp.ones(())}

        new, plugins, made = where_valid(body, batch.valid[0], updated, learner, state.plugins)
        return AgentState(new, plugins, rest), made

    def after(state: AgentState, observation: Any, first: Array) -> Any:
        return body.after(state, preprocessor.play(state.rest, observation), first)

    def switch(key: Key, state: AgentState, clock: Clock) -> AgentState:
        state = body.switch(key, state, clock)
        return state._replace(rest=preprocessor.switch(state.rest))

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        params = state.learner.params
        if body.network.remembers:
            transition = in_order(transition, 1, clock.step)
        previous, current, reward = preprocessor.look(state.rest, transition)
        recalled = recall_rows(body.network, params, previous, current, transition.previous, 1)
        batch = as_batch(transition, discount, truncation, *recalled[:2], reward)
        return body.probe(
            state.learner,
            batch.observation,
            lambda p: losses(p, params, batch)[0],
            batch.valid,
            scores,
            meaning,
            clock,
        )

    initial = functools.partial(body.network.initial, 1)
    notices = truncation_notices(body.network)
    return Agent(init, act, learn, switch, probe, play, initial, after, preprocessor.switch_setting, notices)


def preprocessor_of(
    name: str,
    spec: StreamSpec,
    normalise: Normalise,
    normalise_rate: Number,
    scale_rewards: bool,
    discount: Number,
    truncation: Truncation,
    *,
    discrete: bool = True,
) -> Preprocessor:
    """The preprocessor of the agent ``name``; ``discrete``: it supports discrete actions only.

    ``ValueError`` if the stream or a setting does not fit the agent.
    """
    check_acting(name, spec, discrete=discrete, one_env=True)
    check_truncation(truncation)
    return preprocessing(spec, normalise=normalise, rate=normalise_rate, scale_rewards=scale_rewards, discount=discount)


def bounded(error: Array, clip: Number) -> Array:
    """Clip the error to ``+-clip``; unchanged if ``clip`` (traced) is 0."""
    return jnp.where(clip > 0, jnp.clip(error, -clip, clip), error)


def never(q: Array, action: Array) -> Array:
    """No trace is cut because of an action."""
    del q, action
    return jnp.zeros((), bool)


class Rule(NamedTuple):
    """What distinguishes agents that learn values along a trace; ``n`` outputs of the network."""

    following: Callable[[Array, Memory], Array]  # float32[n] of the next observation, memory -> bootstrap value
    cut: Callable[[Array, Array], Array]  # float32[n], action -> bool[]: the trace ends after this action
    choice: Choice
    estimate: Callable[[Array, Array], Array] = value_of_action  # [B, n], actions [B] -> the values that learn, [B]


WATKINS = Rule(lambda q, memory: jnp.max(q), lambda q, action: action != jnp.argmax(q), NOW)


def traced_update(
    body: AgentCore, rule: Rule, losses: Losses, discount: Number, trace_decay: Number, clip: Number
) -> Update:
    """One update along the trace; ``losses`` are for interventions."""
    values = action_values(body)

    def update(
        key: Key, learner: Learner, plugins: State, newest: Newest, clock: Clock
    ) -> tuple[Learner, State, Metrics]:
        held, batch = learner.params, newest.batch
        context = body.context(clock, batch.observation, lambda params: jnp.mean(losses(params, held, batch)[0]))
        learner, plugins = body.prepare(key, learner, plugins, context)

        def value(params: Params) -> tuple[Array, tuple[Array, Any]]:
            q, activations = body.network.forward(params, batch.observation)
            return rule.estimate(q, batch.action)[0], (q[0], activations)

        (estimate, (q, activations)), gradient = jax.value_and_grad(value, has_aux=True)(learner.params)
        following = rule.following(values(learner.params, batch.next_observation)[0], newest.memory)
        error = batch.reward[0] + batch.discount[0] * following - estimate
        learner, plugins = body.finish(
            key,
            learner,
            plugins,
            gradient,
            context._replace(activations=activations),
            batch.valid[0],
            td_error=bounded(error, clip),
            trace_decay=jnp.asarray(discount * trace_decay, jnp.float32),
            trace_start=newest.first,
            trace_end=newest.ended | rule.cut(q, batch.action[0]),
            penalty=body.penalty_gradients(learner, plugins, context),
        )
        return learner, plugins, trace_metrics(body, learner, error, clip)

    return update


def traced_q(
    body: AgentCore,
    preprocessor: Preprocessor,
    epsilon: Callable[[Array], Array],
    discount: Number,
    trace_decay: Number,
    clip: Number,
    truncation: Truncation,
    rule: Rule = WATKINS,
) -> Agent:
    """Q(lambda) or SARSA(lambda), by its rule; Watkins's resets the trace after the update for a non-greedy action."""
    values, losses = action_values(body), one_step_losses(body, clip)
    update, policy = traced_update(body, rule, losses, discount, trace_decay, clip), greedy_policy(values)
    shown: tuple[Losses, Scores, Meaning] = (losses, values, "values")
    return streaming_agent(body, preprocessor, policy, epsilon, update, *shown, discount, truncation, rule.choice)


def trace_metrics(body: AgentCore, learner: Learner, error: Array, clip: Number = 0.0) -> dict[str, Array]:
    """Metrics of an update with a trace: loss and magnitude of the error, and the step size.

    A bounded step size is that of this update. The step size is not recorded if the optimizer does not report it.
    """
    made = {"loss": error_loss(error, clip), "td_error": jnp.abs(error)}
    if not reports_step_size(body.optimizer):
        return made
    return {**made, "step_size": body.optimizer.learning_rate(learner.opt_state)}


@metadata(
    paper="Elsayed, Vasan, Mahmood 2024, Streaming Deep Reinforcement Learning Finally Works",
    checked="a NumPy program over 51 time steps of a stream, with gradients by hand",
    renamed=FORMER,
    only_with=NEEDS,
)
def stream_q(
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
    """Stream Q(lambda): learning from each step once, with eligibility traces and a bounded step.

    ``delta = r + discount d max_a q(s', a) - q(s, a)``, ``z <- discount trace_decay z + grad q(s, a)``, both computed
    before the update ``theta <- theta + alpha delta z``. ``alpha`` comes from the optimizer (``obgd`` by default; any
    optimizer can be used). After the update the trace is reset at terminations, lost lives, truncations and non-greedy
    actions.

    Traced: ``discount``; ``trace_decay`` (lambda); ``error_clip`` (``delta`` is clipped to +- this; 0: not clipped);
    ``normalise_rate`` (of "exponential"). ``epsilon`` is a schedule over the env steps since the agent was initialised.

    Static: ``normalise``, ``scale_rewards`` (see ``agents.normalise``); ``truncation``: a truncated episode either
    bootstraps from the value of its last observation ("bootstrap") or counts as terminated ("terminal"), as in all of
    the paper's scripts. The trace is reset in both cases.

    Penalties of interventions do not enter the trace. The gradients that interventions see are those of
    ``q(s, a)``. ``ValueError`` if the stream has more than one env, its actions are not discrete, or its observations
    are not one array, and for an unknown name.

    Reference: Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works".
    """
    preprocessor = preprocessor_of("stream_q", spec, normalise, normalise_rate, scale_rewards, discount, truncation)
    spec_of_network, rest = network(preprocessor.observation, spec.actions), initial_memory(preprocessor)
    body = assemble(spec_of_network, optimizer(), intervention, rest=rest, trace=eligible, envs=1)

    def make(core: AgentCore) -> Agent:
        return traced_q(core, preprocessor, epsilon(), discount, trace_decay, error_clip, truncation)

    return complete(spec, body, value_outputs(action_values(body)), make)


@metadata(
    paper="Gogianu, Lutu, Pascanu 2026, Revisiting Adam for Streaming RL",
    checked="a NumPy program over 51 time steps of a stream, with gradients by hand; equation and defaults follow "
    "code by others",
    renamed=FORMER,
    only_with=NEEDS,
)
def adaptive_q(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = CONTROL_NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = "adaptive_q",
    discount: BelowOne = 0.99,
    trace_decay: Fraction = 0.8,
    error_clip: NonNegative = 1.0,
    epsilon: Annotated[Any, Member("schedules")] = EXPLORATION,
    normalise: Normalise = "running",
    normalise_rate: Share = 1e-4,
    scale_rewards: bool = True,
    truncation: Truncation = "bootstrap",
) -> Agent:
    """Adaptive Q(lambda): Stream Q(lambda) with a clipped error and steps divided by the gradients' magnitude.

    ``v <- b v + (1 - b) g^2`` with ``b = discount trace_decay``, and
    ``theta <- theta + eta clip(delta) z / (sqrt(v) + eps)``.

    It equals :func:`stream_q` with ``optimizer: adaptive_q, error_clip: 1``; settings, errors and everything else are
    the same.

    Reference: Gogianu, Lutu, Pascanu 2026, "Revisiting Adam for Streaming RL".
    """
    check_acting("adaptive_q", spec, discrete=True, one_env=True)
    return stream_q(
        spec,
        intervention,
        network=network,
        optimizer=optimizer,
        discount=discount,
        trace_decay=trace_decay,
        error_clip=error_clip,
        epsilon=epsilon,
        normalise=normalise,
        normalise_rate=normalise_rate,
        scale_rewards=scale_rewards,
        truncation=truncation,
    )
