"""The command line: ``plasticity run``, ``watch``, ``plot`` and the others that ``plasticity --help`` lists."""

import _thread
import re
import shlex
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand

from plasticity.cli import tables
from plasticity.cli.display import never_fail
from plasticity.core.errors import LINE, StorageError, UserError, cut, printable, shown, unknown, why
from plasticity.version import __version__

app = typer.Typer(
    help="A testbed for loss of plasticity and continual reinforcement learning.",
    epilog="Exit codes: 0 done; 2 a mistake in what was asked for; 74 a file could not be written or read; "
    "128 + N stopped by signal N.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        console.print(Text(f"plasticity {__version__}"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """What goes before a command."""
    del version


console = Console(soft_wrap=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False)

Config = Annotated[
    Path, typer.Argument(help="the experiment's YAML file, or a name of `plasticity list configs`", metavar="CONFIG")
]
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
    resume: Annotated[bool, typer.Option("--resume", help="bring the run to its end: go on, or begin")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier run in the folder")] = False,
    draw: Annotated[bool, typer.Option("--figures/--no-figures", help="draw the figures at the end")] = True,
) -> None:
    """Run an experiment: all arms, seeds and sweep points; then draw its figures."""
    from plasticity.cli.progress import TerminalProgress
    from plasticity.runs import launch
    from plasticity.runs.session import Interrupted

    experiment = launch.load_config(config, overrides or [])
    _say_broken()
    folder = out or Path("runs") / experiment.name
    try:
        with TerminalProgress(console) as progress:
            launch.run(experiment, folder, resume=resume, force=force, progress=progress)
    except Interrupted as stopped:
        errors.print(Text(f"{stopped}: saved; go on with\n  {_again(config, overrides, folder)}"))
        raise typer.Exit(128 + stopped.number) from None
    except StorageError as failed:
        told = "; ".join(str(failed).splitlines())
        errors.print(Text(f"{told}\nwhat was saved is kept; go on with\n  {_again(config, overrides, folder)}"))
        raise typer.Exit(failed.code) from None
    _show(folder, draw)


def _again(config: Path, overrides: list[str] | None, folder: Path) -> str:
    """The command that goes on with a run."""
    return shlex.join(["plasticity", "run", str(config), *(overrides or []), "--out", str(folder), "--resume"])


def _say_broken() -> None:
    """Which plug-ins cannot be used, in one line; said once a command is not refused, as a refusal says its own."""
    from plasticity.runs import launch

    lines = launch.broken_plugins()
    if lines:
        more = f" (and {len(lines) - 1} more; `plasticity list` names each)" if len(lines) > 1 else ""
        errors.print(Text(f"{lines[0]}{more}"))


def _show(folder: Path, draw: bool) -> None:
    """The summary table and, if asked for, the figures of a run."""
    from plasticity import plots, results

    results.print_summary(folder, console)
    if not draw:
        return
    written = plots.save_all([folder], folder / "figures")
    console.print(Text(f"figures: {folder / 'figures'} ({', '.join(path.name for path in written)})"))


@app.command()
def plan(config: Config, overrides: Overrides = None, out: Out = None) -> None:
    """Show what a run would do: programs, lanes, steps, memory, and what this machine lacks for it. Runs nothing."""
    from plasticity.runs import launch

    planned = launch.plan(launch.load_config(config, overrides or []))
    lines = [*tables.plan_lines(planned), *launch.obstacles(planned, out)]  # a plan for another machine is good
    _say_broken()
    console.print(tables.plan_table(planned))
    for line in lines:
        console.print(Text(line))


@app.command(name="list")
def list_members(
    family: Annotated[str | None, typer.Argument(help=f"{', '.join(LISTED)}; default: all")] = None,
    name: Annotated[str | None, typer.Argument(help="one of them, with its settings")] = None,
) -> None:
    """List all members, those of a family, or the settings of one; what an installed package adds says so."""
    from plasticity.runs import launch

    if family is None:
        for line in launch.broken_plugins():
            errors.print(Text(line))
        for each in LISTED:
            if each != "configs":
                console.print(tables.family_table(launch.registry(), each))
        return
    if family not in LISTED:
        raise UserError(unknown(f"family `{family}`", family, LISTED))
    if family == "configs":
        from plasticity.config import shipped

        if name is not None:
            raise UserError(
                f"list configs takes no name, got {shown(name)}; a config is shown by: plasticity plan NAME"
            )
        for config, path in shipped.configs().items():
            console.print(Text(f"{config}  {_first_comment(path)}"))
        return
    if name is None:
        _say_broken()
        console.print(tables.family_table(launch.registry(), family))
    else:
        tables.print_member(launch.registry(), family, name, console)


def _first_comment(path: Path) -> str:
    line = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def _check_run(folder: Path) -> None:
    """``UserError`` where the folder is no run."""
    from plasticity import results

    try:
        results.plan(folder)
    except ValueError as error:
        raise UserError(str(error)) from None


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="folder of a run, under way or not", metavar="RUN")],
    once: Annotated[bool, typer.Option("--once", help="print what there is now, and return")] = False,
    every: Annotated[float, typer.Option(help="seconds between two looks", min=0.1)] = 1.0,
) -> None:
    """Look on while an experiment runs, from anywhere that sees its folder; ends with the run, or with Ctrl-C."""
    from plasticity.cli import watch as watching

    try:
        watching.watch(folder, console, once=once, every=every)
    except ValueError as error:
        raise UserError(str(error)) from None


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="folder of a run", metavar="RUN_A")],
    b: Annotated[Path, typer.Argument(help="folder of another", metavar="RUN_B")],
) -> None:
    """Tell two runs apart: config, versions, arms, results; where configs are equal, whether every number is."""
    from plasticity import results

    try:
        results.print_comparison(a, b, console)
    except ValueError as error:
        raise UserError(str(error)) from None


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="folder for the figures; default RUN/figures")] = None,
    figures: Annotated[str, typer.Option(help="which figures; default all", metavar="NAME[,NAME...]")] = "",
    arms: Annotated[str, typer.Option(help="which arms, in this order", metavar="ARM[,ARM...]")] = "",
    label: Annotated[
        list[str] | None, typer.Option(help="an arm's name in the figures; may be repeated", metavar="ARM=NAME")
    ] = None,
    size: Annotated[
        str,
        typer.Option(help="of a figure, in inches; panels or a long legend may add height", metavar="WIDTHxHEIGHT"),
    ] = "",
    smooth: Annotated[int, typer.Option(help="curves as running means over so many records", metavar="N")] = 1,
) -> None:
    """Draw the figures of one run, or of several together, and print the summary."""
    from plasticity import plots, results
    from plasticity.cli import plotting

    for folder in runs:
        _check_run(folder)
    options, names = plotting.options(arms, label or [], size, smooth), plotting.listed("figures", figures)
    for path in plots.save_all(list(runs), out or runs[0] / "figures", options=options, names=names):
        console.print(Text(str(path)))
    for folder in runs:
        results.print_summary(folder, console)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs, finished or not", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="the file; default RUN/report.html", metavar="FILE.html")] = None,
) -> None:
    """Write one HTML page about one run or several: summary in words, figures to look into, how it was made."""
    from plasticity import report as reporting

    try:
        path = reporting.save(runs, out)
    except ValueError as error:
        raise UserError(str(error)) from None
    except OSError as error:
        raise UserError(f"{out or runs[0]}: cannot be written: {error.strerror}") from None
    console.print(Text(f"report: {path}"))


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
    from plasticity.runs import measure as measuring
    from plasticity.runs import parquet

    path = out or folder / "measured.parquet"
    if path.exists() and not force:
        raise UserError(f"{path} exists; replace it with --force, or choose another --out")
    if out is not None and not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    names = [name.strip() for name in monitors.split(",") if name.strip()]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--monitors: {shown(name)} is given twice")
    found = list(measuring.measure(folder, names, settings or (), say=lambda line: errors.print(Text(line))))
    _say_broken()
    try:
        parquet.write_tables(path, [each.table for each in found])
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    tables.print_measured(found, console)
    console.print(Text(f"measured: {path}"))


class _NamesBenchmarks(TyperCommand):
    """Its help ends with the benchmarks that there are; they are imported, with JAX, only for that."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from plasticity.bench import BENCHMARKS

        self.epilog = "\n\n".join(["Benchmarks:", *(f"{name}: {each.title}" for name, each in BENCHMARKS.items())])
        super().format_help(ctx, formatter)


@app.command(cls=_NamesBenchmarks)
def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="see the list below; default: all", metavar="[NAME]...")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="also write the numbers to this file")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="small and rough: shows that it works")] = False,
) -> None:
    """Measure speed on this machine."""
    from plasticity import bench as benchmarks

    report = benchmarks.run(names or (), quick=quick, say=lambda line: errors.print(Text(line)))
    if json is not None:
        benchmarks.write(report, json)
    benchmarks.show(report, console)


