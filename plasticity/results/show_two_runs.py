"""Comparison of two runs in the terminal."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plasticity.results.read import RunPath
from plasticity.results.two_runs import ABSENT, Complete, Difference, Replica, Result, TwoRuns, compare_runs


def print_comparison(
    a: RunPath,
    b: RunPath,
    console: Console | None = None,
    *,
    confidence: float = 0.95,
    current: Complete | None = None,
) -> TwoRuns:
    """Print :func:`compare_runs` of two runs and return it.

    Args:
      a: a run's folder.
      b: the other run's folder.
      console: the output; standard output by default.
      confidence: of the intervals, in (0, 1).
      current: as in :func:`compare_runs`.
    """
    found, out = compare_runs(a, b, confidence=confidence, current=current), console or Console()
    out.print(Text(f"A: {a}\nB: {b}"))
    _print_changes(out, "config", found.config)
    _print_changes(out, "versions", found.versions)
    for name, arms in (("A", found.only_a), ("B", found.only_b)):
        if arms:
            out.print(Text(f"\narms in {name} only: {', '.join(arms)}"))
    _print_results(out, found, confidence)
    _print_replicas(out, found.replicas)
    return found


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(Text(heading), overflow="fold")
    return table


def _print_changes(out: Console, what: str, changes: Sequence[Difference]) -> None:
    if not changes:
        out.print(Text(f"\n{what}: equal"))
        return
    out.print()
    table = _table(what, "A", "B")
    for change in changes:
        table.add_row(Text(change.key), Text(_value(change.a)), Text(_value(change.b)))
    out.print(table)


def _value(value: Any, most: int = 100) -> str:
    """Format as in YAML; lists without brackets, truncated if long."""
    if isinstance(value, list) and value:
        text = ", ".join(_value(each) for each in value)
        return text if len(text) <= most else f"{text[: most - 3]}... ({len(value)} in all)"
    return ABSENT if value == ABSENT else json.dumps(value, ensure_ascii=False, default=str).strip('"')


def _print_results(out: Console, found: TwoRuns, confidence: float) -> None:
    out.print()
    if found.measured[0] != found.measured[1]:
        out.print(Text(f"results: not comparable, since A measures {found.measured[0]} and B {found.measured[1]}"))
        return
    table = _table(f"{found.measured[0]}, {found.stage}", "A", "B", "B - A [interval]", "seeds")
    for column in table.columns[1:]:
        column.justify = "right"
    for each in found.results:
        label = f"{each.label}: {each.task}" if each.task else each.label
        table.add_row(Text(label), _number(each.a), _number(each.b), _gap(each), str(each.seeds))
    out.print(table)
    lines = [*_how(found.results, confidence)]
    if {bool(each.task) for each in found.results} == {True, False}:
        lines.append("Rows without a task: mean over tasks, each on its scale from A.")
    elif found.stage.endswith("task by task") and found.results:
        lines.append("The rewards of these tasks are of several kinds, so there is no mean over tasks.")
    out.print(Text(" ".join(lines), "dim"))


def _gap(result: Result) -> Text:
    mean, low, high = result.difference
    if math.isnan(mean):
        return Text(ABSENT)
    bounds = "" if math.isnan(low) else f" [{low:+.3g}, {high:+.3g}]"
    return Text(f"{mean:+.3g}{bounds}")


def _number(value: float) -> str:
    return ABSENT if math.isnan(value) else f"{value:.4g}"


def _how(results: Sequence[Result], confidence: float) -> Iterator[str]:
    if not results:
        yield "No arm is in both runs."
        return
    yield f"Intervals: {100 * confidence:g} %,"
    kinds = {result.paired for result in results}
    if kinds == {True}:
        yield "paired by seed (same stream, same seeds)."
    elif kinds == {False}:
        yield "not paired, since stream or seeds differ (Welch)."
    else:
        unpaired = [result.label for result in results if not result.paired]
        yield f"paired by seed except for {', '.join(unpaired)}, whose seeds differ (Welch)."


def _print_replicas(out: Console, replicas: Sequence[Replica]) -> None:
    if not replicas:
        out.print(Text("\nrecords: not compared, since no arm has the same config in both runs"))
        return
    out.print(Text("\nrecords of the arms with the same config:"))
    for each in replicas:
        for line in _replica_lines(each):
            out.print(Text(line))


def _replica_lines(each: Replica) -> Iterator[str]:
    if not each.rows:
        yield f"  {each.arm}: no rows in common yet"
        return
    if not each.differing:
        yield f"  {each.arm}: all {each.rows:,} rows are equal, value for value"
    if each.first is not None:
        first = each.first
        yield f"  {each.arm}: {each.differing:,} of {each.rows:,} rows differ; the first: lane {first['lane']} " + (
            f"(seed {first['seed']}), step {first['step']}, {first['metric']}: {first['a']} | {first['b']}"
        )
    for name, more in (("A", each.only_a), ("B", each.only_b)):
        if more:
            yield f"  {each.arm}: {more:,} rows are in {name} only"
    if each.metrics:
        yield f"  {each.arm}: recorded in one run only: {', '.join(each.metrics)}"
