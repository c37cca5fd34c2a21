"""What the nodes of a network compute: one linen module for each operation that has parameters."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from plasticity.core.task_entries import separated, task_of
from plasticity.core.types import Activation, Array
from plasticity.networks.cells import CELLS
from plasticity.networks.convolution import convolve, floats, same
from plasticity.networks.graph import OBSERVATION, Node
from plasticity.networks.layers import (
    INITIALISERS,
    Dropout,
    Normalisation,
    parameter,
    spectrally_normalised,
    unit_norms,
    weight_normalised,
)
from plasticity.networks.modulation import scaled_units, widened
from plasticity.networks.nonlinearity import OWN, NonLinearity, checked_initial, own_activation
from plasticity.networks.operations import (
    SPEC,
    Activate,
    Attention,
    Concatenate,
    Convolution,
    Dense,
    Flatten,
    Interpolate,
    Normalise,
    Pool,
    Recurrent,
    Scale,
    Shift,
    Sphere,
    Sum,
    Token,
    Tokens,
)
from plasticity.networks.spec import DROPOUT, NetworkSpec, nonlinearity_of


def scaled(init: Callable[..., Array], scale: float) -> Callable[..., Array]:
    """An initialiser whose values are multiplied by ``scale`` (static)."""
    return init if scale == 1.0 else lambda *args: scale * init(*args)


def for_each_task(init: Callable[..., Array], tasks: int) -> Callable[..., Array]:
    """An initialiser of kernels ``[inputs, tasks * units]`` that draws those of each task by itself.

    The first task's kernel is that of a layer without tasks and with the same key.
    """
    if tasks == 1:
        return init

    def drawn(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
        others = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(1, tasks))
        keys = jnp.concatenate([key[None], others])
        own = (shape[0], shape[1] // tasks)
        kernels = jax.vmap(lambda key: init(key, own, dtype))(keys)
        return jnp.moveaxis(kernels, 0, 1).reshape(shape)

    return drawn


def applied(module: nn.Module, kind: NonLinearity | None, name: str, z: Array) -> Array:
    """The non-linearity of ``z`` (None: ``z``); its parameters, if it has any, are the module's own under ``name``."""
    if kind is None:
        return z
    if kind.initial is None:
        return kind.function({}, z)
    return kind.function(parameter(module, name, checked_initial(kind), z.shape[-1]), z)


class Layer(nn.Module):
    """A dense or convolutional kernel, bias, normalisation and non-linearity; output layers have a bias alone.

    A convolution multiplies its input, of any type, by ``scale``. Without a non-linearity, ``pre`` and ``post`` are the
    same. ``own`` are the modulators of each row, ``[B, ...]``, if the layer has any.
    """

    spec: NetworkSpec
    node: Node
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array, own: Mapping[str, Array] | None = None) -> Activation:
        spec, operation = self.spec, self.node.operation
        assert isinstance(operation, Dense | Convolution)
        name = spec.initialiser if operation.initialiser == SPEC else operation.initialiser
        init = scaled(INITIALISERS[name], operation.scale)
        if isinstance(operation, Convolution):
            shape = (operation.kernel, operation.kernel, x.shape[-1], operation.filters)
            kernel = self.reparameterised(parameter(self, "kernel", init, shape))
            z = convolve(x, kernel, operation.stride, operation.padding, spec.convolution, self.scale)
        else:
            x = x.reshape(x.shape[0], -1) if operation.flatten else x
            units = operation.units * operation.tasks
            init = for_each_task(init, operation.tasks)
            z = x @ self.reparameterised(parameter(self, "kernel", init, (x.shape[-1], units)))
        if own is not None and "down" in own:
            z = z + self.low_rank(x, own)
        if spec.bias if operation.bias is None else operation.bias:
            z = z + parameter(self, "bias", nn.initializers.zeros, z.shape[-1:])
        if operation.normalise and spec.normalisation != "none":
            z = Normalisation(spec.normalisation, spec.affine, name="norm")(z)
        post = applied(self, nonlinearity_of(spec, self.node), OWN, z)
        return Activation(z, scaled_units(post, own) if own is not None and "change" in own else post)

    def low_rank(self, x: Array, own: Mapping[str, Array]) -> Array:
        """What each row's own change of the kernel adds to the layer's output."""
        operation, modulation = self.node.operation, self.spec.modulation
        assert modulation is not None
        if isinstance(operation, Convolution):
            how = operation.stride, operation.padding, self.spec.convolution, self.scale
            reduced = jax.vmap(lambda x, kernel: convolve(x[None], kernel, *how)[0])(x, own["down"])
        else:
            reduced = jnp.einsum("b...i,bir->b...r", x, own["down"])
        return widened(reduced, own, modulation)

    def reparameterised(self, kernel: Array) -> Array:
        if self.node.parameterisation == "weight":
            return weight_normalised(kernel, parameter(self, "gain", lambda key: unit_norms(kernel)))
        if self.node.parameterisation == "spectral":
            return spectrally_normalised(kernel, self.spec.power_iterations)
        return kernel


