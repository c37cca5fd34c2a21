"""Activity of hidden units.

All monitors here use ``probe.activations`` (the agent's batch of recent transitions, the current parameters). Units are
on the last axis of an activation. For a convolution, ``[B, H, W, channels]``, the unit is the channel and every
position counts as a sample. With CReLU the post-activation has twice as many channels as the pre-activation: metrics on
``post`` count the former and metrics on ``pre`` the latter.

Each metric is a fraction of all hidden units, in [0, 1]; ``<metric>/<layer>`` is that of one hidden layer. (Dopamine
reports a percentage, Plasticine the mean of the layers' fractions, Dohare et al. a count per layer.) It is NaN if a
layer has activations that are not finite, and absent if the network has no hidden layer.
"""

from collections.abc import Callable, Mapping
from typing import Annotated

import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import BelowOne, NonNegative, metadata
from plasticity.core.errors import refused
from plasticity.core.types import Activation, Array, Key, Metrics, Network, Probe, State
from plasticity.monitors.base import SHARE, Monitor

Share = Annotated[float, Field(ge=0, le=1)]


def hidden_layers(network: Network, activations: Mapping[str, Activation]) -> dict[str, Activation]:
    """The activations in the network's order (``jit`` sorts mappings)."""
    return {layer.name: activations[layer.name] for layer in network.layers}


def by_unit(values: Array) -> Array:
    """``[B, ..., units]`` -> ``[samples, units]``: positions count as samples."""
    return values.reshape(-1, values.shape[-1])


def _fraction_monitor(name: str, marked: Callable[[Activation], Array]) -> Monitor:
    """Build a monitor from ``marked``: activation -> float32[...], 1 for units (or entries) that count, else 0; NaN if
    unknown."""

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        del key
        marks = {layer: marked(values) for layer, values in hidden_layers(probe.network, probe.activations).items()}
        if not marks:
            return state, {}
        layers = {f"{name}/{layer}": jnp.mean(each) for layer, each in marks.items()}
        return state, {name: jnp.mean(jnp.concatenate(list(marks.values())))} | layers

    return Monitor(measure, ranges={name: SHARE})


def _where_finite(values: Array, marked: Array) -> Array:
    """NaN for the whole layer if a value is not finite, because comparisons hide a NaN."""
    return jnp.where(jnp.all(jnp.isfinite(values)), marked.astype(jnp.float32), jnp.nan)


@metadata(paper="Sokar, Agarwal, Castro & Evci 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning")
def dormant_units(*, tau: NonNegative = 0.025, taus: tuple[Share, ...] = ()) -> Monitor:
    """Fraction of hidden units that are ``tau``-dormant.

    ``score_i = E|h_i| / mean_k E|h_k|``, ``dormant_i = score_i <= tau``, with ``h`` the post-activation, ``E`` the mean
    over the batch (and the positions of a convolution) and ``k`` over the units of the same layer. In a layer whose
    activations are all zero every unit is dormant.

    Reference: Sokar, Agarwal, Castro & Evci 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning.

    Args:
        tau: the threshold (traced). ReDo's authors use 0.025 and some ports 0.1; 0 counts the units that are exactly
            zero on the batch (see :func:`dead_units`).
        taus: further thresholds (static, in [0, 1], all different). Each gives ``dormant_units/tau_<number>``, the
            fraction of all hidden units, such as ``dormant_units/tau_0.1``.

    Raises:
        ValueError: if one of ``taus`` is outside [0, 1] and, while tracing, for a duplicate.

    The score is relative to the layer, so it does not detect a layer that shrinks as a whole. "Dormant" may also
    mean the share of entries with ``|h| < 0.01`` (MEAL) or equal to zero (Plasticine's metrics), which is sparsity.
    """

    names = [f"dormant_units/tau_{each:g}" for each in taus]
    outside = [each for each in taus if not 0 <= each <= 1]
    if outside:
        raise refused("taus", outside[0], "in [0, 1]", "dormant_units")

    def measured(threshold: Array | float) -> Callable[[Activation], Array]:
        def marked(activation: Activation) -> Array:
            size = jnp.mean(jnp.abs(by_unit(activation.post)), axis=0)
            return _where_finite(size, size <= threshold * jnp.mean(size))  # not divided by the mean, which may be zero

        return marked

    headline = _fraction_monitor("dormant_units", measured(tau))
    further = [_fraction_monitor(name, measured(each)) for name, each in zip(names, taus, strict=True)]

    def measure(key: Key, state: State, probe: Probe) -> tuple[State, Metrics]:
        if len(set(names)) < len(names):
            raise ValueError(f"dormant_units: taus must be distinct, got {', '.join(f'{each:g}' for each in taus)}")
        found = dict(headline.measure(key, (), probe)[1])
        for name, each in zip(names, further, strict=True):
            found |= {metric: value for metric, value in each.measure(key, (), probe)[1].items() if metric == name}
        return state, found

    return Monitor(measure, ranges=headline.ranges)


