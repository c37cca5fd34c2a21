"""Worker processes are protected from signals from the start."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STARTS = """
import multiprocessing, signal, time
from plasticity.envs import workers
with workers.shielded():
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0,))
    child.start()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    print(sorted(set(workers.SIGNALS) - blocked))
child.join()
print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="the system has no signal masks")
def test_the_first_process_that_is_started_does_not_lift_the_shield():
    """multiprocessing starts its resource tracker then, and unblocks SIGINT and SIGTERM afterwards."""
    done = subprocess.run([sys.executable, "-c", STARTS], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["[]", "[]"]
