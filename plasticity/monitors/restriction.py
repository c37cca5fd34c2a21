"""Restrict a monitor to some of the parts of joined networks, such as the actor of an actor-critic."""

from collections.abc import Sequence

from plasticity.core.parts import Parts
from plasticity.core.types import Array, Key, Metrics, Params, Probe, State
from plasticity.monitors.base import Monitor
from plasticity.networks.parts import activations_of, learner_of, part_of
from plasticity.optim.parts import view


def prefix_of(names: Sequence[str]) -> str:
    """What precedes the names of the metrics of a monitor that is restricted to these parts."""
    return "".join(f"{name}_" for name in names)


def restricted(monitor: Monitor, names: Sequence[str]) -> Monitor:
    """The monitor of these parts of joined networks alone, as if they were the whole network.

    It sees their share of the learner (``Parts.of``), a network of these parts (``part_of``) and their activations.
    ``loss``, ``losses`` and ``scores`` are functions of their parameters; the other parts are held fixed. The names of
    its metrics begin with those of the parts: ``actor_effective_rank``, ``actor_effective_rank/actor/hidden_0``.

    Args:
        monitor: any monitor.
        names: of parts; ``critic`` also means ``critic_1``, ``critic_2`` and so on.

    Raises:
        ValueError: while tracing, for an unknown part or a network without parts.
    """
    chosen, prefix = Parts(tuple(names)), prefix_of(names)

    def init(params: Params) -> State:
        return monitor.init(chosen.of(params))

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        chosen.check(probe.network.parts)
        state, found = monitor.measure(key, state, probe_of(chosen, probe))
        return state, {f"{prefix}{name}": value for name, value in found.items()}

    return Monitor(measure, init, {f"{prefix}{name}": limits for name, limits in monitor.ranges.items()})


def probe_of(chosen: Parts, probe: Probe) -> Probe:
    """The probe's share of the chosen parts."""
    whole = probe.learner.params

    def scores(params: Params, observations: object) -> Array:
        return probe.scores(chosen.back(params, whole), observations)

    return probe._replace(
        learner=learner_of(probe.learner, chosen),
        network=part_of(probe.network, chosen),
        optimizer=view(probe.optimizer, chosen),
        activations=activations_of(probe.activations, chosen),
        loss=lambda params: probe.loss(chosen.back(params, whole)),
        losses=lambda params: probe.losses(chosen.back(params, whole)),
        scores=scores,
        fresh=lambda key: learner_of(probe.fresh(key), chosen),
    )
