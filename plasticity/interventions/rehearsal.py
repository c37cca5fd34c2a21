"""Learning from transitions of earlier tasks together with the current one."""

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, NonNegative, metadata
from plasticity.core import trees
from plasticity.core.masked import mean_where
from plasticity.core.outputs import Values
from plasticity.core.types import Array, Context, Key, Learner, Params, State
from plasticity.interventions.base import Intervention, Remember
from plasticity.interventions.memory import REHEARSAL, noted, stored

TINY = float(jnp.finfo(jnp.float32).tiny)


def projected(gradients: Params, reference: Params) -> Params:
    """``g - (g . r) / (r . r) r`` where ``g . r < 0``, otherwise ``g``."""
    product, norm = trees.inner(gradients, reference), trees.squared_norm(reference)
    factor = jnp.where((product < 0) & (norm > TINY), product / jnp.maximum(norm, TINY), 0.0)
    return jax.tree.map(lambda g, r: g - factor * r, gradients, reference)


@metadata(
    paper="Chaudhry et al. 2019, Efficient Lifelong Learning with A-GEM",
    checked="the projection by hand, and its inequality on random gradients",
)
def a_gem(*, memory: Count = 10_000, batch: Count = 128) -> Intervention:
    """A-GEM: the gradient may not increase the loss on transitions of earlier tasks, to first order.

    ``g <- g - (g . r) / (r . r) r`` if ``g . r < 0``, with ``r`` the gradient of the agent's loss on ``batch``
    transitions of past tasks. The memory is a uniform sample of each visit's transitions.

    Args:
        memory: transitions of each past visit. Static. The default is Continual World's.
        batch: static. The default is Continual World's.

    An agent that learns on-policy has no loss for old transitions that would be exact: ``r`` is then that of its loss
    for monitors, with one-step advantages.
    """

    def gradient(key: Key, state: State, gradients: Params, learner: Learner, context: Context) -> Params:
        del key, state
        past = stored(context)
        drawn = past.draw(REHEARSAL, batch)
        reference = jax.grad(lambda params: past.loss(REHEARSAL, params, drawn))(learner.params)
        return projected(gradients, reference)

    return Intervention(gradient=gradient, switch=noted, remember=Remember(memory))


@metadata(
    paper="Rolnick et al. 2019, Experience Replay for Continual Learning",
    checked="the sum of its terms in NumPy, for values; for policies against `behavioural_cloning`",
)
def clear(
    *,
    replay: NonNegative = 1.0,
    policy_cloning: NonNegative = 0.01,
    value_cloning: NonNegative = 0.005,
    memory: Count = 10_000,
    batch: Count = 128,
) -> Intervention:
    """CLEAR: rehearsal of old transitions, and cloning of the policy and of the values that they had.

    ``replay L(old) + policy_cloning KL(old policy || policy) + value_cloning |old value - value|^2``, means over
    ``batch`` transitions of past tasks, added to the loss ``L`` of the current batch. With ``replay`` 1, half of the
    loss comes from old transitions, as in the paper.

    Args:
        replay: traced. For agents that learn off-policy from single transitions; others have no exact loss for old
            transitions (the paper's uses V-trace), and need 0 or accept the one-step loss that monitors see.
        policy_cloning: traced, the paper's value.
        value_cloning: traced, the paper's value.
        memory: transitions of each past visit, a uniform sample; the paper's buffer samples all of the past uniformly,
            and keeps the outputs at the time of the transition. Static.
        batch: static.
    """

    def penalty(state: State, params: Params, context: Context) -> Array:
        del state
        past = stored(context)
        drawn = past.draw(REHEARSAL, batch)
        new, total = context.outputs(params, past.inputs(drawn.rows)), jnp.zeros(())
        for name, old in drawn.outputs.items():
            # The divergence of values is half the squared distance.
            weight = 2.0 * value_cloning if isinstance(old, Values) else policy_cloning
            total += weight * mean_where(drawn.valid, old.divergence(new[name]))
        return total + replay * past.loss(REHEARSAL, params, drawn)

    return Intervention(penalty=penalty, switch=noted, remember=Remember(memory))
