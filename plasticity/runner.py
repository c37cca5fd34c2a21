"""One loop for every stream: scan a chunk of steps, hand the result to whoever consumes it.

A :class:`Program` is all lanes of one arm that share their static structure. It is compiled into four functions of one
*group* of lanes (``devices x width``, see ``plasticity.lanes``): ``begin``, ``chunk``, ``measure``, ``switch``; the
groups take turns. The training step is traced and compiled once for the whole stream: a task switch changes arrays.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plasticity.lanes import LaneKeys, Placement, across, enter, join, lane_keys, leave, over
from plasticity.monitors.base import Monitor
from plasticity.packing import Packed, pack, unpack
from plasticity.trees import is_finite, select
from plasticity.types import (
    LAST,
    Agent,
    AgentState,
    Array,
    Clock,
    Metrics,
    State,
    Stream,
    StreamSpec,
    TimeStep,
    Transition,
    Visit,
    VisitPlan,
)

Hyper = Mapping[str, Any]
NEVER = -1
DIVERGED = "diverged_at"  # among what a chunk sends to the host
INIT, ACT, LEARN, SWITCH, MEASURE = range(5)  # one tag for each use of a lane's learner key


class Monitoring(NamedTuple):
    """A monitor and its period in env steps (a multiple of the chunk)."""

    monitor: Monitor
    every: int


class Program(NamedTuple):
    """All lanes that share one static structure."""

    spec: StreamSpec
    build: Callable[[Hyper], Agent]  # called inside the trace with one lane's hyper-parameters
    make_stream: Callable[[int], Stream]  # lanes of a block -> the stream
    monitors: tuple[Monitoring, ...]
    hyper: Mapping[str, np.ndarray]  # float32[lanes] each
    seeds: np.ndarray  # int32[lanes]
    chunk: int  # env steps of one compiled scan
    probe_size: int = 512  # transitions that monitors look at


class Carry(NamedTuple):
    """Everything that a group of lanes takes from one chunk to the next; leading axis ``devices x width``."""

    agent: AgentState
    stream: State
    timestep: TimeStep
    recent: Transition  # ring [slots, E, ...] of the newest transitions, for the monitors
    episode_return: Array  # float32[E] of the episodes under way
    monitors: tuple[State, ...]
    updates: Array  # int32: updates made so far
    diverged_at: Array  # int32: the env step at which the lane's numbers stopped being finite, or NEVER


class Position(NamedTuple):
    """Where the run stands (Python ints)."""

    visit: int = 0
    step_in_visit: int = 0
    step: int = 0


class Chunk(NamedTuple):
    """What one chunk of the loop gives its consumers."""

    position: Position  # after the chunk
    task: str
    metrics: Mapping[str, np.ndarray]  # float32[lanes]; NaN where there is nothing to say
    diverged_at: np.ndarray  # int32[lanes]


class Compiled(NamedTuple):
    """The four functions of one group; all take and return arrays with a leading axis ``devices x width``."""

    begin: Callable[..., Carry]
    chunk: Callable[..., tuple[Carry, Packed]]
    measure: Callable[..., tuple[tuple[State, ...], Packed]]
    switch: Callable[..., Carry]
    stream: Stream
    sharding: NamedSharding  # of every array with a lane axis
    traces: dict[str, int]  # how often each function was traced


def slots(program: Program) -> int:
    return max(1, program.probe_size // program.spec.envs)


def _fold(keys: Any, *tags: Any) -> Any:
    for tag in tags:
        keys = jax.random.fold_in(keys, tag)
    return keys


def _finite_record(made: Metrics, steps: int) -> Metrics:
    """Per-step sums of one lane over a chunk -> what is recorded; NaN where nothing was counted."""

    def ratio(total: Array, count: Array) -> Array:
        return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)

    total = {name: jnp.sum(value) for name, value in made.items()}
    updates, episodes = total.pop("updates"), total.pop("episodes")
    record = {
        "reward": total.pop("reward") / steps,
        "episodes": episodes,
        "episodic_return": ratio(total.pop("episodic_return"), episodes),
    }
    return record | {name: ratio(value, updates) for name, value in total.items()}


class _Lane(NamedTuple):
    """The functions of a block of ``width`` lanes on one device."""

    program: Program
    stream: Stream
    width: int

    def begin(self, hyper: Hyper, seeds: Array, block: Array) -> Carry:
        program, spec = self.program, self.program.spec
        keys = over(lane_keys, self.width)(seeds)
        zero = jnp.zeros((), jnp.int32)
        stream, timestep = self.stream.reset(keys.data, Visit(zero, zero + spec.visits[0].task), block)

        def one(hyper: Hyper, keys: LaneKeys, timestep: TimeStep) -> Any:
            agent = program.build(hyper)
            clock = Clock(zero, zero, zero, zero)
            state = agent.init(_fold(keys.learner, INIT), timestep)
            action = agent.act(_fold(keys.learner, ACT), state, timestep.observation, clock)
            pair = Transition(timestep, jnp.zeros_like(action), timestep)
            recent = jax.tree.map(lambda x: jnp.broadcast_to(x, (slots(program), *x.shape)), pair)
            monitors = tuple(each.monitor.init(state.learner.params) for each in program.monitors)
            return state, recent, jnp.zeros(spec.envs), monitors, zero, zero + NEVER

        agent, *rest = over(one, self.width)(hyper, keys, timestep)
        return Carry(agent, stream, timestep, *rest)

    def step(self, hyper: Hyper, keys: LaneKeys, carry: Carry, clock: Clock) -> tuple[Carry, Metrics]:
        """One env step of every lane: act, step the stream, learn, keep the books.

        Everything but the stream's state is as ``enter`` gives it: with one lane, arrays have no lane axis. (To take
        the axis off and put it back at every step would make XLA copy the replay buffer.)
        """
        build = self.program.build

        def act(hyper: Hyper, keys: LaneKeys, state: AgentState, observation: Any) -> Array:
            return build(hyper).act(_fold(keys.learner, ACT, clock.step), state, observation, clock)

        def learn(
            hyper: Hyper, keys: LaneKeys, state: AgentState, pair: Transition, returns: Array, recent: Transition
        ) -> Any:
            state, metrics = build(hyper).learn(_fold(keys.learner, LEARN, clock.step), state, pair, clock)
            slot = clock.step % slots(self.program)
            recent = jax.tree.map(
                lambda ring, new: jax.lax.dynamic_update_index_in_dim(ring, new, slot, 0), recent, pair
            )
            returns = returns + pair.current.reward
            last = pair.current.step_type == LAST
            books = {
                "reward": jnp.mean(pair.current.reward),
                "episodes": jnp.sum(last, dtype=jnp.float32),
                "episodic_return": jnp.sum(jnp.where(last, returns, 0.0)),
            }
            return state, recent, jnp.where(last, 0.0, returns), {**metrics, **books}

        width = self.width
        action = across(act, width)(hyper, keys, carry.agent, carry.timestep.observation)
        data = leave(keys.data, width)
        stream, timestep = self.stream.step(data, carry.stream, leave(action, width), clock)
        pair = Transition(carry.timestep, action, enter(timestep, width))
        agent, recent, returns, metrics = across(learn, width)(
            hyper, keys, carry.agent, pair, carry.episode_return, carry.recent
        )
        carry = carry._replace(agent=agent, stream=stream, timestep=pair.current, recent=recent, episode_return=returns)
        return carry, metrics

    def chunk(self, hyper: Hyper, seeds: Array, carry: Carry, clock: Clock) -> tuple[Carry, Packed]:
        """``program.chunk`` env steps of every lane.

        A lane whose loss or parameters stop being finite goes back to what it was at the chunk's start and stays there.
        """
        steps, width = self.program.chunk, self.width
        hyper, seeds = enter((hyper, seeds), width)
        keys = across(lane_keys, width)(seeds)
        carry = enter(carry._replace(stream=()), width)._replace(stream=carry.stream)
        before = carry.agent

        def body(carry: Carry, i: Array) -> tuple[Carry, Metrics]:
            now = clock._replace(step=clock.step + i, update=clock.update + i, step_in_visit=clock.step_in_visit + i)
            return self.step(hyper, keys, carry, now)

        carry, made = jax.lax.scan(body, carry, jnp.arange(steps))

        def close(before: AgentState, after: AgentState, made: Metrics, updates: Array, diverged_at: Array) -> Any:
            bad = ~jnp.isfinite(sum(made.values()))
            finite = ~jnp.any(bad) & is_finite(after.learner.params)
            when = clock.step + jnp.where(jnp.any(bad), jnp.argmax(bad), steps - 1) + 1
            diverged_at = jnp.where((diverged_at == NEVER) & ~finite, when, diverged_at)
            alive = diverged_at == NEVER
            learner, plugins = select(alive, (after.learner, after.plugins), (before.learner, before.plugins))
            record = _finite_record(made, steps)
            record = {name: jnp.where(alive, value, jnp.nan) for name, value in record.items()}
            updates += jnp.where(alive, jnp.sum(made["updates"]), 0).astype(jnp.int32)
            agent = after._replace(learner=learner, plugins=plugins)
            return agent, updates, diverged_at, pack({**record, "update": updates, DIVERGED: diverged_at})

        if width != 1:
            made = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), made)  # [steps, W] -> [W, steps]
        agent, updates, diverged_at, record = across(close, width)(
            before, carry.agent, made, carry.updates, carry.diverged_at
        )
        carry = carry._replace(agent=agent, updates=updates, diverged_at=diverged_at)
        return leave(carry._replace(stream=()), width)._replace(stream=carry.stream), leave(record, width)

    def measure(self, hyper: Hyper, seeds: Array, carry: Carry, clock: Clock, which: tuple[int, ...]) -> Any:
        """The monitors that are due, on the recent transitions of each lane."""

        def one(hyper: Hyper, seed: Array, carry: Carry) -> Any:
            agent, key = self.program.build(hyper), _fold(lane_keys(seed).learner, MEASURE, clock.step)
            recent = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), carry.recent)
            probe = agent.probe(carry.agent, recent, clock)
            states = list(carry.monitors)
            metrics: dict[str, Array] = {}
            for i in which:
                monitor = self.program.monitors[i].monitor
                states[i], found = monitor.measure(_fold(key, i), states[i], probe)
                metrics |= found
            alive = carry.diverged_at == NEVER
            return tuple(states), pack({name: jnp.where(alive, value, jnp.nan) for name, value in metrics.items()})

        return over(one, self.width)(hyper, seeds, carry)

    def switch(self, hyper: Hyper, seeds: Array, carry: Carry, clock: Clock, task: Array, block: Array) -> Carry:
        """The next task begins: the stream's parameters change, and the agent is told (most agents do nothing)."""
        keys = over(lane_keys, self.width)(seeds)
        stream, timestep = self.stream.reset(keys.data, Visit(clock.visit, task), block)

        def one(hyper: Hyper, keys: LaneKeys, state: AgentState, diverged_at: Array) -> AgentState:
            changed = self.program.build(hyper).switch(_fold(keys.learner, SWITCH, clock.step), state, clock)
            return select(diverged_at == NEVER, changed, state)

        agent = over(one, self.width)(hyper, keys, carry.agent, carry.diverged_at)
        return carry._replace(
            agent=agent,
            stream=stream,
            timestep=timestep,
            episode_return=jnp.zeros_like(carry.episode_return),
        )


