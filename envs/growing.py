"""Growing sets of samples: new classes, or a growing share of the data."""

import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Natural, Size, metadata
from plasticity.core.types import Array, Key, Supervised, Visit, VisitPlan
from plasticity.envs.base import StreamFactory
from plasticity.envs.data import OF_INPUTS, Inputs
from plasticity.envs.held_out import HeldOut, check_split, split_of
from plasticity.envs.images import Standardise
from plasticity.envs.label_noise import Shares, noise_of, noisy_label, replaced_labels
from plasticity.envs.samples import drawn_rows, labels_or_targets_of, samples_of, split_classes
from plasticity.envs.supervised import (
    INPUTS,
    LABELS,
    TARGETS,
    accuracy,
    label_spec,
    labels_or_targets_spec,
    learns,
    score_of,
    stream_of,
    supervised_task,
    with_data,
)


class Shown(NamedTuple):
    """The classes shown in one visit, in the lane's order of classes."""

    start: Array  # int32[classes]: first row of the class
    ends: Array  # int32[classes]: number of samples shown from this class and all earlier ones
    first: Array  # int32[classes]: number of samples shown from earlier classes only
    learning: Array  # bool[]: False in an evaluation
    replaced: Any = ()  # int32[samples], of ``label_noise``


def visit_steps(shown: Sequence[int], samples_per_class: float, epochs: int, envs: int) -> tuple[int, ...]:
    """The length of each visit in minibatches of ``envs``: ``epochs`` passes over the samples of the classes shown.

    Lengths are multiples of the number of minibatches for one class, which is rounded.
    """
    each = max(1, round(epochs * samples_per_class / envs))
    return tuple(each * classes for classes in shown)


