"""Selection of a sweep's best point on some seeds for reporting on others, and sensitivity to a hyper-parameter."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from plasticity.results.aggregate import aggregates, statistic
from plasticity.results.scores import TaskScores, identity, one_stream
from plasticity.runs.selection import at_edge

Best = Literal["highest", "lowest"]
Others = Literal["fixed", "averaged"]
LEAST = 2  # seeds for selection, and for reporting


class Selection(NamedTuple):
    """The best point of each arm."""

    chosen: pd.DataFrame  # one row per arm
    report: list[TaskScores]  # scores of the chosen points on the reporting seeds: for aggregates, profiles, ...


def select(
    scores: Sequence[TaskScores],
    selection_seeds: Sequence[int],
    report_seeds: Sequence[int] | None = None,
    *,
    by: str = "mean",
    best: Best = "highest",
    gamma: float = 1.0,
) -> Selection:
    """Select the best point of each arm's sweep on some seeds and return its scores on the other seeds.

    ``argmax_h statistic({x_st(h) : s in selection seeds})``. The best of many noisy points looks better than it is
    (maximisation bias), so its scores on the selection seeds must not be reported: Patterson, Neumann, White, White
    2024, "Empirical Design in Reinforcement Learning". A point with a missing score on a selection seed (the lane
    diverged) is not eligible, since the surviving seeds would favour it; pass ``missing`` to :func:`task_scores` to
    include it. Ties go to the first point in the order of the config.

    Args:
      scores: from :func:`task_scores` with the swept hyper-parameters; all from one stream.
      selection_seeds: seeds for the selection, at least two.
      report_seeds: seeds for the report, at least two, disjoint from the former; None: all other seeds.
      by: ``iqm``, ``mean``, ``median`` or ``optimality_gap`` (lowest is best).
      best: whether high or low scores are good, e.g. lowest for a loss.
      gamma: the optimality gap's target.

    Returns:
      ``chosen``: per arm the swept values, ``by`` on the selection seeds, the number of ``points`` compared, how many
      were ``eligible``, and ``at_edge``: the hyper-parameters chosen at the end of their range of three or more values,
      where the optimum may lie outside the range. ``report``: the chosen points' scores on the reporting seeds.

    Raises:
      ValueError: overlapping seeds, too few seeds, or seeds that a point lacks; an arm without an eligible point; an
        invalid setting.
    """
    _check(by, best)
    chosen_on = list(dict.fromkeys(int(seed) for seed in selection_seeds))
    given = None if report_seeds is None else list(dict.fromkeys(int(seed) for seed in report_seeds))
    shared = sorted(set(chosen_on) & set(given or []))
    if shared:
        raise ValueError(f"selection_seeds and report_seeds share {_listed(shared)}; must be disjoint")
    _enough("selection_seeds", chosen_on)
    rows, report = [], []
    for cells in _arms(scores):
        _check_seeds(cells, chosen_on)
        found, value, eligible = _best(cells, chosen_on, by, best, gamma)
        others = [seed for seed in found.seeds if seed not in chosen_on] if given is None else given
        _enough(f"report_seeds of {found.point.label}", others)
        _check_seeds([found], others)
        edge = ", ".join(at_edge([each.point.values for each in cells], found.point.values))
        rows.append(identity(found) | {by: value, "points": len(cells), "eligible": eligible, "at_edge": edge})
        report.append(found.of_seeds(others))
    table = pd.DataFrame(rows)
    own = [name for name in table if name not in (by, "points", "eligible", "at_edge")]
    return Selection(table[[*own, *table.columns.drop(own)]], report)


def _check(by: str, best: str) -> None:
    statistic(by)
    if best not in get_args(Best):
        raise ValueError(f"best: {best!r} is not allowed; must be one of {', '.join(get_args(Best))}")
    if by == "optimality_gap" and best == "lowest":
        raise ValueError("best: 'lowest' is not allowed with optimality_gap, which assumes that high scores are good")


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:8])) + (f", ... ({len(seeds)} in all)" if len(seeds) > 8 else "")


def _enough(name: str, seeds: Sequence[int]) -> None:
    if len(seeds) < LEAST:
        raise ValueError(f"{name}: {list(seeds)} is not allowed; must be at least {LEAST} seeds")


def _check_seeds(cells: Sequence[TaskScores], seeds: Sequence[int]) -> None:
    for each in cells:
        absent = [seed for seed in seeds if seed not in each.seeds]
        if absent:
            raise ValueError(f"{each.point.label} has no seed {_listed(absent)}; its seeds: {_listed(each.seeds)}")


def _arms(scores: Sequence[TaskScores]) -> list[list[TaskScores]]:
    one_stream(scores)
    groups: dict[tuple[str, str], list[TaskScores]] = {}
    for each in scores:
        groups.setdefault((each.point.run, each.point.arm), []).append(each)
    return list(groups.values())


def _best(
    cells: Sequence[TaskScores], seeds: Sequence[int], by: str, best: Best, gamma: float
) -> tuple[TaskScores, float, int]:
    """The best point, its statistic, and how many points were eligible."""
    parts = [each.of_seeds(seeds) for each in cells]
    values = np.asarray([float(statistic(by, gamma)(part.values)) if part.whole.all() else np.nan for part in parts])
    if np.isnan(values).all():
        raise ValueError(
            f"arm {cells[0].point.arm!r} has no point at which seeds {_listed(seeds)} are all complete; pass "
            "`missing` to task_scores, the score of what a diverged lane did not record"
        )
    lowest = best == "lowest" or by == "optimality_gap"
    index = int(np.nanargmin(values) if lowest else np.nanargmax(values))
    return cells[index], float(values[index]), int(np.isfinite(values).sum())


def sensitivity(
    scores: Sequence[TaskScores],
    name: str,
    *,
    others: Others = "fixed",
    selection_seeds: Sequence[int] | None = None,
    by: str = "mean",
    best: Best = "highest",
    gamma: float = 1.0,
    **bootstrap: Any,
) -> pd.DataFrame:
    """Compute the performance at each value of one hyper-parameter, per arm.

    ``others="fixed"``: the other swept hyper-parameters stay at the values of the arm's best point;
    ``others="averaged"``: each seed's scores are first averaged over all their values, if it has all of them.

    Args:
      scores: from :func:`task_scores` with the swept hyper-parameters; all from one stream.
      name: a swept hyper-parameter.
      others: see above.
      selection_seeds: with ``fixed``, the seeds for selecting the best point, as in :func:`select`; the curve uses the
        other seeds. None: all seeds for both, which slightly overestimates the best value.
      by, best, gamma: as in :func:`select`; ``by`` is also the statistic of the curve.
      **bootstrap: ``resample, confidence, resamples, seed`` of :func:`aggregates`.

    Returns:
      One row per arm that has ``name`` and value of it, in the order of the values: the columns of :func:`aggregates`
      for ``by``, plus the other hyper-parameters if they are fixed.

    Raises:
      ValueError: ``name`` is not swept, or as for :func:`select` and :func:`aggregates`.
    """
    _check(by, best)
    if others not in get_args(Others):
        raise ValueError(f"others: {others!r} is not allowed; must be one of {', '.join(get_args(Others))}")
    known = sorted({key for each in scores for key in each.point.values})
    if name not in known:
        raise ValueError(f"name: {name!r} is not swept; there are {', '.join(known) or 'none'}")
    shown = []
    for arm in _arms(scores):
        cells = [each for each in arm if name in each.point.values]
        if cells and others == "fixed":
            shown += _fixed(cells, name, selection_seeds, by, best, gamma)
        elif cells:
            shown += _averaged(cells, name)
    return aggregates(shown, (by,), gamma=gamma, **bootstrap)


def _in_order(values: Any) -> list[Any]:
    """Numbers in ascending order, other values in the given order."""
    values = list(dict.fromkeys(values))
    return sorted(values) if all(isinstance(each, int | float | np.number) for each in values) else values


def _fixed(
    cells: Sequence[TaskScores], name: str, selection_seeds: Sequence[int] | None, by: str, best: Best, gamma: float
) -> list[TaskScores]:
    if selection_seeds is None:
        seeds = [seed for seed in cells[0].seeds if all(seed in each.seeds for each in cells)]
    else:
        seeds = list(dict.fromkeys(int(seed) for seed in selection_seeds))
        _enough("selection_seeds", seeds)
    _check_seeds(cells, seeds)
    found, *_ = _best(cells, seeds, by, best, gamma)
    rest = {key: value for key, value in found.point.values.items() if key != name}
    line = {
        each.point.values[name]: each
        for each in cells
        if {key: value for key, value in each.point.values.items() if key != name} == rest
    }
    left = [line[value] for value in _in_order(line)]
    if selection_seeds is None:
        return left
    return [each.of_seeds([seed for seed in each.seeds if seed not in seeds]) for each in left]


def _averaged(cells: Sequence[TaskScores], name: str) -> list[TaskScores]:
    found = []
    for value in _in_order(each.point.values[name] for each in cells):
        group = [each for each in cells if each.point.values[name] == value]
        seeds = [seed for seed in group[0].seeds if all(seed in each.seeds for each in group)]
        parts = [each.of_tasks(group[0].tasks).of_seeds(seeds) for each in group]
        point = group[0].point._replace(values={name: value}, label=f"{group[0].point.arm}, {name}={value}")
        values, whole = np.mean([part.values for part in parts], axis=0), np.all([part.whole for part in parts], axis=0)
        found.append(parts[0]._replace(point=point, values=values, whole=whole))
    return found
