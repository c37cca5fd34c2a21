"""What supervised streams show: images, features and standard normal vectors, as rows drawn by their number."""

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
    """The finite set of inputs that a stream shows."""

    size: int
    shape: tuple[int, ...]  # of one input
    labels: Any  # int32[size]; None where there are no true ones
    own: Callable[[Key], Any]  # key -> a lane's own inputs; () where all lanes share them
    rows: Callable[[Any, Any], Array]  # the lane's own inputs, index of rows -> float32[..., *shape]
    files: tuple[tuple[str, str], ...] = ()  # they come from, as ``StreamSpec.data``
    targets: Any = None  # float32[size, outputs]; None where the data set has no real-valued targets


class Labels(NamedTuple):
    """Labels that stay for life: the true ones, or each lane's own random ones; or real-valued targets, if ``real``."""

    classes: int  # or the number of targets of a row
    own: Callable[[Key], Any]  # key -> a lane's own labels; () where all lanes share them
    at: Callable[[Any, Any], Array]  # the lane's own labels, index of rows -> int32[...] or float32[..., classes]
    real: bool = False


def moments(pixels: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of all pixels of all images, exactly, from a count of the 256 values."""
    share = np.bincount(pixels.ravel(), minlength=256) / pixels.size
    values = np.arange(256)
    mean = share @ values
    return float(mean), float(np.sqrt(share @ (values - mean) ** 2))


def select(data: Dataset, samples: int | None) -> Dataset:
    """The first ``samples`` rows; all where it is None. ``ValueError`` where there are fewer."""
    if samples is not None and samples > len(data.inputs):
        raise ValueError(f"samples: {samples} is not allowed; must be in [1, {len(data.inputs)}] for these inputs")
    return Dataset(
        data.inputs[:samples],
        None if data.labels is None else data.labels[:samples],
        None if data.targets is None else data.targets[:samples],
    )


def gaussian_samples(count: int, dimensions: int) -> Samples:
    """``count`` standard normal inputs for each lane, drawn from its data key once for its whole life."""

    def own(key: Key) -> Array:
        return jax.random.normal(key, (count, dimensions))

    return Samples(count, (dimensions,), None, own, lambda inputs, index: inputs[index])


def image_rows(name: str, images: np.ndarray) -> Callable[[Any], Array]:
    """Index of rows -> float32. The images ``uint8[N, ...]`` are kept as bytes and standardised when drawn.

    One mean and one deviation hold for all pixels. The set is a constant of the compiled programs: 150 MB (all of
    CIFAR-10) add some ten seconds to each compilation.
    """
    mean, deviation = moments(images)
    if deviation == 0:
        raise ValueError(f"inputs: {name} cannot be standardised; all pixels have the same value")
    pixels = jnp.asarray(images)
    return lambda index: (pixels[index].astype(jnp.float32) - mean) / deviation


def feature_rows(path: str | None, features: np.ndarray) -> Callable[[Any], Array]:
    """Index of rows -> float32. Each column of the features is standardised by its own mean and deviation."""
    try:
        values = jnp.asarray(standardise(features))
    except ArrayError as error:
        raise ValueError(f"path: {path}: {error}") from error
    return lambda index: values[index]


def dataset_samples(name: str, path: str | None, count: int | None, flat: bool) -> Samples:
    """The first ``count`` rows of a data set (None: all), standardised and shared by all lanes."""
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
    """The inputs that a stream's settings ask for; 1000 of the gaussian ones where no number is given."""
    return (
        gaussian_samples(samples or 1000, dimensions)
        if inputs == "gaussian"
        else dataset_samples(inputs, path, samples, flat)
    )


def no_labels(samples: Samples) -> str:
    return f"{samples.files[0][0]} has the array targets, not labels"


def check_true_labels(setting: str, value: str, samples: Samples, classes: int | None) -> None:
    """``ValueError`` where ``setting`` asks for true labels, and there are none or more than ``classes``."""
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
    """Labels for life. ``classes`` None: as many as there are true ones, 10 random ones. Errors as above."""
    check_true_labels("labels", kind, samples, classes)
    if kind == "true":
        count = classes or int(samples.labels.max()) + 1
        return Labels(count, lambda key: (), lambda own, index: samples.labels[index])
    count = classes or 10
    return Labels(count, lambda key: jax.random.randint(key, (samples.size,), 0, count), lambda own, index: own[index])


def labels_or_targets_of(kind: Literal["true", "random"], samples: Samples, classes: int | None) -> Labels:
    """The same, where ``true`` ones may be real-valued targets. ``ValueError`` if these are given ``classes``."""
    if kind == "random" or samples.targets is None:
        return labels_of(kind, samples, classes)
    if classes is not None:
        raise ValueError(f"classes: {classes} is not allowed; must be null, because {no_labels(samples)}")
    return Labels(samples.targets.shape[1], lambda key: (), lambda own, index: samples.targets[index], real=True)


class Classes(NamedTuple):
    """The rows of a labelled set, class after class (NumPy)."""

    rows: np.ndarray  # int32[size]
    start: np.ndarray  # int32[classes]: where a class begins in `rows`
    sizes: np.ndarray  # int32[classes]


def classes_of(samples: Samples) -> Classes:
    """``ValueError`` where there are no true labels, or a class below the largest label has no sample."""
    if samples.targets is not None:
        raise ValueError(f"path: this stream needs class labels, but {no_labels(samples)}")
    if samples.labels is None:
        raise ValueError("inputs: gaussian is not allowed; this stream needs inputs with true labels")
    labels = np.asarray(samples.labels)
    count = np.bincount(labels)
    if not count.all():
        raise ValueError(
            f"samples: {labels.size} are not enough; they include no sample of class {int(np.argmin(count))}"
        )
    start = np.cumsum(count) - count
    rows = np.argsort(labels, kind="stable")
    return Classes(rows.astype(np.int32), start.astype(np.int32), count.astype(np.int32))
