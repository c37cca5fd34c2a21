"""The summary as a table in the terminal."""

import math
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plasticity.results.best import tuned_text
from plasticity.results.change import Compared, Rule, compare_lanes, rule
from plasticity.results.compare import summary, task_changes
from plasticity.results.continual import continual_world
from plasticity.results.points import points
from plasticity.results.read import RunPath, controls, hyper_parameters, lanes, plan
from plasticity.results.transfer import performance_matrix
from plasticity.results.verdict import meaning, undecided

MISSING = "-"
MOST_TASKS = 20  # shown individually
WHY = (
    "No task recurs, and the rewards of these tasks are of several kinds: returns of different games are not "
    "comparable, so there is no verdict on the stream as a whole. Each task separately: means over seeds in units of "
    "its own reward"
)


def print_summary(run: RunPath, console: Console | None = None, **options: Any) -> None:
    """Print :func:`summary` of a run: one row per arm and swept point, 80 columns wide.

    If no single number covers all tasks, print a row for each task of each arm instead (:func:`task_changes`).
    Continual World's three numbers follow if earlier tasks were evaluated at the ends of visits
    (:func:`continual_world`).

    Args:
      run: the run's folder.
      console: the output; standard output by default.
      **options: of :func:`summary`.
    """
    about = plan(run)
    stream, found = about["stream"], rule(about["stream"])
    measured = "episodic return" if stream["episodic"] else stream["reward_name"]
    title = escape(f"{about.get('name', run)}: {measured}")
    table = _table(title)
    if found.overall:
        compared = compare_lanes(run, control=options.get("control"), measure=options.get("measure", "performance"))
        _fill(table, run, found, options)
        rows = summary(run, **options)
        opened = undecided(rows, found, controls(run, options.get("control")))
        table.caption = " ".join(filter(None, (_caption(rows, options, compared), opened)))
    else:
        table.caption = _fill_by_task(table, run, options)
    table.caption = " ".join(filter(None, (str(table.caption), escape(tuned_text(run)))))
    out = console or Console()
    out.print(table)
    measures = measures_table(run, options.get("control"), options.get("confidence", 0.95))
    if measures is not None:
        out.print(measures)


def _table(title: str) -> Table:
    layout: dict[str, Any] = {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "collapse_padding": True}
    return Table(title=title, title_justify="left", caption_justify="left", **layout)


