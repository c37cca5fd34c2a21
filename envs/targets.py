"""Changing targets: redrawn labels, permuted labels, and regression on new random functions."""

import math
import warnings
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import permutation
from plasticity.envs.data import OF_INPUTS, Inputs
from plasticity.envs.functions import fixed_inputs, fresh_inputs, functions, noisy, own_targets
from plasticity.envs.images import Standardise
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


def redrawn_labels(key: Key, start: Array, task: Array, fraction: float, classes: int) -> Array:
    """The labels int32[size] of a task: ``start`` after ``task`` (int32, traced) redraws, which depend only on the key.

    At redraw ``u`` each label is redrawn uniformly over the classes with probability ``fraction`` (static).
    """

    def redraw(u: Array, labels: Array) -> Array:
        where, what = jax.random.split(jax.random.fold_in(key, u))
        fresh = jax.random.randint(what, labels.shape, 0, classes)
        return jnp.where(jax.random.bernoulli(where, fraction, labels.shape), fresh, labels)

    oldest = jnp.maximum(task, 1) if fraction == 1 else 1  # nothing survives a switch that redraws every label
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
    fraction: StaticFraction = 1.0,
    gradual: StaticFraction = 0.0,
    tasks: Tasks = 40,
    steps_per_task: Count = 500,
    envs: Size = 64,
) -> StreamFactory:
    """Classification of a fixed set of inputs whose labels are redrawn at every switch; reward = accuracy.

    ``label <- uniform over the classes`` with probability ``fraction``, independently for each sample. The number of
    redrawn labels is therefore binomial, and on average one in ``classes`` of them keeps its value. The labels of a
    task depend only on the lane's data key and the task's index. Lyle et al. 2023, "Understanding plasticity in neural
    networks" (``fraction`` 1); Lyle et al. 2024, "Disentangling the causes of plasticity loss in neural networks"
    (below 1).

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

    ``ValueError`` if files are missing or contain fewer samples, and for ``initial: true`` without true labels. The
    papers iterate over the samples in epochs; here they are drawn with replacement.
    """
    data = samples_of(inputs, path, samples, flat, dimensions, standardise)
    check_true_labels("initial", initial, data, classes)

    def targets(key: Key, own: Any, task: Array) -> Array:
        labels = jax.random.fold_in(key, TARGETS)
        drawn = jax.random.randint(jax.random.fold_in(labels, 0), (data.size,), 0, classes)
        return redrawn_labels(labels, drawn if initial == "random" else data.labels, task, fraction, classes)

    spec = with_data(label_spec(data.shape, classes, "labels", tasks, steps_per_task, envs), data)
    return supervised_stream(spec, row_sampler(data, targets, augment), accuracy, mix_labels, gradual * steps_per_task)


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
    by default the number of true labels, or 10 for random labels; with one class nothing changes. The other settings
    are those of ``relabelled``.

    ``ValueError`` as in ``relabelled``. Unlike in the paper, consecutive orders always differ.
    """
    data = samples_of(inputs, path, samples, flat, dimensions)
    known = labels_of(labels, data, classes)

    def for_lane(key: Key) -> tuple[Any, Any]:
        return data.for_lane(jax.random.fold_in(key, INPUTS)), known.for_lane(jax.random.fold_in(key, LABELS))

    def targets(key: Key, own: Any, task: Array) -> Array:
        del own
        return permutation(jax.random.fold_in(key, TARGETS), task, known.classes)

    def draw(key: Key, own: tuple[Any, Any]) -> tuple[Array, Array]:
        row = jax.random.randint(key, (), 0, data.size)
        return known.at(own[1], row), data.rows(own[0], row)

    sampler = Sampler(data.shape, for_lane, targets, draw, lambda order, label: order[label])
    spec = label_spec(data.shape, known.classes, "names", tasks, steps_per_task, envs)._replace(data=data.files)
    return supervised_stream(spec, sampler, accuracy, mix_labels, gradual * steps_per_task)


def check_regression(inputs: str, samples: int | None, targets: str) -> None:
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
    abrupt. ``envs``: the size of a minibatch.

    ``ValueError`` if files are missing or contain fewer samples, if ``noise`` has no fixed set, and if ``true`` targets
    are missing or not ``outputs`` in number. The paper's targets are ``noise`` on MNIST, with an offset in the first
    task only: ``offset: [100, 0]``.
    """
    check_regression(inputs, samples, targets)
    offsets = jnp.atleast_1d(jnp.asarray(offset, jnp.float32))

    def shift(task: Array) -> Array:
        return offsets[jnp.minimum(task, len(offsets) - 1)]

    files: tuple[tuple[str, str], ...] = ()
    if inputs == "gaussian" and samples is None:
        assert targets != "noise"
        assert targets != "true"
        sampler = fresh_inputs(dimensions, functions(targets, (dimensions, hidden, outputs), frequency), shift, scale)
    else:
        data = samples_of(inputs, path, samples, flat, dimensions)
        outputs, files = check_own_targets(data, targets, outputs), data.files
        if targets == "true":
            sampler = own_targets(data, shift, scale)
        else:
            sizes = (math.prod(data.shape), hidden, outputs)
            family = None if targets == "noise" else functions(targets, sizes, frequency)
            sampler = fixed_inputs(data, family, outputs, shift, scale)
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
