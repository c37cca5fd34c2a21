"""All figures of a run, written to files."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from plasticity import results
from plasticity.plots.curves import learning_curve, monitor_names, monitors
from plasticity.plots.performance import performance
from plasticity.plots.style import FEW
from plasticity.results.read import RunPath

FORMATS = ("png", "pdf")


def figures(run: RunPath, *runs: RunPath) -> dict[str, Figure]:
    """The figures of a run, or of several on the same stream in one: ``performance, learning_curve, monitors``.

    A figure without anything to show yet is absent.
    """
    stream, hyper = results.plan(run)["stream"], results.hyper_parameters(run, *runs)
    metrics, visits = results.load(run, *runs), results.visits(run, *runs)
    episodic = stream["episodic"]
    label = "episodic return" if episodic else stream["reward_name"]
    value = "episodic_return" if episodic else "reward"
    x = "frames" if stream["frames_per_step"] > 1 else "step"
    played = {visit["task"] for visit in stream["visits"]}
    by_task = episodic and 2 <= len(played) <= FEW
    found = {}
    if visits["performance"].notna().any():
        found["performance"] = performance(visits, label=label, by_task=by_task, hyper=hyper)
    if metrics[value].notna().any():
        found["learning_curve"] = learning_curve(metrics, value=value, label=label, x=x, by_task=by_task, hyper=hyper)
    if monitor_names(metrics, hyper):
        found["monitors"] = monitors(metrics, x=x, hyper=hyper)
    return found


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
    groups: dict[str, list[RunPath]] = {}
    for run in run_dirs:
        groups.setdefault(json.dumps(results.plan(run)["stream"], sort_keys=True), []).append(run)
    written = []
    for members in groups.values():
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
        figure.savefig(path, dpi=150, metadata=undated)
    return path
