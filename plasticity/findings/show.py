"""Findings on a terminal: the claim, the criterion and the result."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from plasticity.findings.criterion import Clause, Group, clauses
from plasticity.findings.document import Finding
from plasticity.findings.judge import passes
from plasticity.findings.wording import clause_text

SOON = 0.1  # minutes
ROWS = 8  # clauses of one finding, at most; all are in its result
STYLES = {"PASS": "bold green", "FAIL": "bold red"}
Found = Mapping[str, Any] | str | None  # a result, an error message, or None if the finding has not run


def section(console: Console, finding: Finding, found: Found) -> None:
    """Print verdict and title, source and time, and a row for each clause."""
    word = verdict(found)
    console.print(Text.assemble((word, STYLES.get(word, "")), f"  {finding.id} {finding.title}"))
    console.print(Padding(Text(f"{finding.source}; {finding.name}, {taken(finding, found)}"), (0, 0, 0, 4)))
    table = Table.grid(padding=(0, 2))
    for row in rows(finding, found):
        table.add_row(*map(Text, row))
    notes = filter(None, (correction_text(finding), ", ".join(f"{t} {v}" for t, v in by_task(finding, found).items())))
    console.print(Padding(table, (0, 0, 0, 4)))
    for note in notes:
        console.print(Padding(Text(note), (0, 0, 0, 4)))
    console.print()


def overview(console: Console, findings: Sequence[Finding], found: Mapping[str, Found]) -> None:
    """Print a line for each finding and the number of each verdict."""
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        word = verdict(found.get(finding.name))
        time = taken(finding, found.get(finding.name))
        table.add_row(Text(word, STYLES.get(word, "")), finding.id, Text(finding.name), Text(time))
    console.print(table)
    counts = Counter(verdict(found.get(finding.name)) for finding in findings)
    console.print(Text(", ".join(f"{count} {word}" for word, count in counts.items())))


def verdict(found: Found) -> str:
    if isinstance(found, str) or found is None:
        return found or "not run"
    return "PASS" if found["passed"] else "FAIL"


def by_task(finding: Finding, found: Found) -> dict[str, str]:
    """The verdict of each task that clauses name: that of the criterion with the clauses of this task only.

    Empty if no clause names a task or there is no result.
    """
    if not isinstance(found, Mapping):
        return {}
    whole, held = list(clauses(finding.criterion)), [bool(each["holds"]) for each in found["clauses"]]
    verdicts = {}
    for task in dict.fromkeys(clause.of_task for clause in whole if clause.of_task):
        part = _of_task(finding.criterion, task)
        kept = [holds for clause, holds in zip(whole, held, strict=True) if clause.of_task == task]
        verdicts[str(task)] = "PASS" if part is not None and passes(part, kept) else "FAIL"
    return verdicts


def _of_task(criterion: Clause | Group, task: str) -> Clause | Group | None:
    """The criterion without the clauses on other tasks or none; None if nothing is left."""
    if isinstance(criterion, Clause):
        return criterion if criterion.of_task == task else None
    parts = [part for part in (_of_task(each, task) for each in criterion.clauses) if part is not None]
    return Group(criterion.needs, tuple(parts)) if parts else None


def correction_text(finding: Finding) -> str:
    """The correction in words; empty if there is none."""
    if finding.correction == "none":
        return ""
    name = {"bonferroni": "Bonferroni", "holm": "Holm"}[finding.correction]
    return f"{name} correction over {sum(1 for _ in clauses(finding.criterion))} clauses"


def taken(finding: Finding, found: Found) -> str:
    """The time taken, or the estimated time."""
    if not isinstance(found, Mapping):
        return f"about {finding.minutes:g} minutes"
    return f"{found['minutes']:.1f} minutes" if found["minutes"] >= SOON else "seconds"


def rows(finding: Finding, found: Found) -> list[tuple[str, str, str]]:
    """``criterion, number and interval, whether it holds`` for each clause, or the first few if there are many.

    If any of several parts is sufficient, those that hold come first.
    """
    if isinstance(found, Mapping):
        texts = _held_first(finding.criterion, judged(finding, found))
    else:
        texts = [(clause_text(clause), "", "") for clause in clauses(finding.criterion)]
    if finding.criterion.needs == "any" and len(texts) > 1:
        texts[0] = (f"any of: {texts[0][0]}", *texts[0][1:])
    more = len(texts) - ROWS
    return texts if more <= 0 else [*texts[:ROWS], (f"... and {more} more", "", "")]


def judged(finding: Finding, found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """All clauses of a result, in the order of the file."""
    pairs = zip(clauses(finding.criterion), found["clauses"], strict=True)
    return [(clause_text(clause), number(each), outcome(clause, each)) for clause, each in pairs]


def outcome(clause: Clause, found: Mapping[str, Any]) -> str:
    """``holds``; ``does not hold`` if the whole interval lies on the wrong side of the bound; else ``inconclusive``.

    Of several contrasts, one that lies on the wrong side is enough.
    An inconclusive clause fails the criterion but is not evidence against it.
    """
    if found["holds"]:
        return "holds"
    pairs = [pair[1:] for pair in found.get("contrasts", ())] or [[found["low"], found["high"]]]
    wrong = (_wrong_side(clause, *(math.nan if end is None else float(end) for end in pair)) for pair in pairs)
    return "does not hold" if any(wrong) else "inconclusive"


def _wrong_side(clause: Clause, low: float, high: float) -> bool:
    below = clause.direction != "below" and high <= clause.bound[0]
    above = clause.direction != "above" and low >= clause.bound[-1]
    return below or above


def _held_first(criterion: Group, texts: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    if criterion.needs == "all":
        return texts
    left: Iterator[tuple[str, str, str]] = iter(texts)
    parts = [list(islice(left, sum(1 for _ in clauses(part)))) for part in criterion.clauses]
    return [text for part in sorted(parts, key=lambda part: sum(row[2] != "holds" for row in part)) for text in part]


def number(clause: Mapping[str, Any]) -> str:
    """The statistic with its interval: ``-0.816 [-0.817, -0.814]``; of contrasts, one after the other."""
    pairs = clause.get("contrasts") or [[clause["number"], clause["low"], clause["high"]]]
    never = f" ({clause['never']} lanes never)" if clause.get("never") else ""
    return ", ".join(_with_interval(*pair) for pair in pairs) + never


def _with_interval(number: float | None, low: float | None, high: float | None) -> str:
    if number is None:
        return "-"
    if low == high == number:
        return f"{number:.3g}"
    ends = ("..." if each is None else f"{each:.3g}" for each in (low, high))
    return "{:.3g} [{}, {}]".format(number, *ends)
