"""The key ``probes``: after chosen visits, copies of the learners and new ones face one common stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from plasticity.config.fields import Count, Member
from plasticity.config.schema import schema_of
from plasticity.config.settings import Parser, Period, plain
from plasticity.core.errors import Location, shown, unknown

Visits = Annotated[tuple[Count, ...], Field(min_length=1, max_length=100)]
OWN = ("transforms", "schedule", "monitors", "monitor_every", "record_every", "evaluation")  # of the probe's stream


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A fork of the run, made when the run is finished; it changes nothing in it."""

    at: Visits | Literal["all"]  # after how many visits of the run
    stream: Annotated[Any, Member("streams")] = None  # default: that of the run, with its transforms and schedule
    transforms: Annotated[tuple[Any, ...], Member("transforms")] = ()  # of the probe's own stream
    schedule: dict[Any, Any] | None = None  # of its stream, such as `{skip: 0, take: 1}`
    monitors: Annotated[tuple[Any, ...], Member("monitors")] = ()
    monitor_every: Period = "visit"  # of the monitors without their own ``every``
    record_every: Count | None = None  # env steps
    evaluation: dict[Any, Any] | None = None
    arms: tuple[str, ...] | None = None  # default: all but the controls
    fresh: bool = True  # add new learners for each arm, as its control

    def dump(self) -> dict[str, Any]:
        """The probe as plain data, from which an equal one is read."""
        return {name: plain(value) for name, value in vars(self).items()}

    def config(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of a config that the probe sets; ``run``: the resolved config of the run."""
        own = self.dump()
        found = {name: own[name] for name in OWN} | {"probe_size": run["probe_size"]}
        if self.stream is not None:
            return {"stream": own["stream"], **found}
        found["schedule"] = {**run["schedule"], **(own["schedule"] or {})}
        return {"stream": run["stream"], **found, "transforms": run["transforms"]}


def parse_probes(parser: Parser, given: Mapping[Any, Any], arms: Mapping[str, Any]) -> dict[str, Probe]:
    """Parse the key; ``arms``: of the run."""
    found = {}
    for name, raw in given.items():
        at: Location = ("probes", str(name))
        if not isinstance(raw, Mapping):
            parser.refuse(at, f"{shown(raw)} is not allowed; must be a mapping such as {{at: [1, 5]}}")
            continue
        before = len(parser.problems)
        values = parser.settings(schema_of(Probe), raw, at)
        for i, arm in enumerate(values.get("arms") or ()):
            if arms and arm not in arms:
                parser.refuse((*at, "arms", i), unknown("arm", arm, list(arms), "in this config"))
        if values.get("stream") is None and values.get("transforms"):
            parser.refuse((*at, "transforms"), "is not allowed without a stream; that of the run keeps its own")
        if len(parser.problems) == before:
            found[str(name)] = Probe(**values)
    return found
