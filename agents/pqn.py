"""Parallelised Q-network: Q-learning from the rollouts of many envs, without replay and without target network."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp

from plasticity.agents.base import AgentCore, assemble
from plasticity.agents.normalise import NEEDS, Normalise, Share, preprocessing
from plasticity.agents.past import complete
from plasticity.agents.replay import clipped
from plasticity.agents.rollout import Rollout, as_rows, empty, in_parts, lambda_returns, sequence_of
from plasticity.agents.rollout_regime import (
    Behaviour,
    End,
    Learning,
    Passes,
    Seen,
    check_minibatches,
    check_rollout,
    rollout_agent,
)
from plasticity.agents.truncation import Truncation, check_truncation
from plasticity.agents.value_based import (
    action_values,
    as_batch,
    error_loss,
    greedy_policy,
    one_step_losses,
    value_of_action,
    value_outputs,
)
from plasticity.config.fields import BelowOne, Fraction, Member, Positive, Repeats, Size, metadata
from plasticity.core.masked import mean_where
from plasticity.core.schedules import Number
from plasticity.core.types import Agent, Array, Learner, Metrics, Params, State, StreamSpec, Transition
from plasticity.interventions.base import Intervention

NETWORK = {"kind": "mlp", "widths": [128, 128], "normalisation": "layer"}
OPTIMIZER = {"kind": "radam", "learning_rate": 5e-4, "max_gradient_norm": 10.0}
EXPLORATION = {"kind": "linear", "start": 1.0, "end": 0.05, "duration": 7_800}  # epsilon, in env steps of each env
SQUARE = 0.0  # no Huber loss


class Targets(NamedTuple):
    """Training data from a rollout or a part of one: ``[N, ...]``."""

    observation: Any  # with memory a Sequence [T, E, ...], whose rows these are
    action: Array
    valid: Array  # bool: False if the pair is not a transition
    target: Array  # the lambda-return


def loss(body: AgentCore, params: Params, batch: Targets) -> tuple[Array, Any, Metrics]:
    """``(G - q(s, a))^2 / 2``, averaged over the valid rows of a minibatch; activations and metrics."""
    q, activations = body.network.forward(params, batch.observation)
    errors = batch.target - value_of_action(q, batch.action)
    more = {"q_mean": mean_where(batch.valid, jnp.max(q, axis=-1))}
    return mean_where(batch.valid, error_loss(errors, SQUARE)), activations, more


def value_learning(
    body: AgentCore, passes: Passes, discount: Number, trace: Number, truncation: Truncation
) -> Learning:
    """The updates: lambda-returns under the parameters before the first update, then steps towards them."""
    values, pair_losses = action_values(body), one_step_losses(body, SQUARE)

    def samples(learner: Learner, plugins: State, rollout: Rollout, end: End) -> Targets:
        del plugins

        def greedy_value(observation: Any) -> Array:
            return jnp.max(values(learner.params, observation), axis=-1)

        after = greedy_value(body.batch(end.observation, end.carry))
        seen: Any = rollout.observation
        if body.network.remembers:
            seen = sequence_of(rollout, end.start)
            value = greedy_value(seen).reshape(rollout.reward.shape)
        else:
            value = in_parts(lambda observation, action: greedy_value(observation), rollout, passes.minibatches)
        valid, _, target = lambda_returns(rollout, value, after, gamma=discount, trace=trace, truncation=truncation)
        made = as_rows(Targets(rollout.observation, rollout.action, valid, target))
        return made._replace(observation=seen) if body.network.remembers else made

    def of_pairs(params: Params, held: Params, seen: Seen, pairs: Transition) -> Array:
        return pair_losses(params, held, as_batch(pairs, discount, truncation, *seen))[0]

    return Learning(samples, lambda params, batch: loss(body, params, batch), of_pairs, values, "values")


@metadata(
    paper="Gallici et al. 2024, Simplifying Deep Temporal Difference Learning",
    checked="a NumPy program over three rollouts, with gradients by hand; returns also as mixtures of n-step returns",
    only_with=NEEDS,
)
def pqn(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = OPTIMIZER,
    rollout_length: Size = 32,
    epochs: Repeats = 2,
    minibatches: Repeats = 32,
    discount: BelowOne = 0.99,
    q_lambda: Fraction = 0.65,
    epsilon: Annotated[Any, Member("schedules")] = EXPLORATION,
    reward_clip: Positive | None = None,
    reward_scale: Positive = 1.0,
    truncation: Truncation = "bootstrap",
    normalise: Normalise = "none",
    normalise_rate: Share = 1e-4,
) -> Agent:
    """Parallelised Q-network: Q(lambda) from rollouts of many envs, without replay and without target network.

    ``L = mean_B (G - q(s, a))^2 / 2`` with the lambda-return ``G_t = r_t + discount d_t ((1 - l_t) max_a q(s_{t+1}, a)
    + l_t G_{t+1})``: ``d`` is the environment's discount and ``l_t`` is ``q_lambda``, or 0 if the episode or the
    rollout ends at ``t + 1``. After every ``rollout_length`` steps of each env, the agent computes the returns once,
    then makes ``epochs`` passes over the steps in ``minibatches`` minibatches each, reshuffled in every epoch. The
    trace is not cut at random actions (Peng's Q(lambda)).

    With a network that has memory, returns and losses go through time from the carry at the start of the rollout, and
    minibatches are whole envs, whose number ``minibatches`` must divide.

    Normalisation in the network replaces the target network. The paper proves that layer normalisation with L2
    regularisation can make TD learning converge, and its code uses layer normalisation alone for MinAtar. Set
    ``normalisation: layer`` in any other ``network``. Batch normalisation, its alternative, is not available for agents
    that act and not needed.

    Traced: ``discount``; ``q_lambda``; ``reward_clip`` (rewards are clipped to +-this; static None: not clipped);
    ``reward_scale`` (factor of the clipped rewards; recorded rewards stay raw); ``normalise_rate``. ``epsilon`` is a
    schedule over the env steps of each env since the agent was initialised.

    Static: ``rollout_length``; ``epochs``; ``minibatches``; ``truncation``: a truncated episode either bootstraps from
    its last observation or, with "terminal", counts as terminated, as in the authors' code; ``normalise``: see
    ``agents.normalise``.

    Defaults are those of the authors' code for MinAtar, with 128 envs: the network is theirs for vectors, and epsilon
    falls over a tenth of 10 million steps. They change epsilon once per rollout; here it changes at every step. Their
    step size falls linearly to 0: give the optimizer a ``schedule``, which counts updates. Their MinAtar network
    divides observations by 255 although they are 0 or 1; this one does not.

    Metrics, averaged over the updates: the loss, and ``q_mean``, the mean of ``max_a q(s, a)``. ``ValueError`` if the
    stream's actions are not discrete, its observations are not one array, ``rollout_length`` does not divide the steps
    of a visit, or ``minibatches`` does not divide those of a rollout (with memory: the envs). Pairs that span two
    episodes take up rows of minibatches but do not count in any mean.

    Reference: Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning".
    """
    passes = Passes(rollout_length, epochs, minibatches)
    check_rollout("pqn", spec, passes, discrete=True)
    check_truncation(truncation)
    preprocessor = preprocessing(spec, normalise=normalise, rate=normalise_rate, scale_rewards=False, discount=discount)

    def rest(created: Array) -> Mapping[str, Any]:
        rollout = empty(spec, preprocessor.observation, rollout_length)
        start = {"start": body.network.initial(spec.envs)} if body.network.remembers else {}
        return {"rollout": rollout, "schedule": created, **start, **preprocessor.init()}

    built = network(preprocessor.observation, spec.actions)
    body = assemble(built, optimizer(), intervention, rest=rest, envs=spec.envs)
    check_minibatches(body.network, spec, passes)
    policy = greedy_policy(action_values(body))
    behaviour = Behaviour(policy, policy, epsilon(), lambda reward: reward_scale * clipped(reward, reward_clip))

    def make(core: AgentCore) -> Agent:
        learning = value_learning(core, passes, discount, q_lambda, truncation)
        return rollout_agent(spec, core, preprocessor, passes, behaviour, learning)

    return complete(spec, body, value_outputs(action_values(body)), make)
