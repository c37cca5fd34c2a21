"""Steps per second and memory of an agent by the number of lanes in one vmap."""

import functools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jax
from jax.stages import Wrapped

from plasticity.bench.gpu.cases import CASES, Scaled, program, run_of
from plasticity.bench.gpu.plan import Settings
from plasticity.bench.gpu.section import Report, Turn
from plasticity.engine.memory import estimate, size_of
from plasticity.engine.runner import Run

LIMIT = 4.0  # maximum time of 64 lanes relative to one lane
REPETITIONS = 5


def bytes_in_use() -> int | None:
    stats = jax.devices()[0].memory_stats()
    return None if not stats else int(stats.get("bytes_in_use", 0))


def workspace(executable: Any) -> dict[str, int]:
    """The compiler's memory analysis of one chunk."""
    found = executable.memory_analysis()
    names = ("temp_size_in_bytes", "argument_size_in_bytes", "generated_code_size_in_bytes")
    return {name.removesuffix("_in_bytes"): int(getattr(found, name)) for name in names if hasattr(found, name)}


def compiled(run: Run) -> dict[str, Any]:
    """Compile the chunk ahead of time; returns the seconds, and the bytes of the program and the lanes' state."""
    before = bytes_in_use()
    started = time.perf_counter()
    run.begin()
    jax.block_until_ready(run.carries)
    initialised = time.perf_counter()
    hyper, seeds, _ = run.inputs[0]
    lowered = run.compiled.chunk.lower(hyper, seeds, run.carries[0], run.clock())
    traced = time.perf_counter()
    executable = lowered.compile()
    done = time.perf_counter()
    run.compiled = run.compiled._replace(chunk=cast(Wrapped, executable))
    lanes = len(run.program.seeds)
    after = bytes_in_use()
    return {
        "begin_seconds": round(initialised - started, 2),
        "trace_seconds": round(traced - initialised, 2),
        "compile_seconds": round(done - traced, 2),
        "state_bytes_per_lane": size_of(run.carry_shape()) // lanes,
        "estimated_bytes": estimate(run).total,
        "bytes_in_use": None if before is None or after is None else after - before,
        **workspace(executable),
    }


def chunks_of(run: Run, first: int) -> Iterator[Any]:
    """The run's chunks, without those before learning starts."""
    chunks = run.chunks()
    for _ in range(1 + -(-first // run.program.chunk)):
        next(chunks)
    return chunks


def timed(chunks: Iterator[Any], seconds: float) -> list[float]:
    """Time several chunks individually, for about ``seconds`` in total."""
    found: list[float] = []
    until = time.perf_counter() + seconds
    while len(found) < REPETITIONS or (time.perf_counter() < until and len(found) < 200):
        started = time.perf_counter()
        next(chunks)
        found.append(time.perf_counter() - started)
        if time.perf_counter() > until:
            break
    return found


def speed(name: str, run: Run, seconds: list[float], one: float | None) -> dict[str, Any]:
    """One row: rates, and time relative to one lane."""
    lanes, median = len(run.program.seeds), statistics.median(seconds)
    per_chunk = run.program.chunk * run.program.spec.envs
    return {
        "agent": name,
        "lanes": lanes,
        "chunk_seconds": median,
        "fastest": min(seconds),
        "repetitions": len(seconds),
        "steps_per_second": lanes * per_chunk / median,
        "microseconds_per_step": 1e6 * median / run.program.chunk,
        "time_of_one_lane": None if one is None else median / one,
        "within_limit": None if one is None or lanes != 64 else median / one <= LIMIT,
    }


def scaling(report: Report, turn: Turn, settings: Settings, folder: Path, name: str) -> None:
    """Two rows per number of lanes: compilation and speed."""
    del folder
    scaled: Scaled = CASES[name]
    ready: dict[int, Run] = {}
    for lanes in (1, 4) if settings.quick else scaled.lanes:
        if not turn.may_prepare():
            report.row(agent=name, lanes=lanes, error="no time was left to compile it")
            continue
        with report.guarded(agent=name, lanes=lanes):
            run = run_of(program(scaled.case, lanes))
            report.row(agent=name, lanes=lanes, **turn.prepared(functools.partial(compiled, run)))
            ready[lanes] = run
    playing: dict[int, Iterator[Any]] = {}
    for lanes, run in ready.items():
        with report.guarded(agent=name, lanes=lanes):
            playing[lanes] = chunks_of(run, scaled.first)
    one: float | None = None
    with turn() as seconds:
        until = time.perf_counter() + seconds
        for i, (lanes, chunks) in enumerate(playing.items()):
            with report.guarded(agent=name, lanes=lanes):
                share = (until - time.perf_counter()) / (len(playing) - i)
                row = speed(name, ready[lanes], timed(chunks, 0.8 * share), one)
                one = row["chunk_seconds"] if lanes == 1 else one
                report.row(**row, memory=peak())
    for run in ready.values():
        run.close()


def peak() -> int | None:
    """Peak bytes in use so far, over all numbers of lanes."""
    stats = jax.devices()[0].memory_stats()
    return None if not stats else int(stats.get("peak_bytes_in_use", 0))
