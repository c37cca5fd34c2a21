"""An intervention: its signature is its schema; it returns the functions that it needs."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import NonNegative, metadata
from plasticity.core.types import Array, Key, Optimizer, Params
from plasticity.interventions.base import Intervention
from plasticity.optim.optimizers import wrap


@metadata(
    paper="Neelakantan et al. 2015, Adding Gradient Noise Improves Learning for Very Deep Networks",
    neutral={"eta": 0.0},
)
def gradient_noise(*, eta: NonNegative = 0.01, gamma: NonNegative = 0.55) -> Intervention:
    """Gaussian noise added to every gradient before the optimizer receives it.

    ``g <- g + sqrt(eta / (1 + t)^gamma) n``, ``n ~ N(0, 1)``, at update t = 0, 1, ... Both numbers are traced: a sweep
    over them is one compiled program. The paper tries ``eta`` = 0.01, 0.3 and 1.
    """

    def init(params: Params) -> Array:
        del params
        return jnp.zeros([], jnp.int32)

    def update(
        gradients: Params, done: Array, params: Params = None, *, key: Key, **extra: Any
    ) -> tuple[Params, Array]:
        del params, extra
        sigma = jnp.sqrt(eta / (1.0 + done) ** gamma)
        leaves, tree = jax.tree.flatten(gradients)
        noisy = [g + sigma * jax.random.normal(jax.random.fold_in(key, i), g.shape) for i, g in enumerate(leaves)]
        return jax.tree.unflatten(tree, noisy), done + 1

    def wrapped(optimizer: Optimizer) -> Optimizer:
        return wrap(optimizer, before=optax.GradientTransformationExtraArgs(init, update))

    return Intervention(optimizer=wrapped)
