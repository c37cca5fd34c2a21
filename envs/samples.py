"""The inputs and labels of supervised streams: images, features or standard normal vectors, drawn by row index."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.types import Array, Key
from plasticity.envs.data import contents, generated, read
from plasticity.envs.images import Standardise, augmentation_of, augmented, image_rows
from plasticity.envs.shapes import CLASSES
from plasticity.envs.tables import ArrayError, Dataset, standardise

AUGMENT = 3  # tag for keys derived from the key of a sample


class Samples(NamedTuple):
    """The finite set of inputs of a stream."""

    size: int
    shape: tuple[int, ...]  # of one input
    labels: Any  # int32[size + test]; None if there are no true labels
    for_lane: Callable[[Key], Any]  # key -> the inputs of one lane; () if all lanes share them
    rows: Callable[[Any, Any], Array]  # the lane's inputs, row indices -> float32[..., *shape]
    files: tuple[tuple[str, str], ...] = ()  # the source files, as in ``StreamSpec.data``
    targets: Any = None  # float32[size, outputs]; None if the data set has no real-valued targets
    test: int = 0  # number of rows of the test split; they follow the first ``size``
    dtype: Any = jnp.float32  # of an input
    image: tuple[int, ...] = ()  # [height, width, channels]; () if the inputs are not images
    fill: Any = 0.0  # of images: the mean pixel in units of an input
    classes: int = 0  # of the whole data set, of which `size` rows are used; 0 without true labels

    @property
    def total(self) -> int:
        """The number of rows with those of the test split."""
        return self.size + self.test


class Labels(NamedTuple):
    """Labels that never change: the true labels, random labels of each lane, or real-valued targets if ``real``."""

    classes: int  # or the number of targets per row
    for_lane: Callable[[Key], Any]  # key -> the labels of one lane; () if all lanes share them
    at: Callable[[Any, Any], Array]  # the lane's labels, row indices -> int32[...] or float32[..., classes]
    real: bool = False


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


def feature_rows(path: str | None, features: np.ndarray) -> Callable[[Any], Array]:
    """Row indices -> float32. Each column of the features is standardised by its own mean and standard deviation."""
    try:
        values = jnp.asarray(standardise(features))
    except ArrayError as error:
        raise ValueError(f"path: {path}: {error}") from error
    return lambda index: values[index]


class Rows(NamedTuple):
    """Rows of a data set."""

    data: Dataset
    size: int  # number of rows before those of the test split
    classes: int  # of the whole data set; 0 without labels


def rows_of(name: str, path: str | None, count: int | None, test: bool) -> Rows:
    """The first ``count`` rows (None: all) of a data set, with ``test`` followed by those of its test split."""
    whole = generated("train", count) if name == "shapes" else read(name, path)
    classes = CLASSES if name == "shapes" else 0 if whole.labels is None else int(whole.labels.max()) + 1
    data = select(whole, count)
    found = Rows(data, len(data.inputs), classes)
    return found._replace(data=with_test(data, name, path, count)) if test else found


def with_test(data: Dataset, name: str, path: str | None, count: int | None) -> Dataset:
    """The rows, then those of the test split. ``ValueError`` if the two do not have the same form."""
    other = generated("test", count) if name == "shapes" else read(name, path, "test")
    if other.inputs.shape[1:] != data.inputs.shape[1:] or other.inputs.dtype != data.inputs.dtype:
        raise ValueError(
            f"path: {path}: inputs of the test split must be {data.inputs.dtype}[N, "
            f"{', '.join(map(str, data.inputs.shape[1:]))}], got {other.inputs.dtype}{list(other.inputs.shape)}"
        )
    if (data.labels is None) != (other.labels is None):
        raise ValueError(f"path: {path}: one of the two splits has labels, the other has targets")

    def both(one: np.ndarray | None, two: np.ndarray | None) -> np.ndarray | None:
        return None if one is None or two is None else np.concatenate([one, two])

    inputs = np.concatenate([data.inputs, other.inputs])
    return Dataset(inputs, both(data.labels, other.labels), both(data.targets, other.targets))


def dataset_samples(
    name: str, path: str | None, count: int | None, flat: bool, standardise: Standardise = "all", test: bool = False
) -> Samples:
    """The first ``count`` rows of a data set (None: all); all lanes share them. ``test``: and those of its test split.

    Pixels are standardised by the moments of the first ``count`` rows, features by those of all rows.
    """
    data, size, classes = rows_of(name, path, count, test)
    labels, targets = (None if array is None else jnp.asarray(array) for array in (data.labels, data.targets))
    shape: tuple[int, ...] = data.inputs.shape[1:]
    found = Samples(size, (math.prod(shape),) if flat else shape, labels, lambda key: (), lambda own, index: own)
    found = found._replace(files=contents(name, path, test), test=len(data.inputs) - size)
    found = found._replace(targets=targets, classes=classes)
    if data.inputs.dtype == np.uint8:
        rows = image_rows(name, data.inputs, size, flat, standardise)
        return found._replace(rows=lambda own, index: rows.at(index), dtype=rows.dtype, image=shape, fill=rows.fill)
    check_standardise(standardise)
    at = feature_rows(path, data.inputs.reshape(-1, *found.shape))
    return found._replace(rows=lambda own, index: at(index))


def samples_of(
    inputs: str,
    path: str | None,
    samples: int | None,
    flat: bool,
    dimensions: int,
    standardise: Standardise = "all",
    test: bool = False,
) -> Samples:
    """The inputs that a stream's settings select; by default 1000 if they are gaussian."""
    if inputs != "gaussian":
        return dataset_samples(inputs, path, samples, flat, standardise, test)
    check_standardise(standardise)
    return gaussian_samples(samples or 1000, dimensions)


