"""Writes docs/findings.md: the findings' files, what came out, and what is to be said about it.

plasticity findings
python docs/make_findings.py runs/findings      # takes results and figures over from the runs
python docs/make_findings.py                    # the page alone

``docs/findings/opening.md`` opens the page and ``docs/findings/NAME.md`` ends the section of a finding.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plasticity.findings import EXACT_NAMES, Finding, load_findings
from plasticity.findings.criterion import clauses, told
from plasticity.findings.figure import figure
from plasticity.findings.show import judged, taken

DOCS = Path(__file__).resolve().parent
NOTES, RESULTS, FIGURES = DOCS / "findings", DOCS / "findings" / "results.json", DOCS / "figures"
HEAD = (
    "<!-- Made by docs/make_findings.py from configs/paper, docs/findings and the results of `plasticity findings`. -->"
)
STANDARD = """## How a finding is judged

`plasticity findings [NAME ...]` runs what has no result yet, goes on where it was stopped, and prints verdicts and
numbers; `--list` prints them without running, `--plan` says what would run, `--full` takes the published size. Each
file in `configs/paper` holds what the source reports, the criterion with its reasons, and the experiment. It was
committed before it was run, and a criterion is not changed after its result. A clause holds where its 95 % t interval,
over 8 seeds or more and paired by seed where arms are compared, lies wholly on the right side of its bound. Where it
lies wholly on the other side the clause `does not hold`; where it contains the bound it is `inconclusive`, which is not
enough for the criterion. Minutes are those of two CPU cores, some of them busy with other things."""


def take_over(findings: Iterable[Finding], runs: Path) -> None:
    """Results into ``results.json``, figures into ``figures/finding_NAME.png``."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for finding in findings:
        path = runs / finding.name / "result.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        kept[finding.name] = {key: value for key, value in result.items() if key != "versions"}
        if finding.parts:
            drawn = figure(finding, {part: path.parent / (part or "run") for part in finding.parts})
            drawn.savefig(figure_path(finding), dpi=80)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def figure_path(finding: Finding) -> Path:
    return FIGURES / f"finding_{finding.name}.png"


def page(findings: Iterable[Finding], results: Mapping[str, Any]) -> str:
    """The page as text."""
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
    """Where a browser of the page finds the heading."""
    return re.sub(r"[^\w -]", "", heading(finding)).lower().replace(" ", "-")


def verdict(finding: Finding, results: Mapping[str, Any]) -> str:
    result = results.get(finding.name)
    if result is None:
        return "not run"
    if result["digest"] != finding.digest():
        return "run with another criterion or config"
    return "**PASS**" if result["passed"] else "**FAIL**"


def section(finding: Finding, results: Mapping[str, Any]) -> str:
    """Source, published, ours, figure, time, verdict, and what is to be said."""
    result = results.get(finding.name)
    lines = [f"## {heading(finding)}", f"{finding.source}."]
    lines += [f"*Published.* {finding.published}"]
    needs = "any one of" if finding.criterion.needs == "any" else "all of"
    where = f"`configs/paper/{finding.name}.yaml`, {taken(finding, result)}"
    lines += [f"*Criterion* ({needs} these), and what came out ({where}):", table(finding, result)]
    image = figure_path(finding)
    lines += [f"![{finding.title}](figures/{image.name})"] if image.exists() else []
    lines += [f"Verdict: {verdict(finding, results)}.", note(finding.name)]
    return "\n\n".join(filter(None, lines))


def table(finding: Finding, result: Mapping[str, Any] | None) -> str:
    rows = ["| clause | number [interval] | |", "|---|---|---|"]
    if result is None or result["digest"] != finding.digest():
        return "\n".join([*rows, *(f"| {told(each)} | | |" for each in clauses(finding.criterion))])
    return "\n".join([*rows, *(f"| {' | '.join(row)} |" for row in judged(finding, result))])


def main() -> None:
    findings = load_findings([], EXACT_NAMES, DOCS.parent / "configs" / "paper")
    if len(sys.argv) > 1:
        take_over(findings, Path(sys.argv[1]))
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    (DOCS / "findings.md").write_text(page(findings, results), encoding="utf-8")


if __name__ == "__main__":
    main()
