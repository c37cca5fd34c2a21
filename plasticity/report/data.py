"""The contents of a report as a plain dict of numbers and text, read from run folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from plasticity import plots, results
from plasticity.plots import style
from plasticity.report.facts import facts
from plasticity.report.intervals import chart_ranges, cut, cut_stages
from plasticity.report.lines import BUDGET, Grids, lines, most_points, rounded
from plasticity.report.retention import retention
from plasticity.results.ranges import UNBOUNDED
from plasticity.results.read import RunPath
from plasticity.results.verdict import meaning, verdict, words

BASELINE = "baseline"
SHOWN = ("first", "last", "gap", "change", "own", "closed")  # columns of the summary, shown with their bounds
ENOUGH_POINTS = 40  # per line; if fewer would fit, the metrics of single layers are left out
MOST_TASKS = 12  # that can be selected individually


def collect(runs: Sequence[RunPath]) -> dict[str, Any]:
    """Collect everything that the report on these runs shows.

    Args:
      runs: the folders of one or more runs, finished or not.

    Returns:
      ``title`` and ``groups``. Runs on the same stream form a group with shared charts (``series``, ``grids``,
      ``charts``) and, for each of its ``runs``, the summary, the evaluations and the facts. Numbers in charts have five
      significant digits, half widths of intervals three.

    Raises:
      ValueError: no run is given, or a path that is not the folder of a run.
    """
    if not runs:
        raise ValueError("no runs to report: name at least one")
    groups = results.by_stream(runs)
    made = [_group(members, len(groups)) for members in groups]
    shown = [run for group in made for run in group["runs"]]
    for number, run in enumerate(shown):
        own = run["folder"] if [other["folder"] for other in shown].count(run["folder"]) == 1 else run["path"]
        run |= {"label": run["name"] if len(shown) == 1 else own, "anchor": f"run-{number}"}
    return {"title": ", ".join(run["label"] for run in shown), "groups": made}


def _group(runs: list[RunPath], groups: int) -> dict[str, Any]:
    stream, hyper = results.plan(runs[0])["stream"], results.hyper_parameters(*runs)
    known = results.lanes(*runs)
    series = style.series(known, hyper, style.controls_of(runs)) if len(known) else []
    numbered = _numbered(known, series)
    metrics, visits = _joined(results.load(*runs), numbered), _joined(results.visits(*runs), numbered)
    evaluations = _joined(results.evaluations(*runs), numbered)
    x = "frames" if stream["frames_per_step"] > 1 else "step"
    axis = _axis(stream, metrics, x)
    grids = Grids()
    return {
        "runs": [_run(run, stream, series, len(runs)) for run in runs],
        "reward": measured(stream),
        "episodic": bool(stream["episodic"]),
        "x": {"step": "env steps", "frames": "frames"}[x],
        **axis,
        "series": [_series(line) for line in series],
        **_charts(
            stream,
            metrics,
            visits,
            evaluations,
            x,
            axis,
            hyper,
            grids,
            groups * max(len(series), 1),
            chart_ranges(results.plan(runs[0]), list(map(str, metrics))),
        ),
        "grids": grids.lists,
    }


def measured(stream: dict[str, Any]) -> str:
    return "episodic return" if stream["episodic"] else str(stream["reward_name"])


def _numbered(known: pd.DataFrame, series: Sequence[style.Series]) -> pd.DataFrame:
    """The lanes, with the number of the line that each belongs to."""
    keys = [key for key in ("run", "arm", "lane") if key in known]
    parts = [line.rows[keys].assign(series=number) for number, line in enumerate(series)]
    table = pd.concat(parts, ignore_index=True) if parts else known.reindex(columns=[*keys, "series"])
    return table.astype({key: str for key in keys if key != "lane"})


def _joined(table: pd.DataFrame, numbered: pd.DataFrame) -> pd.DataFrame:
    keys = [key for key in ("run", "arm", "lane") if key in numbered]
    if table.empty:
        return table.assign(series=pd.Series(dtype=int))
    return table.astype({key: str for key in keys if key != "lane"}).merge(numbered, on=keys)


def _axis(stream: dict[str, Any], metrics: pd.DataFrame, x: str) -> dict[str, Any]:
    """The ends of visits on the axis, and their tasks; a task is None if each seed has its own order."""
    scale = metrics[x].max() / metrics["step"].max() if len(metrics) else 1
    ends = np.cumsum([visit["steps"] for visit in stream["visits"]]) * scale
    names = [str(stream["tasks"][visit["task"]]) for visit in stream["visits"]]
    differ = metrics.groupby("visit")["task"].nunique().max() > 1 if len(metrics) else False
    tasks = list(dict.fromkeys(names))
    apart = bool(stream["episodic"]) and 2 <= len(tasks) <= MOST_TASKS and not differ
    numbers = None if differ else [tasks.index(name) for name in names]
    return {"ends": [float(end) for end in ends], "tasks": tasks, "task_of": numbers, "by_task": apart}


def _series(line: style.Series) -> dict[str, Any]:
    look = line.look
    dash = look["linestyle"][1] if isinstance(look["linestyle"], tuple) else ()
    return {
        "label": line.label,
        "colour": look["color"],
        "dark": _brighter(look["color"]),
        "dash": [float(part) for part in dash],
        "marker": look["marker"],
        "seeds": int(line.rows["seed"].nunique()),
    }


def _brighter(colour: str, least: float = 0.28) -> str:
    """The colour on a dark background: mixed with white until its luminance is at least ``least``."""
    rgb = np.asarray(to_rgb(colour))
    for share in np.arange(0.0, 1.0, 0.05):
        mixed = (1 - share) * rgb + share
        if float(mixed**2.2 @ [0.2126, 0.7152, 0.0722]) >= least:
            return str(to_hex(tuple(mixed)))
    return "#ffffff"


# ---------------------------------------------------------------------------------------------------- the charts


def _charts(
    stream: dict[str, Any],
    metrics: pd.DataFrame,
    visits: pd.DataFrame,
    evaluations: pd.DataFrame,
    x: str,
    axis: dict[str, Any],
    hyper: Sequence[str],
    grids: Grids,
    crowd: int,
    ranges: Mapping[str, list[float | None]],
) -> dict[str, Any]:
    """``charts``, each with its metrics, and ``left_out``, the metrics of single layers that do not fit."""
    label, ends = measured(stream), axis["ends"]
    measures = stream.get("measures", ())
    whole = plots.monitor_names(metrics.drop(columns="series"), hyper) if len(metrics) else []
    whole = [name for name in whole if name not in measures]
    whole = sorted(whole, key=lambda name: name == "loss")  # it says little about plasticity
    parts = [name for name in map(str, metrics.columns) if "/" in name and metrics[name].notna().any()]
    room = crowd * (len(whole) + len(parts)) * ENOUGH_POINTS <= BUDGET
    names = _families(whole, parts) if room else whole
    most = most_points(crowd * (len(names) + 4))
    tables = {str(task): rows for task, rows in evaluations.groupby("evaluated_task")} if len(evaluations) else {}
    evaluated = "episodic_return" if stream["episodic"] else "reward"
    tables = dict(list(tables.items())[:MOST_TASKS])

    def metric(rows: pd.DataFrame, name: str, text: str, along: str = x, log: bool | None = False) -> dict[str, Any]:
        found = lines(rows, name, along, ends if along == x else (), most, grids) if name in rows else []
        log = _wide(found) if log is None else log
        return {"name": name, "label": text, "log": log, "range": ranges.get(name), "lines": found}

    counted = visits.assign(number=visits["visit"] + 1)
    # If each seed has its own order of games, a mean over seeds of one visit would be a mean over games.
    own = axis["task_of"] is None and not results.alike(stream)
    if own:
        counted["number"] = counted.groupby(["series", "lane", "task"], observed=True).cumcount() + 1
    parted, along = (_by_own_task(table) if own else {"": table} for table in (counted, metrics))
    charts = {
        "visits": [
            metric(rows, name, f"{label}{task}, {what}", "number")
            for task, rows in parted.items()
            for name, what in (("performance", "whole visit"), ("performance_end", "last tenth of the visit"))
        ],
        "stream": [
            *(metric(rows, "episodic_return", f"{label}{task}") for task, rows in along.items() if stream["episodic"]),
            metric(metrics, "reward", "reward per step" if stream["episodic"] else label),
            *(metric(metrics, name, in_words(name)) for name in measures),
            *(metric(rows, evaluated, f"evaluation on {task}") for task, rows in tables.items()),
            *(
                metric(rows, name, f"evaluation on {task}, {in_words(name)}")
                for task, rows in tables.items()
                for name in measures
            ),
        ],
        "monitors": [metric(metrics, name, in_words(name), log=None) for name in names],
    }
    if len(stream["visits"]) == 1:
        del charts["visits"]  # one point, which the table shows
    kept = {name: [each for each in found if each["lines"]] for name, found in charts.items()}
    return {"charts": {name: found for name, found in kept.items() if found}, "left_out": [] if room else parts}


def in_words(name: str) -> str:
    return name.replace("_", " ")


def _by_own_task(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each task, by the suffix of its chart's title."""
    names = table["task"].astype(str)
    return {f" on {task}": table[names == task] for task in sorted(set(names))[:MOST_TASKS]}


