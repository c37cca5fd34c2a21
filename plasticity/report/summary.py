"""The head of a run: name, description, verdicts and evaluations."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from plasticity.report.retained import interval, retained
from plasticity.report.words import MISSING, amount, breakable, number, plural

STAGES = {
    "single": ("whole visit", "last tenth"),
    "sequence": ("first tenth", "last tenth"),
    "revisits": ("first visits", "last visits"),
}
DIFFERENCES = ("gap", "change", "own")
OWN = "own change"


def head(run: Mapping[str, Any], group: Mapping[str, Any], index: int, *, second: bool) -> str:
    level = "h2" if second else "h1"
    notice = "" if run["finished"] else _unfinished(run)
    return f"""<header id="{escape(run["anchor"])}">
<{level} class="title">{escape(run["label"])}</{level}>
<p class="question">{escape(_question(run))}</p>
<p class="facts">{" ".join(f"<span>{escape(part)}</span>" for part in _in_a_line(run, group))}</p>
{notice}</header>
{_summary(run, group, index)}
{_evaluations(run)}
{retained(run)}"""


def _question(run: Mapping[str, Any]) -> str:
    switches = run["visits"] - 1
    if not switches:
        return "How well, and how fast, does each arm learn one task?"
    return f"Which arms still learn after {plural(switches, 'task change')}?"


def _in_a_line(run: Mapping[str, Any], group: Mapping[str, Any]) -> list[str]:
    seeds, arms = run["seeds"], run["arms"]
    lanes = sum(arm["lanes"] for arm in arms)
    stream = f"stream {run['stream']}" if run["stream"] else "stream"
    parts = [
        f"{stream}: {plural(run['visits'], 'visit')}, {plural(run['tasks'], 'task')}, {amount(run['steps'])} env steps"
        f" in {plural(run['envs'], 'environment')}",
        f"agent {run['agent']}" if run["agent"] else "",
        ", ".join([plural(len(arms), "arm"), plural(lanes, "lane"), plural(len(seeds), "seed")]),
        f"measured: {group['reward']}",
    ]
    return list(filter(None, parts))


def _unfinished(run: Mapping[str, Any]) -> str:
    waiting = [arm["name"] for arm in run["arms"] if arm["state"] != "finished"]
    named = ", ".join(waiting[:6]) + (f" and {len(waiting) - 6} more" if len(waiting) > 6 else "")
    done = math.floor(100 * run["share"])
    return (
        f'<p class="notice" role="note"><strong>Not finished: {done} % done.</strong> '
        f"Remaining: {escape(named)}. The results below cover what has been recorded so far.</p>\n"
    )


# ------------------------------------------------------------------------------------------------- the summary


def _summary(run: Mapping[str, Any], group: Mapping[str, Any], index: int) -> str:
    rows, single = run["summary"], run["kind"] == "single"
    early, late = STAGES.get(run["kind"], STAGES["sequence"])
    if run["has_gap"]:
        # If tasks recur, show the change, on which the verdict is based; for a sequence, show the gap at the end.
        key = "change" if run["kind"] == "revisits" else "gap"
    else:
        key = "last" if single or run["kind"] == "none" else "own"
    title = {"gap": f"gap to {run['control']}", "change": f"change of the gap to {run['control']}", "own": OWN}
    heads = ["<th scope=col>arm"] + ([] if single else ["<th scope=col>verdict"])
    if run["kind"] != "none":  # otherwise no single number summarises all tasks
        heads += [f"<th scope=col class=n>{early}", f"<th scope=col class=n>{late}"]
        heads.append(f"<th scope=col colspan=2>{escape(title.get(key, late))}, 95 % interval")
        heads += ["<th scope=col class=n>closed"] if any("closed" in row for row in rows) else []
    heads.append("<th scope=col class=n>diverged")
    scale = _scale(rows, key)
    body = "\n".join(_row(row, group, index, key if run["kind"] != "none" else "", scale, single) for row in rows)
    return f"""<section class="summary" aria-label="summary">
{_answer(run)}
<div class="scroll" tabindex="0" role="region" aria-label="summary table">
<table class="verdicts"><thead><tr>{"".join(heads)}</tr></thead>
<tbody>
{body}
</tbody></table></div>
<p class="caption">{_caption(run, single)}</p>
{_rule(run["rule"])}{_tasks(run)}</section>"""


def _answer(run: Mapping[str, Any]) -> str:
    """The arms of each verdict, in one sentence."""
    found: dict[str, list[str]] = {}
    for row in run["summary"]:
        if row["verdict"] not in ("", "control", "unfinished"):
            found.setdefault(row["verdict"], []).append(", ".join([row["arm"], *row["settings"]]))
    order = ("keeps", "rises", "holds", "slips", "falls", "loses", "open", "diverged")
    parts = []
    for word in sorted(found, key=order.index):
        arms = found[word]
        named = escape(", ".join(arms)) if len(arms) <= 8 else f"{len(arms)} arms"
        parts.append(f'<span class="answer"><span class="word {word}">{word}</span> {named}</span>')
    return f'<p class="answers">{" ".join(parts)}</p>' if parts else ""


def _tasks(run: Mapping[str, Any]) -> str:
    """Each task separately, if rewards are of several kinds."""
    if not run["by_task"]:
        return ""
    again = any(row["visits"] > 1 for row in run["by_task"])
    shown = {"first": "first visits"} if again else {}
    shown |= {"last": "last visits" if again else "its visit"}
    shown |= {"gap": f"gap to {run['control']}"} if run["has_gap"] else {}
    shown |= ({"change": "change of the gap"} if run["has_gap"] else {"own": OWN}) if again else {}
    heads = "".join(f"<th scope=col class=n>{escape(text)}" for text in shown.values())
    body = "\n".join(
        f"<tr><th scope=row>{escape(row['task'])}<td>{escape(row['label'])}"
        + "".join(f"<td class=n>{_interval(row, name)}" for name in shown)
        + "</tr>"
        for row in run["by_task"]
    )
    return f"""<h3>Task by task</h3>