@app.command()
def findings(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="names, ids (F5) or files of findings; default: all", metavar="[NAME]..."),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder of the runs")] = Path("runs/findings"),
    full: Annotated[bool, typer.Option("--full", help="at the published size, for a GPU")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="show what would run; run nothing")] = False,
    listed: Annotated[bool, typer.Option("--list", help="print what is there; run nothing")] = False,
    force: Annotated[bool, typer.Option("--force", help="run anew what has run")] = False,
) -> None:
    """Run published findings again, one after another, and judge each by the criterion in its file."""
    from plasticity.cli import findings as command

    chosen = command.chosen(names or ())
    if plan:
        _say_broken()
        for planned in command.plans(chosen, full):
            console.print(tables.plan_table(planned))
            for line in tables.plan_lines(planned):
                console.print(Text(line))
    elif listed:
        command.print_table(chosen, out, full, console)
    else:
        _say_broken()
        code = command.run(chosen, out, full, force, console, errors)
        if code:
            raise typer.Exit(code)


COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # with which some libraries write their warnings


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """What a user may want to know, in a line without a place in our code."""
    if issubclass(category, UserWarning):
        for line in COLOURS.sub("", f"warning: {message}").splitlines():
            errors.print(Text(printable(line)))
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


USAGE: Any = typer.BadParameter.__base__  # of a command that cannot be understood; typer does not export it


