"""Parts of hidden layers: initialisers, parameterisations and normalisations, by name."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from plasticity.core import linalg
from plasticity.core.types import Array, Key


def parameter(module: nn.Module, name: str, init: Callable[..., Array], *args: Any) -> Any:
    """The module's parameter of this name, drawn by ``init(key, *args)`` while a network is initialised.

    ``args`` is the shape, if the initialiser takes one. Applying a network only compares it; ``module.param`` would
    trace ``init`` every time, an eighth of the time that tracing a program takes. ``ValueError`` for another shape.
    """
    if module.is_initializing() or not module.has_variable("params", name):
        return module.param(name, init, *args)
    value: Any = module.get_variable("params", name)
    if args and isinstance(args[0], tuple) and jnp.shape(value) != args[0]:
        place = "/".join((*module.path, name))
        raise ValueError(f"{place}: shape {list(jnp.shape(value))} is not allowed; must be {list(args[0])}")
    return value


class Intervals(NamedTuple):
    """Interval-wise dropout (static): a hidden value is kept with a probability that depends on its pre-activation.

    ``keep[i]`` holds for ``bounds[i - 1] < z <= bounds[i]``, the first and the last without a lower and an upper bound.
    """

    bounds: tuple[float, ...]  # ascending
    keep: tuple[float, ...]  # one more

    def probabilities(self, z: Array) -> Array:
        """The probability for each pre-activation, in the shape of ``z``."""
        found = jnp.full_like(z, self.keep[0])
        for bound, keep in zip(self.bounds, self.keep[1:], strict=True):
            found = jnp.where(z > bound, keep, found)
        return found


class Dropout(nn.Module):
    """The factors ``[..., units]`` of the values of hidden layers under interval-wise dropout.

    Its parameter ``seed``, which is not trained, is 0 except during an update. At 0 the factors are their expected
    values, the probabilities; otherwise it determines which values are kept (1) and which are dropped (0), unscaled.
    """

    intervals: Intervals

    def setup(self) -> None:
        self.seed = parameter(self, "seed", nn.initializers.zeros, ())

    def __call__(self, z: Array, number: int) -> Array:
        """The factors for the pre-activations ``z`` of the layer ``number`` (static)."""
        z, seed = jax.lax.stop_gradient((z, self.seed))
        expected = self.intervals.probabilities(z)

        def drawn() -> Array:
            key = jax.random.fold_in(jax.random.key(number), jax.lax.bitcast_convert_type(seed, jnp.uint32))
            return (jax.random.uniform(key, z.shape) < expected).astype(z.dtype)

        made: Array = jax.lax.cond(seed == 0, lambda: expected, drawn)
        return made


def sparse(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """For each output unit ``ceil(0.9 fan_in)`` random inputs are 0, the others ``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``.

    Elsayed, Vasan, Mahmood 2024, "Streaming Deep Reinforcement Learning Finally Works". ``shape`` (static) is
    ``[..., inputs, outputs]``; ``fan_in`` is the product of all but the last. This is the paper's code, except that
    the number of zeros is exact; a floating-point ``ceil`` would depend on rounding.
    """
    fan_in, outputs = math.prod(shape[:-1]), shape[-1]
    zeros = -(-9 * fan_in // 10)
    draw, order = jax.random.split(key)
    bound = 1.0 / math.sqrt(fan_in)
    kernel = jax.random.uniform(draw, (fan_in, outputs), dtype, -bound, bound)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(order, (fan_in, outputs)), axis=0), axis=0)
    return jnp.where(rank < zeros, 0, kernel).reshape(shape)


def orthogonal(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """``sqrt(2)`` times a matrix with orthonormal rows or columns, whichever are fewer (see ``linalg.orthogonal``)."""
    return linalg.orthogonal(key, shape, math.sqrt(2.0)).astype(dtype)


INITIALISERS: Mapping[str, Callable[..., Array]] = {
    "he": jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal"),  # N(0, 2 / fan_in), not truncated
    "lecun": jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal"),  # N(0, 1 / fan_in), not truncated
    "glorot": jax.nn.initializers.glorot_uniform(),  # U(-b, b), b = sqrt(6 / (fan_in + fan_out))
    "pytorch": jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),  # U(-b, b), b = 1 / sqrt(fan_in)
    "orthogonal": orthogonal,
    "sparse": sparse,
}


PARAMETERISATIONS = ("none", "weight", "spectral", "spectral_first")


def unit_norms(kernel: Array) -> Array:
    """The Euclidean norm of each unit's incoming weights, ``[units]``, for a kernel ``[..., units]``."""
    return jnp.sqrt(jnp.square(kernel).sum(tuple(range(kernel.ndim - 1))))


