"""The memory of past visits that an agent keeps for interventions which ask for one.

It holds a uniform sample of the transitions of each visit (reservoir sampling, Vitter 1985, "Random Sampling with a
Reservoir"), and what the networks said about them when the visit ended. It is not part of what a reset renews, and no
branch of an update returns it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.base import DRAW, NOISE, STORE, AgentCore
from plasticity.core.masked import mean_where
from plasticity.core.outputs import Read
from plasticity.core.types import (
    Agent,
    AgentState,
    Array,
    Clock,
    Drawn,
    Key,
    Metrics,
    Params,
    Past,
    Probe,
    StreamSpec,
    TimeStep,
    Transition,
    is_transition,
)
from plasticity.interventions.base import Remember

PAST = "past"  # its name in ``AgentState.rest``


class Stored(NamedTuple):
    """The memory: ``slots`` visits of ``size`` transitions each."""

    rows: Transition  # [slots, size, ...]
    outputs: Any  # [slots, size, ...], when the visit ended
    seen: Array  # int32[slots]: transitions of the visit so far


class Keeper(NamedTuple):
    """How the memory is filled and read (static)."""

    size: int  # transitions of each visit
    slots: int  # visits, including the current one

    def slot(self, visit: Array) -> Array:
        return visit % self.slots

    def empty(self, row: Transition, outputs: Any) -> Stored:
        """``row``, ``outputs``: shapes of one row."""
        rows, made = jax.tree.map(lambda x: jnp.zeros((self.slots, self.size, *x.shape), x.dtype), (row, outputs))
        return Stored(rows, made, jnp.zeros(self.slots, jnp.int32))

    def add(self, key: Key, stored: Stored, transition: Transition, valid: Array, clock: Clock) -> Stored:
        """Include the valid transitions ``[E, ...]``. Every transition of a visit is kept with the same probability."""
        slot = self.slot(clock.visit)
        before = jnp.where(clock.step_in_visit == 0, 0, stored.seen[slot])
        number = before + jnp.cumsum(valid) - 1  # of each valid transition, from 0
        drawn = jax.random.randint(key, number.shape, 0, jnp.maximum(number, 0) + 1)
        place = jnp.where(number < self.size, number, drawn)
        later = jnp.triu(jnp.ones((len(place), len(place)), bool), 1)
        replaced = jnp.any((place[:, None] == place) & later & valid, axis=-1)  # by a later env at this step
        place = jnp.where(valid & ~replaced, place, self.size)  # beyond the end: dropped
        rows = jax.tree.map(lambda x, new: x.at[slot, place].set(new, mode="drop"), stored.rows, transition)
        return stored._replace(rows=rows, seen=stored.seen.at[slot].set(before + jnp.sum(valid, dtype=jnp.int32)))

    def take(self, stored: Stored, slot: Array, place: Array, valid: Array) -> Drawn:
        rows, outputs = jax.tree.map(lambda x: x[slot, place], (stored.rows, stored.outputs))
        return Drawn(rows, outputs, valid)

    def of_visit(self, stored: Stored, visit: Array) -> Drawn:
        """All transitions of a visit."""
        slot, place = self.slot(visit), jnp.arange(self.size)
        return self.take(stored, slot, place, place < stored.seen[slot])

    def draw(self, key: Key, stored: Stored, visit: Array, number: int) -> Drawn:
        """Draw rows of the visits before ``visit``."""
        which, where = jax.random.split(key)
        known = jnp.minimum(visit, self.slots - 1)
        age = jax.random.randint(which, (number,), 0, jnp.maximum(known, 1))
        slot = self.slot(visit - 1 - age)
        filled = jnp.minimum(stored.seen[slot], self.size)
        place = jax.random.randint(where, (number,), 0, jnp.maximum(filled, 1))
        return self.take(stored, slot, place, (filled > 0) & (known > 0))


def keeper_of(spec: StreamSpec, remember: Remember) -> Keeper:
    visits = len(spec.visits)
    wanted = visits if remember.visits is None else remember.visits + 1
    return Keeper(remember.transitions, min(visits, wanted))


def row_of(spec: StreamSpec) -> Transition:
    """Shapes of a transition of one env."""
    number = jax.ShapeDtypeStruct((), jnp.float32)
    step: Any = TimeStep(jax.ShapeDtypeStruct((), jnp.int8), number, number, spec.observation)  # type: ignore[arg-type]
    action: Any = jax.ShapeDtypeStruct((), jnp.int32)
    if not spec.discrete:
        action = jax.ShapeDtypeStruct((spec.actions,), jnp.float32)
    return Transition(step, action, step)


class Reader(NamedTuple):
    """What interventions learn of the memory: the agent's inputs, outputs and losses on its rows (static)."""

    agent: Agent
    core: AgentCore
    keeper: Keeper

    def probe(self, state: AgentState, rows: Transition, clock: Clock, key: Key) -> Probe:
        agent = self.agent
        return agent.probe(state, rows, clock) if agent.recall is None else agent.recall(state, rows, clock, key)

    def inputs(self, state: AgentState, rows: Transition, clock: Clock) -> Any:
        return self.probe(state, rows, clock, jax.random.key(0)).observation

    def said(self, state: AgentState, rows: Transition, clock: Clock) -> Any:
        return self.core.outputs(self.core.acting(state), self.inputs(state, rows, clock))

    def at(self, key: Key, state: AgentState, stored: Stored) -> Callable[[Clock], Past]:
        """What interventions read; ``state`` has the normalisation."""

        def past(clock: Clock) -> Past:
            def tagged(use: int, tag: int | Array) -> Key:
                return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, use), tag), clock.update)

            def draw(tag: int | Array, number: int) -> Drawn:
                return self.keeper.draw(tagged(DRAW, tag), stored, clock.visit, number)

            def loss(tag: int | Array, params: Params, drawn: Drawn) -> Array:
                losses = self.probe(state, drawn.rows, clock, tagged(NOISE, tag)).losses
                return mean_where(drawn.valid, losses(params))

            return Past(
                draw,
                lambda: self.keeper.of_visit(stored, clock.visit - 1),
                lambda rows: self.inputs(state, rows, clock),
                loss,
            )

        return past

    def empty(self, state: AgentState, row: Transition) -> Stored:
        """``row``: shapes of one row."""
        zero = jnp.zeros((), jnp.int32)
        rows = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), row)
        found = jax.eval_shape(lambda rows: self.said(state, rows, Clock(zero, zero, zero, zero)), rows)
        return self.keeper.empty(row, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), found))

    def noted(self, state: AgentState, stored: Stored, clock: Clock) -> Stored:
        """With what the networks say about the visit that ended."""
        slot = self.keeper.slot(clock.visit - 1)
        said = self.said(state, jax.tree.map(lambda x: x[slot], stored.rows), clock)
        return stored._replace(outputs=jax.tree.map(lambda x, new: x.at[slot].set(new), stored.outputs, said))


