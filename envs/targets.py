"""Supervised streams whose targets change: labels drawn anew, and regression on new random functions.

An env is one row of the minibatch. Its observation is a :class:`~plasticity.types.Supervised` sample, its action is
the prediction for the sample before, and the reward says how good that prediction was. Samples are drawn with
replacement. The discount is 0 and no episode ends.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from envs.base import Source, vectorise
from envs.data import Samples, gaussian_samples, image_samples
from plasticity.fields import Count, card
from plasticity.types import Array, Key, StreamSpec, Supervised, Task, Visit, VisitPlan

Inputs = Literal["digits", "gaussian", "mnist", "cifar10"]
StaticFraction = Annotated[float, Field(ge=0, le=1)]
StaticNonNegative = Annotated[float, Field(ge=0)]

INPUTS, TARGETS = 0, 1  # what is derived from the key of the parameters


class Problem(NamedTuple):
    """What a lane learns during one visit."""

    inputs: Any  # the lane's own, or ()
    targets: Array  # [size, ...]


class TargetNetwork(NamedTuple):
    """``g(x) = (relu(x @ first) @ second - mean) / deviation``"""

    first: Array  # [dimensions, hidden]
    second: Array  # [hidden, outputs]
    mean: Array  # [outputs]
    deviation: Array  # [outputs]


def supervised_task(
    spec: StreamSpec,
    params: Callable[[Key, Visit], Any],
    draw: Callable[[Key, Any], Supervised],
    score: Callable[[Array, Array], Array],
) -> Task:
    """A task without end: ``draw`` gives the next sample, ``score(prediction, target)`` the reward for the last one."""

    def reset(key: Key, problem: Any) -> tuple[Array, Supervised]:
        sample = draw(key, problem)
        return sample.target, sample

    def step(key: Key, target: Array, action: Array, problem: Any) -> tuple[Array, Supervised, Array, Array, Array]:
        sample = draw(key, problem)
        return sample.target, sample, score(action, target), jnp.zeros(()), jnp.zeros((), bool)

    return Task(spec, params, reset, step)


def draw_row(samples: Samples, key: Key, problem: Problem) -> Supervised:
    """One of the samples, each as likely as any other."""
    row = jax.random.randint(key, (), 0, samples.size)
    return Supervised(samples.rows(problem.inputs, row), problem.targets[row])


def supervised_spec(
    shape: Sequence[int], target: jax.ShapeDtypeStruct, actions: int, name: str, tasks: int, steps: int, envs: int
) -> StreamSpec:
    """``tasks`` visits, each a new task, of ``steps`` minibatches of ``envs`` samples."""
    observation: Any = (jax.ShapeDtypeStruct(tuple(shape), jnp.float32), target)
    return StreamSpec(
        observation=Supervised(*observation),
        actions=actions,
        tasks=tuple(f"{name}_{i}" for i in range(tasks)),
        visits=tuple(VisitPlan(i, steps) for i in range(tasks)),
        envs=envs,
        episodic=False,
        discrete=target.dtype == jnp.int32,
        reward_name="accuracy" if target.dtype == jnp.int32 else "negative_squared_error",
        reward_range=(0, 1) if target.dtype == jnp.int32 else (-math.inf, 0),
    )


def redrawn_labels(key: Key, start: Array, visit: Array, fraction: float, classes: int) -> Array:
    """Labels int32[size] of a visit: ``start`` after ``visit`` (int32, traced) switches, from nothing but the key.

    At switch ``u`` each label is redrawn, uniformly over the classes, with probability ``fraction`` (static).
    """

    def redraw(u: Array, labels: Array) -> Array:
        where, what = jax.random.split(jax.random.fold_in(key, u))
        fresh = jax.random.randint(what, labels.shape, 0, classes)
        return jnp.where(jax.random.bernoulli(where, fraction, labels.shape), fresh, labels)

    oldest = jnp.maximum(visit, 1) if fraction == 1 else 1  # nothing survives a switch that redraws every label
    return jax.lax.fori_loop(oldest, visit + 1, redraw, start)


def check_true_labels(initial: str, samples: Samples, classes: int) -> None:
    if initial != "true":
        return
    if samples.labels is None:
        raise ValueError("initial must be 'random' for gaussian inputs, which have no true labels; got 'true'")
    if classes <= int(samples.labels.max()):
        raise ValueError(f"classes must be at least {int(samples.labels.max()) + 1} for initial 'true', got {classes}")


@card(paper="Lyle et al. 2023, Understanding plasticity in neural networks")
def relabelled(
    *,
    inputs: Inputs = "digits",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    dimensions: Count = 64,
    classes: Count = 10,
    initial: Literal["random", "true"] = "random",
    fraction: StaticFraction = 1.0,
    tasks: Count = 40,
    steps_per_task: Count = 500,
    envs: Count = 64,
) -> Source:
    """Classification of a fixed set of inputs whose labels are drawn anew at every switch; reward = accuracy.

    ``label <- uniform over the classes`` with probability ``fraction``, apart for each sample: the number of labels
    redrawn is binomial, and one in ``classes`` of them keeps its value. The labels of a visit are a function of the
    lane's data key and the visit's index alone. Lyle et al. 2023, "Understanding plasticity in neural networks"
    (``fraction`` 1); Lyle et al. 2024, "Disentangling the causes of plasticity loss in neural networks" (below 1).

    All settings are static. ``samples``: that many of the inputs, the first in the file; all of them by default
    (1000 for gaussian). ``flat``: images as vectors, else ``[height, width, channels]``. ``dimensions``: of gaussian
    inputs only. ``initial``: the labels of the first visit. ``envs``: the size of a minibatch. Pixels have mean 0 and
    variance 1 over all images and places together.

    ``ValueError`` where files are missing or hold fewer samples, and for ``initial: true`` without true labels. The
    papers pass over the samples in epochs; here they are drawn with replacement.
    """
    gaussian = inputs == "gaussian"
    data = gaussian_samples(samples or 1000, dimensions) if gaussian else image_samples(inputs, path, samples, flat)
    check_true_labels(initial, data, classes)

    def params(key: Key, visit: Visit) -> Problem:
        labels = jax.random.fold_in(key, TARGETS)
        drawn = jax.random.randint(jax.random.fold_in(labels, 0), (data.size,), 0, classes)
        start = drawn if initial == "random" else data.labels
        return Problem(
            data.own(jax.random.fold_in(key, INPUTS)), redrawn_labels(labels, start, visit.number, fraction, classes)
        )

    label = jax.ShapeDtypeStruct((), jnp.int32)
    spec = supervised_spec(data.shape, label, classes, "labels", tasks, steps_per_task, envs)
    task = supervised_task(
        spec, params, lambda key, problem: draw_row(data, key, problem), lambda action, target: action == target
    )
    return Source(spec, lambda lanes: vectorise(task, lanes, envs))


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


def standardised(values: Array) -> Array:
    """Each column of ``[size, outputs]`` with mean 0 and variance 1."""
    return (values - values.mean(0)) / values.std(0)


class Regression(NamedTuple):
    """How targets come about."""

    shape: tuple[int, ...]  # of one input
    params: Callable[[Key, Visit], Any]
    draw: Callable[[Key, Any], Supervised]  # one sample, without noise


def fresh_problem(
    dimensions: int, hidden: int, outputs: int, shift: Callable[[Visit], Array], scale: float
) -> Regression:
    """A new normal input at each draw; ``y = shift(visit) + scale * g_visit(x)``."""

    def params(key: Key, visit: Visit) -> tuple[TargetNetwork, Array]:
        key = jax.random.fold_in(jax.random.fold_in(key, TARGETS), visit.number)
        return target_network(key, dimensions, hidden, outputs), shift(visit)

    def draw(key: Key, problem: tuple[TargetNetwork, Array]) -> Supervised:
        network, offset = problem
        x = jax.random.normal(key, (dimensions,))
        return Supervised(x, offset + scale * respond(network, x))

    return Regression((dimensions,), params, draw)


def fixed_problem(
    data: Samples, hidden: int | None, outputs: int, shift: Callable[[Visit], Array], scale: float
) -> Regression:
    """One of ``data`` at each draw; ``g_visit`` is standardised over ``data``. ``hidden`` None: it is a normal number
    for each of them instead."""

    def values(key: Key, own: Any) -> Array:
        if hidden is None:
            return jax.random.normal(key, (data.size, outputs))
        network = target_network(key, math.prod(data.shape), hidden, outputs)
        return standardised(respond(network, data.rows(own, slice(None)).reshape(data.size, -1)))

    def params(key: Key, visit: Visit) -> Problem:
        own = data.own(jax.random.fold_in(key, INPUTS))
        key = jax.random.fold_in(jax.random.fold_in(key, TARGETS), visit.number)
        return Problem(own, shift(visit) + scale * values(key, own))

    return Regression(data.shape, params, lambda key, problem: draw_row(data, key, problem))


def noisy(draw: Callable[[Key, Any], Supervised], deviation: float) -> Callable[[Key, Any], Supervised]:
    """``draw`` with ``deviation * N(0, 1)`` (static) added to its targets."""
    if deviation == 0:
        return draw

    def drawn(key: Key, problem: Any) -> Supervised:
        one, two = jax.random.split(key)
        sample = draw(one, problem)
        return Supervised(sample.input, sample.target + deviation * jax.random.normal(two, sample.target.shape))

    return drawn


def negative_squared_error(prediction: Array, target: Array) -> Array:
    """``-mean((prediction - target)^2)`` over the outputs."""
    return -jnp.mean(jnp.square(prediction - target))


def check_regression(inputs: str, samples: int | None, targets: str) -> None:
    if targets == "noise" and inputs == "gaussian" and samples is None:
        raise ValueError("targets 'noise' need a fixed set of inputs: set samples, or inputs other than gaussian")
    if samples is not None and samples < 2:
        raise ValueError(f"samples must be at least 2 for targets of unit variance, got {samples}")


@card(paper="Lyle et al. 2024, Disentangling the causes of plasticity loss in neural networks")
def regression(
    *,
    inputs: Inputs = "gaussian",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    dimensions: Count = 64,
    outputs: Count = 1,
    targets: Literal["network", "noise"] = "network",
    hidden: Count = 64,
    offset: float | tuple[float, ...] = 0.0,
    scale: StaticNonNegative = 1.0,
    noise: StaticNonNegative = 0.0,
    tasks: Count = 40,
    steps_per_task: Count = 500,
    envs: Count = 64,
) -> Source:
    """Regression on a new random function at every visit; reward = minus the squared error, mean over the outputs.

    ``y = offset + scale * g_visit(x) + noise * N(0, 1)``, ``g_visit`` with mean 0 and variance 1 over the inputs. Lyle
    et al. 2024, "Disentangling the causes of plasticity loss in neural networks": a large ``offset`` spoils the
    features.

    All settings are static. ``samples``: a fixed set of that many inputs; None: gaussian inputs drawn afresh for every
    row, or all of the images. ``targets``: ``network``, a random ReLU network of ``hidden`` units (on a fixed set
    standardised over it, else in closed form); ``noise``, a normal number for each sample of a fixed set. ``offset``: a
    number, or one for each visit (the last is kept from there on). ``envs``: the size of a minibatch.

    ``ValueError`` where files are missing, hold fewer samples, or ``noise`` has no fixed set. The paper's targets are
    ``noise`` on MNIST, with an offset in the first visit only: ``offset: [100, 0]``.
    """
    check_regression(inputs, samples, targets)
    offsets = jnp.atleast_1d(jnp.asarray(offset, jnp.float32))

    def shift(visit: Visit) -> Array:
        return offsets[jnp.minimum(visit.number, len(offsets) - 1)]

    if inputs == "gaussian" and samples is None:
        problem = fresh_problem(dimensions, hidden, outputs, shift, scale)
    else:
        gaussian = inputs == "gaussian"
        data = gaussian_samples(samples or 0, dimensions) if gaussian else image_samples(inputs, path, samples, flat)
        problem = fixed_problem(data, hidden if targets == "network" else None, outputs, shift, scale)
    target = jax.ShapeDtypeStruct((outputs,), jnp.float32)
    spec = supervised_spec(problem.shape, target, outputs, "function", tasks, steps_per_task, envs)
    task = supervised_task(spec, problem.params, noisy(problem.draw, noise), negative_squared_error)
    return Source(spec, lambda lanes: vectorise(task, lanes, envs))
