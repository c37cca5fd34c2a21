"""What a run counts: whether the counters of its programs can hold it. Python integers, before anything is built."""

from plasticity.config.fields import LARGEST
from plasticity.core.types import StreamSpec

VISITS = 1_000_000  # of a stream
LANES = 1_000_000  # of an arm


def total_steps(spec: StreamSpec) -> int:
    """Env steps of each env in all visits."""
    return sum(visit.steps for visit in spec.visits)


def check(what: str, number: int, limit: int = LARGEST, why: str = "a counter of 32 bits cannot hold more") -> None:
    """``ValueError`` in one line where the number is beyond the limit."""
    if number > limit:
        raise ValueError(f"{what} would be {number:,}; at most {limit:,} are allowed ({why})")


def check_visits(tasks: int, cycles: int) -> None:
    """``ValueError`` where a sequence of ``tasks`` visits, gone through ``cycles`` times, is too long."""
    check("the number of visits (of one cycle, times cycles)", tasks * cycles, VISITS, "each is planned by itself")


def check_stream(spec: StreamSpec) -> None:
    """``ValueError`` where the clock cannot hold the steps of all visits, or a recorder the frames."""
    check("the number of visits", len(spec.visits), VISITS, "each is planned by itself")
    steps = total_steps(spec)
    check("the env steps of all visits", steps)
    check("the frames of all visits and envs", steps * spec.envs * spec.frames_per_step, 2**63 - 1, "64 bits")


def check_updates(what: str, spec: StreamSpec, per_period: int, period: int) -> None:
    """``ValueError`` where ``per_period`` updates in every ``period`` env steps are more than the counter holds.

    ``what``: the settings that say how many, for the message.
    """
    check(f"{what}: the updates of all visits", total_steps(spec) // period * per_period)
