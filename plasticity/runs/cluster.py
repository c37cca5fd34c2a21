"""Submit the shards of a run to a scheduler through submitit; only those that are neither finished nor under way."""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from plasticity.config.documents import read_file
from plasticity.config.experiments import Experiment
from plasticity.core.errors import UserError, cut, listed, shown, unknown
from plasticity.runs import folder, sharded
from plasticity.runs.accounts import EXPERIMENT, shard_folder
from plasticity.runs.lock import InUseError, held
from plasticity.runs.queue import note, queue_of, records
from plasticity.runs.session import SIGNALS

PROFILES = "clusters.yaml"
LOGS = "logs"  # in the run's folder
TURNS = 100_000  # how often a job may be requeued because its time was over
SAVE_SECONDS = 120  # before its end, a job is told to save
STOPPED = {128 + getattr(signal, name) for name in SIGNALS if hasattr(signal, name)}  # exit codes of a saved run
DURATION = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
OWN = {  # options of sbatch that submitit has a parameter for
    "partition", "qos", "mem", "mem_per_cpu", "mem_per_gpu", "comment", "constraint", "exclude", "account", "gres",
    "nodelist", "dependency", "cpus_per_task", "gpus_per_node", "gpus_per_task", "mail_type", "mail_user",
}  # fmt: skip


SET_BY_US = {"array", "nodes", "ntasks", "ntasks_per_node", "signal", "output", "error", "wrap"}


class Profile(NamedTuple):
    """Settings of a site, from a file."""

    slurm: Mapping[str, Any]
    split: str | None = None
    max_jobs: int | None = None


def profile_of(name: str, near: Path) -> Profile:
    """The profile ``name`` of ``clusters.yaml`` beside the config, or else in the user's folder of settings.

    Raises:
      UserError: there is no such file, profile or key.
    """
    places = [near.absolute().parent / PROFILES, Path(platformdirs.user_config_dir("plasticity")) / PROFILES]
    there = [place for place in places if place.exists()]
    if not there:
        raise UserError(f"--profile: there is no {' and no '.join(map(str, places))}")
    known = read_file(there[0])
    if not isinstance(known, Mapping) or name not in known:
        raise UserError(f"{there[0]}: {unknown(f'profile {shown(name)}', name, list(known or ()))}")
    raw = known[name]
    for key in raw if isinstance(raw, Mapping) else ():
        if key not in Profile._fields:
            raise UserError(f"{there[0]}: {name}.{unknown(f'key {shown(key)}', str(key), Profile._fields, 'allowed')}")
    if not isinstance(raw, Mapping) or not isinstance(raw.get("slurm", {}), Mapping):
        raise UserError(f"{there[0]}: {name} must be a mapping with the keys {', '.join(Profile._fields)}")
    options = [key if value is True else f"{key}={value}" for key, value in raw.get("slurm", {}).items()]
    return Profile(parse_options(options), raw.get("split"), raw.get("max_jobs"))


class Submitted(NamedTuple):
    """Shards given to a scheduler, and those left out."""

    jobs: tuple[str, ...]
    shards: tuple[int, ...]
    finished: int
    active: int


class Turn:
    """Runs a shard in a job, and asks the scheduler for another turn if the job must end before the shard."""

    def __init__(self, run: str, count: int) -> None:
        self.run, self.count = run, count

    def command(self, number: int) -> list[str]:
        return [sys.executable, *words(Path(self.run) / EXPERIMENT, self.run, f"{number}/{self.count}")[1:]]

    def __call__(self, number: int) -> int:
        self.child = subprocess.Popen(self.command(number))
        code = self.child.wait()
        if code in STOPPED and _may_go_on():
            signal.raise_signal(signal.SIGUSR2)  # submitit calls `checkpoint` and puts the job back into the queue
        if code:
            raise RuntimeError(f"plasticity ended with exit code {code}")
        return number

    def checkpoint(self, number: int) -> Any:
        """What submitit submits again."""
        from submitit.helpers import DelayedSubmission

        self.child.send_signal(signal.SIGTERM)
        self.child.wait()
        return DelayedSubmission(Turn(self.run, self.count), number)


