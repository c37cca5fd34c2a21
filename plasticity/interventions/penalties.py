"""Penalties on the weights themselves."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Few, NonNegative, Positive, Repeats, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Clock, Context, Key, Learner, ModulePath, Network, Params, State
from plasticity.interventions.base import Intervention, when

Which = Literal["kernels", "all"]
Reduce = Literal["sum", "mean"]
TINY = float(jnp.finfo(jnp.float32).tiny)


def selected(which: Which, params: Params) -> dict[str, Array]:
    """The penalised arrays, by path: those with two or more axes ("kernels") or all.

    ``ValueError`` (while tracing) if there is none.
    """
    check_selected(which, params)
    named = zip(trees.paths(params), jax.tree.leaves(params), strict=True)
    return {"/".join(path): leaf for path, leaf in named if which == "all" or leaf.ndim >= 2}


def check_selected(which: Which, params: Params) -> None:
    """Raise a ``ValueError`` (while tracing) if no parameter is selected."""
    if which == "kernels" and not any(leaf.ndim >= 2 for leaf in jax.tree.leaves(params)):
        raise ValueError("which: kernels selects nothing; no parameter of this network has two axes (set which: all)")


def total(terms: list[Array]) -> Array:
    return sum(terms, jnp.zeros(()))


def start_of(period: int) -> Callable[[Clock], Array]:
    """True at the first of every ``period`` updates (static); ``ValueError`` if the period is below 1."""
    if period < 1:
        raise ValueError(f"period: {period} is not allowed; must be at least 1")
    return lambda clock: clock.update % period == 0


@metadata(
    paper="Krogh, Hertz 1991, A Simple Weight Decay Can Improve Generalization",
    checked="value and gradient by hand; the default of `strength` is ours",
    neutral={"strength": 0.0},
)
def l2(*, strength: NonNegative = 1e-4, which: Which = "kernels") -> Intervention:
    """L2 regularisation: the squared norm of the parameters, added to the loss.

    ``strength / 2 |theta|^2``, with gradient ``strength theta``. Adam rescales it like the rest of the gradient, unlike
    ``weight_decay``.

    Args:
        strength: traced; the default is ours.
        which: "kernels", the parameters with two or more axes, including the output layer's, or "all" (static).

    Raises:
        ValueError: for an unknown name and, while tracing, if no parameter is selected.
    """
    check("which", which, ("kernels", "all"))

    def penalty(state: State, params: Params, context: Context) -> Array:
        del state, context
        return 0.5 * strength * total([jnp.sum(jnp.square(x)) for x in selected(which, params).values()])

    return Intervention(penalty=penalty)


@metadata(
    paper="Kumar, Marklund, Van Roy 2023, Maintaining Plasticity in Continual Learning via Regenerative Regularization",
    checked="value and gradient by hand; the equation is second-hand, and the paper's default of `strength` was "
    "not seen",
    neutral={"strength": 0.0},
)
def l2_init(*, strength: NonNegative = 1e-2, reduce: Reduce = "sum", which: Which = "all") -> Intervention:
    """L2 Init: the squared distance to the initial parameters, added to the loss.

    ``strength |theta - theta_0|^2`` (the gradient is twice the difference).

    Args:
        strength: traced. The default is that of Juliani, Ash 2024; we have not seen the paper's.
        reduce: "sum", or "mean", which averages over each array and sums over arrays, as the code of Chung et al. 2024
            does ("regen") (static).
        which: "kernels" or "all" (static).

    Raises:
        ValueError: for an unknown name and, while tracing, if no parameter is selected.

    ``theta_0`` remains the initial parameters of the run, even after resets.
    """
    check("reduce", reduce, ("sum", "mean"))
    check("which", which, ("kernels", "all"))
    pooled = jnp.sum if reduce == "sum" else jnp.mean

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return selected(which, params)

    def penalty(state: State, params: Params, context: Context) -> Array:
        del context
        now = selected(which, params)
        return strength * total([pooled(jnp.square(now[name] - first)) for name, first in state.items()])

    return Intervention(init=init, penalty=penalty)


@metadata(
    paper="Lewandowski et al. 2023, Directions of Curvature as an Explanation for Loss of Plasticity",
    checked="value and gradient by hand, and JAX's gradient through the sort; equation and default of `strength` "
    "follow another paper's code",
    neutral={"strength": 0.0},
)
def wasserstein_init(*, strength: NonNegative = 1e-2, which: Which = "kernels", period: Count = 1) -> Intervention:
    """The squared 2-Wasserstein distance between current and initial values of each array, added to the loss.

    ``strength sum_l |sort(vec W_l) - sort(vec W_l0)|^2``: each weight is pulled to the initial value of the same rank.
    The ranks are computed before the forward pass of the first of every ``period`` updates and kept until the next.
    With period 1, the paper's choice, the gradient is that through the sort.

    Args:
        strength: traced. The default is that of Juliani, Ash 2024.
        which: "kernels" or "all" (static).
        period: number of updates (static).

    Raises:
        ValueError: for an unknown name or a period below 1 and, while tracing, if no parameter is selected.

    On a CPU, sorting a 256 x 256 kernel takes as long as about fifty updates of its network, so we recommend a period
    of 100 or more there.
    """
    check("which", which, ("kernels", "all"))
    due = start_of(period)

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        first = selected(which, params)
        return {"sorted": {name: jnp.sort(x, axis=None) for name, x in first.items()}, "goal": first}

    def matched(x: Array, values: Array) -> Array:
        """The i-th smallest of ``values`` at the position of the i-th smallest of ``x``."""
        flat = jnp.zeros(x.size, x.dtype).at[jnp.argsort(x, axis=None, stable=False)].set(values, unique_indices=True)
        return flat.reshape(x.shape)

    def rank(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key, context
        now = selected(which, learner.params)
        return {**state, "goal": {name: matched(now[name], x) for name, x in state["sorted"].items()}}, learner

    def penalty(state: State, params: Params, context: Context) -> Array:
        del context
        now = selected(which, params)
        return strength * total([jnp.sum(jnp.square(now[name] - goal)) for name, goal in state["goal"].items()])

    return Intervention(init=init, penalty=penalty, prepare=when(due, rank))


def as_matrix(kernel: Array) -> Array:
    """A kernel as ``[inputs, units]``; for a convolution, the inputs are all positions and channels that it reads."""
    return kernel.reshape(-1, kernel.shape[-1])


def unit(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), TINY)


@metadata(
    paper="Lewandowski et al. 2024, Learning Continually by Spectral Regularization",
    checked="value and gradient by hand on diagonal matrices, NumPy's singular values along 50 updates; equation "
    "and default of `strength` are second-hand, the terms of normalisations ours",
    neutral={"strength": 0.0},
    formerly="spectral",
)
def spectral_regularization(
    *,
    strength: NonNegative = 1e-4,
    power: Few = 2,
    target: Positive = 1.0,
    iterations: Repeats = 1,
    output: bool = True,
    reduce: Reduce = "sum",
) -> Intervention:
    """Spectral regularisation: each layer's largest singular value is pulled towards a target by a penalty in the loss.

    ``strength sum_l [(sigma_1(W_l)^k - target^k)^2 + |b_l|^(2k)]``, where ``k`` is ``power``. For each normalisation,
    of a layer or (in residual networks) of its own, the penalty also contains ``sum_i (scale_i^k - 1)^2 +
    |offset|^(2k)``, whose form is ours. ``sigma_1 = |W^T u|``, where
    ``u`` is stored and takes ``iterations`` steps of the power iteration ``v = W^T u / |W^T u|``, ``u <- W v / |W v|``
    after every update. It starts at random, so the first few values of ``sigma_1`` are too small. A convolution's
    kernel is a matrix [positions and channels it reads, filters].

    Args:
        strength: traced. The default is the value that a port attributes to the paper.
        power: static.
        target: traced. One public port uses a target of 2 and 10 iterations.
        iterations: static.
        output: whether to include the output layers (static).
        reduce: "sum", or "mean", which divides all terms by the number of layers (static).

    Raises:
        ValueError: for an unknown name or a number below 1 and, while tracing, for a network without layers.
    """
    check("reduce", reduce, ("sum", "mean"))
    for key, value in (("power", power), ("iterations", iterations)):
        if value < 1:
            raise ValueError(f"{key}: {value} is not allowed; must be at least 1")

    def init(key: Key, params: Params, network: Network) -> State:
        del network
        kernels = [path for path in trees.paths(params) if path[-1] == "kernel"]
        sizes = {"/".join(path[:-1]): math.prod(trees.get(params, path).shape[:-1]) for path in kernels}
        draws = [jax.random.normal(jax.random.fold_in(key, i), (n,)) for i, n in enumerate(sizes.values())]
        return {name: unit(draw) for name, draw in zip(sizes, draws, strict=True)}

    def layers(network: Network) -> list[ModulePath]:
        return [*network.hidden, *(network.outputs if output else ())]

    def to_power(square: Array) -> Array:
        return square ** (power // 2) if power % 2 == 0 else jnp.maximum(square, TINY) ** (power / 2)

    def layer(u: Array, module: Params) -> Array:
        sigma = to_power(jnp.sum(jnp.square(u @ as_matrix(module["kernel"]))))
        terms = [jnp.square(sigma - target**power)]
        if "bias" in module:
            terms.append(jnp.sum(jnp.square(module["bias"])) ** power)
        return total([*terms, *affine(module.get("norm", {}))])

    def affine(norm: Params) -> list[Array]:
        """The terms of a normalisation."""
        terms = [jnp.sum(jnp.square(norm["offset"])) ** power] if "offset" in norm else []
        return [*terms, *([jnp.sum(jnp.square(norm["scale"] ** power - 1.0))] if "scale" in norm else [])]

    def penalty(state: State, params: Params, context: Context) -> Array:
        paths = layers(context.network)
        if not paths:
            raise ValueError("spectral_regularization needs a network with layers; this one has none")
        terms = [layer(state["/".join(path)], trees.get(params, path)) for path in paths]
        for path in context.network.norms:
            if path[:-1] not in paths:  # a node of its own, as before a residual branch
                terms += affine(trees.get(params, path))
        return strength * total(terms) / (len(paths) if reduce == "mean" else 1)

    def iterated(u: Array, kernel: Array) -> Array:
        matrix = as_matrix(kernel)
        for _ in range(iterations):
            u = unit(matrix @ unit(u @ matrix))
        return u

    def step(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        paths = {"/".join(path): path for path in layers(context.network)}
        new = {name: iterated(state[name], trees.get(learner.params, path)["kernel"]) for name, path in paths.items()}
        return {**state, **new}, learner

    return Intervention(init=init, penalty=penalty, step=step)


@metadata(
    paper="Chung et al. 2024, Parseval Regularization for Continual Reinforcement Learning",
    checked="value and gradient by hand on small matrices",
    neutral={"strength": 0.0},
)
def parseval(*, strength: NonNegative = 1e-3, scale: Positive = 2.0, scale_width: bool = True) -> Intervention:
    """Parseval regularisation: hold the hidden kernels near ``sqrt(scale)`` times an orthogonal matrix.

    ``strength sum_l (64 / n_l)^2 |W_l W_l^T - scale I|_F^2`` over the hidden layers. The Gram matrix is taken on the
    short side of ``W_l``, of length ``n_l``. A convolution's kernel is a matrix [positions and channels it reads,
    filters]. The output layers are unchanged.

    Args:
        strength: traced.
        scale: the square of the initial gain: 2 for orthogonal kernels here (traced).
        scale_width: whether to include the factor ``(64 / n_l)^2``, otherwise 1 (static).

    The Gram matrix of an ``n x m`` kernel costs about as much as the layer's forward pass on ``n`` samples. The paper's
    code always takes the side of the units, even if it is the longer one (in which case no kernel reaches a value of
    0). It also adds learnable diagonal layers after some kernels, which are not implemented here.
    """

    def layer(kernel: Array) -> Array:
        matrix = as_matrix(kernel)
        short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        side = len(short)
        factor = (64.0 / side) ** 2 if scale_width else 1.0
        return factor * jnp.sum(jnp.square(short @ short.T - scale * jnp.eye(side)))

    def penalty(state: State, params: Params, context: Context) -> Array:
        del state
        if not context.network.hidden:
            raise ValueError("parseval needs a network with a hidden layer; this one has none")
        return strength * total([layer(trees.get(params, path)["kernel"]) for path in context.network.hidden])

    return Intervention(penalty=penalty)
