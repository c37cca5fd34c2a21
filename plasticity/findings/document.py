"""A finding's file: the published claim, its source, the criterion for this replication, and the experiment."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from plasticity.config.documents import merged
from plasticity.core.errors import UserError, shown, unknown
from plasticity.findings.correction import CORRECTIONS, Correction
from plasticity.findings.criterion import (
    BEHAVIOUR,
    LEAST,
    TRANSFER,
    Clause,
    Group,
    check_keys,
    clauses,
    parse_criterion,
)
from plasticity.findings.quantities import AGENT, is_evaluation, known
from plasticity.monitors.restriction import prefix_of

FILE = ("finding", "experiment", "parts", "full", "exact")
NEEDED = ("id", "title", "source", "published", "minutes", "criterion")
FINDING = (*NEEDED, "correction")


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """A published result and the criterion for its replication."""

    name: str  # of the file
    id: str
    title: str
    source: str
    published: str
    minutes: float  # estimated, on two CPU cores
    criterion: Group
    correction: Correction = "none"  # of the confidence of its clauses
    exact: str | None  # the function of ``plasticity.findings.exact`` that computes its numbers
    parts: Mapping[str, Any]  # config of each run; a single run is named ""
    full: Mapping[str, Any]  # the same at the published size
    written: Any  # the criterion as written in the file

    def runs(self, full: bool) -> Mapping[str, Any]:
        return self.full if full else self.parts

    def content(self, full: bool = False) -> dict[str, Any]:
        """What a result depends on: the criterion, its correction, and the configs of the runs, as written."""
        correction = {} if self.correction == "none" else {"correction": self.correction}
        return {"criterion": self.written, "runs": self.runs(full), "exact": self.exact, **correction}

    def digest(self, full: bool = False) -> str:
        """A hash of :meth:`content`."""
        content = json.dumps(list(self.content(full).values()), sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def parse_finding(raw: Any, name: str, source: str, exact: Sequence[str]) -> Finding:
    """Parse a finding from plain data. ``exact``: the names of the functions of exact findings.

    ``UserError``, starting with ``source``, for a key, an arm, a quantity or a value that is not allowed, and for an
    experiment with fewer than 8 seeds.
    """
    if not isinstance(raw, Mapping):
        raise UserError(f"{source}: must be a mapping with the keys {', '.join(FILE)}")
    check_keys(raw, FILE, source)
    facts = raw.get("finding")
    if not isinstance(facts, Mapping):
        raise UserError(f"{source}: finding: must be a mapping with the keys {', '.join(FINDING)}")
    check_keys(facts, FINDING, f"{source}: finding")
    missing = [key for key in NEEDED if key not in facts]
    if missing:
        raise UserError(f"{source}: finding: `{missing[0]}` is missing")
    criterion = parse_criterion(facts["criterion"], f"{source}: finding.criterion")
    text = {key: _text(facts[key], f"{source}: finding.{key}") for key in ("id", "title", "source", "published")}
    parts, full = _parts(raw, source, exact)
    if parts:
        _check(criterion, parts, source)
        _check(criterion, full, f"{source}: full")
    return Finding(
        name=name,
        **text,
        minutes=_minutes(facts["minutes"], source),
        criterion=criterion,
        correction=_correction(facts.get("correction", "none"), bool(parts), source),
        exact=raw.get("exact"),
        parts=parts,
        full=full,
        written=facts["criterion"],
    )


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{at}: {shown(value)} is not allowed; must be text")
    return " ".join(value.split())


def _correction(value: Any, measured: bool, source: str) -> Correction:
    at = f"{source}: finding.correction"
    if value not in CORRECTIONS:
        raise UserError(f"{at}: {unknown(shown(value), str(value), CORRECTIONS, 'allowed')}")
    if value != "none" and not measured:
        raise UserError(f"{at}: {shown(value)} is not allowed; an exact finding has no intervals to correct")
    return cast(Correction, value)


def _minutes(value: Any, source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise UserError(f"{source}: finding.minutes: {shown(value)} is not allowed; must be a number of at least 0")
    return float(value)


def _parts(raw: Mapping[str, Any], source: str, exact: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configs of the runs, and those at the published size; empty for an exact finding."""
    if ("exact" in raw) == ("experiment" in raw):
        raise UserError(f"{source}: must have either `experiment` or `exact`")
    if "exact" in raw:
        if raw["exact"] not in exact:
            raise UserError(f"{source}: exact: {unknown(shown(raw['exact']), str(raw['exact']), exact)}")
        return {}, {}
    for key in ("experiment", "parts", "full"):
        if not isinstance(raw.get(key, {}), Mapping):
            raise UserError(f"{source}: {key}: {shown(raw[key])} is not allowed; must be a mapping")
    parts = {str(name): change or {} for name, change in raw.get("parts", {"": {}}).items()}
    wrong = [name for name in parts if "/" in name]
    if wrong or not parts:
        raise UserError(f"{source}: parts: {shown(wrong[0]) if wrong else 'an empty mapping'} is not allowed")
    small = {name: merged(raw["experiment"], change) for name, change in parts.items()}
    large = {name: merged(merged(raw["experiment"], raw.get("full", {})), change) for name, change in parts.items()}
    return small, large


