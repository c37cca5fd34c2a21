"""REINFORCE: the policy gradient with Monte Carlo returns."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.actor_critic import Trunk, separate, shared, with_numbers
from plasticity.agents.advantages import normalised
from plasticity.agents.base import AgentCore, assemble_built
from plasticity.agents.normalise import NEEDS, Normalise, Share, preprocessing
from plasticity.agents.on_policy import (
    OneStep,
    judged_again,
    one_step_losses,
    policy_and_value,
    policy_behaviour,
    policy_outputs,
)
from plasticity.agents.past import complete
from plasticity.agents.ppo import Evaluate, Gain, check_actions, check_names
from plasticity.agents.rollout import Rollout, as_rows, empty, lambda_returns
from plasticity.agents.rollout_regime import End, Learning, Passes, check_rollout, rollout_agent
from plasticity.agents.truncation import Truncation, check_truncation
from plasticity.config.fields import Fraction, Member, Natural, NonNegative, Real, Size, metadata
from plasticity.core.masked import mean_where
from plasticity.core.schedules import Number
from plasticity.core.types import FIRST, LAST, Agent, Array, Learner, Metrics, Params, State, StreamSpec
from plasticity.interventions.base import Intervention

Baseline = Literal["none", "mean", "value"]
Unfinished = Literal["discard", "cut", "bootstrap"]
Average = Literal["episodes", "steps"]
NETWORK = {"kind": "mlp", "widths": [64, 64], "activation": "tanh", "initialiser": "orthogonal"}
OPTIMIZER = {"kind": "adam", "learning_rate": 1e-3}
ONE_PASS = {"epochs": 1, "minibatches": 1}
LEARNED = {"baseline": ("value",)}


class Rules(NamedTuple):
    """The agent's settings, except those of its network, optimizer, preprocessing and acting."""

    discount: Number
    baseline: str
    value_coefficient: Number
    entropy_coefficient: Number
    normalise_advantages: bool
    average: str
    unfinished: str
    tail: int
    truncation: Truncation


class Returned(NamedTuple):
    """The steps of a rollout with their returns, ``[N, ...]``."""

    observation: Any  # with memory a Sequence [T, E, ...], whose rows these are
    action: Array
    used: Array  # bool: whether the step is learned from
    weight: Array  # of the step in the loss; 0 where it is not used
    advantage: Array  # return minus baseline
    target: Array  # the return


def used_steps(rollout: Rollout, unfinished: str, tail: int) -> Array:
    """Which steps of a rollout are learned from, bool ``[T, E]``; see :func:`reinforce`."""
    length = rollout.reward.shape[0]
    ends = jax.lax.cummax(jnp.int32(rollout.step_type == LAST), reverse=True) == 1  # the episode ends in this rollout
    whole = ends if unfinished == "discard" else jnp.ones_like(ends)
    early = jnp.arange(length)[:, None] < length - tail
    return (rollout.step_type != FIRST) & whole & early


def weights_of(rollout: Rollout, used: Array, average: str) -> Array:
    """The weight of each step: 1 / number of steps used, or 1 / number of episodes whose last step is used."""
    counted = used if average == "steps" else used & (rollout.step_type == LAST)
    return used / jnp.maximum(jnp.sum(counted), 1)


def returned(rollout: Rollout, value: Array, after: Array, rules: Rules) -> Returned:
    """Returns, advantages and weights of the steps, as rows; ``value`` and ``after`` as in ``Judged``."""
    ended = rollout.step_type[-1] == LAST  # if it was truncated there, `truncation` decides about the value
    beyond = after if rules.unfinished == "bootstrap" else jnp.where(ended, after, 0.0)
    found = lambda_returns(rollout, value, beyond, gamma=rules.discount, trace=1.0, truncation=rules.truncation)
    used = used_steps(rollout, rules.unfinished, rules.tail)
    advantage = found.advantage
    if rules.baseline == "mean":
        advantage = advantage - mean_where(used, found.target)
    if rules.normalise_advantages:
        advantage = normalised(advantage, used)
    weight = weights_of(rollout, used, rules.average)
    return as_rows(Returned(rollout.observation, rollout.action, used, weight, advantage, found.target))


