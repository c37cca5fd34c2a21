"""The Hessian of the task loss, seen through Hessian-vector products."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from plasticity import linalg
from plasticity.fields import Count, card
from plasticity.monitors.base import Monitor
from plasticity.types import Array, Key, Metrics, Params, Probe, State

Matvec = Callable[[Array], Array]


def hessian_product(loss: Callable[[Params], Array], params: Params) -> tuple[Matvec, Array]:
    """``v -> H v`` in flattened parameters, and the flattened parameters ``float32[P]``.

    Reverse over reverse: ``H v`` is the vector-Jacobian product of the gradient (``H`` is symmetric), because a
    function with a custom VJP has no forward mode. The gradient itself is computed once, not once for each product.
    """
    flat, unravel = ravel_pytree(params)
    _, pullback = jax.vjp(jax.grad(loss), params)
    return lambda vector: ravel_pytree(pullback(unravel(vector))[0])[0], flat


def _without(vector: Array, basis: Array) -> Array:
    """The part of the vector that is orthogonal to the orthonormal rows of ``basis``."""
    return vector - (basis @ vector) @ basis


def _unit(vector: Array) -> Array:
    """The vector at length 1; a vector of zeros stays."""
    norm = jnp.linalg.norm(vector)
    return vector / jnp.where(norm == 0, 1, norm)


def lanczos(matvec: Matvec, start: Array, iterations: int) -> tuple[Array, Array]:
    """Tridiagonal coefficients of a symmetric matrix by the Lanczos method with full re-orthogonalisation.

    ``A q_j = b_{j-1} q_{j-1} + a_j q_j + b_j q_{j+1}``, ``q_1 = start / |start|``.

    Paper: Lanczos 1950, An Iteration Method for the Solution of the Eigenvalue Problem of Linear Differential and
    Integral Operators.

    Args:
        matvec: ``float32[P] -> float32[P]``, symmetric.
        start: float32[P], random (Gaussian).
        iterations: static; at most ``P`` are made. Memory: ``iterations * P`` numbers.

    Returns:
        ``a`` float32[m] and ``b`` float32[m - 1], ``m = min(iterations, P)``.

    Where ``b_j`` vanishes the Krylov space of ``start`` is exhausted: ``b_j`` becomes exactly 0 and the method goes on
    from the cyclically shifted start, made orthogonal to all before. So every eigenvalue of the tridiagonal matrix is a
    Ritz value of ``A`` (none is padding), and for quadrature the later ones have weight 0.
    """
    size = min(iterations, start.size)
    tolerance = 64 * jnp.finfo(start.dtype).eps

    def step(carry: tuple[Array, Array, Array], j: Array) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        basis, vector, scale = carry
        basis = basis.at[j].set(vector)
        product = matvec(vector)
        alpha = vector @ product
        rest = _without(product, basis)
        beta = jnp.linalg.norm(rest)
        scale = jnp.maximum(scale, jnp.linalg.norm(product))
        exhausted = beta <= tolerance * scale
        direction = jnp.where(exhausted, _unit(jnp.roll(start, j + 1)), _unit(rest))
        following = _unit(_without(direction, basis))  # the second time: once isn't enough in floating point
        return (basis, following, scale), (alpha, jnp.where(exhausted, 0, beta))

    first = (jnp.zeros((size, start.size), start.dtype), _unit(start), jnp.zeros((), start.dtype))
    _, (alphas, betas) = jax.lax.scan(step, first, jnp.arange(size))
    return alphas, betas[:-1]


def tridiagonal(alphas: Array, betas: Array) -> Array:
    """The symmetric matrix ``float32[m, m]`` with these diagonals."""
    return jnp.diag(alphas) + jnp.diag(betas, 1) + jnp.diag(betas, -1)


@card(
    paper="Ghorbani, Krishnan & Xiao 2019, An Investigation into Neural Net Optimization via Hessian Eigenvalue Density"
)
def hessian_top_eigenvalue(*, iterations: Count = 20) -> Monitor:
    """The largest and the smallest eigenvalue of the Hessian of the task loss.

    ``max_i lambda_i`` and ``min_i lambda_i`` (with their signs, not by magnitude) of ``d^2 L / d theta^2`` at the
    current parameters (all of them, target network held fixed), as the extreme Ritz values after ``iterations``
    Lanczos steps from a Gaussian start. ``L`` is ``probe.loss``: the task loss without penalties on the agent's batch
    of recent transitions. Metrics: ``hessian_top_eigenvalue``, ``hessian_bottom_eigenvalue``.

    Paper: Ghorbani, Krishnan & Xiao 2019, An Investigation into Neural Net Optimization via Hessian Eigenvalue Density
    (Lanczos with full re-orthogonalisation); as a plasticity monitor Lyle, Zheng, Nikishin, Avila Pires, Pascanu &
    Dabney 2023, Understanding plasticity in neural networks.

    Args:
        iterations: static; at most the number of parameters are made. Memory: ``iterations`` times the parameters.

    Errors: ``ValueError`` if ``iterations`` is below 1.

    Ritz values lie inside the spectrum, so the top is never too large and the bottom never too small; the bottom,
    often in a dense part of the spectrum, converges later. Elsewhere "sharpness" is the same top eigenvalue, or the
    largest by magnitude (power iteration), which is the bottom one where that is the more negative.
    """
    if iterations < 1:
        raise ValueError(f"hessian_top_eigenvalue: iterations must be at least 1, got {iterations}")

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        product, flat = hessian_product(probe.loss, probe.learner.params)
        start = jax.random.normal(key, flat.shape, flat.dtype)
        ritz = linalg.eigenvalues(tridiagonal(*lanczos(product, start, iterations)))
        return state, {"hessian_top_eigenvalue": ritz[-1], "hessian_bottom_eigenvalue": ritz[0]}

    return Monitor(measure)
