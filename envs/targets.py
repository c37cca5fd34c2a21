"""Changing targets: redrawn labels, permuted labels, and regression on new random functions."""

import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import permutation
from plasticity.envs.data import OF_INPUTS, Inputs
from plasticity.envs.functions import fixed_inputs, fresh_inputs, functions, noisy, own_targets
from plasticity.envs.held_out import HeldOut, drawn_row, split_of
from plasticity.envs.images import Standardise
from plasticity.envs.label_noise import Shares, listed, noise_of, noisy_label, replaced_labels
from plasticity.envs.samples import Samples, check_true_labels, labels_of, samples_of
from plasticity.envs.supervised import (
    INPUTS,
    LABELS,
    TARGETS,
    Sampler,
    StaticFraction,
    StaticNonNegative,
    accuracy,
    interpolate,
    label_spec,
    mix_labels,
    negative_squared_error,
    row_sampler,
    supervised_spec,
    supervised_stream,
    with_data,
)

StaticPositive = Annotated[float, Field(gt=0)]


def redrawn_labels(key: Key, start: Array, task: Array, fraction: float | Sequence[float], classes: int) -> Array:
    """The labels int32[size] of a task: ``start`` after ``task`` (int32, traced) redraws, which depend only on the key.

    At redraw ``u`` each label is redrawn uniformly over the classes with probability ``fraction`` (static), or with
    that of the ``(u - 1) % n``-th of n numbers.
    """
    shares = listed(fraction)

    def redraw(u: Array, labels: Array) -> Array:
        where, what = jax.random.split(jax.random.fold_in(key, u))
        fresh = jax.random.randint(what, labels.shape, 0, classes)
        share = shares[0] if len(shares) == 1 else jnp.asarray(shares, jnp.float32)[(u - 1) % len(shares)]
        return jnp.where(jax.random.bernoulli(where, share, labels.shape), fresh, labels)

    oldest = jnp.maximum(task, 1) if min(shares) == 1 else 1  # nothing survives a switch that redraws every label
    return jax.lax.fori_loop(oldest, task + 1, redraw, start)


