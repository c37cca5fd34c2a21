"""``plasticity launch``: the shards of a run as jobs of a scheduler."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from plasticity.cli.running import Config, Out, Overrides, Split
from plasticity.cli.terminal import console, say_broken
from plasticity.core.errors import UserError


def launch(
    config: Config,
    overrides: Overrides = None,
    out: Out = None,
    split: Split = None,
    slurm: Annotated[
        list[str] | None, typer.Option(metavar="OPTION=VALUE,...", help="submit to Slurm, with these options of sbatch")
    ] = None,
    local: Annotated[int | None, typer.Option(min=1, help="run on this machine, in so many processes")] = None,
    print_: Annotated[bool, typer.Option("--print", help="print a command for each unfinished shard")] = False,
    max_jobs: Annotated[int | None, typer.Option(min=1, help="jobs that run at the same time")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="submit nothing; say what would be")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="cancel the run's jobs")] = False,
) -> None:
    """Submit the shards of a run that are neither finished nor under way, and return at once.

    The same command again submits what is missing then.
    """
    from plasticity.runs import cluster, sharded
    from plasticity.runs import launch as launching

    ways = [name for name, given in {"--slurm": slurm, "--local": local, "--print": print_, "--cancel": cancel}.items()
            if given]  # fmt: skip
    if len(ways) != 1:
        raise UserError(
            "give one of --slurm, --local, --print and --cancel" + (f", not {' and '.join(ways)}" * bool(ways))
        )
    experiment = launching.load_config(config, overrides or [])
    say_broken()
    run = out or Path("runs") / experiment.name
    if cancel:
        jobs = cluster.cancel(run)
        console.print(Text(f"{run}: {len(jobs)} jobs cancelled"))
        return
    if print_:
        cut_as = split or (None if sharded.is_cut(run) else "arms")
        layout = sharded.lay_out(experiment, run, cut_as, resume=True, force=False)
        for line in cluster.commands(run, len(layout.shards)):
            typer.echo(line)
        return
    options = cluster.parse_options(slurm) if slurm else None
    for line in cluster.failures(run):
        console.print(Text(line))
    done = cluster.submit(experiment, run, split, slurm=options, local=local or 0, most=max_jobs, dry=dry_run)
    console.print(Text(cluster.describe(done, run)))
