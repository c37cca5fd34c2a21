"""Proximal policy optimization."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from pydantic import Field

from plasticity.agents.actor_critic import Trunk, separate, shared, with_numbers
from plasticity.agents.base import AgentCore, assemble_built
from plasticity.agents.normalise import NEEDS, Normalise, Share, preprocessing
from plasticity.agents.on_policy import Rules, policy_behaviour, policy_learning, policy_outputs
from plasticity.agents.past import complete
from plasticity.agents.rollout import empty
from plasticity.agents.rollout_regime import Passes, check_minibatches, check_rollout, rollout_agent
from plasticity.agents.truncation import Truncation, check_truncation
from plasticity.config.fields import (
    BelowOne,
    Fraction,
    Member,
    Moved,
    NonNegative,
    Positive,
    Real,
    Repeats,
    Size,
    metadata,
)
from plasticity.core.errors import check
from plasticity.core.types import Agent, Array, StreamSpec
from plasticity.interventions.base import Intervention

Gain = Annotated[float, Field(gt=0)]  # static
NormaliseAdvantages = Literal["minibatch", "batch", "none"]
Evaluate = Literal["sample", "mode"]
NETWORK = {"kind": "mlp", "widths": [64, 64], "activation": "tanh", "initialiser": "orthogonal"}
OPTIMIZER = {"kind": "adam", "learning_rate": 2.5e-4, "eps": 1e-5, "max_gradient_norm": 0.5}


def check_actions(spec: StreamSpec, actions: str) -> None:
    """Raise ``ValueError`` if the stream's actions are not of this kind."""
    given = "discrete" if spec.discrete else "continuous"
    if actions not in ("auto", given):
        raise ValueError(f"agent.actions: {actions} is not allowed; the stream's actions are {given}")


def check_names(**settings: tuple[str, tuple[str, ...]]) -> None:
    """Raise ``ValueError`` for a setting whose value is not one of the names it may take."""
    for key, (value, known) in settings.items():
        check(f"agent.{key}", value, known)


FORMER = {"bootstrap_truncation": Moved("truncation", values={True: "bootstrap", False: "terminal"})}


