"""Run findings one after another, resuming interrupted ones, and judge them."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from plasticity.config.experiments import Experiment, read_experiment
from plasticity.config.tuning import TUNING
from plasticity.core.errors import UserError, unknown
from plasticity.findings import by_visit, store, values
from plasticity.findings.criterion import BEHAVIOUR, LEAST, clauses
from plasticity.findings.document import Finding
from plasticity.findings.exact import EXACT
from plasticity.findings.figure import figure
from plasticity.findings.judge import Verdict, judge
from plasticity.findings.numbers import check_names, constants
from plasticity.findings.quantities import AGENT, check_comparable, is_evaluation, tables
from plasticity.plots.save import save
from plasticity.runs import folder, launch, tuning
from plasticity.runs.session import Progress

FIGURE = "figure.png"


def experiments(finding: Finding, full: bool = False) -> dict[str, Experiment]:
    """The experiment of each part. ``UserError`` if its config is invalid."""
    found = {}
    for part, raw in finding.runs(full).items():
        name = f"{finding.name}-{part}" if part else finding.name
        source = f"{finding.name}: {part}" if part else finding.name
        found[part] = read_experiment({"name": name, **raw}, launch.registry(), source=source)
    return found


def is_current(finding: Finding, result: Mapping[str, Any], full: bool = False) -> bool:
    """Whether a result is of the finding's criterion and experiments, in whatever version's words they were written."""
    if result.get("digest") == finding.digest(full):
        return True
    then, now = result.get("content"), finding.content(full)
    if not isinstance(then, Mapping) or any(
        then.get(key) != now.get(key) for key in ("criterion", "exact", "correction")
    ):
        return False
    runs = then.get("runs")
    if not isinstance(runs, Mapping) or list(runs) != list(now["runs"]):
        return False
    try:
        return all(_completed(runs[part]) == _completed(now["runs"][part]) for part in runs)
    except UserError:
        return False


def _completed(raw: Mapping[str, Any]) -> Experiment:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_experiment({"name": "finding", **raw}, launch.registry())


def check_measured(finding: Finding, plans: Mapping[str, launch.Plan]) -> None:
    """``UserError`` for a clause on a metric that no monitor writes in its arms, or on a mean of rewards of several
    kinds."""
    streams = {part: plan.describe()["stream"] for part, plan in plans.items()}
    check_comparable(finding.name, finding.criterion, streams)
    for clause in clauses(finding.criterion):
        for what in (clause.what, clause.against):
            if what is None or what in BEHAVIOUR or is_evaluation(what) or what.startswith(AGENT):
                continue
            for part, plan in plans.items():
                for job in plan.jobs:
                    asked = not clause.arms or (f"{part}/{job.arm}" if part else job.arm) in clause.arms
                    if asked and what not in job.measured:
                        raise UserError(
                            f"{finding.name}: arm {job.arm}: {unknown(f'metric `{what}`', what, job.measured)}"
                        )


def run_finding(
    finding: Finding,
    root: Path = store.PLACE,
    *,
    full: bool = False,
    force: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run the missing parts, judge the finding and return the result, which is saved with a figure next to the runs.

    An existing result of the same criterion and config is returned unchanged; ``force`` reruns the finding.
    ``Interrupted`` after a signal, with the run saved; ``UserError`` if the folder has a run of another config.
    """
    place = store.place_of(finding, root, full)
    if force:
        store.clear(place)
    before = current_result(finding, root, full)
    if before is not None:
        _add_tables(finding, place, full, before)
        return before
    say(f"{finding.id} {finding.name}: {finding.title}")
    runs: Mapping[str, Path] = {}
    if finding.exact is not None:
        launch.devices()  # before the numbers use JAX: findings after this one have runs
        started = time.monotonic()
        numbers = EXACT[finding.exact]()
        check_names(finding.criterion, numbers, finding.name)
        verdict = judge(finding.criterion, constants(numbers), least=1)
        store.add_seconds(place, time.monotonic() - started)
    else:
        runs = _run_parts(finding, place, full, progress)
        verdict = judge(finding.criterion, tables(runs), LEAST, finding.correction)
    result = _result(finding, verdict, store.seconds(place), full)
    store.save_result(place, result, _tables(finding, verdict, runs) if runs else {})
    if runs:
        save(figure(finding, runs), place / FIGURE)
    return result


def current_result(finding: Finding, root: Path = store.PLACE, full: bool = False) -> dict[str, Any] | None:
    """The saved result, if it belongs to the current version of the finding's file."""
    result = store.read_result(store.place_of(finding, root, full))
    return result if result and is_current(finding, result, full) else None


def _tables(finding: Finding, verdict: Verdict, runs: Mapping[str, Path]) -> dict[str, str]:
    asked = {what for clause in clauses(finding.criterion) for what in (clause.what, clause.against) if what}
    return {"values": values.table(finding.name, verdict.judged), "visits": by_visit.table(runs, asked)}


def _add_tables(finding: Finding, place: Path, full: bool, result: Mapping[str, Any]) -> None:
    """Save the tables next to a result of an earlier version, if its runs are still there."""
    runs = {part: place / (part or "run") for part in finding.runs(full)}
    if not runs or not store.lacks_tables(place) or not all(map(store.has_run, runs.values())):
        return
    try:
        verdict = judge(finding.criterion, tables(runs), LEAST, finding.correction)
    except (UserError, ValueError):
        return  # a damaged run: the saved result stands without its tables
    if all(_same(a["number"], b["number"]) for a, b in zip(result["clauses"], _rows(verdict), strict=True)):
        store.save_tables(place, _tables(finding, verdict, runs))


def _same(then: float | None, now: float | None) -> bool:
    return then is now if then is None or now is None else math.isclose(then, now, abs_tol=1e-12)


def _run_parts(finding: Finding, place: Path, full: bool, progress: Progress | None) -> Mapping[str, Path]:
    runs = {}
    chosen = experiments(finding, full)
    if not any(store.has_run(place / (part or "run")) for part in chosen):
        last = {part: tuning.phases(each, place)[-1].experiment for part, each in chosen.items()}
        check_measured(finding, {part: launch.plan(each) for part, each in last.items()})
    for part, experiment in chosen.items():
        runs[part] = place / (part or "run")
        started = time.monotonic()
        resume = store.has_run(runs[part]) or store.has_run(runs[part] / TUNING)
        try:
            launch.run(experiment, runs[part], resume=resume, progress=progress)
        except UserError as error:
            first = str(error).partition("\n")[0]
            raise UserError(f"{first}\nrerun it with --force" if resume else str(error)) from None
        finally:
            store.add_seconds(place, time.monotonic() - started)
        jax.clear_caches()  # a set of findings would keep every program in memory
    return runs


def _result(finding: Finding, verdict: Verdict, seconds: float, full: bool) -> dict[str, Any]:
    return {
        "name": finding.name,
        "id": finding.id,
        "digest": finding.digest(full),
        "content": finding.content(full),
        "full": full,
        "passed": verdict.passed,
        "minutes": seconds / 60,
        "clauses": _rows(verdict),
        "versions": folder.versions(),
    }


def _rows(verdict: Verdict) -> list[dict[str, Any]]:
    """The clauses without their values, as JSON has them: None for a number that is not finite."""
    found = []
    for each in verdict.judged:
        row = {
            key: _finite(value) for key, value in each._asdict().items() if key not in ("contrasts", "never", "values")
        }
        if each.never is not None:
            row["never"] = each.never
        if each.contrasts:
            row["contrasts"] = [list(map(_finite, pair)) for pair in each.contrasts]
        found.append(row)
    return found


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
