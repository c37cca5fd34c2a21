"""Cost of the monitors on this device, starting with those of the Hessian."""

import functools
import statistics
import time
from pathlib import Path
from typing import Any

import jax

from plasticity.bench.agents import BREAKOUT
from plasticity.bench.cases import CASES, Case, job
from plasticity.bench.gpu.cases import NATURE, run_of
from plasticity.bench.gpu.plan import Settings
from plasticity.bench.gpu.section import Report, Turn
from plasticity.engine.runner import Run

MONITORS = ("hessian_top_eigenvalue", "hessian_trace", "effective_rank", "dormant_units")
DQN: dict[str, Any] = {**NATURE, "network": "minatar"}
LEARNERS = {
    "MLP": (CASES["classifier"], 512, (8, 64)),
    "MinAtar": (Case({"stream": BREAKOUT, "agent": DQN}, 64, ()), 512, (8,)),
    "Nature": (Case({"stream": "frames", "agent": NATURE}, 64, ()), 256, (2,)),
}


def measure(run: Run, which: int) -> Any:
    hyper, seeds, _ = run.inputs[0]
    return jax.block_until_ready(run.compiled.measure(hyper, seeds, run.carries[0], run.clock(), (which,)))


def seconds_of(run: Run, which: int, budget: float) -> list[float]:
    found: list[float] = []
    until = time.perf_counter() + budget
    while len(found) < 3 or (time.perf_counter() < until and len(found) < 30):
        started = time.perf_counter()
        measure(run, which)
        found.append(time.perf_counter() - started)
    return found


def curvature(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    """One row per monitor, learner and number of lanes: milliseconds per measurement and lane."""
    del folder
    ready: list[tuple[str, int, int, Run]] = []
    for learner, (case, probe, numbers) in LEARNERS.items():
        for lanes in numbers[: 1 if settings.quick else None]:
            if settings.quick and learner != "MLP":
                continue
            measuring = {"monitors": list(MONITORS), "monitor_every": "visit", "probe_size": probe}
            run = run_of(job(case, 2 if settings.quick else lanes, **measuring).program)
            chunks = run.chunks()
            for _ in range(2):
                next(chunks)
            for which, monitor in enumerate(MONITORS):
                if turn.may_prepare():
                    with report.guarded(learner=learner, lanes=lanes, monitor=monitor):
                        started = time.perf_counter()
                        turn.prepared(functools.partial(measure, run, which))
                        compiled = round(time.perf_counter() - started, 2)
                        report.row(learner=learner, lanes=lanes, monitor=monitor, compile_seconds=compiled)
                        ready.append((learner, lanes, which, run))
    with turn() as seconds:
        for learner, lanes, which, run in ready:
            with report.guarded(learner=learner, lanes=lanes, monitor=MONITORS[which]):
                found = seconds_of(run, which, 0.7 * seconds / len(ready))
                milliseconds = 1e3 * statistics.median(found) / len(run.program.seeds)
                report.row(learner=learner, lanes=lanes, monitor=MONITORS[which], milliseconds=milliseconds)