def compile_program(program: Program, placement: Placement, devices: Sequence[jax.Device]) -> Compiled:
    """The four functions of one group, jitted; over several devices by ``shard_map``, the carry donated."""
    stream = program.make_stream(placement.width)
    lane = _Lane(program, stream, placement.width)
    traces: dict[str, int] = {}
    mesh = Mesh(np.asarray(devices[: placement.devices]), ("lanes",))
    lanes, same = PartitionSpec("lanes"), PartitionSpec()

    def compiled(
        name: str, function: Callable[..., Any], inputs: Any, donate: tuple[int, ...] = (), **kwargs: Any
    ) -> Any:
        def counted(*args: Any) -> Any:
            traces[name] = traces.get(name, 0) + 1
            return function(*args, **kwargs)

        if placement.devices > 1:
            counted = jax.shard_map(counted, mesh=mesh, in_specs=inputs, out_specs=lanes, check_vma=False)
        return jax.jit(counted, donate_argnums=donate)

    def with_block(function: Callable[..., Any]) -> Callable[..., Any]:
        """The block number arrives as this device's slice of an array [devices]."""
        return lambda *args: function(*args[:-1], args[-1][0])

    measures: dict[tuple[int, ...], Callable[..., Any]] = {}

    def measure(hyper: Hyper, seeds: Array, carry: Carry, clock: Clock, which: tuple[int, ...]) -> Any:
        if which not in measures:
            inputs = (lanes, lanes, lanes, same)
            measures[which] = compiled(f"measure{which}", functools.partial(lane.measure, which=which), inputs)
        return measures[which](hyper, seeds, carry, clock)

    return Compiled(
        begin=compiled("begin", with_block(lane.begin), (lanes, lanes, lanes)),
        chunk=compiled("chunk", lane.chunk, (lanes, lanes, lanes, same), donate=(2,)),
        measure=measure,
        switch=compiled("switch", with_block(lane.switch), (lanes, lanes, lanes, same, same, lanes), donate=(2,)),
        stream=stream,
        sharding=NamedSharding(mesh, lanes),
        traces=traces,
    )


