"""Settings of a member: the keyword-only parameters of its factory are the schema.

A member of a family (an intervention, monitor, network, optimizer, agent or stream) is one function. Its keyword-only
parameters are its settings, with their defaults. Its annotations give the allowed range and whether a number is
*traced* (an array, which can be swept inside one compiled program) or *static* (part of the program)::

    def weight_decay(*, rate: NonNegative = 1e-4, per: Literal["update", "learning_rate"] = "update") -> Intervention:

``plasticity.config.registry`` builds the pydantic model of a member from this signature. Positional parameters are not
settings; the launcher or the agent supplies them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import Field


@dataclass(frozen=True)
class Traced:
    """Marks a number that is an array in the compiled program."""


@dataclass(frozen=True)
class Member:
    """Marks a setting that is itself a member of a family: ``network: Annotated[Any, Member("networks")]``.

    The factory receives a function of the member's positional arguments.
    """

    family: str


TRACED = Traced()
Real = Annotated[float, TRACED]
Positive = Annotated[float, Field(gt=0), TRACED]
Duration = Annotated[float, Field(gt=0, lt=math.inf), TRACED]
NonNegative = Annotated[float, Field(ge=0), TRACED]
Fraction = Annotated[float, Field(ge=0, le=1), TRACED]
BelowOne = Annotated[float, Field(ge=0, lt=1), TRACED]

# Integers. Each has an upper bound: an int32 in the program must fit one. The length of an axis, the number of visits
# and the length of an unrolled loop have tighter bounds, so that a typo is rejected before it allocates gigabytes.
LARGEST = 2**31 - 1  # int32
Count = Annotated[int, Field(ge=1, le=LARGEST)]  # of steps, updates, samples
Natural = Annotated[int, Field(ge=0, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
SEEDS = 100_000
Seeds = Annotated[int, Field(ge=1, le=SEEDS)] | Annotated[tuple[Seed, ...], Field(min_length=1, max_length=SEEDS)]
Size = Annotated[int, Field(ge=1, le=2**20)]  # of an axis: units, envs, a batch, classes
Tasks = Annotated[int, Field(ge=1, le=1_000_000)]
Cycles = Annotated[int, Field(ge=1, le=1_000_000)]
Repeats = Annotated[int, Field(ge=1, le=10_000)]  # of a computation within one update, step or measurement
Few = Annotated[int, Field(ge=1, le=100)]  # of what is unrolled in the program
Widths = Annotated[tuple[Size, ...], Field(max_length=100)]  # of hidden layers
Threads = Annotated[int, Field(ge=0, le=1024)]
Measures = Annotated[list[str], Field(min_length=1, max_length=100)]  # names of numbers to record for each episode


@dataclass(frozen=True)
class Moved:
    """The new place of a setting that is now part of a nested member."""

    to: str  # dotted: `replay.capacity`
    values: Mapping[Any, Any] = field(default_factory=dict)  # old values that have another word now -> new ones
    drop: Any = None  # the old default: it is left out, as the nested member may have no such setting
    relative_to: str = ""  # the new value is a fraction of this setting
    kind: str = ""  # of the nested member, where the config names none


@dataclass(frozen=True)
class Metadata:
    """Metadata of a member, for ``plasticity list`` and the contract tests."""

    paper: str = ""  # authors, year, title
    neutral: Mapping[str, Any] | None = None  # settings under which an intervention does nothing
    # A setting that has an effect only with some values of another -> that other setting -> those values.
    only_with: Mapping[str, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)
    note: str = ""
    checked: str = ""  # against what the tests compare the member's equation, and what is not verified
    example: Mapping[str, Any] = field(default_factory=dict)  # of a stream: settings of a small example
    period: int = 1  # of a monitor: default measurement period, in periods of `monitor_every`
    formerly: str = ""  # its name in older versions, which configs may still use
    renamed: Mapping[str, str | Moved] = field(default_factory=dict)  # old names of its settings -> new ones
    hint: Callable[[Mapping[str, Any], str], str] | None = None  # the member's raw settings, an unknown key -> a remark

    def __post_init__(self) -> None:
        if isinstance(self.period, bool) or not isinstance(self.period, int) or self.period < 1:
            raise ValueError(f"metadata.period: {self.period!r} is not allowed; must be an integer of at least 1")


F = TypeVar("F", bound=Callable[..., Any])


def metadata(**facts: Any) -> Callable[[F], F]:
    """Decorator that attaches a :class:`Metadata` to a factory."""

    def attach(factory: F) -> F:
        factory.metadata = Metadata(**facts)  # type: ignore[attr-defined]
        return factory

    return attach


def metadata_of(factory: Callable[..., Any]) -> Metadata:
    """The factory's metadata; empty if it has none, or if a plug-in uses that attribute for something else."""
    found = getattr(factory, "metadata", None)
    return found if isinstance(found, Metadata) else Metadata()