<p class="lead">Each in units of its own reward; nothing is averaged over tasks. 95 % intervals over seeds.</p>
<div class="scroll" tabindex="0" role="region" aria-label="table of tasks">
<table><thead><tr><th scope=col>task<th scope=col>arm{heads}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def _caption(run: Mapping[str, Any], single: bool) -> str:
    texts = [] if run["kind"] == "none" else [escape(run["meaning"])]
    if run["has_gap"]:
        texts.append("Differences are paired by seed. Closed: share of the baseline's gap that an arm closes.")
    elif not single and run["kind"] != "none":
        texts.append("Own change: late minus early of each lane.")
    texts.append("Intervals: 95 %, Student's t over seeds.")
    texts += [escape(run["tuned"])] if run["tuned"] else []
    if any(row["task_aware"] for row in run["summary"]):
        texts.append('An arm marked <span class="aware">task-aware</span> knows of task switches.')
    if any(row["reads_task"] for row in run["summary"]):
        texts.append('The network of an arm marked <span class="aware">told the task</span> knows which task it is in.')
    return " ".join(texts)


def _rule(rule: Sequence[tuple[str, str]]) -> str:
    lines = "".join(
        f'<dt class="word {word}">{word}</dt><dd>{escape(text)}</dd>' if word else f"<dd>{escape(text)}</dd>"
        for word, text in rule
    )
    return f'<dl class="rule">{lines}</dl>\n' if rule else ""


