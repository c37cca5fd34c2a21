"""Interventions that change what an optimizer does with its gradients; they work with any optimizer."""

import math
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import Positive, metadata
from plasticity.core import trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Optimizer, Params
from plasticity.interventions.base import Intervention
from plasticity.interventions.perturbation import Per, layer_numbers, noise_like, spread_out
from plasticity.optim.step_sizes import forwarded

BETAS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
LARGEST = 9.0  # erfi(9.1) still fits into float32, erfi(9.4) does not

# The sum in `erfi` is over odd multiples of the spacing; its error falls as exp(-(pi / (2 SPACING))^2), here 2e-9.
SPACING = 0.35
ODD = tuple(range(1, 41, 2))


class Tuned(NamedTuple):
    """State of :func:`trac`."""

    scale: Array  # float32[], S of the last update
    variance: Array  # float32[betas]
    gain: Array  # float32[betas], the discounted sum of -h
    displacement: Params  # the sum of the optimizer's own updates
    inner: optax.OptState


def layer_norms(tree: Params, per: Per) -> Array:
    """The Euclidean norm of each layer's numbers, or of all of them, float32[layers]."""
    numbers = jnp.array(layer_numbers(tree, per))
    squares = jnp.stack([jnp.sum(x * x) for x in jax.tree.leaves(tree)])
    return jnp.sqrt(jax.ops.segment_sum(squares, numbers, len(set(layer_numbers(tree, per)))))


@metadata(
    paper="Lyle et al. 2023, Understanding plasticity in neural networks",
    checked="the lengths of the steps in closed form, the correlation of their directions; it is not verified "
    "along which path the paper takes the lengths",
    note="a control, not a remedy; no settings make it do nothing",
)
def random_walk(*, per: Per = "network") -> Intervention:
    """Replace the optimizer's step by a Gaussian step of the same length: equal movement, no learning.

    ``theta <- theta + |u| xi / |xi|``, ``xi ~ N(0, I)``, where ``u`` is the update that the optimizer would make at the
    walk's current parameters.

    Args:
        per: norms of the whole network, or of each layer separately (static).

    Raises:
        ValueError: for an unknown ``per`` and, while tracing, if an agent gives its optimizer no key.

    This is a control for the effect of parameter movement alone, for instance on curvature. The paper compares gradient
    descent with a Gaussian walk with the same norm at each step; from what we could read, it is unclear whether the
    norms are taken along the walk or along the descent. Along the walk the loss does not fall, so its steps tend to be
    longer.
    """
    check("per", per, get_args(Per))

    def wrapped(optimizer: Optimizer) -> Optimizer:
        def update(gradients: Params, state: Any, params: Params = None, **extra: Any) -> tuple[Params, Any]:
            if extra.get("key") is None:
                raise ValueError("random_walk needs a key at every update of the optimizer")
            inner = extra | {"key": jax.random.fold_in(extra["key"], 1)}
            updates, state = optimizer.update(gradients, state, params, **inner)
            noise = noise_like(jax.random.fold_in(extra["key"], 0), updates)
            length = layer_norms(noise, per)
            factors = spread_out(layer_norms(updates, per) / jnp.where(length > 0, length, 1.0), updates, per)
            return jax.tree.map(jnp.multiply, noise, factors), state

        return Optimizer(optimizer.init, update, optimizer.learning_rate)

    return Intervention(optimizer=wrapped)


def erfi(x: Array) -> Array:
    """The imaginary error function ``2 / sqrt(pi) int_0^x exp(t^2) dt``; for ``|x| > 9`` the value at 9.

    ``(4 / pi) sum_n exp(-n^2 h^2) sinh(2 n h x) / n`` over odd ``n``. This is the trapezoidal sum for Dawson's integral
    of Rybicki 1989, "Dawson's Integral and the Sampling Theorem", times ``exp(x^2)``. All its terms have the same sign,
    so there is no cancellation; the relative error in float32 is below 1e-5.
    """
    size = jnp.minimum(jnp.abs(jnp.asarray(x, jnp.float32)), LARGEST)[..., None]
    n = jnp.array(ODD, jnp.float32)
    exponent = size**2 - (size - n * SPACING) ** 2
    terms = jnp.exp(exponent) * -jnp.expm1(-4.0 * n * SPACING * size) / n
    return jnp.sign(x) * (2.0 / math.pi) * jnp.sum(terms, axis=-1)


