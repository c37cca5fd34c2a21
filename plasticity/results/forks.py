"""Forks of a run, and its probes: what its learners reach on a common stream, beside new learners."""

import pandas as pd

from plasticity.results.per_visit import visits
from plasticity.results.read import RunPath, config, controls, visits_and_losses

START = "performance_start"


def forks(run: RunPath, measure: str = "performance") -> pd.DataFrame:
    """Compare learners that go on from another run with new ones, lane by lane.

    ``gap_{s,v} = m_{s,v}(learners after n visits) - m_{s,v}(new learners)``, paired by seed s, in visit v of the fork.
    Negative gaps that grow with n are a loss of plasticity, if the fork shows a task that the learners have not seen;
    if it shows an old one, the gap at its beginning (``performance_start``) is what they have retained.

    Args:
      run: the folder of a fork (``plasticity fork``), or of a probe (``RUN/probes/NAME``).
      measure: ``performance``, ``performance_end`` or ``performance_evaluated`` of :func:`visits`, or
        ``performance_start``, that of the first tenth of the visit's steps.

    Returns:
      A row per lane of an arm with a ``start``, and visit: ``arm`` of the forked run, ``visits_done`` (n), ``lane,
      seed, visit, task``, the measure, ``fresh`` (that of the new learner) and ``gap``; both are missing without new
      learners, and where one of the two has no value.

    Raises:
      ValueError: no run, no arm with a ``start``, or no such measure.
    """
    starts = {name: arm.get("start") for name, arm in config(run)["arms"].items() if isinstance(arm, dict)}
    begun = {name: start for name, start in starts.items() if start}
    if not begun:
        raise ValueError(f"{run}: no arm has learners of another run (the key `start`)")
    table = visits(run)
    if measure == START:
        table = table.merge(visits_and_losses(run)[["arm", "lane", "visit", START]], on=["arm", "lane", "visit"])
    if measure not in table:
        known = [START, *(name for name in map(str, table) if name.startswith("performance"))]
        raise ValueError(f"measure: {measure!r} is not allowed; must be one of {', '.join(known)}")
    keys = ["lane", "visit"]
    found = []
    for name, control in controls(run).items():
        if name not in begun:
            continue
        rows = table[table["arm"] == name]
        new = table[table["arm"] == control].set_index(keys)[measure] if control else pd.Series(dtype=float)
        other = new.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy(float)
        rows = rows[["lane", "seed", "visit", "task", measure]].assign(fresh=other)
        rows = rows.assign(gap=rows[measure] - rows["fresh"])
        rows.insert(0, "visits_done", begun[name]["visits"])
        rows.insert(0, "arm", begun[name]["arm"])
        found.append(rows)
    whole = pd.concat(found, ignore_index=True)
    return whole.sort_values(["arm", "visits_done", "lane", "visit"], kind="stable").reset_index(drop=True)
