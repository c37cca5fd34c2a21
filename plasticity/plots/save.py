"""All figures of a run, written to files."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from plasticity import results
from plasticity.core.errors import contrasted
from plasticity.plots.aggregates import aggregates, profiles, sensitivity
from plasticity.plots.behaviour import first_against_later, learning_speed, performance_matrix
from plasticity.plots.curves import learning_curve, monitor_names, monitors
from plasticity.plots.layers import BINS, hessian_density, layer_names, layers
from plasticity.plots.mechanisms import correlations, mechanisms
from plasticity.plots.performance import performance
from plasticity.plots.style import FEW, controls_of
from plasticity.plots.thin import thinned
from plasticity.results.read import RunPath, config_if_whole
from plasticity.runs.files import write_atomically

FORMATS = ("png", "pdf")
ORDER = (
    "performance", "learning_curve", "aggregates", "profiles", "sensitivity", "revisits", "learning_speed", "matrix",
    "monitors", "mechanisms", "layers", "hessian_density",
)  # fmt: skip


def figures(run: RunPath, *runs: RunPath, control: str | None = None) -> dict[str, Figure]:
    """Every figure that a run has data for, or several runs on one stream in the same figures, by name.

    ``performance, learning_curve, aggregates, profiles, sensitivity_SETTING, revisits, learning_speed, matrix,
    monitors, mechanisms, layers_MONITOR, hessian_density``. What there is nothing to show of yet is absent, and so are
    aggregates over tasks whose returns can't be compared.

    Args:
      run: the run's folder; ``runs``: more of them.
      control: the arm that the speed of learning is compared with, where there is one; None: what each config says.

    Raises:
      ValueError: a path that is not the folder of a run, or runs of different streams.
    """
    with _each_warning_once():
        members = (run, *runs)
        greyed = controls_of(members) if control is None else (control,)
        one = _Run(members, _one_stream(members), results.hyper_parameters(*members), control, greyed)
        found = _of_visits(one) | _of_behaviour(one)
        # Last, and short at once: this is the table that may have millions of rows.
        metrics = thinned(results.load(run, *runs), one.x, hyper=one.hyper)
        found |= _of_metrics(one, metrics, results.visits(run, *runs))
    return {name: found[name] for name in sorted(found, key=_place)}


@contextlib.contextmanager
def _each_warning_once() -> Iterator[None]:
    """A damaged file is met whenever the run is read."""
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

    @property
    def label(self) -> str:
        return "episodic return" if self.stream["episodic"] else str(self.stream["reward_name"])

    @property
    def x(self) -> str:
        return "frames" if self.stream["frames_per_step"] > 1 else "step"

    @property
    def unlike(self) -> bool:
        """Whether tasks have returns that can't be compared."""
        return not results.alike(self.stream)

    @property
    def by_task(self) -> bool:
        return self.unlike and len({visit["task"] for visit in self.stream["visits"]}) <= FEW


def _place(name: str) -> int:
    return next(place for place, each in enumerate(ORDER) if name.startswith(each))


