"""Interventions on the network alone: they change its spec before it is built."""

import math
from dataclasses import replace
from typing import Literal

from plasticity.config.fields import Repeats, metadata
from plasticity.core.errors import shown
from plasticity.interventions.base import Intervention
from plasticity.networks.activations import ACTIVATIONS
from plasticity.networks.spec import NetworkSpec, halved


@metadata(
    paper="Lyle et al. 2023, Understanding plasticity in neural networks",
    checked="mean and variance by hand, also over the channels of a convolution",
    note="the normalisation is that of Ba, Kiros, Hinton 2016, Layer Normalization",
)
def layer_norm(*, affine: bool = True, bias: bool = True) -> Intervention:
    """Layer normalisation before every hidden non-linearity.

    ``z <- scale (z - mean(z)) / std(z) + offset`` over the units of a layer (for a convolution: over the channels of
    each position).

    Args:
        affine: whether scale and offset are learned (static); otherwise they are 1 and 0.
        bias: whether the hidden layers keep their bias before the normalisation (static).

    Lyle et al. specify neither the axes nor whether the normalisation is affine; the defaults are those of DQN Zoo and
    flax. In ``resnet18`` the normalisation follows each convolution, shortcuts included, so it comes before the sum,
    as in He et al. 2016; in ``impala`` and ``residual_mlp`` it comes before each non-linearity, on the residual stream
    too. In ``simba`` and ``vit`` it comes before the non-linearity inside each block, in addition to the network's own
    normalisations; attention has none. Recurrent cells and ``simba_v2`` have no place for it.
    """
    return Intervention(
        network=lambda spec: replace(spec, normalisation="layer", affine=affine, bias=bias), sets=("normalisation",)
    )


@metadata(
    paper="Lyle et al. 2024, Normalization and effective learning rates in reinforcement learning",
    checked="the root mean square by hand",
    note="the normalisation is that of Zhang, Sennrich 2019, Root Mean Square Layer Normalization",
)
def rms_norm(*, affine: bool = True, bias: bool = True) -> Intervention:
    """Root-mean-square normalisation before every hidden non-linearity.

    ``z <- scale z / sqrt(mean(z^2))`` over the units of a layer (for a convolution: over the channels of each
    position). As in Zhang and Sennrich, there is no offset.

    Args:
        affine: whether the scale is learned (static); otherwise it is 1.
        bias: whether the hidden layers keep their bias before the normalisation (static).

    Its places in residual, attention and recurrent networks are those of :func:`layer_norm`.
    """
    return Intervention(
        network=lambda spec: replace(spec, normalisation="rms", affine=affine, bias=bias), sets=("normalisation",)
    )


def activation(name: str, *, halve: bool = False, **numbers: float) -> Intervention:
    """Use the non-linearity ``name`` in every hidden layer; with ``halve``, with half as many units."""
    kind = ACTIVATIONS[name](**{key: float(value) for key, value in numbers.items()})

    def network(spec: NetworkSpec) -> NetworkSpec:
        smaller = halved(spec, name) if halve else spec
        try:
            return replace(smaller, activation=kind)
        except ValueError as error:
            raise ValueError(f"{name} does not fit this network: {error}") from error

    return Intervention(network=network, sets=("activation",))


def finite(**numbers: float) -> None:
    """Raise a ``ValueError`` that names the number if it is infinite or NaN."""
    for key, value in numbers.items():
        if not math.isfinite(value):
            raise ValueError(f"{key}: {value} is not allowed; must be finite")


@metadata(
    paper="Abbas, Zhao, Modayil, White, Machado 2023, Loss of Plasticity in Continual Deep Reinforcement Learning",
    checked="the formula in NumPy; halved widths by hand",
    note="the non-linearity is that of Shang, Sohn, Almeida, Lee 2016",
)
def crelu(*, keep_size: bool = False) -> Intervention:
    """Concatenated ReLU in every hidden layer: ``z -> [max(z, 0), max(-z, 0)]``.

    The non-linearity doubles the number of outputs of a layer, so the next kernel has twice as many rows.

    Args:
        keep_size: whether the hidden layers have half as many units, so that their outputs keep the original width
            (static). The default is ours.

    Raises:
        ValueError: while tracing, for an odd number of units with ``keep_size``, or if a residual stream would change
            its width.

    In residual blocks whose last layer has no non-linearity (``impala``, ``residual_mlp``, ``simba``, ``simba_v2``,
    ``vit``), the layer after a non-linearity reads twice as many features and the stream keeps its width. ``resnet18``
    is refused, because its stream itself passes non-linearities. With ``keep_size``, a network is refused if a
    non-linearity follows no layer of its own (but a residual sum, say). Attention has no non-linearity; recurrent cells
    keep theirs.
    """
    return activation("crelu", halve=keep_size)