@metadata(
    paper="Lyle et al. 2023, Understanding plasticity in neural networks",
    example={"inputs": "gaussian", "samples": 512, "tasks": 10, "steps_per_task": 500},
    only_with=OF_INPUTS,
)
def relabelled(
    *,
    inputs: Inputs = "digits",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    standardise: Standardise = "all",
    augment: dict[str, float] = {},  # noqa: B006 (read only)
    dimensions: Size = 64,
    classes: Size = 10,
    initial: Literal["random", "true"] = "random",
    fraction: Shares = 1.0,
    gradual: StaticFraction = 0.0,
    label_noise: Shares = 0.0,
    held_out: HeldOut = 0.0,
    tasks: Tasks = 40,
    steps_per_task: Count = 500,
    envs: Size = 64,
) -> StreamFactory:
    """Classification of a fixed set of inputs whose labels are redrawn at every switch; reward = accuracy.

    ``label <- uniform over the classes`` with probability ``fraction``, independently for each sample. The number of
    redrawn labels is therefore binomial, and on average one in ``classes`` of them keeps its value. The labels of a
    task depend only on the lane's data key and the task's index. Lyle et al. 2023, "Understanding plasticity in neural
    networks" (``fraction`` 1); Lyle et al. 2024, "Disentangling the causes of plasticity loss in neural networks"
    (below 1). A list of fractions has one for each switch, that to task 1 first, and cycles.

    All settings are static. ``samples``: use only the first ``samples`` inputs in the file; all by default (1000 for
    gaussian, 50,000 for ``shapes``). ``flat``: images as vectors, else ``[height, width, channels]``. ``standardise``:
    pixels have mean 0 and variance 1 over all images, positions and channels together (``all``) or in each ``channel``;
    ``none`` leaves them bytes, which networks divide by 255. ``augment``: random changes to a drawn image, in this
    order: ``{flip: 0.5}``, left to right with this probability; ``{crop: 4}``, shifted by up to so many pixels, the
    image continued by reflection; ``{rotate: 15}``, by an angle uniform in 0 to so many degrees counter-clockwise,
    interpolated bilinearly, with corners of the mean colour. ``dimensions``: size of gaussian inputs.
    ``initial``: the labels of the first task. ``gradual``: over this fraction of ``steps_per_task``, the target of a
    drawn sample is the new label with a probability that grows from 0 to 1, and otherwise the label of the task with
    the previous index (during this time no prediction can be certain); 0 is abrupt. ``envs``: the size of a minibatch.
    Features in an ``npz`` file have mean 0 and variance 1 column by column, over the rows used (a constant column is
    0). ``fraction: 0`` is a **control**: nothing changes.

    ``label_noise``: the probability p, or a list of them that the tasks cycle through, with which the label of a sample
    to learn from is replaced by one drawn uniformly over the classes. The true class may be drawn again: of c classes,
    an expected share ``p (1 - 1 / c)`` of the labels is wrong. Each sample has one draw in each task, from the lane's
    data key, and keeps its label at every draw of the sample. Labels in evaluations have no noise.

    ``held_out``: samples that are never learned from. The ``evaluation`` of a run draws these, never augmented: a
    fraction of each true class, its last samples (of inputs without true labels, the last of all); ``test``, the data
    set's test split (``shapes``: a fifth as many images; ``npz``: the arrays ``test_images`` and ``test_labels``). With
    0 it draws the samples to learn from. Held-out labels are redrawn at switches like the others, so that only what is
    left of the true labels can be predicted: to measure generalisation, use ``initial: true`` and a small ``fraction``.

    ``ValueError`` if files are missing or contain fewer samples, for ``initial: true`` without true labels, and if
    ``held_out`` leaves no sample to learn from or to evaluate. The papers iterate over the samples in epochs; here they
    are drawn with replacement.
    """
    data = samples_of(inputs, path, samples, flat, dimensions, standardise, held_out == "test")
    check_true_labels("initial", initial, data, classes)
    split, noise = split_of(data, held_out), noise_of(label_noise, data.total)

    def targets(key: Key, own: Any, visit: Visit) -> Array:
        labels = jax.random.fold_in(key, TARGETS)
        drawn = jax.random.randint(jax.random.fold_in(labels, 0), (data.total,), 0, classes)
        first = drawn if initial == "random" else data.labels
        clean = redrawn_labels(labels, first, visit.task, fraction, classes)
        return noisy_label(replaced_labels(noise, key, visit, classes), ..., clean)

    spec = with_data(label_spec(data.shape, classes, "labels", tasks, steps_per_task, envs), data)
    sampler = row_sampler(data, targets, augment, split)
    return supervised_stream(spec, sampler, accuracy, mix_labels, gradual * steps_per_task)


