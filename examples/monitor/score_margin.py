"""A monitor: how confident the learner is of its first choice."""

import jax
import jax.numpy as jnp

from plasticity.core.types import Key, Metrics, Probe, State
from plasticity.monitors.base import Monitor


def score_margin() -> Monitor:
    """The mean difference between the largest and the second-largest score, over the valid rows of the probe's batch.

    The scores are the numbers by which the agent decides: logits of a classifier, action values of a value-based agent.
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        scores = probe.scores(probe.learner.params, probe.observation)
        best, second = jnp.moveaxis(jax.lax.top_k(scores, 2)[0], -1, 0)
        margin = jnp.sum(jnp.where(probe.valid, best - second, 0.0)) / jnp.maximum(jnp.sum(probe.valid), 1)
        return state, {"score_margin": margin}

    return Monitor(measure)
