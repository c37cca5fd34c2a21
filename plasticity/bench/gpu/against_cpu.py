"""Identical updates on GPU and CPU: same seeds and program, for each precision of matrix products."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from plasticity.bench.cases import Case
from plasticity.bench.gpu.cases import CASES, on_host, program, run_of
from plasticity.bench.gpu.plan import Settings
from plasticity.bench.gpu.section import Report, Turn

# Environment steps after which the two are compared. The first are few: once an action differs because of rounding, two
# reinforcement learners diverge permanently.
STEPS = {"ppo": (128, 256)}
USUAL_STEPS = (8, 72, 200)
TOLERANCE = 1e-3  # relative to the change of the parameters; highest precision, first comparison after an update
PRECISIONS = ("highest", "default")


def flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def states(case: Case, device: jax.Device, ends: tuple[int, ...]) -> list[Any]:
    """The states at the start and after each number of steps."""
    with jax.default_device(device):
        run = run_of(program(case, 2), device)
        run.begin()
        found, done = [on_host(run.carries[0])], 0
        chunks = run.chunks()
        for end in ends:
            while done < end:
                next(chunks)
                done += case.chunk
            found.append(on_host(run.carries[0]))
    run.close()
    return found


def deviation(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-30)


def same_stream(found: Any, expected: Any) -> bool:
    """Whether both had the same experience: their newest time steps agree."""
    pairs = zip(jax.tree.leaves(found.timestep), jax.tree.leaves(expected.timestep), strict=True)
    return all(np.allclose(x, y, rtol=1e-5, atol=1e-5) for x, y in pairs)


def row(start: Any, initial: Any, found: Any, expected: Any) -> dict[str, Any]:
    """``start``, ``initial``: the initial parameters on the GPU and on the CPU."""
    ours, theirs = flat(found.agent.learner.params), flat(expected.agent.learner.params)
    change, other = ours - flat(start.agent.learner.params), theirs - flat(initial.agent.learner.params)
    return {
        "updates": int(np.max(expected.updates)),
        "of_parameters": deviation(ours, theirs),
        "of_change": deviation(change, other) if np.any(other) else 0.0,
        "largest": float(np.max(np.abs(ours - theirs))),
        "same_stream": same_stream(found, expected),
        "finite": bool(np.isfinite(ours).all()),
    }


def against_cpu(report: Report, turn: Turn, settings: Settings, folder: Path, name: str) -> None:
    """One row per precision and number of steps; ``within``: whether it is within the tolerance, where required."""
    del turn, folder
    ends = STEPS.get(name, USUAL_STEPS)[: 2 if settings.quick else None]
    case = CASES[name].case._replace(chunk=ends[0])
    expected = states(case, jax.devices("cpu")[0], ends)
    for precision in PRECISIONS:
        with report.guarded(agent=name, precision=precision), jax.default_matmul_precision(precision):
            found = states(case, jax.devices()[0], ends)
            first = True
            for steps, ours, theirs in zip(ends, found[1:], expected[1:], strict=True):
                made = row(found[0], expected[0], ours, theirs)
                asked = first and precision == "highest" and made["updates"] > 0
                first = first and made["updates"] == 0
                within = made["of_change"] <= TOLERANCE if asked else None
                report.row(agent=name, precision=precision, steps=steps, **made, within=within)