@metadata(
    paper="Dohare, Hernandez-Garcia, Lan, Rahman, Mahmood & Sutton 2024, Loss of plasticity in deep continual learning"
)
def dead_units() -> Monitor:
    """Fraction of hidden units whose post-activation is exactly zero on the whole batch.

    ``dead_i = (max |h_i| = 0)``, the maximum over the batch (and the positions of a convolution). A dead unit has no
    effect on the output, and after a ReLU it gets no gradient from this batch.

    Reference: Dohare, Hernandez-Garcia, Lan, Rahman, Mahmood & Sutton 2024, Loss of plasticity in deep continual
    learning.

    Meant for ReLU and CReLU; smooth or leaky activations are almost never exactly zero. For tanh use
    :func:`constant_units`. The fraction can only fall as the batch grows. In awjuliani's deep-rl-plasticity "dead" is
    defined per entry, ``mean(h == 0)``, which is sparsity.
    """

    def marked(activation: Activation) -> Array:
        largest = jnp.max(jnp.abs(by_unit(activation.post)), axis=0)
        return _where_finite(largest, largest == 0)

    return _fraction_monitor("dead_units", marked)


@metadata(paper="Moalla, Miele, Pyatko, Pascanu & Gulcehre 2024, No Representation, No Trust")
def constant_units(*, threshold: NonNegative = 1e-3) -> Monitor:
    """Fraction of hidden units whose post-activation is nearly constant over the batch: dead or saturated.

    ``constant_i = (std h_i <= threshold)``, the population standard deviation over the batch (and the positions of a
    convolution), on an absolute scale.

    Reference: Moalla, Miele, Pyatko, Pascanu & Gulcehre 2024, No Representation, No Trust.

    Args:
        threshold: in the activation's own scale (traced).

    The paper calls this "dead", for tanh only; here it is available for every activation, under its own name.
    """

    def marked(activation: Activation) -> Array:
        spread = jnp.std(by_unit(activation.post), axis=0)
        return _where_finite(spread, spread <= threshold)

    return _fraction_monitor("constant_units", marked)


@metadata(
    paper="Lyle, Zheng, Khetarpal, van Hasselt, Pascanu, Martens & Dabney 2024, Disentangling the causes of plasticity"
)
def linearised_units() -> Monitor:
    """Fraction of hidden units whose pre-activation is positive on the whole batch ("zombie" units).

    ``linearised_i = (min a_i > 0)`` with ``a`` the pre-activation, the minimum over the batch (and the positions of a
    convolution). After a ReLU or a leaky ReLU such a unit is a linear function on this batch.

    Reference: Lyle, Zheng, Khetarpal, van Hasselt, Pascanu, Martens & Dabney 2024, Disentangling the causes of
    plasticity loss in neural networks.

    The fraction can only fall as the batch grows; for tanh, GELU, SiLU and the identity it does not indicate linearity.
    """

    def marked(activation: Activation) -> Array:
        smallest = jnp.min(by_unit(activation.pre), axis=0)
        return _where_finite(activation.pre, smallest > 0)

    return _fraction_monitor("linearised_units", marked)


@metadata(note="no single source; the definition is ours")
def saturated_units(*, threshold: BelowOne = 0.99) -> Monitor:
    """Fraction of hidden units whose post-activation stays near the bounds of a bounded non-linearity.

    ``saturated_i = (min |h_i| > threshold)`` with ``h`` the post-activation, the minimum over the batch (and the
    positions of a convolution). For tanh the slope is ``1 - h^2``: below 0.02 on the whole batch at the default.

    Args:
        threshold: in the activation's own scale (traced), in [0, 1).

    Meant for tanh; for unbounded activations it does not indicate saturation. A unit that jumps between the two ends is
    saturated but not constant (:func:`constant_units`, Moalla et al. 2024). A unit that stays in the middle is constant
    but not saturated. The fraction can only fall as the batch grows. In awjuliani's deep-rl-plasticity the share of
    entries with ``|h| > 0.99`` is called "dead units" for tanh. The definition and its default are ours.
    """

    def marked(activation: Activation) -> Array:
        smallest = jnp.min(jnp.abs(by_unit(activation.post)), axis=0)
        return _where_finite(activation.post, smallest > threshold)

    return _fraction_monitor("saturated_units", marked)


@metadata(note="called dead units in deep-rl-plasticity and, with a threshold, the dormant ratio in MEAL")
def activation_sparsity(*, threshold: NonNegative = 0.0) -> Monitor:
    """Fraction of the entries of the post-activations (samples times units) that are zero.

    ``mean(|h| <= threshold)`` over the samples, positions and units of all hidden layers together, and of each layer.

    Args:
        threshold: in the activation's own scale (traced); 0 counts exact zeros.

    Half of the entries are zero in a freshly initialised ReLU network. Other names are "dead units" in awjuliani's
    deep-rl-plasticity and "dormant ratio" in MEAL (``|h| < 0.01``, so 0.01 here) and in Plasticine's metrics. None of
    these counts units, as :func:`dead_units` and :func:`dormant_units` do. In the overall metric a convolution is
    weighted by its number of positions.
    """

    def marked(activation: Activation) -> Array:
        return _where_finite(activation.post, jnp.abs(activation.post) <= threshold).ravel()

    return _fraction_monitor("activation_sparsity", marked)
