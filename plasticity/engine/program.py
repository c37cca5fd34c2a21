"""A program: all lanes of one arm with the same static structure, as compiled functions.

The functions ``begin``, ``chunk``, ``measure``, ``evaluate`` and ``switch`` act on one *group* of lanes (``devices x
width``, see ``plasticity.engine.lanes``). The training step is traced and compiled once for the whole stream: a task
switch only changes arrays.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Wrapped

from plasticity.core import counting
from plasticity.core.counting import Precise
from plasticity.core.lane_axis import across, enter, leave, over
from plasticity.core.trees import is_finite, select
from plasticity.core.types import (
    LAST,
    Agent,
    AgentState,
    Array,
    Clock,
    Done,
    Metrics,
    State,
    Stream,
    StreamSpec,
    TimeStep,
    Transition,
    Visit,
)
from plasticity.engine import evaluation, measures, options
from plasticity.engine.evaluation import Evaluation
from plasticity.engine.lanes import LaneKeys, Placement, lane_keys
from plasticity.engine.packing import Packed, by_name, pack
from plasticity.engine.visits import own_task
from plasticity.monitors.base import Monitor, merged_metrics

Hyper = Mapping[str, Any]
NEVER = -1
FINISHED = 2**31 - 1  # env steps after which any gradual change of a visit is complete
DIVERGED = "diverged_at"  # among the metrics that a chunk sends to the host
INIT, ACT, LEARN, SWITCH, MEASURE, PLAY = range(6)  # one tag for each use of a lane's learner key


class Monitoring(NamedTuple):
    """A monitor and its period in env steps (a multiple of the chunk)."""

    monitor: Monitor
    every: int
    path: str = "monitors"  # in a config


class Program(NamedTuple):
    """All lanes that share one static structure."""

    spec: StreamSpec
    build: Callable[[Hyper], Agent]  # called inside the trace with one lane's hyper-parameters
    make_stream: Callable[[int], Stream]  # lanes of a block -> the stream
    monitors: tuple[Monitoring, ...]
    hyper: Mapping[str, np.ndarray]  # float32[lanes] each
    seeds: np.ndarray  # int32[lanes]
    chunk: int  # env steps of one compiled scan
    probe_size: int = 512  # number of transitions passed to monitors
    evaluation: Evaluation | None = None
    make_eval_stream: Callable[[int], Stream] | None = None  # None: evaluations take place in the stream itself
    origin: Done = Done()  # what the learners have done before


class Carry(NamedTuple):
    """The state of a group of lanes between chunks; leading axis ``devices x width``."""

    agent: AgentState
    stream: State
    timestep: TimeStep
    recent: Transition  # ring buffer [slots, E, ...] of the newest transitions, for the monitors
    episode_return: Precise  # [E], of the current episodes
    monitors: tuple[State, ...]
    updates: Array  # int32: updates made so far
    diverged_at: Array  # int32: the env step of the run at which the lane's numbers stopped being finite, or NEVER
    measures: Any = ()  # float32[E, measures], the largest so far in the current episodes; () if there are none


class Compiled(NamedTuple):
    """The functions of one group; all take and return arrays with a leading axis ``devices x width``."""

    begin: Wrapped
    chunk: Wrapped
    measure: Wrapped
    evaluate: Wrapped
    switch: Wrapped
    initial: Callable[..., Carry]  # `begin`, to be compiled as part of another function
    stream: Stream
    eval_stream: Stream  # the environments of evaluation
    sharding: NamedSharding  # of every array with a lane axis
    traces: dict[str, int]  # how often each function was traced


def slots(program: Program) -> int:
    """Number of env steps in the monitors' ring buffer."""
    return max(1, program.probe_size // program.spec.envs)


def _fold(keys: Any, *tags: Any) -> Any:
    for tag in tags:
        keys = jax.random.fold_in(keys, tag)
    return keys


def _finite_record(made: Metrics, steps: int, measured: Collection[str]) -> Metrics:
    """Per-step sums of one lane over a chunk -> recorded metrics; NaN if nothing was counted.

    ``measured``: means over episodes; all others are means over updates. Summed block by block, so that a long chunk
    loses no small numbers.
    """

    def ratio(total: Array, count: Array) -> Array:
        return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)

    total = {name: counting.total(value) for name, value in made.items()}
    updates, episodes = total.pop("updates"), total.pop("episodes")
    record = {
        "reward": total.pop("reward") / steps,
        "episodes": episodes,
        "episodic_return": ratio(total.pop("episodic_return"), episodes),
    }
    record |= {name: ratio(total.pop(name), episodes) for name in measured}
    return record | {name: ratio(value, updates) for name, value in total.items()}


