"""Schedules: functions of the number of updates or env steps.

Values are in [0, 1]. An optimizer multiplies its learning rate by the value; an agent uses it directly (epsilon).
"""

from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import Field

from plasticity.config.fields import Duration, Fraction, Natural, metadata
from plasticity.core import schedules
from plasticity.core.schedules import Schedule

Value = Annotated[float, Field(ge=0, le=1)]


@metadata(checked="values by hand")
def constant(*, value: Fraction = 1.0, warm_up: Natural = 0) -> Schedule:
    """A constant, after an optional linear warm-up.

    Args:
      value: the value. Traced.
      warm_up: length of the warm-up, in counts: the value at count t is multiplied by ``min((t + 1) / warm_up, 1)``.
        Static.
    """
    return schedules.warm_up(schedules.constant(value), warm_up)


@metadata(checked="values by hand, and `optax.linear_schedule`")
def linear(*, start: Fraction = 1.0, end: Fraction = 0.0, duration: Duration, warm_up: Natural = 0) -> Schedule:
    """A linear change, then constant.

    ``(1 - f) start + f end`` with ``f = min(t / duration, 1)``.

    Args:
      start: value at count 0. Traced.
      end: value from count ``duration`` on. Traced.
      duration: length of the change, in updates for a learning rate and in env steps of each env for an agent's
        epsilon. Traced.
      warm_up: length of the warm-up before the change, as in :func:`constant`; t counts from its end. Static.
    """
    return schedules.warm_up(schedules.linear(start, end, duration), warm_up)


@metadata(
    paper="Loshchilov, Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts",
    checked="values by hand, and `optax.cosine_decay_schedule`",
)
def cosine(*, start: Fraction = 1.0, end: Fraction = 0.0, duration: Duration, warm_up: Natural = 0) -> Schedule:
    """Half a period of a cosine, then constant.

    ``end + (start - end) (1 + cos(pi f)) / 2`` with ``f = min(t / duration, 1)``, without restarts. The arguments are
    those of :func:`linear`.
    """
    return schedules.warm_up(schedules.cosine(start, end, duration), warm_up)


@metadata(checked="values by hand, and `numpy.interp`")
def piecewise(*, at: tuple[Natural, ...], values: tuple[Value, ...], warm_up: Natural = 0) -> Schedule:
    """Linear between given points, and constant before the first and after the last.

    ``values_i + (t - at_i) (values_{i+1} - values_i) / (at_{i+1} - at_i)`` for ``at_i <= t <= at_{i+1}``.

    Args:
      at: the counts of the points, increasing. Static.
      values: the value at each of them. Static.
      warm_up: as in :func:`linear`.

    Raises:
      ValueError: no points, or not as many values; counts that do not increase.
    """
    if not at or len(at) != len(values):
        raise ValueError(f"values: got {len(values)} for {len(at)} counts in `at`; must be as many, and at least 1")
    falling = next((i for i in range(1, len(at)) if at[i] <= at[i - 1]), None)
    if falling is not None:
        raise ValueError(f"at: {at[falling]} after {at[falling - 1]} is not allowed; the counts must increase")
    return schedules.warm_up(schedules.piecewise(at, values), warm_up)


SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant, "linear": linear, "cosine": cosine, "piecewise": piecewise,
}  # fmt: skip
