"""Intentional updates: the step along a trace follows from the change of the predictions that it should make."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import BelowOne, Positive, metadata
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Optimizer, Params
from plasticity.optim.eligibility import behind_trace

LEAST_NORM, LEAST_MAGNITUDE, EPS = 1e-8, 1e-12, 1e-8
NEEDS = {
    "b2": {"precondition": (True,)},
    "clip": {"adaptive_clip": (True,)},
    "clip_decay": {"adaptive_clip": (True,)},
    "magnitude_decay": {"relative": (True,)},
}


class Intentional(NamedTuple):
    """State of :func:`intentional`. Averages are stored without bias correction."""

    step_size: Array  # float32[], of the last update
    done: Array  # int32[], updates so far
    second: Params  # of squared gradients; () without preconditioning
    norm: Array  # float32[], of the gradients' squared norms
    square: Array  # float32[], of squared errors, from 1
    magnitude: Array  # float32[], of the clipped errors' magnitudes


def weighted_square(scale: Params, tree: Params) -> Array:
    """``sum_i scale_i x_i^2``, float32[]."""
    parts = jax.tree.map(lambda s, x: jnp.sum(s * jnp.square(x)), scale, tree)
    return sum(jax.tree.leaves(parts), jnp.zeros(()))


def averaged(average: Array, decay: Number, value: Array) -> Array:
    return decay * average + (1 - decay) * value


def share(decay: Number, done: Array) -> Array:
    """``1 - decay^done``: the weight of the values in an average of them from 0."""
    return 1.0 - jnp.asarray(decay, jnp.float32) ** done


@metadata(
    paper="Sharifnassab et al. 2026, Intentional Updates for Streaming Reinforcement Learning",
    checked="a NumPy loop over 50 updates with a trace and penalties; the intended share of the error in closed form",
    only_with=NEEDS,
)
def intentional(
    *,
    eta: Positive = 0.25,
    precondition: bool = True,
    b2: BelowOne = 0.999,
    running_norm: bool = True,
    adaptive_clip: bool = True,
    clip: Positive = 20.0,
    clip_decay: BelowOne = 0.9998,
    relative: bool = False,
    magnitude_decay: BelowOne = 0.9998,
) -> Optimizer:
    """Intentional updates: a step along the trace that removes the share ``eta`` of the error from the predictions.

    With ``g`` the gradient that enters the trace ``z``, ``c`` the trace's decay, and ^ for a bias-corrected average::

        rho   = 1 / (sqrt(v^) + 1e-8),     v <- b2 v + (1 - b2) g^2
        alpha = eta / max(sqrt(sigma^ sum_i rho_i z_i^2), 1e-8),   sigma <- c sigma + (1 - c) sum_i rho_i g_i^2
        theta <- theta + alpha (e rho z - penalty),   e = the error, clipped to +- clip sqrt(s^),
                                                      s <- clip_decay s + (1 - clip_decay) td_error^2

    At ``c = 0`` this is ``alpha = eta / sum_i rho_i g_i^2``, and to first order the prediction moves by ``eta e``. With
    a trace, the root mean square of the changes of recent predictions takes the place of this one change. All averages
    include the newest value and are kept when the trace ends; ``s`` starts at 1, as in the paper's code.

    The paper has no penalties; here they share the step size and are not preconditioned. The rule was compared with the
    paper's code; the text could not be read in full.

    Args:
      eta: intended share of the error. The paper's code has 0.25 for Q(lambda) (default), 0.5 for the critic and 0.05
        for the actor of AC(lambda). Traced.
      precondition: divide by the root mean square of gradients; otherwise rho is 1. Static.
      b2: decay of ``v``. Traced.
      running_norm: use the average ``sigma``; otherwise ``alpha = eta / sum_i rho_i z_i^2``. Static.
      adaptive_clip: clip errors by their root mean square; otherwise to +-1. Static.
      clip: the bound in root mean squares. Traced.
      clip_decay: decay of ``s``. Traced.
      relative: divide the clipped error by the average of its magnitude, as the paper does for a policy. Static.
      magnitude_decay: decay of that average. Traced.

    Returns:
      The optimizer, for an agent with eligibility traces. Its step size is ``alpha`` of the last update, first ``eta``.

    Raises:
      ValueError: while tracing, in an agent without eligibility traces.
    """

    def init(params: Params) -> Intentional:
        zero, second = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params) if precondition else ()
        return Intentional(jnp.asarray(eta, jnp.float32), jnp.zeros((), jnp.int32), second, zero, jnp.ones(()), zero)

    def scales(second: Params, gradient: Params, done: Array) -> tuple[Params, Params]:
        """The new second moments and rho."""
        if not precondition:
            return second, jax.tree.map(jnp.ones_like, gradient)
        new = jax.tree.map(lambda v, g: averaged(v, b2, jnp.square(g)), second, gradient)
        return new, jax.tree.map(lambda v: 1.0 / (jnp.sqrt(v / share(b2, done)) + EPS), new)

    def clipped(error: Array, square: Array, done: Array) -> Array:
        bound = clip * jnp.sqrt(square / share(clip_decay, done)) if adaptive_clip else 1.0
        return jnp.clip(error, -bound, bound)

    def update(
        gradients: Params, state: Intentional, params: Params = None, **extra: Any
    ) -> tuple[Params, Intentional]:
        del gradients, params
        seen, done = behind_trace("intentional", extra), optax.safe_increment(state.done)
        second, rho = scales(state.second, seen.gradient, done)
        norm = averaged(state.norm, seen.trace_decay, weighted_square(rho, seen.gradient))
        reach = weighted_square(rho, seen.trace)
        if running_norm:
            reach = jnp.sqrt(norm / share(seen.trace_decay, done) * reach)
        alpha = eta / jnp.maximum(reach, LEAST_NORM)
        square = averaged(state.square, clip_decay, jnp.square(seen.td_error))
        error = clipped(seen.td_error, square, done)
        magnitude = averaged(state.magnitude, magnitude_decay, jnp.abs(error))
        if relative:
            error = error / jnp.maximum(magnitude / share(magnitude_decay, done), LEAST_MAGNITUDE)
        updates = jax.tree.map(lambda r, z, p: alpha * (error * r * z - p), rho, seen.trace, seen.penalty)
        return updates, Intentional(alpha, done, second, norm, square, magnitude)

    return Optimizer(init, update, lambda state: state.step_size)