def check_standardise(standardise: str) -> None:
    """``ValueError`` unless it is the default, for inputs other than images."""
    if standardise != "all":
        raise ValueError(f"standardise: {standardise} is not allowed; must be all, because the inputs are not images")


def drawn_rows(samples: Samples, augment: Mapping[str, float]) -> Callable[..., Array]:
    """``key, lane's inputs, row (, wanted) -> input``, augmented by the setting ``augment`` if ``wanted`` (bool[])."""
    how = augmentation_of(augment, samples.image)
    if not any(how):
        return lambda key, own, row, wanted=True: samples.rows(own, row)

    def draw(key: Key, own: Any, row: Array, wanted: Array | bool = True) -> Array:
        image = samples.rows(own, row).reshape(samples.image)
        return augmented(jax.random.fold_in(key, AUGMENT), image, how, samples.fill, wanted).reshape(samples.shape)

    return draw


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
    """True or random labels. ``classes`` None: those of the data set, or 10. Raises as ``check_true_labels``."""
    check_true_labels("labels", kind, samples, classes)
    if kind == "true":
        count = classes or samples.classes
        return Labels(count, lambda key: (), lambda own, index: samples.labels[index])
    count = classes or 10
    return Labels(count, lambda key: jax.random.randint(key, (samples.total,), 0, count), lambda own, index: own[index])


def labels_or_targets_of(kind: Literal["true", "random"], samples: Samples, classes: int | None) -> Labels:
    """As :func:`labels_of`, but ``true`` can mean real-valued targets. ``ValueError`` for ``classes`` with those."""
    if kind == "random" or samples.targets is None:
        return labels_of(kind, samples, classes)
    if classes is not None:
        raise ValueError(f"classes: {classes} is not allowed; must be null, because {no_labels(samples)}")
    return Labels(samples.targets.shape[1], lambda key: (), lambda own, index: samples.targets[index], real=True)


class Classes(NamedTuple):
    """Rows of a labelled set, sorted by class (NumPy)."""

    rows: np.ndarray  # int32[size]
    start: np.ndarray  # int32[classes]: where each class begins in `rows`
    sizes: np.ndarray  # int32[classes]


def classes_of(samples: Samples) -> Classes:
    """The rows by class. ``ValueError`` without true labels, or if a class of the data set has no sample."""
    if samples.targets is not None:
        raise ValueError(f"path: this stream needs class labels, but {no_labels(samples)}")
    if samples.labels is None:
        raise ValueError("inputs: gaussian is not allowed; this stream needs inputs with true labels")
    return grouped(np.asarray(samples.labels)[: samples.size], samples.classes, "samples: the {} rows used include")


def grouped(labels: np.ndarray, classes: int, refusal: str) -> Classes:
    """The rows by class. ``ValueError``, starting with ``refusal``, if one of the ``classes`` has no sample."""
    count = np.bincount(labels, minlength=classes)
    if not count.all():
        raise ValueError(f"{refusal.format(labels.size)} no sample of class {int(np.argmin(count))} of {len(count)}")
    start = np.cumsum(count) - count
    rows = np.argsort(labels, kind="stable")
    return Classes(rows.astype(np.int32), start.astype(np.int32), count.astype(np.int32))


def split_classes(samples: Samples, held_out: float | str) -> tuple[Classes, Classes]:
    """The rows by class for learning and for evaluation; both share the array of rows.

    ``held_out``: ``test``, the test split; a fraction, the last samples of each class; 0, the samples for learning.
    Raises as :func:`classes_of`, and if a class has no sample left for one of the two.
    """
    known = classes_of(samples)
    if held_out == "test":
        labels, refusal = np.asarray(samples.labels)[samples.size :], "path: the {} rows of the test split include"
        other = grouped(labels, samples.classes, refusal)
        if len(other.sizes) != samples.classes:
            raise ValueError(
                f"path: the test split must have the {samples.classes} classes of the samples, got {len(other.sizes)}"
            )
        rows = np.concatenate([known.rows, other.rows + samples.size])
        return known._replace(rows=rows), Classes(rows, other.start + samples.size, other.sizes)
    share = np.round(float(held_out) * known.sizes).astype(np.int32)
    kept = known.sizes - share
    if not kept.all() or (held_out and not share.all()):
        empty, use = (int(np.argmin(kept)), "learning") if not kept.all() else (int(np.argmin(share)), "evaluation")
        raise ValueError(f"held_out: {held_out} is not allowed; it leaves no sample of class {empty} for {use}")
    learning = known._replace(sizes=kept)
    return learning, known._replace(start=known.start + kept, sizes=share) if held_out else learning
