"""Provenance of a run: command, diverged lanes, time and memory, versions, config."""

import math
import shlex
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from plasticity.report.words import MISSING, TIMES, amount, duration, plural, size


def details(run: Mapping[str, Any], *, named: bool) -> str:
    of = f" of {escape(run['label'])}" if named else ""
    return f"""<section class="details" aria-label="details"><h3>How it was made{of}</h3>
<p class="lead">{"Run it again" if run["finished"] else "Resume it"}:</p>
<pre class="command"><code>{escape(run["command"])}</code></pre>
{_lost(run["diverged"])}
{_arms(run)}
{_probes(run["probes"])}
<dl>
<dt>seeds</dt><dd>{escape(", ".join(map(str, run["seeds"]))) or MISSING}</dd>
<dt>versions</dt><dd>{escape(", ".join(f"{name} {text}" for name, text in run["versions"].items())) or MISSING}</dd>
<dt>folder</dt><dd><code>{escape(run["path"])}</code></dd>
</dl>
<details><summary>Config, resolved</summary><pre><code>{escape(run["config"])}</code></pre></details>
</section>"""


def _probes(probes: Sequence[Mapping[str, Any]]) -> str:
    """The run's probes with their states, each linked to its own report or, while there is none, to its folder."""
    if not probes:
        return ""
    rows = "\n".join(
        f'<li><a href="{escape(quote(probe["page"]))}">{escape(probe["name"])}</a>: {_state(probe)}' for probe in probes
    )
    return f"""<p class="lead">Probes, each a run of its own:</p>
<ul>
{rows}
</ul>
<p class="lead">The report of one:</p>
<pre class="command"><code>{escape(shlex.join(["plasticity", "report", probes[0]["path"]]))}</code></pre>"""


def _state(probe: Mapping[str, Any]) -> str:
    if not probe["started"]:
        return "not started"
    return "finished" if probe["share"] >= 1 else f"{math.floor(100 * probe['share'])} % done"


def _lost(diverged: Sequence[Mapping[str, Any]]) -> str:
    if not diverged:
        return '<p class="fine">No lane diverged.</p>'
    rows = "\n".join(
        f"<tr><th scope=row>{escape(lost['arm'])}<td class=n>{lost['lane']}<td class=n>{lost['seed']}"
        f"<td class=n>{amount(lost['step'])}</tr>"
        for lost in diverged
    )
    opened = " open" if len(diverged) <= 12 else ""
    return f"""<details{opened}><summary>{plural(len(diverged), "lane")} diverged</summary>
<p class="lead">Their numbers became non-finite. They are frozen from then on and excluded from all means.</p>
<div class="scroll"><table class="compact"><thead><tr><th scope=col>arm<th scope=col class=n>lane
<th scope=col class=n>seed<th scope=col class=n>env step</tr></thead><tbody>
{rows}
</tbody></table></div></details>"""


def _arms(run: Mapping[str, Any]) -> str:
    heads = [
        "arm",
        "lanes",
        "state",
        "env steps/s",
        "time",
        f"devices {TIMES} groups {TIMES} width",
        "memory per device",
    ]
    kinds = ["" if place in (0, 2) else " class=n" for place in range(len(heads))]
    head = "".join(f"<th scope=col{kind}>{text}" for kind, text in zip(kinds, heads, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<{'th scope=row' if not place else 'td' + kinds[place]}>{cell}" for place, cell in
                         enumerate(_machine(arm))) + "</tr>"
        for arm in run["arms"]
    )  # fmt: skip
    written = max((arm["updated"] for arm in run["arms"] if arm["updated"]), default=None)
    when = f" Last written {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(written))}." if written else ""
    total = [arm["seconds"] for arm in run["arms"]]
    took = f" Total: {duration(sum(filter(None, total)))}." if any(total) else ""
    return f"""<details open><summary>Time and memory</summary>
<div class="scroll"><table class="compact"><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></div>
<p class="caption">Speed: steps of all lanes together since the last start of the run, without compilation. Time: all
steps at that speed.{took}{when}</p></details>"""


def _machine(arm: Mapping[str, Any]) -> list[str]:
    shapes = dict.fromkeys(
        f" {TIMES} ".join(str(shape[key]) for key in ("devices", "groups", "width")) for shape in arm["placements"]
    )
    state = arm["state"] if arm["state"] == "finished" else f"{arm['state']}, {100 * arm['share']:.0f} %"
    return [
        escape(arm["name"]),
        str(arm["lanes"]),
        escape(state),
        amount(round(arm["speed"])) if arm["speed"] else MISSING,
        duration(arm["seconds"]) if arm["seconds"] else MISSING,
        escape(", ".join(shapes)) or MISSING,
        size(max(arm["bytes"])) if arm["bytes"] else MISSING,
    ]
