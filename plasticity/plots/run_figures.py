"""All figures of a run, and the tables that each is drawn from."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from plasticity import results
from plasticity.core.errors import UserError, contrasted
from plasticity.plots.aggregates import aggregates, profiles, sensitivity
from plasticity.plots.behaviour import first_against_later, learning_speed
from plasticity.plots.curves import learning_curve, monitor_names, monitors
from plasticity.plots.layers import BINS, hessian_density, layer_names, layers
from plasticity.plots.matrix import performance_matrix
from plasticity.plots.mechanisms import correlations, mechanisms
from plasticity.plots.options import PLAIN, Options, check_names, checked
from plasticity.plots.performance import performance
from plasticity.plots.style import FEW, Bounds, controls_of
from plasticity.plots.thin import thinned
from plasticity.results.read import NO_OTHER_STREAM, RunPath, arm_names, config_if_whole

ORDER = (
    "performance", "learning_curve", "aggregates", "profiles", "sensitivity", "revisits", "learning_speed", "matrix",
    "monitors", "mechanisms", "layers", "hessian_density",
)  # fmt: skip


def figures(
    run: RunPath,
    *runs: RunPath,
    control: str | None = None,
    options: Options = PLAIN,
    names: Sequence[str] | None = None,
) -> dict[str, Figure]:
    """Draw every figure that a run has data for, by name; several runs on one stream share their figures.

    Labels, ranges of values, controls, and whether each task needs its own panel come from the run. For one figure::

        figures("runs/mine", names=["performance"])["performance"]

    ``performance, learning_curve, aggregates, profiles, sensitivity_SETTING, revisits, learning_speed, matrix,
    monitors, mechanisms, layers_MONITOR, hessian_density``. Figures without data are absent, and so are aggregates
    over tasks whose returns are not comparable.

    Args:
      run: the run's folder; ``runs``: further runs.
      control: the arm with which learning speed is compared, if it exists; None: the control given by each config.
      options: the arms, their labels, the figure size and smoothing, for all figures.
      names: the figures to draw; ``sensitivity`` and ``layers`` select all of their kind; None: all.

    Raises:
      ValueError: a path that is not the folder of a run, or runs of different streams.
      UserError: ``options`` or ``names`` that do not fit the runs.
    """
    with _each_warning_once():
        members = (run, *runs)
        checked(options, list(dict.fromkeys(arm for one in members for arm in arm_names(one))))
        if names is not None:
            check_names("figures", names, ORDER)
        greyed = controls_of(members) if control is None else (control,)
        wanted = frozenset(ORDER if names is None else names)
        one = _Run(members, _one_stream(members), results.hyper_parameters(*members), control, greyed, options, wanted)
        found = _of_visits(one) | _of_behaviour(one) | _of_metrics(one)
    return {name: found[name] for name in sorted(found, key=_place)}


@contextlib.contextmanager
def _each_warning_once() -> Iterator[None]:
    """Show each warning once: a damaged file causes one every time the run is read."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for text, category in dict.fromkeys((str(each.message), each.category) for each in caught):
        warnings.warn(text, category, stacklevel=4)


