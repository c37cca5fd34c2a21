"""Numbers in README.md, docs/quickstart.md and docs/tour.md follow from the values by seed in docs/results."""

import re

import pandas as pd
import pytest
from documented import DOCS, agree, interval, numbers, page, sentence, table_of

QUICKSTART = page("quickstart.md")


def tenths(name):
    """Seeds x arms: the mean over the first and over the last tenth of the visits."""
    found = table_of(name)
    count = found["visit"].max()
    parts = found[found["visit"] <= count / 10], found[found["visit"] > count - count / 10]
    return [part.pivot_table(values="performance", index="seed", columns="arm") for part in parts]


def check(name, arm, cells, closed):
    """First and last tenth, the gap to the fresh control, and the share of the baseline's gap that is closed."""
    first, last = tenths(name)
    gap = [] if arm == "fresh" else interval(last[arm] - last["fresh"])
    agree(" ".join(cells), [first[arm].mean(), last[arm].mean(), *gap])
    if numbers(closed):
        plain, fresh = last["baseline"].mean(), last["fresh"].mean()
        assert numbers(closed)[0][0] == round(100 * (last[arm].mean() - plain) / (fresh - plain))


@pytest.mark.parametrize("name", ["../README.md", "quickstart.md"])
def test_the_summary_of_the_quickstart(name):
    table = page(name).partition("quickstart: accuracy")[2].partition("```")[0]
    rows = [line for line in table.splitlines() if line.endswith("0/8")]
    assert len(rows) == 6
    for row in rows:
        arm, *cells, closed, _ = row.split()
        check("quickstart", arm, cells, closed)


def test_what_the_quickstart_shows():
    measured = pd.read_csv(DOCS / "results" / "metrics" / "quickstart.csv").groupby(["arm", "visit"]).mean()
    early, late = (measured.loc[("baseline", visit), "effective_rank"] for visit in (4, 28))
    dormant = measured.loc[("baseline", 28), "dormant_units"]
    assert measured.loc[("baseline", 28), "dormant_units/hidden_1"] > 0.95  # nearly the whole second layer
    agree(sentence(QUICKSTART, "effective rank falls from ", " in the twenty"), [early, late])
    agree(sentence(QUICKSTART, "By then ", " of its units"), [100 * dormant])
    performance = table_of("quickstart").pivot_table("performance", ["visit"], "arm")
    lead = performance["reset_last"] - performance["fresh"]
    agree(sentence(QUICKSTART, "Its lead shrinks from ", " in the last"), [lead[5], lead[30]])


@pytest.mark.parametrize("name", re.findall(r"^\*\*`(\w+)`\*\*", QUICKSTART, re.MULTILINE))
def test_quickstart_page(name):
    table = QUICKSTART.partition(f"**`{name}`**")[2].partition("\n**`")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert rows
    assert {arm for arm, *_ in rows} <= set(table_of(name)["arm"])
    for arm, *cells, closed in rows:
        check(name, arm, cells, closed)


def test_tour():
    """The accuracies in the text, and those of the smaller learning rate."""
    text = page("tour.md")
    first, last = tenths("tour")
    agree(sentence(text, "its accuracy falls from ", " to about"), [first["baseline"].mean()])
    agree(sentence(text, "its accuracy falls from 0.87 to about ", ", while"), [last["baseline"].mean()])
    agree(sentence(text, "while that of `fresh` stays at ", ". With"), [last["fresh"].mean()])
    agree(sentence(text, "*keeps* learning: it ends at ", ", which three"), [last["layer_norm"].mean()])
    first, last = tenths("tour-smaller")
    agree(sentence(text, "The smaller learning rate ends at about ", ". It also"), [last["baseline"].mean()])
    agree(sentence(text, "It also starts lower, at ", " instead of"), [first["baseline"].mean()])
