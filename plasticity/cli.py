"""The command line: ``plasticity run``, ``plan``, ``list``, ``plot``, ``measure``, ``bench``."""

import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from plasticity.errors import UserError, unknown

app = typer.Typer(
    help="A testbed for loss of plasticity and continual reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(soft_wrap=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False)

Config = Annotated[Path, typer.Argument(help="the experiment's YAML file", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="settings to change: agent.optimizer.learning_rate=1e-3", metavar="[KEY=VALUE]..."),
]
LISTED = ("agents", "streams", "transforms", "interventions", "monitors", "networks", "optimizers", "configs")
Out = Annotated[Path | None, typer.Option(help="folder of the run; default runs/NAME")]


@app.command()
def run(
    config: Config,
    overrides: Overrides = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoints")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier run in the folder")] = False,
) -> None:
    """Run an experiment: all arms, seeds and sweep points; then draw its figures."""
    from plasticity.progress import TerminalProgress
    from plasticity.session import Interrupted

    launch = _launch()
    experiment = launch.load_config(config, overrides or [])
    folder = out or Path("runs") / experiment.name
    try:
        with TerminalProgress(console) as progress:
            launch.run(experiment, folder, resume=resume, force=force, progress=progress)
    except Interrupted as stopped:
        command = ["plasticity", "run", str(config), *(overrides or []), "--out", str(folder), "--resume"]
        errors.print(Text(f"{stopped}: saved; go on with\n  {shlex.join(command)}"))
        raise typer.Exit(128 + stopped.number) from None
    _show(folder)


def _launch() -> Any:
    """:mod:`plasticity.launch`, imported when it is needed; says which plug-ins cannot be used."""
    from plasticity import launch

    for line in launch.broken_plugins():
        errors.print(Text(line))
    return launch


def _show(folder: Path) -> None:
    """The summary table and the figures of a run."""
    from plasticity import plots, results

    results.print_summary(folder, console)
    written = plots.save_all([folder], folder / "figures")
    console.print(Text(f"figures: {folder / 'figures'} ({', '.join(path.name for path in written)})"))


@app.command()
def plan(config: Config, overrides: Overrides = None) -> None:
    """Show what a run would do: programs, lanes, steps and memory. Runs nothing."""
    launch = _launch()
    planned = launch.plan(launch.load_config(config, overrides or []))
    console.print(_plan_table(planned))
    for line in _plan_lines(planned):
        console.print(Text(line))
    try:
        launch.check_memory(planned)
    except UserError as error:  # a plan for another machine is a good plan
        console.print(Text(f"It does not fit this machine: {error}"))


def _plan_table(planned: Any) -> Table:
    from plasticity.memory import readable

    table = Table(title=planned.experiment.name, title_justify="left")
    columns = ("arm", "program", "lanes", "placement", "state", "with workspace")
    for name in columns:
        table.add_column(name, justify="left" if name == "arm" else "right")
    for job, need in zip(planned.jobs, planned.memory, strict=True):
        shape = "{} x {} x {}".format(*job.placement)
        lanes = str(len(job.program.seeds))
        table.add_row(job.arm, str(job.number), lanes, shape, readable(need.state), readable(need.total))
    return table


def _plan_lines(planned: Any) -> list[str]:
    from plasticity.launch import devices
    from plasticity.memory import capacity, readable

    spec = planned.spec
    steps = sum(visit.steps for visit in spec.visits)
    lanes = sum(len(job.program.seeds) for job in planned.jobs)
    widest = max(job.placement.devices for job in planned.jobs)
    frames = steps * spec.envs * spec.frames_per_step
    kind = devices()[0].device_kind
    order = " in an order of each seed's own" if spec.shuffled else ""
    told = [name for name, arm in planned.experiment.arms.items() if arm.told]
    return [
        f"{len(spec.visits)} visits to {len(spec.tasks)} tasks{order}; each lane: {steps:,} steps of {spec.envs} envs, "
        f"{frames:,} frames",
        "placement: devices x sequential groups x lanes in one vmap; memory: on each device, the workspace an estimate",
        f"{lanes} lanes, {steps * lanes:,} lane steps in all; arms run one after another",
        f"told of task switches: {', '.join(told) or 'no arm'}",
        f"{len(devices())} devices ({kind}), {readable(capacity(devices()[0], widest))} each",
    ]


@app.command(name="list")
def list_members(
    family: Annotated[str | None, typer.Argument(help=f"{', '.join(LISTED)}; default: all")] = None,
    name: Annotated[str | None, typer.Argument(help="one of them, with its settings")] = None,
) -> None:
    """List all members, those of a family, or the settings of one; what an installed package adds says so."""
    if family is None:
        for each in LISTED:
            if each != "configs":
                console.print(_family_table(_launch().registry(), each))
        return
    if family not in LISTED:
        raise UserError(unknown(f"family `{family}`", family, LISTED))
    if family == "configs":
        for path in sorted(Path("configs").rglob("*.yaml")):
            console.print(Text(f"{path}  {_first_comment(path)}"))
        return
    registry = _launch().registry()
    if name is None:
        console.print(_family_table(registry, family))
    else:
        _print_member(registry, family, name)


