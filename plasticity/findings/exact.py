"""Exact findings: numbers computed directly with this testbed's optimizers, resets and losses."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.agents.clipping import policy_loss
from plasticity.core.types import Array, Context, Learner, Optimizer
from plasticity.interventions.resets import optimizer_reset
from plasticity.optim.optimizers import adam, sgd

QUIET, LOUD = 1e-6, 1.0  # gradients
QUIET_STEPS, LOUD_STEPS = 10_000, 200


def adam_over_step() -> dict[str, float]:
    """Adam's step, in units of the step size, when gradients of 1 follow 10,000 gradients of 1e-6.

    Without a reset it is ``(1 - b1^k) / sqrt(1 - b2^k)`` at the k-th loud step, since both the bias correction and the
    quiet gradients are negligible. The numbers are ``step_K`` for some K, ``peak`` and ``peak_step``; ``RESET_peak``,
    the largest step if the state is reset at the change by ``optimizer_reset: {what: RESET}``; and
    ``equal_betas_peak`` for ``b1 = b2 = 0.9``.
    """
    rule = adam(learning_rate=1.0)
    steps = _loud_steps(rule, None)
    found = {f"step_{k}": float(steps[k - 1]) for k in (1, 2, 5, 50)}
    found |= {"peak": float(steps.max()), "peak_step": float(steps.argmax() + 1)}
    for what in ("all", "counts", "slots", "first_moment", "second_moment"):
        found[f"{what}_peak"] = float(_loud_steps(rule, what).max())
    return found | {"equal_betas_peak": float(_loud_steps(adam(learning_rate=1.0, b1=0.9, b2=0.9), None).max())}


def _loud_steps(rule: Optimizer, reset: Any) -> np.ndarray:
    """``|update|`` of each loud step, after the quiet steps and a reset."""

    def step(carry: tuple[Array, Any], gradient: Array) -> tuple[tuple[Array, Any], Array]:
        params, state = carry
        update, state = rule.update(gradient, state, params)
        return (params + update, state), jnp.abs(update)

    run = jax.jit(lambda carry, gradients: jax.lax.scan(step, carry, gradients))
    params = jnp.zeros(())
    carry, _ = run((params, rule.init(params)), jnp.full(QUIET_STEPS, QUIET))
    if reset is not None:
        learner = Learner(carry[0], (), carry[1])
        context = Context(*[None] * len(Context._fields))._replace(optimizer=rule)  # type: ignore[arg-type]
        _, learner = optimizer_reset(when="switch", what=reset).switch(jax.random.key(0), (), learner, context)
        carry = (learner.params, learner.opt_state)
    return np.asarray(run(carry, jnp.full(LOUD_STEPS, LOUD))[1])


def clip_and_rank() -> dict[str, float]:
    """Ratios of a linear softmax policy over two actions whose features have collapsed to one direction.

    The states are ``x`` and ``y = alpha x``, and the policy is initially uniform. Gradient descent with step size 1.5
    on PPO's clipped loss (clip 0.1) for the first action with advantage 1. The numbers: ``sampled``, the ratio in x
    after one step on x; ``parallel``, ``opposite``, ``orthogonal``, the ratio in y, which was never sampled, for
    ``alpha`` 3 and -1 and for a y orthogonal to x; ``opposite_low`` and ``opposite_high``, the range of both ratios
    over 20 steps alternating between x and y, for ``alpha`` -1.

    Reference: Moalla et al. 2024, "No Representation, No Trust".
    """
    states = {"parallel": (3.0, 0.0), "opposite": (-1.0, 0.0), "orthogonal": (0.0, 1.0)}
    x = jnp.array([1.0, 0.0])
    found: dict[str, float] = {}
    for name, place in states.items():
        weights = _ppo_step(jnp.zeros((2, 2)), x)
        found |= {"sampled": _ratio(weights, x), name: _ratio(weights, jnp.array(place))}
    weights, y = jnp.zeros((2, 2)), -x
    ratios = []
    for turn in range(20):
        weights = _ppo_step(weights, x if turn % 2 == 0 else y)
        ratios += [_ratio(weights, x), _ratio(weights, y)]
    return found | {"opposite_low": min(ratios), "opposite_high": max(ratios)}


def _log_ratio(weights: Array, state: Array) -> Array:
    """Log ratio of the first action's probability to the uniform policy."""
    return jax.nn.log_softmax(state @ weights)[0] - jnp.log(0.5)


def _ratio(weights: Array, state: Array) -> float:
    return float(jnp.exp(_log_ratio(weights, state)))


@jax.jit
def _ppo_step(weights: Array, state: Array) -> Array:
    """One step of gradient descent on PPO's loss of one sample: the first action, advantage 1."""
    rule = sgd(learning_rate=1.5)
    gradients = jax.grad(lambda w: policy_loss(_log_ratio(w, state), jnp.ones(()), 0.1))(weights)
    updates, _ = rule.update(gradients, rule.init(weights), weights)
    return jnp.asarray(weights + updates)


EXACT: Mapping[str, Callable[[], dict[str, float]]] = {"adam_over_step": adam_over_step, "clip_and_rank": clip_and_rank}
