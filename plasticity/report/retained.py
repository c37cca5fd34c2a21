"""The section on retention and transfer: matrices of performance after every visit, and tables of measures."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from plasticity.report.words import MINUS, MISSING, breakable, number

FEW = 8  # visits up to which the numbers are written into the cells
LEVELS = ("performance", "reference")  # the other columns are differences
CURVES = {"evaluations": "the curve of evaluations", "training": "the training curve"}


def retained(run: Mapping[str, Any]) -> str:
    found = run["retention"]
    if not found:
        return ""
    return f"""<section class="retention" aria-label="retention and transfer"><h3>Retention and transfer</h3>
<p class="lead">Evaluations on every task after every visit, without learning: {escape(found["measure"])}.</p>
{_matrices(found)}{_measures(found)}{_parts(found, run["control"])}</section>"""


def _matrices(found: Mapping[str, Any]) -> str:
    if not found["matrices"]:
        return '<p class="fine">The matrices are too large for this page: see <code>plasticity plot</code>.</p>\n'
    made = "\n".join(_matrix(matrix, found["tasks"]) for matrix in found["matrices"])
    scale = "lowest to highest value of each column" if found["scaled"] else "lowest to highest value of all arms"
    return f"""<div class="matrices">
{made}
</div>
<p class="caption">Row: after a visit. Column: evaluated on the task of a visit. Below the diagonal are earlier tasks
(forgetting), above it coming ones (transfer). Means over seeds; colours from the {scale}.</p>
"""


def _matrix(matrix: Mapping[str, Any], tasks: Sequence[str]) -> str:
    written = len(tasks) <= FEW
    heads = "".join(f'<th scope=col title="{escape(task)}">{place}' for place, task in enumerate(tasks, 1))
    body = "\n".join(
        f'<tr><th scope=row title="{escape(tasks[place])}">{place + 1}'
        + "".join(
            _cell(value, share, written, f"after visit {place + 1}, on {tasks[column]}", column == place)
            for column, (value, share) in enumerate(zip(values, shares, strict=True))
        )
        + "</tr>"
        for place, (values, shares) in enumerate(zip(matrix["values"], matrix["shares"], strict=True))
    )
    return f"""<figure><figcaption>{breakable(matrix["label"])}</figcaption>
<table class="heat{"" if written else " dense"}" aria-label="performance of {escape(matrix["label"])}">
<thead><tr><td>{heads}</tr></thead><tbody>
{body}
</tbody></table></figure>"""


def _cell(value: float | None, share: float | None, written: bool, where: str, own: bool) -> str:
    marked = " own" if own else ""
    if value is None or share is None:
        return f'<td class="empty{marked}" title="{escape(where)}: not evaluated">'
    bright = " bright" if share > 0.55 else ""
    text = _short(value) if written else ""
    style, title = f"--v:{100 * share:.0f}%", f"{escape(where)}: {number(value)}"
    return f'<td class="v{bright}{marked}" style="{style}" title="{title}">{text}'


def _short(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS) if abs(value) < 10 else number(value)


def _measures(found: Mapping[str, Any]) -> str:
    rows = found["measures"]
    compared = any("difference" in row for row in rows)
    shown = {"performance": "average performance P(T)", "forgetting": "forgetting"}
    shown |= {"difference": "AUC \u2212 AUC of control", "transfer": "forward transfer"} if compared else {}
    texts = ["P(T): mean over tasks at the end of the run. Forgetting: end of the task's visit minus end of the run."]
    if compared:
        texts.append(
            "Forward transfer: (AUC \u2212 AUC of the control) / (largest \u2212 AUC of the control), where AUC is the "
            f"area under {CURVES[found['curves']]} of each visit. It explodes as the control's area approaches the "
            "largest."
        )
    return f"""{_table(rows, shown, "the three measures")}
<p class="caption">{" ".join(texts)} Measures of Continual World, of each seed; 95 % t intervals over
seeds.{_scale(found)}</p>
"""


def _scale(found: Mapping[str, Any]) -> str:
    return " Each task on its own scale, as in the summary." if found["scaled"] else ""


def _parts(found: Mapping[str, Any], control: str) -> str:
    if not found["parts"]:
        return ""
    shown = {
        "reference": f"{control}, end of visit",
        "shortfall": "shortfall",
        "not_learned": "= not learned",
        "forgotten": "+ forgotten",
    }
    tasks = f"""<details><summary>Task by task</summary>
{_table(found["by_task"], shown, "shortfall by task", by_task=True)}
</details>
"""
    return f"""<h4>Plasticity and stability apart</h4>
<p class="lead">How far each arm ends below {escape(control)}, and why: what it did not learn in the task's last visit
(plasticity), and what it lost afterwards (stability).</p>
{_table(found["parts"], shown, "shortfall")}
<p class="caption">Means over tasks, paired by seed, with 95 % t intervals. The parts add up exactly. Negative: the arm
learned more than {escape(control)}, or became better after the visit.</p>
{tasks}"""


def _table(rows: Sequence[Mapping[str, Any]], shown: Mapping[str, str], label: str, *, by_task: bool = False) -> str:
    heads = ("<th scope=col>task" if by_task else "") + "<th scope=col>arm"
    heads += "".join(f"<th scope=col class=n>{escape(text)}" for text in shown.values())
    body = "\n".join(
        "<tr>"
        + (f"<th scope=row>{escape(row['task'])}<td>" if by_task else "<th scope=row>")
        + breakable(row["label"])
        + "".join(f"<td class=n>{interval(row.get(name), '' if name in LEVELS else '+')}" for name in shown)
        + "</tr>"
        for row in rows
    )
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="table: {label}">
<table><thead><tr>{heads}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def interval(values: Sequence[float | None] | None, sign: str = "") -> str:
    """``mean [low, high]``; ``sign``: ``+`` for a difference."""
    mean, low, high = values or (None, None, None)
    if mean is None:
        return MISSING
    bounds = "" if low is None or high is None else f' <span class="bounds">[{number(low)}, {number(high)}]</span>'
    return number(mean, sign) + bounds
