"""Trace and spectral density of the loss's curvature.

For ``loss`` and ``matrix`` see ``curvature.py``.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config.fields import NonNegative, Positive, Repeats, metadata
from plasticity.core import linalg
from plasticity.core.errors import check, check_least, refused
from plasticity.core.types import Array, Key, Metrics, Probe, State
from plasticity.monitors.base import SHARE, Monitor
from plasticity.monitors.curvature import Loss, Matrix, Matvec, lanczos, product_of, tridiagonal

Scale = Literal["symlog", "linear"]

SIGNS = 2  # folded into the key of a measurement


@linalg.one_by_one
def _decomposed(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


def quadrature(matvec: Matvec, starts: Array, iterations: int) -> tuple[Array, Array]:
    """Gauss quadrature of the spectral measure of a symmetric ``A`` for each start, by the Lanczos method.

    ``sum_j w_j p(theta_j) = q^T p(A) q`` with ``q = start / |start|``, for every polynomial of degree below ``2 m``,
    ``m = min(iterations, P)``. ``theta_j`` are the Ritz values, and ``w_j = tau_j^2`` the squared first components of
    the tridiagonal matrix's eigenvectors. Golub & Welsch 1969, "Calculation of Gauss Quadrature Rules".

    Starts ``float32[n, P]`` -> nodes and weights ``float32[n, m]``; starts are processed one after another, which
    stores ``m P`` numbers instead of ``n m P``.
    """

    def one(start: Array) -> tuple[Array, Array]:
        nodes, vectors = _decomposed(tridiagonal(*lanczos(matvec, start, iterations)))
        return nodes, vectors[0] ** 2

    found: tuple[Array, Array] = jax.lax.map(one, starts)
    return found


def density_edges(bins: int, smallest: float, largest: float, scale: Scale) -> np.ndarray:
    """float64[bins + 1], the edges of the bins of :func:`hessian_density`; the outermost bins are open."""
    half = bins // 2
    if scale == "linear":
        return np.linspace(-largest, largest, bins + 1)
    positive = np.geomspace(smallest, largest, half + 1)
    return np.concatenate([-positive[::-1], positive])


def mass_in_bins(nodes: Array, weights: Array, edges: np.ndarray, smoothing: Array | float) -> Array:
    """float32[bins], the mass of the smoothed measure in each bin; the outermost bins are open, and the sum is 1.

    ``sum_j w_j int_bin N(x; theta_j, s^2) dx``, ``s^2 = smoothing (max_j theta_j - min_j theta_j)``, summed over
    the nodes and averaged over the starts.
    """
    spread = jnp.sqrt(smoothing * (jnp.max(nodes) - jnp.min(nodes)))
    inner = jnp.asarray(edges[1:-1], nodes.dtype)[:, None, None]
    below = jax.scipy.special.ndtr((inner - nodes) / jnp.maximum(spread, jnp.finfo(nodes.dtype).tiny))
    cumulative = jnp.sum(weights * below, axis=(1, 2)) / len(nodes)
    total = jnp.sum(weights) / len(nodes)
    return jnp.diff(jnp.concatenate([jnp.zeros((1,)), cumulative, total[None]]))


def _check_grid(bins: int, smallest: float, largest: float, scale: str) -> None:
    name = "hessian_density"
    check("scale", scale, get_args(Scale), name)
    if bins < 3 or bins % 2 == 0:
        raise refused("bins", bins, "odd (the middle bin is around 0) and at least 3", name)
    if not 0 < largest < float("inf"):
        raise refused("largest", largest, "positive and finite", name)
    if scale == "symlog" and not 0 < smallest < largest:
        raise refused("smallest", smallest, f"positive and below largest ({largest})", name)


@metadata(
    paper="Ghorbani, Krishnan & Xiao 2019, An Investigation into Neural Net Optimization via Hessian Eigenvalue "
    "Density",
    period=10,
)
def hessian_density(
    *,
    iterations: Repeats = 30,
    starts: Repeats = 2,
    bins: Repeats = 41,
    scale: Scale = "symlog",
    smallest: float = 1e-2,
    largest: float = 1e3,
    smoothing: NonNegative = 1e-5,
    epsilon: NonNegative = 1e-3,
    loss: Loss = "task",
    matrix: Matrix = "hessian",
    preconditioner_eps: Positive = 1e-8,
) -> Monitor:
    """The eigenvalue distribution of the Hessian of the loss, by stochastic Lanczos quadrature.

    ``phi(x) = mean_starts sum_j tau_j^2 N(x; theta_j, s^2)``, with ``theta_j`` the Ritz values of ``iterations``
    Lanczos steps with full re-orthogonalisation from a Gaussian start, ``tau_j`` the first components of the
    tridiagonal matrix's eigenvectors, and ``s^2 = smoothing (max theta - min theta)``. ``hessian_density/bin_00`` ...
    are the integrals of ``phi`` over the bins of a fixed grid, each a share of the eigenvalues. They sum to 1, because
    the two outermost bins include everything beyond them. Divided by the bin widths (:func:`density_edges`) they give
    the density.

    These metrics are not smoothed: ``hessian_epsilon_rank``, the mass outside ``[-epsilon, epsilon]``, which estimates
    ``#{i : |lambda_i| > epsilon} / P``; ``hessian_density``, the mass inside, the bulk at 0; ``hessian_density/mean``
    and ``hessian_density/mean_square``, which estimate ``trace H / P`` and ``|H|_F^2 / P``. By default the matrix is
    ``d^2 L / d theta^2`` of the task loss, float32, on the agent's batch of recent transitions.

    Reference: Ghorbani, Krishnan & Xiao 2019, An Investigation into Neural Net Optimization via Hessian Eigenvalue
    Density; for the perturbed loss Lyle, Zheng, Nikishin, Avila Pires, Pascanu & Dabney 2023, Understanding plasticity
    in neural networks.

    Args:
        iterations: static, at most the number of parameters. Memory: ``iterations`` times the parameters, independent
            of the number of starts. 30 to 60 are usual; fewer iterations than distinct eigenvalues blur the bulk.
        starts: static; 1 to 5 are usual.
        bins: static, odd, at least 3; the middle bin is around 0.
        scale: static. ``symlog``: the middle bin is ``[-smallest, smallest]``, and the others have equal logarithmic
            widths out to ``largest`` on either side. ``linear``: equal bins from ``-largest`` to ``largest``.
        smallest: static, an eigenvalue; for ``symlog`` only. If it is below ``s``, smoothing fills the bins around 0.
        largest: static, an eigenvalue.
        smoothing: the variance of the Gaussian in units of the spectrum's range (traced); 0: no smoothing. As in the
            paper, this is a variance relative to a range, so rescaling the loss changes the relative width.
        epsilon: an eigenvalue (traced); the default is ours.
        loss: static; ``task`` or ``perturbed``.
        matrix: static; ``hessian``, ``gauss_newton`` or ``preconditioned``.
        preconditioner_eps: the optimizer's ``eps``, in the gradient's scale (traced); for ``preconditioned`` only.

    Raises:
        ValueError: for an invalid grid, counts below 1, or an unknown scale, loss or matrix; while tracing, for
            ``preconditioned`` with an optimizer without second moments.

    The paper draws the density on a fine grid over the range of each spectrum. With a fixed grid, measurements can be
    compared and averaged. The epsilon-rank here counts nodes, not the smoothed density, whose tails would extend beyond
    a small ``epsilon``.
    """
    name = "hessian_density"
    check_least("iterations", iterations, 1, name)
    check_least("starts", starts, 1, name)
    _check_grid(bins, smallest, largest, scale)
    build = product_of(name, loss, matrix, preconditioner_eps)
    edges = density_edges(bins, smallest, largest, scale)
    digits = max(2, len(str(bins - 1)))

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        product, flat = build(key, probe)
        directions = jax.random.normal(key, (starts, flat.size), flat.dtype)
        nodes, weights = quadrature(product, directions, iterations)

        def mean(values: Array) -> Array:
            return jnp.sum(weights * values) / starts

        def share(holds: Array) -> Array:
            """Clipped to [0, 1], because rounding can make the sum of the weights exceed 1."""
            return jnp.clip(mean(jnp.where(jnp.isnan(nodes), jnp.nan, holds)), 0.0, 1.0)

        rank, inside = share(jnp.abs(nodes) > epsilon), share(jnp.abs(nodes) <= epsilon)
        found = {name: inside, "hessian_epsilon_rank": rank}
        found |= {f"{name}/mean": mean(nodes), f"{name}/mean_square": mean(nodes**2)}
        masses = mass_in_bins(nodes, weights, edges, smoothing)
        return state, found | {f"{name}/bin_{i:0{digits}d}": jnp.clip(masses[i], 0.0, 1.0) for i in range(bins)}

    shares = (name, "hessian_epsilon_rank", *(f"{name}/bin_{i:0{digits}d}" for i in range(bins)))
    return Monitor(measure, ranges=dict.fromkeys(shares, SHARE))


@metadata(
    paper="Hutchinson 1990, A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian Smoothing Splines"
)
def hessian_trace(
    *,
    samples: Repeats = 10,
    loss: Loss = "task",
    matrix: Matrix = "hessian",
    preconditioner_eps: Positive = 1e-8,
) -> Monitor:
    """An estimate of the trace of the Hessian of the loss.

    ``hessian_trace = mean_k z_k^T H z_k`` with independent random signs ``z_k`` in ``{-1, 1}^P``, and
    ``hessian_trace/standard_error``, the sample standard deviation of the ``samples`` terms divided by
    ``sqrt(samples)``. The estimate has mean ``trace H`` and variance ``2 sum_{i != j} H_ij^2 / samples``, so it is
    exact for a diagonal matrix. By default the matrix is ``d^2 L / d theta^2`` of the task loss, float32, on the
    agent's batch of recent transitions.

    Reference: Hutchinson 1990, A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian Smoothing
    Splines.

    Args:
        samples: static, at least 2; each is one product, computed sequentially. The default is ours.
        loss: static; ``task`` or ``perturbed``.
        matrix: static; ``hessian``, ``gauss_newton`` or ``preconditioned``.
        preconditioner_eps: the optimizer's ``eps``, in the gradient's scale (traced); for ``preconditioned`` only.

    Raises:
        ValueError: if ``samples`` is below 2, or for an unknown loss or matrix; while tracing, for ``preconditioned``
            with an optimizer without second moments.

    The paper's matrix is that of a smoothing spline; the estimator is the same.
    """
    name = "hessian_trace"
    check_least("samples", samples, 2, name)
    build = product_of(name, loss, matrix, preconditioner_eps)

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        product, flat = build(key, probe)

        def term(number: Array) -> Array:
            signs = jax.random.rademacher(jax.random.fold_in(jax.random.fold_in(key, SIGNS), number), flat.shape)
            z = signs.astype(flat.dtype)
            return z @ product(z)

        terms = jax.lax.map(term, jnp.arange(samples))
        error = jnp.std(terms, ddof=1) / samples**0.5
        return state, {name: jnp.mean(terms), f"{name}/standard_error": error}

    return Monitor(measure)
