"""What the nodes of a network compute, as hashable data. All fields are static.

An operation knows the shape of its output, ``shape(inputs)``, and refuses inputs that do not fit with a ``ValueError``.
Shapes are those of one sample, with the features (channels) on the last axis. ``networks.modules`` computes them.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from plasticity.core.errors import check, check_least, refused
from plasticity.networks.activations import Choice, chosen
from plasticity.networks.layers import INITIALISERS, NORMALISATIONS
from plasticity.networks.nonlinearity import NonLinearity

Shape = tuple[int, ...]
Padding = Literal["VALID", "SAME"]
SPEC = "spec"  # the value of a field that the network's spec decides, and interventions with it


def only(inputs: tuple[Shape, ...], what: str) -> Shape:
    """The shape of a single input; ``ValueError`` for several."""
    if len(inputs) != 1:
        raise ValueError(f"{what} reads one node, got {len(inputs)}")
    return inputs[0]


def axes(shape: Shape, number: int, what: str) -> Shape:
    """The shape, which must have ``number`` axes; else ``ValueError``."""
    if len(shape) != number:
        raise ValueError(f"{what} needs an input with {number} axes, got {shape}")
    return shape


@dataclass(frozen=True)
class Dense:
    """A matrix product, a bias, the spec's normalisation and the spec's non-linearity, in this order.

    With ``flatten`` all axes of a sample are inputs, otherwise only the last one. ``bias`` None leaves the bias to the
    spec. ``scale`` multiplies the initial kernel, and ``initialiser`` "spec" is the spec's. With ``sphere`` the
    incoming weights of each unit keep a Euclidean norm of 1. ``tasks`` > 1 (of an output layer): the kernel has
    ``units`` columns for each task, side by side, and those of the sample's task are the output.
    """

    units: int
    flatten: bool = True
    normalise: bool = True
    activate: bool = True
    bias: bool | None = None
    scale: float = 1.0
    initialiser: str = SPEC
    sphere: bool = False
    tasks: int = 1

    def __post_init__(self) -> None:
        check_least("units", self.units, 1)
        check("initialiser", self.initialiser, (SPEC, *INITIALISERS))

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        shape, features = only(inputs, "a dense layer"), self.units * (copies if self.activate else 1)
        return (features,) if self.flatten else (*shape[:-1], features)


@dataclass(frozen=True)
class Convolution:
    """``filters`` square kernels of side ``kernel``, then a bias, normalisation and non-linearity as in :class:`Dense`.

    ``ValueError`` for a number below 1 or an unknown padding.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: Padding = "VALID"
    normalise: bool = True
    activate: bool = True
    bias: bool | None = None
    scale: float = 1.0
    initialiser: str = SPEC

    def __post_init__(self) -> None:
        for key in ("filters", "kernel", "stride"):
            check_least(f"convolutions.{key}", getattr(self, key), 1)
        check("convolutions.padding", self.padding, ("VALID", "SAME"))
        check("initialiser", self.initialiser, (SPEC, *INITIALISERS))

    @property
    def units(self) -> int:
        return self.filters

    def size(self, inputs: int) -> int:
        """Side length of the output map for an input map of side length ``inputs``."""
        return windows(inputs, self.kernel, self.stride, self.padding)

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        height, width, _ = axes(only(inputs, "a convolution"), 3, "a convolution")
        sides = self.size(height), self.size(width)
        if min(sides) < 1:
            side = min(height, width)
            raise refused("convolutions.kernel", self.kernel, f"at most {side}, the side of its input")
        return (*sides, self.filters * (copies if self.activate else 1))


