"""The command line: ``plasticity run``, ``watch``, ``plot`` and the other commands in ``plasticity --help``."""

import _thread
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand

from plasticity.cli import tables
from plasticity.cli.display import never_fail
from plasticity.config.registry import FAMILIES
from plasticity.core.errors import LINE, StorageError, UserError, cut, printable, shown, unknown, why
from plasticity.version import __version__

app = typer.Typer(
    help="A testbed for loss of plasticity and continual reinforcement learning.",
    epilog="Exit codes: 0 success; 2 invalid input; 74 a file could not be written or read; "
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
    """Options before a command."""
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
LISTED = (*FAMILIES, "configs")
Out = Annotated[Path | None, typer.Option(help="folder of the run; default runs/NAME")]


@app.command()
def run(
    config: Config,
    overrides: Overrides = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in the folder, or start it")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier run in the folder")] = False,
    draw: Annotated[bool, typer.Option("--figures/--no-figures", help="draw the figures at the end")] = True,
) -> None:
    """Run an experiment (all arms, seeds and sweep points), then draw its figures."""
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
        errors.print(Text(f"{stopped}: saved; continue with\n  {_again(config, overrides, folder)}"))
        raise typer.Exit(128 + stopped.number) from None
    except StorageError as failed:
        reason = "; ".join(str(failed).splitlines())
        errors.print(Text(f"{reason}\nsaved data are kept; continue with\n  {_again(config, overrides, folder)}"))
        raise typer.Exit(failed.code) from None
    _show(folder, draw)


def _again(config: Path, overrides: list[str] | None, folder: Path) -> str:
    """The command that resumes a run."""
    return shlex.join(["plasticity", "run", str(config), *(overrides or []), "--out", str(folder), "--resume"])


def _say_broken() -> None:
    """Report the plug-ins that cannot be used, in one line.

    Called once a command is accepted: a refusal has its own message.
    """
    from plasticity.runs import launch

    lines = launch.broken_plugins()
    if lines:
        more = f" (and {len(lines) - 1} more; `plasticity list` names each)" if len(lines) > 1 else ""
        errors.print(Text(f"{lines[0]}{more}"))


def _show(folder: Path, draw: bool) -> None:
    """Print the summary table of a run and, if ``draw`` is set, save its figures."""
    from plasticity import plots, results

    results.print_summary(folder, console)
    if not draw:
        return
    written = plots.save_all([folder], folder / "figures")
    console.print(Text(f"figures: {folder / 'figures'} ({', '.join(path.name for path in written)})"))


@app.command()
def plan(config: Config, overrides: Overrides = None, out: Out = None) -> None:
    """Show what a run would do (programs, lanes, steps, memory) and what this machine lacks. Runs nothing."""
    from plasticity.runs import launch

    planned = launch.plan(launch.load_config(config, overrides or []))
    lines = [*tables.plan_lines(planned), *launch.obstacles(planned, out)]  # planning for another machine is allowed
    _say_broken()
    console.print(tables.plan_table(planned))
    for line in lines:
        console.print(Text(line))


@app.command(name="list")
def list_members(
    family: Annotated[str | None, typer.Argument(help=f"{', '.join(LISTED)}; default: all")] = None,
    name: Annotated[str | None, typer.Argument(help="a member, to show its settings")] = None,
) -> None:
    """List all members, those of one family, or the settings of one member; plug-ins are marked."""
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
            raise UserError(f"list configs takes no name, got {shown(name)}; to show a config: plasticity plan NAME")
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
    """``UserError`` if the folder is not a run."""
    from plasticity import results

    try:
        results.plan(folder)
    except ValueError as error:
        raise UserError(str(error)) from None


