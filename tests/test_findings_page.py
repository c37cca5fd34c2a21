"""The page of findings agrees with their files and results."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from plasticity.cli import main
from plasticity.findings import EXACT_NAMES, load_findings
from plasticity.findings.correction import CORRECTIONS
from plasticity.findings.criterion import BEHAVIOUR, CLAUSE, STAGES, Compare, Within, clauses
from plasticity.findings.run import is_current

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield __import__("make_findings")
    sys.modules.pop("make_findings")


def result(finding, **changes):
    held = [{"number": 6.5, "low": 6.5, "high": 6.5, "seeds": 2, "holds": True} for _ in clauses(finding.criterion)]
    return {"digest": finding.digest(), "passed": True, "minutes": 0.25, "clauses": held, **changes}


def test_a_section(pages):
    (finding,) = load_findings(["adam_over_step"], EXACT_NAMES)
    text = pages.section(finding, {finding.name: result(finding)})
    assert "| peak in [6.567, 6.57] | 6.5 | holds |" in text
    assert "Verdict: **PASS**." in text
    assert "0.2 minutes" in text
    failed = pages.section(finding, {finding.name: result(finding, passed=False)})
    assert "Verdict: **FAIL**." in failed
    assert "not run" in pages.section(finding, {})


def test_a_section_shows_which_clauses_are_needed_together(pages):
    (finding,) = load_findings(["transformer_units"], EXACT_NAMES)
    rows = pages.section(finding, {finding.name: result(finding)}).splitlines()
    (group,) = (i for i, row in enumerate(rows) if "any one of" in row)
    assert rows[group] == "| *any one of:* |  |  |"
    assert [row.split(": ")[1].split(" - ")[0] for row in rows[group + 1 : group + 4]] == ["trac", "c_chain", "l2_init"]
    assert all(row.startswith("| &nbsp;&nbsp;performance") for row in rows[group + 1 : group + 4])
    assert rows[group - 1].startswith("| performance, last tenth: selective_weight_reinit - baseline < 0.1")


def test_a_section_has_the_values_the_correction_and_a_verdict_of_each_task(pages, monkeypatch, tmp_path):
    (finding,) = load_findings(["continual_control"], EXACT_NAMES)
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    monkeypatch.setattr(pages, "NOTES", tmp_path / "findings")
    one = result(finding)
    asked = list(clauses(finding.criterion))
    for each, clause in zip(one["clauses"], asked, strict=True):
        each["holds"] = clause.what == "evaluation/physics_0"
    text = pages.section(finding, {finding.name: one})
    assert "By task: `physics_0` **PASS**, `physics_1` **FAIL**." in text
    assert "values by seed" not in text
    assert "*Criterion* (all of these) and outcome" in text
    for kind in ("values", "visits"):
        (tmp_path / "findings" / kind).mkdir(parents=True)
        pages.table_path(finding, kind).write_text("")
    corrected = dataclasses.replace(finding, correction="holm")
    text = pages.section(corrected, {finding.name: result(corrected)})
    name = "continual_control.csv"
    assert f"Tables: [values by seed](findings/values/{name}), [means by visit](findings/visits/{name})." in text
    assert "*Criterion* (all of these, Holm correction over 14 clauses) and outcome" in text


@pytest.mark.parametrize("kind", ["values", "visits"])
def test_tables_are_copied_and_those_of_another_result_go(pages, monkeypatch, tmp_path, kind):
    (finding,) = load_findings(["adam_over_step"], EXACT_NAMES)
    for name, place in (("NOTES", tmp_path), ("RESULTS", tmp_path / "results.json")):
        monkeypatch.setattr(pages, name, place)
    run = tmp_path / "runs" / finding.name
    run.mkdir(parents=True)

    def take(number, text):
        one = result(finding)
        one["clauses"][0]["number"] = number
        (run / "result.json").write_text(json.dumps(one))
        (run / f"{kind}.csv").unlink(missing_ok=True)
        if text:
            (run / f"{kind}.csv").write_text(text)
        pages.take_over([finding], tmp_path / "runs")
        place = pages.table_path(finding, kind)
        return place.read_text() if place.exists() else None

    assert take(1.0, "") is None
    assert take(2.0, "some") == "some"
    assert take(2.0, "") == "some"  # the same result of an earlier version
    assert take(3.0, "") is None


def test_the_example_of_the_page_on_criteria(tmp_path):
    """The finding in docs/howto/finding.md is valid, and the page's table of keys has them all."""
    page = (DOCS / "howto/finding.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    (finding,) = load_findings([str(path)], EXACT_NAMES)
    assert finding.correction == "holm"
    planned = CliRunner().invoke(main.app, ["findings", str(path), "--plan"])
    assert planned.exit_code == 0, planned.output
    rows = " ".join(line for line in page.splitlines() if line.startswith("|"))
    known = [*CLAUSE, *get_args(Compare), *CORRECTIONS, *STAGES, *get_args(Within), *BEHAVIOUR]
    assert [name for name in known if f"`{name}`" not in rows] == []


def test_a_result_of_another_criterion_is_no_verdict(pages):
    (finding,) = load_findings(["adam_over_step"], EXACT_NAMES)
    stale = {finding.name: result(finding, digest="other")}
    assert pages.verdict(finding, stale) == "run with another criterion or config"
    assert "| 6.5 |" not in pages.table(finding, stale[finding.name])


def test_every_kept_result_is_of_the_criterion_and_the_experiments_as_they_are(pages):
    """Config keys may have been renamed since the run."""
    findings = {each.name: each for each in load_findings([], EXACT_NAMES, DOCS.parent / "configs" / "paper")}
    results = json.loads(pages.RESULTS.read_text())
    assert len(results) > 20
    for name, result in results.items():
        assert is_current(findings[name], result | {"digest": "an older version's"}), name


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["criterion"].update(needs="any"),
        lambda content: content["runs"][""].update(seeds=9),
        lambda content: content["runs"][""]["agent"].update(kind="unknown"),
        lambda content: content["runs"].update(more={}),
        lambda content: content.update(exact="clip_and_rank"),
        lambda content: content.clear(),
    ],
)
def test_a_result_of_another_content_is_not_current(pages, change):
    (finding,) = load_findings(["default_adam"], EXACT_NAMES)
    kept = json.loads(pages.RESULTS.read_text())["default_adam"] | {"digest": "an older version's"}
    assert is_current(finding, kept)
    change(kept["content"])
    assert not is_current(finding, kept)


def test_the_page_is_up_to_date(pages):
    """Every finding has its section; once the page is written it is what would be written now."""
    findings = load_findings([], EXACT_NAMES, DOCS.parent / "configs" / "paper")
    results = json.loads(pages.RESULTS.read_text()) if pages.RESULTS.exists() else {}
    text = pages.page(findings, results)
    assert all(f"\n## {pages.heading(finding)}\n" in text for finding in findings)
    written = DOCS / "findings.md"
    assert not written.exists() or written.read_text() == text, "run `python docs/make_findings.py`"
