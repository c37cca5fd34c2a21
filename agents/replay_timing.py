"""When a replay agent learns, how many updates that makes, and whether a stream fits them."""

import math
from typing import Annotated, NamedTuple

from pydantic import Field

from plasticity.agents.stream_checks import check_acting
from plasticity.config.counters import check_updates
from plasticity.core.types import Array, Clock, StreamSpec

Ratio = Annotated[float, Field(gt=0, le=10_000)]  # as many updates for a transition as a loop may have


class Timing(NamedTuple):
    """When a replay agent learns (static), in env steps of each env and in updates."""

    first: int  # env steps before the first update
    period: int  # env steps between updates
    gradient_steps: int  # updates per period
    target_period: int  # updates between target network updates

    def due(self, clock: Clock) -> Array:
        done = clock.step + 1
        return (done >= self.first) & (done % self.period == 0)

    def update(self, clock: Clock) -> Array:
        """The index of the first update of this step."""
        return ((clock.step + 1) // self.period - -(-self.first // self.period)) * self.gradient_steps


def replay_updates(
    name: str,
    spec: StreamSpec,
    update_period: int,
    gradient_steps: int,
    replay_ratio: float | None,
    *,
    discrete: bool = True,
) -> int:
    """The updates per period; ``discrete``: the agent supports discrete actions only.

    ``ValueError`` if the stream does not fit them or the updates overflow their counter.
    """
    gradient_steps = updates_per_period(spec, update_period, gradient_steps, replay_ratio)
    check_acting(name, spec, discrete=discrete)
    for visit in spec.visits:
        if visit.steps % update_period:
            raise ValueError(
                f"agent.update_period: {update_period} is not allowed; must divide the {visit.steps} steps of a visit"
            )
    check_updates("agent.gradient_steps", spec, gradient_steps, update_period)
    return gradient_steps


def updates_per_period(spec: StreamSpec, update_period: int, gradient_steps: int, replay_ratio: float | None) -> int:
    """Convert ``replay_ratio``, in updates per transition, to updates per period; ``gradient_steps`` if it is None.

    ``ValueError`` if that is not a whole number.
    """
    if replay_ratio is None:
        return gradient_steps
    updates = replay_ratio * update_period * spec.envs
    if not math.isclose(updates, max(round(updates), 1), rel_tol=1e-6):
        raise ValueError(
            f"agent.replay_ratio: {replay_ratio:g} is not allowed; with update_period {update_period} and "
            f"{spec.envs} envs it must be a multiple of {1 / (update_period * spec.envs):g}"
        )
    return round(updates)
