"""Means and intervals over seeds along an axis, few enough of them for a page."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plasticity import results

MOST_POINTS = 800  # of a line
FEWEST_POINTS = 12
BUDGET = 130_000  # points of a page; one takes about 15 bytes


class Grids:
    """The places on the horizontal axis, each list of them once."""

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
    """How many points each of so many lines may have."""
    return int(np.clip(BUDGET // max(lines, 1), FEWEST_POINTS, MOST_POINTS))


def lines(
    rows: pd.DataFrame, value: str, x: str, ends: Sequence[float], most: int, grids: Grids
) -> list[dict[str, Any]]:
    """The column ``value`` as one line for each ``series``.

    Args:
      rows: has ``series``, ``lane``, the column ``x`` and the column ``value``.
      value: what is drawn.
      x: the axis.
      ends: where visits end on the axis; none where the axis counts visits.
      most: points of a line; more records than that are averaged over neighbouring ones, lane by lane.
      grids: where the lists of places are kept.

    Returns:
      For each line ``s`` (its series), ``g`` (its list of places), ``m`` (means) and ``h`` (half the width of the 95 %
      interval; None where few of the seeds have a value; absent where no place has one).
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
    """Each lane's records averaged in groups of neighbours; groups end with visits, unless visits are too many."""
    places = np.unique(rows[x])
    size = math.ceil(len(places) / most)
    if size < 2:
        return rows
    inside = np.searchsorted(np.asarray(ends), places) if 0 < len(ends) <= most else np.zeros(len(places), int)
    first = np.searchsorted(inside, inside)  # the place where the visit of each place begins
    groups = inside * len(places) + (np.arange(len(places)) - first) // size
    last = places[np.searchsorted(groups, groups, side="right") - 1]
    moved = rows.assign(**{x: last[np.searchsorted(places, rows[x])]})
    return moved.groupby(["series", "lane", x])[value].mean().reset_index()


def rounded(value: float, digits: int) -> float | None:
    """The number to so many significant digits; None where it is missing."""
    return plain(float(f"{value:.{digits}g}")) if math.isfinite(value) else None


def plain(value: float) -> float:
    """A whole number without ``.0``."""
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else float(value)
