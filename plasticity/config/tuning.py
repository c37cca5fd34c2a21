"""The key ``tune``: each arm's best point is selected on a part of the life, on other seeds, before the run itself."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from plasticity.config.fields import Count, Seeds
from plasticity.config.schema import schema_of
from plasticity.config.settings import Parser
from plasticity.config.sweeps import Arm, Point
from plasticity.core.errors import Location, cut, shown, unknown

if TYPE_CHECKING:
    from plasticity.config.experiments import Experiment

TUNING = "tuning"  # the folder of the tuning runs, in that of the run
FIRST_SEED = 1_000_000  # of the tuning seeds, if only their number is given
SHARE, VISITS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?%"), re.compile(r"(\d{1,9}) visits?")
FORMS = "a share of the env steps in (0, 100] % such as 1%, whole visits such as `3 visits`, or a number of env steps"
AT: Location = ("tune",)


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Selection of each arm's best point of its sweep on a part of the life, before the run itself."""

    first: Count | str = "1%"  # the part of the life: `1%` of the env steps, `3 visits`, or a number of env steps
    seeds: Seeds = 10  # n: 1,000,000 ... 1,000,000 + n - 1; or a list of seeds; none of the report's
    metric: str = "performance"  # what is averaged over that part; `performance`, or a column of the metrics
    best: Literal["highest", "lowest"] = "highest"  # whether high or low numbers are good
    over: Literal["sweep"] = "sweep"  # the points to select from: those of each arm's sweep
    chosen: dict[str, dict[str, Any]] | None = None  # the points that were selected; the run adds them to its config


@dataclass(frozen=True)
class Tuning:
    """:class:`Tune`, validated; ``seeds`` are listed."""

    first: int | str
    seeds: tuple[int, ...]
    metric: str
    best: Literal["highest", "lowest"]
    over: Literal["sweep"]
    chosen: Mapping[str, Mapping[str, Any]] | None = None  # arm -> swept path -> value

    def resolve(self) -> dict[str, Any]:
        """Plain data from which an equal record is read."""
        usual = self.seeds == own_seeds(len(self.seeds))
        found = asdict(self) | {"seeds": len(self.seeds) if usual else list(self.seeds)}
        return found | {"chosen": self.chosen and {arm: dict(values) for arm, values in self.chosen.items()}}

    @property
    def rule(self) -> dict[str, Any]:
        """What the selection depends on besides the tuning runs."""
        return {"metric": self.metric, "best": self.best}


def own_seeds(count: int) -> tuple[int, ...]:
    """The tuning seeds, if only their number is given: far from those of a report, which usually start at 0."""
    return tuple(range(FIRST_SEED, FIRST_SEED + count))


