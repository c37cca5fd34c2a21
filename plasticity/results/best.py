"""The best point of each arm of a sweep by the first part of a run, and the points that a tuned run was made with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from plasticity.config.tuning import steps_of
from plasticity.core.errors import UserError, shown
from plasticity.results.points import points, short
from plasticity.results.read import RunPath, arm_names, hyper_parameters, lanes, plan
from plasticity.runs.selection import PERFORMANCE, at_edge, best_of, lane_means, score

Best = Literal["highest", "lowest"]


class BestPoints(NamedTuple):
    """The points of a sweep, judged by the first part of a run."""

    chosen: pd.DataFrame  # one row per arm
    points: pd.DataFrame  # one row per arm and point


def best_points(
    run: RunPath,
    *,
    metric: str = PERFORMANCE,
    first: int | str | None = None,
    seeds: Sequence[int] | None = None,
    best: Best = "highest",
) -> BestPoints:
    """Select the best point of each arm by its mean over the first part of the life, as ``tune`` in a config does.

    ``argmax_h 1/n sum_s m_s(h)`` with ``m_s`` the mean of the metric over the part of the life, in the lane of seed s.
    A point at which fewer lanes diverged, or have no value, is preferred whatever its mean, because the surviving lanes
    would favour the other one; means are over complete lanes. The first of equal points wins. Algorithms that are tuned
    over their whole life look equally good, and differ when they are tuned on a part of it: Mesbahi, Panahi,
    Mastikhina, Tang, White, White 2024, "Position: Lifetime tuning is incompatible with continual reinforcement
    learning". To report the chosen points on the same seeds would overestimate them; :func:`select` keeps seeds apart.

    Args:
      run: the folder of a run with a sweep, finished at least for that part.
      metric: ``performance`` (the mean reward over env steps or, with episodes, the mean return of the episodes that
        ended), or a column of :func:`load`, averaged over the records that have it.
      first: ``1%`` of the env steps, ``3 visits``, a number of env steps, or None: the whole life.
      seeds: only these; None: all.
      best: whether high or low numbers are good.

    Returns:
      ``points``: ``arm``, the swept hyper-parameters, ``mean``, ``lanes``, ``incomplete`` (lanes that diverged or have
      no value) and ``chosen``. ``chosen``: the chosen rows, with ``at_edge``, the hyper-parameters chosen at the end of
      their range of three or more values.

    Raises:
      ValueError: no run or no such metric, ``first`` does not fit, a seed that a point lacks, or an arm without a
        complete lane.
    """
    if best not in ("highest", "lowest"):
        raise ValueError(f"best: {best!r} is not allowed; must be highest or lowest")
    about = plan(run)
    steps = None if first is None else steps_of(first, [visit["steps"] for visit in about["stream"]["visits"]])
    try:
        means = lane_means(Path(run), metric, steps)
    except UserError as error:
        raise ValueError(str(error)) from None
    rows, chosen, every = [], [], points(lanes(run), hyper_parameters(run))
    for arm in arm_names(run):
        cells = [cell for cell in every if cell.arm == arm]
        known = {each.lane: each for each in means[arm]}
        groups = [[known[int(lane)] for lane in cell.rows["lane"]] for cell in cells]
        kept = [[each for each in group if seeds is None or each.seed in seeds] for group in groups]
        for cell, group in zip(cells, kept, strict=True):
            lost = sorted({*map(int, seeds or ())} - {each.seed for each in group})
            if lost:
                raise ValueError(f"{cell.label} has no seed {lost[0]}")
        scores = [score(group) for group in kept]
        place = best_of(scores, best)
        if place is None:
            raise ValueError(f"arm {arm!r}: at every point, every lane diverged or has no {metric}")
        whole = [{"arm": arm, **cell.values, **each._asdict()} for cell, each in zip(cells, scores, strict=True)]
        rows += [row | {"chosen": i == place} for i, row in enumerate(whole)]
        edge = at_edge([cell.values for cell in cells], cells[place].values)
        chosen.append(whole[place] | {"at_edge": ", ".join(edge)})
    order = ["arm", *hyper_parameters(run), "mean", "lanes", "incomplete"]
    return BestPoints(_table(run, chosen, [*order, "at_edge"]), _table(run, rows, [*order, "chosen"]))


def _table(run: RunPath, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(columns))
    table["arm"] = pd.Categorical(table["arm"], categories=arm_names(run), ordered=True)
    return table


def tuned_points(run: RunPath) -> dict[str, dict[str, Any]]:
    """Return the points with which a tuned run was made: arm -> swept hyper-parameter -> value; empty for other runs.

    Args:
      run: the run's folder.

    Raises:
      ValueError: it is not the folder of a run.
    """
    chosen = (plan(run).get("tune") or {}).get("chosen") or {}
    return {arm: dict(chosen[arm]) for arm in arm_names(run) if chosen.get(arm)}


def tuned_text(run: RunPath) -> str:
    """One sentence on how the points of a tuned run were selected, and which they are; empty for other runs."""
    chosen = tuned_points(run)
    if not chosen:
        return ""
    tune = plan(run)["tune"]
    first, seeds = tune["first"], tune["seeds"]
    part = f"{first:,} env steps" if isinstance(first, int) else first + (" of the life" if "%" in first else "")
    count = seeds if isinstance(seeds, int) else len(seeds)
    paths = list(dict.fromkeys(path for values in chosen.values() for path in values))
    named = [
        f"{arm} {', '.join(f'{short(path, paths)}={shown(value)}' for path, value in values.items())}"
        for arm, values in chosen.items()
    ]
    rule = f"the {tune['best']} {tune['metric']} of the first {part} on {count} other seeds"
    return f"Tuned for {rule}: {'; '.join(named)}."
