"""Means of all arms by visit, as a table for the tables and sentences in notes on a finding."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from plasticity import results
from plasticity.results.read import visits_and_losses

DIGITS = 5
# Columns of a run that are not quantities, or are those of `performance`.
OTHERS = ("seed", "step", "frames", "update", "flops", "step_in_visit", "reward", "episodic_return", "episodes")


def table(runs: Mapping[str, Path], asked: Collection[str] = ()) -> str:
    """The table as CSV: ``arm``, swept hyper-parameters, ``visit``, ``task``, ``lanes``, and the quantities.

    ``arm`` is ``ARM`` or ``PART/ARM``. Visits are counted from 1. ``lanes`` have not diverged by the end of the visit.
    The quantities are their means of the visit's ``performance`` and ``performance_end``, and of the last record in the
    visit of each metric without a ``/`` in its name. Five significant digits, empty if nothing was recorded.

    Args:
      runs: the run's folder for each part ("" if there is only one).
      asked: metrics that are included although their names have a ``/``.
    """
    found = [_of_run(run, asked).assign(part=part) for part, run in runs.items()]
    joined = pd.concat(found, ignore_index=True)
    names = [f"{part}/{arm}" if part else str(arm) for part, arm in zip(joined["part"], joined["arm"], strict=True)]
    joined = joined.assign(arm=names, visit=joined["visit"] + 1).drop(columns="part")
    return results.csv_text(rounded(joined))


def rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a table with five significant digits."""
    numbers = frame.select_dtypes(float).map(lambda value: float(f"{value:.{DIGITS}g}"))
    return frame.assign(**{str(name): numbers[name] for name in numbers})


def _of_run(run: Path, asked: Collection[str]) -> pd.DataFrame:
    swept, keys = list(results.hyper_parameters(run)), ["arm", "lane", "visit"]
    lanes = visits_and_losses(run)
    lanes = lanes[~lanes["lost"]].drop(columns=["lost", "performance_start", "seed"])
    records = results.load(run)
    metrics = [name for name in records.columns if "/" not in name or name in asked]
    metrics = [name for name in metrics if name not in (*OTHERS, *lanes)]
    last = records[[*keys, *metrics]].groupby(keys, observed=True).last().reset_index()
    rows = lanes.merge(last, on=keys, how="left").drop(columns="lane")
    groups = rows.groupby(["arm", *swept, "visit", "task"], observed=True, sort=False, dropna=False)
    means = groups.mean().replace([np.inf, -np.inf], np.nan)
    return means.assign(lanes=groups.size())[["lanes", *means.columns]].reset_index()
