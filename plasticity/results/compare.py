"""The arms of a run compared: early and late performance, and the gap to the fresh control."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from plasticity.results.intervals import mean_interval
from plasticity.results.read import RunPath, arm_names, hyper_parameters, lanes, plan, tenth, visits_and_losses


class Point(NamedTuple):
    """The rows of one arm at one point of its sweep."""

    label: str  # the arm, with the point where the arm has several: "baseline, learning_rate=0.001"
    settings: tuple[str, ...]  # the point's part of the label
    run: str  # "" in a table of one run
    arm: str
    values: dict[str, Any]  # the point: swept hyper-parameter -> value
    rows: pd.DataFrame


def points(table: pd.DataFrame, hyper: Sequence[str]) -> list[Point]:
    """The arms and points of a table, in the order of the config; ``hyper`` are its swept hyper-parameters."""
    keys = [key for key in ("run", "arm") if key in table]
    several = "run" in table
    found = []
    for names, part in table.groupby(keys, observed=True, sort=True):
        run, arm = ("", *names)[-2:]
        swept = [column for column in hyper if column in part and part[column].notna().any()]
        varied = [column for column in swept if part[column].nunique(dropna=False) > 1]
        groups = part.groupby(varied, dropna=False, sort=False) if varied else [((), part)]
        for _, rows in groups:
            first = rows.iloc[0]
            values = {column: first[column] for column in swept if pd.notna(first[column])}
            settings = tuple(f"{_short(column, hyper)}={_plain(first[column])}" for column in varied)
            label = ", ".join([f"{run}: {arm}" if several else str(arm), *settings])
            found.append(Point(label, settings, str(run), str(arm), values, rows))
    return found


def _short(column: str, columns: Sequence[str]) -> str:
    """The shortest dotted ending of ``column`` that no other column has."""
    parts = column.split(".")
    endings = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
    others = [other for other in columns if other != column]
    return next((end for end in endings if not any(f".{other}".endswith(f".{end}") for other in others)), column)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def summary(
    run: RunPath,
    *,
    control: str = "fresh",
    baseline: str = "baseline",
    measure: str = "performance",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """One row per arm and swept point: performance early and late, and the gap to the fresh control.

    ``first`` and ``last`` are the means over the first and the last tenth of the visits (at least one visit), for
    each seed and then over seeds; of a stream of one visit, over that visit and over its last tenth. ``gap`` is the
    mean over seeds of (arm - control) on the last tenth, paired by seed and taken at the control's point with the same
    hyper-parameters, or the only one that does not contradict them. ``change`` is the mean over seeds of that
    difference minus the same on the first tenth: how far the arm falls behind the control along the stream, whatever
    its level at the beginning (another architecture may learn every task a little worse without losing plasticity).
    ``closed = (arm - baseline) / (control - baseline)`` on the last tenth, over the seeds all three have: 0 at the
    baseline, 1 at the control. It means little where the baseline's own gap is not clearly off zero.

    Args:
      run: the run's folder.
      control: the arm that starts afresh at every switch.
      baseline: the arm whose gap to the control is to be closed.
      measure: ``performance`` or ``performance_end``, see :func:`visits`.
      confidence: of the Student-t intervals.

    Returns:
      ``arm``, the swept hyper-parameters, ``lanes``, ``diverged`` (how many of them), ``seeds`` (lanes with all of
      the last tenth), ``first, first_low, first_high``, the same for ``last``, ``gap`` and ``change``, and ``closed``.
      The columns of ``gap`` and ``change`` are absent without a control arm (``change`` also of a single visit),
      ``closed`` without a control or a baseline arm. A stage
      that a lane has not finished, or not survived, is missing for it.
    """
    hyper, count = hyper_parameters(run), len(plan(run)["stream"]["visits"])
    rows, length, known = visits_and_losses(run), int(tenth(count)), lanes(run)
    known["first"] = stage_means(rows, known, range(length), measure)
    late = measure if count > 1 else "performance_end"
    known["last"] = stage_means(rows, known, range(count - length, count), late)
    cells = points(known, hyper)
    arms = set(arm_names(run))
    table = []
    for cell in cells:
        row = {"arm": cell.arm, **cell.values, **_counts(cell.rows)}
        row |= _named("first", cell.rows["first"], confidence) | _named("last", cell.rows["last"], confidence)
        if control in arms:
            against = counterpart(cell, cells, control)
            gap = _difference(cell, against, "last")
            row |= _named("gap", gap, confidence)
            row |= _named("change", gap - _difference(cell, against, "first"), confidence) if count > 1 else {}
        if {control, baseline} <= arms:
            row["closed"] = _closed(cell, counterpart(cell, cells, baseline), counterpart(cell, cells, control))
        table.append(row)
    return _in_order(pd.DataFrame(table), run, hyper)


def _in_order(table: pd.DataFrame, run: RunPath, hyper: Sequence[str]) -> pd.DataFrame:
    """``summary``'s rows with a row for each arm that has not started, and its columns in their order."""
    absent = [arm for arm in arm_names(run) if table.empty or arm not in set(table["arm"])]
    rows = [*table.to_dict("records"), *({"arm": arm, "lanes": 0, "diverged": 0, "seeds": 0} for arm in absent)]
    numbers = [f"{name}{bound}" for name in ("first", "last", "gap", "change") for bound in ("", "_low", "_high")]
    columns = ["arm", *hyper, "lanes", "diverged", "seeds", *numbers, "closed"]
    always = {"arm", "lanes", "diverged", "seeds", *hyper, *numbers[:6]}
    columns = [column for column in columns if column in always or column in table]
    table = pd.DataFrame(rows, columns=columns)
    table["arm"] = pd.Categorical(table["arm"], categories=arm_names(run), ordered=True)
    return table.sort_values("arm", kind="stable", ignore_index=True)


