"""What a replay agent learns from a batch, and how it acts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.agents.base import ACTION, NOISE, Meaning
from plasticity.agents.replay import Batch
from plasticity.agents.value_based import epsilon_greedy
from plasticity.core.masked import mean_where
from plasticity.core.outputs import OUTPUT, Output, Outputs, Read
from plasticity.core.schedules import Schedule
from plasticity.core.types import Activation, Array, Clock, Key, Metrics, Params

ActionValues = Callable[[Params, Any], Array]  # observations [B, ...] -> q [B, actions]
Losses = Callable[[Batch, Params, Params], tuple[Array, Array, Mapping[str, Activation]]]
# batch, params, target -> the loss of each transition [B], q [B, actions] and activations on the batch's observations
Extend = Callable[[Losses], Losses]
Choose = Callable[[Key, Params, Any, Array], Array]  # key, params, what the network reads, a number -> actions
Perturb = Callable[[Key, Params], Params]


def unchanged(losses: Losses) -> Losses:
    return losses


def unperturbed(key: Key, params: Params) -> Params:
    del key
    return params


def same(losses: Array) -> Array:
    return losses


def observation_of(batch: Batch) -> Any:
    return batch.observation


def copied(params: Params, target: Params) -> Params:
    del target
    return params


class Found(NamedTuple):
    """The loss of a batch."""

    loss: Array  # float32[], the weighted mean over the valid transitions
    losses: Array  # [B], of each transition, for monitors
    activations: Mapping[str, Activation]  # of the forward pass on ``Criterion.inputs`` of the batch
    metrics: Metrics
    priorities: Array | None = None  # [B], not negative, for a prioritised memory; None: the losses


class Criterion(NamedTuple):
    """What a replay agent learns, and how it acts."""

    loss: Callable[[Key, Batch, Array, Params, Params], Found]  # key, batch, weights [B], params, target
    act: Choose  # with the agent's age in env steps
    play: Choose  # with the probability of a random action
    scores: ActionValues
    meaning: Meaning
    metrics: tuple[str, ...]  # the names of those of a loss
    outputs: Read  # what the networks say about what they read
    inputs: Callable[[Batch], Any] = observation_of  # what the network reads in an update
    perturb: Perturb = unperturbed  # the noise of the parameters that act and learn, independent for the target
    error: Callable[[Array], Array] = same  # losses -> the magnitudes of the errors, for priorities of sequences
    follow: Callable[[Params, Params], Params] = copied  # params, target -> the next target
    due: Callable[[Clock], Mapping[str, Array]] | None = None  # the parts of the parameters that an update changes


def q_learning(
    values: ActionValues,
    losses: Losses,
    epsilon: Schedule,
    outputs: Callable[[Params, Any], Output],
    perturb: Perturb = unperturbed,
    error: Callable[[Array], Array] = same,
) -> Criterion:
    """Epsilon-greedy action values; ``epsilon(age)`` in env steps. ``outputs`` are those of the network."""

    def loss(key: Key, batch: Batch, weights: Array, params: Params, target: Params) -> Found:
        del key
        each, q, activations = losses(batch, params, target)
        metrics = {"q_mean": mean_where(batch.valid, jnp.max(q, axis=-1))}
        return Found(mean_where(batch.valid, weights * each), each, activations, metrics)

    def play(key: Key, params: Params, seen: Any, epsilon: Array) -> Array:
        return epsilon_greedy(jax.random.fold_in(key, ACTION), values(params, seen), epsilon)

    def act(key: Key, params: Params, seen: Any, age: Array) -> Array:
        return play(key, perturb(jax.random.fold_in(key, NOISE), params), seen, epsilon(age))

    def read(params: Params, seen: Any) -> Outputs:
        return {OUTPUT: outputs(params, seen)}

    return Criterion(loss, act, play, values, "values", ("q_mean",), read, perturb=perturb, error=error)
