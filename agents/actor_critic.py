"""Policy and value networks, separate or with a shared trunk."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from plasticity.agents.base import built
from plasticity.core.types import Activation, Array, Key, Network, Params
from plasticity.interventions.base import Intervention
from plasticity.networks.build import join
from plasticity.networks.functions import Functions, as_graph
from plasticity.networks.spec import Head, NetworkSpec

Trunk = Literal["separate", "shared"]
Make = Callable[[Any, int], NetworkSpec | Functions]  # observation, outputs -> a network with that many outputs
Gains = Mapping[str, float | None]  # of the output layers; None: as the network initialises them
HIDDEN_GAIN = math.sqrt(2.0)  # of the initialisers "orthogonal" and "he"


def with_gain(network: NetworkSpec | Functions, name: str, gain: float | None) -> NetworkSpec | Functions:
    """The network with this gain of its output layer; ``ValueError`` if it is given as functions."""
    if gain is None:
        return network
    spec = as_graph(network, f"agent.{name}_gain: {gain:g}", "set it to null")
    return replace(spec, output_scale=gain / HIDDEN_GAIN)


def separate(make: Make, observation: Any, outputs: Mapping[str, int], gains: Gains, method: Intervention) -> Network:
    """Build networks with identical hidden layers and no shared parameters; ``method`` rewrites each."""
    given = {name: with_gain(make(observation, n), name, gains[name]) for name, n in outputs.items()}
    return join({name: built(each, method, name) for name, each in given.items()})


def shared(make: Make, observation: Any, outputs: Mapping[str, int], gains: Gains, method: Intervention) -> Network:
    """Build one network with one output layer per name; ``apply`` returns a mapping, as in :func:`separate`.

    The outputs of a network of functions are split.
    """
    given = make(observation, sum(outputs.values()))
    if isinstance(given, Functions):
        for name, gain in gains.items():
            with_gain(given, name, gain)
    else:
        scales = {name: given.output_scale if gain is None else gain / HIDDEN_GAIN for name, gain in gains.items()}
        given = replace(given, heads=tuple(Head(name, n, scale=scales[name]) for name, n in outputs.items()))
    whole = built(given, method)

    def apply(
        params: Params, observations: Any, carry: Any = (), first: Array | None = None
    ) -> tuple[dict[str, Array], Mapping[str, Activation], Any]:
        joined, activations, carry = whole.apply(params, observations, carry, first)
        made, start = {}, 0
        for name, n in outputs.items():
            made[name] = joined[:, start : start + n]
            start += n
        return made, activations, carry

    return whole._replace(apply=apply)


def with_numbers(network: Network, part: str, name: str, value: Callable[[], Array]) -> Network:
    """Add learnable numbers to the network, initialised to ``value()`` (traced).

    They are not part of any layer. They are stored under ``(part, name)``, and ``apply`` returns them under ``part``.
    """

    def init(key: Key) -> Params:
        return {**network.init(key), part: {name: value()}}

    def layers(params: Params) -> Params:
        return {key: each for key, each in params.items() if key != part}

    def apply(
        params: Params, observations: Any, carry: Any = (), first: Array | None = None
    ) -> tuple[dict[str, Array], Mapping[str, Activation], Any]:
        outputs, activations, carry = network.apply(layers(params), observations, carry, first)
        return {**outputs, part: params[part][name]}, activations, carry

    def project(params: Params) -> Params:
        return {**network.project(layers(params)), part: params[part]}

    def of_part(own: Params, observations: Any, carry: Any = (), first: Array | None = None) -> Any:
        del observations, first
        return own[name], {}, carry

    parts = {**network.parts, part: Network(lambda key: {name: value()}, of_part)} if network.parts else {}
    return network._replace(init=init, apply=apply, project=project, parts=parts)
