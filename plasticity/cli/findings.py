"""``plasticity findings``: plan, run or print the chosen findings."""

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


def named(names: Sequence[str]) -> list[Finding]:
    """The findings with these names, each once; all of them if no name is given."""
    return list(dict.fromkeys(store.load_findings(names, EXACT_NAMES)))


def plans(findings: Sequence[Finding], full: bool) -> Iterator[Any]:
    """The plan of each run of each finding; computes shapes only. ``UserError`` for a quantity not measured."""
    from plasticity.findings.run import check_measured, experiments
    from plasticity.runs import launch, tuning

    for finding in findings:
        planned: dict[str, list[Any]] = {}
        for part, experiment in experiments(finding, full).items():
            planned[part] = [launch.plan(phase.experiment) for phase in tuning.phases(experiment, Path())]
        check_measured(finding, {part: phases[-1] for part, phases in planned.items()})
        for phases in planned.values():
            yield from phases


def print_table(findings: Sequence[Finding], root: Path, full: bool, console: Console) -> None:
    """Print the saved results; a result of another criterion or config is marked."""
    found = {each.name: _kept(each, root, full) for each in findings}
    for finding in findings:
        section(console, finding, found[finding.name])
    overview(console, findings, found)


def _kept(finding: Finding, root: Path, full: bool) -> Any:
    result = store.read_result(store.place_of(finding, root, full))
    if result is None:
        return "in progress" if store.seconds(store.place_of(finding, root, full)) else None
    if result.get("digest") == finding.digest(full):
        return result
    from plasticity.findings.run import is_current  # slow to import: it needs JAX

    return result if is_current(finding, result, full) else "file has changed"


def run(findings: Sequence[Finding], root: Path, full: bool, force: bool, console: Console, errors: Console) -> int:
    """Run the findings that have no result; print each when it ends and one line per finding at the end.

    Returns the exit code. A finding that cannot run is reported and the others continue (code 2). A signal stops
    everything, with the finished part saved (128 plus the signal's number). A FAIL is a result, not an error.
    """
    from plasticity.cli.progress import TerminalProgress
    from plasticity.core.errors import Interrupted
    from plasticity.findings.run import run_finding

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
            errors.print(Text(f"{stopped}: saved; continue with the same command (without --force)"))
            return 128 + int(stopped.number)
        section(console, finding, found[finding.name])
    overview(console, findings, found)
    return code