def windows(inputs: int, window: int, stride: int, padding: str) -> int:
    """The number of windows along an axis of ``inputs`` entries."""
    return -(-inputs // stride) if padding == "SAME" else (inputs - window) // stride + 1


@dataclass(frozen=True)
class Normalise:
    """A normalisation of its own: ``kind`` "spec" is the spec's, which may be none. ``affine`` None: as in the spec."""

    kind: str = SPEC
    affine: bool | None = None

    def __post_init__(self) -> None:
        check("normalise", self.kind, (SPEC, *NORMALISATIONS))

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        return only(inputs, "a normalisation")


@dataclass(frozen=True)
class Activate:
    """A non-linearity that follows no layer of its own, such as the one after a residual sum.

    ``function`` "spec" is the spec's; otherwise it is chosen like the spec's. With ``normalise``, the spec's
    normalisation comes before it.
    """

    function: Choice = SPEC
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.function != SPEC:
            object.__setattr__(self, "function", chosen(self.function, "function"))

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        shape = only(inputs, "a non-linearity")
        times = self.function.copies if isinstance(self.function, NonLinearity) else copies
        return (*shape[:-1], shape[-1] * times)


@dataclass(frozen=True)
class Sum:
    """The sum of its inputs, which must have equal shapes."""

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        if len(inputs) < 2:
            raise ValueError(f"a sum reads at least two nodes, got {len(inputs)}")
        if len(set(inputs)) > 1:
            raise ValueError(f"a sum needs inputs of one shape, got {' and '.join(map(str, inputs))}")
        return inputs[0]


@dataclass(frozen=True)
class Concatenate:
    """Its inputs side by side on the last axis; all other axes must agree."""

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        if len(inputs) < 2:
            raise ValueError(f"a concatenation reads at least two nodes, got {len(inputs)}")
        if len({shape[:-1] for shape in inputs}) > 1:
            raise ValueError(f"a concatenation needs inputs that differ on the last axis only, got {inputs}")
        return (*inputs[0][:-1], sum(shape[-1] for shape in inputs))


@dataclass(frozen=True)
class Flatten:
    """All axes of a sample as one, the features innermost."""

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        return (math.prod(only(inputs, "flatten")),)


@dataclass(frozen=True)
class Pool:
    """The maximum or mean over square windows of a map, or over all positions (``window`` None)."""

    kind: Literal["max", "mean"] = "mean"
    window: int | None = None
    stride: int = 1
    padding: Padding = "VALID"

    def __post_init__(self) -> None:
        check("pool", self.kind, ("max", "mean"))
        check("padding", self.padding, ("VALID", "SAME"))
        check_least("stride", self.stride, 1)
        if self.window is not None:
            check_least("window", self.window, 1)

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        shape = only(inputs, "pooling")
        if self.window is None:
            if len(shape) < 2:
                raise ValueError(f"pooling needs an input with positions, got {shape}")
            return shape[-1:]
        height, width, channels = axes(shape, 3, "pooling")
        sides = [windows(side, self.window, self.stride, self.padding) for side in (height, width)]
        if min(sides) < 1:
            raise refused("window", self.window, f"at most {min(height, width)}, the side of its input")
        return (*sides, channels)


@dataclass(frozen=True)
class Tokens:
    """A map ``[H, W, features]`` as a sequence ``[tokens, features]`` plus a learned vector for each position.

    With ``class_token`` a learned token comes first. Initial positions are ``N(0, deviation^2)``; the class token is 0.
    """

    class_token: bool = False
    deviation: float = 0.02

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        shape = only(inputs, "tokens")
        if len(shape) < 2:
            raise ValueError(f"tokens need an input with positions, got {shape}")
        return (math.prod(shape[:-1]) + self.class_token, shape[-1])


@dataclass(frozen=True)
class Token:
    """One token of a sequence ``[tokens, features]``."""

    number: int = 0

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        length, features = axes(only(inputs, "a token"), 2, "a token")
        if not 0 <= self.number < length:
            raise refused("number", self.number, f"between 0 and {length - 1}")
        return (features,)


@dataclass(frozen=True)
class Attention:
    """Multi-head self-attention over a sequence ``[tokens, features]``; no mask.

    ``softmax(q k^T / sqrt(features / heads)) v``, then an output layer; q, k and v are linear layers with biases.
    """

    heads: int = 4

    def __post_init__(self) -> None:
        check_least("heads", self.heads, 1)

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        shape = axes(only(inputs, "attention"), 2, "attention")
        if shape[-1] % self.heads:
            raise refused("heads", self.heads, f"a divisor of the {shape[-1]} features")
        return shape


@dataclass(frozen=True)
class Recurrent:
    """A recurrent cell of ``units`` units; ``settings`` are those of the cell (``networks.cells``)."""

    cell: str
    units: int
    settings: tuple[tuple[str, float | str | NonLinearity], ...] = ()

    def __post_init__(self) -> None:
        check_least("units", self.units, 1)
        object.__setattr__(self, "settings", tuple(self.settings))

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        only(inputs, "a recurrent cell")
        kind = self.nonlinearity
        return (self.units * outputs_per_unit(self.cell) * (1 if kind is None else kind.copies),)

    @property
    def nonlinearity(self) -> NonLinearity | None:
        """The non-linearity of its output, if it can be chosen."""
        named: Any = dict(self.settings).get("activation")
        return None if named is None else chosen(named)


def outputs_per_unit(cell: str) -> int:
    """How many numbers a unit of the cell has: 2 for ``rtu``, whose units are complex numbers; otherwise 1."""
    check("cell", cell, ("gru", "lstm", "rtu"))
    return 2 if cell == "rtu" else 1


@dataclass(frozen=True)
class Scale:
    """A learned factor for each feature: ``x * s * (initial / stored)``, ``s`` initialised to ``stored``."""

    initial: float = 1.0
    stored: float = 1.0

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        return only(inputs, "a scale")


@dataclass(frozen=True)
class Shift:
    """One more feature, with a constant value."""

    value: float

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        shape = only(inputs, "a shift")
        return (*shape[:-1], shape[-1] + 1)


@dataclass(frozen=True)
class Sphere:
    """The features divided by their Euclidean norm."""

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        del copies
        return only(inputs, "a projection to the sphere")


@dataclass(frozen=True)
class Interpolate:
    """``x + a (y - x)`` of two inputs x and y, with a learned ``a`` for each feature, stored as in :class:`Scale`."""

    initial: float
    stored: float

    def shape(self, inputs: tuple[Shape, ...], copies: int) -> Shape:
        return Sum().shape(inputs, copies)


Operation = (
    Dense
    | Convolution
    | Normalise
    | Activate
    | Sum
    | Concatenate
    | Flatten
    | Pool
    | Tokens
    | Token
    | Attention
    | Recurrent
    | Scale
    | Shift
    | Sphere
    | Interpolate
)
LAYERS = (Dense, Convolution)  # operations with one kernel, whose units are their outputs


def is_layer(operation: Operation) -> bool:
    return isinstance(operation, LAYERS)
