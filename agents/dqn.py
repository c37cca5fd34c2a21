"""Deep Q-learning from a replay buffer, with a target network."""

from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from plasticity.agents.criteria import Criterion, Extend, q_learning, unchanged
from plasticity.agents.libraries import rlax
from plasticity.agents.memory import forward
from plasticity.agents.replay import Batch
from plasticity.agents.replay_regime import FORMER, replay_agent, replay_body
from plasticity.agents.replay_source import Sampling
from plasticity.agents.replay_timing import Ratio, Timing, replay_updates
from plasticity.agents.value_based import EXPLORATION, error_loss, error_size, rescaled, unscaled
from plasticity.config.fields import BelowOne, Count, Member, NonNegative, Positive, Repeats, Size, metadata
from plasticity.core.outputs import Output, Values
from plasticity.core.schedules import Number, Schedule
from plasticity.core.types import Activation, Agent, Array, Network, Params, StreamSpec
from plasticity.interventions.base import Intervention


def q_criterion(
    network: Network,
    epsilon: Schedule,
    double: bool,
    huber: Number,
    value_rescaling: bool = False,
    extend: Extend = unchanged,
) -> Criterion:
    """n-step (double) Q-learning: ``h(R + D max_a q(s', a) - q(s, a))``, the maximum under the target network.

    With ``double``, the online network selects the action in s' (van Hasselt et al. 2016). With ``value_rescaling`` the
    target is that of :func:`rescaled_errors`. ``extend`` may add to the losses.
    """
    errors_of = rescaled_errors if value_rescaling else jax.vmap(rlax().double_q_learning)

    def values(params: Params, observation: Any) -> Array:
        q: Array = forward(network, params, observation)[0]
        return q

    def losses(batch: Batch, params: Params, target: Params) -> tuple[Array, Array, Mapping[str, Activation]]:
        q, activations = network.forward(params, batch.observation)
        following = values(target, batch.next_observation)
        selector = values(params, batch.selection) if double else following
        errors = errors_of(q, batch.action, batch.reward, batch.discount, following, jax.lax.stop_gradient(selector))
        return error_loss(errors, huber), q, activations

    def outputs(params: Params, observation: Any) -> Output:
        return Values(values(params, observation))

    return q_learning(values, extend(losses), epsilon, outputs, error=lambda losses: error_size(losses, huber))


def rescaled_errors(
    q: Array, action: Array, reward: Array, discount: Array, following: Array, selector: Array
) -> Array:
    """``f(R + D f^-1(q(s', a*))) - q(s, a)``, ``[B]``, with ``a*`` maximising ``selector``; no gradient in the target.

    ``f`` is :func:`plasticity.agents.value_based.rescaled`.
    """
    rows = jnp.arange(len(action))
    chosen = following[rows, jnp.argmax(selector, axis=-1)]
    targets = rescaled(reward + discount * unscaled(chosen))
    return jax.lax.stop_gradient(targets) - q[rows, action]


@metadata(
    paper="Mnih et al. 2015, Human-level control through deep reinforcement learning",
    checked="a NumPy program over 14 or 28 updates, with gradients by hand and its own Adam; with memory, loops "
    "over sequences and steps",
    renamed=FORMER,
    only_with={"gradient_steps": {"replay_ratio": (None,)}},
)
def dqn(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = "adam",
    discount: BelowOne = 0.99,
    double: bool = False,
    n_step: Repeats = 1,
    huber: NonNegative = 1.0,
    reward_clip: Positive | None = 1.0,
    value_rescaling: bool = False,
    epsilon: Annotated[Any, Member("schedules")] = EXPLORATION,
    replay: Annotated[Any, Member("replays")] = "uniform",
    batch_size: Size = 32,
    update_period: Count = 4,
    gradient_steps: Repeats = 1,
    replay_ratio: Ratio | None = None,
    target_period: Count = 2_000,
) -> Agent:
    """Deep Q-network (Mnih et al. 2015, Human-level control through deep reinforcement learning), for one lane.

    ``L = mean_B h(R + D max_a q_target(s', a) - q(s, a))`` with ``h`` the Huber loss, R and D the n-step return and
    bootstrap discount. With ``double``, the online network selects the maximising action (van Hasselt et al. 2016).

    Traced: ``discount``; ``huber`` (gradient bound, 0 for squared error); ``reward_clip`` (rewards are clipped to
    +-this for learning, recorded rewards stay raw; static None: not clipped); ``epsilon`` is a schedule over
    the env steps of each env since the agent was initialised.

    Static: ``n_step``; ``value_rescaling``: values are learned as ``f(value)``, with ``f(x) = sign(x) (sqrt(|x| + 1) -
    1) + 0.001 x`` and the target ``f(R + D f^-1(q_target))``, for rewards that are not clipped (Pohlen et al. 2018,
    "Observe and Look Further"); ``batch_size`` in transitions (with a replay of sequences, in sequences);
    ``update_period`` in env steps of each env; ``gradient_steps`` per update period, or instead ``replay_ratio``, the
    number of updates per transition: ``gradient_steps = replay_ratio * update_period * envs``, a whole number;
    ``target_period`` in updates.

    A network with memory needs a replay of sequences (Kapturowski et al. 2019, "Recurrent Experience Replay in
    Distributed Reinforcement Learning"): the loss is the mean over the valid steps of all sequences, and ``q`` and
    ``q_target`` are unrolled from the stored carry, each with its own parameters.

    ``ValueError`` if the replay sizes are inconsistent, ``update_period`` does not divide the length of every visit,
    the stream's actions are not discrete, or its observations are not one array. The paper clips the error's gradient,
    which is the Huber loss. Defaults are those of Dopamine's DQN in agent steps, with a tenth of its replay capacity.
    """
    gradient_steps = replay_updates("dqn", spec, update_period, gradient_steps, replay_ratio)
    sampling = Sampling(batch_size, n_step, discount, reward_clip)
    wanted = network(spec.observation, spec.actions)
    body, memory = replay_body(wanted, optimizer(), intervention, replay, spec, sampling)
    timing = Timing(memory.first, update_period, gradient_steps, target_period)
    criterion = q_criterion(body.network, epsilon(), double, huber, value_rescaling)
    return replay_agent(spec, body, memory, timing, criterion, sampling)
