"""A run folder that an earlier revision wrote (`tests/data/older_run`, revision 367096a) reads as it did then.

The two CSV files beside it are what that revision's ``results.visits`` and ``results.summary`` returned.
"""

from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from plasticity import results
from plasticity.cli.watch import watch

DATA = Path(__file__).parent / "data"
RUN = DATA / "older_run"


@pytest.mark.parametrize("table", ["visits", "summary"])
def test_the_tables_of_an_older_run_are_unchanged(table):
    found, expected = getattr(results, table)(RUN), pd.read_csv(DATA / f"older_run_{table}.csv")
    if table == "summary":  # the baseline's gap may be zero here: since 0.2.0 there is nothing to close then
        assert found["closed"].isna().all()
        expected = expected.drop(columns="closed")
    pd.testing.assert_frame_equal(found[list(expected)].astype(expected.dtypes), expected, rtol=1e-12)


def test_an_older_run_has_its_evaluations():
    found = results.evaluations(RUN)
    assert len(found) == 2 * 4 * (1 + 2 + 3 + 4)  # arms x lanes x tasks seen at the end of each of the four visits


def test_an_older_run_is_shown_as_finished():
    console = Console(width=120, record=True)
    watch(RUN, console, once=True)
    assert "old: finished, 100 % (2 of 2 arms)" in console.export_text()
