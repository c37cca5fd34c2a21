"""Keep what each seed reached in each visit of a run, for the numbers in README.md and the documentation.

plasticity run quickstart
python docs/make_results.py runs/quickstart      # writes docs/results/quickstart.csv

Columns: ``arm``, swept hyper-parameters, ``seed``, ``visit`` (from 1), ``task``, ``performance`` (over the visit),
``performance_end`` (over its last tenth), and ``performance_evaluated`` where the run evaluates. Five significant
digits; empty if the lane diverged or no episode ended.
"""

import sys
from pathlib import Path

from plasticity import results
from plasticity.findings.by_visit import rounded

RESULTS = Path(__file__).resolve().parent / "results"


def table(run: Path) -> str:
    """The table of a run as CSV."""
    found = results.visits(run)
    keys = ["arm", *results.hyper_parameters(run), "seed", "visit", "task"]
    measured = [name for name in found.columns if name.startswith("performance")]
    return results.csv_text(rounded(found.assign(visit=found["visit"] + 1)[[*keys, *measured]]))


if __name__ == "__main__":
    RESULTS.mkdir(exist_ok=True)
    for run in map(Path, sys.argv[1:]):
        (RESULTS / f"{results.plan(run)['name']}.csv").write_text(table(run), encoding="utf-8")
