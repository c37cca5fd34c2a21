"""Submit the shards of a run to a scheduler through submitit; only those that are neither finished nor under way."""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plasticity.config.experiments import Experiment
from plasticity.core.errors import UserError, cut
from plasticity.runs import folder, local, sharded, speeds
from plasticity.runs.accounts import EXPERIMENT, shard_folder
from plasticity.runs.lock import InUseError, held
from plasticity.runs.planning import jobs_of
from plasticity.runs.queue import LOGS, ask, note, queue_of, records, slurm_jobs
from plasticity.runs.slurm import minutes
from plasticity.runs.turns import REMEDY, SAVE_SECONDS, Turn, shard_log, words

REPEATS = 100_000  # how often a job may be requeued because its time was over
ARRAY = 1000  # jobs of an array, if Slurm does not say how many it allows
OWN = {  # options of sbatch that submitit has a parameter for
    "partition", "qos", "mem", "mem_per_cpu", "mem_per_gpu", "comment", "constraint", "exclude", "account", "gres",
    "nodelist", "dependency", "cpus_per_task", "gpus_per_node", "gpus_per_task", "mail_type", "mail_user",
}  # fmt: skip


class Submitted(NamedTuple):
    """Shards given to a scheduler, and those left out."""

    jobs: tuple[str, ...]
    shards: tuple[int, ...]
    finished: int
    active: int


def unfinished(run: Path, count: int) -> list[int]:
    """The numbers of the shards that are not finished."""
    return [number for number in range(1, count + 1) if not folder.is_finished(shard_folder(run, number))]


def commands(experiment: Experiment, run: Path, split: str | None) -> list[str]:
    """A command for each unfinished shard of the run, which is laid out; for any scheduler. Each may be repeated."""
    count = len(_laid_out(experiment, run, split, gpu=False).shards)
    run = run.absolute()
    return [
        shlex.join(["plasticity", *words(run / EXPERIMENT, run, f"{number}/{count}")[3:]])
        for number in unfinished(run, count)
    ]


def submit(
    experiment: Experiment,
    run: Path,
    split: str | None,
    *,
    slurm: Mapping[str, Any] | None,
    processes: int = 0,
    most: int | None = None,
    dry: bool = False,
) -> Submitted:
    """Lay the run out if it is new, and submit its shards that are neither finished nor queued nor running.

    Args:
      experiment: the experiment.
      run: the run's folder.
      split: how to cut it; None: as it is, or a shard for every arm if it is new.
      slurm: options of ``sbatch``; None: use ``processes`` on this machine.
      processes: their number.
      most: jobs that run at the same time.
      dry: submit nothing.

    Raises:
      UserError: the scheduler is missing or refuses, or another process launches this run at the moment.
    """
    if slurm is not None and not dry and shutil.which("sbatch") is None:
        raise UserError("--slurm: there is no sbatch here; use it on a login node, or --local N, or --print")
    if slurm and "time" in slurm:
        _check_time(experiment, str(slurm["time"]))
    gpu = any(key.startswith(("gpus", "gres")) for key in slurm or {})
    count = len(_laid_out(experiment, run, split, gpu, dry).shards)
    with contextlib.nullcontext() if dry else held(run):
        left = unfinished(run, count)
        busy = active(run, left)
        wanted = tuple(number for number in left if number not in busy)
        jobs: tuple[str, ...] = ()
        if wanted and not dry:
            jobs = (
                local.start(run, count, wanted, processes)
                if slurm is None
                else _submit(run, count, wanted, slurm, most)
            )
    return Submitted(jobs, wanted, count - len(left), len(busy))


def _check_time(experiment: Experiment, limit: str) -> None:
    """``UserError`` if a program, at the speed measured on this machine, cannot compile and run one chunk in time."""
    for job in jobs_of(experiment):
        cost = speeds.read(job.speed_key)
        if cost is not None and (needed := cost.seconds(job.program.chunk, 1)) > 60 * minutes(limit):
            raise UserError(
                f"--slurm: time={limit} is too short: arm {job.arm} takes about {needed / 60:.0f} min here to compile "
                f"and run one chunk of {job.program.chunk} env steps\n{REMEDY}"
            )


def _laid_out(experiment: Experiment, run: Path, split: str | None, gpu: bool, dry: bool = False) -> sharded.Layout:
    cut_as = split or (None if sharded.is_cut(run) else "arms")
    return sharded.lay_out(experiment, run, cut_as, resume=True, force=False, gpu=gpu, dry=dry,
                           again=("launch", "..."))  # fmt: skip