class _Run(NamedTuple):
    runs: tuple[RunPath, ...]
    stream: dict[str, Any]
    hyper: list[str]
    control: str | None
    controls: tuple[str, ...]  # arms drawn as controls
    options: Options
    wanted: frozenset[str]  # figures

    @property
    def label(self) -> str:
        return "episodic return" if self.stream["episodic"] else str(self.stream["reward_name"])

    @property
    def x(self) -> str:
        return self.options.x or ("frames" if self.stream["frames_per_step"] > 1 else "step")

    @property
    def unlike(self) -> bool:
        """Whether the returns of the tasks are not comparable."""
        return not results.alike(self.stream)

    @property
    def by_task(self) -> bool:
        return self.unlike and len({visit["task"] for visit in self.stream["visits"]}) <= FEW

    @property
    def bounds(self) -> Bounds:
        return results.performance_range(self.stream)

    @property
    def shown(self) -> dict[str, Any]:
        """The arguments that most figures share."""
        return {"hyper": self.hyper, "controls": self.controls, "options": self.options}

    def of_arms(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of the selected arms."""
        return table if self.options.arms is None else table[table["arm"].isin(list(self.options.arms))]


def _place(name: str) -> int:
    return next(place for place, each in enumerate(ORDER) if name.startswith(each))


def _one_stream(runs: Sequence[RunPath]) -> dict[str, Any]:
    """The stream of all runs; a ``ValueError`` names the first difference between them."""
    first, *others = (results.plan(run)["stream"] for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        keys = [key for key in {**first, **other} if first.get(key) != other.get(key)]
        keys = [key for key in keys if key not in NO_OTHER_STREAM]
        if keys:
            was, now = contrasted(first.get(keys[0]), other.get(keys[0]))
            difference = f"`{keys[0]}` is {was} and {now}; draw each separately"
            raise ValueError(f"{runs[0]} and {run} are runs of different streams: {difference}")
    return first


def _of_visits(one: _Run) -> dict[str, Figure]:
    visits = one.of_arms(results.visits(*one.runs))
    if not visits["performance"].notna().any():
        return {}
    found: dict[str, Figure] = {}
    if "performance" in one.wanted:
        found["performance"] = performance(visits, label=one.label, by_task=one.by_task, bounds=one.bounds, **one.shown)
    if one.wanted & {"aggregates", "profiles", "sensitivity"} and not one.unlike:
        # Runs or lanes that have not progressed equally far have no common aggregate.
        with contextlib.suppress(ValueError):
            scores = results.task_scores(visits, hyper=one.hyper)
            found |= _of_scores(one, scores)
    return found


def _of_scores(one: _Run, scores: list[results.TaskScores]) -> dict[str, Figure]:
    found = {}
    shown: dict[str, Any] = {"label": one.label, "controls": one.controls, "options": one.options}
    values = np.concatenate([each.values.ravel() for each in scores])
    shares = np.nanmin(values) >= 0 and np.nanmax(values) <= 1
    statistics = ("iqm", "mean", "median", "optimality_gap") if shares else ("iqm", "mean", "median")
    if "aggregates" in one.wanted:
        found["aggregates"] = aggregates(scores, statistics, **shown)
    if "profiles" in one.wanted and np.isfinite(values).sum() > len(scores):
        found["profiles"] = profiles(scores, resamples=500, **shown)
    swept = sorted({key for each in scores for key in each.point.values}) if "sensitivity" in one.wanted else []
    for name in swept:
        with contextlib.suppress(ValueError):  # no point of an arm is complete
            found[f"sensitivity_{name.replace('.', '_')}"] = sensitivity(scores, name, **shown)
    return found


def _of_behaviour(one: _Run) -> dict[str, Figure]:
    made = {"revisits": _revisits, "learning_speed": _speed, "matrix": _matrix}
    drawn = {name: draw(one) for name, draw in made.items() if name in one.wanted}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _revisits(one: _Run) -> Figure | None:
    visits = [visit["task"] for visit in one.stream["visits"]]
    if len(set(visits)) == len(visits):
        return None
    again = results.revisits(*one.runs)
    again = again._replace(lanes=one.of_arms(again.lanes))
    if not again.lanes[["first", "later"]].notna().all(axis=1).any():
        return None
    by_task = one.unlike or len(set(visits)) <= FEW
    return first_against_later(again, label=one.label, by_task=by_task, bounds=one.bounds, **one.shown)  # type: ignore[no-any-return]


def _speed(one: _Run) -> Figure | None:
    if len(one.stream["visits"]) < 3 or not all(_has_control(run, one.control) for run in one.runs):
        return None
    speeds = one.of_arms(results.relative_learning_speed(*one.runs, control=one.control).lanes)
    if not speeds["difference"].notna().any():
        return None
    label = f"mean {one.label} over the visit,\nminus the control's"
    bounds = results.difference_range(one.bounds)
    return learning_speed(speeds, label=label, by_task=one.unlike, bounds=bounds, **one.shown)  # type: ignore[no-any-return]


def _has_control(run: RunPath, control: str | None) -> bool:
    """Whether an arm of the run has a control that has started."""
    started = set(results.lanes(run)["arm"].astype(str))
    return any(other in started for other in results.controls(run, control).values())


def _matrix(one: _Run) -> Figure | None:
    try:
        matrix = results.performance_matrix(*one.runs)
    except ValueError:  # not evaluated at the ends of visits
        return None
    kept = one.of_arms(matrix.lanes)
    matrix = matrix._replace(lanes=kept.reset_index(drop=True), values=matrix.values[kept.index])
    if len(one.stream["visits"]) < 2 or not np.isfinite(matrix.values).any():
        return None
    success = matrix.measure == "success"
    label = "success rate" if success else one.label
    return performance_matrix(matrix, label=label, by_task=one.unlike and not success, options=one.options)


def _of_metrics(one: _Run) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    if not one.wanted & {"learning_curve", "monitors", "mechanisms", "layers", "hessian_density"}:
        return found
    whole = one.of_arms(results.load(*one.runs))
    _check_axis(one, whole)
    metrics = thinned(whole, one.x, hyper=one.hyper)
    # This table may have millions of rows, so it is thinned immediately unless records are to be smoothed.
    curves = metrics if one.options.smooth == 1 else whole
    del whole
    value, shown = "episodic_return" if one.stream["episodic"] else "reward", {"x": one.x, **one.shown}
    if "learning_curve" in one.wanted and metrics[value].notna().any():
        found["learning_curve"] = learning_curve(
            curves, value=value, label=one.label, by_task=one.by_task, bounds=one.bounds, **shown
        )
    if "monitors" in one.wanted and monitor_names(metrics, one.hyper):
        found["monitors"] = monitors(curves, bounds=results.metric_ranges(results.plan(one.runs[0])), **shown)
    if "mechanisms" in one.wanted:
        found |= _mechanisms(one, metrics)
    for name in layer_names(metrics) if "layers" in one.wanted else ():
        found[f"layers_{name}"] = layers(metrics, name, **shown)
    bins = [name for name in metrics if str(name).startswith(BINS) and metrics[name].notna().any()]
    if "hessian_density" in one.wanted and bins:
        found["hessian_density"] = hessian_density(metrics, **shown, **_eigenvalue_grid(one.runs[0]))
    return found


def _check_axis(one: _Run, metrics: pd.DataFrame) -> None:
    """``UserError`` if a run has no values for the horizontal axis."""
    names = metrics["run"].unique().tolist() if "run" in metrics else [str(one.runs[0])]
    for run in names:
        rows = metrics[metrics["run"] == run] if "run" in metrics else metrics
        if len(rows) and (one.x not in rows or rows[one.x].isna().all()):
            why = next(filter(None, map(_why_not_counted, one.runs)), "") if one.x == "flops" else ""
            raise UserError(f"x: {one.x} is not allowed; {run} has no such column" + (f": {why}" if why else ""))


def _why_not_counted(run: RunPath) -> str:
    """Why the run's FLOPs were not counted, if its plan says so."""
    reasons = (program.get("flops", {}).get("why", "") for program in results.plan(run).get("programs", ()))
    return next(filter(None, reasons), "")


def _mechanisms(one: _Run, metrics: pd.DataFrame) -> dict[str, Figure]:
    visits, label = one.of_arms(results.visits(*one.runs)), one.label
    if not (correlations(metrics, visits, hyper=one.hyper)["lanes"] > 0).any():
        return {}
    if one.unlike:
        rank = visits.groupby("task", observed=True)["performance"].rank(pct=True)
        visits, label = visits.assign(performance=rank), f"{label}, rank within the task"
    return {"mechanisms": mechanisms(metrics, visits, label=label, **one.shown)}


def _eigenvalue_grid(run: RunPath) -> dict[str, Any]:
    """The settings of the run's ``hessian_density`` that define its bins."""
    config = config_if_whole(run)
    try:
        settings = next(each for each in config["monitors"] if each["kind"] == "hessian_density")
        return {name: settings[name] for name in ("smallest", "largest", "scale") if name in settings}
    except (LookupError, TypeError, StopIteration):
        return {}
