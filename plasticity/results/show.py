"""The summary as a table on the terminal."""

import math
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plasticity.results.compare import points, summary
from plasticity.results.read import RunPath, hyper_parameters, plan

MISSING = "-"


def print_summary(run: RunPath, console: Console | None = None, **options: Any) -> None:
    """Prints :func:`summary` of a run: one row per arm and swept point, 80 columns wide.

    Args:
      run: the run's folder.
      console: where to; standard output by default.
      **options: of :func:`summary`.
    """
    found, about = summary(run, **options), plan(run)
    stream, control = about["stream"], options.get("control", "fresh")
    measured = "episodic return" if stream["episodic"] else stream["reward_name"]
    title = escape(f"{about.get('name', run)}: {measured}")
    layout: dict[str, Any] = {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "collapse_padding": True}
    table = Table(title=title, title_justify="left", caption_justify="left", **layout)
    single = len(stream["visits"]) == 1
    headings = {
        "first": "whole\nvisit" if single else "first\ntenth",
        "last": "last tenth\n[interval]" if single else "last\ntenth",
        "gap": f"gap to {control}\n[interval]",
        "closed": "closed\n%",
    }
    shown = {column: heading for column, heading in headings.items() if column in found}
    table.add_column("arm", overflow="fold")
    for heading in (*shown.values(), "diverged"):
        table.add_column(escape(heading), justify="right", no_wrap=True)
    for point in points(found, hyper_parameters(run)):
        row = point.rows.iloc[0]
        label = "\n  ".join([point.arm, *point.settings])
        table.add_row(escape(label), *[_cell(row, column, single) for column in shown], _diverged(row))
    table.caption = _caption(found, options, single)
    (console or Console()).print(table)


def _cell(row: pd.Series, key: str, single: bool = False) -> str:
    if math.isnan(row[key]):
        return MISSING
    if key == "closed":
        return f"{100 * row[key]:.0f}"
    if key == "gap" or (key == "last" and single):
        low, high = row[f"{key}_low"], row[f"{key}_high"]
        bounds = "" if math.isnan(low) else f" [{_number(low)}, {_number(high)}]"
        return escape(_number(row[key], "+" if key == "gap" else "") + bounds)
    return _number(row[key])


def _number(value: float, sign: str = "") -> str:
    """Three significant digits at least, and no exponent in the usual range."""
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:{sign}.1e}"
    digits = 2 if value == 0 else 2 - math.floor(math.log10(abs(value)))
    return f"{value:{sign},.{min(max(digits, 0), 3)}f}"


def _diverged(row: pd.Series) -> str:
    return f"{row['diverged']}/{row['lanes']}" if row["lanes"] else MISSING


def _caption(found: pd.DataFrame, options: dict[str, Any], single: bool) -> str:
    percent = f"{100 * options.get('confidence', 0.95):g} %"
    texts = ["Means over seeds of the first and the last tenth of the visits."]
    if single:
        texts = [f"Means over seeds of the visit and of its last tenth, with {percent} t intervals."]
    if "gap" in found:
        texts.append(f"Gaps are paired by seed, with {percent} t intervals.")
    if "closed" in found:
        texts.append("Closed: share of the baseline's gap.")
        own = found[found["arm"] == options.get("baseline", "baseline")]
        if ((own["gap_low"] <= 0) & (own["gap_high"] >= 0)).any():
            texts.append("That gap is not clearly off zero: read `closed` with care.")
    return " ".join(texts)
