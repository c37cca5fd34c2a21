"""Replications of published results, with criteria that are committed before the run."""

from plasticity.findings.criterion import Clause, Group, parse_criterion
from plasticity.findings.document import Finding, parse_finding
from plasticity.findings.judge import Judged, Verdict, judge
from plasticity.findings.names import EXACT_NAMES
from plasticity.findings.store import load_findings

__all__ = [
    "EXACT_NAMES",
    "Clause",
    "Finding",
    "Group",
    "Judged",
    "Verdict",
    "judge",
    "load_findings",
    "parse_criterion",
    "parse_finding",
]
