"""Non-linearities with parameters, learned for each unit or for each layer.

Their parameters are vectors or single numbers, so methods treat them like biases: weight decay of the kernels and
projections leave them alone, decay of all parameters does not. A unit that is reset gets the initial values of its own
parameters; those of a layer change only with the whole layer.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import metadata
from plasticity.core.errors import check
from plasticity.core.types import Array, Key, Params
from plasticity.networks.nonlinearity import NonLinearity, one_for_equal_settings, without_parameters

Learned = Literal["unit", "layer"]
MaybeLearned = Literal["no", "unit", "layer"]
Finite = Annotated[float, Field(gt=-math.inf, lt=math.inf)]
Base = Literal["relu", "leaky_relu", "tanh", "gelu", "silu"]


def learning(function: Callable[..., Array], learned: str, **start: float) -> NonLinearity:
    """``function(z, **parameters)`` with parameters that begin at ``start``; fixed at ``start`` if ``learned`` is "no".

    ``ValueError`` for an unknown ``learned``.
    """
    check("learned", learned, ("no", "unit", "layer"))
    if learned == "no":
        return without_parameters(functools.partial(function, **start))

    def initial(key: Key, units: int) -> Params:
        del key
        shape = (units,) if learned == "unit" else ()
        return {name: jnp.full(shape, value, jnp.float32) for name, value in start.items()}

    def apply(parameters: Params, z: Array) -> Array:
        return function(z, **parameters)

    return NonLinearity(apply, initial=initial, shared=learned == "layer")


@one_for_equal_settings
@metadata(
    paper="He, Zhang, Ren, Sun 2015, Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet "
    "Classification",
    checked="the formula in NumPy, also in a network with a slope of its own for each unit",
)
def prelu(*, slope: Finite = 0.25, learned: Learned = "unit") -> NonLinearity:
    """Parametric ReLU: ``max(z, 0) + slope min(z, 0)`` with a learned slope for each unit or for each layer.

    ``slope`` is its initial value. For a convolution, the unit is the channel. The paper does not decay the slopes;
    here weight decay with ``which: all`` does.
    """

    def function(z: Array, slope: Array | float) -> Array:
        return jnp.where(z > 0, z, slope * z)

    check("learned", learned, ("unit", "layer"))
    return learning(function, learned, slope=slope)


@one_for_equal_settings
@metadata(
    paper="Ramachandran, Zoph, Le 2017, Searching for Activation Functions",
    checked="the formula in NumPy, also with a slope of its own for each unit",
)
def swish(*, slope: Finite = 1.0, learned: MaybeLearned = "no") -> NonLinearity:
    """``z sigmoid(slope z)`` with a fixed slope, or a learned one for each unit or for each layer.

    ``slope`` is then its initial value. At 0 the function is ``z / 2``; it tends to ``relu`` as the slope grows.
    """

    def function(z: Array, slope: Array | float) -> Array:
        return z * jax.nn.sigmoid(slope * z)

    return learning(function, learned, slope=slope)


@one_for_equal_settings
@metadata(
    paper="Ziyin, Hartwig, Ueda 2020, Neural Networks Fail to Learn Periodic Functions and How to Fix It",
    checked="the formula in NumPy, also with a frequency of its own for each unit; the default is second-hand",
)
def snake(*, frequency: Finite = 0.5, learned: MaybeLearned = "unit") -> NonLinearity:
    """``z + sin(a z)^2 / a`` with a frequency ``a`` that is fixed, or learned for each unit or for each layer.

    ``frequency`` is the (initial) ``a``; at 0 the function is ``z``. The default is that of summaries of the paper, for
    data without a period; they name 5 to 50 for periodic data. The paper's text could not be read.
    """

    def function(z: Array, frequency: Array | float) -> Array:
        return z + frequency * jnp.square(z * jnp.sinc(frequency * z / jnp.pi))  # the same, and finite at 0

    return learning(function, learned, frequency=frequency)


# Fitted by us with least squares on [-3, 3]: a_0 ... a_5, then b_1 ... b_4.
RATIONALS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "relu": (
        (0.02996822, 0.6169008, 2.374991, 3.06505, 1.523977, 0.2526503),
        (1.191398, 4.40665, 0.9106441, 0.348627),
    ),
    "leaky_relu": (
        (0.02979727, 0.618376, 2.322954, 3.050988, 1.484724, 0.2508673),
        (1.141804, 4.391751, 0.8710913, 0.3469733),
    ),
}


@one_for_equal_settings
@metadata(
    paper="Molina, Schramowski, Kersting 2020, Pade Activation Units: End-to-end Learning of Flexible Activation "
    "Functions in Deep Networks",
    checked="the formula in NumPy; the first coefficients are a least-squares fit of ours, at which the error's "
    "slope is 0",
    note="in RL: Delfosse, Schramowski, Mundt, Molina, Kersting 2024, Adaptive Rational Activations to Boost Deep "
    "Reinforcement Learning",
)
def rational(*, start: Literal["leaky_relu", "relu"] = "leaky_relu", learned: Learned = "layer") -> NonLinearity:
    """A learned rational function, ``sum_{j=0}^5 a_j z^j / (1 + sum_{k=1}^4 |b_k z^k|)``, of each layer or each unit.

    The denominator is at least 1 ("version A" of the authors' code, whose default degrees are 5 and 4). The
    coefficients begin at our least-squares fit to the function ``start`` on [-3, 3], where it is off by at most 0.03
    (at 0); ``leaky_relu`` is the one with slope 0.01. Far outside, the initial function is about ``0.72 z``, on both
    sides.
    """
    check("start", start, RATIONALS)
    numerator, denominator = RATIONALS[start]
    values = {f"numerator_{j}": a for j, a in enumerate(numerator)}
    values |= {f"denominator_{k}": b for k, b in enumerate(denominator, 1)}

    def function(z: Array, **parameters: Array) -> Array:
        above: Any = jnp.zeros_like(z)
        for j in reversed(range(len(numerator))):
            above = above * z + parameters[f"numerator_{j}"]
        below: Any = jnp.zeros_like(z)
        for k in reversed(range(1, len(denominator) + 1)):
            below = (below + jnp.abs(parameters[f"denominator_{k}"])) * jnp.abs(z)
        return above / (1 + below)

    return learning(function, learned, **values)


class Curve:
    """A function of ``z`` and the largest absolute value of its slope."""

    def __init__(self, function: Callable[[Array], Array], steepest: float) -> None:
        self.function, self.steepest = function, steepest

    def slope(self, z: Array) -> Array:
        found: Array = jax.jvp(self.function, (z,), (jnp.ones_like(z),))[1]
        return found


BASES: Mapping[str, Curve] = {
    "relu": Curve(jax.nn.relu, 1.0),
    "leaky_relu": Curve(lambda z: jnp.where(z > 0, z, 0.01 * z), 1.0),
    "tanh": Curve(jnp.tanh, 1.0),
    "gelu": Curve(lambda z: jax.nn.gelu(z, approximate=False), 1.128904),  # at sqrt(2)
    "silu": Curve(jax.nn.silu, 1.099839),
}


@one_for_equal_settings
@metadata(
    paper="Rohani, Khajavi, Chung, Chen, Vaswani 2025, Preserving Plasticity in Continual Learning with Adaptive "
    "Linearity Injection",
    checked="values and slopes in NumPy, and `prelu`, which it is with ReLU; the equation is second-hand, and the "
    "default is ours",
)
def adalin(*, base: Base = "relu", share: Finite = 0.0, learned: Learned = "unit") -> NonLinearity:
    """Adaptive linearisation: ``f(z) + share z g(z)``, ``g(z) = cos(pi |f'(z)| / (2 L))``, with a learned ``share``.

    ``f`` is the ``base`` and ``L`` the largest ``|f'|``, so that ``g`` is 1 where ``f`` is flat and 0 where it is
    steepest; no gradient passes through ``g``. With ``relu`` it is ``prelu``.

    ``share`` is the initial value. The equation is that of a summary of the paper, whose text could not be read; the
    default ``share`` of 0, at which the function is ``f``, is ours.
    """
    check("base", base, BASES)
    curve = BASES[base]

    def function(z: Array, share: Array | float) -> Array:
        gate = jnp.cos(jnp.pi / 2 * jnp.abs(curve.slope(z)) / curve.steepest)
        return curve.function(z) + share * z * jax.lax.stop_gradient(gate)

    check("learned", learned, ("unit", "layer"))
    return learning(function, learned, share=share)


@one_for_equal_settings
@metadata(
    checked="the formula in NumPy; leaky ReLU with a fixed share; the default is ours",
    note="a mix of the linear and the non-linear network",
)
def linear_mix(*, base: Base = "relu", share: Finite = 0.1, learned: MaybeLearned = "unit") -> NonLinearity:
    """``share z + (1 - share) f(z)``: a mix of a linear and a non-linear layer, its share fixed or learned.

    ``f`` is the ``base``, and ``share`` the (initial) share, which is not kept between 0 and 1. With ``relu`` and a
    fixed share it is ``leaky_relu`` with that slope. Unlike ``adalin`` it adds as much of ``z`` where ``f`` is steep.
    The default is ours.
    """
    check("base", base, BASES)

    def function(z: Array, share: Array | float) -> Array:
        return share * z + (1 - share) * BASES[base].function(z)

    return learning(function, learned, share=share)
