"""Learning from replay: store every step and learn periodically from samples. The caller's criterion is the loss."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.base import KEEP, NOISE, REFERENCE, REVIEW, SAMPLE, AgentCore, assemble_built, built, unextended
from plasticity.agents.criteria import Criterion
from plasticity.agents.explorers import exploring
from plasticity.agents.memory import in_order, recall_rows
from plasticity.agents.past import complete
from plasticity.agents.replay import Batch, clipped
from plasticity.agents.replay_source import Memory, Sampling, check_memory
from plasticity.agents.replay_timing import Timing
from plasticity.agents.value_based import FORMER_EPSILON
from plasticity.agents.windows import Windows, recalled
from plasticity.config.fields import Moved
from plasticity.core.schedules import Number
from plasticity.core.types import (
    FIRST,
    Activation,
    Agent,
    AgentState,
    Array,
    Clock,
    Held,
    Key,
    Learner,
    Metrics,
    Network,
    Optimizer,
    Params,
    Probe,
    State,
    StreamSpec,
    TimeStep,
    Transition,
    is_transition,
)
from plasticity.interventions.base import Intervention, fills
from plasticity.networks.functions import Functions
from plasticity.networks.spec import NetworkSpec

# Settings of the agents in versions before schedules and replays were members.
FORMER: Mapping[str, str | Moved] = {
    **FORMER_EPSILON,
    "learn_every": "update_period",
    "replay_capacity": Moved("replay.capacity"),
    "replay_minimum": Moved("replay.minimum"),
}

PROBE = 0  # the key of a probe's draws, the same at every measurement


def one_step(transition: Transition, gamma: Number, reward_clip: Number | None) -> Batch:
    """Convert consecutive time steps to a batch of 1-step transitions, for probes."""
    previous, action, current = transition
    reward, discount = clipped(current.reward, reward_clip), gamma * current.discount
    return Batch(previous.observation, action, reward, discount, current.observation, is_transition(transition))


def remembered(network: Network, learner: Learner, batch: Batch, before: TimeStep, envs: int) -> Batch:
    """The batch of a probe, its rows in the order of time, each with the carry that each network makes of the rows."""
    own, theirs = (
        recall_rows(network, params, batch.observation, batch.next_observation, before, envs)
        for params in (learner.params, learner.target)
    )
    return batch._replace(observation=own.previous, next_observation=theirs.current, next_own=own.current)


class Lesson(NamedTuple):
    """What one learner learns from in one update."""

    batch: Batch
    places: Array  # of the sample, see `Sample`
    loss: Callable[[Params], tuple[Array, Mapping[str, Activation], Metrics]]
    read: Callable[[Batch | Windows], Batch]  # how the learner reads what was sampled


class Updating(NamedTuple):
    """The updates of a replay agent."""

    body: AgentCore
    memory: Memory
    timing: Timing
    criterion: Criterion

    def stored(self, key: Key, state: AgentState, transition: Transition) -> Any:
        """The replay with one more transition of each env."""
        more = () if self.memory.sequences is None else (state.learner.carry,)
        draw = (jax.random.fold_in(key, KEEP),) if self.memory.draws else ()
        return self.memory.add(state.rest["replay"], transition, *more, *draw)

    def lesson(self, key: Key, learner: Learner, stored: Any, age: Array, **part: Array) -> Lesson:
        """Sample a batch (from a ``share`` of what is stored) and build the learner's loss on it."""
        sampled, weights, places = self.memory.sample(stored, jax.random.fold_in(key, SAMPLE), age, **part)
        online, other = jax.random.split(jax.random.fold_in(key, NOISE))
        target, before = self.criterion.perturb(other, learner.target), learner.params

        def read(sampled: Batch | Windows) -> Batch:
            if isinstance(sampled, Batch):
                return sampled
            return recalled(self.body.network, sampled, self.criterion.perturb(online, before), target)

        batch = read(sampled)

        def loss(params: Params) -> tuple[Array, Mapping[str, Activation], Metrics]:
            found = self.criterion.loss(online, batch, weights, self.criterion.perturb(online, params), target)
            return (
                found.loss,
                found.activations,
                {**found.metrics, "priorities": found.losses if found.priorities is None else found.priorities},
            )

        return Lesson(batch, places, loss, read)

    def once(
        self, key: Key, learner: Learner, plugins: State, stored: Any, age: Array, clock: Clock
    ) -> tuple[Learner, State, Metrics, tuple[Array, Array]]:
        """Perform one update; also returns the sample's places and priorities."""
        lesson = self.lesson(key, learner, stored, age, **self.reviewed(key, plugins))
        extra: dict[str, Any] = {} if self.criterion.due is None else {"due": self.criterion.due(clock)}

        def reference() -> Any:
            other = self.memory.sample(stored, jax.random.fold_in(key, REFERENCE), age).batch
            return self.criterion.inputs(lesson.read(other))

        def another(key: Key, other: Learner) -> Learner:
            loss = self.lesson(key, other, stored, age).loss
            return self.followed(self.body.plain(key, other, loss, **extra), clock)

        inputs = self.criterion.inputs(lesson.batch)
        learner, plugins, found = self.body.update(
            key, learner, plugins, lesson.loss, inputs, clock, reference, another, **extra
        )
        made = dict(found)
        priorities = made.pop("priorities")
        if self.memory.sequences is not None:
            priorities = self.memory.sequences(self.criterion.error(priorities), lesson.batch.valid)
        return self.followed(learner, clock), plugins, made, (lesson.places, priorities)

    def reviewed(self, key: Key, plugins: State) -> dict[str, Array]:
        """The share of the replay from which the intervention wants the batch; {}: from all."""
        review = self.body.intervention.review
        asks = self.memory.reviews and fills(self.body.intervention, "review")
        return {"share": review(jax.random.fold_in(key, REVIEW), plugins)} if asks else {}

    def followed(self, learner: Learner, clock: Clock) -> Learner:
        """The learner after its target network has moved, if that is due."""
        moves = (clock.update + 1) % self.timing.target_period == 0
        follow = self.criterion.follow
        target = jax.lax.cond(moves, lambda: follow(learner.params, learner.target), lambda: learner.target)
        return learner._replace(target=target)

    def all(self, key: Key, learner: Learner, plugins: State, stored: Any, age: Array, clock: Clock) -> Any:
        """Perform all updates of one step."""
        number = self.timing.gradient_steps

        def step(carry: Any, i: Array) -> Any:
            now = clock._replace(update=self.timing.update(clock) + i)
            learner, plugins, *made = self.once(jax.random.fold_in(key, i), carry[0], carry[1], stored, age, now)
            return (learner, plugins), made

        if number == 1:
            new, made = step((learner, plugins), jnp.zeros((), jnp.int32))
            made = jax.tree.map(lambda x: x[None], made)
        else:
            new, made = jax.lax.scan(step, (learner, plugins), jnp.arange(number))
        metrics, seen = made
        metrics = {name: jnp.sum(values) for name, values in metrics.items()} | {"updates": jnp.float32(number)}
        return new, metrics, tuple(seen)

    def none(self, learner: Learner, plugins: State) -> Any:
        """The result of :meth:`all` without an update."""
        shape = (self.timing.gradient_steps, self.memory.batch_size)
        metrics = dict.fromkeys(("loss", *self.criterion.metrics, "updates"), jnp.zeros(()))
        return (learner, plugins), metrics, (jnp.zeros(shape, jnp.int32), jnp.zeros(shape))


