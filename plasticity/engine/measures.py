"""Measures of a stream besides its performance, such as success, aggregated over each episode.

A measure ``NAME`` becomes two columns, means over the episodes that ended: ``NAME``, its largest value at any step of
the episode, and ``NAME_at_end``, its value at the episode's last step. A stream without measures keeps no state for
them.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from plasticity.core.types import FIRST, Array, Metrics, StreamSpec

AT_END = "_at_end"
OWN = ("reward", "episodes", "episodic_return", "episode_length", "update", "diverged_at")  # columns of every run


def columns(names: Sequence[str]) -> tuple[str, ...]:
    """The columns of measures."""
    return tuple(name + end for name in names for end in ("", AT_END))


def ranges(spec: StreamSpec) -> dict[str, tuple[float, float]]:
    """The ranges of the columns, and of those of evaluations, where the spec has them."""
    known = dict(zip(spec.measures, spec.measure_ranges, strict=False))
    return {
        f"{where}{name}": known[each] for each in known for name in columns([each]) for where in ("", "evaluation_")
    }


def blank(envs: int, count: int) -> Any:
    """The largest values before the first step of an episode, float32[envs, count]; () if there are no measures."""
    return jnp.full((envs, count), -jnp.inf) if count else ()


def largest(best: Array, values: Array, step_type: Array) -> Array:
    """``best`` after one more step; an episode starts anew at FIRST, which has no values."""
    return jnp.where((step_type == FIRST)[:, None], -jnp.inf, jnp.maximum(best, values))


def ended(best: Array, values: Array, last: Array) -> Array:
    """What the episodes that end at this step contribute: float32[E, measures, 2], 0 elsewhere."""
    return jnp.where(last[:, None, None], jnp.stack([best, values], -1), 0.0)


def named(names: Sequence[str], totals: Array) -> Metrics:
    """``totals`` [measures, 2] by the names of the columns."""
    return dict(zip(columns(names), totals.reshape(-1), strict=True))
