"""Bitwise reproducibility of a second run, and of a resumed one."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from plasticity.bench.gpu.cases import CASES, on_host, program, run_of
from plasticity.bench.gpu.plan import AGENTS, Settings
from plasticity.bench.gpu.section import Report, Turn
from plasticity.engine.program import Compiled
from plasticity.engine.runner import Position, Run
from plasticity.runs import checkpoint
from plasticity.runs.checkpoint import Snapshot

LANES, CHUNKS = 4, 3


def started_run(name: str, known: Compiled | None = None) -> Run:
    run = run_of(program(CASES[name].case._replace(chunk=128), LANES))
    if known is not None:
        run.compiled = known
    return run


def advanced(run: Run, chunks: int) -> Any:
    """The carry after a number of chunks, on the host."""
    made = run.chunks()
    for _ in range(chunks):
        next(made)
    return on_host(run.carries[0])


def differing(found: Any, expected: Any) -> list[str]:
    """Paths of the arrays that are not bitwise equal."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True)
    return [
        jax.tree_util.keystr(path)
        for (path, ours), theirs in pairs
        if not np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")
    ]


def digest(tree: Any) -> str:
    whole = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        whole.update(np.ascontiguousarray(leaf).tobytes())
    return whole.hexdigest()[:16]


def repeated(settings: Settings) -> tuple[str, ...]:
    return AGENTS[:2] if settings.quick else AGENTS


def determinism(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    """One row per agent; the digest allows comparison with another process."""
    del turn, folder
    for name in repeated(settings):
        with report.guarded(agent=name):
            one = started_run(name)
            first = advanced(one, CHUNKS)
            second = advanced(started_run(name, one.compiled), CHUNKS)
            unequal = differing(second, first)
            report.row(agent=name, equal=not unequal, digest=digest(first), differing=unequal[:8], count=len(unequal))


def resume(report: Report, turn: Turn, settings: Settings, folder: Path) -> None:
    """One row per agent: a run saved halfway and resumed from the file, compared with an uninterrupted one."""
    del turn
    for name in repeated(settings):
        with report.guarded(agent=name):
            one = started_run(name)
            whole = advanced(one, CHUNKS)
            half = started_run(name, one.compiled)
            advanced(half, 1)
            meta = {"fingerprint": name, "position": list(half.position), "parts": 0, "files": {}}
            checkpoint.save(folder / name, "1", Snapshot(jax.device_get(half.carries), {}, meta))
            found, passed = checkpoint.newest(folder / name, [half.carry_shape()], name)
            if found is None:
                raise ValueError(f"the checkpoint cannot be read: {passed}")
            other = started_run(name, one.compiled)
            other.restore(found.arrays, Position(*found.meta["position"]), found.host)
            unequal = differing(advanced(other, CHUNKS - 1), whole)
            report.row(agent=name, equal=not unequal, differing=unequal[:8], count=len(unequal))
