"""Proximal policy optimization."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from plasticity.agents.actor_critic import Trunk, separate, shared, with_scale
from plasticity.agents.base import embody
from plasticity.agents.normalise import Normalise, Share, perception
from plasticity.agents.on_policy import Rules, rollout_agent
from plasticity.agents.rollout import empty
from plasticity.agents.suits import check_acting
from plasticity.agents.truncation import Truncation, check_truncation
from plasticity.config.counters import check_updates
from plasticity.config.fields import BelowOne, Fraction, Member, NonNegative, Positive, Real, Repeats, Size
from plasticity.core.errors import check
from plasticity.core.types import Agent, Array, StreamSpec
from plasticity.interventions.base import Intervention

Gain = Annotated[float, Field(gt=0)]  # static
NormaliseAdvantages = Literal["minibatch", "batch", "none"]
Evaluate = Literal["sample", "mode"]
NETWORK = {"kind": "mlp", "widths": [64, 64], "activation": "tanh", "initialiser": "orthogonal"}
OPTIMIZER = {"kind": "adam", "learning_rate": 2.5e-4, "eps": 1e-5, "max_gradient_norm": 0.5}


def check_rollout(spec: StreamSpec, actions: str, length: int, epochs: int, minibatches: int) -> None:
    """``ValueError`` where the stream does not suit the agent, or the numbers do not fit each other."""
    given = "discrete" if spec.discrete else "continuous"
    if actions not in ("auto", given):
        raise ValueError(f"agent.actions: {actions} is not allowed; those of the stream are {given}")
    check_acting("ppo", spec)
    for visit in spec.visits:
        if visit.steps % length:
            raise ValueError(
                f"agent.rollout_length: {length} is not allowed; it must divide the {visit.steps} steps of a visit"
            )
    check_updates("agent.epochs x agent.minibatches", spec, epochs * minibatches, length)
    if length * spec.envs % minibatches:
        raise ValueError(
            f"agent.minibatches: {minibatches} is not allowed; it must divide the {length * spec.envs} steps of a "
            f"rollout ({length} of each of {spec.envs} envs)"
        )


def check_names(**chosen: tuple[str, tuple[str, ...]]) -> None:
    """``ValueError`` for a setting that is none of its names."""
    for key, (value, known) in chosen.items():
        check(f"agent.{key}", value, known)


def ppo(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = NETWORK,
    optimizer: Annotated[Any, Member("optimizers")] = OPTIMIZER,
    actions: Literal["auto", "discrete", "continuous"] = "auto",
    trunk: Trunk = "separate",
    policy_gain: Gain = 0.01,
    value_gain: Gain = 1.0,
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
    """Proximal policy optimization with a clipped ratio, for discrete and for real-valued actions.

    ``L = mean_B[-min(rho A, clip(rho, 1 - c, 1 + c) A) + value_coefficient (v - R)^2 / 2 - entropy_coefficient H]``,
    ``rho = pi(a|s) / pi_old(a|s)``, A from generalised advantage estimation, ``R = A + v_old``. After every
    ``rollout_length`` steps of each env, ``epochs`` passes over them in ``minibatches`` parts each, drawn anew in each
    epoch. Schulman et al. 2017, "Proximal Policy Optimization Algorithms"; details as in Huang et al. 2022, "The 37
    Implementation Details of Proximal Policy Optimization".

    Traced: ``log_std`` (initial, learnable, the same in every state; of real-valued actions), ``discount``,
    ``gae_lambda``, ``clip``, ``value_clip`` (the value moves at most this far per rollout for its loss to fall; None:
    freely), both coefficients, ``target_kl`` (no epoch begins after one whose last minibatch had a larger
    ``approx_kl``), ``reward_clip`` (rewards, once scaled, are clipped to +- this; 0: not at all), ``normalise_rate``.
    Static: ``actions`` (what the stream must have; "auto": as the stream has them); ``trunk`` (policy and value apart,
    or two output layers on common hidden ones); ``policy_gain``, ``value_gain`` (of the output layers' initial kernels,
    where hidden ones have sqrt(2), as with "orthogonal" and "he"); ``rollout_length``, ``epochs``, ``minibatches``;
    ``normalise_advantages`` (over what; by the population's standard deviation, where the code of Huang et al. divides
    the sum of squares by n - 1); ``truncation`` ("terminal": an episode cut off counts as ended, see
    ``agents.truncation``); ``optimizer_reset`` (a fresh optimizer state, schedule included, at every rollout);
    ``normalise``, ``scale_rewards`` (see ``agents.normalise``); ``sign_rewards`` (before they are scaled); ``evaluate``
    (in evaluation, actions are drawn or the likeliest). A ``schedule`` of the optimizer counts updates.

    Metrics, in the mean over the updates: loss and its parts, entropy, and those of ``agents.clipping``.
    ``ValueError`` where observations are not one array, ``rollout_length`` does not divide the steps of a visit or
    ``minibatches`` those of a rollout. Real-valued actions are not squashed: the stream clips them. Pairs that join two
    episodes take places in minibatches but enter no mean.
    """
    check_rollout(spec, actions, rollout_length, epochs, minibatches)
    check_names(
        trunk=(trunk, ("separate", "shared")),
        normalise_advantages=(normalise_advantages, ("minibatch", "batch", "none")),
        evaluate=(evaluate, ("sample", "mode")),
    )
    check_truncation(truncation)
    eyes = perception(spec, normalise=normalise, rate=normalise_rate, scale_rewards=scale_rewards, discount=discount)
    heads, gains = {"policy": spec.actions, "value": 1}, {"policy": policy_gain, "value": value_gain}
    build = separate if trunk == "separate" else shared
    wired = build(network, eyes.observation, heads, gains, intervention)
    wired = wired if spec.discrete else with_scale(wired, spec.actions, log_std)

    def rest(born: Array) -> Mapping[str, Any]:
        del born
        return {"rollout": empty(spec, eyes.observation, rollout_length), **eyes.init()}

    body = embody(wired, optimizer(), intervention, rest=rest)
    rules = Rules(
        rollout_length,
        epochs,
        minibatches,
        discount,
        gae_lambda,
        clip,
        value_clip,
        value_coefficient,
        entropy_coefficient,
        normalise_advantages,
        truncation,
        sign_rewards,
        reward_clip,
        optimizer_reset,
        target_kl,
        evaluate,
    )
    return rollout_agent(spec, body, eyes, rules)
