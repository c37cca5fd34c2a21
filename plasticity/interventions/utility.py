"""Perturbed gradient descent, and its form in which useful parameters or units are protected."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import BelowOne, NonNegative, Positive, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Key, ModulePath, Network, Optimizer, Params, State
from plasticity.interventions import surgery
from plasticity.interventions.base import Intervention
from plasticity.interventions.perturbation import noise_like
from plasticity.optim.step_sizes import forwarded, required_step_size

Of = Literal["weights", "units"]
Order = Literal["first", "second"]
Relative = Literal["global", "local"]
Loss = Callable[[Params], Array]
PAPER = "Elsayed, Mahmood 2024, Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning"
NOISE, INNER, PROBE = range(3)  # tags of the keys


class Utility(NamedTuple):
    """State of :func:`upgd`."""

    utility: Params  # of single weights; a unit's is the sum over the weights that read it
    inner: optax.OptState


class Gates(NamedTuple):
    """``1 - s`` for each parameter, and 1 where a parameter belongs to a gated weight or unit, else 0."""

    open: Params
    gated: Params


def relative_utility(utility: Params) -> Params:
    """``sigmoid(U / max U)``, with the maximum over all parameters; 1/2 everywhere if no utility is positive."""
    largest = jnp.max(jnp.stack([jnp.max(u) for u in jax.tree.leaves(utility)]))
    scale = jnp.where(largest > 0, 1.0 / jnp.where(largest > 0, largest, 1.0), 0.0)
    return jax.tree.map(lambda u: jax.nn.sigmoid(scale * u), utility)


def locally_relative_utility(utility: Params) -> Params:
    """``sigmoid(U / |U|)``, the Euclidean norm over the weights of each output unit; of a vector, over all of it."""

    def leaf(u: Array) -> Array:
        axes = tuple(range(u.ndim - 1)) if u.ndim > 1 else None
        return jax.nn.sigmoid(u / jnp.maximum(jnp.sqrt(jnp.sum(u * u, axis=axes, keepdims=True)), 1e-12))

    return jax.tree.map(leaf, utility)


RELATIVE: Mapping[Relative, Callable[[Params], Params]] = {
    "global": relative_utility,
    "local": locally_relative_utility,
}


# Units.


def readers(network: Network, params: Params) -> dict[str, list[tuple[ModulePath, Any]]]:
    """The kernels that read the units of each layer, with the unit of each of their rows; ``ValueError`` if none do."""
    known = set(trees.paths(params))
    found = {
        wiring.name: [((*sink.path, "kernel"), sink.owner) for sink in wiring.sinks if (*sink.path, "kernel") in known]
        for wiring in network.units
    }
    found = {name: sinks for name, sinks in found.items() if sinks}
    if not found:
        raise ValueError("utility: units needs a network with hidden units and their readers; this one describes none")
    return found


def unit_utility(network: Network, utility: Params) -> dict[str, Array]:
    """``U_i``, float32[units] by layer: the sum of the utilities of the weights that read unit ``i``."""
    sizes = {wiring.name: wiring.size for wiring in network.units}

    def layer(name: str, sinks: list[tuple[ModulePath, Any]]) -> Array:
        total = jnp.zeros(sizes[name])
        for path, owner in sinks:
            u = trees.get(utility, path)
            rows = jnp.sum(u, axis=tuple(axis for axis in range(u.ndim) if axis != u.ndim - 2))
            total = total.at[owner].add(jnp.where(owner >= 0, rows, 0.0))  # -1 is the last unit, and adds 0
        return total

    return {name: layer(name, sinks) for name, sinks in readers(network, utility).items()}


def scaled_units(network: Network, params: Params, gates: Mapping[str, Array]) -> Params:
    """The parameters with the weights that read each unit multiplied by its gate: the unit's output is scaled."""
    for name, sinks in readers(network, params).items():
        for path, owner in sinks:
            kernel = trees.get(params, path)
            factor = jnp.where(owner >= 0, gates[name][owner], 1.0)[:, None]
            params = trees.put(params, path, kernel * factor)
    return params


def unit_gates(network: Network, utility: Params, relative: Relative) -> Gates:
    """Gates of the parameters that write a unit; those of other parameters are open and not gated."""
    scaled = RELATIVE[relative](unit_utility(network, utility))
    sources = [(source, scaled[w.name]) for w in network.units if w.name in scaled for source in w.sources]

    def spread(value: Callable[[Array], Array]) -> Params:
        tree = jax.tree.map(jnp.zeros_like, utility)
        for source, s in sources:
            tree = trees.on_units(functools.partial(jnp.add, surgery.owned(value(s), source.owner)), tree, source)
        return tree

    return Gates(spread(lambda s: 1.0 - s), spread(jnp.ones_like))


# Utilities.


