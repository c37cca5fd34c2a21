"""Criterion of a finding, as data: clauses about quantities of arms, and their combination."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from plasticity.core.errors import UserError, shown, unknown

Compare = Literal[
    "value", "difference", "ratio", "contrasts", "difference_of_differences", "slope", "correlation"
]  # fmt: skip
Direction = Literal["above", "below", "within"]
Needs = Literal["all", "any"]
Crosses = Literal["up", "down"]
Within = Literal["end", "first", "mean", "max", "min", "time"]
STAGES = ("first", "last", "all", "end", "slope", "time")
Stage = str | int | tuple[float, float]
RAW = ("performance", "performance_end", "area", "evaluation")  # in units of the reward
EVALUATIONS = ("evaluation", "evaluation_reward")  # the return, and the mean reward per step; `/TASK`: on one task
TRANSFER = ("average_performance", "backward_transfer", "forgetting")  # on all tasks, from the evaluations after visits
BEHAVIOUR = (*RAW, *TRANSFER, "evaluation_reward", "relative_speed", "change")
LEAST = 8  # minimum number of seeds of a clause
OF_TASKS = "change of each task"  # the table of `change` if a clause names a task
BY_VISIT = ("performance_end", "area", "relative_speed", "change", *TRANSFER)  # without records within a visit
CLAUSE = (
    "what", "arms", "compare", "direction", "bound", "at", "less", "within", "threshold", "crossing", "task", "against",
    "levels", "diverged", "confidence",
)  # fmt: skip
ARMS: Mapping[str, tuple[int, int | None]] = {  # how many arms a comparison takes
    "value": (0, 1), "difference": (2, 2), "ratio": (2, 2), "contrasts": (3, None),
    "difference_of_differences": (4, 4), "slope": (2, None), "correlation": (0, None),
}  # fmt: skip
REQUIRED = ("what", "direction", "bound")


class Crossing(NamedTuple):
    """Crossing of a threshold: the first value of at least (``up``) or at most (``down``) this number."""

    threshold: float
    way: Crosses

    def reached(self, values: Any) -> np.ndarray:
        """``bool[...]``: whether each value is at the threshold or beyond it; missing values are not."""
        numbers = np.asarray(values, float)
        return numbers >= self.threshold if self.way == "up" else numbers <= self.threshold


Record = str | Crossing  # which record of a visit counts, or how long the visit takes to cross a threshold


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One statement: a statistic over seeds whose interval must lie on one side of a bound."""

    what: str  # behaviour, a monitor's metric, or agent.METRIC; for an exact finding, the name of a number
    arms: tuple[str, ...] = ()  # ARM or PART/ARM, as many as ``ARMS`` says
    compare: Compare = "value"
    direction: Direction
    bound: tuple[float, ...]  # one number; the two ends for ``within``
    at: Stage = "last"  # visits: a word of STAGES, a visit's number, or a range given by two fractions
    less: Stage | None = None  # visits whose value is subtracted
    within: Within = "end"  # which record of a visit, for metrics; ``time``: steps to the threshold
    threshold: float | None = None  # for the times: ``at: time`` in visits, ``within: time`` in env steps
    crossing: Crosses | None = None  # in which direction the threshold is crossed
    task: str | None = None  # only the visits to this task
    against: str | None = None  # for a correlation: the other quantity
    levels: tuple[float, ...] = ()  # for a correlation or a slope: a number for each arm
    diverged: float | None = None  # the value of a diverged lane; None: missing
    confidence: float = 0.95

    @property
    def crosses(self) -> Crossing:
        """The threshold and the direction of the clause's times."""
        assert self.threshold is not None
        assert self.crossing is not None
        return Crossing(self.threshold, self.crossing)

    def table_of(self, what: str) -> str:
        """The table to read for ``what`` or ``against``."""
        return OF_TASKS if what == "change" and self.task is not None else what

    @property
    def record(self) -> Record:
        """What is taken of each visit."""
        return self.crosses if self.within == "time" else self.within

    @property
    def of_task(self) -> str | None:
        """The task that the clause is about: its own, or that of ``evaluation/TASK``."""
        kind, _, named = self.what.partition("/")
        return named if kind in EVALUATIONS and named else self.task