class Positions(nn.Module):
    """See ``operations.Tokens``."""

    operation: Tokens

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        if self.operation.class_token:
            token = parameter(self, "class_token", nn.initializers.zeros, (1, x.shape[-1]))
            x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], *token.shape)), x], axis=1)
        return x + parameter(self, "positions", nn.initializers.normal(self.operation.deviation), x.shape[1:])


class SelfAttention(nn.Module):
    """See ``operations.Attention``. Kernels have the spec's initialiser."""

    spec: NetworkSpec
    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, tokens, features = x.shape
        query, key, value = (
            self.linear(name, x).reshape(batch, tokens, self.heads, -1) for name in ("query", "key", "value")
        )
        weights = jax.nn.softmax(jnp.einsum("bihd,bjhd->bhij", query, key) / math.sqrt(features / self.heads))
        return self.linear("out", jnp.einsum("bhij,bjhd->bihd", weights, value).reshape(x.shape))

    def linear(self, name: str, x: Array) -> Array:
        operation = Dense(x.shape[-1], flatten=False, normalise=False, activate=False, bias=True)
        made: Activation = Layer(self.spec, Node(name, operation), name=name)(x)
        return made.post


class Factor(nn.Module):
    """A learned vector, stored as ``stored`` and worth ``initial`` at the start."""

    initial: float
    stored: float

    @nn.compact
    def __call__(self, features: int) -> Array:
        stored = parameter(self, "scale", nn.initializers.constant(self.stored), (features,))
        return stored * (self.initial / self.stored)


def pooled(x: Array, operation: Pool) -> Array:
    """The pooled map; means count the positions inside it only."""
    reduce = jnp.max if operation.kind == "max" else jnp.mean
    if operation.window is None:
        return reduce(x.reshape(x.shape[0], -1, x.shape[-1]), axis=1)
    window, stride = operation.window, operation.stride
    edges = [same(side, window, stride) if operation.padding == "SAME" else (0, 0) for side in x.shape[1:3]]
    if operation.kind == "max":
        return largest(x, window, stride, edges)
    return windows(x, window, stride, edges) / windows(jnp.ones_like(x), window, stride, edges)


