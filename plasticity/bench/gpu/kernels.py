"""Implementations of the networks' convolution: equality of the results, and speed on this device."""

import functools
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.bench.convolution import Contender, work
from plasticity.bench.gpu.plan import Settings
from plasticity.bench.gpu.section import Report, Turn
from plasticity.bench.timing import Effort, Work, interleaved
from plasticity.networks.convolution import convolve

SHAPES = ((32, 1), (1, 1), (32, 16), (32, 64))  # batch, lanes
CONTENDERS = (Contender("lax", "scan", 8), Contender("patches", "scan", 8))
LAYERS = ((84, 4, 8, 4, 32), (20, 32, 4, 2, 64), (9, 64, 3, 1, 64))  # side, channels, kernel, stride, filters


def equal_values(report: Report) -> None:
    """Values and gradients of the Nature network's layers, on this device and on the CPU."""

    def both(x: Any, k: Any, stride: int, method: str) -> Any:
        def value(x: Any, k: Any) -> Any:
            return jnp.sum(jnp.sin(convolve(x, k, stride, "VALID", method)))

        return convolve(x, k, stride, "VALID", method), *jax.grad(value, (0, 1))(x, k)

    for side, channels, kernel, stride, filters in LAYERS:
        x = jax.random.normal(jax.random.key(side), (8, side, side, channels))
        k = jax.random.normal(jax.random.key(kernel), (kernel, kernel, channels, filters)) / kernel / channels**0.5
        run = jax.jit(both, static_argnums=(2, 3))
        cpu = jax.devices("cpu")[0]
        with jax.default_matmul_precision("highest"):
            exact = run(jax.device_put(x, cpu), jax.device_put(k, cpu), stride, "lax")
        for precision in ("highest", "default"):
            for method in ("lax", "patches"):
                with jax.default_matmul_precision(precision):
                    found = [jax.device_put(each, cpu) for each in run(x, k, stride, method)]
                worst = max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in zip(found, exact, strict=True))
                report.row(layer=f"{kernel}x{kernel}", precision=precision, method=method, largest_deviation=worst)


def compiled(batch: int, lanes: int) -> dict[Contender, Work]:
    """Compile every contender by calling it once."""
    made = {each: work(each, batch, lanes) for each in CONTENDERS}
    for each in made.values():
        each()
    return made


def convolution(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    """One row per shape and method: milliseconds per gradient and lane, in a scan."""
    del folder
    with report.guarded(layer="all"):
        equal_values(report)
    works: dict[tuple[int, int], dict[Contender, Work]] = {}
    for batch, lanes in SHAPES[:2] if settings.quick else SHAPES:
        if not turn.may_prepare():
            report.row(batch=batch, lanes=lanes, error="no time was left to compile it")
            continue
        with report.guarded(batch=batch, lanes=lanes):
            started = time.perf_counter()
            made = turn.prepared(functools.partial(compiled, batch, lanes))
            report.row(batch=batch, lanes=lanes, compile_seconds=round(time.perf_counter() - started, 2))
            works[batch, lanes] = made
    with turn() as seconds:
        turns = 2 * len(works) * 5
        for (batch, lanes), made in works.items():
            timed = interleaved(made, Effort(5, 0.3 * seconds / max(turns, 1)))
            for each, found in timed.items():
                milliseconds = 1e3 * statistics.median(found) / each.iterations / lanes
                report.row(batch=batch, lanes=lanes, method=each.method, milliseconds=milliseconds)
