"""Clauses in words, one line each."""

import itertools
from collections.abc import Sequence

from plasticity.findings.criterion import Clause, Stage

STAGE_WORDS = {
    "first": "first tenth", "last": "last tenth", "all": "all visits", "end": "last visit", "slope": "slope by visit",
}  # fmt: skip
FEW = 4  # arms that are listed


def clause_text(clause: Clause) -> str:
    """The clause in one line: ``dead_units, last tenth: default - tuned > 0.2``."""
    head = quantity_text(clause) if clause.arms else clause.what
    if clause.compare in ("correlation", "slope"):
        arms = f" over {', '.join(clause.arms)}" if len(clause.arms) <= FEW else f" over {len(clause.arms)} arms"
        head = f"{'Spearman' if clause.compare == 'correlation' else 'slope'} of ({head}) "
        head += f"{'with' if clause.compare == 'correlation' else 'by'} {clause.against or 'the level'}{arms}"
    elif clause.arms:
        head = f"{head}: {', '.join(compared(clause))}"
    if clause.direction == "within":
        return f"{head} in [{clause.bound[0]:g}, {clause.bound[1]:g}]"
    return f"{head} {'>' if clause.direction == 'above' else '<'} {clause.bound[0]:g}"


def compared(clause: Clause) -> list[str]:
    """What is compared with the bound: ``a - b``; for contrasts, each arm minus the one before it."""
    if clause.compare == "contrasts":
        return [f"{after} - {before}" for before, after in neighbours(clause.arms)]
    if clause.compare == "difference_of_differences":
        return ["({} - {}) - ({} - {})".format(*clause.arms)]
    return [{"difference": " - ", "ratio": " / "}.get(clause.compare, "").join(clause.arms)]


def neighbours(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Each arm with the next one."""
    return list(itertools.pairwise(arms))


def quantity_text(clause: Clause) -> str:
    """What is measured, and in which visits: ``performance in pong, last tenth``."""
    task = f" in {clause.task}" if clause.task else ""
    if clause.at == "time":
        return f"visits{task and f' to {clause.task}'} until {_recorded(clause)} {_threshold(clause)}"
    return f"{_recorded(clause)}{task}, {_stages_text(clause)}"


def measured_text(clause: Clause) -> str:
    """What is measured in each visit, without the visits: ``steps until performance >= 0.9 in pong``."""
    return f"{_recorded(clause)} in {clause.task}" if clause.task else _recorded(clause)


def _recorded(clause: Clause) -> str:
    if clause.within == "time":
        return f"steps until {clause.what} {_threshold(clause)}"
    return clause.what if clause.within == "end" else f"{clause.within} {clause.what} of a visit"


def _threshold(clause: Clause) -> str:
    return f"{'>=' if clause.crossing == 'up' else '<='} {clause.threshold:g}"


def stage_text(stage: Stage) -> str:
    """The visits of a stage: ``last tenth``; visits are counted from 1, as everywhere in what is shown."""
    if isinstance(stage, tuple):
        return f"{100 * stage[0]:g}-{100 * stage[1]:g} % of the visits"
    if isinstance(stage, int):
        return f"visit {stage + 1 if stage >= 0 else stage}"
    return STAGE_WORDS[stage]


def _stages_text(clause: Clause) -> str:
    at = stage_text(clause.at)
    return at if clause.less is None else f"{at} minus {stage_text(clause.less)}"
