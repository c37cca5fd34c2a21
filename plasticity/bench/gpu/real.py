"""A real run as started by a user: stopped by a signal, resumed, and stopped when the time is over."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plasticity.bench.gpu.plan import Settings
from plasticity.bench.gpu.section import Report, Turn
from plasticity.config.documents import to_yaml

SEEDS = 32
AGENT: dict[str, Any] = {
    "kind": "dqn", "network": "minatar", "optimizer": {"kind": "adam", "learning_rate": 2.5e-4, "eps": 3.125e-4},
    "epsilon": {"end": 0.01, "duration": 5_000}, "replay": {"capacity": 10_000, "minimum": 1_000},
    "target_period": 250,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "name": "gpu",
    "stream": {"kind": "minatar", "games": ["breakout", "space_invaders", "asterix"], "steps_per_visit": 20_000},
    "agent": AGENT,
    "monitors": ["effective_rank", "dormant_units", "weight_norm", "hessian_top_eigenvalue"],
    "monitor_every": 10_000,
    "record_every": 1_000,
    "checkpoint_every": 10_000,
    "probe_size": 256,
    "seeds": SEEDS,
    "arms": {
        "baseline": {},
        "layer_norm": {"interventions": ["layer_norm"]},
        "fresh": {"task_aware": True, "interventions": [{"kind": "reset", "when": "switch"}]},
    },
}
QUICK: list[str] = ["stream.steps_per_visit=2000", "seeds=2", "monitor_every=1000", "record_every=100",
                    "checkpoint_every=1000"]  # fmt: skip
STOP = 40.0  # seconds that a run may take to save and end after a signal


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "plasticity.cli.main", "run", str(folder / "config.yaml"), *options]


def progress(run: Path) -> dict[str, Any]:
    """State, steps and steps per second of each arm that has started."""
    found = {}
    for path in sorted(run.glob("*/status.json")):
        status = json.loads(path.read_text(encoding="utf-8"))
        keys = ("state", "step", "steps", "steps_per_second", "lanes")
        found[path.parent.name] = {key: status.get(key) for key in keys}
    return found


def done(run: Path) -> int:
    return sum(each["step"] or 0 for each in progress(run).values())


def until(process: subprocess.Popen[bytes], moment: float, reached: Any) -> None:
    while process.poll() is None and time.monotonic() < moment and not reached():
        time.sleep(0.2)


def stopped(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code after SIGTERM; None if it had to be killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        return None


def real(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    """Start the run before its turn (it compiles), stop it after the first steps, and resume it during the turn."""
    run = folder / "run"
    (folder / "config.yaml").write_text(to_yaml(CONFIG), encoding="utf-8")
    changes = [*(QUICK if settings.quick else []), "--out", str(run)]
    started = time.monotonic()
    with (folder / "run.log").open("w") as log:
        first = subprocess.Popen(command(folder, *changes), stdout=log, stderr=log, env=os.environ.copy())
        until(first, time.monotonic() + turn.prepare_until - time.time(), lambda: done(run) > 0)
        code = stopped(first)
        before = done(run)
        report.row(what="begun", exit_code=code, seconds=round(time.monotonic() - started, 1), steps=before,
                   arms=progress(run))  # fmt: skip
        with turn() as seconds:
            resumed = time.monotonic()
            options = [*changes, *(["--resume"] if before else ["--force"])]
            second = subprocess.Popen(command(folder, *options), stdout=log, stderr=log)
            until(second, resumed + seconds - 15, lambda: False)
            whole = second.poll() is not None
            code = stopped(second)
    report.row(
        what="resumed", whole=whole, exit_code=code, seconds=round(time.monotonic() - resumed, 1),
        steps=done(run) - before, arms=progress(run),
        log=(folder / "run.log").read_text(encoding="utf-8").splitlines()[-15:],
    )  # fmt: skip
    with report.guarded(what="performance"):
        report.row(what="performance", visits=performance(run))


def performance(run: Path) -> list[dict[str, Any]]:
    """Mean performance by arm and visit."""
    from plasticity import results

    found = results.visits(run).groupby(["arm", "visit"], observed=True).performance.mean()
    rows: list[dict[str, Any]] = found.reset_index().to_dict("records")  # type: ignore[assignment]
    return [{"arm": row["arm"], "visit": int(row["visit"]), "performance": float(row["performance"])} for row in rows]
