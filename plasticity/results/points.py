"""Arms, the points of their sweeps, and the matching of points between arms."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd


class Point(NamedTuple):
    """The rows of one arm at one point of its sweep."""

    label: str  # the arm, with its point if it has several: "baseline, learning_rate=0.001"
    settings: tuple[str, ...]  # the point's part of the label
    run: str  # "" in a table of one run
    arm: str
    values: dict[str, Any]  # the point: swept hyper-parameter -> value
    rows: pd.DataFrame


def points(table: pd.DataFrame, hyper: Sequence[str]) -> list[Point]:
    """Split a table into arms and points, in the order of the config; ``hyper`` are its swept hyper-parameters."""
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
            settings = tuple(f"{short(column, hyper)}={_plain(first[column])}" for column in varied)
            label = ", ".join([f"{run}: {arm}" if several else str(arm), *settings])
            found.append(Point(label, settings, str(run), str(arm), values, rows))
    return found


def short(column: str, columns: Sequence[str]) -> str:
    """The shortest dotted ending of ``column`` that no other column has."""
    parts = column.split(".")
    endings = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
    others = [other for other in columns if other != column]
    return next((end for end in endings if not any(f".{other}".endswith(f".{end}") for other in others)), column)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def counterpart(cell: Point, cells: Sequence[Point], arm: str) -> Point | None:
    """``arm`` at the point of ``cell``: the same point, or the only one that agrees where both have a value."""
    others = [other for other in cells if other.arm == arm]
    same = [other for other in others if other.values == cell.values]
    agreeing = [
        other
        for other in others
        if all(other.values[name] == value for name, value in cell.values.items() if name in other.values)
    ]
    chosen = same or agreeing
    return chosen[0] if len(chosen) == 1 else None


def control_of(cell: Point, cells: Sequence[Point], controls: Mapping[str, str | None]) -> Point | None:
    """The fresh control's point for a cell; ``controls`` gives the control of each arm."""
    name = controls.get(cell.arm)
    return None if name is None else counterpart(cell, [each for each in cells if each.run == cell.run], name)
