"""All members: the built-in ones of every family, and those of installed packages."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from agents import AGENTS
from envs import STREAMS, TRANSFORMS
from envs.base import Source
from plasticity.foreign import Returns
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

RETURNS: Mapping[str, Returns] = {
    "agents": Returns(Agent),
    "streams": Returns(Source),
    "transforms": Returns(Source),
    "interventions": Returns(Intervention),
    "monitors": Returns(Monitor),
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
