"""The commands that read runs: ``plasticity watch``, ``compare``, ``plot`` and ``report``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from plasticity.cli import completion
from plasticity.cli.terminal import console
from plasticity.core.errors import UserError


def watch(
    folder: Annotated[Path, typer.Argument(help="folder of a run, active or not", metavar="RUN")],
    once: Annotated[bool, typer.Option("--once", help="print the current state and exit")] = False,
    every: Annotated[float, typer.Option(help="seconds between updates", min=0.1)] = 1.0,
) -> None:
    """Live view of a run and its probes, from any machine that can read its folder; ends with them or on Ctrl-C."""
    from plasticity.cli import watch as watching

    try:
        watching.watch(folder, console, once=once, every=every)
    except ValueError as error:
        raise UserError(str(error)) from None


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


def plot(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs", metavar="RUN...")],
    out: Annotated[Path | None, typer.Option(help="folder for the figures; default RUN/figures")] = None,
    figures: Annotated[
        str,
        typer.Option(help="figures to draw; default: all", metavar="NAME[,NAME...]", autocompletion=completion.figures),
    ] = "",
    arms: Annotated[str, typer.Option(help="arms to show, in this order; default: all", metavar="ARM[,ARM...]")] = "",
    label: Annotated[
        list[str] | None, typer.Option(help="label of an arm in the figures; may be repeated", metavar="ARM=NAME")
    ] = None,
    size: Annotated[
        str,
        typer.Option(help="figure size in inches; panels or a long legend may add height", metavar="WIDTHxHEIGHT"),
    ] = "",
    smooth: Annotated[int, typer.Option(help="running mean of each curve over N records", metavar="N")] = 1,
    x: Annotated[
        str, typer.Option(help="horizontal axis of curves: step, frames, update or flops", metavar="NAME")
    ] = "",
) -> None:
    """Draw the figures of one or several runs and print their summaries."""
    from plasticity import plots, results
    from plasticity.cli import plotting

    for folder in runs:
        _check_run(folder)
    options, names = plotting.options(arms, label or [], size, smooth, x), plotting.listed("figures", figures)
    for path in plots.save_all(list(runs), out or runs[0] / "figures", options=options, names=names):
        console.print(Text(str(path)))
    for folder in runs:
        results.print_summary(folder, console)


def _check_run(folder: Path) -> None:
    """``UserError`` if the folder is not a run."""
    from plasticity import results

    try:
        results.plan(folder)
    except ValueError as error:
        raise UserError(str(error)) from None


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
