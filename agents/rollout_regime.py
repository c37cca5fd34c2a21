"""Learning from rollouts: store the steps of a rollout, learn from all of them in several passes, discard them.

What an agent makes of the steps, its loss and its way of acting are functions that the caller gives.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents import memory
from plasticity.agents.base import ACTION, REFERENCE, SAMPLE, STEP, AgentCore, Meaning
from plasticity.agents.normalise import Preprocessor
from plasticity.agents.rollout import Rollout, part_of, write
from plasticity.agents.stream_checks import check_acting
from plasticity.agents.value_based import Policy, Scores
from plasticity.config.counters import check_updates
from plasticity.core.schedules import Schedule
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
    Network,
    Params,
    Probe,
    State,
    StreamSpec,
    TimeStep,
    Transition,
    is_transition,
    take,
)

Seen = tuple[Array, Array, Array]  # both observations of pairs of time steps as network inputs, and the rewards


class Passes(NamedTuple):
    """The size of a rollout, and the passes over it (all static)."""

    length: int  # env steps of each env
    epochs: int
    minibatches: int

    @property
    def updates(self) -> int:
        """Updates after each rollout."""
        return self.epochs * self.minibatches


def unchanged(reward: Array) -> Array:
    return reward


class Behaviour(NamedTuple):
    """How an agent acts, and the rewards that it sees."""

    act: Policy
    play: Policy  # for evaluation, with the evaluation's epsilon
    epsilon: Schedule | None = None  # of the agent's age in env steps; None: `act` receives 0
    raw_reward: Callable[[Array], Array] = unchanged  # applied before rewards are normalised
    scaled_reward: Callable[[Array], Array] = unchanged  # applied after

    def rewarded(self, pairs: Transition) -> Transition:
        """The pairs with the rewards before they are normalised."""
        return pairs._replace(current=pairs.current._replace(reward=self.raw_reward(pairs.current.reward)))


class End(NamedTuple):
    """What follows a rollout, and what preceded it."""

    observation: Array  # [E, ...], after the last step
    carry: Any  # before that observation
    start: Any  # the carry before the first observation of the rollout; () without memory


class Learning(NamedTuple):
    """What an agent learns from a rollout."""

    samples: Callable[[Learner, State, Rollout, End], Any]
    # learner, plugins, rollout, what follows it -> rows [T * E, ...], a record with a field `observation`
    loss: Callable[[Params, Any], tuple[Array, Any, Metrics]]  # parameters, rows -> loss, activations, metrics
    pair_losses: Callable[[Params, Params, Seen, Transition], Array]
    # parameters, parameters held fixed in targets, pairs -> float32[B], for probes
    scores: Scores
    meaning: Meaning
    optimizer_reset: bool = False  # reset the optimizer's state before the updates of every rollout
    stops: Callable[[Metrics], Array] | None = None  # metrics of an epoch's last update -> whether to stop after it
    totals: Callable[[dict[str, Array]], dict[str, Array]] = dict  # sums of the metrics -> what is recorded


def check_rollout(name: str, spec: StreamSpec, passes: Passes, *, discrete: bool = False) -> None:
    """Raise ``ValueError`` if the stream does not fit the agent ``name`` or the numbers are inconsistent."""
    check_acting(name, spec, discrete=discrete)
    length = passes.length
    for visit in spec.visits:
        if visit.steps % length:
            raise ValueError(
                f"agent.rollout_length: {length} is not allowed; must divide the {visit.steps} steps of a visit"
            )
    check_updates("agent.epochs x agent.minibatches", spec, passes.updates, length)


def check_minibatches(network: Network, spec: StreamSpec, passes: Passes) -> None:
    """``ValueError`` unless the minibatches divide the steps of a rollout; with memory, the envs."""
    length, _, minibatches = passes
    if network.remembers and spec.envs % minibatches:
        envs = f"{spec.envs} {'env' if spec.envs == 1 else 'envs'}"
        whole = f"the {envs} of the stream, because a network with memory learns from whole rollouts of envs"
    elif length * spec.envs % minibatches:
        whole = f"the {length * spec.envs} steps of a rollout ({length} of each of {spec.envs} envs)"
    else:
        return
    raise ValueError(f"agent.minibatches: {minibatches} is not allowed; must divide {whole}")


def rows_of_minibatches(key: Key, passes: Passes, size: int) -> Array:
    """Rows of every minibatch, int32 ``[updates, size / minibatches]``; each epoch is a permutation of all rows."""
    keys = jax.vmap(lambda epoch: jax.random.fold_in(key, epoch))(jnp.arange(passes.epochs))
    return jax.vmap(lambda key: jax.random.permutation(key, size))(keys).reshape(passes.updates, -1)


def update_phase(
    body: AgentCore,
    passes: Passes,
    learning: Learning,
    key: Key,
    learner: Learner,
    plugins: State,
    rollout: Rollout,
    end: End,
    clock: Clock,
) -> tuple[Learner, State, Metrics]:
    """Perform all updates after a rollout: epochs of minibatches over it. Metrics are sums over the updates made."""
    samples = learning.samples(learner, plugins, rollout, end)
    size = rollout.reward.shape[1] if body.network.remembers else rollout.reward.size  # of envs, or of steps
    if learning.optimizer_reset:
        learner = learner._replace(opt_state=body.optimizer.init(learner.params))
    number = clock.step // passes.length * passes.updates

    def step(carry: Any, inputs: tuple[Array, Array]) -> tuple[Any, Metrics]:
        learner, plugins, stopped = carry
        i, rows = inputs
        draw = jax.random.fold_in(jax.random.fold_in(key, STEP), i)
        batch = part_of(samples, rows)

        def objective(params: Params) -> tuple[Array, Any, Metrics]:
            return learning.loss(params, batch)

        def updated() -> tuple[Learner, State, Metrics]:
            now = clock._replace(update=number + i)
            made = body.update(draw, learner, plugins, objective, batch.observation, now, reference)
            return *made[:2], {**made[2], "updates": jnp.ones(())}

        def reference() -> Any:
            others = jax.random.choice(jax.random.fold_in(draw, REFERENCE), size, rows.shape, False)
            return take(samples.observation, others)

        if learning.stops is None:
            learner, plugins, made = updated()
        else:
            learner, plugins, made = jax.lax.cond(stopped, lambda: no_update(learner, plugins, updated), updated)
            stopped |= ((i + 1) % passes.minibatches == 0) & learning.stops(made)
        return (learner, plugins, stopped), made

    rows = rows_of_minibatches(jax.random.fold_in(key, SAMPLE), passes, size)
    start = (learner, plugins, jnp.zeros((), bool))
    (learner, plugins, _), made = jax.lax.scan(step, start, (jnp.arange(passes.updates), rows))
    return learner, plugins, learning.totals(jax.tree.map(jnp.sum, made))


def no_update(learner: Learner, plugins: State, updated: Any) -> tuple[Learner, State, Metrics]:
    """The result of a step without an update, in the shape of ``updated()``."""
    return learner, plugins, {name: jnp.zeros(()) for name in jax.eval_shape(updated)[2]}


def probing(
    spec: StreamSpec, body: AgentCore, preprocessor: Preprocessor, behaviour: Behaviour, learning: Learning
) -> Callable[[AgentState, Transition, Clock], Probe]:
    """The function ``probe`` of an agent that learns from rollouts."""

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        held = state.learner.params
        if body.network.remembers:
            transition = memory.in_order(transition, spec.envs, clock.step)
        previous, current, reward = preprocessor.look(state.rest, behaviour.rewarded(transition))
        recalled = memory.recall_rows(body.network, held, previous, current, transition.previous, spec.envs)
        previous, seen = recalled.previous, (recalled.previous, recalled.current, behaviour.scaled_reward(reward))

        def losses(params: Params) -> Array:
            return learning.pair_losses(params, held, seen, transition)

        valid = is_transition(transition)
        return body.probe(state.learner, previous, losses, valid, learning.scores, learning.meaning, clock)

    return probe


def rollout_agent(
    spec: StreamSpec,
    body: AgentCore,
    preprocessor: Preprocessor,
    passes: Passes,
    behaviour: Behaviour,
    learning: Learning,
) -> Agent:
    """An agent that collects a rollout, then learns from it.

    Its memory ``rest`` has the ``rollout`` and, if epsilon is scheduled, the step of its creation as ``schedule``;
    with a network with memory, also the carry at the start of the rollout as ``start``.
    """

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Any, clock: Clock) -> Array:
        seen = body.batch(preprocessor.act(state.rest, observation, clock), state.learner.carry)
        schedule = behaviour.epsilon
        explore = jnp.zeros(()) if schedule is None else schedule(clock.step - state.rest["schedule"])
        return behaviour.act(jax.random.fold_in(key, ACTION), body.acting(state), seen, explore)

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        seen = body.batch(preprocessor.play(state.rest, observation), state.learner.carry)
        return behaviour.play(jax.random.fold_in(key, ACTION), body.acting(state), seen, epsilon)

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        rest, previous, current, reward = preprocessor.learn(state.rest, behaviour.rewarded(transition), clock)
        row = clock.step % passes.length
        rollout = write(rest["rollout"], row, previous, behaviour.scaled_reward(reward), transition)

        carry = state.learner.carry
        start = select(row == 0, carry, rest["start"]) if body.network.remembers else ()
        then = memory.after(body.network, body.acting(state), previous, carry)
        kept = memory.restarted(body.network, then, transition.current.step_type == FIRST)
        learner, end = state.learner._replace(carry=kept), End(current, then, start)

        def updated() -> tuple[Learner, State, Metrics]:
            return update_phase(body, passes, learning, key, learner, state.plugins, rollout, end, clock)

        new, plugins, made = jax.lax.cond(
            row == passes.length - 1, updated, lambda: no_update(learner, state.plugins, updated)
        )
        stored = {"rollout": rollout} | ({"start": start} if body.network.remembers else {})
        return AgentState(new, plugins, {**rest, **stored}), made

    def after(state: AgentState, observation: Any, first: Array) -> Any:
        return body.after(state, preprocessor.play(state.rest, observation), first)

    def switch(key: Key, state: AgentState, clock: Clock) -> AgentState:
        state = body.switch(key, state, clock)
        return state._replace(rest=preprocessor.switch(state.rest))

    probe = probing(spec, body, preprocessor, behaviour, learning)
    initial = functools.partial(body.network.initial, spec.envs)
    made = Agent(init, act, learn, switch, probe, play, initial, after, preprocessor.switch_setting)
    return made._replace(updates=passes.updates)
