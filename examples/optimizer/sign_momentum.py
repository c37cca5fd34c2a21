"""An optimizer: the sign of the averaged gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import BelowOne, NonNegative, metadata
from plasticity.core.schedules import constant
from plasticity.core.types import Optimizer
from plasticity.optim.optimizers import descend


@metadata(paper="Bernstein et al. 2018, signSGD: Compressed Optimisation for Non-Convex Problems")
def sign_momentum(*, learning_rate: NonNegative = 1e-3, momentum: BelowOne = 0.9) -> Optimizer:
    """``m <- momentum m + (1 - momentum) g``, ``theta <- theta - learning_rate sign(m)``; both numbers are traced."""

    def signs(updates: Any, params: Any = None) -> Any:
        del params
        return jax.tree.map(jnp.sign, updates)

    direction = optax.chain(optax.ema(momentum, debias=False), optax.stateless(signs))
    return descend(direction, constant(learning_rate), scheduled=False)