def _check(criterion: Group, parts: Mapping[str, Any], source: str) -> None:
    """``UserError`` if a clause names an arm or a quantity that does not exist, or if there are too few seeds."""
    swept = {}
    for part, config in parts.items():
        seeds = config.get("seeds", 1)
        count = len(seeds) if isinstance(seeds, list) else seeds
        if not isinstance(count, int) or count < LEAST:
            raise UserError(f"{source}: experiment.seeds: {shown(seeds)} is not allowed; must be {LEAST} or more")
        for arm, change in (config.get("arms") or {"baseline": {}}).items():
            label = f"{part}/{arm}" if part else str(arm)
            swept[label] = bool(config.get("sweep") or (change or {}).get("sweep")) and not config.get("tune")
    monitors = [_named(each) for config in parts.values() for each in config.get("monitors", ())]
    asked = {what for clause in clauses(criterion) for what in (clause.what, clause.against)}
    evaluated = [what for what in asked if what and is_evaluation(what)]
    if evaluated and not all(config.get("evaluation") for config in parts.values()):
        raise UserError(f"{source}: criterion: the quantity `{evaluated[0]}` needs `experiment.evaluation`")
    transfer = [what for what in TRANSFER if what in asked]
    if transfer and not all(_evaluates_others(config.get("evaluation")) for config in parts.values()):
        raise UserError(
            f"{source}: criterion: the quantity `{transfer[0]}` needs "
            "`experiment.evaluation: {every: visit, tasks: seen}` (or tasks: all)"
        )
    if "relative_speed" in asked and not all(map(_has_control, parts.values())):
        raise UserError(f"{source}: criterion: the quantity `relative_speed` needs an arm `fresh` or a `control`")
    for clause in clauses(criterion):
        _check_clause(clause, swept, monitors, source)


def _evaluates_others(evaluation: Any) -> bool:
    """Whether earlier tasks are evaluated at the end of every visit."""
    if not isinstance(evaluation, Mapping):
        return False
    return evaluation.get("every", "visit") == "visit" and evaluation.get("tasks") in ("seen", "all")


def _has_control(config: Mapping[str, Any]) -> bool:
    arms = config.get("arms") or {}
    return "fresh" in arms or any(isinstance(change, Mapping) and change.get("control") for change in arms.values())


def _named(monitor: Any) -> str:
    """What the names of the monitor's metrics begin with."""
    if not isinstance(monitor, Mapping):
        return str(monitor)
    modules = monitor.get("modules")
    return f"{prefix_of(modules) if isinstance(modules, list) else ''}{monitor.get('kind')}"


def _check_clause(clause: Clause, swept: Mapping[str, bool], monitors: list[str], source: str) -> None:
    at = f"{source}: criterion"
    for arm in clause.arms:
        if arm not in swept:
            raise UserError(f"{at}: {unknown(f'arm `{arm}`', arm, swept)}")
        if swept[arm] and clause.compare != "correlation":
            raise UserError(f"{at}: arm `{arm}` has a sweep, which only a correlation can use; make each point an arm")
    if not clause.arms and clause.compare != "correlation":
        raise UserError(f"{at}: `arms` is missing in the clause on {clause.what}")
    for what in filter(None, (clause.what, clause.against)):
        if not known(monitors, what):
            names = [*BEHAVIOUR, *monitors]
            raise UserError(f"{at}: {unknown(f'quantity `{what}`', what, names)} (an agent's metric: {AGENT}NAME)")
