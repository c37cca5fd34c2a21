"""Build a network's functions and wiring from a ``NetworkSpec``.

The parameters of layer ``i`` are under ``hidden_i``; the last axis of each is the layer's units::

    {"hidden_0": {"kernel": ..., "bias": ..., "norm": {"scale": ..., "offset": ...}}, ..., "output": {"kernel", "bias"}}

``join`` combines several networks without shared parameters into one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from plasticity.core.types import Activation, Array, Key, ModulePath, Network, Params, Units
from plasticity.networks.convolution import convolve
from plasticity.networks.layers import (
    ACTIVATIONS,
    INITIALISERS,
    Normalisation,
    spectrally_normalised,
    unit_norms,
    weight_normalised,
)
from plasticity.networks.spec import (
    ANCHOR,
    INJECTION,
    NEW,
    Convolution,
    NetworkSpec,
    Node,
    auxiliary_nodes,
    nodes_of,
    outputs_of,
    wiring,
)


class Layer(nn.Module):
    """A dense or convolutional kernel, bias and normalisation; output layers have a bias and no normalisation."""

    spec: NetworkSpec
    node: Node

    @nn.compact
    def __call__(self, x: Array) -> Array:
        spec, node, shape = self.spec, self.node, self.node.shape
        init = scaled(INITIALISERS[spec.initialiser], node.scale)
        if isinstance(shape, Convolution):
            kernel = self.param("kernel", init, (shape.kernel, shape.kernel, x.shape[-1], shape.filters))
            z = convolve(x, self.reparameterised(kernel), shape.stride, shape.padding, spec.convolution)
        else:
            x = x.reshape(x.shape[0], -1)
            z = x @ self.reparameterised(self.param("kernel", init, (x.shape[-1], shape)))
        if spec.bias or not node.hidden:
            z = z + self.param("bias", nn.initializers.zeros, z.shape[-1:])
        if node.hidden and spec.normalisation != "none":
            z = Normalisation(spec.normalisation, spec.affine, name="norm")(z)
        return z

    def reparameterised(self, kernel: Array) -> Array:
        if self.node.parameterisation == "weight":
            return weight_normalised(kernel, self.param("gain", lambda key: unit_norms(kernel)))
        if self.node.parameterisation == "spectral":
            return spectrally_normalised(kernel, self.spec.power_iterations)
        return kernel


class Layers(nn.Module):
    """All layers: ``observations[B, *shape]`` -> outputs and hidden activations, by layer."""

    spec: NetworkSpec
    nodes: tuple[Node, ...]  # each after its input node

    @nn.compact
    def __call__(self, observations: Array) -> tuple[dict[str, Array], dict[str, Activation]]:
        spec = self.spec
        kind = ACTIVATIONS[spec.activation]
        function = partial(kind.function, **{**kind.settings, **dict(spec.activation_settings)})
        activations: dict[str, Activation] = {}
        outputs: dict[str, Array] = {}
        observed = prepare(spec, observations)
        for node in self.nodes:
            z = Layer(spec, node, name=node.name)(activations[node.reads].post if node.reads else observed)
            if node.hidden:
                activations[node.name] = Activation(z, function(z))
            else:
                outputs[node.name] = z
        return outputs, activations


def scaled(init: Callable[..., Array], scale: float) -> Callable[..., Array]:
    """An initialiser whose values are multiplied by ``scale`` (static)."""
    return init if scale == 1.0 else lambda *args: scale * init(*args)


def prepare(spec: NetworkSpec, observations: Array) -> Array:
    """Convert observations of any dtype to the first layer's input: float32, scaled, channels last."""
    x = jnp.asarray(observations, jnp.float32)
    if spec.scale != 1.0:
        x = x * spec.scale
    return jnp.moveaxis(x, 1, -1) if spec.channels_first else x


def with_injection(spec: NetworkSpec, params: Params) -> Params:
    """Add an injection to the initial parameters: the anchor is a copy of the new head, and the gate is closed."""
    if spec.injected is None:
        return params
    anchor = {name: params[NEW + name.removeprefix(ANCHOR)] for name in params if name.startswith(ANCHOR)}
    return {**params, **anchor, INJECTION: {"gate": jnp.zeros(())}}