def combined(metrics: Metrics, recorded: Metrics, measured: Metrics) -> Metrics:
    """Combine the metrics of the agent, the runner and the stream; ``ValueError`` if two of them use one name."""
    shared = sorted(set(measured) & set(metrics))
    if shared:
        raise ValueError(f"stream: the measure `{shared[0]}` has the name of a metric of the agent; leave it out")
    doubled = sorted(set(metrics) & {*recorded, "update", DIVERGED})
    if doubled:
        raise ValueError(f"agent.kind: its metric `{doubled[0]}` has the name of a column of every run; rename it")
    return {**metrics, **recorded, **measured}


class Block(NamedTuple):
    """The functions of a block of ``width`` lanes on one device."""

    program: Program
    stream: Stream
    width: int
    eval_stream: Stream

    def begin(self, hyper: Hyper, seeds: Array, block: Array) -> Carry:
        """Freshly initialised agents, the stream's first time step, and a ring buffer filled with it."""
        program, spec = self.program, self.program.spec
        keys = over(lane_keys, self.width)(seeds)
        zero = jnp.zeros((), jnp.int32)
        task = own_task(spec, keys.data, zero + spec.visits[0].task)
        number = jnp.full((), spec.skipped.visits, jnp.int32)
        stream, timestep = self.stream.reset(keys.data, Visit(number, task), block)

        def one(hyper: Hyper, keys: LaneKeys, timestep: TimeStep) -> Any:
            agent = program.build(hyper)
            clock = Clock(zero, zero, zero, zero)
            state = agent.init(_fold(keys.learner, INIT), timestep)
            action = agent.act(_fold(keys.learner, ACT), state, timestep.observation, clock)
            pair = Transition(timestep, jnp.zeros_like(action), timestep)
            recent = jax.tree.map(lambda x: jnp.broadcast_to(x, (slots(program), *x.shape)), pair)
            monitors = tuple(each.monitor.init(state.learner.params) for each in program.monitors)
            largest = measures.blank(spec.envs, len(spec.measures))
            return state, recent, counting.zeros((spec.envs,)), monitors, zero, zero + NEVER, largest

        agent, *rest = over(one, self.width)(hyper, keys, timestep)
        return Carry(agent, stream, timestep, *rest)

    def step(self, hyper: Hyper, keys: LaneKeys, carry: Carry, clock: Clock) -> tuple[Carry, Metrics]:
        """One env step of every lane: act, step the stream, learn, record.

        Everything except the stream's state has the form returned by ``enter``: with one lane, arrays have no lane
        axis. (Removing and restoring the axis at every step would make XLA copy the replay buffer.)
        """
        build, names = self.program.build, self.program.spec.measures

        def act(hyper: Hyper, keys: LaneKeys, state: AgentState, observation: Any) -> Array:
            return build(hyper).act(_fold(keys.learner, ACT, clock.step), state, observation, clock)

        def learn(
            hyper: Hyper, keys: LaneKeys, state: AgentState, pair: Transition, score: Array, returns: Precise,
            recent: Transition, values: Any, largest: Any,
        ) -> Any:  # fmt: skip
            state, metrics = build(hyper).learn(_fold(keys.learner, LEARN, clock.step), state, pair, clock)
            slot = clock.step % slots(self.program)
            recent = jax.tree.map(
                lambda ring, new: jax.lax.dynamic_update_index_in_dim(ring, new, slot, 0), recent, pair
            )
            returns = counting.plus(returns, score)
            last = pair.current.step_type == LAST
            recorded = {
                "reward": jnp.mean(score),
                "episodes": jnp.sum(last, dtype=jnp.float32),
                "episodic_return": jnp.sum(jnp.where(last, returns.value, 0.0)),
            }
            returns = jax.tree.map(lambda x: jnp.where(last, 0.0, x), returns)
            measured: Metrics = {}
            if names:
                largest = measures.largest(largest, values, pair.current.step_type)
                measured = measures.named(names, jnp.sum(measures.ended(largest, values, last), 0))
            return state, recent, returns, largest, combined(metrics, recorded, measured)

        width = self.width
        action = across(act, width)(hyper, keys, carry.agent, carry.timestep.observation)
        data = leave(keys.data, width)
        stream, timestep = self.stream.step(data, carry.stream, leave(action, width), clock.of_stream)
        pair = Transition(carry.timestep, action, enter(timestep, width))
        score = enter(self.stream.score(stream, timestep), width)
        values = enter(self.stream.measures(stream, timestep), width) if names else ()
        agent, recent, returns, largest, metrics = across(learn, width)(
            hyper, keys, carry.agent, pair, score, carry.episode_return, carry.recent, values, carry.measures
        )
        carry = carry._replace(
            agent=agent, stream=stream, timestep=pair.current, recent=recent, episode_return=returns, measures=largest
        )
        return carry, metrics

    def chunk(self, hyper: Hyper, seeds: Array, carry: Carry, clock: Clock) -> tuple[Carry, Packed]:
        """``program.chunk`` env steps of every lane.

        A lane whose loss or parameters become non-finite is restored to its state at the chunk's start and frozen.
        The stream's measures are not the lane's own numbers and may be non-finite.
        """
        steps, width = self.program.chunk, self.width
        hyper, seeds = enter((hyper, seeds), width)
        keys = across(lane_keys, width)(seeds)
        carry = enter(carry._replace(stream=()), width)._replace(stream=carry.stream)
        before, measured = carry.agent, measures.columns(self.program.spec.measures)

        def body(carry: Carry, i: Array) -> tuple[Carry, Packed]:
            now = clock._replace(step=clock.step + i, update=clock.update + i, step_in_visit=clock.step_in_visit + i)
            carry, metrics = self.step(hyper, keys, carry, now)
            return carry, across(pack, width)(metrics)  # one array, since every write costs time

        carry, packed = jax.lax.scan(body, carry, jnp.arange(steps))

        def close(before: AgentState, after: AgentState, packed: Packed, updates: Array, diverged_at: Array) -> Any:
            made = by_name(packed)
            bad = ~jnp.isfinite(sum(value for name, value in made.items() if name not in measured))
            finite = ~jnp.any(bad) & is_finite(after.learner.params)
            when = clock.step_of_run + jnp.where(jnp.any(bad), jnp.argmax(bad), steps - 1) + 1
            diverged_at = jnp.where((diverged_at == NEVER) & ~finite, when, diverged_at)
            alive = diverged_at == NEVER
            learner, plugins = select(alive, (after.learner, after.plugins), (before.learner, before.plugins))
            record = _finite_record(made, steps, measured)
            record = {name: jnp.where(alive, value, jnp.nan) for name, value in record.items()}
            updates += jnp.where(alive, jnp.sum(made["updates"].astype(jnp.int32)), 0)
            agent = after._replace(learner=learner, plugins=plugins)
            return agent, updates, diverged_at, pack({**record, "update": updates, DIVERGED: diverged_at})

        if width != 1:
            packed = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), packed)  # [steps, W] -> [W, steps]
        agent, updates, diverged_at, record = across(close, width)(
            before, carry.agent, packed, carry.updates, carry.diverged_at
        )
        carry = carry._replace(agent=agent, updates=updates, diverged_at=diverged_at)
        return leave(carry._replace(stream=()), width)._replace(stream=carry.stream), leave(record, width)

    def measure(self, hyper: Hyper, seeds: Array, carry: Carry, clock: Clock, which: tuple[int, ...]) -> Any:
        """Apply the monitors that are due to the recent transitions of each lane."""

        def one(hyper: Hyper, seed: Array, carry: Carry) -> Any:
            agent, key = self.program.build(hyper), _fold(lane_keys(seed).learner, MEASURE, clock.step)
            recent = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), carry.recent)
            probe = agent.probe(carry.agent, recent, clock)
            states = list(carry.monitors)
            written: list[tuple[str, Metrics]] = []
            for i in which:
                each = self.program.monitors[i]
                states[i], found = each.monitor.measure(_fold(key, i), states[i], probe)
                written.append((each.path, found))
            metrics = merged_metrics(written)
            alive = carry.diverged_at == NEVER
            return tuple(states), pack({name: jnp.where(alive, value, jnp.nan) for name, value in metrics.items()})

        return over(one, self.width)(hyper, seeds, carry)

    def evaluate(
        self, hyper: Hyper, seeds: Array, carry: Carry, clock: Clock, number: Array, task: Array, block: Array
    ) -> Packed:
        """Evaluate each lane in its current state on a replica of visit ``number``; the carry is only read.

        ``number`` is the learners'; the stream may count visits otherwise.
        """
        width, settings = self.width, self.program.evaluation
        assert settings is not None
        hyper, seeds, agent, diverged_at = enter((hyper, seeds, carry.agent, carry.diverged_at), width)
        keys = across(lane_keys, width)(seeds)

        def viewed(hyper: Hyper, state: AgentState) -> AgentState:
            return self.program.build(hyper).view(state, number, clock)

        agent = across(viewed, width)(hyper, agent)

        def with_carry(state: AgentState, carry: Any) -> AgentState:
            return state._replace(learner=state.learner._replace(carry=carry))

        def play(i: Array, carry: Any, observation: Any) -> Array:
            def one(hyper: Hyper, keys: LaneKeys, state: AgentState, carry: Any, observation: Any) -> Array:
                key, state = _fold(keys.learner, PLAY, clock.step, number, i), with_carry(state, carry)
                return self.program.build(hyper).play(key, state, observation, jnp.float32(settings.epsilon))

            return across(one, width)(hyper, keys, agent, carry, observation)

        def advance(carry: Any, observation: Any, first: Array) -> Any:
            def one(hyper: Hyper, state: AgentState, carry: Any, observation: Any, first: Array) -> Any:
                return self.program.build(hyper).advance(with_carry(state, carry), observation, first)

            return across(one, width)(hyper, agent, carry, observation, first)

        def initial() -> Any:
            return across(lambda hyper, _: self.program.build(hyper).initial(), width)(hyper, seeds)

        data = leave(keys.data, width)
        moment = jnp.where(number == clock.visit, clock.step_in_visit, FINISHED)
        theirs = clock._replace(visit=number).of_stream.visit
        visit = Visit(theirs, own_task(self.program.spec, data, task), clock.of_stream.step + 1, moment)
        player = evaluation.Player(play, initial, advance)
        found = evaluation.evaluate(self.eval_stream, width, settings, player, data, visit, block)

        def close(metrics: Metrics, diverged_at: Array) -> Packed:
            return pack({name: jnp.where(diverged_at == NEVER, value, jnp.nan) for name, value in metrics.items()})

        return leave(across(close, width)(enter(found, width), diverged_at), width)

    def switch(self, hyper: Hyper, seeds: Array, carry: Carry, clock: Clock, task: Array, block: Array) -> Carry:
        """Start the next task: change the stream's parameters and call the agent's ``switch`` (usually a no-op)."""
        keys = over(lane_keys, self.width)(seeds)
        task = own_task(self.program.spec, keys.data, task)
        stream, timestep = self.stream.reset(keys.data, Visit(clock.of_stream.visit, task), block)

        def one(hyper: Hyper, keys: LaneKeys, state: AgentState, diverged_at: Array) -> AgentState:
            changed = self.program.build(hyper).switch(_fold(keys.learner, SWITCH, clock.step), state, clock)
            return select(diverged_at == NEVER, changed, state)

        agent = over(one, self.width)(hyper, keys, carry.agent, carry.diverged_at)
        return carry._replace(
            agent=agent,
            stream=stream,
            timestep=timestep,
            episode_return=jax.tree.map(jnp.zeros_like, carry.episode_return),
            measures=jax.tree.map(lambda x: jnp.full_like(x, -jnp.inf), carry.measures),
        )


