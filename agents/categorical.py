"""Distributions over a fixed set of values, for categorical Q-learning."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from plasticity.agents.libraries import rlax
from plasticity.agents.memory import forward
from plasticity.agents.replay import Batch
from plasticity.core.schedules import Number
from plasticity.core.types import Activation, Array, Network, Params, StreamSpec

Targets = Literal["distribution", "two_hot", "hl_gauss"]
Spread = Callable[[Array, Array], Array]  # numbers [B], support [atoms] -> distributions [B, atoms]
Logits = Callable[[Params, Any], tuple[Array, Mapping[str, Activation]]]
# parameters, observations [B, ...] -> logits [B, actions, atoms], activations


def action_logits(network: Network, actions: int, atoms: int) -> Logits:
    """The network's ``actions * atoms`` outputs as the logits of each action."""

    def logits(params: Params, observation: Any) -> tuple[Array, Mapping[str, Activation]]:
        outputs, activations = forward(network, params, observation)
        return outputs.reshape(-1, actions, atoms), activations

    return logits


def of_action(logits: Array, action: Array) -> Array:
    """``logits[b, action[b]]``, ``[B, atoms]``."""
    return jnp.take_along_axis(logits, action[:, None, None], axis=1)[:, 0]


def expected(logits: Array, support: Array) -> Array:
    """Means of the distributions with logits ``[..., atoms]`` over ``support [atoms]``."""
    return jax.nn.softmax(logits) @ support


def two_hot(numbers: Array, support: Array) -> Array:
    """Two-hot encoding: distributions ``[B, atoms]`` on the two atoms next to each number, with the number as mean.

    ``p_i = max(0, 1 - |y - z_i| / w)``, with ``w`` the spacing of the atoms. Numbers outside the (evenly spaced)
    support are clipped to it.

    References: Schrittwieser et al. 2020, "Mastering Atari, Go, Chess and Shogi by Planning with a Learned Model";
    against loss of plasticity, Lyle et al. 2023, "Understanding plasticity in neural networks".
    """
    clipped = jnp.clip(numbers, support[0], support[-1])
    return jnp.maximum(0.0, 1.0 - jnp.abs(clipped[:, None] - support) / (support[1] - support[0]))


def hl_gauss(numbers: Array, support: Array, sigma: Number) -> Array:
    """Distributions ``[B, atoms]``: the bin probabilities of a normal distribution around each number.

    ``p_i ~ Phi((z_i + w/2 - y) / (sigma w)) - Phi((z_i - w/2 - y) / (sigma w))``, normalised; ``sigma`` is traced, in
    bin widths ``w``. Numbers outside the support are clipped to it. Near its ends the mean is biased inwards.

    References: Imani, White 2018, "Improving Regression Performance with Distributional Losses"; Farebrother et al.
    2024, "Stop Regressing: Training Value Functions via Classification for Scalable Deep RL", whose sigma is 0.75.
    """
    width = support[1] - support[0]
    edges = jnp.append(support - width / 2, support[-1] + width / 2)
    clipped = jnp.clip(numbers, support[0], support[-1])
    below = jax.scipy.stats.norm.cdf((edges - clipped[:, None]) / (sigma * width))
    return jnp.diff(below) / (below[:, -1:] - below[:, :1])


def spread(targets: Targets, sigma: Number) -> Spread | None:
    """Return the function that turns numbers into distributions: ``two_hot`` or ``hl_gauss``; None for "distribution".

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
    """Cross-entropy of ``p(s, a)`` against its target distribution: ``-sum_i m_i log p_i(s, a)``, ``[B]``.

    ``m`` is the distribution of ``R + D z`` with z drawn from ``p(s', a*)``, projected onto ``support [atoms]``; ``a*``
    maximises ``selector [B, actions]``. With ``spread``, m is the encoding of the number ``R + D E[z]``.
    ``now, following [B, actions, atoms]`` are logits in s and s'. No gradient passes through m.

    Reference: Bellemare, Dabney, Munos 2017, "A Distributional Perspective on Reinforcement Learning".
    """
    probabilities = jax.nn.softmax(of_action(following, jnp.argmax(selector, axis=-1)))
    if spread is None:
        returns = batch.reward[:, None] + batch.discount[:, None] * support
        wanted = jax.vmap(rlax().categorical_l2_project, in_axes=(0, 0, None))(returns, probabilities, support)
    else:
        wanted = spread(batch.reward + batch.discount * (probabilities @ support), support)
    return -jnp.sum(jax.lax.stop_gradient(wanted) * jax.nn.log_softmax(of_action(now, batch.action)), axis=-1)


def check_atoms(atoms: int) -> None:
    """Raise ``ValueError`` for fewer than two atoms (static)."""
    if atoms < 2:
        raise ValueError(f"agent.atoms: {atoms} is not allowed; must be at least 2")


def check_range(v_min: float, v_max: float) -> None:
    """Raise ``ValueError`` if the (static) bounds do not form a range."""
    if not (math.isfinite(v_min) and math.isfinite(v_max) and v_min < v_max):
        raise ValueError(f"agent.v_max: {v_max} is not allowed; must be finite and above v_min, {v_min}")


def check_support(spec: StreamSpec, v_min: float, v_max: float, reward_clip: float | None) -> None:
    """Raise ``ValueError`` if the bounds (static) are not a range or exclude a (clipped) one-step reward.

    The range must also cover the returns, but these depend on the problem and are not checked.
    """
    check_range(v_min, v_max)
    bound, how = (math.inf, "") if reward_clip is None else (reward_clip, f" (clipped at {reward_clip})")
    low, high = (float(min(max(limit, -bound), bound)) for limit in spec.reward_range)
    for key, value, reward in (("v_min", v_min, low), ("v_max", v_max, high)):
        if math.isinf(reward):
            raise ValueError(f"agent.reward_clip: null is not allowed; {key} requires bounded rewards")
        if not v_min <= reward <= v_max:
            raise ValueError(
                f"agent.{key}: {value} is not allowed; must include the rewards, which reach {reward}{how}"
            )
