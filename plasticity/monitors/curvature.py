"""Eigenvalues of the loss's curvature.

They are computed from matrix-vector products. Everything is float32. The batch is the agent's batch of recent
transitions (its valid rows), and the parameters are all those of the online network. The target network is held fixed,
and penalties of interventions are excluded. All monitors here and in ``density.py`` share the settings ``loss`` and
``matrix``.

``loss``:

* ``task``: ``probe.loss``.
* ``perturbed``: ``L = mean_x |f(x) - sg f(x) + e|^2``, with ``f = probe.scores``, ``sg`` the stop-gradient, ``e``
  standard normal for each output of each row, redrawn at each measurement, and the squares summed over outputs (Lyle et
  al. 2023, "Understanding plasticity in neural networks"). It measures how hard it is to follow slightly perturbed
  targets, independently of the task loss. Parameters that do not affect the scores (a critic next to a policy) then
  have no curvature.

``matrix``:

* ``hessian``: ``H = d^2 L / d theta^2``. For ReLU networks it is the Hessian between the kinks.
* ``gauss_newton``: ``mean_x J_x^T C_x J_x`` with ``J = d f / d theta``; positive semidefinite. For the perturbed loss
  ``C = 2`` (the other part of its Hessian has mean 0 over ``e``). A monitor cannot see the task loss as a function of
  ``probe.scores``, so for that loss ``C`` depends on the meaning of the scores. For logits it is ``diag(p) - p p^T``
  with ``p = softmax f(x)``, which gives the Gauss-Newton matrix of cross-entropy, and the Fisher matrix. For values and
  predictions it is 1, which gives the matrix of ``|f - y|^2 / 2`` summed over the outputs. For C51, whose scores are
  mean values, it is therefore not the matrix of its cross-entropy.
* ``preconditioned``: ``D^-1/2 H D^-1/2``, ``D = sqrt(v) + preconditioner_eps`` with the optimizer's second moments
  ``v`` as stored (without bias correction). Its eigenvalues are those of ``D^-1 H``, the curvature relevant to Adam's
  steps (Cohen et al. 2022, "Adaptive Gradient Methods at the Edge of Stability", with bias correction).
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from plasticity.config.fields import Few, Positive, Repeats, metadata
from plasticity.core import linalg
from plasticity.core.errors import check, check_least, refused
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Key, Metrics, Params, Probe, State
from plasticity.monitors.base import Monitor
from plasticity.monitors.updates import second_moments
from plasticity.optim.step_sizes import reports_step_size

Loss = Literal["task", "perturbed"]
Matrix = Literal["hessian", "gauss_newton", "preconditioned"]
Matvec = Callable[[Array], Array]
Product = Callable[[Key, Probe], tuple[Matvec, Array]]  # -> v -> A v, and the flattened parameters float32[P]

NOISE = 1  # folded into the key of a measurement


def hessian_product(loss: Callable[[Params], Array], params: Params) -> tuple[Matvec, Array]:
    """``v -> H v`` in flattened parameters, and the flattened parameters ``float32[P]``.

    Reverse over reverse: ``H v`` is the vector-Jacobian product of the gradient (``H`` is symmetric), because a
    function with a custom VJP has no forward mode. The gradient itself is computed once, not once for each product.
    """
    flat, unravel = ravel_pytree(params)
    _, pullback = jax.vjp(jax.grad(loss), params)
    return lambda vector: ravel_pytree(pullback(unravel(vector))[0])[0], flat


def gauss_newton_product(
    outputs: Callable[[Params], Array], curvature: Callable[[Array], Array], params: Params
) -> tuple[Matvec, Array]:
    """``v -> J^T C J v``, with ``J`` the Jacobian of the outputs and ``C`` the linear map ``curvature`` on their shape.

    ``J v`` is the transpose of ``u -> J^T u``, computed by a second reverse pass, because a function with a custom
    VJP has no forward mode.
    """
    flat, unravel = ravel_pytree(params)
    values, pullback = jax.vjp(outputs, params)
    _, forward = jax.vjp(lambda cotangent: pullback(cotangent)[0], jnp.zeros_like(values))
    return lambda vector: ravel_pytree(pullback(curvature(forward(unravel(vector))[0]))[0])[0], flat


def _weights(probe: Probe) -> Array:
    """float32[B, 1], the weight of each row in a mean over the valid rows."""
    return (probe.valid / jnp.maximum(jnp.sum(probe.valid), 1))[:, None].astype(jnp.float32)


def perturbed_loss(key: Key, probe: Probe) -> Callable[[Params], Array]:
    """``params -> mean_x |f(x) - sg f(x) + e|^2``, with noise ``e`` drawn from the key."""
    held = probe.scores(probe.learner.params, probe.observation)
    error = jax.random.normal(key, held.shape, held.dtype) - held
    weights = _weights(probe)
    return lambda params: jnp.sum(weights * (probe.scores(params, probe.observation) + error) ** 2)


def _gauss_newton(loss: Loss, probe: Probe) -> tuple[Matvec, Array]:
    def outputs(params: Params) -> Array:
        return probe.scores(params, probe.observation)

    weights = _weights(probe)
    if loss == "task" and probe.meaning == "logits":
        p = jax.nn.softmax(outputs(probe.learner.params))

        def curvature(u: Array) -> Array:
            return weights * (p * u - p * jnp.sum(p * u, axis=-1, keepdims=True))
    else:
        scale = 2.0 if loss == "perturbed" else 1.0

        def curvature(u: Array) -> Array:
            return scale * weights * u

    return gauss_newton_product(outputs, curvature, probe.learner.params)


def product_of(user: str, loss: Loss, matrix: Matrix, preconditioner_eps: Number) -> Product:
    """The product with this matrix of this loss. ``ValueError``, naming the ``user``, if either name is unknown."""
    for key, value, known in (("loss", loss, get_args(Loss)), ("matrix", matrix, get_args(Matrix))):
        check(key, value, known, user)

    def build(key: Key, probe: Probe) -> tuple[Matvec, Array]:
        if matrix == "gauss_newton":
            return _gauss_newton(loss, probe)
        params = probe.learner.params
        objective = probe.loss if loss == "task" else perturbed_loss(jax.random.fold_in(key, NOISE), probe)
        product, flat = hessian_product(objective, params)
        if matrix == "hessian":
            return product, flat
        moments = ravel_pytree(second_moments(f"{user}: matrix preconditioned", probe.learner.opt_state, params))[0]
        scale = jax.lax.rsqrt(jnp.sqrt(moments) + preconditioner_eps)
        return lambda vector: scale * product(scale * vector), flat

    return build


def _without(vector: Array, basis: Array) -> Array:
    """The component of the vector orthogonal to the orthonormal rows of ``basis``."""
    return vector - (basis @ vector) @ basis


def _unit(vector: Array) -> Array:
    """The vector scaled to length 1; a zero vector stays zero."""
    norm = jnp.linalg.norm(vector)
    return vector / jnp.where(norm == 0, 1, norm)


def lanczos(matvec: Matvec, start: Array, iterations: int) -> tuple[Array, Array]:
    """Tridiagonal coefficients of a symmetric matrix by the Lanczos method with full re-orthogonalisation.

    ``A q_j = b_{j-1} q_{j-1} + a_j q_j + b_j q_{j+1}``, ``q_1 = start / |start|``.

    Reference: Lanczos 1950, An Iteration Method for the Solution of the Eigenvalue Problem of Linear Differential and
    Integral Operators.

    Args:
        matvec: ``float32[P] -> float32[P]``, symmetric.
        start: float32[P], random (Gaussian).
        iterations: static; capped at ``P``. Memory: ``iterations * P`` numbers.

    Returns:
        ``a`` float32[m] and ``b`` float32[m - 1], ``m = min(iterations, P)``.

    If ``b_j`` vanishes, the Krylov space of ``start`` is exhausted. ``b_j`` is then set to exactly 0, and the method
    continues from a cyclic shift of the start, orthogonalised against all earlier vectors. Every eigenvalue of the
    tridiagonal matrix is therefore a Ritz value of ``A``, not padding, and later ones have weight 0 in a quadrature.
    """
    size = min(iterations, start.size)
    tolerance = 64 * jnp.finfo(start.dtype).eps

    def step(carry: tuple[Array, Array, Array], j: Array) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        basis, vector, scale = carry
        basis = basis.at[j].set(vector)
        product = matvec(vector)
        alpha = vector @ product
        residual = _without(product, basis)
        beta = jnp.linalg.norm(residual)
        scale = jnp.maximum(scale, jnp.linalg.norm(product))
        exhausted = beta <= tolerance * scale
        direction = jnp.where(exhausted, _unit(jnp.roll(start, j + 1)), _unit(residual))
        following = _unit(_without(direction, basis))  # again: once is not enough in floating point
        return (basis, following, scale), (alpha, jnp.where(exhausted, 0, beta))

    first = (jnp.zeros((size, start.size), start.dtype), _unit(start), jnp.zeros((), start.dtype))
    _, (alphas, betas) = jax.lax.scan(step, first, jnp.arange(size))
    return alphas, betas[:-1]


def tridiagonal(alphas: Array, betas: Array) -> Array:
    """The symmetric tridiagonal matrix ``float32[m, m]`` with these diagonals."""
    return jnp.diag(alphas) + jnp.diag(betas, 1) + jnp.diag(betas, -1)


@metadata(
    paper="Ghorbani, Krishnan & Xiao 2019, An Investigation into Neural Net Optimization via Hessian Eigenvalue "
    "Density",
    period=2,
)
def hessian_top_eigenvalue(
    *,
    iterations: Repeats = 20,
    k: Few = 1,
    loss: Loss = "task",
    matrix: Matrix = "hessian",
    preconditioner_eps: Positive = 1e-8,
) -> Monitor:
    """The largest eigenvalues and the smallest eigenvalue of the Hessian of the loss.

    ``hessian_top_eigenvalue = max_i lambda_i``, ``hessian_top_eigenvalue/2`` ... ``/k`` the next ones in descending
    order, and ``hessian_bottom_eigenvalue = min_i lambda_i`` (signed, not by magnitude). They are Ritz values after
    ``iterations`` Lanczos steps from a Gaussian start. ``hessian_top_eigenvalue/times_learning_rate = eta max_i
    lambda_i`` with ``eta`` the step size of the optimizer's next update; above 2, plain gradient descent on this batch
    is unstable. By default the matrix is ``d^2 L / d theta^2`` of the task loss, float32, on the agent's batch of
    recent transitions; for other losses and matrices see the module docstring of ``plasticity/monitors/curvature.py``.

    Reference: Ghorbani, Krishnan & Xiao 2019, An Investigation into Neural Net Optimization via Hessian Eigenvalue
    Density (Lanczos with full re-orthogonalisation); as a plasticity monitor Lyle, Zheng, Nikishin, Avila Pires,
    Pascanu & Dabney 2023, Understanding plasticity in neural networks; the product with the step size Cohen, Kaur, Li,
    Kolter & Talwalkar 2021, Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability.

    Args:
        iterations: static; capped at the number of parameters. Memory: ``iterations`` times the parameters.
        k: static; the number of largest eigenvalues. Each takes some iterations to converge; none is overestimated.
        loss: static; ``task`` or ``perturbed``.
        matrix: static; ``hessian``, ``gauss_newton`` or ``preconditioned``.
        preconditioner_eps: the optimizer's ``eps``, in the gradient's scale (traced); for ``preconditioned`` only.

    Raises:
        ValueError: if ``iterations`` or ``k`` is below 1, ``k`` is above ``iterations``, or the loss or matrix is
            unknown; while tracing, if ``k`` exceeds the number of parameters, or for ``preconditioned`` with an
            optimizer without second moments.

    Ritz values are inside the spectrum, so the top is never overestimated and the bottom never underestimated. The
    bottom is often in a dense part of the spectrum and converges later. A multiple eigenvalue counts once until the
    Krylov space is exhausted. Other work calls this top eigenvalue "sharpness", or the eigenvalue of largest magnitude
    (from power iteration), which may be the bottom one.
    """
    name = "hessian_top_eigenvalue"
    check_least("iterations", iterations, 1, name)
    check_least("k", k, 1, name)
    if k > iterations:
        raise refused("k", k, f"at most iterations ({iterations})", name)
    build = product_of(name, loss, matrix, preconditioner_eps)

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        product, flat = build(key, probe)
        if k > flat.size:
            raise refused("k", k, f"at most the number of parameters ({flat.size})", name)
        start = jax.random.normal(key, flat.shape, flat.dtype)
        ritz = linalg.eigenvalues(tridiagonal(*lanczos(product, start, iterations)))
        found = {name: ritz[-1], "hessian_bottom_eigenvalue": ritz[0]}
        found |= {f"{name}/{i}": ritz[-i] for i in range(2, k + 1)}
        if reports_step_size(probe.optimizer):
            found[f"{name}/times_learning_rate"] = probe.optimizer.learning_rate(probe.learner.opt_state) * ritz[-1]
        return state, found

    return Monitor(measure)
