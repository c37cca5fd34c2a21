"""Time and disk space of a plan, from the speeds that were measured on this machine and from shapes."""

from collections.abc import Sequence
from typing import NamedTuple

from plasticity.config.programs import programs
from plasticity.core.errors import UserError
from plasticity.runs import checkpoint, speeds
from plasticity.runs.planning import Plan
from plasticity.runs.session import FEW_PARTS, Job
from plasticity.runs.shards import Shard, Split, cut
from plasticity.runs.speeds import Cost

VALUE, COLUMN, PART = 5, 250, 700  # bytes of a table: for each number, for each column of a part, for each part


class Disk(NamedTuple):
    """Bytes on disk at the end of a run."""

    tables: int
    checkpoints: int


def steps_of(job: Job) -> int:
    """Env steps of each lane."""
    return sum(visit.steps for visit in job.program.spec.visits)


def seconds_of(job: Job) -> float | None:
    """How long a job takes on this machine; None if its program has never been timed here."""
    cost = speeds.read(job.speed_key)
    return None if cost is None else cost.seconds(steps_of(job), job.placement.groups)


def start_of(job: Job) -> float:
    """The part of a job's time in which it compiles; 0 if that is not known."""
    return (speeds.read(job.speed_key) or Cost(0.0, 0.0)).start


def total(seconds: Sequence[float | None]) -> float | None:
    """Of all jobs, one after another; None if one of them is not known."""
    known = [each for each in seconds if each is not None]
    return sum(known) if known and len(known) == len(seconds) else None


def disk(planned: Plan) -> Disk:
    """Space for tables and checkpoints: about right for the tables, at most for the checkpoints."""
    tables = sum(map(_table_bytes, planned.jobs, planned.columns))
    kept = planned.experiment.kept
    more = len(planned.spec.visits) if kept == "all" else len(kept)
    return Disk(tables, (checkpoint.KEEP + more) * sum(_states(planned)))


def space(planned: Plan) -> int:
    """Bytes that a run needs at its end, with one more of its largest checkpoints while that is written."""
    return sum(disk(planned)) + max(_states(planned))


def within_hours(planned: Plan, split: Split) -> Split:
    """The smallest number of jobs of at most ``split.hours`` each; one for each lane if even these take longer.

    Raises:
      UserError: a program was never timed on this machine.
    """
    for job in planned.jobs:
        if speeds.read(job.speed_key) is None:
            raise UserError(
                f"--split: {split} needs the speed of arm {job.arm} on this machine; "
                "measure it with `plasticity plan CONFIG --calibrate`"
            )
    every = programs(planned.experiment)
    short, most = 0, sum(len(program.seeds) for program in every)
    while most - short > 1:
        middle = (short + most) // 2
        if longest(planned, cut(every, Split(jobs=middle))) > 3600 * split.hours:
            short = middle
        else:
            most = middle
    return Split(jobs=most)


def longest(planned: Plan, shards: Sequence[Shard]) -> float:
    """Seconds of the shard that takes longest; 0 if a program was never timed on this machine."""
    costs = [speeds.read(job.speed_key) for job in planned.jobs]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return 0.0

    def seconds(index: int, lanes: int) -> float:
        job = planned.jobs[index]
        return known[index].seconds(steps_of(job), -(-lanes // job.placement.block))

    return max(sum(seconds(index, len(rows)) for index, rows in shard.parts) for shard in shards)


def _states(planned: Plan) -> list[int]:
    return [need.state * job.placement.devices for job, need in zip(planned.jobs, planned.memory, strict=True)]


def _table_bytes(job: Job, columns: int) -> int:
    steps, lanes = steps_of(job), len(job.program.seeds)
    every = job.checkpoint_every
    saves = len(job.program.spec.visits) if every is None else max(1, steps // every)
    parts = min(saves, FEW_PARTS)
    return steps // job.program.chunk * lanes * columns * VALUE + parts * (PART + COLUMN * columns)
