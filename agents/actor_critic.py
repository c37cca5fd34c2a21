"""Policy and value networks, separate or with a shared trunk."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import jax.numpy as jnp

from plasticity.core.schedules import Number
from plasticity.core.types import Activation, Array, Key, Network, Params
from plasticity.interventions.base import Intervention
from plasticity.networks.build import build, join
from plasticity.networks.spec import Head, NetworkSpec

Trunk = Literal["separate", "shared"]
Make = Callable[[Any, int], NetworkSpec]  # observation, outputs -> spec of a network with that many outputs
HIDDEN_GAIN = math.sqrt(2.0)  # of the initialisers "orthogonal" and "he"


def separate(
    make: Make, observation: Any, outputs: Mapping[str, int], gains: Mapping[str, float] | None, method: Intervention
) -> Network:
    """Build networks with identical hidden layers and no shared parameters; ``method`` rewrites each.

    Without ``gains``, output layers are initialised like any other layer.
    """
    scales = {name: gains[name] / HIDDEN_GAIN if gains else 1.0 for name in outputs}
    specs = {name: replace(make(observation, n), output_scale=scales[name]) for name, n in outputs.items()}
    return join({name: build(method.network(spec)) for name, spec in specs.items()})


def shared(
    make: Make, observation: Any, outputs: Mapping[str, int], gains: Mapping[str, float], method: Intervention
) -> Network:
    """Build one network with one output layer per name; ``apply`` returns a mapping, as in :func:`separate`."""
    heads = tuple(Head(name, n, scale=gains[name] / HIDDEN_GAIN) for name, n in outputs.items())
    whole = build(method.network(replace(make(observation, sum(outputs.values())), heads=heads)))

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


def with_scale(network: Network, size: int, log_std: Number) -> Network:
    """Add ``size`` learnable log standard deviations of the policy to the network, initialised to ``log_std``.

    They are not part of any layer. They are stored under ``("scale", "log_std")``, and ``apply`` returns them under
    "scale".
    """

    def init(key: Key) -> Params:
        return {**network.init(key), "scale": {"log_std": jnp.full(size, log_std, jnp.float32)}}

    def layers(params: Params) -> Params:
        return {name: part for name, part in params.items() if name != "scale"}

    def apply(
        params: Params, observations: Any, carry: Any = (), first: Array | None = None
    ) -> tuple[dict[str, Array], Mapping[str, Activation], Any]:
        outputs, activations, carry = network.apply(layers(params), observations, carry, first)
        return {**outputs, "scale": params["scale"]["log_std"]}, activations, carry

    def project(params: Params) -> Params:
        return {**network.project(layers(params)), "scale": params["scale"]}

    return network._replace(init=init, apply=apply, project=project)
