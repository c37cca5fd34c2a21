"""``plasticity run`` and ``plasticity plan``: from a config to a finished run."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from plasticity.cli import completion, tables
from plasticity.cli.terminal import console, errors, say_broken
from plasticity.core.errors import StorageError

if TYPE_CHECKING:
    from plasticity.config.experiments import Experiment

Config = Annotated[
    Path,
    typer.Argument(
        help="the experiment's YAML file, or a name of `plasticity list configs`",
        metavar="CONFIG",
        autocompletion=completion.config,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="settings to change: agent.optimizer.learning_rate=1e-3", metavar="[KEY=VALUE]..."),
]
Out = Annotated[Path | None, typer.Option(help="folder of the run; default runs/NAME")]
Split = Annotated[
    str | None, typer.Option(help="cut the run into shards: arms, points, seeds=N (N seeds each), jobs=N (N shards)")
]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="run only shard I of N, or what is left of it")]

CALIBRATION_SECONDS = 3.0


def run(
    config: Config,
    overrides: Overrides = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in the folder, or start it")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier run in the folder")] = False,
    draw: Annotated[bool, typer.Option("--figures/--no-figures", help="draw the figures at the end")] = True,
    split: Split = None,
    shard: Shard = None,
) -> None:
    """Run an experiment (all arms, seeds and sweep points), then draw its figures."""
    from plasticity.runs import launch

    experiment = launch.load_config(config, overrides or [])
    say_broken()
    folder = out or Path("runs") / experiment.name
    resuming = again(["run", str(config), *(overrides or [])], folder, shard)
    carry_out(experiment, folder, resuming, split=split, shard=shard, resume=resume, force=force, draw=draw)


def carry_out(
    experiment: "Experiment",
    folder: Path,
    resuming: str,
    *,
    split: str | None = None,
    shard: str | None = None,
    resume: bool,
    force: bool,
    draw: bool,
) -> None:
    """Run an experiment with a progress display, then show its results. ``resuming``: the command that resumes it."""
    from plasticity.cli.progress import TerminalProgress
    from plasticity.core.errors import Interrupted
    from plasticity.runs import launch
    from plasticity.runs.accounts import phase_of

    try:
        with TerminalProgress(console) as progress:
            launch.run(experiment, folder, split=split, shard=shard, resume=resume, force=force, progress=progress)
    except Interrupted as stopped:
        errors.print(Text(f"{stopped}: saved; continue with\n  {resuming}"))
        raise typer.Exit(128 + stopped.number) from None
    except StorageError as failed:
        reason = "; ".join(str(failed).splitlines())
        errors.print(Text(f"{reason}\nsaved data are kept; continue with\n  {resuming}"))
        raise typer.Exit(failed.code) from None
    if shard is None and phase_of(folder) == folder:  # else tuning runs are left to other processes
        _show(folder, draw)


def again(words: Sequence[str], folder: Path, shard: str | None) -> str:
    """The command that resumes what ``plasticity WORDS`` began in a folder, or a shard of it."""
    only = ["--resume"] if shard is None else ["--shard", shard]
    return shlex.join(["plasticity", *words, "--out", str(folder), *only])


def _show(folder: Path, draw: bool) -> None:
    """Print the summary table of a run and, if ``draw`` is set, save its figures."""
    from plasticity import plots, results
    from plasticity.runs.accounts import probe_folders

    results.print_summary(folder, console)
    for probe in probe_folders(folder):
        console.print(Text(f"probe {probe.name}:"))
        results.print_summary(probe, console)
    if not draw:
        return
    written = plots.save_all([folder], folder / "figures")
    console.print(Text(f"figures: {folder / 'figures'} ({', '.join(path.name for path in written)})"))


def merge(
    folder: Annotated[Path, typer.Argument(help="folder of a run, or a new one", metavar="RUN")],
    others: Annotated[list[Path], typer.Argument(help="folders with shards of the same run", metavar="OTHER...")],
) -> None:
    """Copy shards of a run from other folders, such as those of machines that share no file system."""
    from plasticity.runs.merging import merge as merge_folders

    count = merge_folders(folder, others, lambda line: console.print(Text(line)))
    console.print(Text(f"{folder}: {tables.plural(count, 'shard')} copied"))


def plan(
    config: Config,
    overrides: Overrides = None,
    out: Out = None,
    split: Split = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="time every program for a few seconds first")] = False,
) -> None:
    """Show what a run would do (programs, lanes, steps, memory, time, disk) and what this machine lacks.

    It runs nothing, except that --calibrate runs a short piece of every program.
    """
    from plasticity.runs import launch

    experiment = launch.load_config(config, overrides or [])
    phases = launch.phases(experiment, out)
    for phase in phases:
        planned = launch.plan(phase.experiment)
        if calibrate:
            launch.calibrate(planned, CALIBRATION_SECONDS, lambda line: console.print(Text(line)))
        shards = tables.shard_lines(planned, split) if split else []
        # Planning for another machine is allowed.
        lines = [*tables.plan_lines(planned), *shards, *launch.obstacles(planned, phase.place)]
        if phase is phases[0]:
            say_broken()
        console.print(tables.plan_table(planned))
        for line in lines:
            console.print(Text(line))
    if phases[0].tuning:
        console.print(Text(launch.describe_tuning(experiment)))
