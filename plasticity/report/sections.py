"""Sections of a group of runs on one stream: heads and summaries, shared charts, details."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from plasticity.report.details import details
from plasticity.report.summary import head, swatch
from plasticity.report.words import breakable, plural

TITLES = {
    "visits": ("Visit by visit", "One point per visit: does the line stay up?"),
    "stream": (
        "Along the stream",
        "All records in order of time.",
    ),
    "monitors": ("Inside the network", "Measurements of the learner during training."),
}


def sections(groups: Sequence[Mapping[str, Any]]) -> str:
    """All groups, preceded by a list of the runs if there are several."""
    runs = [run for group in groups for run in group["runs"]]
    made = "\n".join(_group(group, index, several=len(runs) > 1) for index, group in enumerate(groups))
    return f"{_contents(runs) if len(runs) > 1 else ''}<main>\n{made}\n</main>"


def _contents(runs: Sequence[Mapping[str, Any]]) -> str:
    links = "\n".join(f'<a href="#{escape(run["anchor"])}">{escape(run["label"])}</a>' for run in runs)
    return f'<nav class="contents" aria-label="runs"><h1>{plural(len(runs), "run")}</h1><p>\n{links}\n</p></nav>\n'


def _group(group: Mapping[str, Any], index: int, *, several: bool) -> str:
    """Runs on one stream: their summaries, shared charts, and details."""
    heads = "\n".join(head(run, group, index, second=several) for run in group["runs"])
    made = "\n".join(details(run, named=len(group["runs"]) > 1) for run in group["runs"])
    return f'<article class="group">\n{heads}\n{_charts(group, index)}\n{made}\n</article>'


def _charts(group: Mapping[str, Any], index: int) -> str:
    """The legend, and an empty container for each chart, which the script fills."""
    if not group["charts"]:
        return '<p class="notice" role="note">Nothing has been recorded yet.</p>'
    legend = "\n".join(
        f'<button type="button" class="key" data-series="{place}" aria-pressed="true">'
        f"{swatch(group, index, place)}<span>{breakable(line['label'])}</span></button>"
        for place, line in enumerate(group["series"])
    )
    charts = "\n".join(
        _chart(name, index, switches=len(group["ends"]) > 1) for name in TITLES if name in group["charts"]
    )
    left_out = f'<p class="caption">{escape(_left_out(group["left_out"]))}</p>' if group["left_out"] else ""
    return f"""<div class="explorer" data-group="{index}">
<aside class="legend" aria-label="arms">
<div class="keys">
{legend}
</div>
<p class="tools"><button type="button" data-do="all">show all</button>
<button type="button" data-do="none">hide all</button></p>
<p class="hint">Click to show or hide an arm; shift-click to show only that arm.</p>
</aside>
<div class="charts">
<noscript><p class="notice">The charts need JavaScript; nothing is loaded from the network.</p></noscript>
{charts}
{left_out}</div>
</div>"""


def _left_out(names: Sequence[str]) -> str:
    return (
        f"Left out to keep this page small: {plural(len(names), 'metric')} of single layers (see the tables): "
        f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}."
    )


def _chart(name: str, index: int, *, switches: bool) -> str:
    title, lead = TITLES[name]
    lead += " Light lines mark task switches." if switches and name == "stream" else ""
    label = f"chart-{index}-{name}"
    return f"""<section class="chart" data-chart="{name}" aria-labelledby="{label}">
<h3 id="{label}">{title}</h3><p class="lead">{lead}</p>
<div class="controls"></div>
<div class="plot"><svg class="figure" role="img" tabindex="0"></svg><div class="tip" hidden></div></div>
<p class="said" aria-live="polite"></p>
<div class="small"></div>
</section>"""
