"""Compile everything that a run will call before it is called, several functions at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from plasticity.engine.evaluation import targets
from plasticity.engine.program import Program
from plasticity.engine.runner import Run

LOOKED_AT = 10_000  # chunks of a run, for what can be due together


def due_together(program: Program) -> list[tuple[int, ...]]:
    """The sets of monitors that are due at the same time, as ``Run`` numbers them."""
    total = sum(visit.steps for visit in program.spec.visits)
    ends = range(program.chunk, min(total, LOOKED_AT * program.chunk) + 1, program.chunk)
    found = {tuple(i for i, each in enumerate(program.monitors) if end % each.every == 0) for end in ends}
    return sorted(found - {()})


def _lowered(run: Run) -> Iterator[Any]:
    """The traced functions of a run, the largest first, with arguments as ``Run`` passes them."""
    compiled, program = run.compiled, run.program
    hyper, seeds, block = run.inputs[0]
    clock, number = run.clock(), np.int32(0)

    def placed(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=compiled.sharding, weak_type=x.weak_type)

    carry = jax.tree.map(placed, run.carry_shape())
    yield compiled.chunk.lower(hyper, seeds, carry, clock)
    for due in due_together(program):
        yield compiled.measure.lower(hyper, seeds, carry, clock, due)
    if not run.carries:
        yield compiled.begin.lower(hyper, seeds, block)
    if len(program.spec.visits) > 1 or program.origin.visits:
        yield compiled.switch.lower(hyper, seeds, carry, clock, number, block)
    if program.evaluation and targets(program.spec, 0, program.evaluation.tasks):
        yield compiled.evaluate.lower(hyper, seeds, carry, clock, number, number, block)


def compile_ahead(run: Run, workers: int) -> None:
    """Compile the functions of a run in ``workers`` threads; ``jit`` then finds them.

    JAX keeps what it compiles with the traced function, so nothing is traced or compiled twice (a test counts it).
    """
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda lowered: lowered.compile(), _lowered(run)))
