"""Facts about the machine that the numbers depend on."""

import importlib.metadata
import os
import platform
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from plasticity.bench.gpu.plan import Settings
from plasticity.bench.gpu.section import Report, Turn
from plasticity.core.cores import cores

PACKAGES = (
    "jax", "jaxlib", "jax-cuda13-plugin", "nvidia-cudnn-cu13", "nvidia-cublas", "flax", "optax", "rlax", "flashbax",
    "gymnasium", "ale-py", "envpool", "pydantic", "numpy", "pandas",
)  # fmt: skip


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def facts(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    """One row on the machine, and one per precision: the rounding error of a float32 matrix product."""
    del turn, settings, folder
    started = time.perf_counter()
    device = jax.devices()[0]
    report.row(
        backend=jax.default_backend(),
        device=device.device_kind,
        devices=len(jax.devices()),
        memory=(device.memory_stats() or {}).get("bytes_limit"),
        seconds_to_the_first_device=round(time.perf_counter() - started, 2),
        cpus=cores(),
        machine=platform.machine(),
        xla_flags=os.environ.get("XLA_FLAGS", ""),
        packages={name: version(name) for name in PACKAGES},
    )
    cpu = jax.devices("cpu")[0]
    left, right = (jax.random.normal(jax.random.key(i), (512, 512)) for i in range(2))
    exact = jax.device_put(left, cpu) @ jax.device_put(right, cpu)
    for precision in ("default", "tensorfloat32", "highest"):
        with report.guarded(matrix_product=precision), jax.default_matmul_precision(precision):
            found = jax.device_put(jax.jit(jnp.matmul)(left, right), cpu)
            report.row(matrix_product=precision, deviation=jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))
