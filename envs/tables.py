"""Checks of the arrays in a user's own ``.npz`` file: images or features, with class labels or real-valued targets."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

MOST_CLASSES = 1_048_576
TEST = "test_"  # prefix of the arrays of held-out rows
IMAGES = "uint8[N, height, width(, channels)]"


class Dataset(NamedTuple):
    """Rows to learn from. Exactly one of ``labels`` and ``targets`` is not None."""

    inputs: np.ndarray  # uint8[N, height, width, channels]: images; float32 or float64[N, ...]: features
    labels: np.ndarray | None  # int32[N]: classes, from 0
    targets: np.ndarray | None = None  # float32[N, outputs]


class ArrayError(ValueError):
    """An array that a stream cannot use; the message is one line that starts with the array's name."""


def kind_of(array: np.ndarray) -> str:
    """Type and shape of an array, such as ``float64[10, 3]``."""
    return f"{array.dtype}{list(array.shape)}"


def one_of(arrays: Mapping[str, Any], one: str, other: str) -> tuple[str, np.ndarray]:
    """Name and contents of whichever of the two arrays is in the file. ``ArrayError`` unless exactly one is."""
    present = [name for name in (one, other) if name in arrays]
    if not present:
        raise ArrayError(f"{one} or {other}: missing; the file has {', '.join(arrays) or 'no arrays'}")
    if len(present) == 2:
        raise ArrayError(f"{one} and {other}: the file has both; it must have only one of them")
    return present[0], load(arrays, present[0])


def load(arrays: Mapping[str, Any], name: str) -> np.ndarray:
    """The array ``name``. ``ArrayError`` if it holds Python objects, which are not read."""
    try:
        return np.asarray(arrays[name])
    except ValueError as error:
        if "Object arrays" in str(error):
            raise ArrayError(f"{name}: the array holds Python objects (dtype object); must be numbers") from error
        raise


def images(array: np.ndarray) -> np.ndarray:
    """Check images; returns ``uint8[N, height, width, channels]``."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        hint = "; other types and shapes belong in the array features"
        raise ArrayError(f"images: must be {IMAGES}, got {kind_of(array)}{hint}")
    return array if array.ndim == 4 else array[..., None]


def finite(name: str, array: np.ndarray, bound: str) -> np.ndarray:
    """``array``; ``ArrayError`` naming the first entry that is NaN or infinite."""
    if not (good := np.isfinite(array)).all():
        first = np.argwhere(~good)[0].tolist()
        raise ArrayError(f"{name}: must be {bound}; {np.sum(~good)} of {good.size} are not, the first at {first}")
    return array


def features(array: np.ndarray) -> np.ndarray:
    """Check features ``[N, ...]``, float or integer; returns float32 or float64."""
    if array.dtype.kind not in "fiub" or array.ndim < 2:
        raise ArrayError(f"features: must be float or integer numbers [N, d] or [N, ...], got {kind_of(array)}")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32 if array.dtype.itemsize <= 4 and array.dtype.kind == "f" else np.float64)
    return finite("features", numbers, "finite numbers")


def labels(array: np.ndarray) -> np.ndarray:
    """Check class labels; returns ``int32[N]`` in ``0 ... MOST_CLASSES - 1``."""
    if array.dtype.kind not in "iu" or array.ndim != 1:
        hint = "; real numbers belong in the array targets" if array.dtype.kind == "f" else ""
        raise ArrayError(f"labels: must be integers [N], got {kind_of(array)}{hint}")
    if array.size and (array.min() < 0 or array.max() >= MOST_CLASSES):
        raise ArrayError(f"labels: must be in 0 ... {MOST_CLASSES - 1}, got {array.min()} ... {array.max()}")
    return array.astype(np.int32)


def targets(array: np.ndarray) -> np.ndarray:
    """Check real-valued targets; returns ``float32[N, outputs]``; ``[N]`` means one output."""
    if array.dtype.kind != "f" or array.ndim not in (1, 2):
        hint = "; class labels belong in the array labels" if array.dtype.kind in "iu" else ""
        raise ArrayError(f"targets: must be float[N] or float[N, outputs], got {kind_of(array)}{hint}")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    return finite("targets", numbers if array.ndim == 2 else numbers[:, None], "finite numbers in float32")


def dataset(arrays: Mapping[str, Any]) -> Dataset:
    """The rows of a user's file. ``ArrayError`` names the array that is missing or invalid."""
    input_name, inputs = one_of(arrays, "images", "features")
    output_name, outputs = one_of(arrays, "labels", "targets")
    inputs = images(inputs) if input_name == "images" else features(inputs)
    outputs = labels(outputs) if output_name == "labels" else targets(outputs)
    for name, array in ((input_name, inputs), (output_name, outputs)):
        if not array.size:
            raise ArrayError(f"{name}: the array is empty, {kind_of(array)}")
    if len(inputs) != len(outputs):
        raise ArrayError(
            f"{output_name}: there must be one row for each row of {input_name}, got {len(outputs)} for {len(inputs)}"
        )
    return Dataset(inputs, outputs, None) if output_name == "labels" else Dataset(inputs, None, outputs)


def held_out_arrays(arrays: Mapping[str, Any]) -> Dataset:
    """As :func:`dataset`, from the arrays ``test_images``, ``test_labels`` and so on."""
    found = {name.removeprefix(TEST): load(arrays, name) for name in arrays if name.startswith(TEST)}
    if not found:
        raise ArrayError(f"test_images or test_features: missing; the file has {', '.join(arrays) or 'no arrays'}")
    try:
        return dataset(found)
    except ArrayError as error:
        raise ArrayError(f"{TEST}{error}") from error


def standardise(values: np.ndarray) -> np.ndarray:
    """``(x - mean) / deviation`` of each entry over the rows, float32; an entry with equal values in all rows is 0.

    The deviation is the population's (with N in the denominator). The values are first scaled by a power of two, which
    is exact, so that squares do not overflow. ``ArrayError`` if no entry varies.
    """
    varies = values.min(0) != values.max(0)
    if not varies.any():
        raise ArrayError("features: cannot be standardised; every column has the same value in all rows")
    scaled = np.ldexp(values.astype(np.float64), -np.frexp(np.abs(values).max(0))[1])
    deviation = np.where(varies, scaled.std(0), 1)
    return np.where(varies, (scaled - scaled.mean(0)) / deviation, 0).astype(np.float32)