@metadata(
    paper="Muppidi, Zhang, Yang 2024, Fast TRAC: A Parameter-Free Optimizer for Lifelong Reinforcement Learning",
    checked="a NumPy loop over 40 updates, with SciPy's erfi",
    note="no settings make it do nothing; keeps the sum of updates, where the paper's code loses some of it in float32",
)
def trac(*, betas: tuple[float, ...] = BETAS, start: Positive = 1e-8, eps: Positive = 1e-8) -> Intervention:
    """TRAC: scale the displacement from the initial parameters according to how well it served so far.

    With ``Delta`` the sum of the optimizer's own updates so far and ``h = <g, Delta>``, for each ``b`` of ``betas`` ``v
    <- b^2 v + h^2``, ``sigma <- b sigma - h``, ``s = start erfi(sigma / (sqrt(2 v) + eps)) / erfi(1 / sqrt 2)``; then
    ``S = max(sum s, 0)``, ``Delta <- Delta + u`` and ``theta = theta_ref + S Delta``, where ``u`` is the optimizer's
    update at ``theta``.

    Args:
        betas: static.
        start: traced.
        eps: traced.

    Raises:
        ValueError: if there are no betas or one is not between 0 and 1.

    All defaults, and the initial value 1e-8 of ``sigma``, are those of the paper's code for PyTorch. The step is
    computed as ``S Delta - S' Delta'`` (new minus old), which is equivalent as long as nothing else writes to the
    parameters. Other changes to the parameters (decay, projections, resets) shift ``theta_ref`` instead of being
    undone. A reset parameter has the slot ``Delta = 0``, so its new value is its reference.

    The paper's code computes ``Delta`` as ``theta - theta_ref`` divided by ``S + 1e-8``. In float32 this has two
    effects that do not occur here, where ``Delta`` is stored. First, at an ``S`` of 1e-9, ``S Delta`` is rounded away
    when it is added to weights of ordinary size, and the accumulated updates are lost with it. Second, as long as ``S``
    is not far above 1e-8, the 1e-8 in the division makes ``Delta`` too small (half as large at ``S`` = 1e-8).

    erfi's argument is bounded by 9. Behind an eligibility trace ``g`` is the direction of descent. ``learning_rate`` is
    the optimizer's own times ``S`` of the last update.
    """
    betas = tuple(betas)
    if not betas or not all(0.0 <= beta < 1.0 for beta in betas):
        raise ValueError(f"betas: {list(betas)} is not allowed; must be one or more numbers of at least 0 and below 1")

    def scale_of(gain: Array, variance: Array) -> Array:
        s = erfi(gain / (jnp.sqrt(2.0 * variance) + eps))
        return jnp.maximum(start / erfi(jnp.float32(math.sqrt(0.5))) * jnp.sum(s), 0.0)

    def wrapped(optimizer: Optimizer) -> Optimizer:
        decay = jnp.array(betas, jnp.float32)

        def init(params: Params) -> Tuned:
            zeros, shift = jnp.zeros_like(decay), jnp.full_like(decay, 1e-8)
            return Tuned(jnp.zeros(()), zeros, shift, jax.tree.map(jnp.zeros_like, params), optimizer.init(params))

        def update(gradients: Params, state: Tuned, params: Params = None, **extra: Any) -> tuple[Params, Tuned]:
            updates, inner = optimizer.update(gradients, state.inner, params, **extra)
            h = trees.inner(gradients, state.displacement)
            variance, gain = decay**2 * state.variance + h**2, decay * state.gain - h
            scale = scale_of(gain, variance)
            displacement = jax.tree.map(jnp.add, state.displacement, updates)
            steps = jax.tree.map(lambda new, old: scale * new - state.scale * old, displacement, state.displacement)
            return steps, Tuned(scale, variance, gain, displacement, inner)

        def learning_rate(state: Tuned) -> Array:
            return state.scale * optimizer.learning_rate(state.inner)

        return Optimizer(init, update, forwarded(optimizer, learning_rate))

    return Intervention(optimizer=wrapped)