def stage_means(rows: pd.DataFrame, known: pd.DataFrame, stage: range, measure: str) -> np.ndarray:
    """Each lane's mean over the visits of a stage: missing unless it finished and survived them all."""
    groups = rows[rows["visit"].isin(stage)].groupby(["arm", "lane"], observed=True)
    whole = (groups["visit"].nunique() == len(stage)) & ~groups["lost"].any()
    means = groups[measure].mean().where(whole)  # a visit in which no episode ended is left out
    return means.reindex(pd.MultiIndex.from_frame(known[["arm", "lane"]])).to_numpy(float)


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    return {
        "lanes": len(rows),
        "diverged": int(rows["diverged_at"].notna().sum()),
        "seeds": int(rows["last"].notna().sum()),
    }


def _named(name: str, values: Any, confidence: float) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), mean_interval(values, confidence), strict=True))


def _of_seeds(cell: Point | None, stage: str = "last") -> pd.Series:
    return cell.rows.set_index("seed")[stage] if cell else pd.Series(dtype=float)


def _difference(cell: Point, control: Point | None, stage: str) -> pd.Series:
    """Paired by seed; NaN of the control itself."""
    found = _of_seeds(cell, stage) - _of_seeds(control, stage)
    return found * np.nan if control is not None and cell.arm == control.arm else found


def counterpart(cell: Point, cells: Sequence[Point], arm: str) -> Point | None:
    """``arm`` at the point of ``cell``: the same one, else the only one that agrees where both have a value."""
    others = [other for other in cells if other.arm == arm]
    same = [other for other in others if other.values == cell.values]
    agreeing = [
        other
        for other in others
        if all(other.values[name] == value for name, value in cell.values.items() if name in other.values)
    ]
    chosen = same or agreeing
    return chosen[0] if len(chosen) == 1 else None


def _closed(cell: Point, baseline: Point | None, control: Point | None) -> float:
    """Share of the baseline's shortfall that the cell makes up; NaN where the baseline does not fall short."""
    shared = pd.concat([_of_seeds(cell), _of_seeds(baseline), _of_seeds(control)], axis=1).dropna().mean().to_numpy()
    gap = shared[2] - shared[1]
    return float((shared[0] - shared[1]) / gap) if gap > 0 else float("nan")
