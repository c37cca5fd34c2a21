"""Every intervention with every built-in network: an agent that learns for a while from made-up observations."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from network_cases import REMEMBERING, SMALL

from plasticity.agents import AGENTS
from plasticity.core.task_entries import appended
from plasticity.core.types import (
    FIRST,
    LAST,
    MID,
    Agent,
    Array,
    Clock,
    Key,
    StreamSpec,
    Supervised,
    TimeStep,
    Transition,
    VisitPlan,
)
from plasticity.interventions import INTERVENTIONS, hooks
from plasticity.interventions.base import Intervention, compose
from plasticity.networks.catalogue import NETWORKS
from plasticity.networks.task import with_task
from plasticity.optim.optimizers import adam
from plasticity.optim.schedules import linear

TASKS = 2
UPDATES, SWITCH = 20, 10  # the task switches before the eleventh update
EPISODE = 7  # steps
WORKS = "works"
CHANGES: dict[str, dict[str, Any]] = {  # few blocks, to compile quickly; without the normalisation of the defaults
    "resnet18": {"normalisation": "none"},
    "residual_mlp": {"normalisation": "none", "blocks": 1},
    "multi_skip": {"normalisation": "none", "blocks": 1},
    "impala": {"filters": (2,), "blocks": 1},
    "simba": {"blocks": 1},
    "simba_v2": {"blocks": 1},
    "vit": {"depth": 1},
}


class Life(NamedTuple):
    params: Any
    losses: Array  # [UPDATES]
    finite: Array  # whether everything learned is


def agent_name(network: str) -> str:
    """A classifier; with memory an agent that learns step by step."""
    return "stream_dqn" if network in REMEMBERING else "classifier"


def spec_of(network: str, entries: int = 0) -> StreamSpec:
    *axes, features = SMALL[network][0]
    observation: Any = jax.ShapeDtypeStruct((*axes, features + entries), jnp.float32)
    remembers = network in REMEMBERING
    if not remembers:
        observation = Supervised(observation, jax.ShapeDtypeStruct((), jnp.int32))
    visits = (VisitPlan(0, SWITCH), VisitPlan(1, UPDATES - SWITCH))
    return StreamSpec(observation, 2, ("a", "b"), visits, 1 if remembers else 4, remembers, task_entries=entries)


def timestep(network: str, spec: StreamSpec, i: Array) -> TimeStep:
    """Four labelled inputs, redrawn at every step; or a step of an episode."""
    key, shape = jax.random.fold_in(jax.random.key(3), i), (spec.envs, *SMALL[network][0])
    x, ones = jax.random.normal(key, shape), jnp.ones(spec.envs)
    x = appended(x, jnp.int32(i >= SWITCH), spec.task_entries) if spec.task_entries else x
    if network not in REMEMBERING:
        return TimeStep(jnp.full(spec.envs, MID, jnp.int8), 0 * ones, ones, Supervised(x, jnp.arange(spec.envs) % 2))
    place = i % EPISODE
    kind = jnp.where(place == 0, FIRST, jnp.where(place == EPISODE - 1, LAST, MID))
    ends = (kind == LAST) * ones
    return TimeStep(jnp.full(spec.envs, kind, jnp.int8), jnp.sin(i * ones) * (place > 0), 1 - ends, x)


def clock_at(i: Array) -> Clock:
    after = i >= SWITCH
    return Clock(i, i, after.astype(jnp.int32), jnp.where(after, i - SWITCH, i))


def entries_of(methods: Sequence[Intervention]) -> int:
    """How many entries of the observations are the task."""
    return TASKS if any(method.reads_task for method in methods) else 0


def agent(network: str, *methods: Intervention, eps: float = 1e-8) -> Agent:
    entries = entries_of(methods)
    built: Any = functools.partial(NETWORKS[network], **(SMALL[network][1] | CHANGES.get(network, {})))
    built = with_task(built, entries) if entries else built
    settings: dict[str, Any] = {"network": built, "optimizer": functools.partial(adam, learning_rate=0.01, eps=eps)}
    if network in REMEMBERING:
        settings["epsilon"] = functools.partial(linear, end=0.01, duration=UPDATES)
    made: Agent = AGENTS[agent_name(network)](spec_of(network, entries), compose(*methods), **settings)
    return made


def life(network: str, *methods: Intervention, eps: float = 1e-8) -> Callable[[Key], Life]:
    """Key -> what the agent has learned after ``UPDATES`` updates with a task switch between them; ``eps`` of Adam."""
    made, spec = agent(network, *methods, eps=eps), spec_of(network, entries_of(methods))

    def live(key: Key) -> Life:
        def step(mind: Any, i: Array) -> tuple[Any, Array]:
            draw = jax.random.fold_in(key, i)
            mind = jax.lax.cond(
                i == SWITCH, lambda mind: made.switch(jax.random.fold_in(draw, 0), mind, clock_at(i)), lambda m: m, mind
            )
            actions = jnp.zeros(spec.envs, jnp.int32)
            pair = Transition(timestep(network, spec, i), actions, timestep(network, spec, i + 1))
            mind, metrics = made.learn(jax.random.fold_in(draw, 1), mind, pair, clock_at(i))
            return mind, metrics["loss"]

        mind, losses = jax.lax.scan(step, made.init(key, timestep(network, spec, jnp.int32(0))), jnp.arange(UPDATES))
        leaves = [leaf for leaf in jax.tree.leaves(mind.learner) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        finite = jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))
        return Life(mind.learner.params, losses, finite)

    return live


def verdict(network: str, method: str, **settings: Any) -> str:
    """ "works", or why the method refuses the network; found by building the agent and tracing its updates."""
    seen: hooks.Seen = set()
    bare = INTERVENTIONS[method](**settings)
    try:
        jax.eval_shape(life(network, hooks.labelled(method, bare, seen)), jax.random.key(0))
    except ValueError as error:
        return " ".join(str(error).split())
    return next((f"{label}: {why}" for label, why in hooks.unused({method: bare}, seen, ("explore",))), WORKS)


# The defaults, except where one does nothing within a few updates, or is too large for these networks.
NEEDED: dict[str, dict[str, Any]] = {
    "at_switch": {"optimizer": "reset"},
    "packnet": {"tasks": TASKS, "retrain": 0},  # retraining needs a memory of past tasks
    "neuroplastic_expansion": {"review": False},
}
ALTERNATIVES: dict[str, dict[str, Any]] = {  # for networks that refuse the defaults
    "deep_fourier": {"keep_size": False},
    "plasticity_injection": {"layers": 0},
    "modulation": {"choose": "task"},
    "spectral_norm": {"layers": "all"},
}


@dataclass(frozen=True)
class Cell:
    """Whether a method works on a network, and the settings that it needs or the reason why not."""

    works: bool
    why: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@functools.cache
def cell(network: str, method: str) -> Cell:
    needed = NEEDED.get(method, {})
    why = verdict(network, method, **needed)
    if why == WORKS:
        return Cell(True, settings=needed)
    other = ALTERNATIVES.get(method)
    if other is not None and verdict(network, method, **other) == WORKS:
        return Cell(True, why, other)
    return Cell(False, why)
