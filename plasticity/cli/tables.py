"""Tables that the command line prints besides summaries: members and their settings, plans, measurements."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from plasticity.config import docstrings
from plasticity.config.registry import BUILT_IN


def plan_table(planned: Any) -> Table:
    from plasticity.engine.memory import readable
    from plasticity.runs import estimates

    table = Table(title=planned.experiment.name, title_justify="left")
    columns = ("arm", "program", "lanes", "placement", "state", "with workspace", "time")
    for name in columns:
        table.add_column(name, justify="left" if name == "arm" else "right")
    for job, need in zip(planned.jobs, planned.memory, strict=True):
        shape = "{} x {} x {}".format(*job.placement)
        seconds = estimates.seconds_of(job)
        lasts = "?" if seconds is None else duration(seconds)
        lanes = str(len(job.program.seeds))
        table.add_row(job.arm, str(job.number), lanes, shape, readable(need.state), readable(need.total), lasts)
    return table


def plural(number: int, what: str) -> str:
    """``1 lane``, ``2,000 lanes``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """``8 s``, ``3 min``, ``2 h 05 min``, ``3 d 4 h``; ``-`` if unknown."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def plan_lines(planned: Any) -> list[str]:
    from plasticity.engine.memory import capacity, readable
    from plasticity.runs import estimates
    from plasticity.runs.launch import devices

    disk = estimates.disk(planned)
    spec = planned.spec
    steps = sum(visit.steps for visit in spec.visits)
    lanes = sum(len(job.program.seeds) for job in planned.jobs)
    widest = max(job.placement.devices for job in planned.jobs)
    frames = steps * spec.envs * spec.frames_per_step
    kind = devices()[0].device_kind
    order = " in a different order for each seed" if spec.shuffled else ""
    aware = [name for name, arm in planned.experiment.arms.items() if arm.task_aware]
    readers = planned.readers_of_task
    reading = f"; told which task it is: {', '.join(readers)}" if readers else ""
    place = plural(len(devices()), "device")
    return [
        f"{plural(len(spec.visits), 'visit')} to {plural(len(spec.tasks), 'task')}{order}; each lane: "
        f"{plural(steps, 'step')} of {plural(spec.envs, 'env')}, {plural(frames, 'frame')}",
        "placement: devices x sequential groups x lanes in one vmap; memory: per device; the workspace is an estimate",
        f"{plural(lanes, 'lane')}, {plural(steps * lanes, 'lane step')} in total; arms run one after another",
        f"task-aware arms: {', '.join(aware) or 'none'}{reading}",
        *_reference_line(planned),
        f"{place} ({kind}), {readable(capacity(devices()[0], widest))} each",
        _time_line(planned),
        f"disk: {readable(disk.tables)} of tables (an estimate), {readable(disk.checkpoints)} of checkpoints",
    ]


def _reference_line(planned: Any) -> list[str]:
    from plasticity.config.experiments import FRESH, controls

    arms = planned.experiment.arms
    if not planned.experiment.reference or FRESH not in arms:
        return []
    served = [name for name, control in controls(arms).items() if control == FRESH]
    return [f"reference: arm {FRESH}, trained once from scratch in every visit, for {', '.join(served) or 'no arm'}"]


def _time_line(planned: Any) -> str:
    from plasticity.runs import estimates

    seconds = [estimates.seconds_of(job) for job in planned.jobs]
    total = estimates.total(seconds)
    if total is None:
        unknown = sum(each is None for each in seconds)
        return f"time: {unknown} of {plural(len(seconds), 'program')} not timed on this machine yet; see --calibrate"
    start = sum(map(estimates.start_of, planned.jobs))
    return f"time: about {duration(total)}, {duration(start)} of it for compiling, as timed on this machine before"


def shard_lines(planned: Any, split: str) -> list[str]:
    """How many shards a run is cut into, their lanes, and the time of the longest."""
    from plasticity.config.programs import programs
    from plasticity.runs import estimates
    from plasticity.runs.shards import cut, parse

    asked = parse(split)
    chosen = estimates.within_hours(planned, asked) if asked.hours else asked
    shards = cut(programs(planned.experiment), chosen)
    lanes, seconds = [shard.lanes for shard in shards], estimates.longest(planned, shards)
    each = plural(lanes[0], "lane") if min(lanes) == max(lanes) else f"{min(lanes)} to {plural(max(lanes), 'lane')}"
    lasting = f", of at most about {duration(seconds)}" if seconds else ""
    return [f"{plural(len(lanes), 'shard')} of {each}{lasting}; run each with --split {chosen} --shard I/{len(lanes)}"]


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


def _reads_task(factory: Callable[..., Any]) -> bool:
    from plasticity.interventions.hooks import reads_task  # imports JAX

    return reads_task(factory)


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
        "checked": metadata.checked,
        "task switches": "seen" if family == "interventions" and _sees_switches(factory) else "",
        "task": "read; needs `task_aware: true`" if family == "interventions" and _reads_task(factory) else "",
        "example": example_line(family, name, metadata),
    }
    for what, fact in facts.items():
        if fact:
            console.print(Text(f"{what}: {fact}"))


def print_rows(heading: str, rows: list[tuple[str, Mapping[str, float]]], console: Console, most: int = 40) -> None:
    """Print the headline numbers of named rows; a long table is truncated."""
    table = Table(show_edge=False)
    table.add_column(heading, overflow="fold")
    metrics = list(dict.fromkeys(name for _, each in rows for name in each if "/" not in name))
    for name in metrics:
        table.add_column(name, justify="right", overflow="fold")
    for name, numbers in rows[:most]:
        found = [numbers.get(each, math.nan) for each in metrics]
        table.add_row(Text(name), *(f"{x:.4g}" if math.isfinite(x) else "" for x in found))
    console.print(table)
    if len(rows) > most:
        console.print(Text(f"the first {most} of {len(rows)} rows"))


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