@metadata(
    paper="Elsayed and Mahmood 2024, Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning",
    note="with ten classes a control: no loss of plasticity is expected",
    example={"inputs": "digits", "tasks": 10, "steps_per_task": 2000},
    only_with=OF_INPUTS,
)
def permuted_labels(
    *,
    inputs: Inputs = "digits",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    dimensions: Size = 64,
    classes: Size | None = None,
    labels: Literal["true", "random"] = "true",
    gradual: StaticFraction = 0.0,
    label_noise: Shares = 0.0,
    held_out: HeldOut = 0.0,
    tasks: Tasks = 40,
    steps_per_task: Count = 2500,
    envs: Size = 1,
) -> StreamFactory:
    """Classification whose class labels are permuted at every switch; reward = accuracy.

    ``label = order_u[label in task 0]``, where ``order_u`` is a permutation of the classes drawn from the lane's data
    key, different from that of the previous task; ``order_0`` is the identity. Inputs that share a class keep sharing
    one, so only the output layer must change. Elsayed, Mahmood 2024, "Addressing Loss of Plasticity and Catastrophic
    Forgetting in Continual Learning". With ten classes this is a **control**: no loss of plasticity is expected. The
    paper's plasticity benchmarks have more classes, such as the 47 of ``emnist_balanced``.

    All settings are static. ``labels``: the labels of task 0; ``random`` labels are drawn once per lane. ``classes``:
    by default the number of true labels, or 10 for random labels; with one class nothing changes. The other settings,
    with ``label_noise`` and ``held_out``, are those of ``relabelled``; random labels of held-out samples cannot be
    predicted.

    ``ValueError`` as in ``relabelled``. Unlike in the paper, consecutive orders always differ.
    """
    data = samples_of(inputs, path, samples, flat, dimensions, test=held_out == "test")
    known = labels_of(labels, data, classes)
    split, noise = split_of(data, held_out), noise_of(label_noise, data.total)

    def for_lane(key: Key) -> tuple[Any, Any]:
        return data.for_lane(jax.random.fold_in(key, INPUTS)), known.for_lane(jax.random.fold_in(key, LABELS))

    def targets(key: Key, own: Any, visit: Visit) -> Any:
        del own
        order = permutation(jax.random.fold_in(key, TARGETS), visit.task, known.classes)
        return (order, replaced_labels(noise, key, visit, known.classes)) if noise else order

    def draw(key: Key, own: tuple[Any, Any], learning: Array) -> tuple[Any, Array]:
        row = drawn_row(key, split, learning)
        return (row, known.at(own[1], row)), data.rows(own[0], row)

    def target_of(problem: Any, place: tuple[Array, Array]) -> Array:
        order, replaced = problem if noise else (problem, ())
        return noisy_label(replaced, place[0], order[place[1]])

    sampler = Sampler(data.shape, for_lane, targets, draw, target_of)
    spec = label_spec(data.shape, known.classes, "names", tasks, steps_per_task, envs)._replace(data=data.files)
    return supervised_stream(spec, sampler, accuracy, mix_labels, gradual * steps_per_task)


def check_regression(inputs: str, samples: int | None, targets: str, held_out: float | str) -> None:
    if inputs == "gaussian" and samples is None and held_out:
        raise ValueError(
            f"held_out: {held_out} is not allowed without a fixed set of inputs; evaluations draw new ones anyway"
        )
    if targets == "noise" and inputs == "gaussian" and samples is None:
        raise ValueError(
            "targets: noise is not allowed without a fixed set of inputs; set samples, or inputs other than gaussian"
        )
    if targets == "true" and inputs != "npz":
        raise ValueError(f"targets: true is not allowed with inputs: {inputs}; it needs npz and an array targets")
    if samples is not None and samples < 2 and targets != "true":
        raise ValueError(f"samples: {samples} is not allowed; must be at least 2, for targets of unit variance")


def check_own_targets(data: Samples, targets: str, outputs: int) -> int:
    """The number of outputs; ``ValueError`` if ``true`` targets are missing or ``outputs`` does not match them."""
    if targets != "true":
        if data.targets is not None:
            warnings.warn(f"targets: {targets} ignores the array targets of {data.files[0][0]}", stacklevel=3)
        return outputs
    if data.targets is None:
        raise ValueError(f"targets: true is not allowed; {data.files[0][0]} has the array labels, not targets")
    found = data.targets.shape[1]
    if outputs not in (1, found):
        raise ValueError(
            f"outputs: {outputs} is not allowed; must be 1 or {found}, the targets per row of {data.files[0][0]}"
        )
    return found


