"""Check that a run's counts fit the counters of its programs, with Python integers, before anything is built."""

from plasticity.config.fields import LARGEST
from plasticity.core.types import StreamSpec

VISITS = 1_000_000  # of a stream
LANES = 1_000_000  # of an arm


def total_steps(spec: StreamSpec) -> int:
    """Env steps of each env in all visits."""
    return sum(visit.steps for visit in spec.visits)


def check(what: str, number: int, limit: int = LARGEST, why: str = "a counter of 32 bits cannot hold more") -> None:
    """``ValueError`` in one line if the number exceeds the limit."""
    if number > limit:
        raise ValueError(f"{what} would be {number:,}; at most {limit:,} are allowed ({why})")


def check_visits(tasks: int, cycles: int) -> None:
    """``ValueError`` if a sequence of ``tasks`` visits, repeated ``cycles`` times, is too long."""
    check("the number of visits (of one cycle, times cycles)", tasks * cycles, VISITS, "each is planned separately")


def check_stream(spec: StreamSpec) -> None:
    """``ValueError`` if the steps of all visits exceed the clock, or the frames exceed a recorder's integers."""
    check("the number of visits", len(spec.visits), VISITS, "each is planned separately")
    steps = total_steps(spec)
    check("the env steps of all visits", steps)
    check("the frames of all visits and envs", steps * spec.envs * spec.frames_per_step, 2**63 - 1, "64 bits")


def check_updates(what: str, spec: StreamSpec, per_period: int, period: int) -> None:
    """``ValueError`` if ``per_period`` updates in every ``period`` env steps exceed the counter.

    ``what``: the settings that determine the number, for the message.
    """
    check(f"{what}: the updates of all visits", total_steps(spec) // period * per_period)
