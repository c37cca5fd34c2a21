"""The table of findings: what was claimed, what must come out, what came out."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from plasticity.findings.criterion import clauses, told
from plasticity.findings.document import Finding

COLUMNS = ("finding", "source", "criterion", "number and interval", "verdict", "minutes")
ROWS = 8  # clauses of one finding, at most; the others are in its result


def show(console: Console, findings: Sequence[Finding], found: Mapping[str, Mapping[str, Any] | str | None]) -> None:
    """A row for each clause of each finding; ``found``: its result, what went wrong, or None where it has not run."""
    table = Table(title="findings", title_justify="left", show_lines=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold", justify="right" if name == "minutes" else "left")
    for finding in findings:
        for row in rows(finding, found.get(finding.name)):
            table.add_row(*map(Text, row))
        table.add_section()
    console.print(table)


def rows(finding: Finding, found: Mapping[str, Any] | str | None) -> list[tuple[str, ...]]:
    """The finding's lines as texts, in the order of ``COLUMNS``."""
    if isinstance(found, str) or found is None:
        texts = [(told(clause), "") for clause in clauses(finding.criterion)]
        verdict, minutes = found or "not run", f"~{finding.minutes:g}"
    else:
        texts = [(_marked(each), number(each)) for each in found["clauses"]]
        verdict, minutes = "PASS" if found["passed"] else "FAIL", f"{found['minutes']:.1f}"
    if finding.criterion.needs == "any" and len(texts) > 1:
        texts[0] = (f"any of: {texts[0][0]}", texts[0][1])
    more = len(texts) - ROWS
    if more > 0:
        texts = [*texts[:ROWS], (f"... and {more} more", "")]
    first = (f"{finding.id} {finding.title}", finding.source)
    return [
        (*(first if i == 0 else ("", "")), *text, *((verdict, minutes) if i == 0 else ("", "")))
        for i, text in enumerate(texts)
    ]


def _marked(clause: Mapping[str, Any]) -> str:
    return clause["text"] if clause["holds"] else f"{clause['text']} (does not hold)"


def number(clause: Mapping[str, Any]) -> str:
    """``-0.816 [-0.817, -0.814]``, with the seeds where some are missing."""
    if clause["number"] is None:
        return "-"
    bounds = [clause["low"], clause["high"]]
    text = f"{clause['number']:.3g}"
    if bounds != [clause["number"]] * 2:
        text += " [{}, {}]".format(*("..." if each is None else f"{each:.3g}" for each in bounds))
    return text