@dataclass(frozen=True)
class Group:
    """A group of clauses, all or any of which must hold."""

    needs: Needs
    clauses: "tuple[Clause | Group, ...]"


def clauses(criterion: Clause | Group) -> Iterator[Clause]:
    """Every clause, in the order of the file."""
    if isinstance(criterion, Clause):
        yield criterion
    else:
        for each in criterion.clauses:
            yield from clauses(each)


def parse_criterion(raw: Any, at: str) -> Group:
    """Parse a criterion: ``{needs: all | any, clauses: [...]}``; a clause may itself be such a group.

    ``UserError`` names the location (``at``), the value and the allowed values.
    """
    if not isinstance(raw, Mapping) or not raw.get("clauses"):
        raise UserError(f"{at}: must be a mapping with `needs` and a non-empty list `clauses`")
    check_keys(raw, ("needs", "clauses"), at)
    needs = raw.get("needs", "all")
    _one_of(needs, get_args(Needs), f"{at}.needs")
    if not isinstance(raw["clauses"], list):
        raise UserError(f"{at}.clauses: {shown(raw['clauses'])} is not allowed; must be a list")
    parts = [_part(each, f"{at}.clauses[{i}]") for i, each in enumerate(raw["clauses"])]
    return Group(needs, tuple(parts))


def check_keys(raw: Mapping[str, Any], allowed: Sequence[str], at: str) -> None:
    """``UserError`` with the nearest name for a key that is not allowed."""
    for key in raw:
        if key not in allowed:
            raise UserError(f"{at}: {unknown(f'key `{key}`', str(key), allowed, 'allowed')}")


def _one_of(value: Any, allowed: Sequence[str], at: str) -> None:
    if value not in allowed:
        raise UserError(f"{at}: {unknown(shown(value), str(value), allowed, 'allowed')}")


def _part(raw: Any, at: str) -> Clause | Group:
    if not isinstance(raw, Mapping):
        raise UserError(f"{at}: {shown(raw)} is not allowed; must be a mapping")
    return parse_criterion(raw, at) if "clauses" in raw else _clause(raw, at)


def _clause(raw: Mapping[str, Any], at: str) -> Clause:
    check_keys(raw, CLAUSE, at)
    missing = [key for key in REQUIRED if key not in raw]
    if missing:
        raise UserError(f"{at}: `{missing[0]}` is missing")
    values = dict(raw)
    for key, allowed in (
        ("compare", get_args(Compare)),
        ("direction", get_args(Direction)),
        ("within", get_args(Within)),
        ("crossing", get_args(Crosses)),
    ):
        if key in values:
            _one_of(values[key], allowed, f"{at}.{key}")
    values["arms"] = tuple(map(str, _listed(values.get("arms", ()))))
    values["bound"] = _bound(values["bound"], values["direction"], f"{at}.bound")
    values["levels"] = tuple(_number(each, f"{at}.levels") for each in _listed(values.get("levels", ())))
    for key in ("at", "less"):
        if values.get(key) is not None:
            values[key] = _stage(values[key], f"{at}.{key}")
    for key in ("diverged", "threshold"):
        if values.get(key) is not None:
            values[key] = _number(values[key], f"{at}.{key}")
    if values.get("task") is not None:
        values["task"] = _task(values["task"], f"{at}.task")
    clause = Clause(**values)
    _check_comparison(clause, at)
    return clause


def _listed(raw: Any) -> Sequence[Any]:
    return raw if isinstance(raw, list | tuple) else (raw,)


