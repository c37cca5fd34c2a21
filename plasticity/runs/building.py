"""From a program's settings to its members: the agent with its interventions, and their paths for messages."""

from collections.abc import Mapping, Sequence
from typing import Any

from plasticity.config.experiments import Built, ProgramSettings
from plasticity.config.settings import MemberConfig, paths
from plasticity.core.errors import UserError, placed
from plasticity.core.types import Agent, StreamSpec
from plasticity.engine.program import Hyper
from plasticity.interventions import hooks
from plasticity.interventions.base import Intervention, clashes, compose


def checked(what: str, make: Any, *args: Any) -> Any:
    """Convert a member's ``ValueError`` (value out of range, missing file) to a ``UserError`` located at ``what``."""
    try:
        return make(*args)
    except ValueError as error:
        raise UserError(placed(what, str(error))) from error


def labels_of(family: str, members: Sequence[MemberConfig]) -> list[str]:
    """The members' paths, with the kind added to paths by index."""
    named = zip(paths(family, members), members, strict=True)
    return [path if path.endswith(f".{each.kind}") else f"{path} ({each.kind})" for path, each in named]


def interventions_of(built: Built, each: ProgramSettings) -> dict[str, Intervention]:
    """The interventions by their paths."""
    labels = labels_of("interventions", each.interventions)
    return {label: made() for label, made in zip(labels, built.interventions, strict=True)}


def without_clashes(named: Mapping[str, Intervention], seen: hooks.Seen | None = None) -> Intervention:
    """Compose the interventions. ``ValueError`` if two of them set the same part of the network."""
    problem = clashes({label.partition(".")[2] or label: each for label, each in named.items()})
    if problem:
        raise ValueError(problem)
    return compose(*(hooks.labelled(label, each, seen) for label, each in named.items()))


def agent_of(each: ProgramSettings, spec: StreamSpec, hyper: Hyper, seen: hooks.Seen | None = None) -> Agent:
    """Build the agent. ``seen`` records the hooks of each intervention that the agent calls."""
    built = each.build(hyper)
    agent: Agent = built.agent(spec, without_clashes(interventions_of(built, each), seen))
    return agent
