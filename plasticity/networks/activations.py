"""Non-linearities without parameters.

A member is a function of its settings (all static) that returns a ``NonLinearity``. Equal settings give the same
record, so that specs with the same non-linearity are equal. The family is ``ACTIVATIONS``, which also has the
non-linearities with parameters (``networks.learned_activations``).
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import metadata
from plasticity.core.errors import check
from plasticity.core.types import Array
from plasticity.networks.learned_activations import adalin, linear_mix, prelu, rational, snake, swish
from plasticity.networks.nonlinearity import NonLinearity, one_for_equal_settings, without_parameters

Finite = Annotated[float, Field(gt=-math.inf, lt=math.inf)]
Choice = str | NonLinearity | Callable[[], NonLinearity]


@one_for_equal_settings
@metadata(checked="the formula in NumPy; the slope at 0 by PyTorch's rule")
def relu() -> NonLinearity:
    """``max(z, 0)``; the slope at 0 is 0."""
    return without_parameters(jax.nn.relu)


@one_for_equal_settings
@metadata(
    paper="Maas, Hannun, Ng 2013, Rectifier Nonlinearities Improve Neural Network Acoustic Models",
    checked="the formula in NumPy; the slope at 0 by PyTorch's rule",
)
def leaky_relu(*, negative_slope: Finite = 0.01) -> NonLinearity:
    """``z`` if it is above 0, else ``negative_slope z``; the slope at 0 is ``negative_slope``, as in PyTorch.

    In ``jax.nn.leaky_relu`` it is 1. This matters if pre-activations are exactly 0, as they all are at the first step
    of a streaming agent, whose first normalised observation is 0. The slope of ``relu`` and of both halves of ``crelu``
    at 0 is 0 in both libraries.
    """
    return without_parameters(lambda z: jnp.where(z > 0, z, negative_slope * z))


@one_for_equal_settings
@metadata(checked="the formula in NumPy")
def tanh() -> NonLinearity:
    """The hyperbolic tangent."""
    return without_parameters(jnp.tanh)


@one_for_equal_settings
@metadata(paper="Hendrycks, Gimpel 2016, Gaussian Error Linear Units (GELUs)", checked="the formula in NumPy")
def gelu() -> NonLinearity:
    """``z Phi(z)``, ``Phi`` the exact normal distribution function."""
    return without_parameters(exact_gelu)


@one_for_equal_settings
@metadata(paper="Hendrycks, Gimpel 2016, Gaussian Error Linear Units (GELUs)", checked="the formula in NumPy")
def silu() -> NonLinearity:
    """``z sigmoid(z)``: ``swish`` with a slope of 1."""
    return without_parameters(jax.nn.silu)


@one_for_equal_settings
@metadata(
    paper="Clevert, Unterthiner, Hochreiter 2016, Fast and Accurate Deep Network Learning by Exponential Linear "
    "Units (ELUs)",
    checked="the formula in NumPy; the slope at 0 by PyTorch's rule",
)
def elu() -> NonLinearity:
    """``z`` if it is above 0, else ``exp(z) - 1``."""
    return without_parameters(jax.nn.elu)


@one_for_equal_settings
@metadata(checked="the formula in NumPy")
def identity() -> NonLinearity:
    """``z``: a linear network."""
    return without_parameters(lambda z: z)


@one_for_equal_settings
@metadata(
    paper="Abbas, Zhao, Modayil, White, Machado 2023, Loss of Plasticity in Continual Deep Reinforcement Learning",
    checked="the formula in NumPy; the slope at 0 by PyTorch's rule",
    note="Shang, Sohn, Almeida, Lee 2016, Understanding and Improving Convolutional Neural Networks via Concatenated "
    "Rectified Linear Units",
)
def crelu() -> NonLinearity:
    """Concatenated ReLU, ``[max(z, 0), max(-z, 0)]`` on the last axis, which doubles.

    The widths of a network count ``z``: halve them to keep the size (or use the intervention ``crelu``).
    """
    return without_parameters(lambda z: jnp.concatenate([jax.nn.relu(z), jax.nn.relu(-z)], axis=-1), copies=2)


@one_for_equal_settings
@metadata(
    paper="Lewandowski, Schuurmans, Machado 2024, Plastic Learning with Deep Fourier Features",
    checked="the formula in NumPy",
)
def deep_fourier() -> NonLinearity:
    """``[sin(z), cos(z)]`` on the last axis, which doubles.

    The widths of a network count ``z``: halve them to keep the size, as the paper does (or use the intervention
    ``deep_fourier``).
    """
    return without_parameters(lambda z: jnp.concatenate([jnp.sin(z), jnp.cos(z)], axis=-1), copies=2)


@one_for_equal_settings
@metadata(
    paper="Lillo, Cheney 2025, Activation Function Design Sustains Plasticity in Continual Learning",
    checked="the formula in NumPy; equation and defaults are second-hand",
)
def smooth_leaky(*, alpha: Finite = 0.1, c: Finite = 5.0, p: Finite = 3.0) -> NonLinearity:
    """``alpha z + (1 - alpha) z sigmoid(c z / p)``: its slope tends to 1 on the right and to ``alpha`` on the left.

    At 0 the slope is ``(1 + alpha) / 2``. ``ValueError`` if ``p`` is 0. Formula and defaults are second-hand; the
    paper's text could not be read.
    """
    if p == 0:
        raise ValueError(f"p: {p} is not allowed; must not be 0")
    return without_parameters(lambda z: alpha * z + (1 - alpha) * z * jax.nn.sigmoid(c * z / p))


@one_for_equal_settings
@metadata(
    paper="Vitvitskyi, Boratko, Grcic, Pascanu, Shah, Velickovic 2026, Mining Generalizable Activation Functions",
    checked="the formula in NumPy; equation and default are second-hand",
)
def gelu_sine(*, size: Finite = 0.1) -> NonLinearity:
    """``gelu(z) + size sin(z)``, found by an evolutionary search for functions that generalise to other inputs.

    The paper's GELUSine, as summaries of the paper give it; the paper's text could not be read. The search was not for
    plasticity.
    """
    return without_parameters(lambda z: exact_gelu(z) + size * jnp.sin(z))


@one_for_equal_settings
@metadata(
    paper="Vitvitskyi, Boratko, Grcic, Pascanu, Shah, Velickovic 2026, Mining Generalizable Activation Functions",
    checked="the formula in NumPy; equation and default are second-hand",
)
def gelu_sinc(*, size: Finite = 0.5) -> NonLinearity:
    """``gelu(z) (1 + size sin(pi z) / (pi z))``, found by the search that found ``gelu_sine``.

    The paper's GELU-Sinc-Perturbation, as summaries of the paper give it; the paper's text could not be read.
    """
    return without_parameters(lambda z: exact_gelu(z) * (1 + size * jnp.sinc(z)))


def exact_gelu(z: Array) -> Array:
    return jax.nn.gelu(z, approximate=False)


ACTIVATIONS: Mapping[str, Callable[..., NonLinearity]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "gelu": gelu,
    "silu": silu,
    "swish": swish,
    "elu": elu,
    "identity": identity,
    "linear": identity,
    "crelu": crelu,
    "deep_fourier": deep_fourier,
    "smooth_leaky": smooth_leaky,
    "prelu": prelu,
    "snake": snake,
    "rational": rational,
    "adalin": adalin,
    "linear_mix": linear_mix,
    "gelu_sine": gelu_sine,
    "gelu_sinc": gelu_sinc,
}


def chosen(given: Choice, key: str = "activation") -> NonLinearity:
    """The non-linearity: given as such, by the name of a built-in one, or as a member with its settings bound.

    ``ValueError`` that begins with ``key`` for an unknown name.
    """
    if isinstance(given, NonLinearity):
        return given
    if isinstance(given, str):
        check(key, given, ACTIVATIONS)
        given = ACTIVATIONS[given]
    return given()
