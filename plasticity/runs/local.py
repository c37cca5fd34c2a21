"""Processes on this machine that run the shards of a run, each with a queue of its own, through submitit."""

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from plasticity.runs.queue import LOGS, note, records
from plasticity.runs.turns import Turns, queue_file

SAME = 2.0  # seconds between two times of birth of one process
YEAR = 60 * 24 * 365  # in minutes


def start(run: Path, count: int, wanted: Sequence[int], processes: int) -> tuple[str, ...]:
    """Start processes, each with some of the shards; returns a job for each shard."""
    import submitit

    place = run.absolute()
    executor = submitit.LocalExecutor(folder=place / LOGS)
    executor.update_parameters(timeout_min=YEAR)
    turns = Turns(str(place), count, os.environ.get("CUDA_VISIBLE_DEVICES"))  # submitit hides all GPUs
    names: dict[int, str] = {}
    for queue in [list(wanted[i::processes]) for i in range(min(processes, len(wanted)))]:
        with _detached(place / LOGS / "local.log"):
            job = str(executor.submit(turns, queue).job_id)
        born = psutil.Process(int(job)).create_time()
        note(run, [job] * len(queue), queue, host=socket.gethostname(), born=born)
        names |= dict.fromkeys(queue, job)
    return tuple(names[number] for number in wanted)


@contextlib.contextmanager
def _detached(log: Path) -> Iterator[None]:
    """Processes started here write to the log and read nothing; else a pipe after ``launch`` would wait for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in range(3)]
    try:
        with open(os.devnull, "rb") as nothing, open(log, "ab") as file:
            for number, end in enumerate((nothing, file, file)):
                os.dup2(end.fileno(), number)
        yield
    finally:
        for number, before in enumerate(kept):
            os.dup2(before, number)
            os.close(before)


def queued(run: Path) -> dict[int, psutil.Process]:
    """The shards that a process on this machine runs or still has in its queue, with this process."""
    found: dict[int, psutil.Process] = {}
    known: dict[tuple[str, float], tuple[psutil.Process | None, list[int] | None]] = {}
    for each in records(run):
        if each.get("host") != socket.gethostname() or "born" not in each:
            continue
        key = job, born = str(each["job"]), float(each["born"])
        if key not in known:
            known[key] = _process(int(job), born), _left(queue_file(run, job))
        process, left = known[key]
        if process is not None and (left is None or each["shard"] in left):
            found[each["shard"]] = process
    return found


def _process(pid: int, born: float) -> psutil.Process | None:
    """The process, if it is still the one that was started."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - born) < SAME and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same else None


def _left(path: Path) -> list[int] | None:
    """The queue that a process has written down; None if it has not started yet."""
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def stop(run: Path) -> list[int]:
    """Tell the run's processes on this machine to save and to end; returns their ids."""
    told = []
    for pid in sorted({process.pid for process in queued(run).values()}):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            told.append(pid)
    return told
