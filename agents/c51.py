"""Categorical Q-learning (C51) from a replay buffer, with a target network."""

from collections.abc import Mapping
from typing import Annotated, Any

import jax.numpy as jnp
from pydantic import Field

from plasticity.agents.categorical import (
    Logits,
    Spread,
    Targets,
    action_logits,
    check_atoms,
    check_support,
    cross_entropies,
    expected,
    spread,
)
from plasticity.agents.criteria import Criterion, Perturb, q_learning, unperturbed
from plasticity.agents.replay import Batch
from plasticity.agents.replay_regime import FORMER, replay_agent, replay_body
from plasticity.agents.replay_source import Sampling
from plasticity.agents.replay_timing import Ratio, Timing, replay_updates
from plasticity.agents.value_based import EXPLORATION
from plasticity.config.fields import BelowOne, Count, Member, Positive, Repeats, Size, metadata
from plasticity.core.outputs import Logits as Categorical
from plasticity.core.outputs import Output
from plasticity.core.schedules import Schedule
from plasticity.core.types import Activation, Agent, Array, Params, StreamSpec
from plasticity.interventions.base import Intervention

Bound = Annotated[float, Field(gt=0)]  # static: the support is checked against it before compilation

# DQN Zoo's settings for C51.
ADAM = {"kind": "adam", "learning_rate": 2.5e-4, "eps": 0.01 / 32, "max_gradient_norm": 10.0}


def categorical_criterion(
    logits: Logits,
    epsilon: Schedule,
    double: bool,
    v_min: float,
    v_max: float,
    atoms: int,
    spread: Spread | None,
    perturb: Perturb = unperturbed,
) -> Criterion:
    """Act on expected values; minimise the cross-entropy against the n-step target distribution."""

    def support() -> Array:
        return jnp.linspace(v_min, v_max, atoms)

    def values(params: Params, observation: Any) -> Array:
        return expected(logits(params, observation)[0], support())

    def losses(batch: Batch, params: Params, target: Params) -> tuple[Array, Array, Mapping[str, Activation]]:
        now, activations = logits(params, batch.observation)
        following, _ = logits(target, batch.next_observation)
        selector = values(params, batch.selection) if double else expected(following, support())
        entropies = cross_entropies(batch, now, following, selector, support(), spread)
        return entropies, expected(now, support()), activations

    def outputs(params: Params, observation: Any) -> Output:
        return Categorical(logits(params, observation)[0])

    return q_learning(values, losses, epsilon, outputs, perturb)


@metadata(
    paper="Bellemare, Dabney, Munos 2017, A Distributional Perspective on Reinforcement Learning",
    checked="a NumPy program over 14 or 28 updates, with gradients by hand and its own Adam; the loss also against "
    "rlax, whose projection it uses",
    renamed=FORMER,
    only_with={"gradient_steps": {"replay_ratio": (None,)}},
)
def c51(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = ADAM,
    discount: BelowOne = 0.99,
    double: bool = False,
    n_step: Repeats = 1,
    atoms: Repeats = 51,
    v_min: float = -10.0,
    v_max: float = 10.0,
    targets: Targets = "distribution",
    sigma: Positive = 0.75,
    reward_clip: Bound | None = 1.0,
    epsilon: Annotated[Any, Member("schedules")] = EXPLORATION,
    replay: Annotated[Any, Member("replays")] = "uniform",
    batch_size: Size = 32,
    update_period: Count = 4,
    gradient_steps: Repeats = 1,
    replay_ratio: Ratio | None = None,
    target_period: Count = 2_000,
) -> Agent:
    """Categorical deep Q-learning (C51) for one lane.

    The network outputs the logits of ``p(s, a)`` over ``atoms`` values from ``v_min`` to ``v_max``. R and D are the
    n-step return and bootstrap discount. ``a*`` is the action with the largest mean in s', under the target network or,
    with ``double``, under the online network. The distribution of ``R + D z``, with z from ``p_target(s', a*)``, is
    projected onto these values, and ``L = -mean_B sum_i projected_i log p_i(s, a)``. Actions are epsilon-greedy in the
    expected values.

    ``targets``: "distribution" is the loss above. With "two_hot" and "hl_gauss" the target is the scalar
    ``R + D E[z]``, spread over the two neighbouring atoms or over a normal distribution whose standard deviation is
    ``sigma`` (traced) in units of the atom spacing. This is a scalar critic with a categorical loss; see
    ``agents.categorical``.

    Static: ``atoms`` (at least 2), ``v_min``, ``v_max``, ``targets`` and, here, ``reward_clip`` (None: not clipped).
    All other settings and errors are those of :func:`plasticity.agents.dqn.dqn`, without ``huber``. ``ValueError`` also
    if a one-step reward lies outside the range of values. Defaults are those of DQN Zoo's C51, with schedules as for
    ``dqn``.

    Reference: Bellemare, Dabney, Munos 2017, "A Distributional Perspective on Reinforcement Learning".
    """
    gradient_steps = replay_updates("c51", spec, update_period, gradient_steps, replay_ratio)
    check_atoms(atoms)
    check_support(spec, v_min, v_max, reward_clip)
    sampling = Sampling(batch_size, n_step, discount, reward_clip)
    wanted = network(spec.observation, spec.actions * atoms)
    body, memory = replay_body(wanted, optimizer(), intervention, replay, spec, sampling)
    timing = Timing(memory.first, update_period, gradient_steps, target_period)
    logits = action_logits(body.network, spec.actions, atoms)
    criterion = categorical_criterion(logits, epsilon(), double, v_min, v_max, atoms, spread(targets, sigma))
    return replay_agent(spec, body, memory, timing, criterion, sampling)
