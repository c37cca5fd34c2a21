"""All members: the built-in ones of every family, and those of installed packages."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from plasticity.agents import AGENTS
from plasticity.agents.replay_source import Memory
from plasticity.agents.replays import REPLAYS
from plasticity.config.plugins import Keeps, Returns
from plasticity.config.registry import Registry
from plasticity.core.types import Agent, Optimizer
from plasticity.envs import STREAMS, TRANSFORMS
from plasticity.envs.base import StreamFactory
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention
from plasticity.monitors import MONITORS, Monitor
from plasticity.networks.activations import ACTIVATIONS
from plasticity.networks.catalogue import NETWORKS
from plasticity.networks.functions import Functions
from plasticity.networks.nonlinearity import NonLinearity
from plasticity.networks.spec import NetworkSpec
from plasticity.optim.optimizers import OPTIMIZERS, as_optimizer
from plasticity.optim.schedules import SCHEDULES

BUILT_IN: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "agents": AGENTS,
    "streams": STREAMS,
    "transforms": TRANSFORMS,
    "interventions": INTERVENTIONS,
    "monitors": MONITORS,
    "networks": NETWORKS,
    "activations": ACTIVATIONS,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "replays": REPLAYS,
}


def unlike(found: Any, wanted: Any) -> str:
    """How a tree of arrays differs from another in structure, shapes or types; empty if it does not."""
    (mine, shape), (theirs, expected) = (jax.tree_util.tree_flatten_with_path(tree) for tree in (found, wanted))
    if str(shape) != str(expected):
        return "a tree of another structure"
    for (path, a), (_, b) in zip(mine, theirs, strict=True):
        has, had = (f"{jnp.result_type(x)}{list(jnp.shape(x))}" for x in (a, b))
        if has != had:
            return f"{has} for {had} at {jax.tree_util.keystr(path)}"
    return ""


def _step(args: tuple[Any, ...], made: Any) -> str:
    _, state, learner, _ = args
    return unlike(tuple(made), (state, learner))


KEPT_BY_METHODS: Mapping[str, Keeps] = {
    **dict.fromkeys(("step", "switch", "prepare"), _step),
    "acting": lambda args, made: unlike(made, args[1]),
    "explore": lambda args, made: unlike(made, args[1].previous),
}
KEPT_BY_MONITORS: Mapping[str, Keeps] = {"measure": lambda args, made: unlike(made[0], args[1])}
KEPT_BY_OPTIMIZERS: Mapping[str, Keeps] = {"update": lambda args, made: unlike(tuple(made), args[:2])}

Function: type = cast(type, Callable)

RETURNS: Mapping[str, Returns] = {
    "agents": Returns(Agent),
    "streams": Returns(StreamFactory),
    "transforms": Returns(Function, then=StreamFactory),
    "interventions": Returns(Intervention, keeps=KEPT_BY_METHODS),
    "monitors": Returns(Monitor, keeps=KEPT_BY_MONITORS),
    "networks": Returns((NetworkSpec, Functions)),
    "activations": Returns(NonLinearity),
    "optimizers": Returns(Optimizer, as_optimizer, KEPT_BY_OPTIMIZERS),
    "schedules": Returns(Function, then=jax.Array),
    "replays": Returns(Memory),
}


@functools.cache
def known() -> tuple[Registry, tuple[str, ...]]:
    """The registry, and a line for each installed plug-in that cannot be used."""
    found = Registry(RETURNS)
    for family, members in BUILT_IN.items():
        found.register_all(family, members)
    return found, found.load_plugins()


def registry() -> Registry:
    """All members: the built-in ones and those of installed packages."""
    return known()[0]


def broken_plugins() -> tuple[str, ...]:
    """A line for each installed plug-in that cannot be used."""
    return known()[1]
