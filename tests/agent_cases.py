"""Every agent with settings and a stream that are small enough for tests."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chain import chain

from plasticity.agents import AGENTS
from plasticity.agents.replay_source import Memory
from plasticity.agents.replays import prioritised, uniform
from plasticity.core.types import Agent, Clock, StreamSpec, TimeStep, Transition, Visit
from plasticity.engine.lanes import Placement
from plasticity.engine.program import Program
from plasticity.engine.runner import Run
from plasticity.envs.base import StreamFactory
from plasticity.envs.dataset import of_datasets
from plasticity.envs.prediction import value_prediction
from plasticity.envs.recorded import Recorded
from plasticity.envs.targets import regression, relabelled
from plasticity.envs.transforms.tasks import with_task
from plasticity.interventions.base import Intervention, compose
from plasticity.networks import task
from plasticity.networks.presets import mlp
from plasticity.optim.eligibility import adaptive_q, obgd
from plasticity.optim.optimizers import adam
from plasticity.optim.schedules import linear
from plasticity.runs import launch

EPSILON = functools.partial(linear, end=0.01, duration=250_000)
IMPORTANCE = functools.partial(linear, start=0.4, end=1.0, duration=1_000_000)


def uniform_replay(capacity: int = 100, minimum: int = 8) -> Callable[..., Memory]:
    return functools.partial(uniform, capacity=capacity, minimum=minimum)


def prioritised_replay(capacity: int = 100, minimum: int = 8, **settings: Any) -> Callable[..., Memory]:
    sizes = {"capacity": capacity, "minimum": minimum}
    return functools.partial(prioritised, **sizes, **({"importance": IMPORTANCE} | settings))


SMALL = {
    "network": functools.partial(mlp, widths=(6,)),
    "optimizer": functools.partial(adam, learning_rate=0.01),
    "replay": uniform_replay(60),
    "epsilon": EPSILON,
    "batch_size": 4,
    "update_period": 2,
    "target_period": 3,
    "policy_optimizer": functools.partial(obgd, kappa=3.0),
    "value_optimizer": obgd,
    "correction_optimizer": functools.partial(adam, learning_rate=0.01),
}
SOON = ("dqn", "ppo", "stream_q")  # one agent of each RL regime; the others are slow tests
# All agents, for tests that compile a lot: a supervised agent and one of each regime now, the others as slow tests.
SOME_SOON = [
    pytest.param(name, marks=[] if name in (*SOON, "classifier") else pytest.mark.slow) for name in sorted(AGENTS)
]
GRAPHS_ALONE = ("kalman_classifier",)  # refuse a network given as functions
# one env, step by step
STREAMING = (
    *("stream_q", "adaptive_q", "stream_sarsa", "qrc", "stream_ac", "stream_td"),
    *("stream_dqn", "stream_c51", "avg"),
)
OFFLINE = ("offline_dqn", "offline_c51", "cql", "bc")  # from recorded transitions
REAL = ("sac", "td3", "avg")  # with real-valued actions in these tests
ACTORS: dict[str, Any] = {
    "critic_network": functools.partial(mlp, widths=(6,)),
    "random_steps": 2,
    **dict.fromkeys(
        ("policy_optimizer", "value_optimizer", "temperature_optimizer"), functools.partial(adam, learning_rate=0.01)
    ),
}
OWN = {
    "sac": ACTORS,
    "td3": ACTORS,
    "avg": {**ACTORS, "policy_gain": None, "value_gain": None},
    "ppo": {"rollout_length": 2, "epochs": 2, "minibatches": 2},
    "pqn": {"rollout_length": 2, "epochs": 2, "minibatches": 2},
    "reinforce": {"rollout_length": 2, "unfinished": "cut"},  # an episode may be longer than a rollout
    "kalman_classifier": {"samples": 4},
    "stream_q": {"optimizer": obgd},
    "stream_sarsa": {"optimizer": obgd},
    "stream_td": {"optimizer": obgd},
    "adaptive_q": {"optimizer": functools.partial(adaptive_q, learning_rate=0.01)},
    "stream_c51": {"atoms": 5},
    "c51": {"atoms": 5, "v_min": -1.0, "v_max": 2.0},
    "offline_c51": {"atoms": 5, "v_min": -1.0, "v_max": 2.0},
    "rainbow": {"replay": prioritised_replay(60), "atoms": 5, "v_min": -1.0, "v_max": 2.0, "n_step": 2},
}


def source(name: str, real: bool | None = None, **sizes: int) -> StreamFactory:
    """The stream for an agent: a chain of states, unless the agent is supervised. ``sizes``: visits, steps, envs.

    ``real``: whether actions are real-valued; None: as the agent's name says.
    """
    visits, steps, envs = ({"visits": 2, "steps": 10, "envs": 1 if name in STREAMING else 2} | sizes).values()
    if name in ("classifier", "kalman_classifier"):
        shape = {"inputs": "gaussian", "samples": 8, "dimensions": 3, "classes": 4}
        return relabelled(tasks=visits, steps_per_task=steps, envs=envs, **shape)
    if name == "stream_td":
        return value_prediction(states=5, dimensions=4, tasks=visits, steps_per_task=steps, envs=envs)
    if name in OFFLINE:
        return recordings(visits, steps, envs, real=bool(real))
    if name == "regressor":
        return regression(tasks=visits, steps_per_task=steps, envs=envs, dimensions=3, outputs=2, hidden=4)
    return chain(visits, steps, envs, real=name in REAL if real is None else real)


def recordings(visits: int = 2, steps: int = 10, envs: int = 2, *, real: bool = False) -> StreamFactory:
    """A stream of datasets of 12 random rows with five entries and two actions (``real``: an action is one number)."""

    def dataset(seed: int) -> Recorded:
        random = np.random.default_rng(seed)
        seen, following = (random.normal(size=(12, 5)).astype(np.float32) for _ in range(2))
        action = random.normal(size=(12, 1)) if real else random.integers(0, 2, 12)
        reward, ended = random.normal(size=12).astype(np.float32), np.arange(12) % 4 == 3
        kept = action.astype(np.float32 if real else np.int32)
        return Recorded(seen, kept, reward, following, ended, np.zeros(12, bool), {} if real else {"actions": 2})

    names = tuple(f"data_{i}" for i in range(visits))
    return of_datasets(names, [dataset(i) for i in range(visits)], (), steps, 1, envs, 2)


def settings(name: str, **changes: Any) -> dict[str, Any]:
    known = inspect.signature(AGENTS[name]).parameters
    return {key: value for key, value in (SMALL | OWN.get(name, {}) | changes).items() if key in known}


def told(stream: StreamFactory, *interventions: Intervention) -> StreamFactory:
    """The stream; with the task if a method reads it."""
    return with_task(stream) if any(each.reads_task for each in interventions) else stream


def agent(name: str, spec: StreamSpec, *interventions: Intervention, **changes: Any) -> Agent:
    chosen = settings(name, **changes)
    if spec.task_entries:
        for key in chosen.keys() & {"network", "critic_network"}:
            chosen[key] = task.with_task(chosen[key], spec.task_entries)
    built: Agent = AGENTS[name](spec, compose(*interventions), **chosen)
    return built


def clock_at(step: Any, visit: int = 0) -> Clock:
    step = jnp.asarray(step, jnp.int32)
    return Clock(step, step, jnp.int32(visit), step)


def program(
    name: str,
    *interventions: Callable[[], Intervention],
    stream: StreamFactory | None = None,
    seeds: tuple[int, ...] = (0,),
    chunk: int = 10,
    hyper: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Program:
    """A program built by hand; ``hyper``: traced settings of the agent, one number for each seed."""
    stream = told(stream or source(name), *(make() for make in interventions))
    hyper = {key: np.asarray(values, np.float32) for key, values in (hyper or {}).items()}

    def build(numbers: Mapping[str, Any]) -> Agent:
        return agent(name, stream.spec, *(make() for make in interventions), **(changes | dict(numbers)))

    return Program(stream.spec, build, stream.make, (), hyper, np.asarray(seeds, np.int32), chunk, probe_size=8)


def run(planned: Program, width: int = 1) -> Run:
    groups = -(-len(planned.seeds) // width)
    return Run(planned, Placement(1, groups, width), launch.devices())


def lived(name: str, agent: Agent, steps: int, seed: int = 0) -> tuple[Any, Transition]:
    """The agent's state after ``steps`` steps of its stream, and all its transitions, ``[steps, E, ...]``."""
    stream = source(name).make(1)
    data, key = jax.random.key(seed + 100)[None], jax.random.key(seed)
    state, timestep = stream.reset(data, Visit(jnp.int32(0), jnp.int32(0)), jnp.int32(0))
    mind = agent.init(key, one_lane(timestep))

    def step(carry: Any, i: Any) -> Any:
        mind, state, timestep = carry
        fold = functools.partial(jax.random.fold_in, jax.random.fold_in(key, i))
        action = agent.act(fold(0), mind, timestep.observation, clock_at(i))
        state, following = stream.step(data, state, action[None], clock_at(i))
        pair = Transition(timestep, action, one_lane(following))
        mind, metrics = agent.learn(fold(1), mind, pair, clock_at(i))
        return (mind, state, pair.current), (pair, metrics)

    (mind, _, _), (pairs, _) = jax.lax.scan(step, (mind, state, one_lane(timestep)), jnp.arange(steps))
    return mind, pairs


def one_lane(timestep: TimeStep) -> TimeStep:
    return jax.tree.map(lambda x: x[0], timestep)