@metadata(
    paper="Schulman et al. 2017, Proximal Policy Optimization Algorithms",
    checked="a NumPy program over three rollouts, with linear networks and gradients by hand",
    renamed=FORMER,
    only_with=NEEDS,
)
def ppo(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = OPTIMIZER,
    actions: Literal["auto", "discrete", "continuous"] = "auto",
    trunk: Trunk = "separate",
    policy_gain: Gain | None = 0.01,
    value_gain: Gain | None = 1.0,
    log_std: Real = 0.0,
    rollout_length: Size = 128,
    epochs: Repeats = 4,
    minibatches: Repeats = 4,
    discount: BelowOne = 0.99,
    gae_lambda: Fraction = 0.95,
    clip: Positive = 0.2,
    value_clip: Positive | None = None,
    value_coefficient: NonNegative = 0.5,
    entropy_coefficient: NonNegative = 0.01,
    normalise_advantages: NormaliseAdvantages = "minibatch",
    truncation: Truncation = "bootstrap",
    target_kl: Positive | None = None,
    optimizer_reset: bool = False,
    normalise: Normalise = "none",
    normalise_rate: Share = 1e-4,
    scale_rewards: bool = False,
    sign_rewards: bool = False,
    reward_clip: NonNegative = 0.0,
    evaluate: Evaluate = "sample",
) -> Agent:
    """Proximal policy optimization with a clipped ratio, for discrete and real-valued actions.

    ``L = mean_B[-min(rho A, clip(rho, 1 - c, 1 + c) A) + value_coefficient (v - R)^2 / 2 - entropy_coefficient H]``,
    ``rho = pi(a|s) / pi_old(a|s)``, A from generalised advantage estimation, ``R = A + v_old``. After every
    ``rollout_length`` steps of each env, the agent makes ``epochs`` passes over them in ``minibatches`` minibatches
    each, reshuffled in every epoch.

    Traced:

    * ``log_std``: initial log standard deviation of real-valued actions; learnable, state-independent.
    * ``discount``, ``gae_lambda``, ``clip``, ``value_coefficient``, ``entropy_coefficient``, ``normalise_rate``.
    * ``value_clip``: the value loss stops decreasing once an update phase has moved the value this far; None: no bound.
    * ``target_kl``: no further epoch starts after one whose last minibatch had a larger ``approx_kl``.
    * ``reward_clip``: scaled rewards are clipped to +- this; 0: not clipped.

    Static:

    * ``actions``: the kind of actions the stream must have; "auto": either kind.
    * ``trunk``: separate policy and value networks, or two output layers on shared hidden layers.
    * ``policy_gain``, ``value_gain``: gains of the output layers' initial kernels, where hidden layers have sqrt(2), as
      with "orthogonal" and "he"; None: as the network initialises them.
    * ``rollout_length``, ``epochs``, ``minibatches``.
    * ``normalise_advantages``: the rows to normalise over. The standard deviation is the population's; the code of
      Huang et al. divides the sum of squares by n - 1.
    * ``truncation``: with "terminal", a truncated episode counts as terminated; see ``agents.truncation``.
    * ``optimizer_reset``: reset the optimizer state, including its schedule, at every rollout.
    * ``normalise``, ``scale_rewards``: see ``agents.normalise``.
    * ``sign_rewards``: replace rewards by their sign before they are scaled.
    * ``evaluate``: whether evaluation samples actions or takes the most likely ones.

    A ``schedule`` of the optimizer counts updates.

    Metrics, averaged over the updates: the loss and its parts, the entropy, and those of ``agents.clipping``.
    ``ValueError`` if observations are not one array, ``rollout_length`` does not divide the steps of a visit, or
    ``minibatches`` does not divide those of a rollout (with a network that has memory: the envs). Real-valued actions
    are not squashed; the stream clips them. Pairs that span two episodes take up rows of minibatches but do not count
    in any mean.

    References: Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; details as in Huang et al. 2022, "The
    37 Implementation Details of Proximal Policy Optimization".
    """
    passes = Passes(rollout_length, epochs, minibatches)
    check_actions(spec, actions)
    check_rollout("ppo", spec, passes)
    check_names(
        trunk=(trunk, ("separate", "shared")),
        normalise_advantages=(normalise_advantages, ("minibatch", "batch", "none")),
        evaluate=(evaluate, ("sample", "mode")),
    )
    check_truncation(truncation)
    preprocessor = preprocessing(
        spec, normalise=normalise, rate=normalise_rate, scale_rewards=scale_rewards, discount=discount
    )
    heads, gains = {"policy": spec.actions, "value": 1}, {"policy": policy_gain, "value": value_gain}
    build = separate if trunk == "separate" else shared
    built = build(network, preprocessor.observation, heads, gains, intervention)
    if not spec.discrete:
        built = with_numbers(built, "scale", "log_std", lambda: jnp.full(spec.actions, log_std, jnp.float32))

    def rest(created: Array) -> Mapping[str, Any]:
        del created
        start = {"start": built.initial(spec.envs)} if built.remembers else {}
        return {"rollout": empty(spec, preprocessor.observation, rollout_length), **start, **preprocessor.init()}

    check_minibatches(built, spec, passes)
    body = assemble_built(built, optimizer(), intervention, rest=rest, envs=spec.envs)
    rules = Rules(
        discount,
        gae_lambda,
        clip,
        value_clip,
        value_coefficient,
        entropy_coefficient,
        normalise_advantages,
        truncation,
        optimizer_reset,
        target_kl,
    )
    behaviour = policy_behaviour(spec, body, evaluate, sign_rewards=sign_rewards, reward_clip=reward_clip)

    def make(core: AgentCore) -> Agent:
        return rollout_agent(spec, core, preprocessor, passes, behaviour, policy_learning(spec, core, rules, passes))

    return complete(spec, body, policy_outputs(body), make)
