"""Permuted inputs."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key, Supervised, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import permutation
from plasticity.envs.data import OF_INPUTS, Inputs
from plasticity.envs.held_out import HeldOut, drawn_row, split_of
from plasticity.envs.label_noise import Shares, noise_of, noisy_label, replaced_labels
from plasticity.envs.samples import labels_or_targets_of, samples_of
from plasticity.envs.supervised import (
    INPUTS,
    LABELS,
    TARGETS,
    StaticFraction,
    labels_or_targets_spec,
    learns,
    score_of,
    stream_of,
    supervised_task,
)


class Permuted(NamedTuple):
    """What a lane learns during one visit."""

    inputs: Any  # the lane's inputs, fixed for the run, or ()
    labels: Any  # the same for labels
    order: Array  # int32[size of an input]
    learning: Array  # bool[]: False in an evaluation
    replaced: Any = ()  # int32[samples], of ``label_noise``


def fresh_permutation(key: Key, task: Array, size: int) -> Array:
    """int32[size]: the identity for task 0, else a uniform permutation, independent for each task (traced)."""
    drawn = jax.random.permutation(jax.random.fold_in(key, task), size)
    return jnp.where(task == 0, jnp.arange(size), drawn).astype(jnp.int32)


def some_moved(key: Key, size: int, moved: int) -> Array:
    """int32[size]: a permutation that moves ``moved`` uniformly drawn places in one cycle, and keeps the others."""
    places = jax.random.permutation(key, size)[:moved]
    return jnp.arange(size).at[places].set(jnp.roll(places, 1))


def partial_order(key: Key, task: Array, size: int, moved: int, cumulative: bool) -> Array:
    """int32[size]: the order of the ``task``-th task (traced) if a switch moves ``moved`` places."""

    def another(u: Array, order: Array) -> Array:
        return order[some_moved(jax.random.fold_in(key, u), size, moved)]

    first = 1 if cumulative else jnp.maximum(task, 1)
    order: Array = jax.lax.fori_loop(first, task + 1, another, jnp.arange(size))
    return order


@metadata(
    paper="Dohare et al. 2024, Loss of plasticity in deep continual learning",
    example={"inputs": "digits", "tasks": 10, "steps_per_task": 2000},
    only_with=OF_INPUTS,
)
def permuted_inputs(
    *,
    inputs: Inputs = "digits",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    dimensions: Size = 64,
    classes: Size | None = None,
    labels: Literal["true", "random"] = "true",
    permutations: Literal["cumulative", "fresh"] = "cumulative",
    fraction: StaticFraction = 1.0,
    label_noise: Shares = 0.0,
    held_out: HeldOut = 0.0,
    tasks: Tasks = 100,
    steps_per_task: Count = 2000,
    envs: Size = 1,
) -> StreamFactory:
    """Classification of inputs whose entries are permuted at every switch, with unchanged labels; reward = accuracy.

    ``x_u[i] = x[order_u[i]]``. ``cumulative``: ``order_u = order_{u-1}[q_u]``, which permutes the previous order again;
    ``fresh``: ``order_u = q_u``. ``q_u`` is uniform over the permutations, drawn from the lane's data key, and
    ``order_0`` is the identity. Both give uniform, mutually independent orders. They differ only in their random
    numbers and in the cost of a switch (``cumulative`` composes the permutations of all tasks up to ``u``). With a
    ``fraction`` below 1, ``q_u`` moves only this fraction of the places, drawn uniformly and moved in one cycle of
    random order: how much a task differs from the one before (``cumulative``) or from the first (``fresh``). Dohare et
    al. 2024, "Loss of plasticity in deep continual learning" (online permuted MNIST: cumulative, 800 tasks of 60,000
    images, one at a time); Goodfellow et al. 2014, "An Empirical Investigation of Catastrophic Forgetting in
    Gradient-Based Neural Networks" (fresh).

    All settings are static. ``labels``: ``random`` labels are drawn once per lane. ``classes``: by default the number
    of true labels, or 10 for random labels. ``flat: false`` permutes over height, width and channels together. The
    other settings, with ``label_noise`` and ``held_out``, are those of ``relabelled``; random labels of held-out
    samples cannot be predicted. With an ``npz`` file of real-valued ``targets``, ``labels: true`` gives regression on
    these, which stay unchanged, and reward = -squared error, averaged over the outputs.

    ``ValueError`` as in ``relabelled``, and for ``classes`` and ``label_noise`` with real-valued targets. The paper
    shows each image of a task once; here images are drawn with replacement.
    """
    data = samples_of(inputs, path, samples, flat, dimensions, test=held_out == "test")
    known, size = labels_or_targets_of(labels, data, classes), math.prod(data.shape)
    split, noise = split_of(data, held_out), noise_of(label_noise, data.total, known.real)
    cumulative, moved = permutations == "cumulative", round(fraction * size)

    def reorder(key: Key, task: Array) -> Array:
        if moved < size:
            return partial_order(key, task, size, moved, cumulative)
        return permutation(key, task, size) if cumulative else fresh_permutation(key, task, size)

    def params(key: Key, visit: Visit) -> Permuted:
        own = data.for_lane(jax.random.fold_in(key, INPUTS)), known.for_lane(jax.random.fold_in(key, LABELS))
        order = reorder(jax.random.fold_in(key, TARGETS), visit.task)
        return Permuted(*own, order, learns(visit), replaced_labels(noise, key, visit, known.classes))

    def draw(key: Key, problem: Permuted) -> Supervised:
        row = drawn_row(key, split, problem.learning)
        x = data.rows(problem.inputs, row).reshape(-1)[problem.order]
        return Supervised(x.reshape(data.shape), noisy_label(problem.replaced, row, known.at(problem.labels, row)))

    spec = labels_or_targets_spec(data, known, "permutation", tasks, steps_per_task, envs)
    return stream_of(supervised_task(spec, params, draw, score_of(spec)))
