"""The inputs and labels of supervised streams: images, features or standard normal vectors, drawn by row index."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.types import Array, Key
from plasticity.envs.data import contents, read
from plasticity.envs.tables import ArrayError, Dataset, standardise


class Samples(NamedTuple):
    """The finite set of inputs of a stream."""

    size: int
    shape: tuple[int, ...]  # of one input
    labels: Any  # int32[size]; None if there are no true labels
    for_lane: Callable[[Key], Any]  # key -> the inputs of one lane; () if all lanes share them
    rows: Callable[[Any, Any], Array]  # the lane's inputs, row indices -> float32[..., *shape]
    files: tuple[tuple[str, str], ...] = ()  # the source files, as in ``StreamSpec.data``
    targets: Any = None  # float32[size, outputs]; None if the data set has no real-valued targets


class Labels(NamedTuple):
    """Labels that never change: the true labels, random labels of each lane, or real-valued targets if ``real``."""

    classes: int  # or the number of targets per row
    for_lane: Callable[[Key], Any]  # key -> the labels of one lane; () if all lanes share them
    at: Callable[[Any, Any], Array]  # the lane's labels, row indices -> int32[...] or float32[..., classes]
    real: bool = False


def moments(pixels: np.ndarray) -> tuple[float, float]:
    """The exact mean and standard deviation of all pixels of all images, from the counts of the 256 values."""
    share = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    values = np.arange(256)
    mean = share @ values
    return float(mean), float(np.sqrt(share @ (values - mean) ** 2))


def select(data: Dataset, samples: int | None) -> Dataset:
    """The first ``samples`` rows; None: all rows. ``ValueError`` if there are fewer."""
    if samples is not None and samples > len(data.inputs):
        raise ValueError(f"samples: {samples} is not allowed; must be in [1, {len(data.inputs)}] for these inputs")
    return Dataset(
        data.inputs[:samples],
        None if data.labels is None else data.labels[:samples],
        None if data.targets is None else data.targets[:samples],
    )


def gaussian_samples(count: int, dimensions: int) -> Samples:
    """``count`` standard normal inputs for each lane, drawn once from its data key."""

    def for_lane(key: Key) -> Array:
        return jax.random.normal(key, (count, dimensions))

    return Samples(count, (dimensions,), None, for_lane, lambda inputs, index: inputs[index])


def image_rows(name: str, images: np.ndarray) -> Callable[[Any], Array]:
    """Row indices -> float32. The images ``uint8[N, ...]`` are stored as bytes and standardised when drawn.

    All pixels share one mean and one standard deviation. The images are a constant of the compiled programs: 150 MB
    (all of CIFAR-10) add about ten seconds to each compilation.
    """
    mean, deviation = moments(images)
    if deviation == 0:
        raise ValueError(f"inputs: {name} cannot be standardised; all pixels have the same value")
    pixels = jnp.asarray(images)
    return lambda index: (pixels[index].astype(jnp.float32) - mean) / deviation


def feature_rows(path: str | None, features: np.ndarray) -> Callable[[Any], Array]:
    """Row indices -> float32. Each column of the features is standardised by its own mean and standard deviation."""
    try:
        values = jnp.asarray(standardise(features))
    except ArrayError as error:
        raise ValueError(f"path: {path}: {error}") from error
    return lambda index: values[index]


def dataset_samples(name: str, path: str | None, count: int | None, flat: bool) -> Samples:
    """The first ``count`` rows of a data set (None: all), standardised; all lanes share them."""
    data = select(read(name, path), count)
    found, *shape = data.inputs.shape
    shape = [math.prod(shape)] if flat else shape
    inputs = data.inputs.reshape(found, *shape)
    at = image_rows(name, inputs) if inputs.dtype == np.uint8 else feature_rows(path, inputs)
    labels, targets = (None if array is None else jnp.asarray(array) for array in (data.labels, data.targets))
    return Samples(
        found, tuple(shape), labels, lambda key: (), lambda own, index: at(index), contents(name, path), targets
    )


def samples_of(inputs: str, path: str | None, samples: int | None, flat: bool, dimensions: int) -> Samples:
    """The inputs that a stream's settings select; by default 1000 if they are gaussian."""
    return (
        gaussian_samples(samples or 1000, dimensions)
        if inputs == "gaussian"
        else dataset_samples(inputs, path, samples, flat)
    )


def no_labels(samples: Samples) -> str:
    return f"{samples.files[0][0]} has the array targets, not labels"


def check_true_labels(setting: str, value: str, samples: Samples, classes: int | None) -> None:
    """``ValueError`` if ``setting`` is ``true`` but there are no true labels, or more of them than ``classes``."""
    if value != "true":
        return
    if samples.targets is not None:
        raise ValueError(f"{setting}: true is not allowed; must be random, because {no_labels(samples)}")
    if samples.labels is None:
        raise ValueError(
            f"{setting}: true is not allowed; must be random with gaussian inputs, which have no true labels"
        )
    if classes is not None and classes <= int(samples.labels.max()):
        raise ValueError(
            f"classes: {classes} is not allowed; must be at least {int(samples.labels.max()) + 1} with {setting}: true"
        )


def labels_of(kind: Literal["true", "random"], samples: Samples, classes: int | None) -> Labels:
    """True or random labels. ``classes`` None: the number of true labels, or 10. Raises as ``check_true_labels``."""
    check_true_labels("labels", kind, samples, classes)
    if kind == "true":
        count = classes or int(samples.labels.max()) + 1
        return Labels(count, lambda key: (), lambda own, index: samples.labels[index])
    count = classes or 10
    return Labels(count, lambda key: jax.random.randint(key, (samples.size,), 0, count), lambda own, index: own[index])


def labels_or_targets_of(kind: Literal["true", "random"], samples: Samples, classes: int | None) -> Labels:
    """As :func:`labels_of`, but ``true`` can mean real-valued targets. ``ValueError`` for ``classes`` with those."""
    if kind == "random" or samples.targets is None:
        return labels_of(kind, samples, classes)
    if classes is not None:
        raise ValueError(f"classes: {classes} is not allowed; must be null, because {no_labels(samples)}")
    return Labels(samples.targets.shape[1], lambda key: (), lambda own, index: samples.targets[index], real=True)


class Classes(NamedTuple):
    """The rows of a labelled set, sorted by class (NumPy)."""

    rows: np.ndarray  # int32[size]
    start: np.ndarray  # int32[classes]: where each class begins in `rows`
    sizes: np.ndarray  # int32[classes]


def classes_of(samples: Samples) -> Classes:
    """The rows by class. ``ValueError`` without true labels, or if a class below the largest label has no sample."""
    if samples.targets is not None:
        raise ValueError(f"path: this stream needs class labels, but {no_labels(samples)}")
    if samples.labels is None:
        raise ValueError("inputs: gaussian is not allowed; this stream needs inputs with true labels")
    labels = np.asarray(samples.labels)
    count = np.bincount(labels)
    if not count.all():
        raise ValueError(f"samples: the {labels.size} rows used include no sample of class {int(np.argmin(count))}")
    start = np.cumsum(count) - count
    rows = np.argsort(labels, kind="stable")
    return Classes(rows.astype(np.int32), start.astype(np.int32), count.astype(np.int32))
