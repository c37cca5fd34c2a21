"""Residual networks: ResNet-18, IMPALA, residual multilayer perceptrons, SimBa and SimBaV2."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from plasticity.config.fields import Few, Size, Widths, metadata
from plasticity.networks.graph import OBSERVATION, Node, layer
from plasticity.networks.operations import (
    Activate,
    Convolution,
    Dense,
    Interpolate,
    Normalise,
    Operation,
    Pool,
    Scale,
    Shift,
    Sphere,
    Sum,
)
from plasticity.networks.presets import AFFINE, is_channels_first, pixel_scale
from plasticity.networks.spec import AnActivation, InitialiserName, Method, NetworkSpec, NormalisationName

Layout = Literal["auto", "channels_first", "channels_last"]


def in_a_row(prefix: str, operations: dict[str, Operation], reads: str) -> list[Node]:
    """Nodes named ``PREFIX_NAME``, one after the other; the first one reads ``reads``."""
    made: list[Node] = []
    for name, operation in operations.items():
        made.append(layer(f"{prefix}_{name}", operation, made[-1].name if made else reads))
    return made


def joined(name: str, branch: Sequence[Node], skip: str) -> list[Node]:
    """The branch and its sum with the node ``skip``."""
    return [*branch, Node(name, Sum(), (branch[-1].name, skip))]


def basic_block(name: str, reads: str, filters: int, stride: int, project: bool) -> list[Node]:
    """Two convolutions and a shortcut, which is a 1x1 convolution if ``project``; then the non-linearity."""
    branch = in_a_row(
        name,
        {
            "conv_0": Convolution(filters, 3, stride, "SAME"),
            "conv_1": Convolution(filters, 3, 1, "SAME", activate=False),
        },
        reads,
    )
    shortcut: list[Node] = []
    if project:
        shortcut = [layer(f"{name}_shortcut", Convolution(filters, 1, stride, "SAME", activate=False), reads)]
    end = joined(f"{name}_sum", branch, shortcut[0].name if project else reads)
    return [*shortcut, *end, layer(name, Activate(normalise=False), f"{name}_sum")]


@metadata(only_with=AFFINE)
def resnet18(
    observation: Any,
    outputs: int,
    *,
    width: Size = 64,
    layout: Layout = "auto",
    activation: AnActivation = "relu",
    normalisation: NormalisationName = "layer",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "he",
    convolution: Method = "auto",
) -> NetworkSpec:
    """ResNet-18 for small images: 17 convolutions in eight residual blocks, mean pooling; all settings static.

    A 3x3 convolution of ``width`` filters at stride 1, then four stages of two blocks with ``width`` times 1, 2, 4 and
    8 filters; stages 2 to 4 start at stride 2 with a 1x1 convolution on the shortcut. The normalisation follows every
    convolution, and the non-linearity comes after the sum, as in He, Zhang, Ren, Sun 2016, "Deep Residual Learning for
    Image Recognition". With the defaults and 100 outputs it has the 11,224,932 parameters of Dohare et al. 2024, "Loss
    of plasticity in deep continual learning", which uses batch normalisation, without the max pooling of the original.

    The default normalises the channels of each position, which needs no batch. With ``normalisation: batch``, for the
    classifier and the regressor, each lane has the statistics of its own minibatch, in predictions too. Images are
    ``[H, W, channels]`` or ``[channels, H, W]`` (``layout``); unsigned bytes are divided by 255.
    """
    first = is_channels_first(observation, layout)
    nodes = [layer("stem", Convolution(width, 3, 1, "SAME"))]
    for stage in range(4):
        for number in range(2):
            changes = stage > 0 and number == 0
            block = (f"stage_{stage}_block_{number}", nodes[-1].name, width * 2**stage, 1 + changes, changes)
            nodes += basic_block(*block)
    nodes.append(layer("pool", Pool("mean"), nodes[-1].name))
    style = (activation, normalisation, affine, bias, initialiser)
    scale = pixel_scale(observation)
    return NetworkSpec(observation.shape, outputs, (), (), *style, first, scale, convolution, body=tuple(nodes))


@metadata(only_with=AFFINE)
def impala(
    observation: Any,
    outputs: int,
    *,
    width: Size = 1,
    filters: Widths = (16, 32, 32),
    blocks: Few = 2,
    widths: Widths = (256,),
    layout: Layout = "auto",
    activation: AnActivation = "relu",
    normalisation: NormalisationName = "none",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "he",
    convolution: Method = "auto",
) -> NetworkSpec:
    """The residual network of IMPALA: 15 convolutions in three stages, and a dense layer; all settings static.

    Each stage is a 3x3 convolution, max pooling over 3x3 windows at stride 2, and ``blocks`` residual blocks
    ``x + conv(f(conv(f(x))))``. ``width`` multiplies the ``filters``. A normalisation comes before every non-linearity
    (as in acme). With the defaults it has 626,256 parameters for 64x64x3 images, 15 actions and a value.

    Espeholt et al. 2018, "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner Architectures".
    The initialisation is ours. Pixels (uint8) are divided by 255; ``layout`` as in ``nature``.
    """
    first = is_channels_first(observation, layout)
    nodes: list[Node] = []
    for stage, number in enumerate(filters):
        conv = Convolution(width * number, 3, 1, "SAME", normalise=False, activate=False)
        reads = nodes[-1].name if nodes else OBSERVATION
        nodes += in_a_row(f"stage_{stage}", {"conv": conv, "pool": Pool("max", 3, 2, "SAME")}, reads)
        for block in range(blocks):
            name, before = f"stage_{stage}_block_{block}", nodes[-1].name
            inner = Convolution(width * number, 3, 1, "SAME")
            parts: dict[str, Operation] = {"relu": Activate(), "conv_0": inner, "conv_1": conv}
            nodes += joined(name, in_a_row(name, parts, before), before)
    nodes.append(layer("relu", Activate(), nodes[-1].name))
    style = (activation, normalisation, affine, bias, initialiser)
    scale = pixel_scale(observation)
    return NetworkSpec(observation.shape, outputs, (), widths, *style, first, scale, convolution, body=tuple(nodes))


@metadata(only_with=AFFINE)
def residual_mlp(
    observation: Any,
    outputs: int,
    *,
    width: Size = 256,
    blocks: Few = 2,
    expansion: Few = 1,
    activation: AnActivation = "relu",
    normalisation: NormalisationName = "layer",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "he",
) -> NetworkSpec:
    """Dense residual blocks on the flattened observation; all settings static.

    ``x_0 = W o``; ``x <- x + W_2 f(n(W_1 f(n(x))))`` for each of the ``blocks``, ``n`` the normalisation and ``W_1``
    with ``expansion`` times ``width`` units; then ``f(n(x))``.

    The pre-activation form of He, Zhang, Ren, Sun 2016, "Identity Mappings in Deep Residual Networks".
    """
    linear = Dense(width, normalise=False, activate=False)
    nodes = [layer("embedding", linear)]
    for block in range(blocks):
        name, before = f"block_{block}", nodes[-1].name
        parts: dict[str, Operation] = {"relu": Activate(), "dense_0": Dense(expansion * width), "dense_1": linear}
        nodes += joined(name, in_a_row(name, parts, before), before)
    nodes.append(layer("relu", Activate(), nodes[-1].name))
    style = (activation, normalisation, affine, bias, initialiser)
    return NetworkSpec(observation.shape, outputs, (), (), *style, scale=pixel_scale(observation), body=tuple(nodes))


@metadata(only_with=AFFINE)
def multi_skip(
    observation: Any,
    outputs: int,
    *,
    encoder: Literal["none", "nature"] = "none",
    width: Size = 512,
    blocks: Few = 1,
    layout: Layout = "auto",
    activation: AnActivation = "relu",
    normalisation: NormalisationName = "layer",
    affine: bool = True,
    bias: bool = True,
    initialiser: InitialiserName = "orthogonal",
    convolution: Method = "auto",
) -> NetworkSpec:
    """A residual network in which every block also receives what the first layer made; all settings static.

    ``x_0 = n(W o)``; ``x <- x + n(W_2 f(n(W_1 f(x)))) + x_0`` for each of the ``blocks``, ``n`` the normalisation; then
    ``f(n(V x))``. The gradient thus reaches the first layer from every block without passing through the others.
    ``encoder`` "nature": ``o`` are the flattened features of the three convolutions of ``nature``; images smaller than
    36x36 are too small.

    Creus Castanyer et al. 2025, "Stable Gradients for Stable Learning at Scale in Deep Reinforcement Learning". The
    equation is that of the released code, where the normalisation of a convolution is over the whole map (here over the
    channels of each position). The paper's optimizer, Kron, is in no library that we depend on.
    """
    first = is_channels_first(observation, layout) if encoder == "nature" else False
    nodes: list[Node] = []
    if encoder == "nature":
        convolutions = {f"conv_{i}": Convolution(*size) for i, size in enumerate(((32, 8, 4), (64, 4, 2), (64, 3, 1)))}
        nodes = in_a_row("encoder", dict(convolutions), OBSERVATION)
    start = "embedding"
    nodes.append(layer(start, Dense(width, activate=False), nodes[-1].name if nodes else OBSERVATION))
    for block in range(blocks):
        name, before = f"block_{block}", nodes[-1].name
        parts: dict[str, Operation] = {
            "relu": Activate(normalise=False),
            "dense_0": Dense(width),
            "dense_1": Dense(width, activate=False),
        }
        branch = in_a_row(name, parts, before)
        nodes += [*branch, Node(name, Sum(), (branch[-1].name, before, start))]
    nodes.append(layer("head", Dense(width), nodes[-1].name))
    style = (activation, normalisation, affine, bias, initialiser)
    scale = pixel_scale(observation)
    return NetworkSpec(observation.shape, outputs, (), (), *style, first, scale, convolution, body=tuple(nodes))


def simba(
    observation: Any,
    outputs: int,
    *,
    width: Size = 512,
    blocks: Few = 2,
    expansion: Few = 4,
    activation: AnActivation = "relu",
    bias: bool = True,
) -> NetworkSpec:
    """SimBa: residual blocks with layer normalisation before each, and one at the end; all settings static.

    ``z = W o``; ``z <- z + W_2 relu(W_1 LN(z))`` for each of the ``blocks``, ``W_1`` with ``expansion`` times ``width``
    units; then ``LN(z)``. ``W`` and the output layer are orthogonal, ``W_1`` and ``W_2`` He normal. The paper's critic
    has width 512 and two blocks, its actor width 128 and one block. Its running normalisation of observations is a
    setting of the agent here (``normalise: running``).

    Lee et al. 2025, "SimBa: Simplicity Bias for Scaling Up Parameters in Deep Reinforcement Learning". Its He
    initialisation is truncated at two standard deviations.
    """
    orthogonal, unit = "orthogonal", 1.0 / math.sqrt(2.0)
    embedding = Dense(width, normalise=False, activate=False, scale=unit, initialiser=orthogonal)
    nodes = [layer("embedding", embedding)]
    for block in range(blocks):
        name, before = f"block_{block}", nodes[-1].name
        parts: dict[str, Operation] = {
            "norm": Normalise("layer", affine=True),
            "dense_0": Dense(expansion * width, initialiser="he"),
            "dense_1": Dense(width, normalise=False, activate=False, initialiser="he"),
        }
        nodes += joined(name, in_a_row(name, parts, before), before)
    nodes.append(layer("norm", Normalise("layer", affine=True), nodes[-1].name))
    return NetworkSpec(
        observation.shape,
        outputs,
        activation=activation,
        bias=bias,
        initialiser=orthogonal,
        scale=pixel_scale(observation),
        output_scale=unit,
        body=tuple(nodes),
    )


def simba_v2(
    observation: Any,
    outputs: int,
    *,
    width: Size = 512,
    blocks: Few = 2,
    expansion: Few = 4,
    shift: float = 3.0,
    activation: AnActivation = "relu",
) -> NetworkSpec:
    """SimBaV2: features and weights on the unit hypersphere; all settings static.

    With ``l(x) = x / |x|`` and learned factors ``s`` and ``a``, one per feature:
    ``h = l(s W l([o; shift]))``; ``u = l(W_2 relu(s W_1 h))``, ``h <- l(h + a (u - h))`` for each of the ``blocks``;
    then ``s W h`` and the output layer. Kernels are orthogonal, without biases, and the incoming weights of every unit
    are rescaled to norm 1 after each update, the output layer's too. The factors start at ``sqrt(2 / width)``
    (embedding), ``sqrt(2 / (expansion width))`` (blocks), 1 (head) and ``1 / (blocks + 1)`` (``a``).

    The paper's critic has width 512 and two blocks, its actor width 128 and one block. Its running normalisation of
    observations is a setting of the agent here (``normalise: running``); its categorical critic and its scaled rewards
    are also the agent's.

    Lee et al. 2025, "Hyperspherical Normalization for Scalable Deep Reinforcement Learning".
    """

    def linear(units: int) -> Dense:
        return Dense(units, normalise=False, activate=False, bias=False, sphere=True)

    factor = math.sqrt(2.0 / width)
    start: dict[str, Operation] = {
        "shift": Shift(shift),
        "input": Sphere(),
        "dense": linear(width),
        "scale": Scale(factor, factor),
        "sphere": Sphere(),
    }
    nodes = in_a_row("embedding", start, OBSERVATION)
    for block in range(blocks):
        name, before, inner = f"block_{block}", nodes[-1].name, math.sqrt(2.0 / (expansion * width))
        parts: dict[str, Operation] = {
            "dense_0": linear(expansion * width),
            "scale": Scale(inner, inner),
            "relu": Activate(normalise=False),
            "dense_1": linear(width),
            "sphere": Sphere(),
        }
        branch = in_a_row(name, parts, before)
        mixed = Node(f"{name}_mix", Interpolate(1.0 / (blocks + 1), 1.0 / math.sqrt(width)), (before, branch[-1].name))
        nodes += [*branch, mixed, layer(name, Sphere(), mixed.name)]
    nodes += in_a_row("head", {"dense": linear(width), "scale": Scale()}, nodes[-1].name)
    return NetworkSpec(
        observation.shape,
        outputs,
        activation=activation,
        initialiser="orthogonal",
        scale=pixel_scale(observation),
        sphere=True,
        body=tuple(nodes),
    )
