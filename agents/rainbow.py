"""Rainbow: categorical Q-learning combined with several improvements to Q-learning."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import jax.numpy as jnp

from plasticity.agents.base import unextended
from plasticity.agents.c51 import Bound, categorical_criterion
from plasticity.agents.categorical import Logits, Targets, action_logits, check_atoms, check_support, spread
from plasticity.agents.criteria import unperturbed
from plasticity.agents.memory import forward
from plasticity.agents.noisy import noisy as noisy_network
from plasticity.agents.noisy import perturbed
from plasticity.agents.replay_regime import FORMER, replay_agent, replay_body
from plasticity.agents.replay_source import Sampling
from plasticity.agents.replay_timing import Ratio, Timing, replay_updates
from plasticity.agents.value_based import EXPLORATION
from plasticity.config.fields import BelowOne, Count, Member, Moved, NonNegative, Positive, Repeats, Size, metadata
from plasticity.core.types import Activation, Agent, Array, Network, Params, StreamSpec
from plasticity.interventions.base import Intervention
from plasticity.networks.functions import as_graph
from plasticity.networks.spec import Head, NetworkSpec

# DQN Zoo's settings for Rainbow.
ADAM = {"kind": "adam", "learning_rate": 6.25e-5, "eps": 0.005 / 32, "max_gradient_norm": 10.0}

FORMER_RAINBOW = {
    "prioritised": Moved("replay.kind", values={True: "prioritised", False: "uniform"}),
    **FORMER,
    "priority_exponent": Moved("replay.exponent", drop=0.5),
    "importance_start": Moved("replay.importance.start", drop=0.4),
    "importance_end": Moved("replay.importance.end", drop=1.0),
    "importance_steps": Moved("replay.importance.duration", drop=1_000_000),
}


def two_heads(spec: NetworkSpec, actions: int, atoms: int) -> NetworkSpec:
    """Duplicate the network's last dense layer into two heads, one for the state and one for the actions."""
    own, scale = spec.widths[-1:], spec.output_scale
    heads = (Head("value", atoms, own, scale), Head("advantage", actions * atoms, own, scale))
    return replace(spec, widths=spec.widths[:-1], heads=heads, outputs=(actions + 1) * atoms)


def combined(outputs: Array, actions: int, atoms: int) -> Array:
    """``V + A_a - mean_b A_b``, ``[B, actions, atoms]``, from the concatenated outputs of the two heads."""
    value, advantage = outputs[:, None, :atoms], outputs[:, atoms:].reshape(-1, actions, atoms)
    return value + advantage - jnp.mean(advantage, axis=1, keepdims=True)


def dueling_logits(network: Network, actions: int, atoms: int) -> Logits:
    """:func:`action_logits` of a network with two heads."""

    def logits(params: Params, observation: Any) -> tuple[Array, Mapping[str, Activation]]:
        outputs, activations = forward(network, params, observation)
        return combined(outputs, actions, atoms), activations

    return logits


@metadata(
    paper="Hessel et al. 2018, Rainbow: Combining Improvements in Deep Reinforcement Learning",
    checked="a NumPy program over 14 or 28 updates, with priorities, double and n-step Q-learning; the dueling "
    "heads by hand, the noise by its moments; with all parts off, `c51` bit for bit",
    renamed=FORMER_RAINBOW,
    only_with={"gradient_steps": {"replay_ratio": (None,)}},
)
def rainbow(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = ADAM,
    discount: BelowOne = 0.99,
    double: bool = True,
    dueling: bool = True,
    noisy: bool = False,
    n_step: Repeats = 3,
    atoms: Repeats = 51,
    v_min: float = -10.0,
    v_max: float = 10.0,
    targets: Targets = "distribution",
    sigma: Positive = 0.75,
    noise_scale: NonNegative = 0.5,
    reward_clip: Bound | None = 1.0,
    epsilon: Annotated[Any, Member("schedules")] = EXPLORATION,
    replay: Annotated[Any, Member("replays")] = "prioritised",
    batch_size: Size = 32,
    update_period: Count = 4,
    gradient_steps: Repeats = 1,
    replay_ratio: Ratio | None = None,
    target_period: Count = 2_000,
) -> Agent:
    """Rainbow for one lane: C51 with double, dueling and n-step Q-learning and prioritised replay.

    The loss is that of :func:`plasticity.agents.c51.c51`. Components (static; with all switches off, ``n_step`` 1 and
    ``replay: uniform`` the agent is C51):

    * ``double``: the online network selects the action in s'.
    * ``dueling`` (Wang et al. 2016, "Dueling Network Architectures for Deep Reinforcement Learning"): the network's
      last dense layer is duplicated; the logits are ``V + A_a - mean_b A_b``.
    * ``replay``: ``prioritised`` (Schaul et al. 2016, "Prioritized Experience Replay"), or ``uniform`` without it.
    * ``noisy`` (Fortunato et al. 2018, "Noisy Networks for Exploration"): the parameters of dense layers are resampled
      for every action and update around their learned means, with learned noise scales initialised to ``noise_scale /
      sqrt(inputs)``. It is off by default because resetting units leaves the noise of their outgoing weights in place.
      With it, the paper sets epsilon to 0. Evaluation uses no noise.

    ``noise_scale`` is traced. All other settings and errors are those of :func:`plasticity.agents.c51.c51`. Defaults
    are DQN Zoo's, except for the noise and a tenth of its replay capacity. As there, the priority is the cross-entropy
    (in the paper, the divergence); no fraction of the samples is uniform.

    Reference: Hessel et al. 2018, "Rainbow: Combining Improvements in Deep Reinforcement Learning".
    """
    gradient_steps = replay_updates("rainbow", spec, update_period, gradient_steps, replay_ratio)
    check_atoms(atoms)
    check_support(spec, v_min, v_max, reward_clip)
    sampling = Sampling(batch_size, n_step, discount, reward_clip)
    wanted = network(spec.observation, spec.actions * atoms)
    if dueling:
        wanted = two_heads(as_graph(wanted, "agent.dueling: true", "set it to false"), spec.actions, atoms)
    if noisy:
        as_graph(wanted, "agent.noisy: true", "set it to false")
    extend = (lambda plain: noisy_network(plain, noise_scale)) if noisy else unextended
    body, memory = replay_body(wanted, optimizer(), intervention, replay, spec, sampling, extend)
    logits = (dueling_logits if dueling else action_logits)(body.network, spec.actions, atoms)
    timing = Timing(memory.first, update_period, gradient_steps, target_period)
    chosen, noise = spread(targets, sigma), perturbed if noisy else unperturbed
    criterion = categorical_criterion(logits, epsilon(), double, v_min, v_max, atoms, chosen, noise)
    return replay_agent(spec, body, memory, timing, criterion, sampling)
