"""All members: the built-in ones of every family, and those of installed packages."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from agents import AGENTS
from envs import STREAMS, TRANSFORMS
from envs.base import Source
from plasticity.foreign import Keeps, Returns
from plasticity.interventions import INTERVENTIONS
from plasticity.interventions.base import Intervention
from plasticity.monitors import MONITORS, Monitor
from plasticity.networks import NETWORKS, NetworkSpec
from plasticity.optimizers import OPTIMIZERS, lifted
from plasticity.registry import Registry
from plasticity.types import Agent, Optimizer

BUILT_IN: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "agents": AGENTS,
    "streams": STREAMS,
    "transforms": TRANSFORMS,
    "interventions": INTERVENTIONS,
    "monitors": MONITORS,
    "networks": NETWORKS,
    "optimizers": OPTIMIZERS,
}


def _learner(key: Any, state: Any, learner: Any, context: Any) -> Any:
    """A step keeps the shape of its state and of the learner."""
    return (state, learner), tuple


def _acting(state: Any, params: Any) -> Any:
    return params, lambda made: made


def _measured(key: Any, state: Any, probe: Any) -> Any:
    return state, lambda made: made[0]


KEPT_BY_METHODS: Mapping[str, Keeps] = {"step": _learner, "switch": _learner, "prepare": _learner, "acting": _acting}

RETURNS: Mapping[str, Returns] = {
    "agents": Returns(Agent),
    "streams": Returns(Source),
    "transforms": Returns(Source),
    "interventions": Returns(Intervention, keeps=KEPT_BY_METHODS),
    "monitors": Returns(Monitor, keeps={"measure": _measured}),
    "networks": Returns(NetworkSpec),
    "optimizers": Returns(Optimizer, lifted),
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