def _misused(error: Any) -> None:
    """A command that cannot be understood, in two lines; without any arguments, the help."""
    if error.ctx is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(error.ctx.get_help())  # it writes to the terminal itself, and returns nothing, where rich is used
        return
    errors.print(Text(cut(" ".join(error.format_message().split()), LINE)))
    if error.ctx is not None:
        errors.print(Text(f"see: {error.ctx.command_path} --help"))


def _interrupt_later(unraisable: Any) -> None:
    """Ctrl-C inside a callback of a library, which Python would print and forget, acts as soon as that has ended."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def main() -> None:
    """Runs the command line; a user's mistake is told in a line or three, with code 2, a file's failure with 74.

    Modules of the current folder can be imported, as with ``python -m plasticity``; installed ones go first.
    """
    never_fail()
    sys.unraisablehook = _interrupt_later
    if "" not in sys.path:
        sys.path.append("")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = app(standalone_mode=False)
            sys.exit(code if isinstance(code, int) else 0)
    except USAGE as error:
        _misused(error)
        sys.exit(UserError.code)
    except UserError as error:
        for line in str(error).splitlines():
            errors.print(Text(line))
        sys.exit(error.code)
    except OSError as error:
        if error.errno is None:  # none of the system's
            raise
        errors.print(Text(why(error)))
        sys.exit(StorageError.code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