def replay_body(
    wanted: NetworkSpec | Functions,
    optimizer: Optimizer,
    intervention: Intervention,
    replay: Callable[..., Memory],
    spec: StreamSpec,
    sampling: Sampling,
    extend: Callable[[Network], Network] = unextended,
) -> tuple[AgentCore, Memory]:
    """:func:`replay_core` of a network that the intervention rewrites; ``extend`` may add parameters to it."""
    network = extend(built(wanted, intervention))
    return replay_core(network, optimizer, intervention, replay, spec, sampling)


def replay_core(
    network: Network,
    optimizer: Optimizer,
    intervention: Intervention,
    replay: Callable[..., Memory],
    spec: StreamSpec,
    sampling: Sampling,
) -> tuple[AgentCore, Memory]:
    """The body of a replay agent, with a copy of its parameters as the target network, and its empty memory.

    ``ValueError`` if the memory does not store what the network needs.
    """
    memory = replay(spec, sampling._replace(initial=network.initial))
    check_memory(network, memory)

    def rest(created: Array) -> Mapping[str, Any]:
        return {"replay": memory.init(), "schedule": created}

    body = assemble_built(network, optimizer, intervention, target=lambda params: params, rest=rest, envs=spec.envs)
    return body, memory


def probing(
    body: AgentCore, criterion: Criterion, sampling: Sampling, envs: int
) -> Callable[[AgentState, Transition, Clock, Key], Probe]:
    """The function ``recall`` of a replay agent."""
    network = body.network

    def probe(state: AgentState, transition: Transition, clock: Clock, key: Key) -> Probe:
        learner = state.learner
        if network.remembers:
            transition = in_order(transition, envs, clock.step)
        batch = one_step(transition, sampling.discount, sampling.reward_clip)
        if network.remembers:
            batch = remembered(network, learner, batch, transition.previous, envs)
        weights = jnp.ones(len(batch.action))

        def losses(params: Params) -> Array:
            return criterion.loss(key, batch, weights, params, learner.target).losses

        seen, scores, meaning = criterion.inputs(batch), criterion.scores, criterion.meaning
        return body.probe(learner, seen, losses, batch.valid, scores, meaning, clock)

    return probe


