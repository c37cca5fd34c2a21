"""From a program's settings to its members: the agent with its interventions, and their paths for messages."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from plasticity.config.programs import Built, ProgramSettings
from plasticity.config.settings import MemberConfig, paths
from plasticity.core.errors import UserError, cut, placed, shown
from plasticity.core.types import Agent, StreamSpec
from plasticity.engine.program import Hyper
from plasticity.interventions import hooks
from plasticity.interventions import restriction as interventions
from plasticity.interventions.base import Intervention, clashes, compose
from plasticity.monitors import restriction as monitors
from plasticity.monitors.base import Monitor
from plasticity.networks.task import with_task

POINT = 48  # characters of a swept value in a message


def checked(what: str, make: Any, *args: Any) -> Any:
    """Convert a member's ``ValueError`` (value out of range, missing file) to a ``UserError`` located at ``what``."""
    try:
        return make(*args)
    except ValueError as error:
        raise UserError(placed(what, str(error))) from error


def of_program(each: ProgramSettings, make: Any, *args: Any) -> Any:
    """:func:`checked` for one program: located at its arm and, in a sweep, at the values that all its points share.

    An error of another package's member, which names its package, is located only in a sweep.
    """
    first, *others = each.points
    swept = {path: value for path, value in first.items() if all(point[path] == value for point in others)}
    point = ", ".join(f"{path}={_text(value)}" for path, value in swept.items())
    place = f"arms.{each.arm}" + (f" ({point})" if point else "")
    try:
        return checked(place, make, *args)
    except UserError as error:
        text = str(error)
        if not point or text.startswith(place):
            raise
        raise type(error)(f"{place}: {text}") from error


def _text(value: Any) -> str:
    """A swept value as in a command-line override."""
    return cut(value, POINT) if isinstance(value, str) else shown(value, POINT)


def labels_of(family: str, members: Sequence[MemberConfig]) -> list[str]:
    """The members' paths, with the kind added to paths by index."""
    named = zip(paths(family, members), members, strict=True)
    return [path if path.endswith(f".{each.kind}") else f"{path} ({each.kind})" for path, each in named]


def intervention_of(choice: MemberConfig, make: Callable[[], Intervention]) -> Intervention:
    """The intervention, restricted to the parts of the network that the config names."""
    return interventions.restricted(make(), choice.modules) if choice.modules else make()


def monitor_of(choice: MemberConfig, make: Callable[[], Monitor]) -> Monitor:
    """The monitor, restricted to the parts of the network that the config names."""
    return monitors.restricted(make(), choice.modules) if choice.modules else make()


def interventions_of(built: Built, each: ProgramSettings) -> dict[str, Intervention]:
    """The interventions by their paths."""
    labels = labels_of("interventions", each.interventions)
    made = map(intervention_of, each.interventions, built.interventions)
    return dict(zip(labels, made, strict=True))


def readers_of_task(each: ProgramSettings) -> list[str]:
    """The paths of the interventions that need the task in the observation."""
    labels, built = paths("interventions", each.interventions), each.build({}).interventions
    made = [of_program(each, checked, label, make) for label, make in zip(labels, built, strict=True)]
    return [label for label, intervention in zip(labels, made, strict=True) if intervention.reads_task]


def without_clashes(named: Mapping[str, Intervention], seen: hooks.Seen | None = None) -> Intervention:
    """Compose the interventions. ``ValueError`` if two of them set the same part of the network."""
    problem = clashes({label.partition(".")[2] or label: each for label, each in named.items()})
    if problem:
        raise ValueError(problem)
    return compose(*(hooks.labelled(label, each, seen) for label, each in named.items()))


def agent_of(
    each: ProgramSettings,
    spec: StreamSpec,
    hyper: Hyper,
    seen: hooks.Seen | None = None,
    wrap: Callable[[Intervention], Intervention] = lambda intervention: intervention,
) -> Agent:
    """Build the agent. ``seen`` records the hooks of each intervention that it calls; ``wrap`` wraps all of them."""
    built = each.build(hyper)
    make = reading_task(built.agent, each, spec.task_entries) if spec.task_entries else built.agent
    agent: Agent = make(spec, wrap(without_clashes(interventions_of(built, each), seen)))
    return agent


def reading_task(agent: partial[Any], each: ProgramSettings, entries: int) -> partial[Any]:
    """The agent, whose networks receive observations that end in ``entries`` for the task."""
    networks = {
        name: with_task(agent.keywords[name], entries)
        for name, value in each.agent.values.items()
        if isinstance(value, MemberConfig) and value.family == "networks"
    }
    return partial(agent, **networks)
