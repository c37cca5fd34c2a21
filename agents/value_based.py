"""Components shared by agents that learn action values: the loss of the error, and exploration."""

import jax
import jax.numpy as jnp
import rlax

from plasticity.config.fields import Moved
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Key

EXPLORATION = {"kind": "linear", "start": 1.0, "end": 0.01, "duration": 250_000}  # epsilon, in env steps of each env

# Settings of epsilon in versions before schedules were members.
FORMER_EPSILON = {
    "epsilon_start": Moved("epsilon.start"),
    "epsilon_end": Moved("epsilon.end"),
    "epsilon_steps": Moved("epsilon.duration"),
}


def error_loss(errors: Array, huber: Number) -> Array:
    """Huber loss of the errors; ``huber`` (traced) bounds the gradient; 0 gives ``error^2 / 2``."""
    return jnp.where(huber > 0, rlax.huber_loss(errors, jnp.maximum(huber, 1e-6)), rlax.l2_loss(errors))


def epsilon_greedy(key: Key, q: Array, epsilon: Array) -> Array:
    """A uniform action with probability epsilon, else the first greedy one; ``q [E, actions]`` -> int32 ``[E]``."""
    coin, choice = jax.random.split(key)
    explore = jax.random.uniform(coin, q.shape[:1]) < epsilon
    uniform = jax.random.randint(choice, q.shape[:1], 0, q.shape[-1])
    return jnp.where(explore, uniform, jnp.argmax(q, axis=-1)).astype(jnp.int32)
