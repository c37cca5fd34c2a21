"""The space of a search: ranges and lists of values for traced numbers of an arm."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from plasticity.config.fields import Count, Natural
from plasticity.config.registry import Registry
from plasticity.config.schema import schema_of
from plasticity.config.settings import Parser, plain
from plasticity.config.sweeps import Arm, expand, unsweepable
from plasticity.core.errors import ConfigProblem, Location, UserError, report, shown

EXAMPLE = "{agent.optimizer.learning_rate: {low: 1e-4, high: 1e-2, log: true}}"
INNER = math.sqrt(2) - 1  # where between its ends a range is tried besides them


@dataclass(frozen=True, kw_only=True)
class Range:
    """Real numbers from ``low`` to ``high``."""

    low: float
    high: float
    log: bool = False  # uniform in the logarithm

    def tried(self) -> tuple[float, float, float]:
        """Both ends, and a number between them."""
        return self.low, self.high, self.low + INNER * (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How many points a search tries."""

    trials: Count = 64  # points; whole batches
    batch: Annotated[int, Field(ge=2)] = 16  # points of a run
    factor: Annotated[int, Field(ge=2)] = 3  # of a rung's points, one in so many goes on to the next rung
    seed: Natural = 0  # of the sampler


Space = Mapping[str, Range | tuple[Any, ...]]


def parse_extent(**given: Any) -> Extent:
    """The extent of a search. ``UserError`` if it is not allowed."""
    parser = Parser(Registry())
    values = parser.settings(schema_of(Extent), given, ())
    if not parser.problems and values["trials"] % values["batch"]:
        parser.refuse(("trials",), f"{values['trials']} is not allowed; must be a multiple of batch, {values['batch']}")
    _raise(parser.problems)
    return Extent(**values)


def parse_space(registry: Registry, raw: Any, arm: Arm) -> Space:
    """The space of a search: dotted path of a traced number of the arm -> its range, or its values.

    Raises:
        UserError: no mapping of paths to ranges and lists; a path that is unknown or not traced, or that takes not all
            values of its range; lists only.
    """
    if not isinstance(raw, Mapping) or not raw:
        raise UserError(f"space: {shown(raw)} is not allowed; must be a mapping such as {EXAMPLE}")
    parser = Parser(registry)
    space = {str(path): _values(parser, plain(values), ("space", str(path))) for path, values in raw.items()}
    _raise(parser.problems)
    for path, values in space.items():
        if refused := unsweepable(path):
            parser.refuse(("space", path), refused)
            continue
        tried = values.tried() if isinstance(values, Range) else values
        points, problems = expand(registry, arm.agent, arm.interventions, {path: tried})
        parser.problems += [each._replace(at=("space", *each.at)) for each in problems[:1]]
        if len({point.static() for point in points}) > 1:
            parser.refuse(("space", path), "is not a traced number: each value would need a program; write a `sweep`")
    _raise(parser.problems)
    if not any(isinstance(values, Range) for values in space.values()):
        raise UserError("space: has no range, so that its points would repeat; write the lists as a `sweep`")
    _, problems = expand(registry, arm.agent, arm.interventions, {path: (first(space[path]),) for path in space})
    _raise([each._replace(at=("space", *each.at)) for each in problems])
    return space


def first(values: Range | Sequence[Any]) -> Any:
    """One value of a range or a list."""
    return values.low if isinstance(values, Range) else values[0]


def _values(parser: Parser, raw: Any, at: Location) -> Any:
    """A range or the values of a list; None if it is refused."""
    if isinstance(raw, list):
        doubled = [value for i, value in enumerate(raw) if value in raw[:i]]
        if not raw:
            parser.refuse(at, "the list of values is empty")
        elif doubled:
            parser.refuse(at, f"{shown(doubled[0])} is given twice")
        return tuple(raw)
    if not isinstance(raw, Mapping):
        parser.refuse(
            at, f"{shown(raw)} is not allowed; must be a range {{low: 1e-4, high: 1e-2, log: true}} or a list"
        )
        return None
    before = len(parser.problems)
    values = parser.settings(schema_of(Range), raw, at)
    if len(parser.problems) > before:
        return None
    found = Range(**values)
    if not (math.isfinite(found.low) and math.isfinite(found.high)) or found.low >= found.high:
        parser.refuse(at, f"the range from {found.low:g} to {found.high:g} is not allowed; low must be less than high")
    elif found.log and found.low <= 0:
        parser.refuse((*at, "low"), f"{found.low:g} is not allowed with `log`; must be more than 0")
    return found


def _raise(problems: Sequence[ConfigProblem]) -> None:
    if problems:
        raise report(problems, lambda at: "")
