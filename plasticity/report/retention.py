"""What a run retains of earlier tasks: matrices of performance, Continual World's measures and the split shortfall."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plasticity import results
from plasticity.report.intervals import cut
from plasticity.report.lines import rounded
from plasticity.results.ranges import UNBOUNDED, Range
from plasticity.results.read import SUCCESS, RunPath

MOST_VISITS, MOST_CELLS = 24, 6_000  # of a matrix, and of all matrices of a run
BOUNDS = ("", "_low", "_high")


def retention(run: RunPath, stream: Mapping[str, Any], measured: str) -> dict[str, Any] | None:
    """Collect the section on retention; None unless earlier tasks were evaluated at the ends of visits.

    Args:
      run: the run's folder.
      stream: ``plan(run)["stream"]``.
      measured: the name of the reward or return.

    Returns:
      ``matrices`` and the rows ``measures``, ``parts`` (one per arm and point) and ``by_task``; numbers are lists
      ``[mean, low, high]``.
    """
    try:
        matrix = results.performance_matrix(run)
        scaled = not matrix.alike
        found = results.continual_world(run, scaled=scaled)
    except ValueError:  # not evaluated so
        return None
    if len(matrix.tasks) < 2 or len(set(matrix.tasks)) < 2 or not np.isfinite(matrix.values).any():
        return None
    success = found.measure == SUCCESS
    performance = (0.0, 1.0) if success else UNBOUNDED if scaled else results.performance_range(stream)
    hyper = results.hyper_parameters(run)
    return {
        "measure": "success rate" if success else measured,
        "scaled": scaled,
        "curves": found.curves,
        "tasks": list(matrix.tasks),
        "matrices": _matrices(matrix, by_column=scaled),
        "measures": _measures(found, hyper, performance),
        **_shortfall(run, scaled, hyper, performance),
    }


def _matrices(matrix: results.Matrix, *, by_column: bool) -> list[dict[str, Any]]:
    """For each arm and point, the means over seeds and their places on the scale of colours, row by row."""
    cells = results.points(matrix.lanes, matrix.hyper)
    means = np.stack([results.mean_interval(matrix.values[cell.rows.index], axis=0).mean for cell in cells])
    if len(matrix.tasks) > MOST_VISITS or means.size > MOST_CELLS:
        return []
    columns = means if by_column else means.reshape(-1, 1)
    low, high = (end(columns.reshape(-1, columns.shape[-1]), axis=0) for end in (np.fmin.reduce, np.fmax.reduce))
    share = (means - low) / np.where(high > low, high - low, 1.0)
    return [
        {"label": cell.label, "values": _plain(mean, 4), "shares": _plain(part, 3)}
        for cell, mean, part in zip(cells, means, share, strict=True)
    ]


def _plain(values: np.ndarray, digits: int) -> list[list[float | None]]:
    return [[rounded(float(value), digits) for value in row] for row in values]


def _measures(found: results.ContinualWorld, hyper: Sequence[str], limits: Range) -> list[dict[str, Any]]:
    differences = results.difference_range(limits)
    rows = {
        point.label: {
            "label": point.label,
            "seeds": int(point.rows["seeds"].iloc[0]),
            "performance": _interval(point.rows, "performance", limits),
        }
        for point in results.points(found.performance.overall, hyper)
    }
    for point in results.points(found.forgetting.overall, hyper):
        rows[point.label]["forgetting"] = _interval(point.rows, "forgetting", differences)
    for point in results.points(found.transfer.overall, hyper) if found.transfer else ():
        rows[point.label]["difference"] = _interval(point.rows, "difference", differences)
        rows[point.label]["transfer"] = _interval(point.rows, "forward_transfer", UNBOUNDED)
    return list(rows.values())


def _shortfall(run: RunPath, scaled: bool, hyper: Sequence[str], limits: Range) -> dict[str, Any]:
    """``parts``, and the same for each task; none without a control."""
    if not any(results.controls(run).values()):
        return {"parts": [], "by_task": []}
    try:
        found = results.shortfall(results.performance_matrix(run, scaled=scaled))
    except ValueError:  # the control has not started
        return {"parts": [], "by_task": []}
    tasks = found.means["evaluated_task"]
    by_task = [
        {"task": str(task), **row}
        for task in dict.fromkeys(tasks)
        for row in _parts(found.means[tasks == task], hyper, limits)
    ]
    return {"parts": _parts(found.overall, hyper, limits), "by_task": by_task}


def _parts(table: pd.DataFrame, hyper: Sequence[str], limits: Range) -> list[dict[str, Any]]:
    names = ("shortfall", "not_learned", "forgotten")
    differences = results.difference_range(limits)
    return [
        {
            "label": point.label,
            "reference": _interval(point.rows, "reference", limits),
            **{name: _interval(point.rows, name, differences) for name in names},
        }
        for point in results.points(table, hyper)
    ]


def _interval(rows: pd.DataFrame, name: str, limits: Range) -> list[float | None]:
    mean, low, high = (float(rows[f"{name}{bound}"].iloc[0]) for bound in BOUNDS)
    return [rounded(each, 5) for each in (mean, *cut(mean, low, high, limits))]
