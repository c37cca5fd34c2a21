"""Growing sets of samples: new classes, or a growing share of the data."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Size, metadata
from plasticity.core.types import Array, Key, Supervised, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.data import Inputs
from plasticity.envs.samples import classes_of, labels_or_targets_of, samples_of
from plasticity.envs.supervised import (
    INPUTS,
    LABELS,
    TARGETS,
    StaticFraction,
    accuracy,
    label_spec,
    labels_or_targets_spec,
    score_of,
    stream_of,
    supervised_task,
)


class Shown(NamedTuple):
    """The classes shown in one visit, in the lane's order of classes."""

    start: Array  # int32[classes]: first row of the class
    ends: Array  # int32[classes]: number of samples shown from this class and all earlier ones
    first: Array  # int32[classes]: number of samples shown from earlier classes only


@metadata(
    paper="Dohare et al. 2024, Loss of plasticity in deep continual learning",
    example={"classes_per_task": 2, "steps_per_task": 1000},
)
def class_incremental(
    *,
    inputs: Inputs = "digits",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    classes_per_task: Size = 2,
    shown: Literal["seen", "new"] = "seen",
    order: Literal["random", "fixed"] = "random",
    steps_per_task: Count = 2000,
    envs: Size = 64,
) -> StreamFactory:
    """Class-incremental classification: classes arrive in groups; reward = accuracy.

    Task ``u`` shows samples of the classes ``order[0 ... (u + 1) k - 1]``, or only of the new ones, ``order[u k ...
    (u + 1) k - 1]``, drawn uniformly. Dohare et al. 2024, "Loss of plasticity in deep continual learning"
    (``cifar100``, ``classes_per_task`` 5: 20 tasks, of all classes so far).

    All settings are static. ``classes_per_task``: k; it determines the number of tasks, and the last may add fewer.
    ``shown``: ``seen``, all classes so far; ``new``, those of the task. ``order``: order of the classes, ``random``
    from the lane's data key or ``fixed``, by label. The other settings are those of ``relabelled``.

    ``ValueError`` if files are missing, for gaussian inputs and files of real-valued targets, which have no classes,
    and if ``samples`` excludes a class. The learner has outputs for all classes from the start. Accuracy is measured on
    the samples shown; the paper measures it on test images, and its learner starts each task from the best parameters
    of the previous one.
    """
    data = samples_of(inputs, path, samples, flat, 1)
    groups = classes_of(data)
    classes = len(groups.sizes)
    rows, start, count = (jnp.asarray(array) for array in groups)
    numbers = jnp.arange(classes)

    def params(key: Key, visit: Visit) -> Shown:
        key = jax.random.fold_in(key, TARGETS)
        own = jax.random.permutation(key, classes) if order == "random" else numbers
        present = numbers // classes_per_task <= visit.task
        if shown == "new":
            present &= numbers // classes_per_task == visit.task
        sizes = jnp.where(present, count[own], 0)
        ends = jnp.cumsum(sizes)
        return Shown(start[own], ends, ends - sizes)

    def draw(key: Key, problem: Shown) -> Supervised:
        place = jax.random.randint(key, (), 0, problem.ends[-1])
        which = jnp.sum(place >= problem.ends)
        row = rows[problem.start[which] + place - problem.first[which]]
        return Supervised(data.rows((), row), data.labels[row])

    spec = label_spec(data.shape, classes, "groups", -(-classes // classes_per_task), steps_per_task, envs)
    spec = spec._replace(data=data.files)
    return stream_of(supervised_task(spec, params, draw, accuracy))


class Share(NamedTuple):
    """The data of a lane during one visit."""

    inputs: Any  # the lane's inputs, fixed for the run, or ()
    labels: Any  # as for inputs
    order: Array  # int32[size], a permutation of the rows, fixed for the run
    first: Array  # int32[]: the rows order[first ... end - 1] are shown
    end: Array


@metadata(
    paper="Ash and Adams 2020, On Warm-Starting Neural Network Training",
    example={"shares": [0.5, 1.0], "held_out": 0.2, "steps_per_task": 1000},
)
def warm_start(
    *,
    inputs: Inputs = "digits",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    dimensions: Size = 64,
    classes: Size | None = None,
    labels: Literal["true", "random"] = "true",
    shares: tuple[float, ...] = (0.5, 1.0),
    held_out: StaticFraction = 0.2,
    steps_per_task: Count = 2000,
    envs: Size = 64,
) -> StreamFactory:
    """Classification of a share of the samples, then of all of them; reward = accuracy.

    Task ``u`` draws uniformly from the first ``shares[u] n`` samples of an order drawn once from the lane's data key.
    ``n`` excludes a final fraction ``held_out`` of all samples, which are used for evaluation. The ``evaluation`` of a
    run is then the accuracy on held-out samples, which is what warm-starting harms. Ash, Adams 2020, "On Warm-Starting
    Neural Network Training"; many ``shares`` (0.05, 0.1, ...) give its online experiment.

    All settings are static. ``shares``: in (0, 1], one per task. ``held_out``: 0 evaluates on the samples of the task.
    ``labels`` and ``classes`` as in ``permuted_inputs`` (also with real-valued targets: reward = -squared error), the
    other settings as in ``relabelled``. Features are standardised over all samples, held-out ones included. A convex
    learner is a **control**: in the paper, warm-starting does not harm logistic regression.

    ``ValueError`` for a share outside (0, 1], and as in ``permuted_inputs``. The paper trains in epochs until
    convergence; here each task takes ``steps_per_task`` minibatches, drawn with replacement.
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares: {list(shares)} is not allowed; must be numbers in (0, 1], one for each task")
    data = samples_of(inputs, path, samples, flat, dimensions)
    known = labels_or_targets_of(labels, data, classes)
    kept = data.size - round(held_out * data.size)
    if kept < 1:
        raise ValueError(f"held_out: {held_out} is not allowed; it leaves none of the {data.size} samples for training")
    counts = jnp.asarray([max(1, round(share * kept)) for share in shares], jnp.int32)

    def params(key: Key, visit: Visit) -> Share:
        own = data.for_lane(jax.random.fold_in(key, INPUTS)), known.for_lane(jax.random.fold_in(key, LABELS))
        order = jax.random.permutation(jax.random.fold_in(key, TARGETS), data.size)
        trained = (jnp.asarray(visit.eval_replica) == 0) | (kept == data.size)
        return Share(*own, order, jnp.where(trained, 0, kept), jnp.where(trained, counts[visit.task], data.size))

    def draw(key: Key, problem: Share) -> Supervised:
        row = problem.order[jax.random.randint(key, (), problem.first, problem.end)]
        return Supervised(data.rows(problem.inputs, row), known.at(problem.labels, row))

    spec = labels_or_targets_spec(data, known, "share", len(shares), steps_per_task, envs)
    return stream_of(supervised_task(spec, params, draw, score_of(spec)))
