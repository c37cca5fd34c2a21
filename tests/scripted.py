"""A stream whose episodes and measures are written out, for tests of what is recorded of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.types import FIRST, LAST, MID, Clock, Stream, StreamSpec, TimeStep, Visit, VisitPlan
from plasticity.envs.base import StreamFactory, first
from plasticity.envs.host import host

KINDS = {"F": FIRST, "M": MID, "L": LAST}
MEASURES = ("success", "height")
# Two visits of two envs, ten steps each. Env 0: an episode in the first chunk of five steps, one that spans the border
# to the second, one that the switch cuts off, and one more. Env 1: one episode that spans the border.
STEPS = (("MMLFMMMLFM", "MMMMMMLFMM"), ("MMLFMMMMMM", "MMMMMMMMMM"))
# At FIRST there is no value: the 9 there must not count.
SUCCESS = (
    ([0, 1, 0, 9, 0, 0, 0, 1, 9, 1], [1, 0, 0, 0, 0, 0, 0, 9, 0, 0]),
    ([0, 0, 0, 9, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
)
HEIGHT = (
    ([-3, -1, -2, 9, -2, -4, -6, -7, 9, -1], [-9, -8, -8, -8, -8, -8, -9, 9, -1, -1]),
    ([-5, -6, -4, 9, -1, -1, -1, -1, -1, -1], [-1, -1, -1, -1, -1, -1, -1, -1, -1, -1]),
)
TYPES = np.array([[[KINDS[kind] for kind in env] for env in visit] for visit in STEPS], np.int8)  # [visit, E, T]
VALUES = np.stack([SUCCESS, HEIGHT], -1).astype(np.float32)  # [visit, E, T, measures]
SPEC = StreamSpec(
    jax.ShapeDtypeStruct((2,), jnp.float32), 2, ("a", "b"), (VisitPlan(0, 10), VisitPlan(1, 10)), 2, True,
    measures=MEASURES, measure_ranges=((0.0, 1.0), (-9.0, 0.0)),
)  # fmt: skip


class Place(NamedTuple):
    visit: Any  # int32[W]
    step: Any  # int32[W]


def pure() -> StreamFactory:
    def make(lanes: int) -> Stream:
        def reset(keys: Any, visit: Visit, block: Any) -> tuple[Place, TimeStep]:
            task = jnp.broadcast_to(jnp.asarray(visit.task, jnp.int32), (lanes,))
            return Place(task, jnp.zeros(lanes, jnp.int32)), first(jnp.zeros((lanes, 2, 2)), (lanes, 2))

        def step(keys: Any, state: Place, actions: Any, clock: Clock) -> tuple[Place, TimeStep]:
            kinds = jnp.asarray(TYPES)[state.visit, :, state.step]
            seen = jnp.zeros((lanes, 2, 2))
            return state._replace(step=state.step + 1), TimeStep(
                kinds, jnp.ones(kinds.shape), jnp.ones(kinds.shape), seen
            )

        def measures(state: Place, timestep: TimeStep) -> Any:
            return jnp.asarray(VALUES)[state.visit, :, state.step - 1]

        return Stream(SPEC, reset, step, measures=measures)

    return StreamFactory(SPEC, make)


class Reader:
    """The same on the host: the envs of a pool alternate between the two of the script."""

    def __init__(self, task: int, seeds: np.ndarray) -> None:
        self.task, self.count, self.now = task, len(seeds), 0

    def reset(self) -> np.ndarray:
        return np.zeros((self.count, 2), np.float32)

    def step(self, actions: np.ndarray) -> Any:
        own, now = np.arange(self.count) % 2, self.now
        self.now += 1
        ones = np.ones(self.count, np.float32)
        return self.reset(), ones, ones, TYPES[self.task, own, now], VALUES[self.task, own, now]

    def close(self) -> None:
        pass


def on_host() -> StreamFactory:
    return StreamFactory(SPEC, lambda lanes: host(SPEC, Reader, lanes, 2), Reader)
