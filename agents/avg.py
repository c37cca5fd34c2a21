"""Action Value Gradient: an incremental actor-critic for real-valued actions, without replay and target networks."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax

from plasticity.agents.action_value import CRITIC, Learning, Networks, Rules, avg_agent
from plasticity.agents.actor_critic import Make, with_gain
from plasticity.agents.actors_and_critics import ACTOR, networks, scale_of
from plasticity.agents.base import AgentCore, assemble_built
from plasticity.agents.normalise import NEEDS, Normalise, Preprocessor, Share, preprocessing
from plasticity.agents.past import complete
from plasticity.agents.ppo import Gain
from plasticity.agents.return_scale import blank_scale
from plasticity.agents.sac import LOG_STD
from plasticity.agents.soft import real_actor, real_outputs
from plasticity.agents.stream_checks import check_acting
from plasticity.agents.truncation import Truncation, check_truncation
from plasticity.config.fields import BelowOne, Member, NonNegative, metadata
from plasticity.core.errors import check
from plasticity.core.types import Agent, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.optim.eligibility import parts

NETWORK: Mapping[str, Any] = {
    "kind": "mlp",
    "widths": [256, 256],
    "activation": "leaky_relu",
    "initialiser": "orthogonal",
    "penultimate": "unit",
}
POLICY_OPTIMIZER = {"kind": "adam", "learning_rate": 0.0063, "b1": 0.0}
VALUE_OPTIMIZER = {"kind": "adam", "learning_rate": 0.0087, "b1": 0.0}


def with_scale(preprocessor: Preprocessor) -> Preprocessor:
    """The preprocessor, whose memory also has the scale of errors; a switch that resets statistics resets it too."""

    def init() -> Mapping[str, Any]:
        return {**preprocessor.init(), "error_scale": blank_scale()}

    def switch(rest: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**rest, **init()} if preprocessor.switch_setting else rest

    return preprocessor._replace(init=init, switch=switch)


def gained(make: Make, name: str, gain: float | None) -> Callable[[Any, int], Any]:
    """The network that ``make`` describes, with this gain of its output layer."""
    return lambda observation, outputs: with_gain(make(observation, outputs), name, gain)


@metadata(
    paper="Vasan et al. 2024, Deep Policy Gradient Methods Without Batch Updates, Target Networks, or Replay Buffers",
    checked="a NumPy program over 51 time steps of a stream, with gradients by hand",
    only_with=NEEDS,
)
def avg(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = NETWORK,
    critic_network: Annotated[Any, Member("networks")] = NETWORK,
    policy_optimizer: Annotated[Any, Member("optimizers")] = POLICY_OPTIMIZER,
    value_optimizer: Annotated[Any, Member("optimizers")] = VALUE_OPTIMIZER,
    policy_gain: Gain | None = 1.0,
    value_gain: Gain | None = 1.0,
    discount: BelowOne = 0.99,
    temperature: NonNegative = 0.07,
    scale_errors: bool = True,
    normalise: Normalise = "running",
    normalise_rate: Share = 1e-4,
    truncation: Truncation = "bootstrap",
    evaluate: Literal["sample", "mode"] = "sample",
) -> Agent:
    """Action Value Gradient (AVG): an actor-critic that learns from each step once, by the critic's gradient.

    ``a = tanh(m(s) + exp(l(s)) noise)``, with the noise drawn once for each step. After the step

    * the critic descends ``(delta / sigma)^2``, ``delta = r + discount d (q(s', a') - temperature log pi(a'|s')) -
      q(s, a)``, with a new ``a' ~ pi(s')`` and no gradient through the target;
    * the actor descends ``temperature log pi(a|s) - q(s, a)`` through ``a``, with the noise of the action taken.

    Both use the parameters before the update. There is no replay, no target network and no second critic. ``sigma`` is
    the return-based scale of Schaul et al. 2021 (see ``agents.return_scale``) of the rewards ``r - temperature log
    pi(a|s)``, which enter it before the update. The sum of rewards that counts as a return is not discounted and ends
    at terminations only; it goes on through truncations, as in the paper's code.

    Args:
      spec: the stream.
      intervention: changes networks, optimizers and updates.
      network: of the actor, whose outputs are means m and logarithms l of standard deviations (clipped to [-20, 2]).
      critic_network: of the critic, which reads state and action, in (-1, 1), as one vector.
      policy_optimizer: of the actor. Both step sizes and ``temperature`` are those that the paper's code gives for Ant,
        HalfCheetah and Humanoid; for Hopper and Walker2d it gives 1.1e-5, 7.7e-5 and 0.3.
      value_optimizer: of the critic.
      policy_gain: gain of the actor's output layer, where hidden layers have sqrt(2), as with "orthogonal"; None: as
        the network initialises it. Static.
      value_gain: of the critic's. Static.
      discount: traced.
      temperature: alpha, the weight of the entropy. Traced.
      scale_errors: divide errors by ``sigma``; otherwise it is 1. Static.
      normalise: of observations, see ``agents.normalise``; with "exponential" and "switch" the statistics of ``sigma``
        forget in the same way. Static.
      normalise_rate: of "exponential". Traced.
      truncation: whether a truncated episode bootstraps from its last observation, as in the paper's code, or counts as
        terminated. Static.
      evaluate: whether evaluation samples actions or takes the squashed mean. Static.

    Returns:
      The agent of one lane. Metrics: the losses, ``td_error`` (the magnitude of ``delta``), ``error_scale`` (sigma),
      ``q_mean``, ``entropy`` (minus log pi).

    Raises:
      ValueError: several envs, actions that are not real-valued and bounded, observations that are not vectors, a
        network with memory; a gain with a network that is given as functions.

    Differences from the paper's code: actions are mapped to the stream's bounds (there they are clipped); hidden
    kernels have an orthogonal initialisation with gain sqrt(2) instead of 1; means and deviations share one output
    layer; observations are normalised by unbiased variances (there, those of a population); features whose norm is 0
    stay 0.

    References: Vasan et al. 2024, "Deep Policy Gradient Methods Without Batch Updates, Target Networks, or Replay
    Buffers"; Schaul, Ostrovski, Kemaev, Borsa 2021, "Return-based Scaling: Yet Another Normalisation Trick for Deep
    RL".
    """
    check_acting("avg", spec, one_env=True)
    check_truncation(truncation)
    check("agent.evaluate", evaluate, ("sample", "mode"))
    scale = scale_of("avg", spec)
    preprocessor = preprocessing(spec, normalise=normalise, rate=normalise_rate, scale_rewards=False, discount=discount)
    if scale_errors:
        preprocessor = with_scale(preprocessor)
    makes = gained(network, "policy", policy_gain), gained(critic_network, "value", value_gain)
    seen = spec._replace(observation=preprocessor.observation)
    built = networks("avg", seen, *makes, 2 * spec.actions, 1, intervention)
    rule = parts({ACTOR: policy_optimizer(), CRITIC: value_optimizer()})
    body = assemble_built(
        built,
        rule,
        intervention,
        rest=lambda created: preprocessor.init(),
        drawn=lambda key: {"noise": jax.random.normal(key, (1, spec.actions))},
        envs=1,
    )
    forget = normalise_rate if normalise == "exponential" else None
    rules = Rules(discount, temperature, truncation, scale_errors, forget, evaluate)
    actor = real_actor(scale, LOG_STD)

    def make(core: AgentCore) -> Agent:
        return avg_agent(Learning(Networks(core, actor), preprocessor, rules))

    return complete(spec, body, real_outputs(body.network, actor), make)
