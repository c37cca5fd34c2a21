"""What a job of a cluster does: run a shard, and ask for another turn if the job must end before the shard."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

from plasticity.runs.accounts import EXPERIMENT, read_status, shard_folder
from plasticity.runs.files import write_text
from plasticity.runs.queue import LOGS
from plasticity.runs.session import SIGNALS

SAVE_SECONDS = 120  # before its end, a job is told to save
STOPPED = {128 + getattr(signal, name) for name in SIGNALS if hasattr(signal, name)}  # exit codes of a saved run
TOLD = 0.8  # of the time until a job is told that its limit is near: the job itself starts a little later
REMEDY = "give the job more time, or shorten the chunks with record_every"


def words(config: Path | str, run: Path | str, shard: str) -> list[str]:
    """The command that runs a shard."""
    return ["python", "-m", "plasticity", "run", str(config), "--out", str(run), "--shard", shard]


def command(run: str, number: int, count: int) -> list[str]:
    """The same, with this Python, for the config in the run's folder."""
    return [sys.executable, *words(Path(run) / EXPERIMENT, run, f"{number}/{count}")[1:]]


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

    def __call__(self, number: int) -> int:
        self.began, self.before = time.monotonic(), steps_done(Path(self.run), number)
        self.child = subprocess.Popen(command(self.run, number, self.count))
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


class Turns:
    """Several shards, one after another, in one local process; SIGTERM stops the shard that runs, and drops the rest.

    Args:
      run: the run's folder.
      count: the number of its shards.
      devices: CUDA_VISIBLE_DEVICES of the shards; None: not set.
    """

    def __init__(self, run: str, count: int, devices: str | None = None) -> None:
        self.run, self.count, self.devices = run, count, devices

    def __call__(self, numbers: list[int]) -> list[int]:
        self.stopped = False
        self.child: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGTERM, self._stop)
        job = os.environ.get("SUBMITIT_LOCAL_JOB_ID", str(os.getpid()))
        failed = []
        for position, number in enumerate(numbers):
            write_text(queue_file(Path(self.run), job), json.dumps(numbers[position:]))
            with open(shard_log(Path(self.run), job, number), "ab") as log:
                code = self._run(number, log)
            if self.stopped:
                break
            if code:
                say(f"shard {number} ended with exit code {code}; its log is {log.name}")
                failed.append(number)
        write_text(queue_file(Path(self.run), job), "[]")
        if failed:
            raise RuntimeError(f"these shards failed: {', '.join(map(str, failed))}")
        return numbers

    def _run(self, number: int, log: IO[bytes]) -> int:
        environment = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
        if self.devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices
        self.child = subprocess.Popen(
            command(self.run, number, self.count), env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        if self.stopped:  # told while it started
            self.child.send_signal(signal.SIGTERM)
        return self.child.wait()

    def _stop(self, *_: Any) -> None:
        self.stopped = True
        if self.child is not None:
            self.child.send_signal(signal.SIGTERM)


def queue_file(run: Path, job: str) -> Path:
    """Where a local process writes down which shards it runs or still has to run."""
    return run / LOGS / f"{job}_queue.json"


def shard_log(run: Path, job: str, number: int) -> Path:
    """The log of a shard in a local process; submitit's own log of the process has the number 0."""
    return run / LOGS / f"{job}_{number}_log.err"
