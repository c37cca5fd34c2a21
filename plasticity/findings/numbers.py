"""Exact (computed, not measured) numbers as tables for :mod:`plasticity.findings.judge`."""

from collections.abc import Mapping

import pandas as pd

from plasticity.core.errors import UserError, unknown
from plasticity.findings.criterion import Clause, Group, Record, clauses
from plasticity.findings.lanes import Tables


def constants(numbers: Mapping[str, float]) -> Tables:
    """Each number as the result of two equal seeds of one arm, so that its interval is the number itself."""

    def table(what: str, within: Record) -> pd.DataFrame:
        del within
        rows = pd.DataFrame({"seed": [0, 1], "arm": "", "point": 0, "visit": 0, "value": numbers[what], "lost": False})
        rows.attrs["visits"] = 1
        return rows

    return table


def check_names(criterion: Clause | Group, numbers: Mapping[str, float], source: str) -> None:
    """``UserError`` for a clause on a number that does not exist, or with a key that needs runs."""
    for clause in clauses(criterion):
        wrong = [key for key in ("task", "threshold", "against") if getattr(clause, key) is not None]
        if wrong:
            raise UserError(f"{source}: criterion: `{wrong[0]}` needs runs; an exact finding has numbers only")
        if clause.what not in numbers:
            raise UserError(f"{source}: criterion: {unknown(f'number `{clause.what}`', clause.what, numbers)}")
