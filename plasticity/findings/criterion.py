"""Criterion of a finding, as data: clauses about quantities of arms, and their combination."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from plasticity.core.errors import UserError, shown, unknown

Compare = Literal["value", "difference", "ratio", "correlation"]
Direction = Literal["above", "below", "within"]
Needs = Literal["all", "any"]
Within = Literal["end", "first", "mean", "max", "min"]
STAGES = ("first", "last", "all", "end", "slope")
Stage = str | int | tuple[float, float]
RAW = ("performance", "performance_end", "area", "evaluation")  # in units of the reward
EVALUATIONS = ("evaluation", "evaluation_reward")  # the return, and the mean reward per step; `/TASK`: on one task
BEHAVIOUR = (*RAW, "evaluation_reward", "relative_speed", "change")
CLAUSE = (
    "what", "arms", "compare", "direction", "bound", "at", "less", "within", "against", "levels", "diverged",
    "confidence",
)  # fmt: skip
REQUIRED = ("what", "direction", "bound")


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One statement: a statistic over seeds whose interval must lie on one side of a bound."""

    what: str  # behaviour, a monitor's metric, or agent.METRIC; for an exact finding, the name of a number
    arms: tuple[str, ...] = ()  # ARM or PART/ARM; two for a difference and a ratio
    compare: Compare = "value"
    direction: Direction
    bound: tuple[float, ...]  # one number; the two ends for ``within``
    at: Stage = "last"  # visits: a word of STAGES, a visit's number, or a range given by two fractions
    less: Stage | None = None  # visits whose value is subtracted
    within: Within = "end"  # which record of a visit, for metrics
    against: str | None = None  # for a correlation: the other quantity
    levels: tuple[float, ...] = ()  # for a correlation: a number for each arm
    diverged: float | None = None  # the value of a diverged lane; None: missing
    confidence: float = 0.95


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
    ):
        if key in values:
            _one_of(values[key], allowed, f"{at}.{key}")
    values["arms"] = tuple(map(str, _listed(values.get("arms", ()))))
    values["bound"] = _bound(values["bound"], values["direction"], f"{at}.bound")
    values["levels"] = tuple(_number(each, f"{at}.levels") for each in _listed(values.get("levels", ())))
    for key in ("at", "less"):
        if values.get(key) is not None:
            values[key] = _stage(values[key], f"{at}.{key}")
    if values.get("diverged") is not None:
        values["diverged"] = _number(values["diverged"], f"{at}.diverged")
    clause = Clause(**values)
    _check_comparison(clause, at)
    return clause


def _listed(raw: Any) -> Sequence[Any]:
    return raw if isinstance(raw, list | tuple) else (raw,)


def _number(raw: Any, at: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise UserError(f"{at}: {shown(raw)} is not allowed; must be a number")
    return float(raw)


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
    wanted = {"value": (0, 1), "difference": (2,), "ratio": (2,)}.get(clause.compare)
    if wanted and len(clause.arms) not in wanted:
        raise UserError(f"{at}.arms: `{clause.compare}` takes {max(wanted)}, got {len(clause.arms)}")
    if clause.compare != "correlation":
        if clause.against or clause.levels:
            raise UserError(f"{at}: `against` and `levels` belong to `compare: correlation`")
    elif bool(clause.against) == bool(clause.levels):
        raise UserError(f"{at}: a correlation takes `against` (another quantity) or `levels` (a number for each arm)")
    elif clause.levels and len(clause.levels) != len(clause.arms):
        raise UserError(f"{at}.levels: {len(clause.levels)} levels for {len(clause.arms)} arms")
    if clause.compare == "ratio" and clause.direction == "within":
        raise UserError(f"{at}: a ratio is `above` or `below` a bound; write two clauses")


def clause_text(clause: Clause) -> str:
    """The clause in one line: ``dead_units, last tenth: default - tuned > 0.2``."""
    what = clause.what if clause.within == "end" else f"{clause.within} {clause.what} of a visit"
    head = f"{what}, {_stage_text(clause)}" if clause.arms else clause.what
    if clause.compare == "correlation":
        arms = f" over {', '.join(clause.arms)}" if len(clause.arms) <= 4 else f" over {len(clause.arms)} arms"
        head = f"Spearman of ({head}) with {clause.against or 'the level'}{arms}"
    elif clause.arms:
        joint = {"difference": " - ", "ratio": " / "}.get(clause.compare, "")
        head = f"{head}: {joint.join(clause.arms)}"
    if clause.direction == "within":
        return f"{head} in [{clause.bound[0]:g}, {clause.bound[1]:g}]"
    return f"{head} {'>' if clause.direction == 'above' else '<'} {clause.bound[0]:g}"


STAGE_WORDS = {
    "first": "first tenth", "last": "last tenth", "all": "all visits", "end": "last visit", "slope": "slope by visit",
}  # fmt: skip


def _stage_text(clause: Clause) -> str:
    def name(stage: Stage) -> str:
        if isinstance(stage, tuple):
            return f"{100 * stage[0]:g}-{100 * stage[1]:g} % of the visits"
        if isinstance(stage, int):
            return f"visit {stage + 1 if stage >= 0 else stage}"  # shown from 1 on, as everywhere
        return STAGE_WORDS[stage]

    return name(clause.at) if clause.less is None else f"{name(clause.at)} minus {name(clause.less)}"
