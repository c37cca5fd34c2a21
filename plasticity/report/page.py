"""The HTML file, from the dict of :func:`plasticity.report.collect`."""

import contextlib
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from plasticity.report.data import collect
from plasticity.report.facts import PAGE
from plasticity.report.sections import sections
from plasticity.results.read import RunPath
from plasticity.runs.files import write_text

SCRIPTS = ("helpers.js", "chart.js", "explorer.js")
CHART_KEYS = ("reward", "episodic", "x", "ends", "tasks", "task_of", "by_task", "series", "charts", "grids")


def save(runs: Sequence[RunPath], out: RunPath | None = None) -> Path:
    """Write the report on one or more runs; by default to ``report.html`` in the first run's folder.

    Raises:
      ValueError: no run is given, or a path that is not the folder of a run.
      OSError: the file cannot be written.
    """
    path = Path(runs[0] if out is None else out)
    path = path / PAGE if path.is_dir() else path
    text = page(linked(collect(runs), path.parent))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def linked(data: Mapping[str, Any], place: Path) -> Mapping[str, Any]:
    """The data, with the pages of probes as seen from the folder ``place``."""
    for probe in (probe for group in data["groups"] for run in group["runs"] for probe in run["probes"]):
        with contextlib.suppress(ValueError):  # on another drive of Windows
            probe["page"] = Path(os.path.relpath(probe["page"], place)).as_posix()
    return data


def page(data: Mapping[str, Any]) -> str:
    """The whole file as text; all text in ``data`` is escaped."""
    groups = data["groups"]
    parts = {
        "title": html.escape(data["title"]),
        "style": _asset("style.css"),
        "colours": colours(groups),
        "body": sections(groups),
        "data": embedded([{key: group[key] for key in CHART_KEYS} for group in groups]),
        "script": "\n".join(map(_asset, SCRIPTS)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def _asset(name: str) -> str:
    return resources.files("plasticity.report").joinpath(name).read_text(encoding="utf-8")


def embedded(value: Any) -> str:
    """The value as JSON that is safe inside a ``script`` element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def colours(groups: Sequence[Mapping[str, Any]]) -> str:
    """Each line's colour as a CSS variable, brighter on a dark background."""
    light, dark = [
        "".join(
            f"--g{number}s{place}:{line[key]};"
            for number, group in enumerate(groups)
            for place, line in enumerate(group["series"])
        )
        for key in ("colour", "dark")
    ]
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}"