def steps_of(first: int | str, visits: Sequence[int], unit: int | None = None) -> int:
    """Env steps of the first part of a life.

    A share is rounded up to whole hundredths (or else tenths) of the first visit or, beyond it, to whole tenths of the
    visits' greatest common divisor, so that visits are not cut at odd places; and to records.

    Args:
        first: ``1%``, ``3 visits`` or a number of env steps.
        visits: the length of each visit in env steps.
        unit: env steps of a record, if the config sets them.

    Raises:
        ValueError: it is none of these, or more than the whole life.
    """
    total = sum(visits)
    if isinstance(first, int):
        if first > total:
            raise ValueError(f"{first:,} env steps are not allowed; the whole life has {total:,}")
        return first
    if found := VISITS.fullmatch(first):
        count = int(found[1])
        if not 1 <= count <= len(visits):
            raise ValueError(f"{shown(first)} is not allowed; the stream has {len(visits):,} visits")
        return sum(visits[:count])
    steps = math.ceil(total * share_of(first))
    whole = _unit(visits, steps)
    whole = math.lcm(whole, unit) if unit else whole
    return min(total, -(-steps // whole) * whole)


def share_of(first: str) -> Fraction:
    """``1%`` as 1/100. ``ValueError`` for any other text, and for a share outside (0, 100] %."""
    found = SHARE.fullmatch(first)
    if not found or not 0 < Fraction(found[1]) <= 100:
        raise ValueError(f"{shown(first)} is not allowed; must be {FORMS}")
    return Fraction(found[1]) / 100


def _unit(visits: Sequence[int], steps: int) -> int:
    """What a share is rounded to, in env steps."""
    if steps <= visits[0]:
        return next((visits[0] // part for part in (100, 10) if visits[0] % part == 0), 1)
    common = math.gcd(*visits)
    return common // 10 if common % 10 == 0 else common


def part_of(visits: Sequence[tuple[int, int]], steps: int) -> list[tuple[int, int]]:
    """The first ``steps`` env steps of the visits, each a task and its env steps; the last one may be cut."""
    found = []
    for task, length in visits:
        if steps <= 0:
            break
        found.append((task, min(length, steps)))
        steps -= length
    return found


# ------------------------------------------------------------------------------------------------- from a config


def parse_tuning(parser: Parser, given: Any, seeds: Sequence[int], arms: Mapping[str, Arm]) -> Tuning | None:
    """Parse the key ``tune``; None if it is refused. ``seeds``: those of the report."""
    before = len(parser.problems)
    values = parser.settings(schema_of(Tune), given, AT)
    if len(parser.problems) > before:
        return None
    _check_first(parser, values["first"])
    own = own_seeds(values["seeds"]) if isinstance(values["seeds"], int) else tuple(values["seeds"])
    _check_seeds(parser, own, seeds)
    if arms and not any(len(arm.points) > 1 for arm in arms.values()):
        parser.refuse(AT, "no arm has a sweep, so there is nothing to select; add `sweep: {PATH: [VALUE, ...]}`")
    for name in arms:
        if name.lower() == TUNING:
            parser.refuse(("arms", name), f"is a reserved name with `tune`: the folder {TUNING}; choose another name")
    if values["chosen"] is not None:
        _check_chosen(parser, values["chosen"], arms)
    return None if len(parser.problems) > before else Tuning(**values | {"seeds": own})


def _check_first(parser: Parser, first: int | str) -> None:
    if isinstance(first, int) or VISITS.fullmatch(first):
        return
    try:
        share_of(first)
    except ValueError as error:
        parser.refuse((*AT, "first"), str(error))


def _check_seeds(parser: Parser, own: Sequence[int], seeds: Sequence[int]) -> None:
    doubled = [seed for seed, count in Counter(own).items() if count > 1]
    if doubled:
        parser.refuse((*AT, "seeds"), f"{doubled[0]} is given twice")
    shared = sorted(set(own) & set(seeds))
    if shared:
        named = cut(", ".join(map(str, shared)), 60)
        parser.refuse((*AT, "seeds"), f"shares {named} with `seeds`, those of the report; must be disjoint")


def _check_chosen(parser: Parser, chosen: Mapping[str, Any], arms: Mapping[str, Arm]) -> None:
    for name, values in chosen.items():
        at = (*AT, "chosen", name)
        if name not in arms:
            parser.refuse(at, unknown("arm", str(name), list(arms), "in this config"))
        elif index_of(arms[name], values) is None:
            parser.refuse(at, f"{shown(values)} is not a point of the arm's sweep")
    missing = [name for name in arms if name not in chosen]
    if missing and arms:
        parser.refuse((*AT, "chosen"), f"has no point of arm {shown(missing[0])}")


def index_of(arm: Arm, values: Mapping[str, Any]) -> int | None:
    """The place of a point among those of the arm; None if it is none of them."""
    return next((i for i, point in enumerate(arm.points) if dict(point.values) == dict(values)), None)


# ------------------------------------------------------------------------------------------------- the chosen points


def tuned(experiment: "Experiment", chosen: Mapping[str, Mapping[str, Any]] | None = None) -> "Experiment":
    """The experiment with the chosen point of each arm as its only one; unchanged if no points are chosen.

    A chosen point has no swept values: with values of their own, an arm and its control would have none in common.

    Args:
        experiment: one that is not changed in this way yet.
        chosen: arm -> swept path -> value; None: those that its config gives.
    """
    if experiment.tune is None or (chosen is None and experiment.tune.chosen is None):
        return experiment
    points = chosen or experiment.tune.chosen or {}
    arms = {name: replace(arm, points=(_fixed(arm, points[name]),)) for name, arm in experiment.arms.items()}
    return replace(experiment, tune=replace(experiment.tune, chosen=points), arms=arms)


def _fixed(arm: Arm, values: Mapping[str, Any]) -> Point:
    index = index_of(arm, values)
    assert index is not None
    return arm.points[index]._replace(values={})
