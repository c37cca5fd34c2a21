"""What a job of a cluster does: run a shard, and ask for another turn if the job must end before the shard."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plasticity.runs.accounts import EXPERIMENT, read_status, shard_folder
from plasticity.runs.session import SIGNALS

SAVE_SECONDS = 120  # before its end, a job is told to save
STOPPED = {128 + getattr(signal, name) for name in SIGNALS if hasattr(signal, name)}  # exit codes of a saved run
TOLD = 0.8  # of the time until a job is told that its limit is near: the job itself starts a little later
REMEDY = "give the job more time, or shorten the chunks with record_every"


def words(config: Path | str, run: Path | str, shard: str) -> list[str]:
    """The command that runs a shard."""
    return ["python", "-m", "plasticity", "run", str(config), "--out", str(run), "--shard", shard]


class Turn:
    """Runs a shard in a job, and asks the scheduler for another turn if the job must end before the shard.

    Args:
      run: the run's folder.
      count: the number of its shards.
      seconds: the time limit of the job.
      notice: seconds before that limit at which Slurm tells the job.
    """

    def __init__(self, run: str, count: int, seconds: float = math.inf, notice: float = SAVE_SECONDS) -> None:
        self.run, self.count, self.seconds, self.notice = run, count, seconds, notice

    def command(self, number: int) -> list[str]:
        return [sys.executable, *words(Path(self.run) / EXPERIMENT, self.run, f"{number}/{self.count}")[1:]]

    def __call__(self, number: int) -> int:
        self.began, self.before = time.monotonic(), steps_done(Path(self.run), number)
        self.child = subprocess.Popen(self.command(number))
        code = self.child.wait()
        if code in STOPPED and _may_go_on():
            signal.raise_signal(signal.SIGUSR2)  # submitit calls `checkpoint` and puts the job back into the queue
        if code:
            raise RuntimeError(f"plasticity ended with exit code {code}")
        return number

    def checkpoint(self, number: int) -> Any:
        """What submitit submits again; None if the time limit is too short for any progress."""
        from submitit.helpers import DelayedSubmission

        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(self.notice / 2)
        except subprocess.TimeoutExpired:  # Slurm may end the job before it is saved
            say(f"a chunk takes more than the {self.notice / 2:.0f} s that are left to save; {REMEDY}")
            self.child.wait()
        over = time.monotonic() - self.began > TOLD * (self.seconds - self.notice)  # else it is preempted
        if over and steps_done(Path(self.run), number) <= self.before:
            say(f"the time limit of {self.seconds / 60:.0f} min is too short for one chunk; {REMEDY}")
            return None
        return DelayedSubmission(Turn(self.run, self.count, self.seconds, self.notice), number)


def say(line: str) -> None:
    """Write to the log of the job."""
    print(line, file=sys.stderr, flush=True)


def steps_done(run: Path, number: int) -> int:
    """Env steps of a shard's programs according to its folder; more later than before if there was any progress."""
    statuses = map(read_status, filter(Path.is_dir, shard_folder(run, number).glob("*")))
    return sum(int(each.get("step", 0)) + len(each.get("finished", ())) for each in statuses)


def _may_go_on() -> bool:
    """Whether Slurm told this job to end because of another one: a cancelled job is no longer RUNNING by then."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    ask = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    return "RUNNING" in done.stdout.split()


class Turns(Turn):
    """Several shards, one after another, in one local process."""

    def __call__(self, numbers: Any) -> Any:
        return [super(Turns, self).__call__(number) for number in numbers]
