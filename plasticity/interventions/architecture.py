"""Interventions on the network alone: they change its description before it is built."""

import math
from dataclasses import replace
from typing import Literal

from plasticity.config.fields import Repeats, metadata
from plasticity.core.errors import shown
from plasticity.interventions.base import Intervention
from plasticity.networks.spec import Convolution, NetworkSpec


@metadata(
    paper="Lyle et al. 2023, Understanding plasticity in neural networks",
    note="the normalisation is that of Ba, Kiros, Hinton 2016, Layer Normalization",
)
def layer_norm(*, affine: bool = True, bias: bool = True) -> Intervention:
    """Layer normalisation before every hidden non-linearity.

    ``z <- scale (z - mean(z)) / std(z) + offset`` over the units of a layer (for a convolution: over the channels of
    each position). ``affine`` (static): scale and offset are learnt, else they are 1 and 0. ``bias`` (static): the
    hidden layers keep their bias in front of it. Lyle et al. say neither which axes nor whether it is affine; DQN
    Zoo's and flax's default is what stands here.
    """
    return Intervention(
        network=lambda spec: replace(spec, normalisation="layer", affine=affine, bias=bias), sets=("normalisation",)
    )


@metadata(
    paper="Lyle et al. 2024, Normalization and effective learning rates in reinforcement learning",
    note="the normalisation is that of Zhang, Sennrich 2019, Root Mean Square Layer Normalization",
)
def rms_norm(*, affine: bool = True, bias: bool = True) -> Intervention:
    """Root-mean-square normalisation before every hidden non-linearity.

    ``z <- scale z / sqrt(mean(z^2))`` over the units of a layer (for a convolution: over the channels of each
    position). ``affine`` (static): the scale is learnt, else it is 1. ``bias`` (static): the hidden layers keep their
    bias in front of it. Like Zhang and Sennrich's, without an offset.
    """
    return Intervention(
        network=lambda spec: replace(spec, normalisation="rms", affine=affine, bias=bias), sets=("normalisation",)
    )


def halved(spec: NetworkSpec, name: str) -> NetworkSpec:
    """The spec with half as many units in every hidden layer; ``ValueError`` where one has an odd number."""

    def half(units: int) -> int:
        if units % 2:
            raise ValueError(f"{name} with keep_size needs an even number of units in every hidden layer; got {units}")
        return units // 2

    def smaller(layer: Convolution) -> Convolution:
        return replace(layer, filters=half(layer.filters))

    return replace(
        spec,
        convolutions=tuple(smaller(layer) for layer in spec.convolutions),
        widths=tuple(half(width) for width in spec.widths),
        heads=tuple(replace(head, widths=tuple(half(width) for width in head.widths)) for head in spec.heads),
    )


def activation(name: str, *, halve: bool = False, **numbers: float) -> Intervention:
    """The non-linearity called ``name`` in every hidden layer; with ``halve``, in half as many units."""
    settings = tuple((key, float(value)) for key, value in numbers.items())

    def network(spec: NetworkSpec) -> NetworkSpec:
        return replace(halved(spec, name) if halve else spec, activation=name, activation_settings=settings)

    return Intervention(network=network, sets=("activation",))


def finite(**numbers: float) -> None:
    """``ValueError`` that names the number which is infinite or NaN."""
    for key, value in numbers.items():
        if not math.isfinite(value):
            raise ValueError(f"{key}: {value} is not allowed; must be finite")


@metadata(
    paper="Abbas, Zhao, Modayil, White, Machado 2023, Loss of Plasticity in Continual Deep Reinforcement Learning",
    note="the non-linearity is that of Shang, Sohn, Almeida, Lee 2016",
)
def crelu(*, keep_size: bool = False) -> Intervention:
    """Concatenated ReLU in every hidden layer: ``z -> [max(z, 0), max(-z, 0)]``.

    Twice as much leaves a layer as enters its non-linearity, so the next kernel has twice as many rows. ``keep_size``
    (static): the hidden layers have half as many units, so that what leaves a layer has the former width. The default
    is ours. ``ValueError`` for an odd number of units with ``keep_size``, while tracing.
    """
    return activation("crelu", halve=keep_size)


