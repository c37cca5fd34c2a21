"""Every built-in network in a small size, and what tests do with one."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.types import Learner, Network, Params, Sequence
from plasticity.interventions import surgery
from plasticity.networks.catalogue import NETWORKS
from plasticity.networks.operations import Normalise, Sphere
from plasticity.networks.presets import mlp
from plasticity.networks.spec import NetworkSpec

KEY = jax.random.key(7)
MEMORY = {"torso": functools.partial(mlp, widths=(4,), activation="tanh"), "units": 3, "widths": (4,)}
LAX = {"convolution": "lax"}  # compiles as fast as patches, but takes seconds to run on larger images
SMALL: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "mlp": ((5,), {"widths": (4, 6)}),
    "layer_norm_mlp": ((5,), {"widths": (4, 6)}),
    "minatar": ((5, 5, 2), {"filters": 4, "widths": (4,), **LAX}),
    "nature": ((36, 36, 1), {"widths": (4,)}),
    "streaming": ((1, 53, 53), {"widths": (4,), "initialiser": "lecun"}),
    "resnet18": ((8, 8, 3), {"width": 2, **LAX}),
    "impala": ((8, 8, 3), {"filters": (2, 3), "widths": (4,), **LAX}),
    "residual_mlp": ((5,), {"width": 4, "expansion": 2}),
    "multi_skip": ((5,), {"width": 4, "blocks": 2}),
    "simba": ((5,), {"width": 4, "expansion": 2}),
    "simba_v2": ((5,), {"width": 4, "expansion": 2}),
    "vit": ((4, 4, 3), {"patch": 2, "width": 6, "depth": 2, "heads": 2, "expansion": 2, **LAX}),
    "gru": ((5,), MEMORY),
    "lstm": ((5,), MEMORY),
    "rtu": ((5,), {**MEMORY, "activation": "tanh"}),
}
REMEMBERING = ("gru", "lstm", "rtu")
assert set(SMALL) == set(NETWORKS)


def draw(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def small(name: str, **style: Any) -> NetworkSpec:
    """The small network with two outputs; ``style`` are fields of the spec."""
    shape, settings = SMALL[name]
    made = NETWORKS[name](jax.ShapeDtypeStruct(shape, jnp.float32), 2, **settings)
    return dataclasses.replace(made, **style)


def bare(spec: NetworkSpec) -> NetworkSpec:
    """Without any normalisation, the network's own included: units then share no statistics."""

    def plain(operation: Any) -> Any:
        return Normalise("none") if isinstance(operation, Normalise | Sphere) else operation

    body = tuple(dataclasses.replace(node, operation=plain(node.operation)) for node in spec.body)
    return dataclasses.replace(spec, normalisation="none", body=body)


def shaken(network: Network) -> Params:
    """Initial parameters, with biases, gates and class tokens that are not 0."""
    params = jax.jit(network.init)(KEY)
    return jax.tree.map(lambda leaf: leaf + 0.2 * draw(leaf.shape, leaf.size), params)


def inputs(name: str, network: Network, spec: NetworkSpec, seed: int = 1) -> Any:
    """Three observations, or four steps of them with memory."""
    if name not in REMEMBERING:
        return draw((3, *spec.observation), seed)
    return Sequence(draw((4, 3, *spec.observation), seed), jnp.zeros((4, 3), bool), network.initial(3))


def forward(network: Network, x: Any) -> Callable[[Params], Any]:
    return jax.jit(lambda params: network.forward(params, x)[0])


def cut(network: Network, params: Params, name: str, unit: int) -> tuple[Params, Params]:
    """The parameters after the unit was reset to fresh values, as interventions do it, and its incoming mask."""
    size = next(each.size for each in network.units if each.name == name)
    incoming, outgoing = surgery.unit_masks(network, params, {name: jnp.arange(size) == unit})
    fresh = network.init(jax.random.key(8))
    rule: Any = None  # not used without slots
    learner = Learner(params, (), ())
    return surgery.reinitialise(learner, incoming, outgoing, fresh, rule, optimizer_slots=False).params, incoming


def moved(params: Params, mask: Params) -> Params:
    return jax.tree.map(lambda leaf, m: jnp.where(m, 1.3 * leaf + 0.7, leaf), params, mask)
