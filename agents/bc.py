"""Behavioural cloning."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.base import ACTION, Meaning, built
from plasticity.agents.criteria import Criterion, Found
from plasticity.agents.distributions import Distribution, categorical, gaussian
from plasticity.agents.offline import offline_agent, offline_core
from plasticity.agents.replay import Batch
from plasticity.agents.replay_source import Sampling
from plasticity.agents.stream_checks import check_recorded
from plasticity.config.fields import Member, metadata
from plasticity.core.errors import check
from plasticity.core.masked import mean_where
from plasticity.core.outputs import OUTPUT, Logits, Normal, Output, Outputs, Values
from plasticity.core.types import Agent, Array, Key, Network, Params, StreamSpec
from plasticity.interventions.base import Intervention

LOG_STD = (-5.0, 2.0)  # bounds of the logarithms of the standard deviations
LOSSES = ("squared", "gaussian")


class Clone(NamedTuple):
    """What a network's outputs ``[B, n]`` say about the action (static)."""

    outputs: int  # n
    losses: Callable[[Array, Array], Array]  # outputs, recorded actions -> [B]
    mode: Callable[[Array], Array]  # outputs -> the most likely actions
    says: Callable[[Array], Output]
    scores: Callable[[Array], Array]
    meaning: Meaning


def _same(outputs: Array) -> Array:
    return outputs


def likely(policy: Callable[[Array], Distribution]) -> tuple[Callable[[Array, Array], Array], Callable[[Array], Array]]:
    """``-log pi(a | s)`` of each row, and the mode."""
    return lambda outputs, action: -policy(outputs).log_probability(action), lambda outputs: policy(outputs).mode


def discrete_clone(actions: int) -> Clone:
    """Of discrete actions: the outputs are logits."""
    return Clone(actions, *likely(categorical), Logits, _same, "logits")


def squared_clone(size: int) -> Clone:
    """Of real-valued actions: the outputs are the action."""

    def losses(outputs: Array, action: Array) -> Array:
        return jnp.mean(jnp.square(outputs - action), axis=-1)

    return Clone(size, losses, _same, Values, _same, "prediction")


def gaussian_clone(size: int) -> Clone:
    """Of real-valued actions: the outputs are means, and logarithms of standard deviations clipped to ``LOG_STD``."""

    def parts(outputs: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(outputs, 2, axis=-1)
        return mean, jnp.clip(log_std, *LOG_STD)

    def policy(outputs: Array) -> Distribution:
        return gaussian(*parts(outputs))

    return Clone(
        2 * size,
        *likely(policy),
        lambda outputs: Normal(*parts(outputs)),
        lambda outputs: parts(outputs)[0],
        "prediction",
    )


def clone_of(spec: StreamSpec, loss: str) -> Clone:
    """``ValueError`` for a loss that the stream's actions do not have."""
    check("agent.loss", loss, LOSSES)
    if spec.discrete:
        if loss != "squared":
            raise ValueError(
                f"agent.loss: {loss} is not allowed; this stream has discrete actions, which have one loss"
            )
        return discrete_clone(spec.actions)
    return squared_clone(spec.actions) if loss == "squared" else gaussian_clone(spec.actions)


def bc_criterion(network: Network, clone: Clone, actions: int, discrete: bool) -> Criterion:
    """Make the recorded actions likely; play the most likely ones."""

    def said(params: Params, observation: Any) -> Array:
        made: Array = network.forward(params, observation)[0]
        return made

    def loss(key: Key, batch: Batch, weights: Array, params: Params, target: Params) -> Found:
        del key, target
        made, activations = network.forward(params, batch.observation)
        each = clone.losses(made, batch.action)
        return Found(mean_where(batch.valid, weights * each), each, activations, {})

    def play(key: Key, params: Params, seen: Any, epsilon: Array) -> Array:
        mode = clone.mode(said(params, seen))
        if not discrete:
            return mode
        coin, choice = jax.random.split(jax.random.fold_in(key, ACTION))
        other = jax.random.randint(choice, mode.shape, 0, actions)
        return jnp.where(jax.random.uniform(coin, mode.shape) < epsilon, other, mode).astype(jnp.int32)

    def read(params: Params, seen: Any) -> Outputs:
        return {OUTPUT: clone.says(said(params, seen))}

    def scores(params: Params, seen: Any) -> Array:
        return clone.scores(said(params, seen))

    def kept(params: Params, target: Params) -> Params:
        del params
        return target

    return Criterion(loss, play, play, scores, clone.meaning, (), read, follow=kept)


@metadata(
    paper="Pomerleau 1991, Efficient Training of Artificial Neural Networks for Autonomous Navigation",
    checked="losses in NumPy, and one step along JAX's gradient of them; losses and bounds are ours",
)
def bc(
    spec: StreamSpec,
    intervention: Intervention,
    *,
    network: Annotated[Any, Member("networks")] = "mlp",
    optimizer: Annotated[Any, Member("optimizers")] = "adam",
    loss: Literal["squared", "gaussian"] = "squared",
) -> Agent:
    """Behavioural cloning: learn the actions of recorded transitions (the stream ``dataset``), for one lane.

    Discrete actions: ``L = -mean_B log pi(a | s)`` with ``pi`` the softmax of the outputs. Real-valued actions:
    ``squared``, ``L = mean_B mean_i (mu_i(s) - a_i)^2``, or ``gaussian``, ``L = -mean_B log N(a; mu(s), sigma(s))``,
    summed over the entries of an action, with ``log sigma`` among the outputs, clipped to [-5, 2].

    One update at every step, on the stream's minibatch. Evaluations play the most likely action, ``mu`` if real-valued.
    Rewards are not used. ``loss`` is static, for real-valued actions only.

    ``ValueError`` on any other stream, and for ``gaussian`` with discrete actions. Pomerleau imitates steering of
    recorded drives; optimizer, losses and bounds are ours.
    """
    check_recorded("bc", spec)
    clone = clone_of(spec, loss)
    made = built(network(spec.observation.observation, clone.outputs), intervention)
    body = offline_core(made, optimizer, intervention, targets=False)
    criterion = bc_criterion(made, clone, spec.actions, spec.discrete)
    return offline_agent(spec, body, criterion, 1, Sampling(spec.envs, 1, 1.0, None))