@metadata(paper="Lewandowski, Schuurmans, Machado 2024, Plastic Learning with Deep Fourier Features")
def deep_fourier(*, keep_size: bool = True) -> Intervention:
    """Deep Fourier features in every hidden layer: ``z -> [sin(z), cos(z)]``.

    ``keep_size`` (static): the hidden layers have half as many units, so that what leaves a layer has the former width,
    as in the paper; else it has twice that. A unit of pre-activation 0 gives 1, not 0, but what leaves it is as
    nothing where its outgoing weights are 0. ``ValueError`` for an odd number of units with ``keep_size``, while
    tracing.
    """
    return activation("deep_fourier", halve=keep_size)


@metadata(
    paper="Maas, Hannun, Ng 2013, Rectifier Nonlinearities Improve Neural Network Acoustic Models",
    note="against loss of plasticity Lyle et al. 2023, Understanding plasticity in neural networks",
)
def leaky_relu(*, slope: float = 0.01) -> Intervention:
    """Leaky ReLU in every hidden layer: ``z -> max(z, 0) + slope min(z, 0)``.

    ``slope`` (static) is that on the left. ``ValueError`` if it is not finite.
    """
    finite(slope=slope)
    return activation("leaky_relu", negative_slope=slope)


@metadata(paper="Lillo, Cheney 2025, Activation Function Design Sustains Plasticity in Continual Learning")
def smooth_leaky(*, alpha: float = 0.1, c: float = 5.0, p: float = 3.0) -> Intervention:
    """A leaky non-linearity without a kink in every hidden layer: ``z -> alpha z + (1 - alpha) z sigmoid(c z / p)``.

    ``alpha`` is the slope far to the left, ``c / p`` how fast it becomes 1 on the right; all static. ``ValueError`` if
    one is not finite, or ``p`` is 0.
    """
    finite(alpha=alpha, c=c, p=p)
    if p == 0:
        raise ValueError(f"p: {p} is not allowed; must not be 0")
    return activation("smooth_leaky", alpha=alpha, c=c, p=p)


@metadata(
    paper="Salimans, Kingma 2016, Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep "
    "Neural Networks",
)
def weight_norm() -> Intervention:
    """Length and direction of what comes into each hidden unit are learned apart: ``w = gain v / |v|``.

    The parameter ``kernel`` holds the v, ``gain`` (one for each unit) the lengths, at first ``|v|``: the newborn
    network computes what it would without. Output layers keep their kernels. To zero the outgoing weights of a unit
    (as recycling does) makes the other incoming weights of the next layer's units longer, since their lengths are kept.
    The paper sets gain and bias by the data of a first batch, which would need a forward pass at birth.
    """
    return Intervention(network=lambda spec: replace(spec, parameterisation="weight"), sets=("parameterisation",))


@metadata(
    paper="Miyato, Kataoka, Koyama, Yoshida 2018, Spectral Normalization for Generative Adversarial Networks",
    note="the first dense layer alone: Lyle et al. 2023, Understanding plasticity in neural networks",
)
def spectral_norm(*, layers: Literal["first", "all"] = "first", iterations: Repeats = 20) -> Intervention:
    """Hidden kernels divided by their largest singular value: ``W / sigma_1(W)``.

    ``layers`` (static): the first dense layer ("first"; of each head, where heads share none), or every hidden layer
    ("all"). A convolution's kernel is the matrix ``[height width inputs, units]``. ``iterations`` (static) of the power
    method in every forward pass, from the same start: the paper keeps a vector from one update to the next and does one
    iteration in each; here nothing is kept, so the function depends on the parameters alone, and the estimate falls
    short. Measured on Gaussian 64x64 matrices: after 20 iterations by 0.9 % on average and 6 % in the worst of a
    hundred, after 50 by 0.1 % and 2 %, after 100 by 0.01 % and 0.3 %; on 256x256 after 20 by 1.3 %. On a CPU, 20
    iterations of a 784x256 layer nearly double an update at batch 64, 5 add about a half. ``ValueError`` for unknown
    ``layers``, and while tracing for a network without such a layer.
    """
    if layers not in ("first", "all"):
        raise ValueError(f"layers: {shown(layers)} is not allowed; must be one of first, all")
    kind = "spectral" if layers == "all" else "spectral_first"
    return Intervention(
        network=lambda spec: replace(spec, parameterisation=kind, power_iterations=iterations),
        sets=("parameterisation",),
    )
