"""Build a network's functions and wiring from a ``NetworkSpec``.

The parameters of a node are under its name; the last axis of each is the layer's units::

    {"hidden_0": {"kernel": ..., "bias": ..., "norm": {"scale": ..., "offset": ...}}, ..., "output": {"kernel", "bias"}}

A non-linearity's own parameters are in its layer's module, under ``activation``. Behind no layer (after a residual sum,
say) they are beside the node, under ``NAME_activation``. Those that a whole layer shares are single numbers. Modulators
are under ``modulation`` (``networks.modulation``).

``join`` combines several networks without shared parameters into one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.core.types import Activation, Array, Key, Modulated, ModulePath, Network, Params, Units, same_params
from plasticity.networks import modulation
from plasticity.networks.convolution import floats
from plasticity.networks.functions import Functions, network_of
from plasticity.networks.graph import OBSERVATION, Node
from plasticity.networks.layers import NORMALISATIONS_WITH_PARAMETERS, unit_norms
from plasticity.networks.modulation import KEYS, LAYERS, MODULATION
from plasticity.networks.modules import Layers, arranged, initial_carry
from plasticity.networks.nonlinearity import own_activation
from plasticity.networks.operations import SPEC, Activate, Convolution, Dense, Normalise
from plasticity.networks.spec import (
    ANCHOR,
    INJECTION,
    NEW,
    NetworkSpec,
    auxiliary_nodes,
    end_of,
    nodes_of,
    nonlinearity_of,
    outputs_of,
    shapes,
    trunk,
)
from plasticity.networks.wiring import hidden_layers_of, modules_of, units_of


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


def projection(nodes: Sequence[Node]) -> Callable[[Params], Params]:
    """The projection of all kernels with ``sphere``: each unit's incoming weights get a Euclidean norm of 1."""
    names = [node.name for node in nodes if isinstance(node.operation, Dense) and node.operation.sphere]

    def project(params: Params) -> Params:
        kernels = {name: params[name]["kernel"] for name in names}
        unit = {name: kernel / jnp.maximum(unit_norms(kernel), 1e-8) for name, kernel in kernels.items()}
        return {**params, **{name: {**params[name], "kernel": kernel} for name, kernel in unit.items()}}

    return project if names else same_params


def norm_of(spec: NetworkSpec, node: Node) -> ModulePath | None:
    """The path of the normalisation's parameters of this node, if it has any."""
    operation, affine = node.operation, spec.affine
    if isinstance(operation, Normalise) and operation.affine is not None:
        affine = operation.affine
    path = (node.name, "norm") if isinstance(operation, Dense | Convolution) else (node.name,)
    return path if affine and normalisation_of(spec, node) in NORMALISATIONS_WITH_PARAMETERS else None


def normalisation_of(spec: NetworkSpec, node: Node) -> str:
    """The name of this node's normalisation, "none" without one."""
    match node.operation:
        case Normalise(kind=kind) if kind != SPEC:
            return kind
        case Normalise():
            return spec.normalisation
        case (Dense() | Convolution() | Activate()) as operation if operation.normalise:
            return spec.normalisation
    return "none"


def features_of(spec: NetworkSpec, nodes: Sequence[Node]) -> Callable[..., Array]:
    """Parameters, observations, carry, ``first`` -> what the heads read, ``[B, ...]``, without modulation."""
    common, last = {node.name for node in trunk(spec)}, end_of(spec)
    if last == OBSERVATION:
        return lambda params, observations, carry, first: floats(arranged(spec, observations), spec.scale)
    before = tuple(replace(node, output=node.name == last) for node in nodes if node.name in common)
    layers = Layers(spec, before)

    def features(params: Params, observations: Any, carry: Any, first: Array | None) -> Array:
        made: Any = layers.apply({"params": params}, observations, carry, first)
        found: Array = made[0][last]
        return found

    return features


def choice(spec: NetworkSpec, nodes: Sequence[Node]) -> Callable[..., tuple[Mapping[str, Any] | None, dict[str, Any]]]:
    """Parameters, observations, carry, ``first`` -> the modulators of each row, and the activation of their choice."""
    chosen_by = spec.modulation
    if chosen_by is None:
        return lambda *_: (None, {})
    features = features_of(spec, nodes)

    def choose(
        params: Params, observations: Any, carry: Any, first: Array | None
    ) -> tuple[Mapping[str, Any] | None, dict[str, Any]]:
        mine = params[MODULATION]
        if chosen_by.choose != KEYS:
            return modulation.chosen(mine[LAYERS], modulation.by_task(chosen_by, observations)), {}
        query = features(params, observations, carry, first)
        number, seen = modulation.by_keys(mine[KEYS], query)
        return modulation.chosen(mine[LAYERS], number), {MODULATION: seen}

    return choose


def torso_of(spec: NetworkSpec, nodes: Sequence[Node]) -> tuple[str, ...]:
    """The names under which the parameters are that stay as they are once a modulated network is frozen."""
    if spec.modulation is None:
        return ()
    held = [node.name for node in nodes if not (node.output and spec.modulation.outputs_learn)]
    return (*held, *map(own_activation, held))


def with_modulation(spec: NetworkSpec, nodes: Sequence[Node], params: Params, key: Key) -> Params:
    """Add the modulators, which change nothing at first, to the initial parameters."""
    if spec.modulation is None:
        return params
    found = shapes(spec)
    return {
        **params,
        MODULATION: modulation.initial(spec.modulation, nodes, found, math.prod(found[end_of(spec)]), key),
    }


