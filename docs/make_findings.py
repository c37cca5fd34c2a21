"""Write docs/findings.md from the findings' files, their results and the notes in docs/findings.

plasticity findings
python docs/make_findings.py runs/findings      # copies results and figures from the runs, then writes the page
python docs/make_findings.py                    # only writes the page

``docs/findings/opening.md`` opens the page, and ``docs/findings/NAME.md`` ends the section of a finding.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity.findings import EXACT_NAMES, Finding, load_findings
from plasticity.findings.criterion import Group, clauses
from plasticity.findings.figure import figure
from plasticity.findings.run import is_current
from plasticity.findings.show import by_task, correction_text, judged, taken
from plasticity.findings.wording import clause_text

DOCS = Path(__file__).resolve().parent
NOTES, RESULTS, FIGURES = DOCS / "findings", DOCS / "findings" / "results.json", DOCS / "figures"
TABLES = {"values": "values by seed", "visits": "means by visit"}  # folders of tables, NAME.csv each
HEAD = (
    "<!-- Made by docs/make_findings.py from configs/paper, docs/findings and the results of `plasticity findings`. -->"
)
STANDARD = """## How a finding is judged

`plasticity findings [NAME ...]` runs the findings that have no result yet, resumes interrupted ones, and prints
verdicts and numbers; `--list` prints them without running, `--plan` shows what would run, `--full` uses the
published size. Each file in `configs/paper` contains what the source reports, the criterion with its reasons, and
the experiment. It was committed before the run, and a criterion is never changed after its result is known. A clause
`holds` if its 95 % t interval, over 8 seeds or more and paired by seed in comparisons of arms, lies entirely on the
required side of its bound. If the interval lies entirely on the other side, the clause `does not hold`; if it
contains the bound, the clause is `inconclusive`, which fails the criterion. Without a stated correction, each interval
is 95 % by itself. Minutes are for two CPU cores, partly busy with other work. [Judge a finding](howto/finding.md)
describes the language of criteria and the columns of the tables of values by seed."""


def take_over(findings: Iterable[Finding], runs: Path) -> None:
    """Copy results to ``results.json``, figures to ``figures/finding_NAME.png``, tables to ``values``, ``visits``."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for finding in findings:
        path = runs / finding.name / "result.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        before = kept.get(finding.name, {})
        kept[finding.name] = {key: value for key, value in result.items() if key != "versions"}
        for kind in TABLES:
            made, place = path.with_name(f"{kind}.csv"), table_path(finding, kind)
            if made.exists():
                place.parent.mkdir(exist_ok=True)
                place.write_text(made.read_text(encoding="utf-8"), encoding="utf-8")
            elif before.get("clauses") != result["clauses"]:
                place.unlink(missing_ok=True)  # of an earlier result
        if finding.parts:
            drawn = figure(finding, {part: path.parent / (part or "run") for part in finding.parts})
            drawn.savefig(figure_path(finding), dpi=80)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def figure_path(finding: Finding) -> Path:
    return FIGURES / f"finding_{finding.name}.png"


def table_path(finding: Finding, kind: str) -> Path:
    return NOTES / kind / f"{finding.name}.csv"


def page(findings: Iterable[Finding], results: Mapping[str, Any]) -> str:
    """Return the page as text."""
    listed = list(findings)
    opening = note("opening") or "# Findings"
    parts = [opening, HEAD, STANDARD, overview(listed, results), *(section(each, results) for each in listed)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def note(name: str) -> str:
    path = NOTES / f"{name}.md"
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def overview(findings: list[Finding], results: Mapping[str, Any]) -> str:
    rows = ["| finding | | verdict | time |", "|---|---|---|---|"]
    for each in findings:
        title = f"{each.id} [{each.title}](#{anchor(each)})"
        rows.append(f"| {title} | `{each.name}` | {verdict(each, results)} | {taken(each, results.get(each.name))} |")
    return "\n".join(rows)


def heading(finding: Finding) -> str:
    return f"{finding.id}: {finding.title}"


def anchor(finding: Finding) -> str:
    """Return the anchor of the heading on the page."""
    return re.sub(r"[^\w -]", "", heading(finding)).lower().replace(" ", "-")


def verdict(finding: Finding, results: Mapping[str, Any]) -> str:
    result = results.get(finding.name)
    if result is None:
        return "not run"
    if not is_current(finding, result):
        return "run with another criterion or config"
    return "**PASS**" if result["passed"] else "**FAIL**"


def section(finding: Finding, results: Mapping[str, Any]) -> str:
    """Return the section of a finding: source, published result, criterion and outcome, figure, verdict, note."""
    result = results.get(finding.name)
    lines = [f"## {heading(finding)}", f"{finding.source}."]
    lines += [f"*Published.* {finding.published}"]
    needs = "any one of" if finding.criterion.needs == "any" else "all of"
    needs += f" these, {correction_text(finding)}" if correction_text(finding) else " these"
    where = f"`configs/paper/{finding.name}.yaml`, {taken(finding, result)}"
    lines += [f"*Criterion* ({needs}) and outcome ({where}):", table(finding, result)]
    image = figure_path(finding)
    lines += [f"![{finding.title}](figures/{image.name})"] if image.exists() else []
    if result is not None and is_current(finding, result):
        lines += [with_tables(finding), tasks(finding, result)]
    lines += [f"Verdict: {verdict(finding, results)}.", note(finding.name)]
    return "\n\n".join(filter(None, lines))


def with_tables(finding: Finding) -> str:
    """Return links to the tables of the finding."""
    places = {text: table_path(finding, kind) for kind, text in TABLES.items()}
    links = [f"[{text}]({place.relative_to(DOCS).as_posix()})" for text, place in places.items() if place.exists()]
    return f"Tables: {', '.join(links)}." if links else ""


def tasks(finding: Finding, result: Mapping[str, Any]) -> str:
    """Return the verdict of each task that the criterion names."""
    each = [f"`{task}` **{word}**" for task, word in by_task(finding, result).items()]
    return f"By task: {', '.join(each)}." if each else ""


def table(finding: Finding, result: Mapping[str, Any] | None) -> str:
    rows = ["| clause | number [interval] | |", "|---|---|---|"]
    if result is None or not is_current(finding, result):
        cells: list[Sequence[str]] = [(clause_text(each), "", "") for each in clauses(finding.criterion)]
    else:
        cells = list(judged(finding, result))
    return "\n".join([*rows, *(f"| {' | '.join(row)} |" for row in in_groups(finding.criterion, iter(cells)))])


def in_groups(criterion: Group, rows: Iterator[Sequence[str]], depth: int = 0) -> Iterator[Sequence[str]]:
    """The rows of the clauses, with a row before each group that says how many of its clauses are needed."""
    mark = "&nbsp;&nbsp;" * depth
    for part in criterion.clauses:
        if isinstance(part, Group):
            yield f"{mark}*{'any one' if part.needs == 'any' else 'all'} of:*", "", ""
            yield from in_groups(part, rows, depth + 1)
        else:
            text, *others = next(rows)
            yield mark + text, *others


def main() -> None:
    findings = load_findings([], EXACT_NAMES, DOCS.parent / "configs" / "paper")
    if len(sys.argv) > 1:
        take_over(findings, Path(sys.argv[1]))
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    (DOCS / "findings.md").write_text(page(findings, results), encoding="utf-8")


if __name__ == "__main__":
    main()
