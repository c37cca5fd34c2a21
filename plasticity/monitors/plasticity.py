"""Plasticity: what the learner can still learn.

These monitors train copies of the learner and of freshly initialised networks. There are three measures with three
names, because "plasticity" can mean any of them, or the performance during training: ``plasticity_probe`` (loss on
random targets after a fixed budget), ``upgd_plasticity`` (how much one update lowers the task loss) and
``warm_start_gap`` (task loss when training from here compared with from scratch). ``capacity`` is a fourth, in its own
file.

The training uses the learner's own optimizer, as wrapped by the interventions, on the probe's batch. Penalties and
resets are not included. The learner itself is not changed, and no monitor keeps state between measurements.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Repeats, Size, metadata
from plasticity.core.errors import check, refused
from plasticity.core.masked import mean_where
from plasticity.core.trees import is_finite
from plasticity.core.types import Array, Key, Metrics, Params, Probe, State
from plasticity.monitors.base import SHARE, Monitor
from plasticity.monitors.fitting import Rows, Start, at, at_least_one, current_and_fresh, outputs, train


def sine(values: Array, frequency: float) -> Array:
    """``sin(frequency values)`` in float32, with a phase error near ``1e-6 (1 + |values|)``, for frequencies to 2e5.

    ``values`` are split into pieces of 9 bits. Their products with the integer part of ``frequency / 2 pi`` are exact,
    so whole turns can be removed without rounding.
    """
    turns = frequency / (2 * math.pi)
    whole = math.floor(turns)
    high = jax.lax.reduce_precision(values, exponent_bits=8, mantissa_bits=8)
    middle = jax.lax.reduce_precision(values - high, exponent_bits=8, mantissa_bits=8)
    pieces = [whole * high, whole * middle, whole * (values - high - middle), (turns - whole) * values]
    phase = sum((piece - jnp.round(piece) for piece in pieces), jnp.zeros_like(values))
    return jnp.sin(2 * jnp.pi * (phase - jnp.round(phase)))


def _predictions(probe: Probe, params: Params, observation: Any) -> Array:
    """All outputs, concatenated, ``[B, n]``."""
    made = outputs(probe.network, params, observation).values()
    return jnp.concatenate([each.reshape(each.shape[0], -1) for each in made], axis=-1)


def _minibatches(key: Key, steps: int, batch: int | None, valid: Array) -> Rows:
    return None if batch is None else jax.random.randint(key, (steps, batch), 0, valid.shape[0])


def _fit_wave(probe: Probe, start: Start, wave: Array, steps: int, key: Key, rows: Rows) -> tuple[Array, Array]:
    """The squared loss on the target ``mean prediction + wave`` before and after training, float32[] each."""

    def predict(params: Params, batch_rows: Rows = None) -> Array:
        return _predictions(probe, params, at(probe.observation, batch_rows))

    target = mean_where(probe.valid, predict(start.params)) + wave

    def loss(params: Params, batch_rows: Rows = None) -> Array:
        errors = jnp.mean((predict(params, batch_rows) - at(target, batch_rows)) ** 2, axis=-1)
        return mean_where(at(probe.valid, batch_rows), errors)

    return loss(start.params), loss(train(probe.optimizer, start, loss, steps, key, rows))


def _of_finite(probe: Probe, metrics: dict[str, Array]) -> dict[str, Array]:
    """NaN for all metrics if the learner is not finite; the fresh network's alone would be misleading."""
    finite = is_finite(probe.learner.params)
    return {name: jnp.where(finite, value, jnp.nan) for name, value in metrics.items()}


