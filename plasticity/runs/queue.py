"""The jobs of a run, as ``jobs.json`` in its folder records them, and what Slurm says of them."""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasticity.core.errors import UserError, cut
from plasticity.runs.files import write_text

JOBS, LOGS = "jobs.json", "logs"  # in the run's folder
SECONDS = 60.0  # that Slurm may take to answer
LISTED = 1000  # jobs in one question
GONE = "Invalid job id"  # what squeue says of a single job that Slurm has forgotten
ALIVE = {
    "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED", "REQUEUE_HOLD", "PREEMPTED"
}  # fmt: skip


class SchedulerError(UserError):
    """A program of the scheduler fails or does not answer."""


def ask(*words: str, seconds: float = SECONDS) -> str:
    """What a program of the scheduler prints; ``SchedulerError``, one line, if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{words[0]}: no answer within {seconds:.0f} s") from None
    except OSError as error:
        raise SchedulerError(f"{words[0]}: {os.strerror(error.errno or 0)}") from None
    if done.returncode:
        said = " ".join(done.stderr.split()).removeprefix(f"{words[0]}: error: ") or f"exit code {done.returncode}"
        raise SchedulerError(f"{words[0]}: {cut(said, 160)}")
    return done.stdout


def records(run: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads((run / JOBS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, dict) and {"job", "shard"} <= each.keys()] if found else []


def note(run: Path, jobs: Sequence[str], wanted: Sequence[int], **facts: Any) -> None:
    """Add the jobs to ``jobs.json``, with ``facts`` about each; of each shard, only the last job is kept.

    Facts of a process on a machine: its ``host``, and when it was ``born``.
    """
    known = {each["shard"]: each for each in records(run)}
    known |= {number: {"shard": number, "job": job, **facts} for number, job in zip(wanted, jobs, strict=True)}
    write_text(run / JOBS, json.dumps([known[number] for number in sorted(known)], indent=0))


def slurm_jobs(run: Path) -> dict[str, int]:
    """The last job of each shard that was submitted to Slurm, with the shard's number."""
    return {str(each["job"]): int(each["shard"]) for each in records(run) if "born" not in each}


def queue_of(run: Path, seconds: float = SECONDS) -> dict[int, str]:
    """The state of each shard that Slurm knows of, such as PENDING or RUNNING; empty without Slurm.

    Raises:
      SchedulerError: Slurm does not answer within ``seconds``, so that nothing is known.
    """
    jobs = slurm_jobs(run)
    if not jobs or shutil.which("squeue") is None:
        return {}
    ids = sorted({job.partition("_")[0] for job in jobs})
    whose = f"--jobs={','.join(ids)}" if len(ids) <= LISTED else f"--user={os.getuid()}"
    try:
        said = ask("squeue", "--noheader", "--array", "--format=%i %T", "--states=all", whose, seconds=seconds)
    except SchedulerError as error:
        if GONE not in str(error):
            raise
        return {}
    states = dict(line.split(None, 1) for line in said.splitlines() if len(line.split()) == 2)
    return {shard: states[job] for job, shard in jobs.items() if states.get(job) in ALIVE}