def signs_like(key: Key, tree: Params) -> Params:
    """Independent signs -1 and 1 in the tree's shapes."""
    leaves, structure = jax.tree.flatten(tree)
    drawn = [jax.random.rademacher(jax.random.fold_in(key, i), x.shape, x.dtype) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, drawn)


def diagonal(loss: Loss, params: Params, key: Key) -> Params:
    """An unbiased estimate of the Hessian's diagonal, ``z (H z)`` with random signs ``z`` (Hutchinson's)."""
    z = signs_like(key, params)
    product = jax.jvp(jax.grad(loss), (params,), (z,))[1]
    return jax.tree.map(jnp.multiply, z, product)


def curvature_of_weights(loss: Loss, params: Params, key: Key) -> Params:
    """``h theta^2 / 2`` of each weight, with ``h`` the estimated diagonal."""
    return jax.tree.map(lambda h, theta: 0.5 * h * theta**2, diagonal(loss, params, key), params)


def curvature_of_units(network: Network, loss: Loss, params: Params, key: Key) -> Params:
    """``h / 2`` of each unit's gate at 1, in equal shares on the weights that read the unit."""
    found = readers(network, params)
    ones = {wiring.name: jnp.ones(wiring.size) for wiring in network.units if wiring.name in found}
    h = diagonal(lambda gates: loss(scaled_units(network, params, gates)), ones, key)
    counted = unit_utility(network, jax.tree.map(jnp.ones_like, params))
    shares = jax.tree.map(lambda x, number: 0.5 * x / jnp.maximum(number, 1.0), h, counted)
    made = jax.tree.map(jnp.zeros_like, params)
    for name, sinks in found.items():
        for path, owner in sinks:
            rows = surgery.owned(shares[name], owner)[:, None]
            made = trees.put(made, path, trees.get(made, path) + rows)
    return made


def required(name: str, extra: Mapping[str, Any], setting: str) -> Any:
    if extra.get(name) is None:
        raise ValueError(f"upgd: {setting} is not allowed with this agent, whose updates have no {name}")
    return extra[name]


