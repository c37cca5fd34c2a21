"""The commands that measure: ``plasticity measure``, ``bench`` and ``findings``."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperCommand

from plasticity.cli import completion, tables
from plasticity.cli.terminal import console, errors, say_broken
from plasticity.core.errors import UserError, shown


def measure(
    folder: Annotated[Path, typer.Argument(help="folder of a run, finished or not", metavar="RUN")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="settings of a monitor: monitors.srank.delta=0.05", metavar="[KEY=VALUE]..."),
    ] = None,
    monitors: Annotated[
        str,
        typer.Option(help="monitors to apply, by name", metavar="NAME[,NAME...]", autocompletion=completion.monitors),
    ] = "",
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
    say_broken()
    try:
        parquet.write_tables(path, [each.table for each in found])
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    tables.print_measured(found, console)
    console.print(Text(f"measured: {path}"))


def dataset(
    folder: Annotated[Path, typer.Argument(help="folder of a run, finished or not", metavar="RUN")],
    out: Annotated[Path, typer.Option(help="the file, .npz")],
    arm: Annotated[str | None, typer.Option(help="arm; default: the only one")] = None,
    lane: Annotated[int, typer.Option(help="number of the lane in the arm")] = 0,
    visit: Annotated[int | None, typer.Option(help="number of the visit; default: that of the checkpoint")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier file")] = False,
) -> None:
    """Save the transitions in a lane's replay, for the stream `dataset` (newest checkpoint)."""
    from plasticity.runs import transitions

    if out.suffix != ".npz":
        raise UserError(f"--out: {shown(str(out))} is not allowed; must end in .npz")
    if out.exists() and not force:
        raise UserError(f"{out} exists; replace it with --force, or choose another --out")
    if not out.parent.is_dir():
        raise UserError(f"{out}: the folder {out.parent} does not exist")
    saved = transitions.replay_of(folder, arm, lane, visit)
    try:
        transitions.write(out, saved)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from error
    what = f"{saved.rows:,} transitions, {saved.episodes:,} ends of episodes"
    console.print(Text(f"{out}: {what} of visit {saved.visit} ({saved.task}), at step {saved.step:,}"))


class NamesBenchmarks(TyperCommand):
    """A command whose help ends with the list of benchmarks; they are imported, with JAX, only for that."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from plasticity.bench import BENCHMARKS

        self.epilog = "\n\n".join(["Benchmarks:", *(f"{name}: {each.title}" for name, each in BENCHMARKS.items())])
        super().format_help(ctx, formatter)


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


def findings(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="names, ids (F5) or files of findings; default: all",
            metavar="[NAME]...",
            autocompletion=completion.finding,
        ),
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
        say_broken()
        for planned in command.plans(chosen, full):
            console.print(tables.plan_table(planned))
            for line in tables.plan_lines(planned):
                console.print(Text(line))
    elif listed:
        command.print_table(chosen, out, full, console)
    else:
        say_broken()
        code = command.run(chosen, out, full, force, console, errors)
        if code:
            raise typer.Exit(code)
