"""Write docs/interventions.md, monitors.md, streams.md and networks.md from the members' docstrings, results and
pictures; verification.md from their metadata; and the tables of speed.md and agents.md from benchmarks.

plasticity run configs/interventions.yaml
python docs/make_pages.py interventions runs/interventions
plasticity run configs/monitors.yaml
plasticity bench monitors --json monitors.json
python docs/make_pages.py monitors runs/monitors [monitors.json]
python docs/make_pages.py streams
python docs/make_pages.py networks
python docs/make_pages.py verification

plasticity run configs/targets/optimizers.yaml
python docs/make_pages.py optimizers runs/optimizers
plasticity run configs/targets/activations.yaml
python docs/make_pages.py activations runs/activations

The last two keep the results in one_stream.json, from which make_reference.py writes a table.

With ``--text`` instead of a run, a page keeps its numbers and pictures and only its docstrings are updated.

plasticity bench --json speed.json
python docs/make_pages.py speed speed.json
make gpu-check
python docs/make_pages.py gpu gpu.json
"""

import functools
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_page
import network_page
import speed_page
import stream_pictures
from page_heads import HEADS

from plasticity import plots, results
from plasticity.cli.tables import example_line
from plasticity.config.docstrings import markdown, unmarked
from plasticity.config.fields import Metadata
from plasticity.config.schema import schema_of
from plasticity.interventions.base import Intervention
from plasticity.interventions.hooks import reads_task, sees_switches
from plasticity.plots.methods import against_baseline
from plasticity.runs.launch import registry

DOCS = Path(__file__).resolve().parent
COSTS = DOCS / "monitor_costs.json"


def keep_costs(bench: Path) -> None:
    """What `plasticity bench monitors` measured, as the sections use it."""
    found = json.loads(bench.read_text(encoding="utf-8"))
    rows = [
        json.dumps([row["monitor"], row["learner"], row["lanes"], round(row["milliseconds"], 3)])
        for row in found["benchmarks"]["monitors"]
    ]
    machine, columns = json.dumps(found["machine"]), '["monitor", "learner", "lanes", "milliseconds for each lane"]'
    lines = ",\n  ".join(rows)
    COSTS.write_text(
        f'{{\n "machine": {machine},\n "columns": {columns},\n "rows": [\n  {lines}\n ]\n}}\n', encoding="utf-8"
    )


@functools.cache
def costs() -> dict[str, dict[str, float]]:
    """Monitor -> learner -> milliseconds of a measurement for each lane."""
    found: dict[str, dict[str, float]] = {}
    for monitor, learner, lanes, milliseconds in json.loads(COSTS.read_text(encoding="utf-8"))["rows"]:
        found.setdefault(monitor, {})[f"{learner}, {lanes} lanes"] = milliseconds
    return found


def cost(name: str, metadata: Metadata) -> str:
    """What a measurement takes, and how often it is made."""
    text = ", ".join(f"{milliseconds:.3g} ({learner})" for learner, milliseconds in costs().get(name, {}).items())
    period = metadata.period
    rank = {2: "second"}.get(period, f"{period}th")
    often = f" By default at every {rank} period of the others." if period > 1 else ""
    return f"Cost of a measurement in milliseconds for each lane: {text or 'not measured'}.{often}"


def told(factory: Callable[..., Intervention]) -> str:
    """What the method is told of tasks."""
    if reads_task(factory):
        return "Is told the task in every observation"
    if not sees_switches(factory):
        return "Does not see task switches"
    asked = any("switch" in setting.words for setting in schema_of(factory).values())
    return "Sees task switches where asked to" if asked else "Sees task switches"


def facts(family: str, name: str, metadata: Metadata) -> str:
    """What the member's metadata says, in sentences."""
    found = [f"Source: {metadata.paper}."] if metadata.paper else []
    found += [f"Note: {metadata.note}."] if metadata.note else []
    found += [f"Checked against: {metadata.checked}."] if metadata.checked else []
    if family == "interventions":
        factory = registry().factory(family, name)
        found.append(f"{told(factory)}.")
    found += [cost(name, metadata)] if family == "monitors" else []
    found += [network_page.parameters(name)] if family == "networks" else []
    if metadata.neutral is not None:
        settings = ", ".join(f"`{key}: {value}`" for key, value in metadata.neutral.items())
        found.append(f"Does nothing at {settings or 'its defaults'}.")
    return " ".join(found)