def _one_stream(runs: Sequence[RunPath]) -> dict[str, Any]:
    """What all runs' streams are; ``ValueError`` that names the first difference."""
    first, *others = (results.plan(run)["stream"] for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        keys = [key for key in {**first, **other} if first.get(key) != other.get(key) and key != "alike"]
        if keys:
            was, now = contrasted(first.get(keys[0]), other.get(keys[0]))
            told = f"`{keys[0]}` is {was} and {now}; draw each by itself"
            raise ValueError(f"{runs[0]} and {run} are runs of different streams: {told}")
    return first


def _of_visits(one: _Run) -> dict[str, Figure]:
    visits = results.visits(*one.runs)
    if not visits["performance"].notna().any():
        return {}
    grey: dict[str, Any] = {"controls": one.controls}
    found = {"performance": performance(visits, label=one.label, by_task=one.by_task, hyper=one.hyper, **grey)}
    if one.unlike:
        return found
    try:
        scores = results.task_scores(visits, hyper=one.hyper)
    except ValueError:  # runs, or lanes, that are not equally far
        return found
    values = np.concatenate([each.values.ravel() for each in scores])
    shares = np.nanmin(values) >= 0 and np.nanmax(values) <= 1
    statistics = ("iqm", "mean", "median", "optimality_gap") if shares else ("iqm", "mean", "median")
    found["aggregates"] = aggregates(scores, statistics, label=one.label, **grey)
    if np.isfinite(values).sum() > len(scores):
        found["profiles"] = profiles(scores, label=one.label, resamples=500, **grey)
    for name in sorted({key for each in scores for key in each.point.values}):
        try:
            figure = sensitivity(scores, name, label=one.label, **grey)
        except ValueError:  # no point of an arm is complete
            continue
        found[f"sensitivity_{name.replace('.', '_')}"] = figure
    return found


def _of_behaviour(one: _Run) -> dict[str, Figure]:
    found, visits = {}, [visit["task"] for visit in one.stream["visits"]]
    shown: dict[str, Any] = {"hyper": one.hyper, "controls": one.controls}
    if len(set(visits)) < len(visits):
        again = results.revisits(*one.runs)
        if again.lanes[["first", "later"]].notna().all(axis=1).any():
            found["revisits"] = first_against_later(again, label=one.label, **shown)
    if len(visits) > 2 and all(_has_control(run, one.control) for run in one.runs):
        value = "relative_speed" if one.unlike else "difference"
        speeds = results.relative_learning_speed(*one.runs, control=one.control).lanes
        if speeds[value].notna().any():
            label = None if one.unlike else f"mean {one.label} over the visit,\nminus the control's"
            found["learning_speed"] = learning_speed(speeds, value=value, label=label, **shown)
    elif len(visits) > 2 and not one.unlike:
        areas = results.learning_curves_area(*one.runs)
        if areas["area"].notna().any():
            label = f"mean {one.label} over the visit"
            found["learning_speed"] = learning_speed(areas, value="area", label=label, **shown)
    try:
        matrix = results.performance_matrix(*one.runs)
    except ValueError:  # not evaluated at the ends of visits
        return found
    if len(visits) > 1 and np.isfinite(matrix.values).any():
        found["matrix"] = performance_matrix(matrix, label=one.label, by_task=one.unlike)
    return found


def _has_control(run: RunPath, control: str | None) -> bool:
    """Whether an arm of the run has a control that has begun."""
    begun = set(results.lanes(run)["arm"].astype(str))
    return any(other in begun for other in results.controls(run, control).values())


def _of_metrics(one: _Run, metrics: pd.DataFrame, visits: pd.DataFrame) -> dict[str, Figure]:
    found, value = {}, "episodic_return" if one.stream["episodic"] else "reward"
    shown: dict[str, Any] = {"x": one.x, "hyper": one.hyper, "controls": one.controls}
    if metrics[value].notna().any():
        found["learning_curve"] = learning_curve(metrics, value=value, label=one.label, by_task=one.by_task, **shown)
    if monitor_names(metrics, one.hyper):
        found["monitors"] = monitors(metrics, **shown)
    if (correlations(metrics, visits, hyper=one.hyper)["lanes"] > 0).any():
        label = one.label
        if one.unlike:
            visits["performance"] = visits.groupby("task", observed=True)["performance"].rank(pct=True)
            label = f"{label}, rank within the task"
        found["mechanisms"] = mechanisms(metrics, visits, label=label, hyper=one.hyper, controls=one.controls)
    for name in layer_names(metrics):
        found[f"layers_{name}"] = layers(metrics, name, **shown)
    if any(str(name).startswith(BINS) and metrics[name].notna().any() for name in metrics):
        found["hessian_density"] = hessian_density(metrics, **shown, **_eigenvalue_grid(one.runs[0]))
    return found


def _eigenvalue_grid(run: RunPath) -> dict[str, Any]:
    """The settings of the run's ``hessian_density`` that say where its bins are."""
    config = config_if_whole(run)
    try:
        settings = next(each for each in config["monitors"] if each["kind"] == "hessian_density")
        return {name: settings[name] for name in ("smallest", "largest", "scale") if name in settings}
    except (LookupError, TypeError, StopIteration):
        return {}


def save_all(run_dirs: Sequence[RunPath], out: RunPath, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Writes the figures of runs; runs on the same stream share their figures.

    Args:
      run_dirs: the folders of one or more runs.
      out: where to; made if need be. Runs on different streams get a folder in it each, named after the run.
      formats: file name endings that matplotlib knows.

    Returns:
      The files written, none for a run without records.

    Raises:
      ValueError: no run, or a path that is not the folder of a run.
    """
    if not run_dirs:
        raise ValueError("run_dirs is empty: name at least one run")
    groups = results.by_stream(run_dirs)
    written = []
    for members in groups:
        folder = Path(out) if len(groups) == 1 else Path(out) / Path(members[0]).absolute().name
        for name, figure in figures(*members).items():
            written += [save(figure, folder / f"{name}.{ending}") for ending in formats]
    return written


def save(figure: Figure, path: Path) -> Path:
    """Writes one figure: 150 dots per inch, or fonts embedded as TrueType, and the same bytes for the same figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    settings: dict[Any, Any] = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "plot"}
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(path.suffix[1:])
    with matplotlib.rc_context(settings):
        write_atomically(
            path,
            lambda temporary: figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=undated),
            durable=False,
        )
    return path