@metadata(
    paper="Lewandowski, Schuurmans, Machado 2024, Plastic Learning with Deep Fourier Features",
    checked="the formula in NumPy; halved widths by hand",
)
def deep_fourier(*, keep_size: bool = True) -> Intervention:
    """Deep Fourier features in every hidden layer: ``z -> [sin(z), cos(z)]``.

    Args:
        keep_size: whether the hidden layers have half as many units, so that their outputs keep the original width, as
            in the paper (static); otherwise the width doubles.

    Raises:
        ValueError: while tracing, for an odd number of units with ``keep_size``, or if a residual stream would change
            its width.

    Residual, attention and recurrent networks are treated as by :func:`crelu`.

    A unit with pre-activation 0 outputs 1, not 0, but this has no effect if its outgoing weights are 0.
    """
    return activation("deep_fourier", halve=keep_size)


@metadata(
    paper="Maas, Hannun, Ng 2013, Rectifier Nonlinearities Improve Neural Network Acoustic Models",
    checked="the formula in NumPy, behind a dense layer",
    note="against loss of plasticity Lyle et al. 2023, Understanding plasticity in neural networks",
)
def leaky_relu(*, slope: float = 0.01) -> Intervention:
    """Leaky ReLU in every hidden layer: ``z -> max(z, 0) + slope min(z, 0)``.

    Args:
        slope: the slope for negative inputs (static).

    Raises:
        ValueError: if the slope is not finite.
    """
    finite(slope=slope)
    return activation("leaky_relu", negative_slope=slope)


@metadata(
    paper="Lillo, Cheney 2025, Activation Function Design Sustains Plasticity in Continual Learning",
    checked="the formula in NumPy, behind a dense layer; equation and defaults are second-hand",
)
def smooth_leaky(*, alpha: float = 0.1, c: float = 5.0, p: float = 3.0) -> Intervention:
    """A smooth leaky non-linearity in every hidden layer: ``z -> alpha z + (1 - alpha) z sigmoid(c z / p)``.

    Args:
        alpha: the slope far to the left (static).
        c: with ``p``, sets how fast the slope becomes 1 on the right, ``c / p`` (static).
        p: see ``c`` (static).

    Raises:
        ValueError: if one of them is not finite, or ``p`` is 0.

    The formula and the defaults are second-hand; the paper's text could not be read.
    """
    finite(alpha=alpha, c=c, p=p)
    if p == 0:
        raise ValueError(f"p: {p} is not allowed; must not be 0")
    return activation("smooth_leaky", alpha=alpha, c=c, p=p)


@metadata(
    paper="Salimans, Kingma 2016, Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep "
    "Neural Networks",
    checked="one layer and its gradient by hand; the initial outputs are those without it",
)
def weight_norm() -> Intervention:
    """Weight normalisation of each hidden unit's incoming weights: ``w = gain v / |v|``.

    Length and direction are learned separately. The parameter ``kernel`` holds the ``v``. ``gain`` (one per unit) holds
    the lengths, initially ``|v|``, so the initial network computes the same function as without this intervention.
    Output layers keep their kernels. Zeroing the outgoing weights of a unit (as recycling does) lengthens the other
    incoming weights of the next layer's units, because their lengths are kept. The paper initialises gain and bias from
    the data of a first batch, which would need a forward pass at initialisation.

    All hidden convolutions and dense layers are normalised, shortcuts and embeddings included. The kernels of attention
    and of recurrent cells are unchanged. ``simba_v2``, whose incoming weights already have norm 1, is refused.
    """
    return Intervention(network=lambda spec: replace(spec, parameterisation="weight"), sets=("parameterisation",))


@metadata(
    paper="Miyato, Kataoka, Koyama, Yoshida 2018, Spectral Normalization for Generative Adversarial Networks",
    checked="NumPy's singular values, and the gradient from its singular vectors",
    note="the first dense layer alone: Lyle et al. 2023, Understanding plasticity in neural networks",
)
def spectral_norm(*, layers: Literal["first", "all"] = "first", iterations: Repeats = 20) -> Intervention:
    """Spectral normalisation: hidden kernels divided by their largest singular value, ``W / sigma_1(W)``.

    A convolution's kernel is the matrix ``[height width inputs, units]``.

    Args:
        layers: the first dense layer ("first"; that of each head, if heads share none), or every hidden layer ("all")
            (static).
        iterations: steps of the power method in every forward pass (static).

    Raises:
        ValueError: for unknown ``layers`` and, while tracing, for a network without such a layer.

    "all" takes every convolution and dense layer but the output layers, shortcuts and embeddings included; the
    kernels of attention and of recurrent cells are unchanged, and ``simba_v2`` is refused, because its incoming weights
    have norm 1. "first" is the dense layer after the convolutions of ``impala``, the embedding of ``simba`` and the
    first dense layer inside a block of ``vit``.

    The power method always starts from the same vector. The paper keeps the vector between updates and does one
    iteration in each. Here nothing is kept, so the function depends on the parameters alone, and ``sigma_1`` is
    underestimated: for Gaussian 64x64 matrices by about 1 % on average after 20 iterations and 0.1 % after 50; in the
    worst of a hundred matrices by less than 10 % and 4 %. ``plasticity bench interventions`` measures what it costs.
    """
    if layers not in ("first", "all"):
        raise ValueError(f"layers: {shown(layers)} is not allowed; must be one of first, all")
    kind = "spectral" if layers == "all" else "spectral_first"
    return Intervention(
        network=lambda spec: replace(spec, parameterisation=kind, power_iterations=iterations),
        sets=("parameterisation",),
    )
