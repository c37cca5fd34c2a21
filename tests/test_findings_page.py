"""The page of findings agrees with their files and results."""

import json
import sys
from pathlib import Path

import pytest

from plasticity.findings import EXACT_NAMES, load_findings
from plasticity.findings.criterion import clauses
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
    assert sum(result["digest"] != findings[name].digest() for name, result in results.items()) > 10
    for name, result in results.items():
        assert is_current(findings[name], result), name


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
    kept = json.loads(pages.RESULTS.read_text())["default_adam"]
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
