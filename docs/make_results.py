"""Keep what each seed reached in a run, for the numbers in README.md and the documentation.

plasticity run quickstart
python docs/make_results.py runs/quickstart      # writes docs/results/quickstart.csv
python docs/make_results.py --metrics runs/monitors      # and docs/results/metrics/monitors.csv

All tables have ``arm``, swept hyper-parameters (but for probes) and ``seed``; numbers have five significant digits and
are empty if the lane diverged or no episode ended.

* ``docs/results/NAME.csv``: ``visit`` (from 1), ``task``, ``performance`` (over the visit), ``performance_end`` (over
  its last tenth), and ``performance_evaluated`` where the run evaluates.
* ``docs/results/curves/NAME.csv``, of runs of at most three visits: ``visit``, ``part`` (from 1, of PARTS equal parts
  of the visit; a record belongs to the part in which it ends), ``step`` (the env step at its end) and ``performance``
  (the mean return of the episodes that ended in it, or the mean reward).
* ``docs/results/evaluations/NAME.csv``, of runs with evaluations: ``step``, ``task`` (the one evaluated) and
  ``performance`` (success if it is recorded, else the return or the reward).
* ``docs/results/probes/NAME.csv``, of runs with probes: ``probe``, ``visits_done``, ``visit`` and ``task`` of the
  probe, ``measure`` (a performance), its ``value`` and ``fresh``, that of a new learner.
* ``docs/results/tuned/NAME.csv``, of runs with ``tune``: ``arm``, and ``setting`` and ``value`` of its selected point.
* ``docs/results/metrics/NAME.csv``, with ``--metrics``: for each visit its last record of every metric, those of single
  layers included; of runs of at most three visits, the last of each ``part``.

Three files are not of this kind: ``curves/minatar-pqn-games.csv`` has the records of four runs on a GPU (the return and
the number of episodes that ended), ``lifetime_tuning_selection.csv`` the means over the tuning seeds of F35, and
``offset_control_episodes.csv`` the env steps and episodes of each visit of F38.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from plasticity import results
from plasticity.findings.by_visit import OTHERS, rounded
from plasticity.results.best import tuned_points
from plasticity.results.read import evaluated_measure, probes

RESULTS = Path(__file__).resolve().parent / "results"
PARTS, FEW_VISITS = 20, 3


def columns(run: Path) -> list[str]:
    """What identifies a lane."""
    return ["arm", *results.hyper_parameters(run), "seed"]


def of_visits(run: Path) -> pd.DataFrame:
    """What each lane reached in each visit."""
    found = results.visits(run)
    measured = [name for name in found.columns if name.startswith("performance")]
    return found.assign(visit=found["visit"] + 1)[[*columns(run), "visit", "task", *measured]]


def diverged(records: pd.DataFrame) -> pd.Series:
    """Whether the lane of a record diverges in its visit, which then has no result."""
    missing = records["reward"].isna()
    return missing.groupby([records[name] for name in ("arm", "lane", "visit")], observed=True).transform("any")


def part_of(run: Path, found: pd.DataFrame) -> pd.Series:
    """The part of its visit in which each record ends, from 1."""
    steps = np.asarray([visit["steps"] for visit in results.plan(run)["stream"]["visits"]])[found["visit"]]
    return np.ceil(found["step_in_visit"] * PARTS / steps).astype(int)


def of_parts(run: Path) -> pd.DataFrame:
    """The learning curve of each lane; empty if the run has many visits."""
    stream = results.plan(run)["stream"]
    if len(stream["visits"]) > FEW_VISITS:
        return pd.DataFrame()
    found = results.load(run)
    before = found.groupby(["arm", "lane", "visit"], observed=True)["step_in_visit"].shift(fill_value=0)
    length = found["step_in_visit"] - before
    name, weight = ("episodic_return", found["episodes"]) if stream["episodic"] else ("reward", length)
    weight = ((found[name].notna() & ~diverged(found)) * weight).astype(float)
    keys = [*columns(run), "visit", "part"]
    rows = found.assign(
        visit=found["visit"] + 1, part=part_of(run, found), weight=weight, total=weight * found[name].fillna(0.0)
    )
    sums = rows.groupby(keys, observed=True, sort=False, dropna=False).agg(
        {"step": "max", "weight": "sum", "total": "sum"}
    )
    performance = sums["total"] / sums["weight"].where(sums["weight"] > 0)
    return sums.assign(performance=performance).rename_axis(keys).reset_index()[[*keys, "step", "performance"]]


def of_evaluations(run: Path) -> pd.DataFrame:
    """What the evaluations found; empty if there were none."""
    found = results.evaluations(run)
    if found.empty:
        return found
    rows = found.assign(task=found["evaluated_task"], performance=found[evaluated_measure(run, found)])
    return rows[[*columns(run), "step", "task", "performance"]]


def of_probes(run: Path) -> pd.DataFrame:
    """What the learners of a run and new ones reached in its probes; empty if it has none."""
    found = []
    for probe, folder in probes(run).items():
        measured = [name for name in results.visits(folder) if name.startswith("performance")]
        for measure in (*measured, "performance_start"):
            rows = results.forks(folder, measure).rename(columns={measure: "value"})
            found.append(rows.assign(probe=probe, measure=measure, visit=rows["visit"] + 1))
    names = ["probe", "arm", "visits_done", "seed", "visit", "task", "measure", "value", "fresh"]
    return pd.concat(found)[names] if found else pd.DataFrame()


def of_tuning(run: Path) -> pd.DataFrame:
    """The point of each arm that its tuning runs selected; empty without ``tune``."""
    points = tuned_points(run).items()
    return pd.DataFrame([{"arm": arm, "setting": name, "value": x} for arm, at in points for name, x in at.items()])


def of_metrics(run: Path) -> pd.DataFrame:
    """The last record of each metric in each visit, or in each part of the visits if they are few."""
    found, keys = results.load(run), [*columns(run), "visit"]
    if len(results.plan(run)["stream"]["visits"]) <= FEW_VISITS:
        found, keys = found.assign(part=part_of(run, found)), [*keys, "part"]
    metrics = [name for name in found.columns if name not in {*OTHERS, "lane", "task", *keys}]
    found = found.assign(**found[metrics].mask(diverged(found)))
    last = found.groupby(keys, observed=True, sort=False, dropna=False)[metrics].last().reset_index()
    return last.assign(visit=last["visit"] + 1)


TABLES: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".": of_visits, "curves": of_parts, "evaluations": of_evaluations, "probes": of_probes,
    "tuned": of_tuning,
}  # fmt: skip


def keep(run: Path, tables: dict[str, Callable[[Path], pd.DataFrame]]) -> None:
    """Write the tables of a run that have rows."""
    for folder, table in tables.items():
        found = table(run)
        if len(found):
            (RESULTS / folder).mkdir(parents=True, exist_ok=True)
            path = RESULTS / folder / f"{results.plan(run)['name']}.csv"
            path.write_text(results.csv_text(rounded(found)), encoding="utf-8")


if __name__ == "__main__":
    asked = TABLES | ({"metrics": of_metrics} if "--metrics" in sys.argv else {})
    for given in sys.argv[1:]:
        if given != "--metrics":
            keep(Path(given), asked)
