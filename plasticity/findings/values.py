"""The values by seed behind a verdict, as a small table."""

import csv
import io
import math
from collections.abc import Sequence

from plasticity.findings.judge import Judged

COLUMNS = ("finding", "clause", "arm", "seed", "value")
DIGITS = 6


def table(name: str, judged: Sequence[Judged]) -> str:
    """The table as CSV: ``finding, clause, arm, seed, value``.

    Clauses are numbered from 1, in the order of the criterion. First come the values of the clause's arms (``ARM`` or
    ``PART/ARM``), then those of what is computed of them for each seed and compared with the bound: ``a - b``,
    ``slope``, ``Spearman``. An arm with a sweep has several values per seed, which are left out. Values have six
    significant digits and are empty if data are missing.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for number, clause in enumerate(judged, 1):
        rows.writerows((name, number, arm, seed, _digits(value)) for arm, seed, value in clause.values)
    return text.getvalue()


def _digits(value: float) -> str:
    return f"{value:.{DIGITS}g}" if math.isfinite(value) else ""