def build(spec: NetworkSpec | Functions) -> Network:
    """Build the functions and wiring of a network (see ``plasticity.core.types.Network``).

    ``init(key)`` returns the parameters, the same for the same key. ``apply(params, observations[B, *shape], carry,
    first)`` returns the outputs ``[B, outputs]``, by node name the pre- and post-activations, and the carry.
    """
    if isinstance(spec, Functions):
        return network_of(spec)
    nodes, extra, found = nodes_of(spec), auxiliary_nodes(spec), shapes(spec)
    every = (*nodes, *extra)
    layers, project = Layers(spec, every), projection(every)
    choose, torso = choice(spec, nodes), torso_of(spec, nodes)

    def initial(batch: int) -> Any:
        return initial_carry(every, found, batch)

    def init(key: Key) -> Params:
        params = layers.init(key, jnp.zeros((1, *spec.reads)), initial(1), None)["params"]
        return with_modulation(spec, nodes, with_injection(spec, project(params)), key)

    def apply(
        params: Params, observations: Any, carry: Any = (), first: Array | None = None
    ) -> tuple[Array, Mapping[str, Activation], Any]:
        params = params if spec.modulation is None else modulation.held(params, torso)
        modulators, seen = choose(params, observations, carry, first)
        trained = {"params": frozen_old_head(spec, params)}
        made: Any = layers.apply(trained, observations, carry, first, modulators)
        outputs, activations, carry = made
        activations |= {node.name: Activation(outputs[node.name], outputs[node.name]) for node in extra}
        activations |= seen
        return head_outputs(spec, params, outputs), activations, carry

    norms = [norm_of(spec, node) for node in nodes]
    return Network(
        init,
        apply,
        units=units_of(every, found, lambda node: norm_of(spec, node) is not None, partial(nonlinearity_of, spec)),
        hidden=tuple(path for node in nodes if not node.output for path in modules_of(node)),
        outputs=tuple((node.name,) for node in nodes if node.output),
        task_heads=tuple(
            (node.name,) for node in nodes if isinstance(node.operation, Dense) and node.operation.tasks > 1
        ),
        reads_task=spec.sees_task or spec.task_heads,
        auxiliary=tuple((node.name,) for node in extra),
        layers=hidden_layers_of(nodes),
        norms=tuple(path for path in norms if path is not None),
        initial=initial,
        unrolls=True,
        project=project,
        batch_statistics=any(normalisation_of(spec, node) == "batch" for node in every),
        modulated=(Modulated((MODULATION,), tuple((name,) for name in torso)),) if spec.modulation else (),
    )


def join(networks: Mapping[str, Network]) -> Network:
    """Combine several networks, which read the same observation and share no parameters, into one.

    Parameters, outputs and carries are mappings with the same keys. Layers are named ``NAME/hidden_0`` and so on, and
    their paths begin with ``NAME``. ``init`` derives a key for each network from its position.
    """
    remembers = any(each.remembers for each in networks.values())

    def init(key: Key) -> Params:
        return {name: each.init(jax.random.fold_in(key, i)) for i, (name, each) in enumerate(networks.items())}

    def initial(batch: int) -> Any:
        return {name: each.initial(batch) for name, each in networks.items()} if remembers else ()

    def apply(
        params: Params, observations: Any, carry: Any = (), first: Array | None = None
    ) -> tuple[dict[str, Array], Mapping[str, Activation], Any]:
        before = carry if remembers else dict.fromkeys(networks, ())
        made = {name: each.apply(params[name], observations, before[name], first) for name, each in networks.items()}
        activations = {f"{name}/{layer}": seen for name, (_, found, _) in made.items() for layer, seen in found.items()}
        after = {name: each[2] for name, each in made.items()} if remembers else ()
        return {name: each[0] for name, each in made.items()}, activations, after

    def paths(field: str) -> tuple[ModulePath, ...]:
        return tuple((name, *path) for name, each in networks.items() for path in getattr(each, field))

    return Network(
        init,
        apply,
        units=tuple(prefixed(name, units) for name, each in networks.items() for units in each.units),
        hidden=paths("hidden"),
        outputs=paths("outputs"),
        task_heads=paths("task_heads"),
        reads_task=any(each.reads_task for each in networks.values()),
        auxiliary=paths("auxiliary"),
        layers=tuple(
            layer._replace(name=f"{name}/{layer.name}") for name, each in networks.items() for layer in each.layers
        ),
        norms=paths("norms"),
        initial=initial,
        unrolls=all(each.unrolls for each in networks.values()),
        project=lambda params: {name: each.project(params[name]) for name, each in networks.items()},
        batch_statistics=any(each.batch_statistics for each in networks.values()),
        modulated=tuple(
            Modulated((name, *record.path), tuple((name, *path) for path in record.torso))
            for name, each in networks.items()
            for record in each.modulated
        ),
        parts=dict(networks),
    )


def prefixed(name: str, units: Units) -> Units:
    """The units of the network ``name`` of several joined networks."""
    return units._replace(
        name=f"{name}/{units.name}",
        sources=tuple(source._replace(path=(name, *source.path)) for source in units.sources),
        sinks=tuple(sink._replace(path=(name, *sink.path)) for sink in units.sinks),
        activations=tuple(f"{name}/{each}" for each in units.activations),
        carries=tuple((name, *path) for path in units.carries),
    )
