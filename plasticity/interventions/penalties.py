"""Penalties on the weights themselves."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Few, NonNegative, Positive, Repeats, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Clock, Context, Key, Learner, Network, Params, Path, State
from plasticity.interventions.base import Intervention, when

Which = Literal["kernels", "all"]
Reduce = Literal["sum", "mean"]
TINY = float(jnp.finfo(jnp.float32).tiny)


def chosen(which: Which, params: Params) -> dict[str, Array]:
    """The arrays a penalty is on, by path: those with two or more axes ("kernels") or all."""
    named = zip(trees.paths(params), jax.tree.leaves(params), strict=True)
    return {"/".join(path): leaf for path, leaf in named if which == "all" or leaf.ndim >= 2}


def total(terms: list[Array]) -> Array:
    return sum(terms, jnp.zeros(()))


def start_of(period: int) -> Callable[[Clock], Array]:
    """True at the first of every ``period`` updates (static); ``ValueError`` if the period is not at least 1."""
    if period < 1:
        raise ValueError(f"period: {period} is not allowed; must be at least 1")
    return lambda clock: clock.update % period == 0


@metadata(paper="Krogh, Hertz 1991, A Simple Weight Decay Can Improve Generalization", neutral={"strength": 0.0})
def l2(*, strength: NonNegative = 1e-4, which: Which = "kernels") -> Intervention:
    """The squared norm of the parameters, in the loss.

    ``strength / 2 |theta|^2``, whose gradient is ``strength theta``; Adam divides it like the rest of the gradient,
    where ``weight_decay`` passes it by. ``strength`` is traced. ``which`` (static): "kernels", the parameters with two
    or more axes, the output layer's included, or "all". The default strength is ours. ``ValueError`` for an unknown
    name.
    """
    check("which", which, ("kernels", "all"))

    def penalty(state: State, params: Params, context: Context) -> Array:
        del state, context
        return 0.5 * strength * total([jnp.sum(jnp.square(x)) for x in chosen(which, params).values()])

    return Intervention(penalty=penalty)


@metadata(
    paper="Kumar, Marklund, Van Roy 2023, Maintaining Plasticity in Continual Learning via Regenerative Regularization",
    neutral={"strength": 0.0},
)
def l2_init(*, strength: NonNegative = 1e-2, reduce: Reduce = "sum", which: Which = "all") -> Intervention:
    """The squared distance to the initial parameters, in the loss.

    ``strength |theta - theta_0|^2`` (the gradient is twice the difference). ``reduce`` "mean" takes the mean over each
    array and the sum over arrays, as the code of Chung et al. 2024 does ("regen"). ``strength`` is traced, ``reduce``
    and ``which`` ("kernels" or "all") are static. The default strength is that of Juliani, Ash 2024; we have not seen
    the paper's. ``theta_0`` stays what it was when the run began, also after resets. ``ValueError`` for an unknown
    name.
    """
    check("reduce", reduce, ("sum", "mean"))
    check("which", which, ("kernels", "all"))
    pooled = jnp.sum if reduce == "sum" else jnp.mean

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return chosen(which, params)

    def penalty(state: State, params: Params, context: Context) -> Array:
        del context
        now = chosen(which, params)
        return strength * total([pooled(jnp.square(now[name] - first)) for name, first in state.items()])

    return Intervention(init=init, penalty=penalty)


@metadata(
    paper="Lewandowski et al. 2023, Directions of Curvature as an Explanation for Loss of Plasticity",
    neutral={"strength": 0.0},
)
def wasserstein_init(*, strength: NonNegative = 1e-2, which: Which = "kernels", period: Count = 1) -> Intervention:
    """The 2-Wasserstein distance between the values of each array and its initial values, in the loss.

    ``strength sum_l |sort(vec W_l) - sort(vec W_l0)|^2``: each weight is drawn to the initial value of its own rank.
    The ranks are found before the forward pass of the first of every ``period`` updates and hold until the next; at 1,
    the paper's, the gradient is that through the sort. Sorting a 256 x 256 kernel on a CPU takes as long as some fifty
    updates of the network it belongs to, so there a period of 100 or more is advisable.

    ``strength`` is traced; ``which`` ("kernels" or "all") and ``period``, in updates, are static. The default strength
    is that of Juliani, Ash 2024. ``ValueError`` for an unknown name or a period below 1.
    """
    check("which", which, ("kernels", "all"))
    due = start_of(period)

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        first = chosen(which, params)
        return {"sorted": {name: jnp.sort(x, axis=None) for name, x in first.items()}, "goal": first}

    def matched(x: Array, values: Array) -> Array:
        """The i-th smallest of ``values`` in the place of the i-th smallest of ``x``."""
        flat = jnp.zeros(x.size, x.dtype).at[jnp.argsort(x, axis=None, stable=False)].set(values, unique_indices=True)
        return flat.reshape(x.shape)

    def rank(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key, context
        now = chosen(which, learner.params)
        return {**state, "goal": {name: matched(now[name], x) for name, x in state["sorted"].items()}}, learner

    def penalty(state: State, params: Params, context: Context) -> Array:
        del context
        now = chosen(which, params)
        return strength * total([jnp.sum(jnp.square(now[name] - goal)) for name, goal in state["goal"].items()])

    return Intervention(init=init, penalty=penalty, prepare=when(due, rank))


def as_matrix(kernel: Array) -> Array:
    """A kernel as ``[inputs, units]``; of a convolution all positions and channels it reads are its inputs."""
    return kernel.reshape(-1, kernel.shape[-1])


def unit(vector: Array) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), TINY)


@metadata(
    paper="Lewandowski et al. 2024, Learning Continually by Spectral Regularization",
    neutral={"strength": 0.0},
)
def spectral(
    *,
    strength: NonNegative = 1e-4,
    power: Few = 2,
    target: Positive = 1.0,
    iterations: Repeats = 1,
    output: bool = True,
    reduce: Reduce = "sum",
) -> Intervention:
    """The distance of every layer's largest singular value from a target, in the loss.

    ``strength sum_l [(sigma_1(W_l)^k - target^k)^2 + |b_l|^(2k)]``, ``k`` being ``power``; where layers are normalised,
    also ``sum_i (scale_i^k - 1)^2 + |offset|^(2k)``, whose form is ours. ``sigma_1 = |W^T u|``; ``u`` is kept and takes
    ``iterations`` steps of the power iteration ``v = W^T u / |W^T u|``, ``u <- W v / |W v|`` after every update. It
    begins at random, so the first few values of ``sigma_1`` are too small. A convolution's kernel is a matrix
    [positions and channels it reads, filters].

    ``strength`` and ``target`` are traced; ``power``, ``iterations``, ``output`` (the output layers too) and ``reduce``
    (over layers: "sum", or "mean") are static. The default strength is what a port calls the paper's. One public port
    uses a target of 2 and 10 iterations. ``ValueError`` for an unknown name or a number below 1.
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

    def layers(network: Network) -> list[Path]:
        return [*network.hidden, *(network.outputs if output else ())]

    def to_power(square: Array) -> Array:
        return square ** (power // 2) if power % 2 == 0 else jnp.maximum(square, TINY) ** (power / 2)

    def layer(u: Array, module: Params) -> Array:
        sigma = to_power(jnp.sum(jnp.square(u @ as_matrix(module["kernel"]))))
        norm = module.get("norm", {})
        shifts = [part["bias"] for part in (module,) if "bias" in part] + [norm[k] for k in ("offset",) if k in norm]
        terms = [jnp.square(sigma - target**power)] + [jnp.sum(jnp.square(b)) ** power for b in shifts]
        if "scale" in norm:
            terms.append(jnp.sum(jnp.square(norm["scale"] ** power - 1.0)))
        return total(terms)

    def penalty(state: State, params: Params, context: Context) -> Array:
        paths = layers(context.network)
        terms = [layer(state["/".join(path)], trees.get(params, path)) for path in paths]
        return strength * total(terms) / (len(terms) if reduce == "mean" else 1)

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
    neutral={"strength": 0.0},
)
def parseval(*, strength: NonNegative = 1e-3, scale: Positive = 2.0, scale_width: bool = True) -> Intervention:
    """Holds the hidden kernels near ``sqrt(scale)`` times an orthogonal matrix.

    ``strength sum_l (64 / n_l)^2 |W_l W_l^T - scale I|_F^2`` over the hidden layers, the Gram matrix taken on the short
    side of ``W_l``, of length ``n_l``; without ``scale_width`` (static) the factor is 1. ``strength`` and ``scale``
    (the square of the initial gain: 2 for orthogonal kernels here) are traced. A convolution's kernel is a matrix
    [positions and channels it reads, filters]. The output layers are left alone. The Gram matrix of an ``n x m`` kernel
    costs about as much as the layer's forward pass on ``n`` samples. The paper's code takes the side of the units,
    whichever is longer (then no kernel has a value of 0), and puts learnable diagonal layers behind some kernels, which
    are not here.
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
