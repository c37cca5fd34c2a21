"""All figures of a run, written to files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from plasticity import results
from plasticity.plots.options import PLAIN, Options
from plasticity.plots.run_figures import figures
from plasticity.results.read import RunPath
from plasticity.runs.files import write_atomically

FORMATS = ("png", "pdf")


def save_all(
    run_dirs: Sequence[RunPath],
    out: RunPath,
    formats: Iterable[str] = FORMATS,
    *,
    options: Options = PLAIN,
    names: Sequence[str] | None = None,
) -> list[Path]:
    """Write the figures of runs to files; runs on the same stream share their figures.

    Args:
      run_dirs: the folders of one or more runs.
      out: the output folder, created if necessary. Runs on different streams get a subfolder each, named after the run.
      formats: file extensions that matplotlib supports.
      options: the arms, their labels, the figure size and smoothing, for all figures.
      names: the figures to draw, see :func:`plasticity.plots.figures`; None: all.

    Returns:
      The files written; none for a run without records.

    Raises:
      ValueError: no run is given, or a path that is not the folder of a run.
      UserError: ``options`` or ``names`` that do not fit the runs.
    """
    if not run_dirs:
        raise ValueError("run_dirs is empty: name at least one run")
    groups = results.by_stream(run_dirs)
    written = []
    for members in groups:
        folder = Path(out) if len(groups) == 1 else Path(out) / Path(members[0]).absolute().name
        for name, figure in figures(*members, options=options, names=names).items():
            written += [save(figure, folder / f"{name}.{ending}") for ending in formats]
    return written


def save(figure: Figure, path: Path) -> Path:
    """Write one figure reproducibly, at 150 dots per inch or with embedded TrueType fonts."""
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