def _number(raw: Any, at: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise UserError(f"{at}: {shown(raw)} is not allowed; must be a number")
    return float(raw)


def _task(raw: Any, at: str) -> str:
    if isinstance(raw, bool) or not isinstance(raw, str | int) or raw == "":
        raise UserError(f"{at}: {shown(raw)} is not allowed; must be the name of a task")
    return str(raw)


def _bound(raw: Any, direction: str, at: str) -> tuple[float, ...]:
    numbers = tuple(_number(each, at) for each in _listed(raw))
    wanted = 2 if direction == "within" else 1
    if len(numbers) != wanted or numbers != tuple(sorted(numbers)):
        form = "[LOW, HIGH]" if wanted == 2 else "one number"
        raise UserError(f"{at}: {shown(raw)} is not allowed; with direction `{direction}`, must be {form}")
    return numbers


def _stage(raw: Any, at: str) -> Stage:
    if isinstance(raw, list) and len(raw) == 2:
        low, high = (_number(each, at) for each in raw)
        if 0 <= low < high <= 1:
            return low, high
        raise UserError(f"{at}: {shown(raw)} is not allowed; must be two fractions in [0, 1], the smaller one first")
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    _one_of(raw, STAGES, at)
    return str(raw)


def _check_comparison(clause: Clause, at: str) -> None:
    if not 0 < clause.confidence < 1:
        raise UserError(f"{at}.confidence: {clause.confidence} is not allowed; must be in (0, 1)")
    _check_arms(clause, at)
    _check_levels(clause, at)
    _check_time(clause, at)
    if clause.compare == "ratio" and clause.direction == "within":
        raise UserError(f"{at}: a ratio is `above` or `below` a bound; write two clauses")


def _check_arms(clause: Clause, at: str) -> None:
    least, most = ARMS[clause.compare]
    count = len(clause.arms)
    if most is not None and not least <= count <= most:
        raise UserError(f"{at}.arms: `{clause.compare}` takes {most}, got {count}")
    if count < least:
        raise UserError(f"{at}.arms: `{clause.compare}` takes {least} or more, got {count}")


def _check_levels(clause: Clause, at: str) -> None:
    if clause.against and clause.compare != "correlation":
        raise UserError(f"{at}: `against` belongs to `compare: correlation`")
    if clause.levels and clause.compare not in ("correlation", "slope"):
        raise UserError(f"{at}: `levels` belong to `compare: correlation` or `compare: slope`")
    if clause.compare == "correlation" and bool(clause.against) == bool(clause.levels):
        raise UserError(f"{at}: a correlation takes `against` (another quantity) or `levels` (a number for each arm)")
    if clause.compare == "slope" and len(set(clause.levels)) < 2:
        raise UserError(f"{at}: a slope takes `levels`, a number for each arm, at least two of them different")
    if clause.levels and len(clause.levels) != len(clause.arms):
        raise UserError(f"{at}.levels: {len(clause.levels)} levels for {len(clause.arms)} arms")


def _check_time(clause: Clause, at: str) -> None:
    """``UserError`` unless exactly one of ``at`` and ``within`` is ``time`` where there is a threshold."""
    asked = [key for key in ("at", "within") if getattr(clause, key) == "time"]
    if len(asked) == 2:
        raise UserError(f"{at}: `at: time` counts visits and `within: time` env steps; choose one")
    if "time" in (clause.at, clause.less) and clause.less is not None:
        raise UserError(f"{at}.less: nothing can be subtracted from a time or be one; leave it out")
    for key in ("threshold", "crossing"):
        if asked and getattr(clause, key) is None:
            more = "a number" if key == "threshold" else "up or down"
            raise UserError(f"{at}: `{asked[0]}: time` takes `{key}` ({more})")
        if not asked and getattr(clause, key) is not None:
            raise UserError(f"{at}.{key}: belongs to `at: time` (visits) or `within: time` (env steps in a visit)")
    if clause.within == "time" and clause.what in BY_VISIT:
        raise UserError(f"{at}.within: `{clause.what}` has one number per visit; with it, use `at: time`")