def _families(whole: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Order metrics so that each is followed by its parts, ``METRIC/PART``."""
    ordered = [name for each in whole for name in (each, *(part for part in parts if part.startswith(f"{each}/")))]
    return [*ordered, *(part for part in parts if part not in ordered)]


def _wide(found: Sequence[dict[str, Any]]) -> bool:
    """Whether all values are positive and span more than two decades."""
    values = [value for line in found for value in line["m"] if value is not None]
    return bool(values) and min(values) > 0 and max(values) > 100 * min(values)


# ---------------------------------------------------------------------------------------------------- one run


def _run(run: RunPath, stream: dict[str, Any], series: Sequence[style.Series], runs: int) -> dict[str, Any]:
    about, table, compared = facts(run), results.summary(run, baseline=BASELINE), results.compare_lanes(run)
    played = {visit["task"] for visit in stream["visits"]}
    labels = {line.label: number for number, line in enumerate(series)}
    own = f"{_run_name(run, series)}: " if runs > 1 else ""
    aware, reading = ({arm["name"] for arm in about["arms"] if arm[key]} for key in ("task_aware", "reads_task"))
    # Tasks with rewards of several kinds are on scales of their own, which have no bounds.
    limits = UNBOUNDED if compared.rule.scaled else results.performance_range(stream)
    rows = []
    for point in results.points(table, results.hyper_parameters(run)):
        row: dict[str, Any] = {str(key): value for key, value in point.rows.iloc[0].items()}
        word, why = verdict(row, compared.rule, compared.controls)
        rows.append(
            {
                "arm": point.arm,
                "settings": list(point.settings),
                "series": labels.get(own + point.label),
                "task_aware": point.arm in aware,
                "reads_task": point.arm in reading,
                **{key: int(row[key]) for key in ("lanes", "diverged", "seeds")},
                **cut_stages({key: _number(row[key]) for key in row if key.split("_")[0] in SHOWN}, limits),
                "control": compared.controls.get(point.arm),
                "verdict": word,
                "why": why,
            }
        )
    return {
        **about,
        "visits": len(stream["visits"]),
        "steps": sum(visit["steps"] for visit in stream["visits"]),
        "envs": stream["envs"],
        "tasks": len(played),
        "summary": rows,
        "kind": compared.rule.kind,
        "has_gap": "gap" in table,
        "control": _control(compared),
        "meaning": meaning(compared),
        "rule": words(compared.rule, compared.controls),
        "by_task": _by_task(run, compared),
        "evaluations": _evaluations(run, stream),
        "retention": retention(run, stream, measured(stream)),
        "measured": [_evaluations(run, stream, name) for name in stream.get("measures", ())],
    }


def _control(compared: results.Compared) -> str:
    """The name of the control in the headings."""
    named = {name for name in compared.controls.values() if name}
    return named.pop() if len(named) == 1 else "control"


def _by_task(run: RunPath, compared: results.Compared) -> list[dict[str, Any]]:
    """One row per task and arm if rewards are of several kinds; none if there are too many tasks."""
    if not compared.rule.scaled:
        return []
    table, limits = results.task_changes(run), results.performance_range(results.plan(run)["stream"])
    if table["task"].nunique() > MOST_TASKS:
        return []
    rows = []
    for task in dict.fromkeys(table["task"]):
        for point in results.points(table[table["task"] == task], results.hyper_parameters(run)):
            row = point.rows.iloc[0]
            names = (f"{name}{bound}" for name in SHOWN[:-1] for bound in ("", "_low", "_high"))
            numbers = cut_stages({name: _number(row[name]) for name in names}, limits)
            rows.append({"task": task, "label": point.label, "visits": int(row["visits"]), **numbers})
    return rows


def _run_name(run: RunPath, series: Sequence[style.Series]) -> str:
    """The run's name in the labels: its folder, or its path if several folders have the same name."""
    runs = {str(name) for line in series for name in line.rows["run"]}
    return str(run) if str(run) in runs else Path(run).absolute().name


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _evaluations(run: RunPath, stream: dict[str, Any], measure: str | None = None) -> dict[str, Any] | None:
    """The last evaluation of each lane, with mean and interval over seeds: one row per arm, one column per task.

    ``measure``: of the stream, instead of the performance.
    """
    table = results.evaluations(run)
    value = measure or ("episodic_return" if stream["episodic"] else "reward")
    if table.empty or value not in table:
        return None
    ranges = results.metric_ranges(results.plan(run))
    limits = ranges.get(value, UNBOUNDED) if measure else results.performance_range(stream)
    latest = table[table["step"] == table.groupby(["arm", "lane"], observed=True)["step"].transform("max")]
    tasks = list(dict.fromkeys(map(str, latest["evaluated_task"])))
    rows = []
    for point in results.points(latest, results.hyper_parameters(run)):
        found = results.curve(point.rows, value, "evaluated_task")
        cells = {
            str(task): [rounded(each, 5) for each in (row["mean"], *cut(row["mean"], row["low"], row["high"], limits))]
            for task, row in found.iterrows()
        }
        rows.append({"label": point.label, "step": int(point.rows["step"].max()), "cells": cells})
    return {"tasks": tasks, "rows": rows, "value": in_words(measure) if measure else measured(stream)}
