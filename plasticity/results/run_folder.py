"""A run as an object: its folder, with its tables as attributes."""

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from plasticity.results.compare import summary
from plasticity.results.per_visit import visits
from plasticity.results.read import evaluations, lanes, load, plan

if TYPE_CHECKING:
    PathOfThisSystem = Path
else:
    PathOfThisSystem = type(Path())  # before Python 3.12 only this class can be subclassed


class RunFolder(PathOfThisSystem):
    """The folder of a run, usable wherever a path is accepted.

    Tables are read from the files on each access, so they grow while the run is in progress. Notebooks display the
    summary.

    Raises (every table):
      ValueError: it is not the folder of a run.
    """

    def with_segments(self, *parts: Any) -> Path:
        """Derived paths are plain paths (Python 3.12 and newer)."""
        return Path(*parts)

    @property
    def path(self) -> Path:
        """The folder as a plain path."""
        return Path(str(self))

    @property
    def plan(self) -> dict[str, Any]:
        """The plan of the run; see :func:`plasticity.results.plan`."""
        return plan(self.path)

    @property
    def lanes(self) -> pd.DataFrame:
        """One row per lane; see :func:`plasticity.results.lanes`."""
        return lanes(self.path)

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per lane and record; see :func:`plasticity.results.load`."""
        return load(self.path)

    @property
    def visits(self) -> pd.DataFrame:
        """One row per lane and visit; see :func:`plasticity.results.visits`."""
        return visits(self.path)

    @property
    def evaluations(self) -> pd.DataFrame:
        """One row per lane, evaluation and evaluated task; see :func:`plasticity.results.evaluations`."""
        return evaluations(self.path)

    @property
    def summary(self) -> pd.DataFrame:
        """One row per arm and swept point; see :func:`plasticity.results.summary`."""
        return summary(self.path)

    def _repr_html_(self) -> str | None:
        """Name, folder and summary; None if the folder is not a run."""
        try:
            about = self.plan
            table = self.summary.to_html(index=False, float_format=lambda value: f"{value:.3g}", na_rep="", border=0)
        except ValueError:
            return None
        stream = about["stream"]
        measured = "episodic return" if stream["episodic"] else stream["reward_name"]
        title = html.escape(f"{about.get('name', self.name)}: {measured}")
        return f"<p><b>{title}</b><br><code>{html.escape(str(self))}</code></p>{table}"