def is_open(params: Mapping[str, Any]) -> Array:
    """bool[]: whether the injection has happened in this network."""
    opened: Array = params[INJECTION]["gate"] > 0
    return opened


def frozen_old_head(spec: NetworkSpec, params: Params) -> Params:
    """The parameters; once the injection's gate is open, no gradient reaches the old head."""
    if spec.injected is None:
        return params
    opened = is_open(params)
    old = {name.removeprefix(NEW) for name in params if name.startswith(NEW)}

    def freeze(leaf: Array) -> Array:
        return jnp.where(opened, jax.lax.stop_gradient(leaf), leaf)

    return {name: jax.tree.map(freeze, part) if name in old else part for name, part in params.items()}


def head_outputs(spec: NetworkSpec, params: Params, made: Mapping[str, Array]) -> Array:
    """The concatenated outputs of all heads, ``[B, outputs]``; with an injection ``old + (new - anchor)``.

    The value does not depend on the gate, which only enables the new head's gradient. The anchor is never trained.
    """
    outputs = [made[name] for name in outputs_of(spec)]
    if spec.injected is not None:
        opened = is_open(params)
        new = [made[NEW + name] for name in outputs_of(spec)]
        new = [jnp.where(opened, each, jax.lax.stop_gradient(each)) for each in new]
        anchor = [jax.lax.stop_gradient(made[ANCHOR + name]) for name in outputs_of(spec)]
        outputs = [a + (b - c) for a, b, c in zip(outputs, new, anchor, strict=True)]
    return jnp.concatenate(outputs, axis=-1) if spec.heads else outputs[0]


def build(spec: NetworkSpec) -> Network:
    """Build the functions and wiring of a network (see ``plasticity.core.types.Network``).

    ``init(key)`` returns the parameters, the same for the same key. ``apply(params, observations[B, *shape])`` returns
    the outputs ``[B, outputs]`` and, by layer name, the pre- and post-activations.
    """
    nodes, extra = tuple(nodes_of(spec)), tuple(auxiliary_nodes(spec))
    layers, with_auxiliary = Layers(spec, nodes), Layers(spec, nodes + extra)

    def init(key: Key) -> Params:
        return with_injection(spec, with_auxiliary.init(key, jnp.zeros((1, *spec.observation)))["params"])

    def apply(params: Params, observations: Any) -> tuple[Array, Mapping[str, Activation]]:
        made: Any = layers.apply({"params": frozen_old_head(spec, params)}, observations)
        outputs, activations = made
        return head_outputs(spec, params, outputs), activations

    hidden = tuple((node.name,) for node in nodes if node.hidden)
    outputs = tuple((node.name,) for node in nodes if not node.hidden)
    auxiliary = tuple((node.name,) for node in extra)
    return Network(init, apply, wiring(spec), hidden, outputs, auxiliary)


def join(networks: Mapping[str, Network]) -> Network:
    """Combine several networks, which read the same observation and share no parameters, into one.

    Parameters and outputs are mappings with the same keys. Layers are named ``NAME/hidden_0`` and so on, and their
    paths begin with ``NAME``. ``init`` derives a key for each network from its position.
    """

    def init(key: Key) -> Params:
        return {name: each.init(jax.random.fold_in(key, i)) for i, (name, each) in enumerate(networks.items())}

    def apply(params: Params, observations: Any) -> tuple[dict[str, Array], Mapping[str, Activation]]:
        made = {name: each.apply(params[name], observations) for name, each in networks.items()}
        activations = {f"{name}/{layer}": seen for name, (_, found) in made.items() for layer, seen in found.items()}
        return {name: output for name, (output, _) in made.items()}, activations

    def paths(field: str) -> tuple[ModulePath, ...]:
        return tuple((name, *path) for name, each in networks.items() for path in getattr(each, field))

    units = tuple(
        Units(f"{name}/{unit.name}", (name, *unit.source), (name, *unit.sink), unit.owner)
        for name, each in networks.items()
        for unit in each.units
    )
    return Network(init, apply, units, paths("hidden"), paths("outputs"), paths("auxiliary"))
