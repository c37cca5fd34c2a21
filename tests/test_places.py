"""Other operating systems: an experiment runs without the features that macOS and Windows lack."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml

from plasticity import bench
from plasticity.core.cores import cores

ROOT = Path(__file__).resolve().parent.parent
POSIX = ["fork", "forkpty", "killpg", "getpgid", "setsid", "getuid", "geteuid", "uname", "mkfifo", "sync", "statvfs"]
SIGNALS = ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGQUIT", "SIGPIPE", "SIGALRM", "SIGXFSZ", "SIGXCPU"]
LINUX = ["sched_getaffinity", "sched_setaffinity", "process_cpu_count", "posix_fallocate", "posix_fadvise"]
LACKING = {
    "darwin": {"os": LINUX, "signal": [], "modules": []},
    "win32": {"os": [*LINUX, *POSIX], "signal": SIGNALS, "modules": ["fcntl", "resource", "termios", "pwd", "grp"]},
}

# Third parties are imported before: what they need of a system is theirs to know.
PRETEND = """
import importlib, os, shutil, signal, sys
import jax, matplotlib.pyplot, pandas, psutil, pyarrow.parquet, rich.progress, scipy.stats, sklearn.datasets, typer
import filelock, gymnasium.vector, multiprocessing.context, multiprocessing.popen_spawn_posix, platformdirs
lacking, commands = {lacking!r}, {commands!r}
if 'statvfs' in lacking['os']:  # Windows answers this in another way
    usage = shutil.disk_usage('.')
    shutil.disk_usage = lambda path: usage
{platform}
for name in lacking["os"]:
    if hasattr(os, name):
        delattr(os, name)
for name in lacking["signal"]:
    if hasattr(signal, name):
        delattr(signal, name)
for name in lacking["modules"]:
    sys.modules[name] = None
from plasticity.cli import main
for command in commands:
    sys.argv = ["plasticity", *command]
    try:
        main.main()
    except SystemExit as stopped:
        assert not stopped.code, (command, stopped.code)
"""


def test_cores(monkeypatch):
    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.parametrize("system", [pytest.param("darwin", marks=pytest.mark.slow), "win32"])
def test_an_experiment_runs_without_what_another_system_lacks(system, tmp_path):
    config, run = tmp_path / "tiny.yaml", str(tmp_path / "run")
    config.write_text(yaml.safe_dump(tiny.document(monitors=[], seeds=1, stream=STREAM)), encoding="utf-8")
    commands = [["plan", str(config)], ["run", str(config), "--out", run], ["watch", run, "--once"]]
    platform = f"sys.platform = {system!r}"
    text = PRETEND.format(lacking=LACKING[system], commands=commands, platform=platform)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert (tmp_path / "run/figures/performance.png").exists(), done.stdout.decode()


STREAM = {**tiny.document()["stream"], "tasks": 2}


def text_calls(tree: ast.AST) -> list[int]:
    """Lines that open a text file without an encoding; Windows would use a code page."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        method = isinstance(call.func, ast.Attribute)  # our own function write_text writes UTF-8
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        plain = name == "open" and not method
        mode = call.args[1].value if len(call.args) > 1 and isinstance(call.args[1], ast.Constant) else "r"
        if (
            (method and name in ("read_text", "write_text")) or (plain and "b" not in str(mode))
        ) and "encoding" not in {keyword.arg for keyword in call.keywords}:
            found.append(call.lineno)
    return found


def test_text_is_utf_8_everywhere():
    assert text_calls(ast.parse("p.read_text(); open(p); open(p, 'rb'); p.write_text(t, encoding='utf-8')")) == [1, 1]
    for top in ("plasticity", "agents", "envs", "docs", "examples"):
        for path in (ROOT / top).rglob("*.py"):
            assert not text_calls(ast.parse(path.read_text(encoding="utf-8"))), path


def test_the_core_asks_the_system_in_one_place():
    """Names that only some systems have are guarded where they are used."""
    for top in ("plasticity", "agents", "envs"):
        for path in (ROOT / top).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path.name != "cores.py":
                assert "sched_getaffinity" not in text, path
                assert "os.cpu_count" not in text, path


def test_the_help_of_bench_names_every_benchmark(capsys):
    from typer.testing import CliRunner

    from plasticity.cli.main import app

    shown = CliRunner().invoke(app, ["bench", "--help"]).output
    for name, benchmark in bench.BENCHMARKS.items():
        assert f"{name}: {benchmark.title}" in " ".join(shown.split()), name
