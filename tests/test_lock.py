"""The lock of a run's folder: it has one holder at any moment and ends with its process."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from processes import ended, started  # noqa: F401  (a fixture)

from plasticity.core.errors import UserError
from plasticity.runs import lock

ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import sys, time
from pathlib import Path
from plasticity.runs import lock
from plasticity.core.errors import UserError
start, where = float(sys.argv[2]), Path(sys.argv[1])
if "without" in sys.argv:
    lock.fcntl = lock.msvcrt = None
time.sleep(max(0.0, start - time.time()))
try:
    with lock.held(where):
        print("held", flush=True)
        sys.stdin.read()
except UserError as error:
    print(error, flush=True)
"""


def process(folder: Path, *words: str, start: float = 0.0) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", HOLD, str(folder), str(start), *words]
    return started(command, stdin=subprocess.PIPE)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error, lock.held(folder):
        pass
    return str(error.value)


@pytest.fixture(params=["with", "without"])
def kind(request, monkeypatch):
    """Both ways of locking: the system's, and the file's existence where the file system has no locks."""
    if request.param == "without":
        monkeypatch.setattr(lock, "fcntl", None)
        monkeypatch.setattr(lock, "msvcrt", None)
    return request.param


@pytest.mark.filterwarnings("ignore:.*no locks")
def test_the_second_process_sees_who_the_first_is(tmp_path, kind):
    folder = tmp_path / "deep" / "run"
    first = process(folder, kind)
    assert first.stdout.readline() == "held\n"
    said = refusal(folder)
    assert said.startswith(f"{folder}: in use by process {first.pid} on {socket.gethostname()} since 20")
    assert len(said.splitlines()) == 1
    first.stdin.close()
    assert first.wait(20) == 0
    assert list(folder.iterdir()) == []
    with lock.held(folder):
        assert [path.name for path in folder.iterdir()] == [lock.LOCK if kind == "with" else lock.HOLDER]
    assert list(folder.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*no locks")
def test_it_ends_with_its_process(tmp_path, kind):
    first = process(tmp_path, kind)
    assert first.stdout.readline() == "held\n"
    first.kill()
    first.wait(20)
    name = lock.LOCK if kind == "with" else lock.HOLDER
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with lock.held(tmp_path):
        assert json.loads((tmp_path / name).read_text())["pid"] == os.getpid()
        assert f"process {os.getpid()} " in refusal(tmp_path)  # also within one process
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*no locks")
def test_exactly_one_of_several_at_once(tmp_path, kind):
    """Where nothing is there, and over the file of one that was killed."""
    for _ in range(2):
        start = time.time() + 1.5
        several = [process(tmp_path / "run", kind, start=start) for _ in range(4)]
        said = [each.stdout.readline() for each in several]
        assert sum(line == "held\n" for line in said) == 1, said
        assert sum("in use by process" in line for line in said) == 3, said
        for each in several:
            each.kill()
            each.wait(20)


def test_a_holder_that_ends_between_two_calls(tmp_path, monkeypatch):
    """Its file is removed after it was opened here and before it is locked: the lock must be on the new file."""
    path, taken = tmp_path / lock.LOCK, []
    real = lock._lock

    def late(handle: int) -> None:
        if not taken:
            path.unlink()
        taken.append(handle)
        real(handle)

    monkeypatch.setattr(lock, "_lock", late)
    with lock.held(tmp_path):
        assert len(taken) == 2
        assert "in use by" in refusal(tmp_path)


@pytest.mark.parametrize("code", sorted(lock.NO_LOCKS))
def test_a_file_system_without_locks(tmp_path, monkeypatch, code):
    def refuse(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock, "_lock", refuse)
    with pytest.warns(UserWarning, match="the file system has no locks"), lock.held(tmp_path):
        assert (tmp_path / lock.HOLDER).exists()


def foreign(folder: Path, age: float, **facts: object) -> None:
    """The lock file of a process on another host, last touched this long ago."""
    path = folder / lock.HOLDER
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "then", "id": "x", **facts}))
    os.utime(path, (time.time() - age,) * 2)


@pytest.mark.filterwarnings("ignore:.*no locks")
def test_a_heartbeat_from_another_host(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    foreign(tmp_path, lock.DEAD_SECONDS - 30)
    assert "in use by process 1 on elsewhere since then" in refusal(tmp_path)
    foreign(tmp_path, lock.DEAD_SECONDS + 30)
    with lock.held(tmp_path):
        assert json.loads((tmp_path / lock.HOLDER).read_text())["host"] == socket.gethostname()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*no locks")
def test_a_number_that_another_process_has_now(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    born = psutil.Process().create_time()
    foreign(tmp_path, 0, host=socket.gethostname(), pid=os.getpid(), born=born)
    assert "in use by" in refusal(tmp_path)
    foreign(tmp_path, 0, host=socket.gethostname(), pid=os.getpid(), born=born - 1000)
    with lock.held(tmp_path):
        pass


@pytest.mark.filterwarnings("ignore:.*no locks")
def test_the_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    with lock.held(tmp_path):
        os.utime(tmp_path / lock.HOLDER, (1.0, 1.0))
        deadline = time.monotonic() + 10
        while (tmp_path / lock.HOLDER).stat().st_mtime == 1.0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match="cannot be written: Not a directory"), lock.held(tmp_path / "file" / "run"):
        pass
    assert errno.ENOTDIR not in lock.NO_LOCKS


def test_a_folder_that_is_removed_meanwhile(tmp_path):
    with lock.held(tmp_path / "run"):
        (tmp_path / "run" / lock.LOCK).unlink()
        (tmp_path / "run").rmdir()
    assert not (tmp_path / "run").exists()