def weight_normalised(kernel: Array, gain: Array) -> Array:
    """``gain v / |v|`` for the incoming weights ``v`` of each unit, ``[..., units]``; zeros stay zero.

    Salimans, Kingma 2016, "Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural
    Networks".
    """
    squares = jnp.square(kernel).sum(tuple(range(kernel.ndim - 1)))
    return kernel * (gain * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)))


def spectral_norm(kernel: Array, iterations: int) -> Array:
    """The largest singular value of a kernel ``[..., units]`` as a matrix with the units as columns, float32[].

    ``v <- W^T u / |W^T u|``, ``u <- W v / |W v|``, ``iterations`` (static) times from a fixed random ``u``; then
    ``u^T W v``, differentiated with u and v held fixed. The estimate is a lower bound. Miyato, Kataoka,
    Koyama, Yoshida 2018, "Spectral Normalization for Generative Adversarial Networks", keep u between updates and do
    one iteration in each; here there is no state.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    fixed = jax.lax.stop_gradient(matrix)

    def unit(x: Array) -> Array:
        return x / jnp.maximum(jnp.linalg.norm(x), jnp.finfo(jnp.float32).tiny)

    def iterate(_: Any, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        v = unit(pair[0] @ fixed)
        return unit(fixed @ v), v

    start = jax.random.normal(jax.random.key(0), matrix.shape[:1])
    u, v = jax.lax.fori_loop(0, iterations, iterate, (start, jnp.zeros(matrix.shape[1:])))
    return u @ matrix @ v


def spectrally_normalised(kernel: Array, iterations: int) -> Array:
    """The kernel divided by its :func:`spectral_norm`; zeros stay zero."""
    sigma = spectral_norm(kernel, iterations)
    return kernel / jnp.where(sigma > 0, sigma, 1.0)


NORMALISATIONS = ("none", "layer", "rms", "map", "batch")
NORMALISATIONS_WITH_PARAMETERS = ("layer", "rms", "batch")


class Normalisation(nn.Module):
    """Normalises pre-activations ``z[B, ..., units]``: ``scale * (z - mean) / sqrt(variance + eps) + offset``.

    * ``layer``: over the last axis: the features of a dense layer, or the channels at each position of a convolution;
      eps 1e-6. Ba, Kiros, Hinton 2016, "Layer Normalization".
    * ``rms``: the same axis, ``scale * z / sqrt(mean(z^2) + eps)``; eps 1e-6. Zhang, Sennrich 2019, "Root Mean Square
      Layer Normalization".
    * ``map``: over all axes of a sample, without learnable parameters; eps 1e-5. Elsayed, Vasan, Mahmood 2024,
      "Streaming Deep Reinforcement Learning Finally Works".
    * ``batch``: over all axes but the last: the rows of the batch and, of a convolution, the positions; eps 1e-5. The
      statistics are always those of the batch at hand, also when predicting; there are no running averages. Ioffe,
      Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift".

    ``affine`` (static): scale and offset are learnable, one for each unit, initially 1 and 0; otherwise they are
    constant.
    """

    kind: str
    affine: bool

    @nn.compact
    def __call__(self, z: Array) -> Array:
        axes = {"map": tuple(range(1, z.ndim)), "batch": tuple(range(z.ndim - 1))}.get(self.kind, (-1,))
        if self.kind != "rms":
            z = z - z.mean(axes, keepdims=True)
        epsilon = 1e-5 if self.kind in ("map", "batch") else 1e-6
        z = z * jax.lax.rsqrt(jnp.square(z).mean(axes, keepdims=True) + epsilon)
        if self.kind == "map" or not self.affine:
            return z
        z = z * parameter(self, "scale", nn.initializers.ones, z.shape[-1:])
        return z if self.kind == "rms" else z + parameter(self, "offset", nn.initializers.zeros, z.shape[-1:])