def _fill(table: Table, run: RunPath, found: Rule, options: dict[str, Any]) -> None:
    rows = summary(run, **options)
    headings = _headings(run, found, rows, options)
    table.add_column("arm", overflow="fold")
    for heading in (*headings.values(), "diverged"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for point in points(rows, hyper_parameters(run)):
        row = point.rows.iloc[0]
        label = "\n  ".join([point.arm, *point.settings])
        table.add_row(escape(label), *[_cell(row, column, found.kind) for column in headings], _diverged(row))


def _headings(run: RunPath, found: Rule, rows: pd.DataFrame, options: dict[str, Any]) -> dict[str, str]:
    """The columns shown and their headings: at most one with an interval in brackets, to fit 80 columns."""
    against = _control_name(run, options)
    gap = f"gap to {against}\n[interval]"
    if found.kind == "single":
        chosen = {"first": "whole\nvisit", "last": "last tenth\n[interval]", "gap": gap}
    elif found.kind == "sequence":
        chosen = {"first": "first\ntenth", "last": "last\ntenth", "gap": gap}
    else:
        chosen = {"first": "first\nvisits", "last": "last\nvisits", "gap": f"gap to {against}\n± half width"}
        chosen |= {"change": "change of gap\n± half width"}
    if found.changes and "gap" not in rows:
        chosen |= {"own": "own change\n[interval]"}
    chosen |= {"closed": "closed\n%"}
    return {column: heading for column, heading in chosen.items() if column in rows}


def _control_name(run: RunPath, options: dict[str, Any]) -> str:
    named = {name for name in controls(run, options.get("control")).values() if name}
    return named.pop() if len(named) == 1 else "control"


def measures_table(run: RunPath, control: str | None = None, confidence: float = 0.95) -> Table | None:
    """Continual World's three numbers as a table; None unless earlier tasks were evaluated at the ends of visits."""
    try:
        matrix = performance_matrix(run)
        found = continual_world(run, control=control, scaled=not matrix.alike, confidence=confidence)
    except ValueError:
        return None
    if len(set(matrix.tasks)) < 2 or not np.isfinite(matrix.values).any():
        return None
    own = " (each task on its own scale)" if not matrix.alike else ""
    stream = plan(run)["stream"]
    named = {"reward": stream["reward_name"]}.get(found.measure, found.measure.replace("_", " "))
    table = _table(escape(f"retention and transfer: {named}{own}"))
    table.add_column("arm", overflow="fold")
    columns = {"performance": found.performance, "forgetting": found.forgetting}
    columns |= {"difference": found.transfer, "forward_transfer": found.transfer} if found.transfer else {}
    heads = ("P(T)", "forgetting", "AUC - control", "forward transfer")
    for heading in heads[: len(columns)]:
        table.add_column(f"{heading}\n± half width", justify="right", no_wrap=True)
    hyper = hyper_parameters(run)
    cells: dict[str, dict[str, str]] = {}
    for name, scores in columns.items():
        for point in points(scores.overall, hyper):
            label = "\n  ".join([point.arm, *point.settings])
            cells.setdefault(label, {})[name] = _plus_minus(point.rows.iloc[0], name)
    for label, row in cells.items():
        table.add_row(escape(label), *(row.get(name, MISSING) for name in columns))
    table.caption = (
        f"Means over tasks and seeds, {100 * confidence:g} % t intervals. P(T): performance at the end of the run. "
        "Forgetting: end of the task's visit minus end of the run."
    )
    return table


def _fill_by_task(table: Table, run: RunPath, options: dict[str, Any]) -> str:
    """Add a row for each arm and task; return the caption."""
    chosen = {key: value for key, value in options.items() if key in ("control", "measure", "confidence")}
    rows, percent = task_changes(run, **chosen), f"{100 * options.get('confidence', 0.95):g} %"
    against = _control_name(run, options)
    shown = {"last": "whole visit\n± half width"}
    shown |= {"gap": f"gap to {against}\n± half width"} if rows["gap"].notna().any() else {}
    for name in ("task", "arm"):
        table.add_column(name, overflow="fold")
    for heading in (*shown.values(), "seeds"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    tasks = list(dict.fromkeys(rows["task"]))
    for task in tasks[:MOST_TASKS]:
        for point in points(rows[rows["task"] == task], hyper_parameters(run)):
            row = point.rows.iloc[0]
            label = "\n  ".join([point.arm, *point.settings])
            cells = [_plus_minus(row, column) for column in shown]
            table.add_row(escape(task), escape(label), *cells, str(row["seeds"]))
        table.add_section()
    more = f" {len(tasks) - MOST_TASKS} more tasks: see results.task_changes." if len(tasks) > MOST_TASKS else ""
    lost = lanes(run)
    lost = lost[lost["diverged_at"].notna()] if len(lost) else lost
    counts = ", ".join(f"{count} of {arm}" for arm, count in lost["arm"].value_counts().items() if count)
    diverged = f" Lanes that diverged: {counts}." if counts else ""
    return f"{WHY}, with {percent} t intervals; gaps are paired by seed.{more}{diverged}"


def _plus_minus(row: pd.Series, key: str) -> str:
    if math.isnan(row[key]):
        return MISSING
    half = (row[f"{key}_high"] - row[f"{key}_low"]) / 2
    sign = "" if key in ("first", "last", "performance") else "+"
    return _number(row[key], sign) + ("" if math.isnan(half) else f" ± {_number(half)}")


def _cell(row: pd.Series, key: str, kind: str) -> str:
    if math.isnan(row[key]):
        return MISSING
    if key == "closed":
        return f"{100 * row[key]:.0f}"
    if kind == "revisits" and key in ("gap", "change"):
        return _plus_minus(row, key)
    if key in ("gap", "own") or (key == "last" and kind == "single"):
        low, high = row[f"{key}_low"], row[f"{key}_high"]
        bounds = "" if math.isnan(low) else f" [{_number(low)}, {_number(high)}]"
        return escape(_number(row[key], "" if key == "last" else "+") + bounds)
    return _number(row[key])


def _number(value: float, sign: str = "") -> str:
    """At least three significant digits, and no exponent in the usual range."""
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:{sign}.1e}"
    digits = 2 if value == 0 else 2 - math.floor(math.log10(abs(value)))
    return f"{value:{sign},.{min(max(digits, 0), 3)}f}"


def _diverged(row: pd.Series) -> str:
    return f"{row['diverged']}/{row['lanes']}" if row["lanes"] else MISSING


def _caption(found: pd.DataFrame, options: dict[str, Any], compared: Compared) -> str:
    percent, kind = f"{100 * options.get('confidence', 0.95):g} %", compared.rule.kind
    texts = [meaning(compared)]
    if kind == "single":
        texts = [f"Means over seeds of the visit and of its last tenth, with {percent} t intervals."]
    if "gap" in found:
        texts.append(f"Gaps are paired by seed, with {percent} t intervals.")
    if kind == "revisits" and "gap" in found:
        texts.append("Change of gap: the gap in the last visits minus the gap in the first.")
    if compared.rule.changes and "gap" not in found:
        texts.append(f"Own change: late minus early of each lane, with its {percent} t interval.")
    if "closed" in found and found["closed"].notna().any() | (kind != "revisits"):
        texts.append("Closed: share of the baseline's gap that is closed, if that gap is clearly below zero.")
    return " ".join(texts)
