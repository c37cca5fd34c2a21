"""The contract of everything that looks at a learner without touching it."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from plasticity.types import Array, Key, Metrics, Params, Probe, State


def no_state(params: Params) -> State:
    del params
    return ()


class Monitor(NamedTuple):
    """``init`` sees the initial parameters; ``measure`` turns a probe into named float32 scalars, outside the training
    loop, at a period. Written for one lane; the runner vmaps and jits it."""

    measure: Callable[[Key, State, Probe], tuple[State, Metrics]]
    init: Callable[[Params], State] = no_state


def compose(*monitors: Monitor) -> Monitor:
    """All monitors as one. ``ValueError`` (while tracing) if two of them write the same metric."""

    def init(params: Params) -> State:
        return tuple(monitor.init(params) for monitor in monitors)

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        states: list[State] = []
        metrics: dict[str, Array] = {}
        for i, (monitor, s) in enumerate(zip(monitors, state, strict=True)):
            s, found = monitor.measure(jax.random.fold_in(key, i), s, probe)
            doubled = sorted(set(found) & set(metrics))
            if doubled:
                raise ValueError(f"two monitors write the same metric: {', '.join(doubled)}")
            metrics |= found
            states.append(s)
        return tuple(states), metrics

    return Monitor(measure, init)
