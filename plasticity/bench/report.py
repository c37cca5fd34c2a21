"""The list of benchmarks, and the output of their rows."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plasticity.bench import agents, convolution, interventions, monitors, placements, stream_rates
from plasticity.bench.overhead import comparison
from plasticity.core.cores import cores
from plasticity.core.errors import UserError, unknown
from plasticity.runs import launch
from plasticity.runs.files import write_text

Say = Callable[[str], None]
Rows = Sequence[Any]  # of one NamedTuple type


class Benchmark(NamedTuple):
    """A benchmark: ``measure(say, quick)`` returns rows; ``say`` receives progress messages."""

    title: str
    measure: Callable[[Say, bool], Rows]
    verdicts: Callable[[Any], list[str]] = lambda rows: []


class Result(NamedTuple):
    name: str
    rows: Rows
    verdicts: tuple[str, ...]


class Report(NamedTuple):
    machine: Mapping[str, Any]
    quick: bool
    results: tuple[Result, ...]


BENCHMARKS: Mapping[str, Benchmark] = {
    "agents": Benchmark("environment steps per second, environments included", agents.agents, agents.verdicts),
    "interventions": Benchmark(
        "time of an update, divided by that without", interventions.interventions, interventions.verdicts
    ),
    "lanes": Benchmark("updates per second by lanes and placement", placements.lanes, placements.verdicts),
    "convolution": Benchmark("gradient of a Nature network", convolution.convolution, convolution.verdicts),
    "monitors": Benchmark("one measurement of a monitor, for each lane", monitors.monitors, monitors.verdicts),
    "streams": Benchmark("steps per second, one lane", stream_rates.streams, stream_rates.verdicts),
    "overhead": Benchmark("agents compared with hand-written programs", comparison.overhead, comparison.verdicts),
}


def machine() -> dict[str, Any]:
    """Properties of the machine that the numbers depend on."""
    devices = launch.devices()
    return {
        "cpus": cores(),
        "processor": platform.processor() or platform.machine(),
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def run(
    names: Sequence[str] = (),
    *,
    quick: bool = False,
    say: Say = lambda line: None,
    keep: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Run the named benchmarks, or all; ``keep`` gets the report after each of them.

    ``UserError`` for an unknown name, before anything is measured.
    """
    for name in names:
        if name not in BENCHMARKS:
            raise UserError(unknown(f"benchmark `{name}`", name, BENCHMARKS))
    facts = machine()
    results = []
    for name in dict.fromkeys(names or BENCHMARKS):
        benchmark = BENCHMARKS[name]
        rows = benchmark.measure(say, quick)
        results.append(Result(name, rows, tuple(benchmark.verdicts(rows))))
        keep(Report(facts, quick, tuple(results)))
    return Report(facts, quick, tuple(results))


def as_json(report: Report) -> str:
    """The whole report; a row is an object with the fields of its type."""
    document = {
        "machine": report.machine,
        "quick": report.quick,
        "benchmarks": {result.name: [row._asdict() for row in result.rows] for result in report.results},
    }
    return json.dumps(document, indent=1, allow_nan=False)


def write(report: Report, path: Path) -> None:
    """Write the report as JSON. ``UserError`` if the file cannot be written."""
    try:
        write_text(path, as_json(report) + "\n")
    except OSError as error:
        raise UserError(f"--json: {path}: {error.strerror}") from None


def show(report: Report, console: Console) -> None:
    """Print a table and the verdicts of each benchmark."""
    console.print(Text(", ".join(f"{key} {value}" for key, value in report.machine.items())))
    for result in report.results:
        console.print(_table(result))
        for line in result.verdicts:
            console.print(Text(line))


def _table(result: Result) -> Table:
    table = Table(title=f"{result.name}: {BENCHMARKS[result.name].title}", title_justify="left")
    for number, name in enumerate(result.rows[0]._fields):
        table.add_column(name.replace("_", " "), justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in result.rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "*" if value else ""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return str(value)
