"""Numbers that depend on a count of steps, as pure functions of it; every argument may be traced."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from plasticity.core.types import Array

Number = Array | float
Schedule = Callable[[Array], Array]  # int32[] count from 0 -> float32[]


def constant(value: Number) -> Schedule:
    """``value`` at every count."""
    return lambda count: jnp.asarray(value, jnp.float32)


def fraction(count: Array, steps: Number) -> Array:
    """``count / steps``, clipped to [0, 1]; 1 if ``steps`` is below 1 and count at least 1."""
    return jnp.clip(count / jnp.maximum(steps, 1), 0.0, 1.0)


def linear(start: Number, end: Number, steps: Number) -> Schedule:
    """``(1 - f) start + f end`` with ``f = min(count / steps, 1)``: exactly ``end`` from count ``steps`` on."""

    def schedule(count: Array) -> Array:
        done = fraction(count, steps)
        return (1.0 - done) * start + done * end

    return schedule


def cosine(start: Number, end: Number, steps: Number) -> Schedule:
    """``end + (start - end) (1 + cos(pi f)) / 2`` with ``f = min(count / steps, 1)``.

    Loshchilov, Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts"; one period, no restart.
    """

    def schedule(count: Array) -> Array:
        left = 0.5 * (1.0 + jnp.cos(jnp.pi * fraction(count, steps)))
        return left * start + (1.0 - left) * end

    return schedule


def piecewise(at: Sequence[int], values: Sequence[float]) -> Schedule:
    """Linear between the points ``(at_i, values_i)``, constant before the first and after the last."""
    counts, numbers = jnp.asarray(at, jnp.float32), jnp.asarray(values, jnp.float32)
    return lambda count: jnp.interp(jnp.asarray(count, jnp.float32), counts, numbers)


def warm_up(schedule: Schedule, steps: Number) -> Schedule:
    """``min((count + 1) / steps, 1) schedule(max(count - steps, 0))``: a linear rise in front of ``schedule``.

    The rise ends at count ``steps - 1`` and is never 0; with ``steps = 0`` the schedule is unchanged.
    """
    if isinstance(steps, int) and steps == 0:
        return schedule

    def with_warm_up(count: Array) -> Array:
        # In float32: a count that stays at 2^31 - 1 (the largest) must not wrap to below 0.
        return fraction(jnp.asarray(count, jnp.float32) + 1.0, steps) * schedule(jnp.maximum(count - steps, 0))

    return with_warm_up