@metadata(
    paper="Lyle, Zheng, Nikishin, Avila Pires, Pascanu & Dabney 2023, Understanding plasticity in neural networks",
    period=10,
)
def plasticity_probe(
    *,
    steps: Count = 200,
    targets: Repeats = 5,
    optimizer: Literal["fresh", "continued"] = "fresh",
    batch: Size | None = None,
    frequency: float = 1e5,
) -> Monitor:
    """How much worse the learner fits random targets than a fresh network: its plasticity loss.

    ``mean_w [ l_w(O(theta, l_w)) - l_w(O(theta_0, l_w)) ]``, positive if plasticity has been lost, with expectation 0
    for a fresh network. ``O`` makes ``steps`` updates with the learner's own optimizer and step size, ``theta_0`` is
    another fresh initialisation for each target, and ``l_w(theta) = E_x [(f(x; theta) - g_w(x))^2]``, the mean over the
    valid rows of the probe's batch and over all outputs (of policy and value, if there are both). The targets are
    ``g_w(x) = a + sin(frequency f(x; w))``, with ``w`` the parameters of a third fresh network and ``a`` the mean
    prediction, for each output, of the network to be trained (the learner or the fresh one), so that neither has to
    learn an offset. Predicting ``a`` gives a loss of 0.5.

    Metrics: ``plasticity_probe``; ``/loss`` and ``/fresh_loss`` after the training; ``/initial_loss`` and
    ``/fresh_initial_loss`` before it. With ``optimizer: continued`` they are ``plasticity_probe/continued`` and
    ``/continued_loss`` ... instead, so that both can be recorded.

    Reference: Lyle, Zheng, Nikishin, Avila Pires, Pascanu & Dabney 2023, Understanding plasticity in neural networks.

    Args:
        steps: updates (static). The paper uses 2000.
        targets: number of random targets, trained on in one vmap (static). The paper uses 10.
        optimizer: "fresh" resets its state; "continued" uses the learner's state, and a fresh agent's for the fresh
            network (static).
        batch: rows of a minibatch, drawn with replacement, the same for both networks (static); by default every
            update sees the whole probe batch.
        frequency: of the sine, in radians per unit of output; above 0, at most 2e5 (static).

    Cost: ``2 steps targets`` forward and backward passes on ``batch`` rows, and the memory of ``2 targets`` of them at
    once. ``ValueError`` for counts below 1, a frequency out of range or an unknown ``optimizer``.

    Check ``/initial_loss``. If it is far above 0.5 (a confident classifier), the result after the default number of
    updates mostly reflects how far the outputs have to move, and a trainable network can score worse than a dead one
    (docs/findings.md, F4). In that case use ``steps: 2000`` with a ``batch``.

    The paper subtracts the probe loss at the start of training; here it is the loss of a fresh network at the same
    time, on the same data. The phase ``frequency f`` is reduced exactly, but carries ``frequency`` times the
    rounding error of the random network's forward pass: at 1e5 about 0.01 radians for outputs of order 1; for outputs
    of order 100 or more, the phase is arbitrary. The targets are therefore as random as intended, but they differ
    between machines and vmap widths, and the losses differ in the third digit. Outputs are those of the network: for
    distributional agents, logits. Behind an eligibility trace the optimizer is used without the trace
    (``plasticity.monitors.fitting.plain``).
    """
    at_least_one(steps=steps, targets=targets, batch=1 if batch is None else batch)
    check("optimizer", optimizer, ("fresh", "continued"))
    if not 0 < frequency <= 2e5:
        raise refused("frequency", frequency, "above 0 and at most 2e5")
    continued = optimizer == "continued"
    prefix = "plasticity_probe/" + "continued_" * continued

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        def one(key: Key) -> tuple[Array, Array]:
            drawn, fresh_key, rows_key, step_key = jax.random.split(key, 4)
            with jax.default_matmul_precision("float32"):  # otherwise an accelerator rounds the phase away
                random = _predictions(probe, probe.fresh(drawn).params, probe.observation)
            wave, rows = sine(random, frequency), _minibatches(rows_key, steps, batch, probe.valid)
            both = current_and_fresh(probe, fresh_key, continued)
            return jax.vmap(lambda start: _fit_wave(probe, start, wave, steps, step_key, rows))(both)

        before, after = (jnp.mean(each, axis=0) for each in jax.vmap(one)(jax.random.split(key, targets)))
        headline = "plasticity_probe" + "/continued" * continued
        metrics = {headline: after[0] - after[1], f"{prefix}loss": after[0], f"{prefix}fresh_loss": after[1]}
        metrics |= {f"{prefix}initial_loss": before[0], f"{prefix}fresh_initial_loss": before[1]}
        return state, _of_finite(probe, metrics)

    return Monitor(measure)


@metadata(
    paper="Elsayed & Mahmood 2024, Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning"
)
def upgd_plasticity() -> Monitor:
    """The share of the task loss that one update removes.

    ``clip(1 - L_after / L_before, 0, 1)``: the task loss on the probe's batch after and before one update of a copy of
    the learner on that same loss, with the learner's optimizer and its state. Larger is more plastic. NaN if
    ``L_before`` is not positive, because the ratio is then meaningless (a policy-gradient loss is not an error).

    Reference: Elsayed & Mahmood 2024, Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning
    (the UPGD paper, hence the name). Cost: one forward and backward pass and one forward pass.

    The paper computes the ratio on the sample of each online update and averages it over the steps. Here it is the
    ratio of the batch's mean losses at the time of measurement. Penalties are excluded.
    """

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        start = Start(probe.learner.params, probe.learner.opt_state)
        after = probe.loss(train(probe.optimizer, start, lambda params, rows: probe.loss(params), 1, key))
        before = probe.loss(probe.learner.params)
        share = jnp.clip(1 - after / before, 0, 1)
        return state, {"upgd_plasticity": jnp.where(before > 0, share, jnp.nan).astype(jnp.float32)}

    return Monitor(measure, ranges={"upgd_plasticity": SHARE})


@metadata(paper="Ash & Adams 2020, On Warm-Starting Neural Network Training", period=10)
def warm_start_gap(*, steps: Count = 200) -> Monitor:
    """How much higher the task loss stays when training starts from the learner instead of a fresh network.

    ``L(O(theta)) - L(O(theta_0))``, where ``O`` is ``steps`` updates with the learner's own optimizer, with a fresh
    state, on the task loss ``L`` of the probe's batch (all of it at every update; both use the learner's target
    network, held fixed). Positive values mean that warm-starting hurts. Metrics: ``warm_start_gap``, ``/loss`` and
    ``/fresh_loss``.

    Reference: Ash & Adams 2020, On Warm-Starting Neural Network Training.

    Args:
        steps: updates (static); the default is ours.

    Cost: ``2 steps`` forward and backward passes on the probe's batch. ``ValueError`` for ``steps`` below 1.

    The paper's gap is in accuracy on held-out data, after training to convergence on all data, old and new. A probe has
    no held-out rows and a fixed budget, so this measures the speed of training, not generalisation. A learner that has
    already learned the batch has an advantage (negative values).
    """
    at_least_one(steps=steps)

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        def fit(start: Start) -> Array:
            return probe.loss(train(probe.optimizer, start, lambda params, rows: probe.loss(params), steps, key))

        warm, fresh = jax.vmap(fit)(current_and_fresh(probe, jax.random.fold_in(key, steps)))
        metrics = {"warm_start_gap": warm - fresh, "warm_start_gap/loss": warm, "warm_start_gap/fresh_loss": fresh}
        return state, _of_finite(probe, metrics)

    return Monitor(measure)
