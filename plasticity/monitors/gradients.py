"""Similarity of per-sample gradients, and the neural tangent kernel.

Both are kernels ``J J^T`` of a Jacobian ``J [rows, parameters]`` over all parameters of the online network, on the
first ``k`` valid rows of the probe's batch. One column is ``J (J^T e_j)``, which takes two passes through
the network. Columns are computed one after another, which needs the memory of one gradient instead of ``k``. If fewer
than ``k`` rows are valid, only those are used. Neighbouring rows may be neighbouring steps of an episode; they are then
more similar than independent samples.
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import Repeats, metadata
from plasticity.core import linalg
from plasticity.core.errors import check_least, refused
from plasticity.core.types import Array, Key, Metrics, Params, Probe, State, take
from plasticity.monitors.base import NOT_NEGATIVE, Monitor
from plasticity.monitors.representation import entropy_rank, ratio

Several = Annotated[int, Field(ge=2, le=10_000)]


def kernel_product(function: Callable[[Params], Array], params: Params) -> Callable[[Array], Array]:
    """``u -> J J^T u`` for the Jacobian ``J`` of ``function`` at ``params``; ``u`` is shaped like its value.

    ``J v`` is the vector-Jacobian product of the linear map ``u -> J^T u``, because a function with a custom VJP has no
    forward mode.
    """
    value, pullback = jax.vjp(function, params)
    _, push = jax.vjp(lambda u: pullback(u)[0], jnp.zeros_like(value))
    return lambda u: push(pullback(u)[0])[0]


def first_valid(name: str, k: int, valid: Array) -> tuple[Array, Array]:
    """Indices of the first valid rows, int32[k], and a mask, float32[k], that is 0 for missing rows."""
    if k > len(valid):
        raise refused("k", k, f"at most the size of the batch (probe_size), {len(valid)}", name)
    rows = jnp.argsort(~valid, stable=True)[:k]
    return rows, valid[rows].astype(jnp.float32)


def loss_kernel(probe: Probe, rows: Array) -> Array:
    """``<g_i, g_j>``, float32[k, k], of the gradients of the losses of these rows."""
    product = kernel_product(probe.losses, probe.learner.params)
    return jax.lax.map(lambda row: product(jax.nn.one_hot(row, len(probe.valid)))[rows], rows)


def tangent_kernel(probe: Probe, rows: Array) -> Array:
    """``mean_o <d f_o(x_i) / d theta, d f_o(x_j) / d theta>``, float32[k, k], of the scores of these rows."""
    observation = take(probe.observation, rows)
    k, outputs = jax.eval_shape(probe.scores, probe.learner.params, observation).shape
    product = kernel_product(lambda params: probe.scores(params, observation), probe.learner.params)

    def column(entry: Array) -> Array:
        output = entry % outputs
        unit = jnp.zeros((k, outputs)).at[entry // outputs, output].set(1)
        return product(unit)[:, output]

    return jnp.mean(jax.lax.map(column, jnp.arange(k * outputs)).reshape(k, outputs, k), axis=1)


def _spectrum(kernel: Array) -> Array:
    """Descending eigenvalues of a matrix that is positive semidefinite up to rounding."""
    return jnp.maximum(linalg.eigenvalues(kernel)[::-1], 0)


@metadata(
    paper="Lyle, Zheng, Nikishin, Avila Pires, Pascanu & Dabney 2023, Understanding plasticity in neural networks",
    period=10,
)
def gradient_covariance(*, k: Several = 32) -> Monitor:
    """How much a step on one sample helps or hurts the others: the cosines of per-sample gradients.

    ``C_ij = <g_i, g_j> / (|g_i| |g_j|)``, ``g_i = d l_i / d theta``, ``l_i`` the i-th of ``probe.losses`` (the task
    loss, without penalties), over the first ``k`` valid rows; 0 if a gradient vanishes. Metrics, over the pairs ``i
    != j``: ``gradient_covariance`` the mean cosine, ``gradient_covariance/absolute`` the mean of ``|C_ij|``,
    ``gradient_covariance/negative`` the share of pairs with ``C_ij < 0``. Over the whole matrix:
    ``gradient_covariance/effective_rank = exp(entropy)`` of its normalised eigenvalues, in [1, k], 0 for zeros.
    Finally, ``gradient_covariance/vanishing`` is the share of rows whose gradient is 0. NaN with fewer than two valid
    rows.

    Reference: Lyle, Zheng, Nikishin, Avila Pires, Pascanu & Dabney 2023, Understanding plasticity in neural networks.

    Args:
        k: static, at least 2. Cost: ``2 k`` backward passes over the whole batch (a probe's losses cannot be computed
            for single rows), so about ``2 k`` gradients, in the memory of one.

    Raises:
        ValueError: for ``k`` below 2, and while tracing if the batch has fewer than ``k`` rows.

    The paper uses 512 samples and shows the whole matrix; these summaries and the default are ours. Despite the name,
    it is neither centred nor a covariance, because cosines ignore the lengths of the gradients.
    """
    check_least("k", k, 2, "gradient_covariance")

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        rows, present = first_valid("gradient_covariance", k, probe.valid)
        kernel = jnp.where(jnp.outer(present, present) > 0, loss_kernel(probe, rows), 0)
        lengths = jnp.sqrt(jnp.diagonal(kernel))
        cosines = ratio(kernel, jnp.outer(lengths, lengths))
        pairs = jnp.outer(present, present) * (1 - jnp.eye(k))

        def mean(values: Array) -> Array:
            return jnp.sum(values * pairs) / jnp.sum(pairs)

        average = mean(cosines)
        unknown = jnp.isnan(average)  # comparisons would hide a NaN
        found = {
            "gradient_covariance": average,
            "gradient_covariance/absolute": mean(jnp.abs(cosines)),
            "gradient_covariance/negative": mean(cosines < 0),
            "gradient_covariance/effective_rank": entropy_rank(_spectrum(cosines)),
            "gradient_covariance/vanishing": jnp.sum(present * (lengths == 0)) / jnp.sum(present),
        }
        return state, {name: jnp.where(unknown, jnp.nan, value) for name, value in found.items()}

    return Monitor(measure)


@metadata(
    paper="Jacot, Gabriel & Hongler 2018, Neural Tangent Kernel: Convergence and Generalization in Neural Networks",
    period=10,
)
def ntk(*, k: Repeats = 32) -> Monitor:
    """Rank, condition number and shape of the empirical neural tangent kernel.

    ``K_ij = (1 / n) sum_o <d f_o(x_i) / d theta, d f_o(x_j) / d theta>``: the trace over the ``n`` outputs of
    ``probe.scores`` (the scores the agent decides by), divided by their number, on the first ``k`` valid rows. With its
    eigenvalues ``e_1 >= e_2 >= ...``, ``m <= k`` the number of valid rows and ``eps`` the machine epsilon:

    * ``ntk``: the effective rank, ``exp(-sum_i p_i ln p_i)``, ``p_i = e_i / sum_j e_j``, in [1, m];
    * ``ntk/numerical_rank``: ``#{i : e_i > e_1 k eps}``;
    * ``ntk/condition``: ``e_1 / max(e_m, e_1 k eps)``, at most ``1 / (k eps)``, 2.6e5 at k = 32;
    * ``ntk/diagonal``: ``sum_i K_ii^2 / sum_ij K_ij^2``, 1 for a diagonal kernel and ``1 / m`` for equal rows;
    * ``ntk/top``: ``e_1 / sum_i e_i``, 1 for a kernel of rank one.

    All are 0 for a kernel of zeros, and none depends on the kernel's scale. A duplicate row in the batch makes the
    kernel singular. All are NaN if no row is valid.

    Reference: Jacot, Gabriel & Hongler 2018, Neural Tangent Kernel: Convergence and Generalization in Neural Networks;
    as a sign of lost plasticity Lyle, Zheng, Khetarpal, van Hasselt, Pascanu, Martens & Dabney 2024, Disentangling the
    causes of plasticity loss in neural networks, where the kernel becomes a diagonal plus a matrix of low rank (a high
    ``ntk/diagonal``, a high ``ntk/top`` and little else).

    Args:
        k: static. Cost: ``2 k n`` backward passes over ``k`` rows, and the memory of one gradient and ``n k^2``
            numbers.

    Raises:
        ValueError: for ``k`` below 1, and while tracing if the batch has fewer than ``k`` rows.

    The summaries are ours. Other code uses the kernel of the summed outputs (one gradient for each row), which captures
    only the common part of the outputs: in a duelling network, the state value but not the advantages.
    """
    check_least("k", k, 1, "ntk")

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        rows, present = first_valid("ntk", k, probe.valid)
        kernel = jnp.where(jnp.outer(present, present) > 0, tangent_kernel(probe, rows), 0)
        eigenvalues = _spectrum(kernel)
        floor = eigenvalues[0] * k * jnp.finfo(kernel.dtype).eps
        lowest = eigenvalues[jnp.sum(present, dtype=jnp.int32) - 1]
        relative = ratio(kernel, jnp.max(jnp.abs(kernel)))  # so that squares neither overflow nor vanish
        found = {
            "ntk": entropy_rank(eigenvalues),
            "ntk/numerical_rank": jnp.sum(eigenvalues > floor, dtype=jnp.float32),
            "ntk/condition": ratio(eigenvalues[0], jnp.maximum(lowest, floor)),
            "ntk/diagonal": ratio(jnp.sum(jnp.diagonal(relative) ** 2), jnp.sum(relative**2)),
            "ntk/top": ratio(eigenvalues[0], jnp.sum(eigenvalues)),
        }
        unknown = jnp.isnan(eigenvalues[0]) | (jnp.sum(present) == 0)
        return state, {name: jnp.where(unknown, jnp.nan, value) for name, value in found.items()}

    return Monitor(measure, ranges={"ntk": NOT_NEGATIVE})
