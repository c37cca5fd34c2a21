"""``plasticity launch``: the shards of a run as jobs of a scheduler."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from plasticity.cli.running import Config, Out, Overrides, Split
from plasticity.cli.tables import plural
from plasticity.cli.terminal import console, errors, say_broken
from plasticity.core.errors import UserError, listed

if TYPE_CHECKING:
    from plasticity.runs.cluster import Submitted


def launch(
    config: Config,
    overrides: Overrides = None,
    out: Out = None,
    split: Split = None,
    slurm: Annotated[
        list[str] | None, typer.Option(metavar="OPTION=VALUE,...", help="submit to Slurm, with these options of sbatch")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="submit to Slurm with the settings of this profile in clusters.yaml")
    ] = None,
    local: Annotated[int | None, typer.Option(min=1, help="run on this machine, in so many processes")] = None,
    print_: Annotated[bool, typer.Option("--print", help="print a command for each unfinished shard")] = False,
    max_jobs: Annotated[int | None, typer.Option(min=1, help="jobs that run at the same time")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="submit nothing; say what would be")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="cancel the run's jobs")] = False,
) -> None:
    """Submit the shards of a run that are neither finished nor under way, and return at once.

    The same command again submits what is missing then. With `tune`, the first shards are those of the tuning runs;
    when they are finished, the same command submits those of the run itself.
    """
    from plasticity.runs import cluster, tuning
    from plasticity.runs import launch as launching
    from plasticity.runs import slurm as options_of_slurm

    ways = {"--slurm": slurm or profile, "--local": local, "--print": print_, "--cancel": cancel}
    given = [name for name, value in ways.items() if value]
    if len(given) != 1:
        several = f", not {' and '.join(given)}" if given else ""
        raise UserError(f"give one of --slurm (or --profile), --local, --print and --cancel{several}")
    site = options_of_slurm.profile_of(profile, config) if profile else options_of_slurm.Profile({})
    options = {**site.slurm, **options_of_slurm.parse_options(slurm or ())} if slurm or profile else None
    experiment = launching.load_config(config, overrides or [])
    say_broken()
    run = out or Path("runs") / experiment.name
    if cancel:
        for place in tuning.places(run):
            ended = cluster.cancel(place)
            told = len(ended.processes)
            here = f"; {told} process{'es' if told > 1 else ''} on this machine told to save and stop" if told else ""
            console.print(Text(f"{place}: {plural(len(ended.jobs), 'job')} cancelled{here}"))
        return
    phase = tuning.due(experiment, run, lambda line: errors.print(Text(line)), write=not dry_run)
    if phase.tuning:  # a scheduler's dependency could not carry over the selection
        later = "once they are finished, the same command submits the run itself"
        errors.print(Text(f"{tuning.describe(experiment)}\n{later}"))
    experiment, run = phase.experiment, phase.place
    if print_:
        for line in cluster.commands(experiment, run, split):
            typer.echo(line)
    else:
        for line in cluster.failures(run):
            console.print(Text(line))
        most = max_jobs or site.max_jobs
        done = cluster.submit(
            experiment, run, split or site.split, slurm=options, processes=local or 0, most=most, dry=dry_run
        )
        console.print(Text(_told(done, run)))


def _told(done: "Submitted", run: Path) -> str:
    """One line about a launch."""
    jobs = sorted({job.partition("_")[0] for job in done.jobs})
    what = f"job {listed(jobs)}" if jobs else "nothing submitted"
    return (
        f"{run}: {what}; {plural(len(done.shards), 'shard')} to run, {done.active} queued or running, "
        f"{done.finished} finished"
    )