def config_line(family: str, name: str, metadata: Metadata) -> list[str]:
    """The metadata's example, as a config says it."""
    line = example_line(family, name, metadata)
    return ["```yaml", line, "```", ""] if line else []


def section(family: str, name: str) -> str:
    """One member: docstring, source, settings."""
    known = registry()
    rows = known.rows(family, name)
    text = markdown(known.factory(family, name).__doc__ or "", {row.name for row in rows})
    lines = [f"###{DEEPER.get(family, '')} {name}", "", text, ""]
    about = facts(family, name, known.metadata(family, name))
    lines += [about, ""] if about else []
    lines += config_line(family, name, known.metadata(family, name))
    if rows:
        lines += ["| setting | allowed | default | kind |", "|---|---|---|---|"]
        lines += [f"| `{row.name}` | {row.allowed} | `{row.default}` | {row.kind} |" for row in rows] + [""]
    return "\n".join(lines)


def picture(module: str) -> list[str]:
    """The picture of a module's members, where there is one."""
    module = module.removeprefix("plasticity.envs.")
    if module not in stream_pictures.PICTURES:
        return []
    caption = stream_pictures.PICTURES[module][1]
    return [f"![{caption}](figures/{stream_pictures.file_of(module)})\n\n{caption}.\n"]


def sections(family: str) -> str:
    """All built-in members, by the module that holds them."""
    known = registry()
    groups: dict[str, list[str]] = {}
    for name in known[family]:
        if known.origin(family, name) == "built in":
            groups.setdefault(known.factory(family, name).__module__, []).append(name)
    text = []
    for module, names in groups.items():
        title = (importlib.import_module(module).__doc__ or module).partition("\n")[0].partition(". ")[0].rstrip(".")
        text += [
            f"##{DEEPER.get(family, '')} {unmarked(title)}\n",
            *picture(module),
            *(section(family, n) for n in names),
        ]
    return "\n".join(text)


def of_interventions(run: Path) -> str:
    """Draws every arm against the baseline; gives first and last tenth and the paired gap to the fresh control."""
    keep_results("interventions", run)
    figure = against_baseline(results.visits(run), label="accuracy")
    plots.save(figure, DOCS / "figures" / "interventions.png")
    return arms_on_one_stream("interventions")


ONE_STREAM = DOCS / "one_stream.json"


def kept_results() -> dict[str, Any]:
    """By family of members: what each of them reached on one stream."""
    return json.loads(ONE_STREAM.read_text(encoding="utf-8")) if ONE_STREAM.exists() else {}


def keep_results(family: str, run: Path) -> None:
    """Keep what a run of the members of a family reached: the means of each arm, and its gap to the fresh control."""
    kept, rows = kept_results(), {}
    for row in results.summary(run).itertuples():
        gap = [round(x, 6) for x in (row.gap, row.gap_low, row.gap_high)] if row.arm != "fresh" else None
        rows[row.arm] = {"first": round(row.first, 6), "last": round(row.last, 6), "gap": gap}
    kept[family] = {
        "config": results.plan(run)["name"],
        "seeds": len(results.lanes(run)["seed"].unique()),
        "arms": rows,
    }
    ONE_STREAM.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def arms_on_one_stream(family: str) -> str:
    """The table of what was kept."""
    lines = ["| arm | first tenth | last tenth | gap to fresh [95 %] |", "|---|---|---|---|"]
    for arm, row in kept_results()[family]["arms"].items():
        gap = "{:+.3f} [{:.3f}, {:.3f}]".format(*row["gap"]) if row["gap"] else ""
        lines.append(f"| `{arm}` | {row['first']:.3f} | {row['last']:.3f} | {gap} |")
    return "\n".join(lines) + "\n\n"


def on_one_stream(family: str) -> str:
    """The section with what was kept; empty if nothing was."""
    found = kept_results().get(family)
    if found is None:
        return ""
    about = (
        f"`plasticity run configs/targets/{found['config']}.yaml`: the stream and the network of "
        "[the table of interventions](../interventions.md#what-each-does-on-one-stream), "
        f"{found['seeds']} seeds. Nothing was tuned; this compares defaults on one stream."
    )
    return f"## What each does on one stream\n\n{about}\n\n{arms_on_one_stream(family)}"


