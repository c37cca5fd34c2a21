"""Means and intervals over seeds along an axis, thinned to fit a page."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plasticity import results

MOST_POINTS = 800  # per line
FEWEST_POINTS = 12
BUDGET = 130_000  # points on a page, of about 15 bytes each


class Grids:
    """Lists of positions on the horizontal axis, each stored once."""

    def __init__(self) -> None:
        self.lists: list[list[float]] = []
        self._known: dict[tuple[float, ...], int] = {}

    def index(self, places: Sequence[float]) -> int:
        key = tuple(places)
        if key not in self._known:
            self._known[key] = len(self.lists)
            self.lists.append(list(key))
        return self._known[key]


def most_points(lines: int) -> int:
    """The maximum number of points per line, given the number of lines."""
    return int(np.clip(BUDGET // max(lines, 1), FEWEST_POINTS, MOST_POINTS))


def lines(
    rows: pd.DataFrame, value: str, x: str, ends: Sequence[float], most: int, grids: Grids
) -> list[dict[str, Any]]:
    """Compute the column ``value`` as one line for each ``series``.

    Args:
      rows: the table, with columns ``series``, ``lane``, ``x`` and ``value``.
      value: the column to draw.
      x: the column of the horizontal axis.
      ends: ends of visits on the axis; empty if the axis counts visits.
      most: maximum number of points per line; if there are more records, neighbouring ones are averaged per lane.
      grids: stores the lists of positions.

    Returns:
      For each line ``s`` (its series), ``g`` (its list of positions), ``m`` (means) and ``h`` (half widths of the 95 %
      intervals; None where few seeds have a value; absent if there are none).
    """
    rows = rows.loc[np.isfinite(rows[value].astype(float)), ["series", "lane", x, value]]
    if rows.empty:
        return []
    seeds = rows.groupby("series")["lane"].nunique()
    found = results.curve(_thinned(rows, value, x, ends, most), value, ["series", x]).reset_index()
    return [_line(int(str(series)), part, x, int(seeds[series]), grids) for series, part in found.groupby("series")]


def _line(series: int, part: pd.DataFrame, x: str, seeds: int, grids: Grids) -> dict[str, Any]:
    half = (part["high"] - part["mean"]).where(part["n"] >= max(seeds / 2, min(seeds, 3)))
    line: dict[str, Any] = {"s": series, "g": grids.index([plain(value) for value in part[x]])}
    line["m"] = [rounded(value, 5) for value in part["mean"]]
    if half.notna().any():
        line["h"] = [rounded(value, 3) for value in half]
    return line


def _thinned(rows: pd.DataFrame, value: str, x: str, ends: Sequence[float], most: int) -> pd.DataFrame:
    """Average each lane's neighbouring records; groups end where visits end, unless there are too many visits."""
    places = np.unique(rows[x])
    size = math.ceil(len(places) / most)
    if size < 2:
        return rows
    inside = np.searchsorted(np.asarray(ends), places) if 0 < len(ends) <= most else np.zeros(len(places), int)
    first = np.searchsorted(inside, inside)  # for each position, the position where its visit begins
    groups = inside * len(places) + (np.arange(len(places)) - first) // size
    last = places[np.searchsorted(groups, groups, side="right") - 1]
    moved = rows.assign(**{x: last[np.searchsorted(places, rows[x])]})
    return moved.groupby(["series", "lane", x])[value].mean().reset_index()


def rounded(value: float, digits: int) -> float | None:
    """The number rounded to ``digits`` significant digits; None if it is missing."""
    return plain(float(f"{value:.{digits}g}")) if math.isfinite(value) else None


def plain(value: float) -> float:
    """Convert integral floats to integers, which JSON writes without ``.0``."""
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else float(value)
