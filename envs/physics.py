"""Problems whose physics changes: factors per task, and a step of a Runge-Kutta method."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from plasticity.core.types import Array, Key, Visit

Factor = float | tuple[float, ...]
Change = Literal["none", "observation", "action", "physics"]


class Physics(NamedTuple):
    """A visit's problem: factors applied to the standard constants. A problem uses those that act on it."""

    gravity: Array
    length: Array
    gain: Array  # of an action's force; negative if the task reverses it
    mass: Array | float = 1.0
    damping: Array | float = 0.0


# Factor -> whether a value is allowed, and in words; all others must be positive.
ALLOWED: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "damping": (lambda x: 0 <= x < np.inf, "one or more numbers of at least 0"),
    "gain": (lambda x: x != 0 and abs(x) < np.inf, "one or more factors other than 0"),
}
POSITIVE: tuple[Callable[[float], bool], str] = (lambda x: x > 0, "one or more factors greater than 0")


def factors(
    change: str, allowed: Mapping[str, tuple[Callable[[float], bool], str]] = ALLOWED, **given: Factor
) -> tuple[dict[str, np.ndarray], int]:
    """Each factor as an array with one value per task, and the number of distinct tasks."""
    rows = {name: value if isinstance(value, Sequence) else (value,) for name, value in given.items()}
    for name, row in rows.items():
        fine, words = allowed.get(name, POSITIVE)
        if not row or not all(map(fine, row)):
            raise ValueError(f"{name}: {given[name]} is not allowed; must be {words}")
    count = max(map(len, rows.values()))
    if any(len(row) not in (1, count) for row in rows.values()):
        counts = " and ".join(f"{len(row)} factors for {name}" for name, row in rows.items())
        raise ValueError(f"{counts} are not allowed; each setting must have one factor, or all the same number of them")
    if (count > 1) != (change == "physics"):
        several = f"{count} factors for {' or '.join(rows)}; must be physics"
        single = f"one factor each for {' and '.join(rows)}; give one of them several"
        raise ValueError(f"change: {change} is not allowed with {single if count == 1 else several}")
    return {name: np.broadcast_to(np.asarray(row, np.float32), (count,)) for name, row in rows.items()}, count


def physics_params(
    rows: Mapping[str, np.ndarray], count: int, reverse: bool = False
) -> Callable[[Key, Visit], Physics]:
    """The ``params`` of a task with these factors; with ``reverse``, every second task has the opposite sign."""

    def params(key: Key, visit: Visit) -> Physics:
        del key
        own = {name: jnp.asarray(row)[visit.task % count] for name, row in rows.items()}
        one, sign = jnp.ones(()), jnp.where(reverse & (visit.task % 2 == 1), -1.0, 1.0)
        standard = Physics(one, one, one, one, 0 * one)._replace(**own)
        return standard._replace(gain=sign * standard.gain)

    return params


def runge_kutta(slope: Callable[[Array], Array], state: Array, time: float) -> Array:
    """The state after ``time``, by one step of the classical fourth-order method."""
    one = slope(state)
    two = slope(state + time / 2 * one)
    three = slope(state + time / 2 * two)
    four = slope(state + time * three)
    return state + time / 6 * (one + 2 * two + 2 * three + four)
