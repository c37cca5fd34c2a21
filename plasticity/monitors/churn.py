"""Changes of the learner's scores since the last measurement.

``f`` is ``probe.scores`` (action values, logits or predictions), ``theta`` the current parameters of the online network
and ``theta'`` those at the previous measurement, which the monitor stores. Both are evaluated on the same rows, the
valid ones of the batch of recent transitions. The first measurement gives 0. NaN if no row is valid or a score is not
finite. Cost: two forward passes over the batch; memory: one more copy of the parameters.

Measurements are one period apart, so compare only runs with equal periods.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config.fields import metadata
from plasticity.core.types import Array, Key, Metrics, Params, Probe, State
from plasticity.monitors.base import NOT_NEGATIVE, SHARE, Monitor


class Before(NamedTuple):
    """The state of the monitors in this module."""

    params: Params
    seen: Array  # bool[]: False until the first measurement


def _mean(valid: Array, rows: Array) -> Array:
    """The mean over the valid rows; NaN if no row is valid."""
    return jnp.sum(jnp.where(valid, rows, 0.0)) / jnp.sum(valid)


def _since_last(compare: Callable[[Probe, Array, Array], Metrics]) -> Monitor:
    """Build a monitor from ``compare(probe, scores before, scores now)``; scores are float32[B, n]."""

    def init(params: Params) -> State:
        return Before(jax.tree.map(jnp.copy, params), jnp.zeros((), bool))  # the training loop may donate the originals

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        present = probe.learner.params
        previous = jax.tree.map(lambda old, new: jnp.where(state.seen, old, new), state.params, present)
        before, now = probe.scores(previous, probe.observation), probe.scores(present, probe.observation)
        return Before(present, jnp.ones((), bool)), compare(probe, before, now)

    return Monitor(measure, init)


@metadata(
    paper="Tang & Berseth 2024, Improving Deep Reinforcement Learning by Reducing the Chain Effect of Value and Policy "
    "Churn"
)
def churn() -> Monitor:
    """How far the outputs have moved since the last measurement.

    ``churn = mean |f(theta, x) - f(theta', x)|`` and ``churn/rms``, the root of the mean square, over the valid rows
    and the outputs, in the outputs' own unit.

    Reference: Tang & Berseth 2024, Improving Deep Reinforcement Learning by Reducing the Chain Effect of Value and
    Policy Churn.

    The paper measures the effect of one update on states outside its batch. Here it is the effect of all updates since
    the last measurement on recent states. Some of them may be training data, so intended changes are included.
    """

    def compare(probe: Probe, before: Array, now: Array) -> Metrics:
        moved = now - before
        return {
            "churn": _mean(probe.valid, jnp.mean(jnp.abs(moved), axis=-1)),
            "churn/rms": jnp.sqrt(_mean(probe.valid, jnp.mean(moved**2, axis=-1))),
        }

    return _since_last(compare)._replace(ranges={"churn": NOT_NEGATIVE})


@metadata(paper="Schaul, Barreto, Quan & Ostrovski 2022, The Phenomenon of Policy Churn")
def policy_change() -> Monitor:
    """The share of states whose greedy action has changed since the last measurement.

    ``policy_change``: the share of valid rows with ``argmax_a f_a(theta, x) != argmax_a f_a(theta', x)`` (the first in
    case of ties). If the scores are logits, also ``policy_change/kl``, the mean of ``KL(pi' || pi) = sum_a pi'_a (ln
    pi'_a - ln pi_a)``, ``pi = softmax f``, in nats. For a classifier the action is the class.

    Reference: Schaul, Barreto, Quan & Ostrovski 2022, The Phenomenon of Policy Churn.

    Raises:
        ValueError: while tracing, if the scores are a prediction (real-valued targets or actions), which has no greedy
            action.

    The paper counts the change at each update. Here it is the change over all updates since the last measurement, so an
    action that changes and changes back is missed. There is no divergence for action values, which would need a
    temperature.
    """

    def compare(probe: Probe, before: Array, now: Array) -> Metrics:
        if probe.meaning == "prediction":
            raise ValueError("policy_change: this agent predicts real numbers and has no greedy action; use churn")
        changed = jnp.argmax(before, axis=-1) != jnp.argmax(now, axis=-1)
        unknown = ~jnp.all(jnp.isfinite(before) & jnp.isfinite(now), axis=-1)
        found = {"policy_change": _mean(probe.valid, jnp.where(unknown, jnp.nan, changed))}
        if probe.meaning == "logits":
            old, new = jax.nn.log_softmax(before), jax.nn.log_softmax(now)
            found["policy_change/kl"] = _mean(probe.valid, jnp.sum(jnp.exp(old) * (old - new), axis=-1))
        return found

    return _since_last(compare)._replace(ranges={"policy_change": SHARE})