@app.command()
def watch(
    folder: Annotated[Path, typer.Argument(help="folder of a run, active or not", metavar="RUN")],
    once: Annotated[bool, typer.Option("--once", help="print the current state and exit")] = False,
    every: Annotated[float, typer.Option(help="seconds between updates", min=0.1)] = 1.0,
) -> None:
    """Live view of a run, from any machine that can read its folder; ends with the run or on Ctrl-C."""
    from plasticity.cli import watch as watching

    try:
        watching.watch(folder, console, once=once, every=every)
    except ValueError as error:
        raise UserError(str(error)) from None


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="folder of a run", metavar="RUN_A")],
    b: Annotated[Path, typer.Argument(help="folder of another run", metavar="RUN_B")],
) -> None:
    """Compare two runs: config, versions, arms, results; if the configs are equal, also every number."""
    from plasticity import results

    def completed(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
        from plasticity.runs import launch  # slow to import, and needed only if the configs differ

        return launch.completed(config)

    try:
        results.print_comparison(a, b, console, current=completed)
    except ValueError as error:
        raise UserError(str(error)) from None


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="folder for the figures; default RUN/figures")] = None,
    figures: Annotated[str, typer.Option(help="figures to draw; default: all", metavar="NAME[,NAME...]")] = "",
    arms: Annotated[str, typer.Option(help="arms to show, in this order; default: all", metavar="ARM[,ARM...]")] = "",
    label: Annotated[
        list[str] | None, typer.Option(help="label of an arm in the figures; may be repeated", metavar="ARM=NAME")
    ] = None,
    size: Annotated[
        str,
        typer.Option(help="figure size in inches; panels or a long legend may add height", metavar="WIDTHxHEIGHT"),
    ] = "",
    smooth: Annotated[int, typer.Option(help="running mean of each curve over N records", metavar="N")] = 1,
) -> None:
    """Draw the figures of one or several runs and print their summaries."""
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
    out: Annotated[Path | None, typer.Option(help="output file; default RUN/report.html", metavar="FILE.html")] = None,
) -> None:
    """Write an HTML report on one or several runs: summary, interactive figures, provenance."""
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
    monitors: Annotated[str, typer.Option(help="monitors to apply, by name", metavar="NAME[,NAME...]")] = "",
    out: Annotated[Path | None, typer.Option(help="output table; default RUN/measured.parquet")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier table")] = False,
) -> None:
    """Apply monitors to the checkpoints of a run (the last two of each program)."""
    from plasticity.runs import measure as measuring
    from plasticity.runs import parquet

    path = out or folder / "measured.parquet"
    if path.exists() and not force:
        raise UserError(f"{path} exists; replace it with --force, or choose another --out")
    if out is not None and not path.parent.is_dir():
        raise UserError(f"{path}: the folder {path.parent} does not exist")
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
    """A command whose help ends with the list of benchmarks; they are imported, with JAX, only for that."""

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
    quick: Annotated[bool, typer.Option("--quick", help="small and imprecise, to check that everything works")] = False,
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
    full: Annotated[bool, typer.Option("--full", help="run at the published size (GPU)")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="show what would run; run nothing")] = False,
    listed: Annotated[bool, typer.Option("--list", help="print saved results; run nothing")] = False,
    force: Annotated[bool, typer.Option("--force", help="rerun findings that have a result")] = False,
) -> None:
    """Reproduce published findings one after another and judge each by the criterion in its file."""
    from plasticity.cli import findings as command

    chosen = command.named(names or ())
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


COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # some libraries colour their warnings


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    """Print a ``UserWarning`` in one line, without a location in our code."""
    if issubclass(category, UserWarning):
        for line in COLOURS.sub("", f"warning: {message}").splitlines():
            errors.print(Text(printable(line)))
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


USAGE: Any = typer.BadParameter.__base__  # raised for a malformed command; typer does not export it


def _misused(error: Any) -> None:
    """Report a malformed command in two lines; print the help if there were no arguments."""
    if error.ctx is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(error.ctx.get_help())  # with rich it prints by itself and returns nothing
        return
    errors.print(Text(cut(" ".join(error.format_message().split()), LINE)))
    if error.ctx is not None:
        errors.print(Text(f"see: {error.ctx.command_path} --help"))


def _interrupt_later(unraisable: Any) -> None:
    """Act on Ctrl-C inside a library's callback once the callback ends; Python would print and ignore it."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def main() -> None:
    """Run the command line. User errors take one to three lines (exit code 2); file errors exit with 74.

    Modules in the current folder can be imported, as with ``python -m plasticity``; installed ones take precedence.
    """
    never_fail()
    sys.unraisablehook = _interrupt_later
    if "" not in sys.path:
        sys.path.append("")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = app(standalone_mode=False, prog_name="plasticity")
            sys.exit(code if isinstance(code, int) else 0)
    except USAGE as error:
        _misused(error)
        sys.exit(UserError.code)
    except UserError as error:
        for line in str(error).splitlines():
            errors.print(Text(line))
        sys.exit(error.code)
    except OSError as error:
        if error.errno is None:  # not from the operating system
            raise
        errors.print(Text(why(error)))
        sys.exit(StorageError.code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
