"""Norms of the parameters and of the gradient, and the step size in their light."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

from plasticity.fields import card
from plasticity.monitors.base import Monitor
from plasticity.types import Array, Key, Metrics, Params, Path, Probe, State

Law = Literal["adam", "sgd"]


def kernel_norms(params: Params, paths: tuple[Path, ...]) -> dict[str, Array]:
    """Module name -> Frobenius norm float32[] of its kernel."""
    norms = {}
    for path in paths:
        module = params
        for name in path:
            module = module[name]
        norms["/".join(path)] = jnp.linalg.norm(module["kernel"].ravel())
    return norms


@card(note="without a single source; recommended by Klein et al. 2024, Plasticity Loss in Deep RL: A Survey")
def weight_norm() -> Monitor:
    """The Frobenius norm of the kernels.

    ``weight_norm = sqrt(sum_l |W_l|_F^2)`` over all kernels, the output layer's too, without biases and normalisation
    parameters; ``weight_norm/<module> = |W_l|_F``. Of the online network; needs no batch.

    Elsewhere also the mean of ``|w|`` (Dohare et al. 2024) or the root mean square of all parameters (Plasticine).
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        norms = kernel_norms(probe.learner.params, (*probe.network.hidden, *probe.network.outputs))
        total = jnp.linalg.norm(jnp.stack(list(norms.values())))
        return state, {"weight_norm": total} | {f"weight_norm/{name}": norm for name, norm in norms.items()}

    return Monitor(measure)


@card(note="the quantity that regularisation towards the initial parameters (Kumar et al. 2023) keeps small")
def distance_from_initialisation() -> Monitor:
    """The Euclidean distance of all parameters to those of the start of the run.

    ``|theta_t - theta_0|_2``, over every parameter of the online network, biases and normalisation parameters included;
    needs no batch. ``theta_0`` is kept in the monitor's state, and stays the first initialisation when an intervention
    resets the learner.

    Plasticine's ``l2_norm_difference`` is this divided by the square root of the number of parameters.
    """

    def init(params: Params) -> State:
        return jax.tree.map(jnp.copy, params)  # the training loop may donate the originals

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        moved = jax.tree.map(jnp.subtract, probe.learner.params, state)
        return state, {"distance_from_initialisation": optax.tree.norm(moved)}

    return Monitor(measure, init)


@card(note="recommended by Klein et al. 2024, Plasticity Loss in Deep RL: A Survey")
def gradient_norm() -> Monitor:
    """The Euclidean and the absolute norm of the gradient of the task loss in all parameters.

    ``gradient_norm = |g|_2``, ``gradient_norm_l1 = sum_i |g_i|``, ``g = dL / d theta`` with ``L = probe.loss``: the
    task loss without penalties on the agent's batch of recent transitions, before any clipping, trace or optimizer.
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        gradient = jax.grad(probe.loss)(probe.learner.params)
        return state, {"gradient_norm": optax.tree.norm(gradient), "gradient_norm_l1": optax.tree.norm(gradient, ord=1)}

    return Monitor(measure)


@card(paper="Lyle et al. 2024, Normalization and effective learning rates in reinforcement learning")
def effective_learning_rate(*, law: Law = "adam") -> Monitor:
    """The step size in units of what it takes to turn a scale-invariant layer.

    ``adam``: ``mean_l eta / |W_l|_F``; ``sgd``: ``mean_l eta / |W_l|_F^2``, over the kernels of the hidden layers, with
    ``eta`` the step size of the optimizer's next update. ``effective_learning_rate/<module>`` is the one of a layer.
    Needs no batch. Absent where the network has no hidden layer; infinite where a kernel is all zero.

    Paper: Lyle, Zheng, Khetarpal, Martens, van Hasselt, Pascanu & Dabney 2024, Normalization and effective learning
    rates in reinforcement learning.

    Args:
        law: static. ``adam`` for optimizers whose update doesn't grow with the gradient (Adam, RMSProp, sign), ``sgd``
            for those where it is proportional to it: a gradient of a scale-invariant layer goes with ``1 / |W|``.

    Errors: ``ValueError`` for another law.

    The meaning is exact only for layers followed by a normalisation. The paper derives the law of SGD; that of Adam
    follows from the same argument with an update of fixed size.
    """
    if law not in get_args(Law):
        raise ValueError(f"effective_learning_rate: law must be one of {', '.join(get_args(Law))}, got {law!r}")
    power = {"adam": 1, "sgd": 2}[law]

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        eta = probe.optimizer.learning_rate(probe.learner.opt_state)
        norms = kernel_norms(probe.learner.params, probe.network.hidden)
        rates = {name: eta / norm**power for name, norm in norms.items()}
        if not rates:
            return state, {}
        mean = jnp.mean(jnp.stack(list(rates.values())))
        name = "effective_learning_rate"
        return state, {name: mean} | {f"{name}/{module}": rate for module, rate in rates.items()}

    return Monitor(measure)
