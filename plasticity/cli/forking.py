"""``plasticity fork``: the learners of a run, and new ones beside them, on one common stream."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from plasticity.cli import completion
from plasticity.cli.running import Out, Shard, Split, again, carry_out
from plasticity.cli.terminal import console, say_broken
from plasticity.config.documents import to_yaml
from plasticity.core.errors import UserError, shown


def fork(
    folder: Annotated[Path, typer.Argument(help="folder of a run that kept checkpoints", metavar="RUN")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="settings of the fork to change: schedule.take=2", metavar="[KEY=VALUE]..."),
    ] = None,
    at: Annotated[
        str, typer.Option(help="after how many visits of the run its learners go on", metavar="N[,N...]")
    ] = "",
    stream: Annotated[
        Path | None,
        typer.Option(
            help="a config: its stream, schedule, monitors and evaluation are used; default: those of the run",
            metavar="CONFIG",
            autocompletion=completion.config,
        ),
    ] = None,
    arms: Annotated[str, typer.Option(help="arms of the run; default: all but the controls", metavar="A[,B...]")] = "",
    fresh: Annotated[bool, typer.Option("--fresh/--no-fresh", help="add new learners for each arm")] = True,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the fork in the folder, or start it")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier run in the folder")] = False,
    split: Split = None,
    shard: Shard = None,
    draw: Annotated[bool, typer.Option("--figures/--no-figures", help="draw the figures at the end")] = True,
    show: Annotated[bool, typer.Option("--print", help="print the fork's config; run nothing")] = False,
) -> None:
    """Let the learners of a run go on in a stream that is common to all arms, beside new learners.

    The fork is a run of its own, default runs/NAME-fork: its arms are ARM.afterN and ARM.fresh.
    """
    from plasticity.runs import forks

    chosen = [name.strip() for name in arms.split(",") if name.strip()]
    made = forks.fork_of(
        folder, _numbers(at), stream=stream, arms=chosen or None, fresh=fresh, overrides=overrides or ()
    )
    say_broken()
    if show:
        console.print(Text(to_yaml(made.resolve())), end="")
        return
    place = out or Path("runs") / made.name
    options = ["--at", at] + (["--stream", str(stream)] if stream else []) + (["--arms", arms] if arms else [])
    options += [] if fresh else ["--no-fresh"]
    resuming = again(["fork", str(folder), *(overrides or []), *options], place, shard)
    carry_out(made, place, resuming, split=split, shard=shard, resume=resume, force=force, draw=draw)


def _numbers(text: str) -> list[int]:
    """``3,10`` as numbers. ``UserError`` for anything else."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() for part in parts):
        what = f"{shown(text)} is not allowed" if text else "is missing"
        raise UserError(f"--at: {what}; must be numbers of whole visits, such as 3 or 1,5,10")
    return [int(part) for part in parts]
