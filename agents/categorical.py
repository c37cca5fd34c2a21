"""Distributions over a fixed set of values: the arithmetic of categorical Q-learning."""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import rlax

from plasticity.agents.replay import Batch
from plasticity.core.schedules import Number
from plasticity.core.types import Array, StreamSpec

Targets = Literal["distribution", "two_hot", "hl_gauss"]
Spread = Callable[[Array, Array], Array]  # numbers [B], support [atoms] -> distributions [B, atoms]


def of_action(logits: Array, action: Array) -> Array:
    """``logits[b, action[b]]``, ``[B, atoms]``."""
    return jnp.take_along_axis(logits, action[:, None, None], axis=1)[:, 0]


def expected(logits: Array, support: Array) -> Array:
    """The means of distributions with these logits ``[..., atoms]`` over ``support [atoms]``."""
    return jax.nn.softmax(logits) @ support


def two_hot(numbers: Array, support: Array) -> Array:
    """Distributions ``[B, atoms]`` on the two atoms next to a number, with the number as their mean.

    ``p_i = max(0, 1 - |y - z_i| / w)``, ``w`` the distance of neighbouring atoms; numbers outside the (evenly spaced)
    support are clipped to it. Schrittwieser et al. 2020, "Mastering Atari, Go, Chess and Shogi by Planning with a
    Learned Model"; against loss of plasticity Lyle et al. 2023, "Understanding plasticity in neural networks".
    """
    clipped = jnp.clip(numbers, support[0], support[-1])
    return jnp.maximum(0.0, 1.0 - jnp.abs(clipped[:, None] - support) / (support[1] - support[0]))


def hl_gauss(numbers: Array, support: Array, sigma: Number) -> Array:
    """Distributions ``[B, atoms]``: a normal distribution about a number, binned.

    ``p_i ~ Phi((z_i + w/2 - y) / (sigma w)) - Phi((z_i - w/2 - y) / (sigma w))``, normalised; ``sigma`` is traced, in
    bin widths ``w``. Numbers outside the support are clipped to it; near its ends the mean is drawn inwards. Imani,
    White 2018, "Improving Regression Performance with Distributional Losses"; Farebrother et al. 2024, "Stop
    Regressing: Training Value Functions via Classification for Scalable Deep RL", whose sigma is 0.75.
    """
    width = support[1] - support[0]
    edges = jnp.append(support - width / 2, support[-1] + width / 2)
    clipped = jnp.clip(numbers, support[0], support[-1])
    below = jax.scipy.stats.norm.cdf((edges - clipped[:, None]) / (sigma * width))
    return jnp.diff(below) / (below[:, -1:] - below[:, :1])


def spread(targets: Targets, sigma: Number) -> Spread | None:
    """How a number becomes a distribution: ``two_hot``, ``hl_gauss``; None for "distribution", which keeps its own.

    ``targets`` is static, ``sigma`` traced. ``ValueError`` for an unknown name.
    """
    known: dict[str, Spread | None] = {"distribution": None, "two_hot": two_hot}
    known["hl_gauss"] = lambda numbers, support: hl_gauss(numbers, support, sigma)
    if targets not in known:
        raise ValueError(f"agent.targets: {targets} is not allowed; must be one of {', '.join(known)}")
    return known[targets]


def cross_entropies(
    batch: Batch, now: Array, following: Array, selector: Array, support: Array, spread: Spread | None = None
) -> Array:
    """``-sum_i m_i log p_i(s, a)``, ``[B]``: how far ``p(s, a)`` is from the distribution it should be.

    ``m`` is the distribution of ``R + D z`` with z drawn from ``p(s', a*)``, projected onto ``support [atoms]``; ``a*``
    maximises ``selector [B, actions]``. ``now, following [B, actions, atoms]`` are logits in s and s'; no gradient
    passes through m. Bellemare, Dabney, Munos 2017, "A Distributional Perspective on Reinforcement Learning". With
    ``spread``, m is made of the number ``R + D E[z]``.
    """
    probabilities = jax.nn.softmax(of_action(following, jnp.argmax(selector, axis=-1)))
    if spread is None:
        returns = batch.reward[:, None] + batch.discount[:, None] * support
        wanted = jax.vmap(rlax.categorical_l2_project, in_axes=(0, 0, None))(returns, probabilities, support)
    else:
        wanted = spread(batch.reward + batch.discount * (probabilities @ support), support)
    return -jnp.sum(jax.lax.stop_gradient(wanted) * jax.nn.log_softmax(of_action(now, batch.action)), axis=-1)


def check_atoms(atoms: int) -> None:
    """``ValueError`` for less than two atoms (static)."""
    if atoms < 2:
        raise ValueError(f"agent.atoms: {atoms} is not allowed; it must be at least 2")


def check_range(v_min: float, v_max: float) -> None:
    """``ValueError`` where these (static) are no range."""
    if not (math.isfinite(v_min) and math.isfinite(v_max) and v_min < v_max):
        raise ValueError(f"agent.v_max: {v_max} is not allowed; it must be finite and above v_min, {v_min}")


def check_support(spec: StreamSpec, v_min: float, v_max: float, reward_clip: float | None) -> None:
    """``ValueError`` where the values (static) are no range or leave out a reward of one step, as it is learned from.

    What they must contain beyond that, the returns, depends on the problem.
    """
    check_range(v_min, v_max)
    bound, how = (math.inf, "") if reward_clip is None else (reward_clip, f" (clipped at {reward_clip})")
    low, high = (float(min(max(limit, -bound), bound)) for limit in spec.reward_range)
    for key, value, reward in (("v_min", v_min, low), ("v_max", v_max, high)):
        if math.isinf(reward):
            raise ValueError(f"agent.reward_clip: null is not allowed; rewards have no known bound, so {key} has none")
        if not v_min <= reward <= v_max:
            raise ValueError(f"agent.{key}: {value} is not allowed; rewards reach {reward}{how}")
