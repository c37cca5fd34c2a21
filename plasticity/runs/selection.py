"""The best point of each arm of a sweep: means of a metric over the first part of a run, lane by lane and in order."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa

from plasticity.core.errors import UserError, unknown
from plasticity.runs.accounts import LANES, Part, parts_of_arms, read_plan, table_parts
from plasticity.runs.checksums import DamagedError, read_table

PERFORMANCE = "performance"
RETURN, REWARD, EPISODES = "episodic_return", "reward", "episodes"
IDENTITY = ("arm", "lane", "seed", "step", "frames", "flops", "visit", "task", "step_in_visit")  # no metrics


class LaneMean(NamedTuple):
    """A lane's mean of the metric."""

    lane: int
    seed: int
    value: float  # NaN if the lane has none
    diverged: bool

    @property
    def whole(self) -> bool:
        return math.isfinite(self.value) and not self.diverged


class Score(NamedTuple):
    """What a point is judged by."""

    mean: float  # over the lanes that have a value and did not diverge; NaN if there are none
    lanes: int
    incomplete: int  # lanes that diverged or have no value


def lane_means(run: Path, metric: str = PERFORMANCE, steps: int | None = None) -> dict[str, list[LaneMean]]:
    """Each lane's mean of a metric over the first env steps, by arm, in the order of its lanes.

    ``performance`` is the mean reward over env steps or, for a stream with episodes, the mean return of the episodes
    that ended in them. Any other metric is averaged over the records that have it.

    Args:
      run: the run's folder.
      metric: ``performance``, or a column of the metrics.
      steps: only the records up to this env step; None: all.

    Raises:
      UserError: a file is missing or damaged, there are no records, or none has this column.
    """
    try:
        about = read_plan(run)
    except (OSError, DamagedError) as error:
        raise UserError(f"{run} cannot be read: {error}") from None
    columns: tuple[str, ...] = (metric,)
    if metric == PERFORMANCE:
        columns = (RETURN, EPISODES) if about["stream"]["episodic"] else (REWARD,)
    return {
        arm: sorted(each for place in places for each in _means_in(place, columns, steps))
        for arm, places in parts_of_arms(run, about).items()
    }


def _refuse(path: Path, why: str) -> NoReturn:
    raise UserError(f"{path} is unreadable ({why}), so no point can be selected; `--resume` repairs the run")


def _table(path: Path, wanted: Sequence[str] | None) -> pa.Table:
    try:
        return read_table(path, wanted)
    except FileNotFoundError:
        _refuse(path, "it is missing")
    except (OSError, DamagedError) as error:
        _refuse(path, str(error))


def _means_in(place: Part, columns: Sequence[str], steps: int | None) -> list[LaneMean]:
    known = _table(place.folder / LANES, ["lane", "seed", "diverged_at"])
    paths = table_parts(place.folder, _refuse)
    tables = [_table(path, ["lane", "step", *columns]) for path in paths]
    if not tables:
        raise UserError(f"{place.folder} has no records")
    lost = [name for name in columns if name in IDENTITY or not any(name in table.column_names for table in tables)]
    if lost:
        others = [PERFORMANCE, *(name for name in _table(paths[0], None).column_names if name not in IDENTITY)]
        raise UserError(f"{place.folder}: {unknown(f'metric `{lost[0]}`', lost[0], others)}")
    whole = pa.concat_tables(tables, promote_options="permissive")
    lane, step, value, *counts = (_numbers(whole[name]) for name in ("lane", "step", *columns))
    within = np.isfinite(step) if steps is None else step <= steps
    if not within.any():
        raise UserError(f"{place.folder} has no record up to step {steps:,}; the first is at {int(step.min()):,}")
    held = within & np.isfinite(value)
    weight = np.where(held, counts[0] if counts else 1.0, 0.0)
    which = lane.astype(int)
    sums, weights = (np.bincount(which, each) for each in (weight * np.where(held, value, 0.0), weight))
    found = []
    for row in known.to_pylist():
        number, end = row["lane"], row.get("diverged_at")
        value_of = float(sums[number] / weights[number]) if weights[number] > 0 else math.nan
        found.append(LaneMean(number, row["seed"], value_of, end is not None and (steps is None or end <= steps)))
    return found


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.float64()).to_numpy(), float)


# ------------------------------------------------------------------------------------------------- judging points


def score(lanes: Sequence[LaneMean]) -> Score:
    """The score of a point, from the lanes of all its seeds."""
    values = [each.value for each in lanes if each.whole]
    return Score(float(np.mean(values)) if values else math.nan, len(lanes), len(lanes) - len(values))


def best_of(scores: Sequence[Score], best: str = "highest") -> int | None:
    """The place of the best point: the one with the fewest incomplete lanes and, among these, with the best mean.

    The surviving lanes of a point at which others diverged would favour it. The first of equal points is the best; None
    if no lane of any point is complete.
    """
    sign = -1.0 if best == "highest" else 1.0
    ranked = [(each.incomplete, sign * each.mean, i) for i, each in enumerate(scores) if math.isfinite(each.mean)]
    return min(ranked)[2] if ranked else None


def at_edge(points: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> list[str]:
    """The swept numbers that the chosen point has at the end of their range of three or more values."""
    found = []
    for name, value in chosen.items():
        numbers: set[Any] = {each.get(name) for each in points if _is_number(each.get(name))}
        if len(numbers) >= 3 and value in (min(numbers), max(numbers)):
            found.append(name)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
