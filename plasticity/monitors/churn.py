"""How far what a learner decides by has moved since the last measurement, on the present batch.

``f`` is ``probe.scores`` (action values, logits or predictions), ``theta`` the present parameters of the online network
and ``theta'`` those of the measurement before, which the monitor keeps; both are read on the same rows, the valid ones
of the batch of recent transitions. At the first measurement nothing has moved: 0. NaN where no row is valid or a score
is not finite. Cost: two forward passes over the batch; memory: the parameters once more.

The time between two measurements is the period of the monitors, so compare runs at equal periods only.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config.fields import metadata
from plasticity.core.types import Array, Key, Metrics, Params, Probe, State
from plasticity.monitors.base import NOT_NEGATIVE, SHARE, Monitor


class Before(NamedTuple):
    """What the monitors here remember."""

    params: Params
    seen: Array  # bool[]: False until the first measurement


def _mean(valid: Array, rows: Array) -> Array:
    """The mean over the valid rows; NaN without one."""
    return jnp.sum(jnp.where(valid, rows, 0.0)) / jnp.sum(valid)


def _since_last(compare: Callable[[Probe, Array, Array], Metrics]) -> Monitor:
    """A monitor from ``compare(probe, scores before, scores now)``, float32[B, n] each."""

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

    Paper: Tang & Berseth 2024, Improving Deep Reinforcement Learning by Reducing the Chain Effect of Value and Policy
    Churn.

    The paper looks at one update, on states outside its batch; here it is all updates since the last measurement, on
    recent states, which may have been learned on: what was meant to change is counted in.
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
    """In how many states the greedy action has changed since the last measurement.

    ``policy_change``: the share of valid rows with ``argmax_a f_a(theta, x) != argmax_a f_a(theta', x)`` (the first of
    equal ones). Where the scores are logits also ``policy_change/kl``, the mean of ``KL(pi' || pi) = sum_a pi'_a (ln
    pi'_a - ln pi_a)``, ``pi = softmax f``, in nats. For a classifier the action is the class.

    Paper: Schaul, Barreto, Quan & Ostrovski 2022, The Phenomenon of Policy Churn.

    Errors: ``ValueError`` while tracing where the scores are a prediction (real-valued targets or actions), which has
    no greedy action.

    The paper counts the change at each update; here it is that of all updates since the last measurement, and an action
    that changed and changed back is not seen. There is no divergence of action values: it would need a temperature.
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
