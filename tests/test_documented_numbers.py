"""The tables in README.md and docs/quickstart.md follow from the values by seed in docs/results."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

DOCS = Path(__file__).resolve().parents[1] / "docs"
QUICKSTART = (DOCS / "quickstart.md").read_text(encoding="utf-8")


def tenths(name):
    """Seeds x arms: the mean over the first and over the last tenth of the visits."""
    found = pd.read_csv(DOCS / "results" / f"{name}.csv")
    count = found["visit"].max()
    parts = found[found["visit"] <= count / 10], found[found["visit"] > count - count / 10]
    return [part.pivot_table(values="performance", index="seed", columns="arm") for part in parts]


def expected(name, arm):
    first, last = tenths(name)
    gaps = last[arm] - last["fresh"]
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std() / math.sqrt(len(gaps))
    fresh, plain = last["fresh"].mean(), last["baseline"].mean()
    closed = 100 * (last[arm].mean() - plain) / (fresh - plain)
    return [first[arm].mean(), last[arm].mean(), gaps.mean(), gaps.mean() - half, gaps.mean() + half], closed


def numbers(text):
    return [(float(found), len(found.partition(".")[2])) for found in re.findall(r"[-+]?\d+(?:\.\d+)?", text)]


def check(name, arm, cells, closed):
    """Numbers as printed, each within half a unit of its last digit."""
    values, share = expected(name, arm)
    shown = numbers(" ".join(cells))
    assert len(shown) == (2 if arm == "fresh" else 5), cells
    for value, (number, digits) in zip(values, shown, strict=False):
        assert abs(value - number) <= 1.01 * 0.5 * 10.0**-digits, (name, arm, value, number)
    if numbers(closed):
        assert round(share) == numbers(closed)[0][0]


def test_readme():
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    table = text.partition("quickstart: accuracy")[2].partition("```")[0]
    rows = [line for line in table.splitlines() if line.endswith("0/8")]
    assert len(rows) == 6
    for row in rows:
        arm, *cells, closed, _ = row.split()
        check("quickstart", arm, cells, closed)


@pytest.mark.parametrize("name", re.findall(r"^\*\*`(\w+)`\*\*", QUICKSTART, re.MULTILINE))
def test_quickstart_page(name):
    table = QUICKSTART.partition(f"**`{name}`**")[2].partition("\n**`")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert rows
    assert {arm for arm, *_ in rows} <= set(pd.read_csv(DOCS / "results" / f"{name}.csv")["arm"])
    for arm, *cells, closed in rows:
        check(name, arm, cells, closed)
