"""Distributions over a fixed set of values: the arithmetic of categorical Q-learning."""

import math

import jax
import jax.numpy as jnp
import rlax

from agents.replay import Batch
from plasticity.types import Array, StreamSpec


def of_action(logits: Array, action: Array) -> Array:
    """``logits[b, action[b]]``, ``[B, atoms]``."""
    return jnp.take_along_axis(logits, action[:, None, None], axis=1)[:, 0]


def expected(logits: Array, support: Array) -> Array:
    """The means of distributions with these logits ``[..., atoms]`` over ``support [atoms]``."""
    return jax.nn.softmax(logits) @ support


def cross_entropies(batch: Batch, now: Array, following: Array, selector: Array, support: Array) -> Array:
    """``-sum_i m_i log p_i(s, a)``, ``[B]``: how far ``p(s, a)`` is from the distribution it should be.

    ``m`` is the distribution of ``R + D z`` with z drawn from ``p(s', a*)``, projected onto ``support [atoms]``; ``a*``
    maximises ``selector [B, actions]``. ``now, following [B, actions, atoms]`` are logits in s and s'; no gradient
    passes through m. Bellemare, Dabney, Munos 2017, "A Distributional Perspective on Reinforcement Learning".
    """
    probabilities = jax.nn.softmax(of_action(following, jnp.argmax(selector, axis=-1)))
    returns = batch.reward[:, None] + batch.discount[:, None] * support
    project = jax.vmap(rlax.categorical_l2_project, in_axes=(0, 0, None))
    wanted = jax.lax.stop_gradient(project(returns, probabilities, support))
    return -jnp.sum(wanted * jax.nn.log_softmax(of_action(now, batch.action)), axis=-1)


def check_atoms(atoms: int) -> None:
    """``ValueError`` for less than two atoms (static)."""
    if atoms < 2:
        raise ValueError(f"agent.atoms: {atoms} is not allowed; it must be at least 2")


def check_support(spec: StreamSpec, v_min: float, v_max: float, reward_clip: float | None) -> None:
    """``ValueError`` where the values (static) are no range or leave out a reward of one step, as it is learned from.

    What they must contain beyond that, the returns, depends on the problem.
    """
    if not (math.isfinite(v_min) and math.isfinite(v_max) and v_min < v_max):
        raise ValueError(f"agent.v_max: {v_max} is not allowed; it must be finite and above v_min, {v_min}")
    bound, how = (math.inf, "") if reward_clip is None else (reward_clip, f" (clipped at {reward_clip})")
    low, high = (float(min(max(limit, -bound), bound)) for limit in spec.reward_range)
    for key, value, reward in (("v_min", v_min, low), ("v_max", v_max, high)):
        if math.isinf(reward):
            raise ValueError(f"agent.reward_clip: null is not allowed; rewards have no known bound, so {key} has none")
        if not v_min <= reward <= v_max:
            raise ValueError(f"agent.{key}: {value} is not allowed; rewards reach {reward}{how}")
