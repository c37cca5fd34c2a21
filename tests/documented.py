"""Numbers in the documentation against the values by seed in docs/results."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

DOCS = Path(__file__).resolve().parents[1] / "docs"
NUMBER = re.compile(r"(?<![\w.,])[-+]?\d+(?:,\d{3})*(?:\.\d+)?")


def numbers(text: str) -> list[tuple[float, int]]:
    """Each number in a text, and how many decimal places it is given with."""
    return [(float(found.replace(",", "")), len(found.partition(".")[2])) for found in NUMBER.findall(text)]


def interval(values: Any) -> list[float]:
    """The mean over seeds and its 95 % interval (Student's t)."""
    found = np.asarray(values, float)
    half = stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / math.sqrt(len(found))
    return [float(found.mean()), float(found.mean() - half), float(found.mean() + half)]


def agree(text: str, values: Sequence[float]) -> None:
    """The text holds these numbers and no others, each within half a unit of its last digit."""
    found = numbers(text)
    assert len(found) == len(values), (text, values)
    for value, (number, digits) in zip(values, found, strict=True):
        assert abs(value - number) <= 1.01 * 0.5 * 10.0**-digits, (text, list(values))


def page(name: str) -> str:
    """A page of the documentation."""
    return (DOCS / name).read_text(encoding="utf-8")


def table_of(name: str, **where: Any) -> pd.DataFrame:
    """The rows of docs/results/NAME.csv with these values in these columns."""
    found = pd.read_csv(DOCS / "results" / f"{name}.csv")
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found), (name, where)
    return found


def rows_of(text: str, header: str) -> list[list[str]]:
    """The cells of the rows of the table with this header (its first cells are enough)."""
    lines = text.partition(f"\n{header}")[2].splitlines()[2:]
    count = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    assert count, header
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[:count]]


def sentence(text: str, start: str, end: str) -> str:
    """The text between two phrases, in one line."""
    joined = " ".join(text.split())
    assert joined.count(start) == 1, start
    found, stop, _ = joined.partition(start)[2].partition(end)
    assert stop, end
    return found
