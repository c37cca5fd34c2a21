"""A Slurm cluster of one node in a folder of its own, for tests."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None]
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
SlurmctldPort={port}
SlurmdPort={next_port}
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
SchedulerParameters=sched_interval=1,bf_interval=1
MaxArraySize={array}
KillWait=5
SlurmdTimeout=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 MaxTime=INFINITE State=UP
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


def until(true: Callable[[], Any], seconds: float = 120.0, what: str = "") -> Any:
    """Wait until this is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds} s: {what}")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Cluster:
    def __init__(self, place: Path, array: int) -> None:
        self.place, self.host = place, socket.gethostname().partition(".")[0]
        for name in ("state", "spool"):
            (place / name).mkdir(parents=True)
        (place / "slurm.conf").write_text(
            CONFIG.format(host=self.host, user=os.environ.get("USER", "root"), place=place,
                          port=free_port(), next_port=free_port(), array=array)
        )  # fmt: skip
        self.environment = {**os.environ, "SLURM_CONF": str(place / "slurm.conf"),
                            "PATH": f"{os.environ['PATH']}:/usr/sbin"}  # fmt: skip
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, daemon: str) -> None:
        with open(self.place / f"{daemon}.out", "ab") as out:
            self.processes[daemon] = subprocess.Popen(
                [daemon, "-D"], env=self.environment, stdout=out, stderr=out, start_new_session=True
            )

    def kill_node(self) -> None:
        """As if the machine lost its power: slurmd and everything that it started."""
        children = subprocess.run(
            ["pgrep", "-f", str(self.place / "spool")], capture_output=True, text=True, check=False
        )
        for pid in map(int, children.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
        self.processes["slurmd"].kill()
        self.processes["slurmd"].wait()

    def ask(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def states(self) -> dict[str, str]:
        """The state of each job that is not over."""
        lines = self.ask("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def stop(self) -> None:
        with contextlib.suppress(Exception):
            self.ask("scancel", "--full", "--user", os.environ.get("USER", "root"))
            until(lambda: not self.states(), 20.0, "jobs end")
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)


@contextlib.contextmanager
def cluster(place: Path, array: int = 1001) -> Iterator[Cluster]:
    """A running cluster; ``array``: Slurm's MaxArraySize."""
    made = Cluster(place, array)
    try:
        made.start("slurmctld")
        made.start("slurmd")
        until(lambda: "idle" in made.ask("sinfo", "--noheader", "--format=%t"), 30.0, "the node is idle")
        yield made
    finally:
        made.stop()
