"""A run's program with parts left out, to see what each part costs."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plasticity.bench.overhead.plain import Plain, Record
from plasticity.bench.timing import Work
from plasticity.core.types import AgentState, Array, Clock, Key, TimeStep, Transition, Visit
from plasticity.engine.lanes import LaneKeys
from plasticity.engine.program import ACT, INIT, LEARN, Hyper, Program
from plasticity.engine.runner import Run
from plasticity.runs import launch
from plasticity.runs.parquet import ParquetRecorder
from plasticity.runs.session import Job, Status


class State(NamedTuple):
    hyper: Hyper
    keys: LaneKeys
    step: Array
    agent: AgentState
    stream: Any
    timestep: TimeStep


def agent_alone(program: Program, metrics: bool) -> Plain:
    """One lane of a program in a plain scan: no returns of episodes, no ring, no check for finite numbers.

    Without ``metrics``, nothing that is only recorded is computed.
    """
    stream = program.make_stream(1)
    zero = jnp.int32(0)

    def init(key: Key) -> State:
        hyper = {path: jnp.float32(values[0]) for path, values in program.hyper.items()}
        keys = LaneKeys(*jax.random.split(key))
        world, timestep = stream.reset(keys.data[None], Visit(zero, zero), zero)
        timestep = jax.tree.map(lambda x: x[0], timestep)
        agent = program.build(hyper).init(jax.random.fold_in(keys.learner, INIT), timestep)
        return State(hyper, keys, zero, agent, world, timestep)

    def step(state: State, _: None) -> tuple[State, Record]:
        clock, agent = Clock(state.step, state.step, zero, state.step), program.build(state.hyper)
        acting, learning = (
            jax.random.fold_in(jax.random.fold_in(state.keys.learner, tag), state.step) for tag in (ACT, LEARN)
        )
        action = agent.act(acting, state.agent, state.timestep.observation, clock)
        world, timestep = stream.step(state.keys.data[None], state.stream, action[None], clock)
        timestep = jax.tree.map(lambda x: x[0], timestep)
        learned, made = agent.learn(learning, state.agent, Transition(state.timestep, action, timestep), clock)
        kept = {**made, "reward": jnp.mean(timestep.reward)} if metrics else {"updates": made["updates"]}
        return State(state.hyper, state.keys, state.step + 1, learned, world, timestep), kept

    def chunk(state: State) -> tuple[State, Record]:
        state, made = jax.lax.scan(step, state, None, program.chunk)
        return state, jax.tree.map(jnp.sum, made)

    return Plain(init, chunk)


def by_itself(plain: Plain, lanes: int, devices: int) -> Work:
    """A chunk of every lane of a learner, ``devices`` lanes at a time, with its metrics on the host."""
    mesh = Mesh(np.asarray(launch.devices()[:devices]), ("lanes",))
    spec = PartitionSpec("lanes")

    def block(state: Any) -> Any:
        return jax.tree.map(lambda x: x[None], plain.chunk(jax.tree.map(lambda x: x[0], state)))

    step = jax.jit(jax.shard_map(block, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False), donate_argnums=0)
    groups = jax.random.split(jax.random.key(0), lanes).reshape(-1, devices)
    begin = jax.jit(jax.vmap(plain.init))
    states = [jax.device_put(begin(keys), NamedSharding(mesh, spec)) for keys in groups]

    def work() -> None:
        made = []
        for group, state in enumerate(states):
            states[group], record = step(state)
            made.append(record)
        jax.device_get(made)

    return work


def running(job: Job, **changes: Any) -> Run:
    return Run(job.program._replace(**changes), job.placement, launch.devices())


def chunk_alone(run: Run) -> Work:
    """A compiled chunk of every group without the runner's loop: nothing is fetched or recorded."""
    run.begin()

    def work() -> None:
        clock, here = run.clock(), run.position
        for group, (hyper, seeds, _) in enumerate(run.inputs):
            run.carries[group], _ = run.compiled.chunk(hyper, seeds, run.carries[group], clock)
        steps = run.program.chunk
        run.position = here._replace(step=here.step + steps, step_in_visit=here.step_in_visit + steps)
        jax.block_until_ready(run.carries)

    return work


def recorded(run: Run, job: Job, folder: Path) -> Work:
    """A chunk as ``plasticity run`` makes it, with rows for the tables and ``status.json``, but no checkpoint."""
    spec = job.program.spec
    tables = ParquetRecorder(folder, job.arm, job.number, job.lanes, spec.frames_per_step * spec.envs, None, 0)
    status, chunks = Status(folder / "status.json"), run.chunks()
    status.begin(job, run.position)

    def work() -> None:
        chunk = next(chunks)
        tables.add(chunk)
        status.tick(chunk.position)

    return work