def chunk_steps(
    visits: Sequence[VisitPlan], periods: Mapping[str, Sequence[int]], record_every: int | None = None
) -> int:
    """Env steps of one chunk: ``record_every``, or the largest number that fits a tenth of every visit and ``periods``.

    ``periods``: key -> env steps. ``ValueError`` names what is no multiple of ``record_every``.
    """
    lengths = [("steps of a visit", visit.steps) for visit in visits]
    lengths += [(key, steps) for key, values in periods.items() for steps in values]
    if record_every is None:
        common = math.gcd(*(visit.steps for visit in visits))
        return math.gcd(common // 10 if common % 10 == 0 else common, *(steps for _, steps in lengths))
    for what, steps in lengths:
        if steps % record_every:
            raise ValueError(f"record_every: {record_every} is not allowed; it must divide the {steps} {what}")
    return record_every


class Run:
    """One program under way: its carries, its position, and the loop over them.

    ``compiled``: of another run of the program with as many devices and the same width (its lanes may be others).
    """

    def __init__(
        self, program: Program, placement: Placement, devices: Sequence[jax.Device], compiled: Compiled | None = None
    ) -> None:
        self.program, self.placement = program, placement
        self.compiled = compiled or compile_program(program, placement, devices)
        self.position = Position()
        self.carries: list[Carry] = []
        self.inputs = [self._group_inputs(group) for group in range(placement.groups)]

    def _group_inputs(self, group: int) -> tuple[Hyper, Array, Array]:
        lanes = self.placement.lanes_of(group, len(self.program.seeds))
        hyper = {path: np.asarray(values[lanes], np.float32) for path, values in self.program.hyper.items()}
        blocks = group * self.placement.devices + np.arange(self.placement.devices, dtype=np.int32)
        inputs = (hyper, np.asarray(self.program.seeds[lanes], np.int32), blocks)
        return jax.device_put(inputs, self.compiled.sharding)

    def begin(self) -> None:
        """Initial carries of all groups."""
        self.carries = [self.compiled.begin(hyper, seeds, block) for hyper, seeds, block in self.inputs]

    def restore(self, carries: Sequence[Any], position: Position, host: Mapping[str, np.ndarray]) -> None:
        """Takes up a run where it was left: NumPy carries of all groups and the stream's host side."""
        self.carries = [jax.device_put(carry, self.compiled.sharding) for carry in carries]
        self.position = position
        self.compiled.stream.load(host)

    def carry_shape(self) -> Carry:
        """Shapes and dtypes of one group's carry, without computing it."""
        shape: Carry = jax.eval_shape(self.compiled.begin, *self.inputs[0])
        return shape

    def activation_shape(self) -> Any:
        """Shapes of all hidden activations of one lane on the probe batch."""

        def activations(hyper: Hyper, carry: Carry) -> Any:
            agent = self.program.build({path: values[0] for path, values in hyper.items()})
            lane = jax.tree.map(lambda x: x[0], (carry.agent, carry.recent))
            recent = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), lane[1])
            return agent.probe(lane[0], recent, self.clock()).activations

        return jax.eval_shape(activations, self.inputs[0][0], self.carry_shape())

    def clock(self) -> Clock:
        """NumPy scalars: they go to all devices with the call that takes them, and cost no transfer of their own."""
        numbers: Any = (np.int32(x) for x in self.position)
        visit, step_in_visit, step = numbers
        return Clock(step, step, visit, step_in_visit)

    def _measure(self) -> list[Packed]:
        """The monitors that are due, one record for each group; nothing where none is."""
        due = tuple(i for i, each in enumerate(self.program.monitors) if self.position.step % each.every == 0)
        records = []
        for group, (hyper, seeds, _) in enumerate(self.inputs if due else []):
            carry = self.carries[group]
            monitors, record = self.compiled.measure(hyper, seeds, carry, self.clock(), due)
            self.carries[group] = carry._replace(monitors=monitors)
            records.append(record)
        return records

    def _switch(self) -> None:
        task = np.int32(self.program.spec.visits[self.position.visit].task)
        for group, (hyper, seeds, block) in enumerate(self.inputs):
            self.carries[group] = self.compiled.switch(hyper, seeds, self.carries[group], self.clock(), task, block)

    def _advance(self) -> Chunk:
        """One chunk of every group, then the monitors that are due."""
        clock, steps = self.clock(), self.program.chunk
        records = []
        for group, (hyper, seeds, _) in enumerate(self.inputs):
            self.carries[group], record = self.compiled.chunk(hyper, seeds, self.carries[group], clock)
            records.append(record)
        here = self.position
        self.position = Position(here.visit, here.step_in_visit + steps, here.step + steps)
        made, measured = jax.device_get((records, self._measure()))
        metrics = self._metrics(made)
        diverged = metrics.pop(DIVERGED)
        spec = self.program.spec
        task = spec.tasks[spec.visits[here.visit].task]
        return Chunk(self.position, task, metrics | self._metrics(measured), diverged)

    def _metrics(self, groups: Sequence[Packed]) -> dict[str, np.ndarray]:
        """The metrics of all lanes from those of the groups."""
        if not groups:
            return {}
        bits = join([each.bits for each in groups], len(self.program.seeds))
        return dict(unpack(replace(groups[0], bits=bits)))

    def chunks(self) -> Iterator[Chunk]:
        """The rest of the stream, chunk by chunk; between two chunks the run may be saved or left."""
        visits = self.program.spec.visits
        if not self.carries:
            self.begin()
        while True:
            if self.position.step_in_visit == visits[self.position.visit].steps:
                if self.position.visit + 1 == len(visits):
                    return
                self.position = Position(self.position.visit + 1, 0, self.position.step)
                self._switch()
            yield self._advance()

    def close(self) -> None:
        self.compiled.stream.close()