def loss(body: AgentCore, rules: Rules, params: Params, batch: Returned) -> tuple[Array, Any, Metrics]:
    """The loss of a rollout, the activations of its forward pass, and its metrics."""
    policy, value, activations = policy_and_value(body, params, batch.observation)
    gain = jnp.where(batch.used, batch.advantage * policy.log_probability(batch.action), 0.0)
    parts = {"policy_loss": -gain, "entropy": policy.entropy}
    rows = -gain - rules.entropy_coefficient * policy.entropy
    if rules.baseline == "value":
        parts["value_loss"] = 0.5 * jnp.square(value - batch.target)
        rows += rules.value_coefficient * parts["value_loss"]
    means = {name: mean_where(batch.used, each) for name, each in parts.items()}
    return jnp.sum(batch.weight * rows), activations, means | {"used_steps": jnp.mean(batch.used)}


def reinforce_learning(spec: StreamSpec, body: AgentCore, rules: Rules) -> Learning:
    """One update after each rollout."""

    def samples(learner: Learner, plugins: State, rollout: Rollout, end: End) -> Returned:
        seen, observation = judged_again(body, learner, plugins, rollout, end, 1)
        made = returned(rollout, seen.value, seen.after, rules)
        return made._replace(observation=observation) if body.network.remembers else made

    def scores(params: Params, observation: Array) -> Array:
        outputs: Array = body.network.forward(params, observation)[0]["policy"]
        return outputs

    value_coefficient = rules.value_coefficient if rules.baseline == "value" else 0.0
    one_step = OneStep(rules.discount, rules.truncation, value_coefficient, rules.entropy_coefficient)
    return Learning(
        samples,
        lambda params, batch: loss(body, rules, params, batch),
        lambda *given: one_step_losses(body, one_step, *given),
        scores,
        "logits" if spec.discrete else "prediction",
    )


def check_bootstrap(baseline: str, **settings: str) -> None:
    """Raise ``ValueError`` for a setting that bootstraps from a value that is not learned."""
    for key, value in settings.items():
        if value == "bootstrap" and baseline != "value":
            raise ValueError(
                f"agent.{key}: bootstrap is not allowed with baseline: {baseline}; it needs baseline: value"
            )