def of_monitors(run: Path) -> str:
    """Draws every monitor; gives its value at the first and the last measurement of the baseline."""
    metrics = results.load(run)
    plots.save(plots.monitors(metrics), DOCS / "figures" / "monitors.png")
    performance = results.visits(run)
    names = [name for name in plots.monitor_names(metrics) if name in registry()["monitors"]]
    columns = ("monitor", "first", "last, baseline", "last, layer_norm_decay", "with accuracy by visit")
    lines = [f"| {' | '.join(columns)} |", "|---|---|---|---|---|"]
    for name in names:
        seen = metrics.dropna(subset=name)
        first, last = (
            seen[seen.step == at].groupby("arm", observed=True)[name].mean()
            for at in (seen.step.min(), seen.step.max())
        )
        joined = seen.merge(performance, on=["arm", "lane", "visit"])
        joined = joined[joined.arm == "baseline"]
        varies = joined[name].nunique() > 1
        rank = f"{joined[name].corr(joined['performance'], method='spearman'):+.2f}" if varies else ""
        cells = [f"`{name}`", *(f"{x:.3g}" for x in (first["baseline"], last["baseline"], last["layer_norm_decay"]))]
        lines.append(f"| {' | '.join([*cells, rank])} |")
    note = "The last column: Spearman's correlation of the baseline's measurements with the accuracy of their visit."
    return "\n".join(lines) + f"\n\n{note}\n\n"


EVIDENCE: dict[str, Callable[[Path], str]] = {"interventions": of_interventions, "monitors": of_monitors}
FIRST_COLUMN = {"interventions": "arm", "monitors": "monitor", "networks": "intervention"}
CHECKED = ("interventions", "agents", "optimizers", "schedules", "replays", "activations")
BENCHMARKS: dict[str, Callable[..., None]] = {"gpu": gpu_page.main, "speed": speed_page.main}
SECTIONS = {family: f"reference/{family}.md" for family in CHECKED[2:]} | {"interventions": "interventions.md"}
DEEPER = {"transforms": "#"}  # their page is that of streams


def of_streams() -> str:
    """The template with the members' sections."""
    text = (DOCS / "streams.template.md").read_text(encoding="utf-8")
    for family in ("streams", "transforms"):
        text = text.replace(f"{{{{{family}}}}}", sections(family).rstrip("\n"))
    return text


def cell(family: str, name: str) -> str:
    """The member's name, with a link to its section if it has one."""
    page = SECTIONS.get(family)
    return f"[`{name}`]({page}#{name})" if page else f"`{name}`"


def of_verification() -> str:
    """A table for each family: member, source, and against what it is checked."""
    known, text = registry(), HEADS["verification"]
    for family in CHECKED:
        text += f"## {family.capitalize()}\n\n| member | source | checked against |\n|---|---|---|\n"
        for name in known[family]:
            if known.origin(family, name) == "built in":
                about = known.metadata(family, name)
                text += f"| {cell(family, name)} | {about.paper} | {about.checked} |\n"
        text += "\n"
    return text.rstrip("\n") + "\n"


def evidence(family: str, run: str = "", *bench: str) -> str:
    """What the run and the benchmark measured; of networks, what every intervention does on them."""
    if family == "networks":
        return network_page.table()
    for path in bench:
        keep_costs(Path(path))
    return EVIDENCE[family](Path(run))


def measured(family: str) -> str:
    """What the page holds of that now: everything between its head and its first section."""
    written = (DOCS / f"{family}.md").read_text(encoding="utf-8")
    start = written.index(f"| {FIRST_COLUMN[family]} |")
    return written[start : written.index("\n## ", start) + 1]


def main(family: str, *given: str) -> None:
    if family in BENCHMARKS:
        BENCHMARKS[family](*given)
        return
    if family in ("optimizers", "activations"):
        keep_results(family, Path(*given))
        return
    if family == "streams":
        if "--text" not in given:
            stream_pictures.draw()
        text = of_streams()
    elif family == "verification":
        text = of_verification()
    else:
        text = HEADS[family] + (measured(family) if "--text" in given else evidence(family, *given))
        text += sections(family) + "\n"
    (DOCS / f"{family}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
