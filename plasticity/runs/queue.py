"""The jobs of a run, as ``jobs.json`` in its folder records them, and what Slurm says of them."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasticity.runs.files import write_text

JOBS = "jobs.json"  # in the run's folder
ALIVE = {
    "PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED", "REQUEUE_HOLD", "PREEMPTED"
}  # fmt: skip


def records(run: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads((run / JOBS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, dict) and {"job", "shard"} <= each.keys()] if found else []


def note(run: Path, jobs: Sequence[str], wanted: Sequence[int]) -> None:
    """Add the jobs to ``jobs.json``; of each shard, only the last job is kept."""
    known = {each["shard"]: each for each in records(run)}
    known |= {number: {"shard": number, "job": job} for number, job in zip(wanted, jobs, strict=True)}
    write_text(run / JOBS, json.dumps([known[number] for number in sorted(known)], indent=0))


def queue_of(run: Path) -> dict[int, str]:
    """The state of each shard that Slurm knows of, such as PENDING or RUNNING; empty without Slurm."""
    jobs = {each["job"]: int(each["shard"]) for each in records(run)}
    if not jobs or shutil.which("squeue") is None:
        return {}
    ask = ["squeue", "--noheader", "--array", "--format=%i %T", "--states=all"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    states = dict(line.split(None, 1) for line in done.stdout.splitlines() if len(line.split()) == 2)
    return {shard: states[job] for job, shard in jobs.items() if states.get(job) in ALIVE}
