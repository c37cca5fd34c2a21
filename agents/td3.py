"""Twin delayed deep deterministic policy gradients."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.actors_and_critics import (
    ACTOR,
    ADAM,
    NETWORK,
    REPLAY,
    Ensemble,
    Rate,
    Scale,
    StateAction,
    critic_names,
    critic_values,
    every,
    networks,
    polyak,
    read_critics,
    scale_of,
    state_and_action,
    uniform,
    with_action,
)
from plasticity.agents.criteria import Criterion, Found
from plasticity.agents.replay import Batch
from plasticity.agents.replay_regime import replay_agent, replay_core
from plasticity.agents.replay_source import Sampling
from plasticity.agents.replay_timing import Ratio, Timing, replay_updates
from plasticity.agents.stream_checks import check_acting
from plasticity.config.fields import BelowOne, Count, Member, Natural, NonNegative, Positive, Repeats, Size, metadata
from plasticity.core.masked import mean_where
from plasticity.core.outputs import Outputs, Values
from plasticity.core.schedules import Number
from plasticity.core.types import Agent, Array, Key, Metrics, Network, Params, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.optim.eligibility import parts


class Noise(NamedTuple):
    """Standard deviations of the noise of actions, as shares of half the range of actions."""

    acting: Number
    target: Number
    limit: Number  # of the target's noise


def deterministic(network: Network, scale: Scale, noise: Noise, random_steps: int) -> Criterion:
    """The losses and actions of TD3; the first ``random_steps`` env steps of an agent are random."""

    def policy(params: Params, seen: Any) -> Array:
        return jnp.tanh(network.forward(params, with_action(seen, scale))[0][ACTOR])

    def loss(key: Key, batch: Batch, weights: Array, params: Params, target: Params) -> Found:
        outputs, activations = network.forward(params, state_and_action(batch))
        taken, chosen = critic_values(outputs), jnp.tanh(outputs[ACTOR])

        following = policy(target, batch.next_observation)
        spread = noise.target * jax.random.normal(key, following.shape)
        following = jnp.clip(following + jnp.clip(spread, -noise.limit, noise.limit), -1.0, 1.0)
        q = critic_values(network.forward(target, StateAction(batch.next_observation, scale(following)))[0])
        wanted = jax.lax.stop_gradient(batch.reward + batch.discount * jnp.min(q, axis=0))
        critics = 0.5 * jnp.sum(jnp.square(taken - wanted), axis=0)

        held = jax.lax.stop_gradient(params)
        actor = -critic_values(network.forward(held, StateAction(batch.observation, scale(chosen)))[0])[0]
        made: Metrics = {
            "critic_loss": mean_where(batch.valid, weights * critics),
            "actor_loss": mean_where(batch.valid, actor),
            "q_mean": mean_where(batch.valid, jnp.min(taken, axis=0)),
        }
        return Found(made["critic_loss"] + made["actor_loss"], critics + actor, activations, made, critics)

    def act(key: Key, params: Params, seen: Any, age: Array) -> Array:
        draw, choice = jax.random.split(key)
        action = policy(params, seen)
        noisy = jnp.clip(action + noise.acting * jax.random.normal(draw, action.shape), -1.0, 1.0)
        return scale(jnp.where(age < random_steps, uniform(choice, action.shape), noisy))

    def play(key: Key, params: Params, seen: Any, epsilon: Array) -> Array:
        del key, epsilon
        return scale(policy(params, seen))

    def read(params: Params, seen: Any) -> Outputs:
        made = network.forward(params, with_action(seen, scale))[0]
        return {ACTOR: Values(jnp.tanh(made[ACTOR])), **read_critics(made)}

    metrics = ("critic_loss", "actor_loss", "q_mean")
    return Criterion(loss, act, play, policy, "prediction", metrics, read, inputs=state_and_action)


@metadata(
    paper="Fujimoto, van Hoof, Meger 2018, Addressing Function Approximation Error in Actor-Critic Methods",
    checked="a NumPy program over 14 updates, with gradients by hand",
    only_with={"gradient_steps": {"replay_ratio": (None,)}},
)
def td3(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = NETWORK,
    critic_network: Annotated[Any, Member("networks")] = NETWORK,
    policy_optimizer: Annotated[Any, Member("optimizers")] = ADAM,
    value_optimizer: Annotated[Any, Member("optimizers")] = ADAM,
    discount: BelowOne = 0.99,
    n_step: Repeats = 1,
    reward_clip: Positive | None = None,
    critics: Ensemble = 2,
    exploration_noise: NonNegative = 0.1,
    target_noise: NonNegative = 0.2,
    target_noise_clip: NonNegative = 0.5,
    random_steps: Natural = 1_000,
    replay: Annotated[Any, Member("replays")] = REPLAY,
    batch_size: Size = 256,
    update_period: Count = 1,
    gradient_steps: Repeats = 1,
    replay_ratio: Ratio | None = None,
    policy_period: Count = 2,
    target_rate: Rate = 0.005,
    target_period: Count = 2,
) -> Agent:
    """Twin delayed deep deterministic policy gradients, for bounded real-valued actions.

    ``y = R + D min_i q_i'(s', clip(pi'(s') + clip(e, -c, c), -1, 1))`` with normal ``e``. Critics minimise
    ``sum_i (q_i(s, a) - y)^2 / 2``, the actor ``-q_1(s, pi(s))``, both with the parameters before the update. ``pi(s) =
    tanh(actor(s))``, mapped to the stream's bounds. With one critic, periods of 1 and no target noise this is deep
    deterministic policy gradients (Lillicrap et al. 2016) with uncorrelated noise.

    Args:
      spec: the stream.
      intervention: changes networks, optimizers and updates.
      network: of the actor.
      critic_network: of each critic, which reads state and action as one vector.
      policy_optimizer: of the actor.
      value_optimizer: of each critic.
      discount: traced.
      n_step: steps of the return R. Static.
      reward_clip: rewards are clipped to +- this for learning. Traced; static None: not clipped.
      critics: number of critics. Static.
      exploration_noise: standard deviation of the noise of actions, in halves of their range. Traced.
      target_noise: that of the target's actions. Traced.
      target_noise_clip: ``c``. Traced.
      random_steps: env steps of each env with random actions after the agent was initialised. Policies of earlier
        tasks act in as many steps of a visit, if an intervention chooses them. Static.
      replay: the source of transitions. Its weights apply to the critics; priorities are the critics' losses.
      batch_size: transitions. Static.
      update_period: env steps of each env between updates. Static.
      gradient_steps: updates per period. Static.
      replay_ratio: instead of ``gradient_steps``, updates per transition. Static.
      policy_period: updates between those of the actor. Static.
      target_rate: ``q' <- (1 - target_rate) q' + target_rate q``. Traced.
      target_period: updates between those of the targets. Static.

    Returns:
      The agent of one lane.

    Raises:
      ValueError: discrete actions or actions without bounds; observations that are not vectors; a network with memory;
        inconsistent sizes.

    Reference: Fujimoto, van Hoof, Meger 2018, "Addressing Function Approximation Error in Actor-Critic Methods".
    """
    check_acting("td3", spec)
    updates = replay_updates("td3", spec, update_period, gradient_steps, replay_ratio, discrete=False)
    scale = scale_of("td3", spec)
    built = networks("td3", spec, network, critic_network, spec.actions, critics, intervention)
    rules = {ACTOR: policy_optimizer()} | {name: value_optimizer() for name in critic_names(critics)}
    sampling = Sampling(batch_size, n_step, discount, reward_clip)
    body, memory = replay_core(built, parts(rules), intervention, replay, spec, sampling)
    noise = Noise(exploration_noise, target_noise, target_noise_clip)
    criterion = deterministic(built, scale, noise, random_steps)
    criterion = criterion._replace(follow=polyak(target_rate), due=every(policy_period, (ACTOR,), tuple(rules)))
    timing = Timing(memory.first, update_period, updates, target_period)
    return replay_agent(spec, body, memory, timing, criterion, sampling, random_steps)