@metadata(
    paper="Dohare et al. 2024, Loss of plasticity in deep continual learning",
    example={"classes_per_task": 2, "steps_per_task": 1000},
    only_with={"steps_per_task": {"epochs": (0,)}, "path": OF_INPUTS["path"]},
)
def class_incremental(
    *,
    inputs: Inputs = "digits",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    standardise: Standardise = "all",
    augment: dict[str, float] = {},  # noqa: B006 (read only)
    classes_per_task: Size = 2,
    shown: Literal["seen", "new"] = "seen",
    order: Literal["random", "fixed"] = "random",
    label_noise: Shares = 0.0,
    held_out: HeldOut = 0.0,
    epochs: Natural = 0,
    steps_per_task: Count = 2000,
    envs: Size = 64,
) -> StreamFactory:
    """Class-incremental classification: classes arrive in groups; reward = accuracy.

    Task ``u`` shows samples of the classes ``order[0 ... (u + 1) k - 1]``, or only of the new ones, ``order[u k ...
    (u + 1) k - 1]``, drawn uniformly. Dohare et al. 2024, "Loss of plasticity in deep continual learning":
    ``inputs: cifar100``, ``flat: false``, ``standardise: channel``, ``augment: {flip: 0.5, crop: 4, rotate: 15}``,
    ``classes_per_task: 5``, ``held_out: test``, ``epochs: 200``, ``envs: 90`` (20 tasks, of all classes so far).

    All settings are static. ``classes_per_task``: k; it determines the number of tasks, and the last may add fewer.
    ``shown``: ``seen``, all classes so far; ``new``, those of the task. ``order``: order of the classes, ``random``
    from the lane's data key or ``fixed``, by label. ``held_out``: the samples of the same classes that the
    ``evaluation`` of a run uses instead, never augmented: ``test``, the data set's test split (``shapes``: a fifth as
    many images; ``npz``: the arrays ``test_images`` and ``test_labels``); a fraction of each class, its last samples;
    0, those of the task. ``label_noise``: as in ``relabelled``, over all classes of the data set; the samples of
    earlier classes get new noise in each task. ``epochs``: the length of each visit in passes over the samples of its
    classes, instead of ``steps_per_task``. The other settings are those of ``relabelled``.

    ``ValueError`` if files are missing, for gaussian inputs and files of real-valued targets, which have no classes,
    if ``samples`` or ``held_out`` excludes a class, and if there are fewer than k classes. The learner has outputs for
    all classes from the start; the paper's uses only those of the classes so far. The recorded performance is the
    accuracy on the samples shown; the paper measures it on test images, all of them once, of which ``evaluation`` draws
    random minibatches. The paper's learner also starts each task from the parameters that were best on validation
    images in the previous one.
    """
    data = samples_of(inputs, path, samples, flat, 1, standardise, held_out == "test")
    learning, evaluated = split_classes(data, held_out)
    classes = len(learning.sizes)
    if classes_per_task > classes:
        raise ValueError(f"classes_per_task: {classes_per_task} is not allowed; there are only {classes} classes")
    rows, labels, noise = jnp.asarray(learning.rows), data.labels, noise_of(label_noise, data.total)
    numbers = jnp.arange(classes)
    image = drawn_rows(data, augment)

    def params(key: Key, visit: Visit) -> Shown:
        drawn = jax.random.permutation(jax.random.fold_in(key, TARGETS), classes)
        own = drawn if order == "random" else numbers
        present = numbers // classes_per_task <= visit.task
        if shown == "new":
            present &= numbers // classes_per_task == visit.task
        training = learns(visit)
        start, count = (jnp.where(training, *both) for both in zip(learning[1:], evaluated[1:], strict=True))
        sizes = jnp.where(present, count[own], 0)
        ends = jnp.cumsum(sizes)
        return Shown(start[own], ends, ends - sizes, training, replaced_labels(noise, key, visit, classes))

    def draw(key: Key, problem: Shown) -> Supervised:
        place = jax.random.randint(key, (), 0, problem.ends[-1])
        which = jnp.sum(place >= problem.ends)
        row = rows[problem.start[which] + place - problem.first[which]]
        return Supervised(image(key, (), row, problem.learning), noisy_label(problem.replaced, row, labels[row]))

    tasks = -(-classes // classes_per_task)
    spec = with_data(label_spec(data.shape, classes, "groups", tasks, steps_per_task, envs), data)
    if epochs:
        opened = [0, *range(classes_per_task, classes, classes_per_task), classes]
        present = [end - (begin if shown == "new" else 0) for begin, end in itertools.pairwise(opened)]
        steps = visit_steps(present, float(learning.sizes.mean()), epochs, envs)
        spec = spec._replace(visits=tuple(VisitPlan(task, length) for task, length in enumerate(steps)))
    return stream_of(supervised_task(spec, params, draw, accuracy))


class Share(NamedTuple):
    """The data of a lane during one visit."""

    inputs: Any  # the lane's inputs, fixed for the run, or ()
    labels: Any  # as for inputs
    order: Array  # int32[samples], a permutation of the rows, fixed for the run, then those of the test split
    first: Array  # int32[]: the rows order[first ... end - 1] are shown
    end: Array
    replaced: Any = ()  # int32[samples], of ``label_noise``


@metadata(
    paper="Ash and Adams 2020, On Warm-Starting Neural Network Training",
    example={"shares": [0.5, 1.0], "held_out": 0.2, "steps_per_task": 1000},
    only_with=OF_INPUTS,
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
    label_noise: Shares = 0.0,
    held_out: HeldOut = 0.2,
    steps_per_task: Count = 2000,
    envs: Size = 64,
) -> StreamFactory:
    """Classification of a share of the samples, then of all of them; reward = accuracy.

    Task ``u`` draws uniformly from the first ``shares[u] n`` samples of an order drawn once from the lane's data key.
    ``n`` excludes a final fraction ``held_out`` of all samples, which are used for evaluation. The ``evaluation`` of a
    run is then the accuracy on held-out samples, which is what warm-starting harms. Ash, Adams 2020, "On Warm-Starting
    Neural Network Training"; many ``shares`` (0.05, 0.1, ...) give its online experiment.

    All settings are static. ``shares``: in (0, 1], one per task. ``held_out``: or ``test``, the data set's test split;
    0 evaluates on the samples of the task. ``label_noise``: as in ``relabelled``; samples that earlier tasks had get
    new noise in each task, and ``[0.5, 0.0]`` is noise in the first of two tasks only. ``labels`` and ``classes`` as in
    ``permuted_inputs`` (also with real-valued targets: reward = -squared error), the other settings as in
    ``relabelled``. Features are standardised over all samples, held-out ones included. A convex learner is a
    **control**: in the paper, warm-starting does not harm logistic regression.

    ``ValueError`` for a share outside (0, 1], if ``held_out`` leaves no sample for training or evaluation, and as in
    ``permuted_inputs``. The paper trains in epochs until convergence; here each task takes ``steps_per_task``
    minibatches, drawn with replacement.
    """
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares: {list(shares)} is not allowed; must be numbers in (0, 1], one for each task")
    data = samples_of(inputs, path, samples, flat, dimensions, test=held_out == "test")
    known = labels_or_targets_of(labels, data, classes)
    noise = noise_of(label_noise, data.total, known.real)
    kept = split_of(data, held_out).learning if held_out == "test" else data.size - round(held_out * data.size)
    check_split(held_out, data.total, kept)
    counts = jnp.asarray([max(1, round(share * kept)) for share in shares], jnp.int32)

    def params(key: Key, visit: Visit) -> Share:
        own = data.for_lane(jax.random.fold_in(key, INPUTS)), known.for_lane(jax.random.fold_in(key, LABELS))
        order = jax.random.permutation(jax.random.fold_in(key, TARGETS), data.size)
        order = jnp.concatenate([order, jnp.arange(data.size, data.total)])
        trained = learns(visit) | (kept == data.total)
        first, end = jnp.where(trained, 0, kept), jnp.where(trained, counts[visit.task], data.total)
        return Share(*own, order, first, end, replaced_labels(noise, key, visit, known.classes))

    def draw(key: Key, problem: Share) -> Supervised:
        row = problem.order[jax.random.randint(key, (), problem.first, problem.end)]
        label = noisy_label(problem.replaced, row, known.at(problem.labels, row))
        return Supervised(data.rows(problem.inputs, row), label)

    spec = labels_or_targets_spec(data, known, "share", len(shares), steps_per_task, envs)
    return stream_of(supervised_task(spec, params, draw, score_of(spec)))
