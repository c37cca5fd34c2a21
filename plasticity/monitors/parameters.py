"""Norms of the parameters and of the gradient, and the effective learning rate."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import metadata
from plasticity.core import linalg, trees
from plasticity.core.errors import check
from plasticity.core.types import Array, Key, Metrics, ModulePath, Params, Probe, State
from plasticity.monitors.base import NOT_NEGATIVE, Monitor
from plasticity.optim.step_sizes import required_step_size

Law = Literal["adam", "sgd"]


def kernel_norms(params: Params, paths: tuple[ModulePath, ...]) -> dict[str, Array]:
    """Module name -> Frobenius norm float32[] of its kernel."""
    return {"/".join(path): jnp.linalg.norm(trees.get(params, path)["kernel"].ravel()) for path in paths}


@metadata(note="no single source; recommended by Klein et al. 2024, Plasticity Loss in Deep RL: A Survey")
def weight_norm() -> Monitor:
    """The Frobenius norm of the kernels.

    ``weight_norm = sqrt(sum_l |W_l|_F^2)`` over all kernels, including the output layer's, without biases and
    normalisation parameters; ``weight_norm/<module> = |W_l|_F``. Measured on the online network; needs no batch.

    Other definitions are the mean of ``|w|`` (Dohare et al. 2024) and the root mean square of all parameters
    (Plasticine).
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        norms = kernel_norms(probe.learner.params, tuple(probe.network.modules().values()))
        if not norms:
            return state, {}
        total = jnp.linalg.norm(jnp.stack(list(norms.values())))
        return state, {"weight_norm": total} | {f"weight_norm/{name}": norm for name, norm in norms.items()}

    return Monitor(measure, ranges={"weight_norm": NOT_NEGATIVE})


def largest_singular_value(kernel: Array) -> Array:
    """``sigma_1``, float32[], of a kernel ``[..., d]`` as a matrix ``[n, d]``, from its smaller Gram matrix."""
    size = jnp.max(jnp.abs(kernel))
    matrix = (kernel / jnp.where(size == 0, 1, size)).reshape(-1, kernel.shape[-1])
    gram = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    top: Array = linalg.eigenvalues(gram)[-1]
    return size * jnp.sqrt(jnp.maximum(top, 0))


@metadata(note="the textbook definition; spectral regularisation and spectral normalisation limit it")
def spectral_norm() -> Monitor:
    """The largest singular value of each kernel.

    ``spectral_norm/<module> = sigma_1(W_l)`` of every kernel, including the output layers', and ``spectral_norm`` the
    largest of them. Measured on the online network; needs no batch. ``sigma_1^2`` is the top eigenvalue of the Gram
    matrix of the short side; squaring the condition number does not affect the accuracy of the top eigenvalue (in
    float32).

    A convolution's kernel counts as a matrix ``[height * width * channels in, channels out]``, as in spectral
    normalisation; the norm of the convolution as an operator on images differs, and is up to ``sqrt(height * width)``
    times as large. Other code uses one step of power iteration, which gives a lower bound.
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        named = probe.network.modules().items()
        found = {name: largest_singular_value(trees.get(probe.learner.params, path)["kernel"]) for name, path in named}
        if not found:
            return state, {}
        largest = jnp.max(jnp.stack(list(found.values())))
        return state, {"spectral_norm": largest} | {f"spectral_norm/{name}": value for name, value in found.items()}

    return Monitor(measure, ranges={"spectral_norm": NOT_NEGATIVE})


@metadata(note="the quantity that regularisation towards the initial parameters (Kumar et al. 2023) keeps small")
def distance_from_initialisation() -> Monitor:
    """The Euclidean distance between the parameters now and at the start of the run, and the cosine between the two.

    ``distance_from_initialisation = |theta_t - theta_0|_2`` and ``distance_from_initialisation/cosine = <theta_t,
    theta_0> / (|theta_t|_2 |theta_0|_2)`` (0 if either is all zero), over all parameters of the online network,
    including biases and normalisation parameters; needs no batch. ``theta_0`` is stored in the monitor's state. It
    stays the first initialisation when an intervention resets the learner.

    Plasticine's ``l2_norm_difference`` is this divided by the square root of the number of parameters.
    """

    def init(params: Params) -> State:
        return jax.tree.map(jnp.copy, params)  # the training loop may donate the originals

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        moved = jax.tree.map(jnp.subtract, probe.learner.params, state)
        lengths = trees.norm(probe.learner.params) * trees.norm(state)
        cosine = trees.inner(probe.learner.params, state) / jnp.where(lengths == 0, 1, lengths)
        name = "distance_from_initialisation"
        return state, {name: optax.tree.norm(moved), f"{name}/cosine": cosine}

    return Monitor(measure, init, ranges={"distance_from_initialisation": NOT_NEGATIVE})


@metadata(note="recommended by Klein et al. 2024, Plasticity Loss in Deep RL: A Survey")
def gradient_norm() -> Monitor:
    """The L2 and L1 norms of the gradient of the task loss with respect to all parameters.

    ``gradient_norm = |g|_2``, ``gradient_norm_l1 = sum_i |g_i|``, ``g = dL / d theta`` with ``L = probe.loss``: the
    task loss without penalties on the agent's batch of recent transitions, before any clipping, trace or optimizer.
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        gradient = jax.grad(probe.loss)(probe.learner.params)
        return state, {"gradient_norm": optax.tree.norm(gradient), "gradient_norm_l1": optax.tree.norm(gradient, ord=1)}

    return Monitor(measure, ranges=dict.fromkeys(("gradient_norm", "gradient_norm_l1"), NOT_NEGATIVE))


@metadata(paper="Lyle et al. 2024, Normalization and effective learning rates in reinforcement learning")
def effective_learning_rate(*, law: Law = "adam") -> Monitor:
    """The step size relative to the scale of a scale-invariant layer.

    ``adam``: ``mean_l eta / |W_l|_F``; ``sgd``: ``mean_l eta / |W_l|_F^2``, over the kernels of the hidden layers, with
    ``eta`` the step size of the optimizer's next update. ``effective_learning_rate/<module>`` is that of one layer.
    Needs no batch. Absent if the network has no hidden layer, and infinite if a kernel is all zero.

    Reference: Lyle, Zheng, Khetarpal, Martens, van Hasselt, Pascanu & Dabney 2024, Normalization and effective learning
    rates in reinforcement learning.

    Args:
        law: static. ``adam`` for optimizers whose update does not grow with the gradient (Adam, RMSProp, sign), ``sgd``
            if it is proportional to the gradient, which scales as ``1 / |W|`` in a scale-invariant layer.

    Raises:
        ValueError: for an unknown law.

    This is exact only for layers followed by a normalisation. The paper derives the law for SGD; the one for Adam
    follows from the same argument with an update of fixed size.
    """
    check("law", law, get_args(Law), "effective_learning_rate")
    power = {"adam": 1, "sgd": 2}[law]

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        eta = required_step_size(probe.optimizer, "effective_learning_rate")(probe.learner.opt_state)
        norms = kernel_norms(probe.learner.params, probe.network.hidden)
        rates = {name: eta / norm**power for name, norm in norms.items()}
        if not rates:
            return state, {}
        mean = jnp.mean(jnp.stack(list(rates.values())))
        name = "effective_learning_rate"
        return state, {name: mean} | {f"{name}/{module}": rate for module, rate in rates.items()}

    return Monitor(measure, ranges={"effective_learning_rate": NOT_NEGATIVE})
