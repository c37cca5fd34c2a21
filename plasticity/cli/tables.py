"""Tables that the command line prints besides summaries: members and their settings, plans, measurements."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from plasticity.config import docstrings
from plasticity.config.registry import BUILT_IN


def plan_table(planned: Any) -> Table:
    from plasticity.engine.memory import readable

    table = Table(title=planned.experiment.name, title_justify="left")
    columns = ("arm", "program", "lanes", "placement", "state", "with workspace")
    for name in columns:
        table.add_column(name, justify="left" if name == "arm" else "right")
    for job, need in zip(planned.jobs, planned.memory, strict=True):
        shape = "{} x {} x {}".format(*job.placement)
        lanes = str(len(job.program.seeds))
        table.add_row(job.arm, str(job.number), lanes, shape, readable(need.state), readable(need.total))
    return table


def plural(number: int, what: str) -> str:
    """``1 lane``, ``2,000 lanes``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def plan_lines(planned: Any) -> list[str]:
    from plasticity.engine.memory import capacity, readable
    from plasticity.runs.launch import devices

    spec = planned.spec
    steps = sum(visit.steps for visit in spec.visits)
    lanes = sum(len(job.program.seeds) for job in planned.jobs)
    widest = max(job.placement.devices for job in planned.jobs)
    frames = steps * spec.envs * spec.frames_per_step
    kind = devices()[0].device_kind
    order = " in a different order for each seed" if spec.shuffled else ""
    aware = [name for name, arm in planned.experiment.arms.items() if arm.task_aware]
    place = plural(len(devices()), "device")
    return [
        f"{plural(len(spec.visits), 'visit')} to {plural(len(spec.tasks), 'task')}{order}; each lane: "
        f"{plural(steps, 'step')} of {plural(spec.envs, 'env')}, {plural(frames, 'frame')}",
        "placement: devices x sequential groups x lanes in one vmap; memory: per device; the workspace is an estimate",
        f"{plural(lanes, 'lane')}, {plural(steps * lanes, 'lane step')} in total; arms run one after another",
        f"task-aware arms: {', '.join(aware) or 'none'}",
        f"{place} ({kind}), {readable(capacity(devices()[0], widest))} each",
    ]


def shard_lines(experiment: Any, split: str) -> list[str]:
    """How many shards a run is cut into, and their lanes."""
    from plasticity.config.experiments import programs
    from plasticity.runs.shards import cut, parse

    lanes = [shard.lanes for shard in cut(programs(experiment), parse(split))]
    each = plural(lanes[0], "lane") if min(lanes) == max(lanes) else f"{min(lanes)} to {plural(max(lanes), 'lane')}"
    return [f"{plural(len(lanes), 'shard')} of {each}; run each with --split {split} --shard I/{len(lanes)}"]


def family_table(registry: Any, family: str) -> Table:
    table = Table(title=family, title_justify="left", show_header=False, box=None)
    for name in registry.names(family):
        table.add_row(
            name, Text(docstrings.first_line(registry.factory(family, name))), Text(_from(registry, family, name))
        )
    return table


def two_columns(title: str, rows: Mapping[str, str]) -> Table:
    """Names and what they are, in the layout of :func:`family_table`."""
    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for name, text in rows.items():
        table.add_row(name, Text(text))
    return table


def _from(registry: Any, family: str, name: str) -> str:
    """The package that provides a member; empty for a built-in one."""
    origin = registry.origin(family, name)
    return "" if origin == BUILT_IN else f"[{origin}]"


def example_line(family: str, name: str, metadata: Any) -> str:
    """The example of a stream or a transform in config syntax; empty if there is none."""
    from plasticity.config.documents import on_one_line

    member = {"kind": name, **metadata.example}
    whole = {"streams": {"stream": member}, "transforms": {"transforms": [member]}}.get(family)
    return on_one_line(whole)[1:-1] if whole and metadata.example else ""


def _sees_switches(factory: Callable[..., Any]) -> bool:
    from plasticity.interventions.hooks import sees_switches  # imports JAX

    return sees_switches(factory)


def print_member(registry: Any, family: str, name: str, console: Console) -> None:
    factory, metadata = registry.factory(family, name), registry.metadata(family, name)
    rows = registry.rows(family, name)
    text = docstrings.plain(factory.__doc__ or "", {row.name for row in rows}, console.width)
    console.print(Text(f"{name}: {text}"))
    table = Table(show_edge=False)
    for heading in ("setting", "allowed", "default", "kind"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    if rows:
        console.print(table)
    facts = {
        "from": _from(registry, family, name).strip("[]"),
        "paper": metadata.paper,
        "note": metadata.note,
        "task switches": "seen" if family == "interventions" and _sees_switches(factory) else "",
        "example": example_line(family, name, metadata),
    }
    for what, fact in facts.items():
        if fact:
            console.print(Text(f"{what}: {fact}"))


def print_measured(found: list[Any], console: Console, most: int = 40) -> None:
    """Print each monitor's headline number for each lane and checkpoint; a long table is truncated."""
    rows = [row for each in found for row in each.table.to_pylist()]
    named = ["arm", "lane", "seed", "step"]
    table = Table(show_edge=False)
    for name in named:
        table.add_column(name, justify="left" if name == "arm" else "right", overflow="fold")
    metrics = list(dict.fromkeys(name for each in found for name in each.metrics if "/" not in name))
    for name in metrics:
        table.add_column(name, justify="right", overflow="fold")
    for row in rows[:most]:
        numbers = [row.get(name) for name in metrics]
        table.add_row(*(str(row[name]) for name in named), *("" if x is None else f"{x:.4g}" for x in numbers))
    console.print(table)
    if len(rows) > most:
        console.print(Text(f"the first {most} of {len(rows)} rows"))
