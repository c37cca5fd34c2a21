"""Penalties that keep what the networks say close to what they said on earlier tasks."""

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Fraction, NonNegative, metadata
from plasticity.core.masked import mean_where
from plasticity.core.outputs import divergence
from plasticity.core.types import Array, Context, Key, Learner, Network, Params, State
from plasticity.interventions.base import Intervention, Remember
from plasticity.interventions.memory import CLONING, noted, stored


@metadata(
    paper="Wolczyk et al. 2022, Disentangling Transfer in Continual Reinforcement Learning",
    checked="the divergence of a linear softmax in NumPy, of normals by numerical integration; the default of "
    "`strength` is ours",
    neutral={"strength": 0.0},
)
def behavioural_cloning(*, strength: NonNegative = 1.0, memory: Count = 10_000, batch: Count = 128) -> Intervention:
    """Behavioural cloning: the networks keep saying on old transitions what they said when their task ended.

    ``strength mean_b KL(old(s_b) || new(s_b))`` over ``batch`` transitions of past tasks: categorical and normal
    distributions for policies, half the squared distance for values. The memory is a uniform sample of each task's
    transitions, with the outputs at the task's end. In Wolczyk et al. 2022 ("ClonEx") cloning the actor helps, while
    cloning the critic does not: ``modules: [actor]``.

    Args:
        strength: traced. Ours.
        memory: transitions of each past visit. Static. 10,000 in Continual World for A-GEM.
        batch: transitions for each update. Static.
    """

    def penalty(state: State, params: Params, context: Context) -> Array:
        del state
        past = stored(context)
        drawn = past.draw(CLONING, batch)
        new = context.outputs(params, past.inputs(drawn.rows))
        return strength * mean_where(drawn.valid, divergence(drawn.outputs, new))

    return Intervention(penalty=penalty, switch=noted, remember=Remember(memory))


@metadata(
    paper="Schmitt et al. 2018, Kickstarting Deep Reinforcement Learning",
    checked="the value by hand at two times after a switch; the default of `strength` is ours",
    neutral={"strength": 0.0},
)
def kickstarting(*, strength: NonNegative = 1.0, decay: Fraction = 1.0) -> Intervention:
    """Kickstarting: the networks stay close to those at the last switch, on the current task's observations.

    ``strength decay^t mean_b KL(teacher(s_b) || new(s_b))`` over the update's batch. The teacher has the parameters
    of the last switch, from the first one on.

    Args:
        strength: traced. Ours.
        decay: of the strength, for each of the ``t`` updates since the last switch. Traced. Wolczyk et al. 2024
            ("Fine-tuning Reinforcement Learning Models is Secretly a Forgetting Mitigation Problem") use such a decay.
    """

    def init(key: Key, params: Params, network: Network) -> State:
        del key, network
        return {"teacher": params, "since": jnp.full((), -1, jnp.int32)}

    def penalty(state: State, params: Params, context: Context) -> Array:
        old = context.outputs(jax.lax.stop_gradient(state["teacher"]), context.observation)
        each = divergence(old, context.outputs(params, context.observation))
        age = jnp.maximum(context.clock.update - state["since"], 0).astype(jnp.float32)
        weight = jnp.where(state["since"] >= 0, decay**age, 0.0)
        return strength * weight * jnp.mean(each)

    def switch(key: Key, state: State, learner: Learner, context: Context) -> tuple[State, Learner]:
        del key
        return {"teacher": learner.params, "since": context.clock.update}, learner

    return Intervention(init=init, penalty=penalty, switch=switch)