def _submit(
    run: Path, count: int, wanted: Sequence[int], slurm: Mapping[str, Any], most: int | None
) -> tuple[str, ...]:
    """Submit arrays of jobs, as large as Slurm allows; returns a job for each shard."""
    import submitit
    from submitit.core.utils import FailedJobError

    options = dict(slurm)
    known = {key: options.pop(key) for key in list(options) if key in OWN}
    known["time"] = minutes(str(options.pop("time"))) if "time" in options else 60
    usual = {} if "no_requeue" in options else {"requeue": True}
    options = {**usual, **{key.replace("_", "-"): value for key, value in options.items()}}
    notice = min(SAVE_SECONDS, 60 * known["time"] // 2)
    turn = Turn(str(run.absolute()), count, 60 * known["time"], notice)
    size = _largest_array()
    arrays = [list(wanted[i : i + size]) for i in range(0, len(wanted), size)]
    most = most or len(wanted)
    if most < len(arrays):
        raise UserError(
            f"--max-jobs: {most} is not allowed; must be at least {len(arrays)}, as {len(wanted)} shards need "
            f"{len(arrays)} arrays (Slurm allows {size} jobs in one)"
        )
    executor = submitit.SlurmExecutor(folder=run.absolute() / LOGS, max_num_timeout=REPEATS)
    executor.update_parameters(
        job_name=run.absolute().name[:60], signal_delay_s=notice,
        additional_parameters=options, **known,
    )  # fmt: skip
    names: list[str] = []
    try:
        for position, array in enumerate(arrays):
            executor.update_parameters(array_parallelism=(most + position) // len(arrays))
            with contextlib.redirect_stderr(io.StringIO()):  # submitit repeats what sbatch says
                made = [str(job.job_id) for job in executor.map_array(turn, array)]
            note(run, made, array)  # at once, as the next array may be refused
            names += made
    except (FailedJobError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", "") or error)
        line = next((line for line in why.splitlines() if "error" in line.lower()), why)
        text = cut(" ".join(line.split()).removeprefix("sbatch: error: "), 160)
        queued = f"\n{len(names)} of {len(wanted)} shards are queued; the same command submits the rest later"
        raise UserError(f"--slurm: sbatch refuses: {text}{queued if names else ''}") from None
    return tuple(names)


def _largest_array() -> int:
    """How many jobs an array may have; Slurm counts them from 0 and allows numbers below MaxArraySize."""
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return max(1, int(found[1]) - 1) if found else ARRAY


def active(run: Path, numbers: Iterable[int]) -> set[int]:
    """Which of these shards a process runs, or a scheduler or a process of this machine has queued."""
    queued = {*queue_of(run), *local.queued(run)}
    return {number for number in numbers if number in queued or _is_running(shard_folder(run, number))}


def _is_running(shard: Path) -> bool:
    if not shard.exists():
        return False
    try:
        with held(shard):
            return False
    except InUseError:
        return True


class Cancelled(NamedTuple):
    """What was told to end."""

    jobs: list[str]  # of Slurm
    processes: list[int]  # of this machine


def cancel(run: Path) -> Cancelled:
    """Cancel the jobs of the run that Slurm still has, and stop its processes on this machine.

    Raises:
      UserError: the folder is no run that is cut into shards, or the scheduler fails.
    """
    folder.read(run)
    if not sharded.is_cut(run):
        raise UserError(f"{run}: this run is not cut into shards, so it has no jobs")
    known = slurm_jobs(run)
    if known and shutil.which("squeue") is None:
        raise UserError("--cancel: there is no squeue here, and the run has jobs of Slurm; use it on a login node")
    processes = local.stop(run)
    queued = queue_of(run)
    jobs = [job for job, shard in known.items() if shard in queued]
    if jobs:
        ask("scancel", *jobs)
    return Cancelled(jobs, processes)


def failures(run: Path, lines: int = 3) -> list[str]:
    """The last lines of the log of each shard that failed and that nothing runs."""
    found = []
    jobs = {each["shard"]: str(each["job"]) for each in records(run)}
    busy = active(run, jobs)
    for number, job in jobs.items():
        if number in busy or folder.is_finished(shard_folder(run, number)):
            continue
        own = shard_log(run, job, number)
        for path in [own] if own.exists() else sorted((run / LOGS).glob(f"{job}_*_log.err")):
            tail = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            found.append(f"shard {number} has stopped; the end of {path}:")
            found += [f"  {cut(line, 160)}" for line in tail]
    return found
