"""Random functions as regression targets."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.types import Array, Key, Supervised, Visit
from plasticity.envs.held_out import Split
from plasticity.envs.samples import Samples
from plasticity.envs.supervised import TARGETS, Draw, Sampler, row_sampler

PHASE = 2  # tag of the phases' key; the target network splits the same key in two


class TargetNetwork(NamedTuple):
    """``g(x) = (relu(x @ first) @ second - mean) / deviation``"""

    first: Array  # [dimensions, hidden]
    second: Array  # [hidden, outputs]
    mean: Array  # [outputs]
    deviation: Array  # [outputs]


def target_network(key: Key, dimensions: int, hidden: int, outputs: int) -> TargetNetwork:
    """A random ReLU network whose outputs have mean 0 and variance 1 over ``x ~ N(0, I)``, exactly.

    With ``s_i`` the norms of the first layer's columns and ``t_ij`` the angles between them,
    ``E[relu_i] = s_i / sqrt(2 pi)`` and ``E[relu_i relu_j] = s_i s_j (sin t_ij + (pi - t_ij) cos t_ij) / (2 pi)``:
    Cho, Saul 2009, "Kernel Methods for Deep Learning". All sizes are static.
    """
    one, two = jax.random.split(key)
    first = jax.random.normal(one, (dimensions, hidden)) / math.sqrt(dimensions)
    second = jax.random.normal(two, (hidden, outputs)) / math.sqrt(hidden)
    norms = jnp.linalg.norm(first, axis=0)
    means = norms / math.sqrt(2 * math.pi)
    cosines = jnp.clip((first / norms).T @ (first / norms), -1, 1)
    angles = jnp.arccos(cosines)
    moments = jnp.outer(norms, norms) * (jnp.sin(angles) + (math.pi - angles) * cosines) / (2 * math.pi)
    variance = jnp.einsum("io,ij,jo->o", second, moments - jnp.outer(means, means), second)
    return TargetNetwork(first, second, means @ second, jnp.sqrt(variance))


def respond(network: TargetNetwork, inputs: Array) -> Array:
    """``g``: ``[..., dimensions] -> [..., outputs]``."""
    return (jax.nn.relu(inputs @ network.first) @ network.second - network.mean) / network.deviation


def standardised(values: Array, size: int) -> Array:
    """Standardise each column of ``[rows, outputs]`` to mean 0 and variance 1 over the first ``size`` (static) rows."""
    known = values[:size]
    return (values - known.mean(0)) / known.std(0)


class Functions(NamedTuple):
    """A family of random functions with mean 0 and variance 1 (excluding the ``noise`` of a fixed set)."""

    draw: Callable[[Key], Any]  # key -> a function
    at: Callable[[Any, Array], Array]  # function, inputs [..., dimensions] -> [..., outputs]


def functions(kind: Literal["network", "sinusoid"], sizes: tuple[int, int, int], frequency: float) -> Functions:
    """Build a family of random functions.

    ``network``: a :class:`TargetNetwork` of ``sizes`` (dimensions, hidden, outputs).

    ``sinusoid``: ``sqrt(2) sin(frequency g(x) + phase)`` with such a ``g`` and phases uniform over the circle, with
    mean 0 and variance 1 on average over phases. ``frequency`` is static.
    """
    if kind == "network":
        return Functions(lambda key: target_network(key, *sizes), respond)

    def draw(key: Key) -> tuple[TargetNetwork, Array]:
        phase = jax.random.uniform(jax.random.fold_in(key, PHASE), sizes[2:], maxval=2 * math.pi)
        return target_network(key, *sizes), phase

    def at(function: tuple[TargetNetwork, Array], inputs: Array) -> Array:
        network, phase = function
        return math.sqrt(2) * jnp.sin(frequency * respond(network, inputs) + phase)

    return Functions(draw, at)


def task_key(key: Key, task: Array) -> Key:
    return jax.random.fold_in(jax.random.fold_in(key, TARGETS), task)


def fresh_inputs(dimensions: int, family: Functions, shift: Callable[[Array], Array], scale: float) -> Sampler:
    """A sampler that draws a new normal input each time; ``y = shift(task) + scale * g_task(x)``."""

    def targets(key: Key, own: Any, visit: Visit) -> tuple[Any, Array]:
        del own
        return family.draw(task_key(key, visit.task)), shift(visit.task)

    def draw(key: Key, own: Any, learning: Array) -> tuple[Array, Array]:
        del own, learning
        x = jax.random.normal(key, (dimensions,))
        return x, x

    def look(targets: tuple[Any, Array], x: Array) -> Array:
        function, offset = targets
        return offset + scale * family.at(function, x)

    return Sampler((dimensions,), lambda key: (), targets, draw, look)


def fixed_inputs(
    data: Samples, split: Split, family: Functions | None, outputs: int, shift: Callable[[Array], Array], scale: float
) -> Sampler:
    """A sampler that draws from ``data``; ``g_task`` is standardised over ``data``, without its test split.

    If ``family`` is None, the target of each row is an independent normal number.
    """

    def values(key: Key, own: Any) -> Array:
        if family is None:
            return jax.random.normal(key, (data.total, outputs))
        inputs = data.rows(own, slice(None)).reshape(data.total, -1)
        return standardised(family.at(family.draw(key), inputs), data.size)

    def targets(key: Key, own: Any, visit: Visit) -> Array:
        return shift(visit.task) + scale * values(task_key(key, visit.task), own)

    return row_sampler(data, targets, split=split)


def own_targets(data: Samples, split: Split, shift: Callable[[Array], Array], scale: float) -> Sampler:
    """One of ``data`` at each draw, with its own targets ``t``: ``y = shift(task) + scale * t``."""
    sampler = row_sampler(data, lambda key, own, visit: shift(visit.task), split=split)
    return sampler._replace(target_of=lambda offset, row: offset + scale * data.targets[row])


def noisy(deviation: float) -> Callable[[Draw], Draw]:
    """Return a function that adds ``deviation * N(0, 1)`` (static) to the targets of samples, except in evaluations.

    The problem says by ``learning`` (bool[]) whether it is none.
    """

    def with_noise(draw: Draw) -> Draw:
        if deviation == 0:
            return draw

        def drawn(key: Key, problem: Any) -> Supervised:
            one, two = jax.random.split(key)
            sample = draw(one, problem)
            scale = jnp.where(problem.learning, deviation, 0.0)
            return Supervised(sample.input, sample.target + scale * jax.random.normal(two, sample.target.shape))

        return drawn

    return with_noise