@metadata(
    paper=PAPER,
    checked="NumPy loops over four and five updates; the second order against JAX's full Hessian, the utility of "
    "units by finite differences; the estimate of the Hessian is ours",
    note="with sgd it is the paper's UPGD; no settings make it do nothing",
)
def upgd(
    *,
    beta: BelowOne = 0.999,
    sigma: NonNegative = 0.001,
    weight_decay: NonNegative = 0.001,
    utility: Of = "weights",
    order: Order = "first",
    relative: Relative = "global",
    protect: bool = True,
    gain: Positive = 2.0,
) -> Intervention:
    """Utility-based perturbed gradient descent: useful parameters move less, useless ones move more and at random.

    With gradient ``g`` and the optimizer's own update ``u`` (for SGD ``-eta g``, ``eta`` the step size),
    ``U <- beta U + (1 - beta) (-g theta)``, ``s = sigmoid(U / max U)`` with the maximum over all parameters, and
    ``theta <- (1 - eta weight_decay) theta + gain (u - eta xi) (1 - s)``, ``xi ~ N(0, sigma^2)``.

    Args:
        beta: traced.
        sigma: in the gradient's unit (traced).
        weight_decay: traced.
        utility: whose utility it is (static). "weights": of each parameter. "units": of each hidden unit, which gates
            the parameters that write it: ``U_i`` estimates how much the loss would rise without the unit, ``-dL/dc_i``
            for a factor ``c_i`` = 1 of its output. Other parameters, such as those of output layers, then follow ``u``
            without noise.
        order: "first", or "second": ``U`` also averages ``h theta^2 / 2`` (of a unit ``h / 2``), with ``h`` the
            diagonal of the task loss's Hessian for the parameters (or factors) (static).
        relative: to what the utility is compared (static). "global": to the largest. "local": ``s = sigmoid(U / |U|)``
            with the Euclidean norm over the weights of one output unit, over a vector, or over the units of one layer.
        protect: whether the gate also holds for the update, or for the noise alone, ``theta <- (1 - eta weight_decay)
            theta + u - gain eta xi (1 - s)`` (the paper's non-protecting form) (static).
        gain: 2 in the authors' short code, so that a utility of 0 leaves the plain step; 1 in the code of their
            experiments (traced).

    Raises:
        ValueError: for an unknown word and, while tracing, if an agent gives its optimizer no key, if the utility of
            units is asked of a network that describes none, or "second" of an agent whose gradient is not that of a
            loss (eligibility traces).

    The defaults are those of the authors' short code, whose learning rate is 1e-5. Paper and code correct ``U`` for its
    initialisation at 0 by ``1 - beta^t``; here the factor cancels in ``U / max U``. (The code corrects the numerator
    only, so its gates are almost fully open or closed for the first ``1 / (1 - beta)`` updates.) If no utility is
    positive, ``s`` is 1/2; in the code the order is then reversed. Behind an eligibility trace ``g`` is the direction
    of descent. Drawing ``xi`` costs more than the rest of a small network's update.

    The diagonal ``h`` is ours: an unbiased estimate ``z (H z)`` with random signs ``z``, averaged by ``beta``, for
    about twice the cost of a gradient; the paper approximates it by HesScale. The factor ``c_i`` scales what the next
    layers read; with a normalisation in between it is that of the normalised output. ``dL/dc_i`` is the sum of
    ``g theta`` over the weights that read the unit. In the code, the local norm of a convolution is over one row of its
    kernel.
    """
    for name, value, words in (("utility", utility, Of), ("order", order, Order), ("relative", relative, Relative)):
        check(name, value, get_args(words))

    def described(key: Key, params: Params, network: Network) -> State:
        del key
        readers(network, params)
        return ()

    def measured(gradients: Params, params: Params, extra: Mapping[str, Any]) -> Params:
        first = jax.tree.map(lambda g, theta: -g * theta, gradients, params)
        if order == "first":
            return first
        loss, key = required("loss", extra, "order: second"), jax.random.fold_in(extra["key"], PROBE)
        if utility == "weights":
            second = curvature_of_weights(loss, params, key)
        else:
            second = curvature_of_units(required("network", extra, "utility: units"), loss, params, key)
        return jax.tree.map(jnp.add, first, second)

    def gates_of(average: Params, extra: Mapping[str, Any]) -> Gates:
        if utility == "units":
            return unit_gates(required("network", extra, "utility: units"), average, relative)
        return Gates(jax.tree.map(lambda s: 1.0 - s, RELATIVE[relative](average)), jax.tree.map(jnp.ones_like, average))

    def wrapped(optimizer: Optimizer) -> Optimizer:
        def init(params: Params) -> Utility:
            return Utility(jax.tree.map(jnp.zeros_like, params), optimizer.init(params))

        def update(gradients: Params, state: Utility, params: Params = None, **extra: Any) -> tuple[Params, Utility]:
            if extra.get("key") is None:
                raise ValueError("upgd needs a key at every update of the optimizer")
            eta = required_step_size(optimizer, "upgd")(state.inner)
            # A separate key for the inner optimizer, in case it draws random numbers too.
            updates, inner = optimizer.update(
                gradients, state.inner, params, **(extra | {"key": jax.random.fold_in(extra["key"], INNER)})
            )
            average = jax.tree.map(
                lambda u, new: beta * u + (1 - beta) * new, state.utility, measured(gradients, params, extra)
            )
            gates = gates_of(average, extra)

            def leaf(u: Array, opened: Array, gated: Array, xi: Array, theta: Array) -> Array:
                gate = gain * opened
                moved = u * (gate + (1.0 - gated)) if protect else u
                return moved - eta * sigma * xi * gate - eta * weight_decay * theta

            noise = noise_like(jax.random.fold_in(extra["key"], NOISE), params)
            updates = jax.tree.map(leaf, updates, gates.open, gates.gated, noise, params)
            return updates, Utility(average, inner)

        return Optimizer(init, update, forwarded(optimizer, lambda state: optimizer.learning_rate(state.inner)))

    return Intervention(optimizer=wrapped, init=described) if utility == "units" else Intervention(optimizer=wrapped)


@metadata(
    paper=PAPER,
    checked="mean and standard deviation of the steps",
    neutral={"sigma": 0.0},
    note="the default of sigma is ours",
)
def pgd(*, sigma: NonNegative = 0.01) -> Intervention:
    """Perturbed gradient descent: Gaussian noise in every step, as in :func:`upgd` without utilities.

    ``theta <- theta + u - eta xi``, ``xi ~ N(0, sigma^2)``, with the optimizer's own update ``u`` (for SGD ``-eta g``)
    and its step size ``eta``.

    Args:
        sigma: in the gradient's unit (traced). The authors search 0.001 ... 0.5.

    Raises:
        ValueError: while tracing, if an agent gives its optimizer no key.

    The paper's baseline, also with weight decay: add the intervention `weight_decay` with ``per: learning_rate``.
    """

    def wrapped(optimizer: Optimizer) -> Optimizer:
        def update(gradients: Params, state: Any, params: Params = None, **extra: Any) -> tuple[Params, Any]:
            if extra.get("key") is None:
                raise ValueError("pgd needs a key at every update of the optimizer")
            eta = required_step_size(optimizer, "pgd")(state)
            inner = extra | {"key": jax.random.fold_in(extra["key"], INNER)}
            updates, state = optimizer.update(gradients, state, params, **inner)
            noise = noise_like(jax.random.fold_in(extra["key"], NOISE), updates)
            return jax.tree.map(lambda u, xi: u - eta * sigma * xi, updates, noise), state

        return Optimizer(optimizer.init, update, optimizer.learning_rate)

    return Intervention(optimizer=wrapped)
