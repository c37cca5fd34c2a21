"""Components shared by agents that learn action values: errors and their loss, and exploration."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.agents.base import AgentCore
from plasticity.agents.libraries import rlax
from plasticity.agents.replay import Batch
from plasticity.agents.truncation import Truncation, kept_discount
from plasticity.config.fields import Moved
from plasticity.core.outputs import OUTPUT, Read, Values
from plasticity.core.schedules import Number
from plasticity.core.types import Array, Key, Params, Transition, is_transition

Policy = Callable[[Key, Params, Array, Array], Array]  # key, parameters, observations [B, ...], epsilon -> actions [B]
Losses = Callable[[Params, Params, Batch], tuple[Array, Any]]
# params, params held fixed in targets, batch -> losses [B], activations
Scores = Callable[[Params, Any], Array]  # observations [B, ...] -> [B, actions]

EXPLORATION = {"kind": "linear", "start": 1.0, "end": 0.01, "duration": 250_000}  # epsilon, in env steps of each env

# Settings of epsilon in versions before schedules were members.
FORMER_EPSILON = {
    "epsilon_start": Moved("epsilon.start"),
    "epsilon_end": Moved("epsilon.end"),
    "epsilon_steps": Moved("epsilon.duration"),
}


def error_loss(errors: Array, huber: Number) -> Array:
    """Huber loss of the errors; ``huber`` (traced) bounds the gradient; 0 gives ``error^2 / 2``."""
    return jnp.where(huber > 0, rlax().huber_loss(errors, jnp.maximum(huber, 1e-6)), rlax().l2_loss(errors))


def error_size(losses: Array, huber: Number) -> Array:
    """The magnitudes of the errors with these losses: the inverse of :func:`error_loss`."""
    squared = jnp.sqrt(2.0 * losses)
    bound = jnp.maximum(huber, 1e-6)
    return jnp.where((huber > 0) & (squared > bound), losses / bound + bound / 2, squared)


RESCALING = 1e-3  # the linear part of `rescaled`, so that its inverse is Lipschitz continuous


def rescaled(x: Array) -> Array:
    """``h(x) = sign(x) (sqrt(|x| + 1) - 1) + e x`` with ``e = 0.001``.

    Pohlen et al. 2018, "Observe and Look Further: Achieving Consistent Performance on Atari".
    """
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + RESCALING * x


def unscaled(x: Array) -> Array:
    """The inverse of :func:`rescaled`: ``sign(x) (y^2 - 1)`` with ``y = (sqrt(1 + 4 e (|x| + 1 + e)) - 1) / (2 e)``."""
    size = jnp.abs(x) + 1.0 + RESCALING
    y = 2.0 * size / (jnp.sqrt(1.0 + 4.0 * RESCALING * size) + 1.0)  # the same, without cancellation
    return jnp.sign(x) * (y**2 - 1.0)


def epsilon_greedy(key: Key, q: Array, epsilon: Array) -> Array:
    """A uniform action with probability epsilon, else the first greedy one; ``q [E, actions]`` -> int32 ``[E]``."""
    coin, choice = jax.random.split(key)
    explore = jax.random.uniform(coin, q.shape[:1]) < epsilon
    uniform = jax.random.randint(choice, q.shape[:1], 0, q.shape[-1])
    return jnp.where(explore, uniform, jnp.argmax(q, axis=-1)).astype(jnp.int32)


def as_batch(
    transition: Transition, discount: Number, truncation: Truncation, previous: Array, current: Array, reward: Array
) -> Batch:
    """Convert consecutive time steps, after preprocessing, to a batch."""
    bootstrap = discount * kept_discount(transition.current.discount, transition.current.step_type, truncation)
    return Batch(previous, transition.action, reward, bootstrap, current, is_transition(transition))


def greedy_policy(values: Callable[[Params, Array], Array]) -> Policy:
    """Epsilon-greedy in ``values(params, observations) -> [B, actions]``."""
    return lambda key, params, seen, epsilon: epsilon_greedy(key, values(params, seen), epsilon)


def value_of_action(values: Array, action: Array) -> Array:
    """``values[b, action[b]]`` (as a sum: its gradient needs no scatter)."""
    return jnp.sum(jnp.where(jnp.arange(values.shape[-1]) == action[:, None], values, 0.0), axis=-1)


def one_step_errors(body: AgentCore, params: Params, held: Params, batch: Batch) -> tuple[Array, Any]:
    """``r + D max_a q(s', a) - q(s, a)``, ``[B]``, with the maximum under ``held``; activations on s."""
    q, activations = body.network.forward(params, batch.observation)
    following, _ = body.network.forward(held, batch.next_observation)
    targets = batch.reward + batch.discount * jnp.max(following, axis=-1)
    return targets - value_of_action(q, batch.action), activations


def action_values(body: AgentCore) -> Callable[[Params, Array], Array]:
    """``q [B, actions]``, the outputs of the network."""

    def values(params: Params, observation: Array) -> Array:
        q: Array = body.network.forward(params, observation)[0]
        return q

    return values


def value_outputs(values: Callable[[Params, Array], Array]) -> Read:
    """Action values as what the network says."""
    return lambda params, observation: {OUTPUT: Values(values(params, observation))}


def one_step_losses(body: AgentCore, clip: Number) -> Losses:
    """The Huber loss (``clip`` bounds its gradient) of :func:`one_step_errors`."""

    def losses(params: Params, held: Params, batch: Batch) -> tuple[Array, Any]:
        errors, activations = one_step_errors(body, params, held, batch)
        return error_loss(errors, clip), activations

    return losses