def _may_go_on() -> bool:
    """Whether Slurm told this job to end because of another one: a cancelled job is no longer RUNNING by then."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    ask = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    return "RUNNING" in done.stdout.split()


def words(config: Path | str, run: Path | str, shard: str) -> list[str]:
    """The command that runs a shard."""
    return ["python", "-m", "plasticity", "run", str(config), "--out", str(run), "--shard", shard]


def unfinished(run: Path, count: int) -> list[int]:
    """The numbers of the shards that are not finished."""
    return [number for number in range(1, count + 1) if not folder.is_finished(shard_folder(run, number))]


def commands(experiment: Experiment, run: Path, split: str | None) -> list[str]:
    """A command for each unfinished shard of the run, which is laid out; for any scheduler. Each may be repeated."""
    count = len(_laid_out(experiment, run, split, gpu=False).shards)
    return [
        shlex.join(["plasticity", *words(run / EXPERIMENT, run, f"{number}/{count}")[3:]])
        for number in unfinished(run, count)
    ]


def parse_options(text: Iterable[str]) -> dict[str, Any]:
    """Read ``partition=gpu,time=4:00:00``, the long options of ``sbatch``; a part without ``=`` is a flag."""
    found: dict[str, Any] = {}
    for part in (part.strip() for each in text for part in each.split(",") if part.strip()):
        key, given, value = part.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        if not re.fullmatch(r"[a-z][a-z_]*", key) or (given and not value):
            raise UserError(f"--slurm: {shown(part)} is not allowed; must be OPTION=VALUE, with an option of sbatch")
        found[key] = value if given else True
    for key in SET_BY_US & found.keys():
        raise UserError(f"--slurm: {key} is not allowed; each shard is one process and one job of an array")
    return found


def minutes(text: str) -> int:
    """A time limit in the forms of Slurm: ``30``, ``30:00``, ``4:00:00``, ``2-12``; rounded up to whole minutes."""
    found = DURATION.fullmatch(text)
    if not found:
        raise UserError(f"--slurm: time={text} is not allowed; must be MINUTES, H:MM:SS or D-HH:MM:SS")
    days, *rest = (int(part) if part else None for part in found.groups())
    first, second, third = (part or 0 for part in rest)
    if days is not None:
        seconds = ((days * 24 + first) * 60 + second) * 60 + third
    elif rest[2] is not None:
        seconds = (first * 60 + second) * 60 + third
    else:
        seconds = first * 60 + second
    if not seconds:
        raise UserError(f"--slurm: time={text} is not allowed; must be more than 0")
    return -(-seconds // 60)


def submit(
    experiment: Experiment,
    run: Path,
    split: str | None,
    *,
    slurm: Mapping[str, Any] | None,
    local: int = 0,
    most: int | None = None,
    dry: bool = False,
) -> Submitted:
    """Lay the run out if it is new, and submit its shards that are neither finished nor queued nor running.

    Args:
      experiment: the experiment.
      run: the run's folder.
      split: how to cut it; None: as it is, or a shard for every arm if it is new.
      slurm: options of ``sbatch``; None: use ``local`` processes on this machine.
      local: their number.
      most: jobs that run at the same time.
      dry: submit nothing.

    Raises:
      UserError: the scheduler is missing or refuses, or another process launches this run at the moment.
    """
    if slurm is not None and not dry and shutil.which("sbatch") is None:
        raise UserError("--slurm: there is no sbatch here; use it on a login node, or --local N, or --print")
    gpu = any(key.startswith(("gpus", "gres")) for key in slurm or {})
    count = len(_laid_out(experiment, run, split, gpu).shards)
    with held(run):
        left = unfinished(run, count)
        busy = active(run, left)
        wanted = tuple(number for number in left if number not in busy)
        jobs: tuple[str, ...] = ()
        if wanted and not dry:
            jobs = _submit(run, count, wanted, slurm, local, most)
            note(run, jobs, wanted)
    return Submitted(jobs, wanted, count - len(left), len(busy))


def _laid_out(experiment: Experiment, run: Path, split: str | None, gpu: bool) -> sharded.Layout:
    cut_as = split or (None if sharded.is_cut(run) else "arms")
    return sharded.lay_out(experiment, run, cut_as, resume=True, force=False, gpu=gpu)


def _submit(
    run: Path, count: int, wanted: Sequence[int], slurm: Mapping[str, Any] | None, local: int, most: int | None
) -> tuple[str, ...]:
    import submitit
    from submitit.core.utils import FailedJobError

    logs = run.absolute() / LOGS
    turn = Turn(str(run.absolute()), count)
    if slurm is None:
        executor: Any = submitit.LocalExecutor(folder=logs)
        executor.update_parameters(timeout_min=60 * 24 * 365)
        queues = [list(wanted[i::local]) for i in range(min(local, len(wanted)))]
        jobs = [executor.submit(Turns(turn.run, count), queue) for queue in queues]
        names = {number: str(job.job_id) for queue, job in zip(queues, jobs, strict=True) for number in queue}
        return tuple(names[number] for number in wanted)
    executor = submitit.SlurmExecutor(folder=logs, max_num_timeout=TURNS)
    options = dict(slurm)
    known = {key: options.pop(key) for key in list(options) if key in OWN}
    known["time"] = minutes(str(options.pop("time"))) if "time" in options else 60
    options = {"requeue": True, **{key.replace("_", "-"): value for key, value in options.items()}}
    executor.update_parameters(
        job_name=run.absolute().name[:60], signal_delay_s=min(SAVE_SECONDS, 60 * known["time"] // 2),
        array_parallelism=most or len(wanted), additional_parameters=options, **known,
    )  # fmt: skip
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit repeats what sbatch says
            return tuple(str(job.job_id) for job in executor.map_array(turn, list(wanted)))
    except (FailedJobError, subprocess.CalledProcessError) as error:
        why = str(getattr(error, "stderr", "") or error)
        line = next((line for line in why.splitlines() if "error" in line.lower()), why)
        text = " ".join(line.split()).removeprefix("sbatch: error: ")
        raise UserError(f"--slurm: sbatch refuses: {cut(text, 160)}") from None


class Turns(Turn):
    """Several shards, one after another, in one local process."""

    def __call__(self, numbers: Any) -> Any:
        return [super(Turns, self).__call__(number) for number in numbers]


def active(run: Path, numbers: Iterable[int]) -> set[int]:
    """Which of these shards a process runs, or a scheduler has queued."""
    queued = queue_of(run)
    return {number for number in numbers if number in queued or _is_running(shard_folder(run, number))}


def _is_running(shard: Path) -> bool:
    if not shard.exists():
        return False
    try:
        with held(shard):
            return False
    except InUseError:
        return True


def cancel(run: Path) -> list[str]:
    """Cancel the jobs of the run that Slurm still has; returns their ids."""
    queued = queue_of(run)
    jobs = [each["job"] for each in records(run) if each["shard"] in queued]
    if jobs:
        subprocess.run(["scancel", *jobs], check=False, capture_output=True)
    return jobs


def failures(run: Path, lines: int = 3) -> list[str]:
    """The last lines of the log of each shard that failed and that nothing runs."""
    found = []
    queued = queue_of(run)
    for each in records(run):
        shard = shard_folder(run, each["shard"])
        if each["shard"] in queued or folder.is_finished(shard) or _is_running(shard):
            continue
        for path in sorted((run / LOGS).glob(f"{each['job']}_*_log.err")):
            tail = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            found.append(f"shard {each['shard']} has stopped; the end of {path}:")
            found += [f"  {cut(line, 160)}" for line in tail]
    return found


def describe(done: Submitted, run: Path) -> str:
    """One line about a launch."""
    jobs = sorted({job.partition("_")[0] for job in done.jobs})
    what = f"job {listed(jobs)}" if jobs else "nothing submitted"
    return f"{run}: {what}; {len(done.shards)} shards to run, {done.active} queued or running, {done.finished} finished"