@metadata(
    paper="Lyle et al. 2024, Disentangling the causes of plasticity loss in neural networks",
    example={"dimensions": 16, "offset": 10.0, "tasks": 10, "steps_per_task": 500},
    only_with={
        **OF_INPUTS,
        "hidden": {"targets": ("network", "sinusoid")},
        "frequency": {"targets": ("sinusoid",)},
    },
)
def regression(
    *,
    inputs: Inputs = "gaussian",
    path: str | None = None,
    samples: Count | None = None,
    flat: bool = True,
    dimensions: Size = 64,
    outputs: Size = 1,
    targets: Literal["network", "sinusoid", "noise", "true"] = "network",
    hidden: Size = 64,
    frequency: StaticPositive = 100.0,
    offset: float | tuple[float, ...] = 0.0,
    scale: StaticNonNegative = 1.0,
    noise: StaticNonNegative = 0.0,
    gradual: StaticFraction = 0.0,
    held_out: HeldOut = 0.0,
    tasks: Tasks = 40,
    steps_per_task: Count = 500,
    envs: Size = 64,
) -> StreamFactory:
    """Regression on a new random function at every switch; reward = -squared error, averaged over the outputs.

    ``y = offset + scale * g_task(x) + noise * N(0, 1)``, ``g_task`` with mean 0 and variance 1 over the inputs. Lyle
    et al. 2024, "Disentangling the causes of plasticity loss in neural networks": a large ``offset`` damages the
    features.

    All settings are static. ``samples``: the size of a fixed set of inputs; None: fresh gaussian inputs for every row,
    or all of the images. ``targets``: ``network``, a random ReLU network with ``hidden`` units (standardised over a
    fixed set, otherwise in closed form); ``sinusoid``, ``sqrt(2) sin(frequency * network(x) + phase)`` (Lyle et al.
    2023, "Understanding plasticity in neural networks", probe with such targets of frequency 1e5; float32 rounds the
    phase by about 1e-7 of the frequency); ``noise``, a normal random number for each sample of a fixed set;
    ``true``, the array ``targets`` of an ``npz`` file as ``g``, not standardised and the same in all tasks (a
    **control**, unless ``offset`` changes). ``outputs``: with ``targets: true``, 1 means all columns of the array.
    ``offset``: a number, or one per task (later tasks keep the last). ``gradual``: over this fraction of
    ``steps_per_task``, the target moves linearly from that of the task with the previous index to the new one; 0 is
    abrupt. ``noise``: its standard deviation; it is new at each draw of a sample, and targets in evaluations have none.
    ``held_out``: as in ``relabelled``, of a fixed set of inputs. ``envs``: the size of a minibatch.

    ``ValueError`` if files are missing or contain fewer samples, if targets ``noise`` or ``held_out`` have no fixed
    set, and if ``true`` targets are missing or not ``outputs`` in number. The paper's targets are ``noise`` on MNIST,
    with an offset in the first task only: ``offset: [100, 0]``.
    """
    check_regression(inputs, samples, targets, held_out)
    offsets = jnp.atleast_1d(jnp.asarray(offset, jnp.float32))

    def shift(task: Array) -> Array:
        return offsets[jnp.minimum(task, len(offsets) - 1)]

    files: tuple[tuple[str, str], ...] = ()
    if inputs == "gaussian" and samples is None:
        assert targets != "noise"
        assert targets != "true"
        sampler = fresh_inputs(dimensions, functions(targets, (dimensions, hidden, outputs), frequency), shift, scale)
    else:
        data = samples_of(inputs, path, samples, flat, dimensions, test=held_out == "test")
        outputs, files = check_own_targets(data, targets, outputs), data.files
        split = split_of(data, held_out)
        if targets == "true":
            sampler = own_targets(data, split, shift, scale)
        else:
            sizes = (math.prod(data.shape), hidden, outputs)
            family = None if targets == "noise" else functions(targets, sizes, frequency)
            sampler = fixed_inputs(data, split, family, outputs, shift, scale)
    target = jax.ShapeDtypeStruct((outputs,), jnp.float32)
    spec = supervised_spec(sampler.shape, target, outputs, "function", tasks, steps_per_task, envs)
    return supervised_stream(
        spec._replace(data=files),
        sampler,
        negative_squared_error,
        interpolate,
        gradual * steps_per_task,
        alter=noisy(noise),
    )
