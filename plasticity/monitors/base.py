"""The interface of monitors, which observe a learner without changing it."""

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, Key, Metrics, Params, Probe, State

SHARE, NOT_NEGATIVE = (0.0, 1.0), (0.0, math.inf)  # ranges of metrics


def no_state(params: Params) -> State:
    del params
    return ()


class Monitor(NamedTuple):
    """A pair of functions, written for one lane; the runner vmaps and jits them.

    ``init`` receives the initial parameters. ``measure`` computes named float32 scalars from a probe, periodically,
    outside the training loop. ``ranges`` maps bounded metrics to their smallest and largest possible values, where
    figures cut off intervals.
    """

    measure: Callable[[Key, State, Probe], tuple[State, Metrics]]
    init: Callable[[Params], State] = no_state
    ranges: Mapping[str, tuple[float, float]] = MappingProxyType({})


def compose(*monitors: Monitor) -> Monitor:
    """Combine the monitors into one. ``ValueError`` (while tracing) if two of them write the same metric."""

    def init(params: Params) -> State:
        return tuple(monitor.init(params) for monitor in monitors)

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        states: list[State] = []
        written: list[tuple[str, Metrics]] = []
        for i, (monitor, s) in enumerate(zip(monitors, state, strict=True)):
            s, found = monitor.measure(jax.random.fold_in(key, i), s, probe)
            written.append((f"monitors.{i}", found))
            states.append(s)
        return tuple(states), merged_metrics(written)

    return Monitor(measure, init, {name: limits for each in monitors for name, limits in each.ranges.items()})


def merged_metrics(written: Iterable[tuple[str, Metrics]]) -> Metrics:
    """Merge the metrics of several monitors; ``written`` has pairs of a monitor's path and its metrics.

    ``ValueError`` if two monitors write the same metric; it names both, and the metric.
    """
    metrics: dict[str, Array] = {}
    writers: dict[str, str] = {}
    for path, found in written:
        duplicates = [name for name in found if name in metrics]
        if duplicates:
            raise ValueError(
                f"{writers[duplicates[0]]} and {path} both write the metric `{duplicates[0]}`; keep one, and measure "
                "the other afterwards (`plasticity measure`)"
            )
        writers |= dict.fromkeys(found, path)
        metrics |= found
    return metrics


def checked_monitor(path: str, kind: str, monitor: Monitor) -> Monitor:
    """The monitor, with its path in front of every ``ValueError``, and with a check that it returns named numbers."""

    def named(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            try:
                return function(*args)
            except ValueError as error:
                raise ValueError(f"{path}: {str(error).removeprefix(f'{kind}: ')}") from error

        return call

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        made = monitor.measure(key, state, probe)
        if not isinstance(made, tuple) or len(made) != 2 or not isinstance(made[1], Mapping):
            raise ValueError("`measure` must return its state and a mapping from names to numbers")
        for name, value in made[1].items():
            if not isinstance(name, str) or not is_number(value):
                raise ValueError(f"the metric `{name}` must be one number; its shape is {jnp.shape(value)}")
        return made

    return monitor._replace(measure=named(measure), init=named(monitor.init))


def recording_writes(path: str, monitor: Monitor, wrote: set[str]) -> Monitor:
    """The monitor; when it is traced and writes a metric, its path is added to ``wrote``."""

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        state, found = monitor.measure(key, state, probe)
        if found:
            wrote.add(path)
        return state, found

    return monitor._replace(measure=measure)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | jax.Array) and jnp.shape(value) == ()