def shifted(x: Array, window: int, stride: int, edges: list[tuple[int, int]], fill: float) -> list[Array]:
    """The entries of every window as ``window^2`` maps."""
    x = jnp.pad(x, ((0, 0), *edges, (0, 0)), constant_values=fill)
    high, wide = ((side - window) // stride + 1 for side in x.shape[1:3])
    return [
        x[:, i : i + (high - 1) * stride + 1 : stride, j : j + (wide - 1) * stride + 1 : stride]
        for i in range(window)
        for j in range(window)
    ]


def largest(x: Array, window: int, stride: int, edges: list[tuple[int, int]]) -> Array:
    """Maxima over windows. (The gradient of ``lax.reduce_window`` is a scatter, which is slow in a loop on a CPU.)"""
    first, *others = shifted(x, window, stride, edges, -jnp.inf)
    for other in others:
        first = jnp.maximum(first, other)
    return first


def windows(x: Array, window: int, stride: int, edges: list[tuple[int, int]]) -> Array:
    """Sums over windows."""
    return sum(shifted(x, window, stride, edges, 0.0), jnp.zeros(()))


def on_sphere(x: Array) -> Array:
    """The features divided by their Euclidean norm; zero stays zero, without a gradient.

    All features are 0 at a fresh network's first normalised observation, which is 0 itself. A bound below the norm
    would give them there a gradient of the inverse of the bound.
    """
    squares = jnp.square(x).sum(-1, keepdims=True)
    some = squares > jnp.finfo(jnp.float32).tiny
    return jnp.where(some, x * jax.lax.rsqrt(jnp.where(some, squares, 1.0)), 0.0)


def reset_where(first: Array | None, initial: Any, carry: Any) -> Any:
    """The carry, with the rows where ``first`` is true as at the start of an episode."""
    if first is None:
        return carry
    return jax.tree.map(lambda new, old: jnp.where(first.reshape(-1, *[1] * (old.ndim - 1)), new, old), initial, carry)


class Layers(nn.Module):
    """All nodes: ``observations[B, *shape]`` -> outputs and activations by name, and the carry after the step."""

    spec: NetworkSpec
    nodes: tuple[Node, ...]  # each after its inputs

    @nn.compact
    def __call__(
        self, observations: Array, carry: Any, first: Array | None, modulators: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Activation], Any]:
        """One step, ``first`` bool[B] or None; with ``first`` bool[T, B], a sequence of rows ``[T * B, ...]``.

        ``modulators``: of each row, by layer (``networks.modulation.chosen``).
        """
        spec = self.spec
        activations: dict[str, Activation] = {}
        outputs: dict[str, Array] = {}
        after: dict[str, Any] = {}
        pixels = arranged(spec, observations)
        values = {OBSERVATION: floats(pixels, spec.scale)}

        dropout = None if spec.dropout is None else Dropout(spec.dropout, name=DROPOUT)

        def shown(name: str, made: Activation, of_spec: bool) -> Array:
            """Note the activation; if its non-linearity is the spec's, with interval-wise dropout."""
            if dropout is not None and of_spec:
                made = made._replace(post=made.post * dropout(made.pre, len(activations)))
            activations[name] = made
            return made.post

        for node in self.nodes:
            x, operation, name = values[node.inputs[0]], node.operation, node.name
            match operation:
                case Dense() | Convolution():
                    raw = isinstance(operation, Convolution) and node.inputs[0] == OBSERVATION
                    own = None if modulators is None else modulators.get(name)
                    layer = Layer(spec, node, spec.scale if raw else 1.0, name=name)
                    made = layer(pixels if raw else x, own)
                    values[name] = shown(name, made, True) if operation.activate else made.post
                    if isinstance(operation, Dense) and operation.tasks > 1:
                        task = task_of(jnp.asarray(observations), operation.tasks)
                        values[name] = own_units(values[name], task, operation.tasks)
                case Activate():
                    if operation.normalise and spec.normalisation != "none":
                        x = Normalisation(spec.normalisation, spec.affine, name=name)(x)
                    post = applied(self, nonlinearity_of(spec, node), own_activation(name), x)
                    values[name] = shown(name, Activation(x, post), operation.function == SPEC)
                case Normalise():
                    kind = spec.normalisation if operation.kind == SPEC else operation.kind
                    affine = spec.affine if operation.affine is None else operation.affine
                    values[name] = x if kind == "none" else Normalisation(kind, affine, name=name)(x)
                case Sum():
                    values[name] = sum((values[each] for each in node.inputs[1:]), x)
                case Concatenate():
                    values[name] = jnp.concatenate([values[each] for each in node.inputs], axis=-1)
                case Flatten():
                    values[name] = x.reshape(x.shape[0], -1)
                case Pool():
                    values[name] = pooled(x, operation)
                case Tokens():
                    values[name] = Positions(operation, name=name)(x)
                case Token():
                    values[name] = x[:, operation.number]
                case Attention():
                    values[name] = SelfAttention(spec, operation.heads, name=name)(x)
                case Recurrent():
                    after[name], z = self.remembered(node, x.reshape(x.shape[0], -1), carry[name], first)
                    values[name], activations[name] = z, Activation(z, z)
                case Scale():
                    values[name] = x * Factor(operation.initial, operation.stored, name=name)(x.shape[-1])
                case Shift():
                    values[name] = jnp.concatenate([x, jnp.full((*x.shape[:-1], 1), operation.value)], axis=-1)
                case Sphere():
                    values[name] = on_sphere(x)
                case Interpolate():
                    share = Factor(operation.initial, operation.stored, name=name)(x.shape[-1])
                    values[name] = x + share * (values[node.inputs[1]] - x)
            if node.output:
                outputs[name] = values[name]
        return outputs, activations, after or ()

    def remembered(self, node: Node, x: Array, carry: Any, first: Array | None) -> tuple[Any, Array]:
        """The carry and the output of a recurrent cell after one step or, with ``first`` bool[T, B], after each.

        Only the recurrence runs step by step. What comes before and after it sees all steps of a sequence at once.
        """
        operation = node.operation
        assert isinstance(operation, Recurrent)
        cell, settings = CELLS[operation.cell], dict(operation.settings)
        if first is None or first.ndim == 1:
            initial = cell.initial(x.shape[0], operation.units, x.shape[-1], **settings)
            module = cell.module(operation.units, **settings, name=node.name)
            made: tuple[Any, Array] = module(reset_where(first, initial, carry), x)
            return made
        initial = cell.initial(first.shape[1], operation.units, x.shape[-1], **settings)
        variables = {"params": self.variables["params"][node.name]}
        alone = cell.module(operation.units, **settings, parent=None)

        def step(carry: Any, inputs: tuple[Any, Array]) -> tuple[Any, Array]:
            after: Any = alone.apply(variables, reset_where(inputs[1], initial, carry), inputs[0], method="step")
            return after[0], after[1]

        drive = jax.tree.map(lambda z: z.reshape(*first.shape, -1), alone.apply(variables, x, method="inputs"))
        carry, z = jax.lax.scan(step, carry, (drive, first))
        return carry, z.reshape(-1, z.shape[-1])


