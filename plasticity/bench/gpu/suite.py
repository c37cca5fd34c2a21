"""The quick tests relevant to an accelerator, run by pytest until the time is over."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

from plasticity.bench.gpu.plan import Settings
from plasticity.bench.gpu.section import Report, Turn

ROOT = Path(__file__).resolve().parent.parent.parent.parent
FILES = (
    "tests/test_convolution.py", "tests/test_lanes.py", "tests/test_trees.py", "tests/test_linalg.py",
    "tests/test_packing.py", "tests/test_checkpoint.py", "tests/test_runner.py", "tests/test_in_place.py",
    "tests/agents/test_replay.py", "tests/agents/test_advantages.py", "tests/monitors/test_monitor_curvature.py",
    "tests/envs/test_minatar.py", "tests/envs/test_host.py", "tests/test_against_plain_optax.py",
)  # fmt: skip
WORD, TEST = "(PASSED|FAILED|ERROR|SKIPPED)", r"(tests/\S+)"
RESULT = re.compile(f"{WORD} {TEST}|{TEST} {WORD}")  # with processes, and without
PROCESSES = 5
EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "XLA_FLAGS": ""}  # tests compare closely


def command(quick: bool) -> list[str]:
    files = FILES[1:3] if quick else FILES
    options = ["-vv", "-m", "not slow", "-p", "no:cacheprovider", "--tb=short", "-rfE"]
    spread = [] if quick else ["-n", str(PROCESSES), "--dist", "loadfile"]
    return [sys.executable, "-m", "pytest", *options, *spread, *files]


def suite(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    """One row: the number of passed tests and the names of the others, with details at the end of ``output``."""
    if not (ROOT / FILES[0]).exists():
        report.row(error="there are no tests next to the package")
        return
    env = {**os.environ, **EXACT, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
    process = subprocess.Popen(
        command(settings.quick), cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with process:
        counts, output = followed(process, report, turn)
    report.row(counts=counts, complete=turn.may_prepare(), exit_code=process.returncode, output=output[-60:])


def followed(process: "subprocess.Popen[str]", report: Report, turn: Turn) -> tuple[dict[str, int], list[str]]:
    """Counts of test results, and pytest's output; ends the process when the time to prepare is over."""
    assert process.stdout is not None
    counts: dict[str, int] = {}
    output: list[str] = []
    said = 0.0
    for line in process.stdout:
        output.append(line.rstrip())
        if (found := RESULT.search(line)) and not line.startswith(("FAILED", "ERROR")):  # not the summary at the end
            result, name = found[1] or found[4], found[2] or found[3]
            counts[result] = counts.get(result, 0) + 1
            if result in ("FAILED", "ERROR"):
                report.row(failed=name)
        if counts and time.monotonic() - said > 5:
            said = time.monotonic()
            report.row(counts=dict(counts))
        if not turn.may_prepare():
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
            break
    return counts, output
