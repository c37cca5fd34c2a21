"""Output that is not read, has no destination or cannot be encoded does not stop a run."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plasticity.cli import main

ROOT = Path(__file__).resolve().parent.parent
SPEAK = """
import sys
from plasticity.cli import display
display.never_fail()
from rich.console import Console
console = Console()
for number in range(20000):
    console.print(f"line {number} \\u2500 \\u00e9")
    print(number, file=sys.stderr)
sys.stdout.flush()
open(sys.argv[1], "w").write("done")
"""


def speak(tmp_path: Path, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SPEAK, str(tmp_path / "done")], cwd=ROOT, **options)


def ended_well(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert child.wait(60) == 0
    assert (tmp_path / "done").read_text() == "done"


def test_a_reader_that_leaves(tmp_path):
    child = speak(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.readline() == "line 0 ─ é\n".encode()
    child.stdout.close()
    child.stderr.close()
    ended_well(child, tmp_path)


def test_a_terminal_that_goes_away(tmp_path):
    ours, theirs = pty.openpty()
    child = speak(tmp_path, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    assert os.read(ours, 4)
    os.close(ours)
    ended_well(child, tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
def test_a_full_disk(tmp_path):
    with open("/dev/full", "wb") as full:
        child = speak(tmp_path, stdout=full, stderr=full)
    ended_well(child, tmp_path)


def test_closed_from_the_start(tmp_path):
    """And the first file that is opened does not get the output of libraries: number 1 is taken."""
    command = f'exec "{sys.executable}" -c "$0" "$1" >&- 2>&- <&-'
    child = subprocess.Popen(["sh", "-c", command, SPEAK, str(tmp_path / "done")], cwd=ROOT)
    ended_well(child, tmp_path)


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", rb"\u2500 \xe9"), ("latin-1", b"\\u2500 \xe9")])
def test_an_encoding_without_the_character(tmp_path, encoding, shown):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    child = speak(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    out, _ = child.communicate(timeout=60)
    assert out.splitlines()[0] == b"line 0 " + shown
    ended_well(child, tmp_path)


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_commands_in_an_encoding_without_boxes(environment):
    command = [sys.executable, "-m", "plasticity", "--help"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert b"exit codes" in done.stdout.lower()


def test_ctrl_c_inside_a_callback_of_a_library_is_not_lost(usual_signals, monkeypatch, capfd):
    """Python prints an exception of a destructor and continues; Ctrl-C is raised again as soon as possible."""
    monkeypatch.setattr(sys, "unraisablehook", main._interrupt_later)

    class Interrupted:
        def __del__(self):
            raise KeyboardInterrupt

    def wait() -> None:
        Interrupted()
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        wait()
    assert "Traceback" not in capfd.readouterr().err