def _first_comment(path: Path) -> str:
    line = path.read_text().partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def _first_line(factory: Callable[..., Any]) -> str:
    return (factory.__doc__ or "").strip().partition("\n")[0]


def _flowing(text: str) -> str:
    """A docstring whose paragraphs are one line each, for the terminal to break; indented ones stay as they are."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(each if "\n " in each else " ".join(each.split("\n")) for each in paragraphs)


def _family_table(registry: Any, family: str) -> Table:
    table = Table(title=family, title_justify="left", show_header=False, box=None)
    for name in registry.names(family):
        table.add_row(name, Text(_first_line(registry.factory(family, name))), Text(_from(registry, family, name)))
    return table


def _from(registry: Any, family: str, name: str) -> str:
    """Nothing for a built-in member, else the package that offers it."""
    from plasticity.registry import BUILT_IN

    origin = registry.origin(family, name)
    return "" if origin == BUILT_IN else f"[{origin}]"


def _print_member(registry: Any, family: str, name: str) -> None:
    import inspect

    factory, card = registry.factory(family, name), registry.card(family, name)
    console.print(Text(f"{name}: {_flowing(inspect.getdoc(factory) or '')}"))
    table = Table(show_edge=False)
    for heading in ("setting", "allowed", "default", "kind"):
        table.add_column(heading)
    for row in registry.rows(family, name):
        table.add_row(*(Text(str(cell)) for cell in row))
    console.print(table)
    facts = {
        "from": _from(registry, family, name).strip("[]"),
        "paper": card.paper,
        "note": card.note,
        "task switches": "seen" if card.sees_switches else "",
    }
    for what, fact in facts.items():
        if fact:
            console.print(Text(f"{what}: {fact}"))


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="folder for the figures; default RUN/figures")] = None,
) -> None:
    """Draw the figures of one run, or of several together, and print the summary."""
    from plasticity import plots, results

    for folder in runs:
        try:
            results.plan(folder)
        except ValueError as error:
            raise UserError(str(error)) from None
    for path in plots.save_all(list(runs), out or runs[0] / "figures"):
        console.print(Text(str(path)))
    for folder in runs:
        results.print_summary(folder, console)


@app.command()
def measure(
    folder: Annotated[Path, typer.Argument(help="folder of a run, finished or not", metavar="RUN")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="settings of a monitor: monitors.srank.delta=0.05", metavar="[KEY=VALUE]..."),
    ] = None,
    monitors: Annotated[str, typer.Option(help="which ones, by name", metavar="NAME[,NAME...]")] = "",
    out: Annotated[Path | None, typer.Option(help="the table's file; default RUN/measured.parquet")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier table")] = False,
) -> None:
    """Measure a run afterwards: monitors, on the checkpoints that it left (the last two of each program)."""
    from plasticity import measure as measuring
    from plasticity import record

    path = out or folder / "measured.parquet"
    if path.exists() and not force:
        raise UserError(f"{path} exists; replace it with --force, or choose another --out")
    if out is not None and not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    names = [name.strip() for name in monitors.split(",") if name.strip()]
    _launch()
    found = list(measuring.measure(folder, names, settings or (), say=lambda line: errors.print(Text(line))))
    try:
        record.write_tables(path, [each.table for each in found])
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    _print_measured(found)
    console.print(Text(f"measured: {path}"))


def _print_measured(found: list[Any], most: int = 40) -> None:
    """Each monitor's headline number for each lane and checkpoint; a long table is cut."""
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


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="agents, interventions, lanes, convolution, monitors, loop; default: all", metavar="[NAME]..."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="also write the numbers to this file")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="small and rough: shows that it works")] = False,
) -> None:
    """Measure speed on this machine: agents, interventions, placements of lanes, convolutions, monitors, the loop."""
    from plasticity import bench as benchmarks

    report = benchmarks.run(names or (), quick=quick, say=lambda line: errors.print(Text(line)))
    if json is not None:
        benchmarks.write(report, json)
    benchmarks.show(report, console)


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """What a user may want to know, in a line without a place in our code."""
    if issubclass(category, UserWarning):
        errors.print(Text(f"warning: {message}"))
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


def main() -> None:
    """Runs the command line; a user's mistake is told in a line or three, with exit code 2."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            app()
    except UserError as error:
        for line in str(error).splitlines():
            errors.print(Text(line))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
