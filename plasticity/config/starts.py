"""The key ``start`` of an arm: its learners are not new, but go on from where those of another run were saved."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plasticity.config.fields import Count, Natural
from plasticity.config.schema import schema_of
from plasticity.config.settings import Parser
from plasticity.core.errors import Location, shown

Earlier = tuple[Natural, Natural]


@dataclass(frozen=True, kw_only=True)
class Start:
    """Learners that go on from the end of a visit of another run, lane by lane."""

    run: str  # the folder of that run
    arm: str  # its arm, with the same seeds and sweep
    visits: Count  # how many visits its learners had done
    steps: Natural | None = None  # env steps of these visits; default: as that run's plan says
    earlier: Earlier | None = None  # visits and env steps before that run; default: as its plan says


def parse_start(parser: Parser, raw: Any, at: Location) -> Start | None:
    """Parse the key; None if it is absent or refused."""
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        text = "must be a mapping such as {run: FOLDER, arm: NAME, visits: 3}"
        parser.refuse(at, f"{shown(raw)} is not allowed; {text}")
        return None
    before = len(parser.problems)
    values = parser.settings(schema_of(Start), raw, at)
    return Start(**values) if len(parser.problems) == before else None
