"""Deep Q-learning by hand."""

from typing import Any

import jax.numpy as jnp
import optax

from plasticity.bench.overhead import world
from plasticity.bench.overhead.plain import Plain
from plasticity.bench.overhead.replay import DISCOUNT, Batch, Loss, learner, network
from plasticity.core.types import Array, Params


def losses(params: Params, target: Params, batch: Batch) -> tuple[Array, Array]:
    """Huber losses of the one-step errors."""
    q = network(params, batch.observation)
    wanted = batch.reward + DISCOUNT * batch.discount * network(target, batch.following).max(-1)
    taken = jnp.take_along_axis(q, batch.action[:, None], 1)[:, 0]
    return optax.huber_loss(wanted - taken), q


def dqn(steps: int, **settings: Any) -> Plain:
    return learner(steps, Loss(world.ACTIONS, network, losses), **settings)
