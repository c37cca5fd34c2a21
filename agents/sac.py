"""Soft actor-critic."""

import math
from typing import Annotated, Any, Literal

import jax.numpy as jnp

from plasticity.agents.actor_critic import with_numbers
from plasticity.agents.actors_and_critics import (
    ACTOR,
    ADAM,
    NETWORK,
    REPLAY,
    Ensemble,
    Rate,
    critic_names,
    every,
    networks,
    polyak,
    scale_of,
)
from plasticity.agents.replay_regime import replay_agent, replay_core
from plasticity.agents.replay_source import Sampling
from plasticity.agents.replay_timing import Ratio, Timing, replay_updates
from plasticity.agents.soft import TEMPERATURE, Soft, discrete, real_actor, real_valued
from plasticity.agents.stream_checks import check_acting
from plasticity.config.fields import (
    BelowOne,
    Count,
    Member,
    Natural,
    Positive,
    Real,
    Repeats,
    Size,
    metadata,
)
from plasticity.core.errors import check
from plasticity.core.types import Agent, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.optim.eligibility import parts

LOG_STD = (-20.0, 2.0)


@metadata(
    paper="Haarnoja et al. 2018, Soft Actor-Critic Algorithms and Applications",
    checked="a NumPy program over 14 updates, with gradients by hand, for real-valued and discrete actions; "
    "densities by numerical integration",
    only_with={
        "gradient_steps": {"replay_ratio": (None,)},
        "initial_temperature": {"temperature": (None,)},
        "target_entropy": {"temperature": (None,)},
    },
)
def sac(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = NETWORK,
    critic_network: Annotated[Any, Member("networks")] = NETWORK,
    policy_optimizer: Annotated[Any, Member("optimizers")] = ADAM,
    value_optimizer: Annotated[Any, Member("optimizers")] = ADAM,
    temperature_optimizer: Annotated[Any, Member("optimizers")] = ADAM,
    discount: BelowOne = 0.99,
    n_step: Repeats = 1,
    reward_clip: Positive | None = None,
    critics: Ensemble = 2,
    target_critics: Ensemble | None = None,
    actor_value: Literal["min", "mean"] = "min",
    temperature: Positive | None = None,
    initial_temperature: Positive = 1.0,
    target_entropy: Real | None = None,
    random_steps: Natural = 1_000,
    replay: Annotated[Any, Member("replays")] = REPLAY,
    batch_size: Size = 256,
    update_period: Count = 1,
    gradient_steps: Repeats = 1,
    replay_ratio: Ratio | None = None,
    policy_period: Count = 1,
    target_rate: Rate = 0.005,
    target_period: Count = 1,
    evaluate: Literal["mode", "sample"] = "mode",
) -> Agent:
    """Soft actor-critic, for bounded real-valued actions and for discrete ones.

    ``y = R + D (min_i q_i'(s', a') - alpha log pi(a'|s'))``, ``a' ~ pi(s')``. Critics minimise ``sum_i (q_i(s, a) -
    y)^2 / 2``, the actor ``alpha log pi(b|s) - min_i q_i(s, b)`` with ``b ~ pi(s)``, the temperature ``-alpha (log
    pi(b|s) + target_entropy)``. All of them use the parameters before the update. With real-valued actions, ``a =
    tanh(u)`` with normal ``u``, mapped to the stream's bounds; densities are those of the action in (-1, 1). With
    discrete actions, critics have an output for each action, and expectations over the policy replace samples
    (Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings").

    Args:
      spec: the stream.
      intervention: changes networks, optimizers and updates.
      network: of the actor, whose outputs are means and logarithms of standard deviations (clipped to [-20, 2]), or
        logits.
      critic_network: of each critic. With real-valued actions it reads state and action as one vector.
      policy_optimizer: of the actor.
      value_optimizer: of each critic.
      temperature_optimizer: of the logarithm of alpha.
      discount: traced.
      n_step: steps of the return R. Static.
      reward_clip: rewards are clipped to +- this for learning. Traced; static None: not clipped.
      critics: number of critics. Static.
      target_critics: critics, drawn for each update, whose smallest value enters the target (Chen et al. 2021,
        "Randomized Ensembled Double Q-Learning: Learning Fast Without a Model"); None: all. Static.
      actor_value: whether the actor maximises the smallest value of all critics or their mean. Static.
      temperature: a fixed alpha, traced; None: learned.
      initial_temperature: of a learned alpha. Traced.
      target_entropy: traced, in nats; None: minus the number of real-valued actions, or 0.98 log(actions).
      random_steps: env steps of each env with random actions after the agent was initialised. Policies of earlier
        tasks act in as many steps of a visit, if an intervention chooses them. Static.
      replay: the source of transitions. Its weights apply to the critics; priorities are the critics' losses.
      batch_size: transitions. Static.
      update_period: env steps of each env between updates. Static.
      gradient_steps: updates per period. Static.
      replay_ratio: instead of ``gradient_steps``, updates per transition. Static.
      policy_period: updates between those of actor and temperature. Static.
      target_rate: ``q' <- (1 - target_rate) q' + target_rate q``. Traced.
      target_period: updates between those of the targets. Static.
      evaluate: whether evaluation takes the most likely action or samples. Static.

    Returns:
      The agent of one lane.

    Raises:
      ValueError: real-valued actions without bounds, or with observations that are not vectors; a network with memory;
        inconsistent sizes.

    Reference: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications".
    """
    check_acting("sac", spec)
    check("agent.actor_value", actor_value, ("min", "mean"))
    check("agent.evaluate", evaluate, ("mode", "sample"))
    updates = replay_updates("sac", spec, update_period, gradient_steps, replay_ratio, discrete=False)
    subset = critics if target_critics is None else target_critics
    if subset > critics:
        raise ValueError(f"agent.target_critics: {subset} is not allowed; must be at most critics, {critics}")
    outputs = spec.actions if spec.discrete else 2 * spec.actions
    scale = None if spec.discrete else scale_of("sac", spec)
    built = networks("sac", spec, network, critic_network, outputs, critics, intervention)
    rules_of = {ACTOR: policy_optimizer()} | {name: value_optimizer() for name in critic_names(critics)}
    if temperature is None:
        built = with_numbers(built, TEMPERATURE, "log_alpha", lambda: jnp.log(jnp.float32(initial_temperature)))
        rules_of[TEMPERATURE] = temperature_optimizer()
    sampling = Sampling(batch_size, n_step, discount, reward_clip)
    body, memory = replay_core(built, parts(rules_of), intervention, replay, spec, sampling)
    usual = 0.98 * math.log(spec.actions) if spec.discrete else -float(spec.actions)
    rules = Soft(usual if target_entropy is None else target_entropy, temperature, subset, actor_value)
    if scale is None:
        criterion = discrete(built, rules, spec.actions, random_steps, evaluate)
    else:
        criterion = real_valued(built, real_actor(scale, LOG_STD), rules, random_steps, evaluate)
    slow = (ACTOR, TEMPERATURE)
    criterion = criterion._replace(follow=polyak(target_rate), due=every(policy_period, slow, tuple(rules_of)))
    timing = Timing(memory.first, update_period, updates, target_period)
    return replay_agent(spec, body, memory, timing, criterion, sampling, random_steps)
