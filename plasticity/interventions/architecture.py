"""Interventions on the network alone: they change its description before it is built."""

from dataclasses import replace

from plasticity.fields import card
from plasticity.interventions.base import Intervention


@card(
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
    return Intervention(network=lambda spec: replace(spec, normalisation="layer", affine=affine, bias=bias))


@card(
    paper="Lyle et al. 2024, Normalization and effective learning rates in reinforcement learning",
    note="the normalisation is that of Zhang, Sennrich 2019, Root Mean Square Layer Normalization",
)
def rms_norm(*, affine: bool = True, bias: bool = True) -> Intervention:
    """Root-mean-square normalisation before every hidden non-linearity.

    ``z <- scale z / sqrt(mean(z^2))`` over the units of a layer (for a convolution: over the channels of each
    position). ``affine`` (static): the scale is learnt, else it is 1. ``bias`` (static): the hidden layers keep their
    bias in front of it. Like Zhang and Sennrich's, without an offset.
    """
    return Intervention(network=lambda spec: replace(spec, normalisation="rms", affine=affine, bias=bias))