def split(state: AgentState) -> tuple[AgentState, Stored]:
    """-> the state without the memory, the memory."""
    rest = {name: each for name, each in state.rest.items() if name != PAST}
    return state._replace(rest=rest), state.rest[PAST]


def joined(state: AgentState, stored: Stored) -> AgentState:
    return state._replace(rest={**state.rest, PAST: stored})


def complete(
    spec: StreamSpec,
    core: AgentCore,
    outputs: Read,
    make: Callable[[AgentCore], Agent],
    supervised: bool = False,
) -> Agent:
    """The agent ``make(core)``, with what interventions may ask of it: outputs, views and a memory of past visits.

    Args:
      spec: the stream.
      core: the agent's components.
      outputs: what its networks say about what they read.
      make: builds the agent from its components, called again wherever the memory is read.
      supervised: whether every pair of time steps is an example, not only transitions within an episode. Static.

    Returns:
      The agent. Its ``rest`` has the memory as ``past``, if an intervention asks for one.

    Raises:
      ValueError: a memory is asked for and the network has memory of its own.
    """
    core = core._replace(outputs=outputs)
    remember = core.intervention.remember
    agent = make(core)._replace(view=core.view)
    if remember is None:
        return agent
    if core.network.remembers:
        raise ValueError("agent.network: has memory, which the memory of past tasks does not store; choose one without")
    reader = Reader(agent, core, keeper_of(spec, remember))

    def reading(key: Key, state: AgentState, stored: Stored) -> Agent:
        return make(core._replace(past=reader.at(key, state, stored)))

    def init(key: Key, timestep: TimeStep) -> AgentState:
        state = agent.init(key, timestep)
        return joined(state, reader.empty(state, row_of(spec)))

    def learn(key: Key, state: AgentState, transition: Transition, clock: Clock) -> tuple[AgentState, Metrics]:
        state, stored = split(state)
        valid = jnp.ones(spec.envs, bool) if supervised else is_transition(transition)
        stored = reader.keeper.add(jax.random.fold_in(key, STORE), stored, transition, valid, clock)
        state, made = reading(key, state, stored).learn(key, state, transition, clock)
        return joined(state, stored), made

    def switch(key: Key, state: AgentState, clock: Clock) -> AgentState:
        state, stored = split(state)
        stored = reader.noted(state, stored, clock)
        state = reading(key, state, stored).switch(key, state, clock)
        return joined(state, stored._replace(seen=0 * stored.seen) if core.intervention.forgets else stored)

    return agent._replace(init=init, learn=learn, switch=switch)