def compile_program(program: Program, placement: Placement, devices: Sequence[jax.Device]) -> Compiled:
    """Jit the functions of one group; over several devices with ``shard_map``, donating the carry."""
    stream = program.make_stream(placement.width)
    eval_stream = (program.make_eval_stream or program.make_stream)(placement.width)
    lane = Block(program, stream, placement.width, eval_stream)
    traces: dict[str, int] = {}
    mesh = Mesh(np.asarray(devices[: placement.devices]), ("lanes",))
    lanes, same = PartitionSpec("lanes"), PartitionSpec()

    def mapped(name: str, function: Callable[..., Any], inputs: Any) -> Any:
        def counted(*args: Any) -> Any:
            traces[name] = traces.get(name, 0) + 1
            return function(*args)

        if placement.devices > 1:
            return jax.shard_map(counted, mesh=mesh, in_specs=inputs, out_specs=lanes, check_vma=False)
        return counted

    def with_block(function: Callable[..., Any]) -> Callable[..., Any]:
        """The block number arrives as this device's slice of an array [devices]."""
        return lambda *args: function(*args[:-1], args[-1][0])

    def measure(hyper: Hyper, seeds: Array, carry: Carry, clock: Clock, which: tuple[int, ...]) -> Any:
        function = functools.partial(lane.measure, which=which)
        return mapped(f"measure{which}", function, (lanes, lanes, lanes, same))(hyper, seeds, carry, clock)

    quick = options.quick(mesh.devices.flat[0].platform)
    rarely: Any = {"compiler_options": quick} if quick else {}
    begin = mapped("begin", with_block(lane.begin), (lanes, lanes, lanes))
    chunk = mapped("chunk", lane.chunk, (lanes, lanes, lanes, same))
    evaluate = mapped("evaluate", with_block(lane.evaluate), (lanes, lanes, lanes, same, same, same, lanes))
    switch = mapped("switch", with_block(lane.switch), (lanes, lanes, lanes, same, same, lanes))
    return Compiled(
        begin=jax.jit(begin, **rarely),
        chunk=jax.jit(chunk, donate_argnums=2),
        measure=jax.jit(measure, static_argnums=4),
        evaluate=jax.jit(evaluate),
        switch=jax.jit(switch, donate_argnums=2, **rarely),
        initial=begin,
        stream=stream,
        eval_stream=eval_stream,
        sharding=NamedSharding(mesh, lanes),
        traces=traces,
    )
