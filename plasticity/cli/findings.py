"""What ``plasticity findings`` does: the chosen findings planned, run or printed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from plasticity.core.errors import UserError
from plasticity.findings import store
from plasticity.findings.document import Finding
from plasticity.findings.names import EXACT_NAMES
from plasticity.findings.show import overview, section


def chosen(names: Sequence[str]) -> list[Finding]:
    """The findings of those names, each once; without names all of them."""
    return list(dict.fromkeys(store.load_findings(names, EXACT_NAMES)))


def plans(findings: Sequence[Finding], full: bool) -> Iterator[Any]:
    """The plan of each run of each finding; computes nothing but shapes. ``UserError`` for a quantity not measured."""
    from plasticity.findings.run import check_measured, experiments
    from plasticity.runs import launch

    for finding in findings:
        found = {part: launch.plan(experiment) for part, experiment in experiments(finding, full).items()}
        check_measured(finding, found)
        yield from found.values()


def print_table(findings: Sequence[Finding], root: Path, full: bool, console: Console) -> None:
    """The results that are there; one that belongs to another criterion or config says so."""
    found = {each.name: _kept(each, root, full) for each in findings}
    for finding in findings:
        section(console, finding, found[finding.name])
    overview(console, findings, found)


def _kept(finding: Finding, root: Path, full: bool) -> Any:
    result = store.read_result(store.place_of(finding, root, full))
    if result is None:
        return "under way" if store.seconds(store.place_of(finding, root, full)) else None
    return result if result.get("digest") == finding.digest(full) else "file changed since"


def run(findings: Sequence[Finding], root: Path, full: bool, force: bool, console: Console, errors: Console) -> int:
    """Runs what has no result, prints each as it ends and a line for each at the end, and returns the exit code.

    A finding that cannot run is told of and the others go on (code 2); a signal ends it all with what ran saved
    (128 and the signal's number). A FAIL is a result and no error.
    """
    from plasticity.cli.progress import TerminalProgress
    from plasticity.findings.run import run_finding
    from plasticity.runs.session import Interrupted

    found: dict[str, Any] = {}
    code = 0
    for finding in findings:
        try:
            with TerminalProgress(console) as progress:
                found[finding.name] = run_finding(
                    finding, root, full=full, force=force, progress=progress, say=lambda line: console.print(Text(line))
                )
        except UserError as error:
            code, found[finding.name] = 2, "did not run"
            errors.print(Text(f"{finding.name}: {error}"))
        except Interrupted as stopped:
            errors.print(Text(f"{stopped}: saved; go on with the same command (without --force)"))
            return 128 + int(stopped.number)
        section(console, finding, found[finding.name])
    overview(console, findings, found)
    return code
