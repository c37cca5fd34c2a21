"""A finding's figure: each quantity of its criterion by visit, or against its correlated quantity."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plasticity.findings.criterion import Clause, Record, clauses
from plasticity.findings.document import Finding
from plasticity.findings.lanes import Tables, lane_values, visits_to
from plasticity.findings.quantities import tables
from plasticity.findings.wording import measured_text, stage_text
from plasticity.plots import legend, options, style
from plasticity.results.intervals import mean_interval

MOST = 12  # up to this many arms, all are drawn; beyond it, only the criterion's arms and the controls
STRETCH = 3.0  # how much longer the outermost points, a fiftieth, may make an axis
WIDE = 100.0  # ratio of largest to smallest value beyond which the axis is logarithmic


@style.styled
def figure(finding: Finding, runs: Mapping[str, Path]) -> Figure:
    """Draw one panel per quantity.

    Shows means over seeds with 95 % t intervals. For two correlated quantities, shows a point for each lane.

    Args:
      finding: its criterion determines the quantities.
      runs: the run's folder for each part.
    """
    found, controls = tables(runs), _controls(runs)
    panels: dict[tuple[str, Record, str | None, str | None], list[Clause]] = {}
    for clause in clauses(finding.criterion):
        panels.setdefault((clause.what, clause.record, clause.against, clause.task), []).append(clause)
    height, columns = legend.grid(len(panels), most=3)
    drawn = Figure(figsize=(options.WIDTH, 2.6 * height), layout="constrained")
    lines: list[style.Series] = []
    for place, those in enumerate(panels.values()):
        axes = drawn.add_subplot(height, columns, place + 1)
        if those[0].against is None and all(_one_visit(clause) for clause in those):
            _dots(axes, those[0], found, named(finding), controls)
        elif those[0].against is None:
            lines = _curves(axes, those, found, named(finding), controls) or lines
        else:
            lines = _points(axes, those, found, controls) or lines
    note = "a point for each lane" if all(against for _, _, against, _ in panels) else None
    return legend.finish(drawn, lines, note) if lines else drawn


def named(finding: Finding) -> list[str]:
    """The arms in the criterion, in its order."""
    return list(dict.fromkeys(arm for clause in clauses(finding.criterion) for arm in clause.arms))


def drawn_arms(table: pd.DataFrame, arms: Sequence[str], controls: Collection[str]) -> list[str]:
    """The arms to draw: all if there are few, else those named and the controls."""
    known = list(dict.fromkeys(table["arm"]))
    return known if len(known) <= MOST else [arm for arm in known if arm in arms or arm in controls]


def _controls(runs: Mapping[str, Path]) -> set[str]:
    """The fresh controls by their names in the tables: ``PART/ARM`` if there are parts."""
    return {f"{part}/{arm}" if part else arm for part, run in runs.items() for arm in style.controls_of([run])}


def _series(table: pd.DataFrame, arms: Sequence[str], controls: Collection[str]) -> list[style.Series]:
    others = [arm for arm in arms if arm not in controls]
    grey = [arm for arm in arms if arm in controls]
    found = []
    for arm in arms:
        look = style.look(None, grey.index(arm), len(grey)) if arm in controls else style.look(others.index(arm))
        found.append(style.Series(arm, table[table["arm"] == arm], look))
    return found


def _curves(
    axes: Axes, those: Sequence[Clause], found: Tables, arms: Sequence[str], controls: Collection[str]
) -> list[style.Series]:
    """Draw the quantity of the clauses by visit, with the thresholds of their times."""
    first = those[0]
    table = found(first.table_of(first.what), first.record)
    if first.task is not None:
        table = visits_to(first.task, table)
    lines = _series(table, drawn_arms(table, arms, controls), controls)
    for place, line in enumerate(lines):
        kept = line.rows.assign(value=line.rows["value"].where(~line.rows["lost"]))
        wide = kept.pivot_table(index="visit", columns=["point", "seed"], values="value").dropna(how="all")
        if wide.empty:
            continue
        mean, low, high = mean_interval(wide.to_numpy(float))
        counted = pd.DataFrame({"mean": mean, "low": low, "high": high, "n": wide.notna().sum(axis=1).to_numpy()})
        style.draw_curve(axes, line, counted, wide.index.to_numpy() + 1, len(lines), place)
    axes.set_xlabel(f"visit to {first.task}" if first.task else "visit")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(measured_text(first))
    _scale(axes)
    for height in {clause.crosses.threshold for clause in those if clause.at == "time"}:
        axes.axhline(height, color="#888888", linewidth=0.8, linestyle=":")
    return lines


def _one_visit(clause: Clause) -> bool:
    return (clause.at == "end" or isinstance(clause.at, int)) and clause.less is None


def _dots(axes: Axes, clause: Clause, found: Tables, named: Sequence[str], controls: Collection[str]) -> None:
    """Draw the arms below one another, each with its mean and interval in the judged visit."""
    table = found(clause.table_of(clause.what), clause.record)
    arms = drawn_arms(table, named, controls)
    every = replace(clause, arms=tuple(arms))
    values = lane_values(every, table).pivot(index="arm", columns=["point", "seed"], values="value").loc[arms]
    mean, low, high = mean_interval(values.to_numpy(float))
    places = np.arange(len(arms))
    for place, line in zip(places, _series(table, arms, controls), strict=True):
        reach = [[mean[place] - low[place]], [high[place] - mean[place]]]
        marker = line.look["marker"] or "o"
        axes.errorbar(mean[place], place, xerr=reach, fmt=marker, color=line.look["color"], capsize=2)
    axes.set_yticks(places, arms)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color="#EBEBEB")
    axes.set_xlabel("mean over seeds, 95 % interval")
    axes.set_title(f"{measured_text(clause)}, {stage_text(clause.at)}")


def _scale(axes: Axes) -> None:
    """Set a logarithmic axis if all values are positive and span a wide range."""
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.get_lines()] or [np.zeros(1)])
    heights = heights[np.isfinite(heights)]
    if len(heights) and heights.min() > 0 and heights.max() > WIDE * heights.min():
        axes.set_yscale("log")


def _points(axes: Axes, those: Sequence[Clause], found: Tables, controls: Collection[str]) -> list[style.Series]:
    """One panel of two quantities, with a point for each lane of the arms (of all arms if none is named)."""
    first = those[0]
    arms = list(dict.fromkeys(arm for clause in those for arm in clause.arms))
    clause = replace(first, arms=tuple(arms), diverged=None)
    asked = ((str(first.against), "end"), (first.what, first.record))
    sides = [lane_values(clause, found(clause.table_of(what), record)) for what, record in asked]
    pairs = sides[0].merge(sides[1], on=["arm", "point", "seed"], suffixes=("", "_other"))
    labels = {"value": str(first.against), "value_other": first.what}
    for column in labels:
        framed = without_outliers(pairs[column].to_numpy(float))
        labels[column] += "" if np.array_equal(framed, pairs[column], equal_nan=True) else "\n(outliers at the edge)"
        pairs[column] = framed
    lines = _series(pairs, arms or list(dict.fromkeys(pairs["arm"])), controls)
    for line in lines:
        look = {"color": line.look["color"], "marker": line.look["marker"] or "o"}
        axes.scatter(line.rows["value"], line.rows["value_other"], s=9, alpha=0.6, linewidths=0, **look)
    axes.set_xlabel(labels["value"])
    axes.set_ylabel(labels["value_other"])
    return lines


def without_outliers(values: np.ndarray) -> np.ndarray:
    """The values, the lowest and the highest hundredth moved in if they would make an axis more than STRETCH longer."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return values
    low, high = np.percentile(finite, [1, 99])
    return np.clip(values, low, high) if np.ptp(finite) > STRETCH * (high - low) > 0 else values
