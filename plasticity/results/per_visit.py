"""The table of visits: what each lane reached in each of them, in training and in the evaluation."""

import pandas as pd

from plasticity.results.ranges import evaluated_stream
from plasticity.results.read import RunPath, evaluations, plan, several, visits_and_losses

EVALUATED = "performance_evaluated"


def visits(run: RunPath, *runs: RunPath) -> pd.DataFrame:
    """Compute the performance of each lane in each finished visit, one row each.

    ``performance`` is the mean reward over the env steps of the visit or, for an episodic stream, the mean return of
    the episodes that ended in it. ``performance_end`` is the same over the last tenth of the visit's steps; a record
    that overlaps it partially is weighted by the overlap. Both are missing if the lane diverged before the end of the
    visit or if no episode ended. A visit in progress has no row.

    ``performance_evaluated``, of runs with evaluations, is the mean reward or return of the visit's last evaluation on
    its own task: on a supervised stream with ``held_out``, the accuracy (or minus the squared error) on held-out
    samples, beside that on the samples to learn from.

    Returns:
      ``arm, lane, seed, visit, task, performance, performance_end``; ``performance_evaluated``, of runs with
      evaluations; the swept hyper-parameters; ``run`` in front if there are several.
    """
    return several((run, *runs), _visits)


def _visits(run: RunPath) -> pd.DataFrame:
    table = visits_and_losses(run).drop(columns=["lost", "performance_start"])
    found = evaluations(run)
    if found.empty:
        return table
    own = found[found["visit"] == found["evaluated_visit"]].sort_values("step", kind="stable")
    keys = ["arm", "lane", "visit"]
    last = own.groupby(keys, observed=True).tail(1).set_index(keys)
    name = "episodic_return" if evaluated_stream(plan(run))["episodic"] else "reward"
    values = last[name].reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy(float)
    table.insert(list(table.columns).index("performance_end") + 1, EVALUATED, values)
    return table