@metadata(
    paper="Williams 1992, Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
    checked="a NumPy program over three rollouts, with linear networks and gradients by hand, for each baseline",
    only_with=NEEDS | dict.fromkeys(("trunk", "value_gain", "value_coefficient"), LEARNED),
)
def reinforce(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = OPTIMIZER,
    actions: Literal["auto", "discrete", "continuous"] = "auto",
    baseline: Baseline = "none",
    trunk: Trunk = "separate",
    policy_gain: Gain | None = 0.01,
    value_gain: Gain | None = 1.0,
    log_std: Real = 0.0,
    rollout_length: Size = 512,
    average: Average = "episodes",
    unfinished: Unfinished = "discard",
    tail: Natural = 0,
    truncation: Truncation = "terminal",
    discount: Fraction = 0.99,
    value_coefficient: NonNegative = 0.5,
    entropy_coefficient: NonNegative = 0.0,
    normalise_advantages: bool = False,
    normalise: Normalise = "none",
    normalise_rate: Share = 1e-4,
    evaluate: Evaluate = "sample",
) -> Agent:
    """REINFORCE: the policy gradient with Monte Carlo returns, for discrete and real-valued actions.

    ``L = sum_t w_t [-(G_t - b_t) log pi(a_t|s_t) + value_coefficient (v(s_t) - G_t)^2 / 2 - entropy_coefficient H]``
    with ``G_t = sum_{k >= t} discount^(k - t) r_k`` up to the end of the episode. One update follows every
    ``rollout_length`` steps of each env and uses the steps of that rollout only. The gradient of the discounted
    objective has another factor ``discount^t``, which is left out, as usual.

    The baseline ``b``: ``none``, 0; ``mean``, the mean of G over the steps used; ``value``, a learned ``v(s_t)`` (the
    value loss is absent otherwise).

    A rollout may begin and end within an episode. Steps count, not episodes: one that began in the rollout before is
    learned from as of the first step of this rollout. ``unfinished`` says what G is where an episode does not end in
    the rollout: ``discard``, the step is not used; ``cut``, the rewards that were seen; ``bootstrap``, those and the
    learned value of the last observation. The first prefers short episodes, by about their length over
    ``rollout_length``. With ``tail`` at least as long as an episode may last, nothing is unfinished and the estimate is
    unbiased: the last ``tail`` steps of each rollout complete the returns of those before and are not used themselves.

    Traced:

    * ``discount``: 1 is allowed.
    * ``log_std``: initial log standard deviation of real-valued actions; learnable, state-independent.
    * ``value_coefficient``, ``entropy_coefficient``, ``normalise_rate``.

    Static:

    * ``actions``: the kind of actions the stream must have; "auto": either kind.
    * ``baseline``, ``unfinished``, ``tail``, ``rollout_length``: see above.
    * ``trunk``, ``policy_gain``, ``value_gain``: as in ``ppo``.
    * ``average``: ``episodes``, w is 1 / the number of episodes whose last step is used, so that each episode counts as
      the sum over its steps; ``steps``, 1 / the number of steps used.
    * ``truncation``: with "bootstrap" (and a learned value), a truncated episode continues with the value of its last
      observation.
    * ``normalise_advantages``: ``G - b`` with mean 0 and standard deviation 1 over the steps used.
    * ``normalise``: see ``agents.normalise``.
    * ``evaluate``: whether evaluation samples actions or takes the most likely ones.

    With two actions and ``network: {kind: mlp, widths: []}`` the policy is a logistic regression: ``P(1) = sigmoid(z_1
    - z_0)``. Gradient descent on both logits with step size ``a`` moves their difference as gradient descent on ``w``
    and ``b`` of ``sigmoid(w o + b)`` with step size ``2 a`` does.

    Metrics, of each update: the loss; over the steps used, the means of ``policy_loss``, ``value_loss`` and
    ``entropy``; ``used_steps``, their share of the rollout. A rollout without any still makes an update, with a
    gradient of 0. ``ValueError`` if observations are not one array, ``rollout_length`` does not divide the steps of a
    visit, ``tail`` is not shorter than a rollout, or a setting "bootstrap" lacks a learned value. Real-valued actions
    are not squashed; the stream clips them.

    Reference: Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning". Rollouts, and the treatment of unfinished episodes, are ours.
    """
    passes = Passes(rollout_length, **ONE_PASS)
    check_actions(spec, actions)
    check_rollout("reinforce", spec, passes)
    check_names(
        baseline=(baseline, ("none", "mean", "value")),
        trunk=(trunk, ("separate", "shared")),
        average=(average, ("episodes", "steps")),
        unfinished=(unfinished, ("discard", "cut", "bootstrap")),
        evaluate=(evaluate, ("sample", "mode")),
    )
    check_truncation(truncation)
    check_bootstrap(baseline, unfinished=unfinished, truncation=truncation)
    if tail >= rollout_length:
        raise ValueError(f"agent.tail: {tail} is not allowed; must be below rollout_length, which is {rollout_length}")
    preprocessor = preprocessing(spec, normalise=normalise, rate=normalise_rate, scale_rewards=False, discount=discount)
    heads: dict[str, int] = {"policy": spec.actions} | ({"value": 1} if baseline == "value" else {})
    gains = {"policy": policy_gain, "value": value_gain}
    build = separate if trunk == "separate" else shared
    built = build(network, preprocessor.observation, heads, {name: gains[name] for name in heads}, intervention)
    if not spec.discrete:
        built = with_numbers(built, "scale", "log_std", lambda: jnp.full(spec.actions, log_std, jnp.float32))

    def rest(created: Array) -> Mapping[str, Any]:
        del created
        start = {"start": built.initial(spec.envs)} if built.remembers else {}
        return {"rollout": empty(spec, preprocessor.observation, rollout_length), **start, **preprocessor.init()}

    body = assemble_built(built, optimizer(), intervention, rest=rest, envs=spec.envs)
    rules = Rules(
        discount,
        baseline,
        value_coefficient,
        entropy_coefficient,
        normalise_advantages,
        average,
        unfinished,
        tail,
        truncation,
    )
    behaviour = policy_behaviour(spec, body, evaluate)

    def make(core: AgentCore) -> Agent:
        return rollout_agent(spec, core, preprocessor, passes, behaviour, reinforce_learning(spec, core, rules))

    return complete(spec, body, policy_outputs(body), make)