def replay_agent(
    spec: StreamSpec,
    body: AgentCore,
    memory: Memory,
    timing: Timing,
    criterion: Criterion,
    sampling: Sampling,
    random_steps: int | None = None,
) -> Agent:
    """Build a replay agent; ``sampling`` is for probes.

    ``random_steps``: the env steps at the start of a visit in which an old policy acts, if an intervention chooses one;
    None: the agent has no random steps.
    """

    def make(core: AgentCore) -> Agent:
        return replay_learner(core, memory, timing, criterion, sampling, spec.envs)

    def remembering(core: AgentCore) -> Agent:
        return complete(spec, core, criterion.outputs, make)

    return exploring(spec, body, random_steps, remembering)


def replay_learner(
    body: AgentCore,
    memory: Memory,
    timing: Timing,
    criterion: Criterion,
    sampling: Sampling,
    envs: int,
) -> Agent:
    """The functions of a replay agent with ``envs`` envs."""
    updating = Updating(body, memory, timing, criterion)

    def init(key: Key, timestep: TimeStep) -> AgentState:
        del timestep
        return body.init(key)

    def act(key: Key, state: AgentState, observation: Any, clock: Clock) -> Array:
        seen = body.batch(observation, state.learner.carry)
        return criterion.act(key, body.acting(state), seen, clock.step - state.rest["schedule"])

    def play(key: Key, state: AgentState, observation: Any, epsilon: Array) -> Array:
        return criterion.play(key, body.acting(state), body.batch(observation, state.learner.carry), epsilon)

    def advanced(state: AgentState, transition: Transition) -> AgentState:
        """The state with the carry after the transition, by the parameters that act (without noise)."""
        previous, first = transition.previous.observation, transition.current.step_type == FIRST
        return state._replace(learner=state.learner._replace(carry=body.after(state, previous, first)))

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        stored = updating.stored(key, state, transition)
        state = advanced(state, transition)
        age, due = clock.step - state.rest["schedule"], timing.due(clock)

        def none() -> Any:
            return updating.none(state.learner, state.plugins)

        def unless_new() -> Any:
            """Update the lane, unless its replay is fresh and not yet ready."""
            return jax.lax.cond(
                memory.ready(stored),
                lambda: updating.all(key, state.learner, state.plugins, stored, age, clock),
                none,
            )

        # Two branches: `due` is the same for all lanes, but `ready` is not, so vmap turns its branch into a select.
        (learner, plugins), metrics, seen = jax.lax.cond(due, unless_new, none)
        made = jnp.where(due, timing.gradient_steps, 0)
        stored = memory.update_priorities(stored, made, metrics["updates"] > 0, *seen)
        return AgentState(learner, plugins, {**state.rest, "replay": stored}), metrics

    recall = probing(body, criterion, sampling, envs)

    def probe(state: AgentState, transition: Transition, clock: Clock) -> Probe:
        return recall(state, transition, clock, jax.random.key(PROBE))

    def switch(key: Key, state: AgentState, clock: Clock) -> AgentState:
        if memory.switch is not None:
            state = state._replace(rest={**state.rest, "replay": memory.switch(state.rest["replay"])})
        return body.switch(key, state, clock)

    def held(state: AgentState) -> Held:
        assert memory.held is not None
        return memory.held(state.rest["replay"])

    initial = functools.partial(body.network.initial, envs)
    agent = Agent(init, act, learn, switch, probe, play, initial, body.after, recall=recall)
    return agent._replace(
        updates=timing.gradient_steps,
        held=held if memory.held else None,
        switch_setting="replay" if memory.switch is not None else "",
    )
