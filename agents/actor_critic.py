"""Networks of a policy and a value: apart or on a common trunk."""

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
Make = Callable[[Any, int], NetworkSpec]  # observation, outputs -> the network of that many outputs
HIDDEN_GAIN = math.sqrt(2.0)  # of the initialisers "orthogonal" and "he"


def separate(
    make: Make, observation: Any, outputs: Mapping[str, int], gains: Mapping[str, float] | None, method: Intervention
) -> Network:
    """Networks that share nothing, of equal hidden layers; ``method`` rewrites each.

    Without ``gains`` an output layer is initialised as any other.
    """
    scales = {name: gains[name] / HIDDEN_GAIN if gains else 1.0 for name in outputs}
    specs = {name: replace(make(observation, n), output_scale=scales[name]) for name, n in outputs.items()}
    return join({name: build(method.network(spec)) for name, spec in specs.items()})


def shared(
    make: Make, observation: Any, outputs: Mapping[str, int], gains: Mapping[str, float], method: Intervention
) -> Network:
    """One network with an output layer for each name; ``apply`` gives a mapping, as that of :func:`separate`."""
    heads = tuple(Head(name, n, scale=gains[name] / HIDDEN_GAIN) for name, n in outputs.items())
    whole = build(method.network(replace(make(observation, sum(outputs.values())), heads=heads)))

    def apply(params: Params, observations: Any) -> tuple[dict[str, Array], Mapping[str, Activation]]:
        joined, activations = whole.apply(params, observations)
        made, start = {}, 0
        for name, n in outputs.items():
            made[name] = joined[:, start : start + n]
            start += n
        return made, activations

    return whole._replace(apply=apply)


def with_scale(network: Network, size: int, log_std: Number) -> Network:
    """The network with ``size`` learnable numbers more, at first ``log_std``: the log of a policy's deviations.

    They lie apart from every layer, under ``("scale", "log_std")``, and ``apply`` gives them under "scale".
    """

    def init(key: Key) -> Params:
        return {**network.init(key), "scale": {"log_std": jnp.full(size, log_std, jnp.float32)}}

    def apply(params: Params, observations: Any) -> tuple[dict[str, Array], Mapping[str, Activation]]:
        layers = {name: part for name, part in params.items() if name != "scale"}
        outputs, activations = network.apply(layers, observations)
        return {**outputs, "scale": params["scale"]["log_std"]}, activations

    return network._replace(init=init, apply=apply)