def own_units(z: Array, task: Array, tasks: int) -> Array:
    """Of ``z[B, tasks * units]``, those of each row's task, ``[B, units]`` (as a sum: no gradient to the others)."""
    every = z.reshape(z.shape[0], tasks, -1)
    return jnp.sum(jnp.where(jnp.arange(tasks)[:, None] == task[:, None, None], every, 0.0), axis=1)


def arranged(spec: NetworkSpec, observations: Array) -> Array:
    """What the first layers read: observations with the channels last, of their own type, and the task if they see it.

    The task's entries are further features, the same at each place.
    """
    x, task = separated(jnp.asarray(observations), spec.task_entries)
    x = jnp.moveaxis(x, 1, -1) if spec.channels_first else x
    if not spec.sees_task:
        return x
    last = task[(slice(None), *(-1 for _ in task.shape[1:-1]))].reshape(len(x), *(1 for _ in x.shape[1:-1]), -1)
    return jnp.concatenate([x, jnp.broadcast_to(last, (*x.shape[:-1], spec.task_entries))], axis=-1)


def initial_carry(nodes: tuple[Node, ...], shapes: Mapping[str, tuple[int, ...]], batch: int) -> Any:
    """The carry of ``batch`` envs at the start of an episode, by node; () without a recurrent cell."""
    made = {
        node.name: CELLS[node.operation.cell].initial(
            batch, node.operation.units, math.prod(shapes[node.inputs[0]]), **dict(node.operation.settings)
        )
        for node in nodes
        if isinstance(node.operation, Recurrent)
    }
    return made or ()
