"""A monitor: it receives a probe of the learner and returns named numbers."""

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, Key, Metrics, Params, Probe, State
from plasticity.monitors.base import Monitor


def squares(tree: Params) -> Array:
    """Return ``sum_i x_i^2`` over all numbers in the tree, float32[]."""
    return sum((jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)), jnp.zeros(()))


def gradient_snr() -> Monitor:
    """The squared norm of the gradient relative to its average so far.

    ``gradient_snr = |g|^2 / m``, where ``m`` is the mean of ``|g|^2`` over all measurements up to and including this
    one, and ``g`` is the gradient of the task loss on the probe's batch. The first measurement is 1.
    """

    def init(params: Params) -> State:
        del params
        return jnp.zeros(()), jnp.zeros(())

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        total, number = state
        size = squares(jax.grad(probe.loss)(probe.learner.params))
        total, number = total + size, number + 1
        return (total, number), {"gradient_snr": size / jnp.maximum(total / number, jnp.finfo(jnp.float32).tiny)}

    return Monitor(measure, init)
