"""Write the tables of `plasticity bench` in docs/speed.md and docs/agents.md, from what docs/speed.json keeps of it."""

import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gpu_page import number, table

from plasticity.bench.interventions import LIMIT
from plasticity.bench.monitors import USUAL

DOCS = Path(__file__).resolve().parent
KEPT = DOCS / "speed.json"
PAGES = ("speed.md", "agents.md")
Rows = list[Mapping[str, Any]]


def distinct(rows: Rows, *names: str) -> list[Any]:
    """The distinct values of these fields, in order."""
    found = dict.fromkeys(tuple(row[name] for name in names) for row in rows)
    return [each if len(names) > 1 else each[0] for each in found]


def where(rows: Rows, **fields: Any) -> Rows:
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def agents(rows: Rows) -> list[str]:
    counts = sorted(distinct(rows, "lanes"))
    lines = []
    for name in distinct(rows, "agent"):
        of_agent = {row["lanes"]: row for row in where(rows, agent=name)}
        speeds = [number(of_agent[n]["steps_per_second"], ",.0f") if n in of_agent else "" for n in counts]
        targets = [f"{row['target']:,} with {n} lanes" for n, row in of_agent.items() if row["target"] is not None]
        lines.append((name, *speeds, ", ".join(targets)))
    return table(("agent, stream", *(f"{n} lane{'s' * (n > 1)}" for n in counts), "target"), lines)


def lanes(rows: Rows) -> list[str]:
    lines = [
        (
            row["case"], str(row["lanes"]),
            f"{row['devices']} x {row['groups']} x {row['width']}{' *' * row['automatic']}",
            number(row["updates_per_second"], ",.0f"), number(row["of_best"], ".2f"),
        )
        for row in rows
    ]  # fmt: skip
    return table(("case", "lanes", "placement", "updates/s", "of the best"), lines)


def overhead(rows: Rows) -> list[str]:
    first, *others = distinct(rows, "program")
    lines = []
    for agent, count in distinct(rows, "agent", "lanes"):
        by_program = {row["program"]: row for row in where(rows, agent=agent, lanes=count)}
        speed = number(by_program[first]["steps_per_second"], ",.0f")
        lines.append((f"`{agent}`", str(count), speed, *(f"{by_program[p]['of_hand_written']:.2f}" for p in others)))
    return table(("agent", "lanes", f"{first}, env steps/s", *others), lines)


def convolution(rows: Rows) -> list[str]:
    ways = distinct(rows, "method", "where")
    lines = []
    for batch, count in distinct(rows, "batch", "lanes"):
        found = {(row["method"], row["where"]): row for row in where(rows, batch=batch, lanes=count)}
        cells = (f"{found[way]['milliseconds']:.3g} ms ({found[way]['of_lax_alone']:.2f})" for way in ways)
        lines.append((str(batch), str(count), *cells))
    return table(("batch", "lanes", *(f"`{method}`, {place}" for method, place in ways)), lines)


def monitors(rows: Rows) -> list[str]:
    lines = []
    for learner, count in distinct(rows, "learner", "lanes"):
        share = sum(row["share"] for row in where(rows, learner=learner, lanes=count) if row["monitor"] in USUAL)
        lines.append((learner, str(count), f"{100 * share:.1f} %"))
    return table(("learner", "lanes", f"{', '.join(f'`{name}`' for name in USUAL)} add"), lines)


def streams(rows: Rows) -> list[str]:
    counts = sorted(distinct(rows, "envs"))
    lines = []
    for name in distinct(rows, "stream"):
        of_stream = {row["envs"]: row for row in where(rows, stream=name)}
        speeds = [rate(of_stream[n]["steps_per_second"]) if n in of_stream else "" for n in counts]
        added = [row["overhead"] for row in of_stream.values() if row["overhead"] is not None]
        lines.append((f"`{name}`", *speeds, f"{100 * added[0]:.0f} %" if added else ""))
    return table(("stream", *(f"{n} env{'s' * (n > 1)}" for n in counts), "the host path adds"), lines)


def rate(value: float) -> str:
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value:,.0f}"


def interventions(rows: Rows) -> list[str]:
    learners = distinct(rows, "learner")
    lines = []
    for name in distinct(rows, "intervention"):
        of_name = {row["learner"]: row for row in where(rows, intervention=name)}
        lines.append((f"`{name}`", *(slowdown(of_name.get(learner)) for learner in learners)))
    return [*table(("intervention", *learners), lines), expensive(rows), ""]


def slowdown(row: Mapping[str, Any] | None) -> str:
    """The ratio at the default period, and in brackets the one with everything due."""
    if row is None:
        return ""
    due = "" if row["due"] is None else f" ({ratio(row['due'], 1)})"
    return ratio(row["on_average"], 2) + due


def ratio(value: float, digits: int) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.{digits}f}"


def expensive(rows: Rows) -> str:
    """The methods above the limit, the most expensive first."""
    most: dict[str, float] = {}
    for row in rows:
        most[row["intervention"]] = max(row["on_average"], most.get(row["intervention"], 0.0))
    names = sorted((name for name in most if most[name] > LIMIT), key=lambda name: -most[name])
    text = f"Above {LIMIT} with at least one learner, the most expensive first: {', '.join(f'`{n}`' for n in names)}."
    return textwrap.fill(text, 120, break_on_hyphens=False)


TABLES: Mapping[str, Callable[[Rows], list[str]]] = {
    "agents": agents,
    "lanes": lanes,
    "overhead": overhead,
    "convolution": convolution,
    "monitors": monitors,
    "streams": streams,
    "interventions": interventions,
}


def kept() -> dict[str, Any]:
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}


def keep(paths: Iterable[str]) -> None:
    """Keep the rows of these reports, each with its machine, in place of earlier ones of the same benchmark."""
    found = kept()
    for path in paths:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        if report["quick"]:
            raise SystemExit(f"{path}: measured with --quick")
        for name, rows in report["benchmarks"].items():
            found[name] = {"machine": report["machine"], "rows": [shortened(row) for row in rows]}
    KEPT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def shortened(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in row.items()}


def block(name: str, found: Mapping[str, Any]) -> str:
    """The table of a benchmark, with a line on its machine."""
    facts = found["machine"]
    about = f"{facts['cpus']} CPU cores, JAX {facts['jax']}, Python {facts['python']}:"
    return "\n".join([about, "", *TABLES[name](found["rows"])]).rstrip()


def page(written: str, found: Mapping[str, Any]) -> str:
    """The page with the tables of everything that is kept."""
    for name, each in found.items():
        begin, end = f"<!-- Made by `python docs/make_pages.py speed FILE`: {name} -->", f"<!-- end of {name} -->"
        before, opened, rest = written.partition(begin)
        _, closed, after = rest.partition(end)
        if closed:
            written = f"{before}{begin}\n\n{block(name, each)}\n\n{end}{after}"
        elif opened:
            raise ValueError(f"{end} is missing")
    return written


def main(*paths: str) -> None:
    """Keep the reports, if any are given, and write the tables of all that is kept."""
    if paths:
        keep(paths)
    for name in PAGES:
        path = DOCS / name
        path.write_text(page(path.read_text(encoding="utf-8"), kept()), encoding="utf-8")