def _scale(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float]:
    """The range of the strip: that of all intervals, including zero for gaps."""
    names = (key, f"{key}_low", f"{key}_high")
    values = [row[name] for row in rows for name in names if row.get(name) is not None]
    values += [0.0] if key in DIFFERENCES else []
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _row(
    row: Mapping[str, Any], group: Mapping[str, Any], index: int, key: str, scale: tuple[float, float], single: bool
) -> str:
    aware = ' <span class="aware" title="knows of task switches">task-aware</span>' if row["task_aware"] else ""
    aware += ' <span class="aware" title="its network knows the task">told the task</span>' if row["reads_task"] else ""
    settings = "".join(f'<span class="setting">{escape(text)}</span>' for text in row["settings"])
    cells = [f"<th scope=row>{swatch(group, index, row['series'])}{breakable(row['arm'])}{aware}{settings}"]
    if not single:
        why = f'<span class="why">{escape(row["why"])}</span>' if row["why"] else ""
        word = f'<span class="word {row["verdict"]}">{row["verdict"]}</span>' if row["verdict"] else MISSING
        cells.append(f'<td class="verdict">{word}{why}')
    if key:
        cells += [f"<td class=n>{_mean(row.get(name))}" for name in ("first", "last")]
        cells.append(f'<td class="strip">{_strip(row, key, scale, index)}')
        cells.append(f"<td class=n>{_interval(row, key)}")
    if key and "closed" in row:
        cells.append("<td class=n>" + (MISSING if row["closed"] is None else f"{100 * row['closed']:.0f} %"))
    lost = f"{row['diverged']}/{row['lanes']}" if row["lanes"] else MISSING
    cells.append(f'<td class="n{" lost" if row["diverged"] else ""}">{lost}')
    return f"<tr>{''.join(cells)}</tr>"


def _mean(value: float | None) -> str:
    return MISSING if value is None else number(value)


def _interval(row: Mapping[str, Any], key: str) -> str:
    if row.get(key) is None:
        return MISSING
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    bounds = "" if low is None else f' <span class="bounds">[{number(low)}, {number(high)}]</span>'
    return number(row[key], "+" if key in DIFFERENCES else "") + bounds


def _strip(row: Mapping[str, Any], key: str, scale: tuple[float, float], index: int) -> str:
    """Mean and interval on an axis shared by all rows."""
    if row.get(key) is None:
        return ""
    low, high = scale

    def at(value: float) -> str:
        return f"{4 + 152 * (value - low) / (high - low):.1f}"

    zero = f'<line class="zero" x1="{at(0)}" x2="{at(0)}" y1="0" y2="20"/>' if low <= 0 <= high else ""
    bar = ""
    if row[f"{key}_low"] is not None:
        bar = f'<line class="bar" x1="{at(row[f"{key}_low"])}" x2="{at(row[f"{key}_high"])}" y1="10" y2="10"/>'
    colour = f' style="--c:var(--g{index}s{row["series"]})"' if row["series"] is not None else ""
    dot = f'<circle cx="{at(row[key])}" cy="10" r="3.6"/>'
    return f'<svg viewBox="0 0 160 20" aria-hidden="true"{colour}>{zero}{bar}{dot}</svg>'


def swatch(group: Mapping[str, Any], index: int, series: int | None) -> str:
    """A short sample of an arm's line; the script draws its marker."""
    if series is None:
        return '<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true"></svg>'
    dash = " ".join(f"{1.8 * part:g}" for part in group["series"][series]["dash"])
    marker = escape(group["series"][series]["marker"])
    return (
        f'<svg class="swatch" viewBox="0 0 34 12" aria-hidden="true" data-marker="{marker}" '
        f'style="--c:var(--g{index}s{series})"><path d="M1 6H33" stroke-dasharray="{dash}"/></svg>'
    )


# ------------------------------------------------------------------------------------------------- evaluations


def _evaluations(run: Mapping[str, Any]) -> str:
    """A table of the performance, and one of each measure of the stream."""
    return "\n".join(_evaluation(found) for found in (run["evaluations"], *run["measured"]) if found)


def _evaluation(found: Mapping[str, Any]) -> str:
    heads = "".join(f"<th scope=col class=n>{escape(task)}" for task in found["tasks"])
    body = "\n".join(
        f"<tr><th scope=row>{escape(row['label'])}<td class=n>{amount(row['step'])}"
        + "".join(f"<td class=n>{interval(row['cells'].get(task))}" for task in found["tasks"])
        + "</tr>"
        for row in found["rows"]
    )
    return f"""<section aria-label="evaluations"><h3>Evaluations</h3>
<p class="lead">The last one of each lane, in separate environments, without learning: {escape(found["value"])}.</p>
<div class="scroll" tabindex="0" role="region" aria-label="table of evaluations">
<table><thead><tr><th scope=col>arm<th scope=col class=n>env step{heads}</tr></thead>
<tbody>
{body}
</tbody></table></div></section>"""
