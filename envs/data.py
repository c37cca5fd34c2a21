"""Data sets: scikit-learn's digits, generated images, published image sets in their formats, the user's ``.npz``."""

import functools
import gzip
import hashlib
import math
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from plasticity.envs import cifar, shapes
from plasticity.envs.tables import ArrayError, Dataset, dataset, held_out_arrays

Inputs = Literal[
    "digits",
    "shapes",
    "gaussian",
    "mnist",
    "fashion_mnist",
    "emnist_balanced",
    "emnist_letters",
    "cifar10",
    "cifar100",
    "npz",
]
Split = Literal["train", "test"]
BUILT_IN = ("digits", "shapes")
WITHOUT_FILES = (*BUILT_IN, "gaussian")

# The settings that have an effect only with some inputs, as ``Metadata.only_with``.
OF_INPUTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "path": {"inputs": tuple(name for name in get_args(Inputs) if name not in WITHOUT_FILES)},
    "flat": {"inputs": tuple(name for name in get_args(Inputs) if name != "gaussian")},
    "dimensions": {"inputs": ("gaussian",)},
}


class Layout(NamedTuple):
    """The published layout of a data set."""

    files: Mapping[Split, str]  # the required contents of a folder
    shape: tuple[int, ...]  # of one image
    classes: int
    read: Callable[[Path, Sequence[str]], Dataset]  # a folder or archive, names of files
    names: Mapping[Split, tuple[str, ...]]  # of the files in the folder; each may instead end in .gz


def digits() -> Dataset:
    """1797 handwritten digits of 8 x 8 pixels in 0 ... 16 (Alpaydin, Kaynak 1998, UCI; as shipped by scikit-learn)."""
    from sklearn.datasets import load_digits  # imported here because this takes a second

    pixels, labels = load_digits(return_X_y=True)
    return Dataset(pixels.astype(np.uint8).reshape(-1, 8, 8, 1), labels.astype(np.int32))


def idx(path: Path) -> np.ndarray:
    """Read an array from an IDX file (``path`` or ``path.gz``): magic 0 0 8 rank, big-endian sizes, bytes."""
    zipped = path.with_name(path.name + ".gz")
    raw = path.read_bytes() if path.exists() else gzip.decompress(zipped.read_bytes())
    if raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: it starts with {raw[:4]!r}")
    start = 4 + 4 * raw[3]
    sizes = np.frombuffer(raw, ">i4", raw[3], 4).tolist()
    if len(raw) != start + math.prod(sizes):
        raise ValueError(f"{path} has {len(raw)} bytes, but an array {sizes} needs {start + math.prod(sizes)}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(sizes)


def idx_pair(*, first_label: int = 0, transposed: bool = False) -> Callable[[Path, Sequence[str]], Dataset]:
    """A reader of a file of images and a file of labels, which start at ``first_label``."""

    def pair(folder: Path, names: Sequence[str]) -> Dataset:
        images, labels = (idx(folder / name) for name in names)
        images = images.swapaxes(1, 2) if transposed and images.ndim == 3 else images
        return Dataset(np.ascontiguousarray(images[..., None]), labels.astype(np.int32) - first_label)

    return pair


def archive(path: Path, split: Split) -> Dataset:
    """The rows in an ``.npz`` file (:func:`plasticity.envs.tables.dataset`); ``test``: in arrays named ``test_...``."""
    with path.open("rb") as file:  # NumPy leaves its own handle open for a truncated file
        arrays = np.load(file)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it is not an .npz archive")
        with arrays:
            return dataset(arrays) if split == "train" else held_out_arrays(arrays)


def _idx_layout(train: str, test: str, classes: int, more: str = "", **facts: Any) -> Layout:
    stems: Mapping[Split, str] = {"train": train, "test": test}
    names = {split: (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte") for split, stem in stems.items()}
    files = {split: f"{one} and {two} (either may end in .gz){more}" for split, (one, two) in names.items()}
    return Layout(files, (28, 28, 1), classes, idx_pair(**facts), names)


def _cifar_layout(train: tuple[str, ...], test: str, classes: int, labels: str, version: str) -> Layout:
    shown = train[0] if len(train) == 1 else f"{train[0]} ... {train[-1]}"
    files: Mapping[Split, str] = {"train": f"{shown} {version}", "test": f"{test} {version}"}
    return Layout(files, (32, 32, 3), classes, cifar.batches(labels), {"train": train, "test": (test,)})


# EMNIST's files store images column by column, MNIST's row by row; the transposition makes EMNIST's upright.
LAYOUTS: Mapping[str, Layout] = {
    "mnist": _idx_layout("train", "t10k", 10),
    "fashion_mnist": _idx_layout("train", "t10k", 10),
    "emnist_balanced": _idx_layout(
        "emnist-balanced-train", "emnist-balanced-test", 47, ", images transposed as published", transposed=True
    ),
    "emnist_letters": _idx_layout(
        "emnist-letters-train",
        "emnist-letters-test",
        26,
        ", images transposed and labels from 1 as published",
        transposed=True,
        first_label=1,
    ),
    "cifar10": _cifar_layout(
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        "test_batch",
        10,
        "labels",
        "(the Python version, cifar-10-batches-py, or its .tar.gz)",
    ),
    "cifar100": _cifar_layout(
        ("train",),
        "test",
        100,
        "fine_labels",
        "(the Python version, cifar-100-python, or its .tar.gz; its fine labels)",
    ),
}
# What NumPy, the unpickler and the decompressors raise for other contents.
BROKEN = (
    OSError,
    OverflowError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    EOFError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)


def expected(name: str, split: Split = "train") -> str:
    """A description, in two lines, of the files that ``path`` must have for ``name``."""
    if name == "npz" and split == "test":
        return "one .npz file that also has the arrays test_images or test_features,\nand test_labels or test_targets"
    if name == "npz":
        return (
            "one .npz file with images uint8[N, height, width(, channels)] or features float[N, d],\n"
            "and labels int[N] or targets float[N(, outputs)]"
        )
    layout = LAYOUTS[name]
    sizes = ", ".join(str(size) for size in layout.shape if size > 1)
    prefix = "" if split == "train" else "test_"
    arrays = f"{prefix}images uint8[N, {sizes}] and {prefix}labels [N]"
    return f"a folder with {layout.files[split]},\nor one .npz file with the arrays {arrays}"


def checked_images(images: Dataset, layout: Layout) -> Dataset:
    """Check that these are images of the published size, with a label in range for each; returns ``images``."""
    inputs, labels = images.inputs, images.labels
    if labels is None or inputs.dtype != np.uint8:
        raise ValueError("the file must have the arrays images and labels, not features or targets")
    if labels.shape != inputs.shape[:1] or not len(labels):
        raise ValueError(f"there must be one label per image, got {list(labels.shape)} for {list(inputs.shape)}")
    if inputs.shape[1:] != layout.shape:
        raise ValueError(f"images must be {list(layout.shape)}, got {list(inputs.shape[1:])}")
    if labels.min() < 0 or labels.max() >= layout.classes:
        raise ValueError(f"labels must be in 0 ... {layout.classes - 1}, got {labels.min()} ... {labels.max()}")
    return images


def message_of(error: Exception) -> str:
    """The error message of a file, without the system's error number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def generated(split: Split, count: int | None) -> Dataset:
    """The first ``count`` images of ``shapes`` (None: 50,000), or as its test split a fifth as many others.

    The test split has at least one image of each class that the first ``count`` images have.
    """
    size = shapes.TRAIN if count is None else count
    if split == "test":
        size = max(size // 5, min(size, shapes.CLASSES))
    return Dataset(shapes.images(size, split == "test"), shapes.labels(size))


def read(name: str, path: str | None, split: Split = "train") -> Dataset:
    """Read the data set ``name``, one of :data:`Inputs`; all but the built-in ones from ``path``.

    A subset of a data set in its published layout is accepted. ``ValueError`` names the expected files if ``path`` is
    missing, lacks them, or contains something else: truncated files, other sizes, labels out of range, fewer labels
    than images. For ``npz`` it is one line that names the file and the array.
    """
    if name == "shapes":
        return generated(split, None)
    if name == "digits":
        if split == "test":
            raise ValueError("held_out: test is not allowed; digits have no test split, use a fraction such as 0.2")
        return digits()
    if path is None:
        raise ValueError(f"path: missing; with inputs: {name} it must be the path of\n{expected(name, split)}")
    place, layout = Path(path).expanduser(), LAYOUTS.get(name)
    try:
        if layout is None:
            return archive(place, split)
        found = archive(place, split) if place.suffix == ".npz" else layout.read(place, layout.names[split])
        return checked_images(found, layout)
    except BROKEN as error:
        if layout is None and isinstance(error, ArrayError):
            raise ValueError(f"path: {path}: {error}") from error
        what = name if split == "train" else f"the test split of {name}"
        raise ValueError(
            f"path: {path} does not contain {what} ({message_of(error)}); expected\n{expected(name, split)}"
        ) from error


def contents(name: str, path: str | None, test: bool = False) -> tuple[tuple[str, str], ...]:
    """Absolute path and SHA-256 (hexadecimal) of each file that :func:`read` reads; none for built-in sets.

    ``test``: including those of the test split.
    """
    if name in BUILT_IN or path is None:
        return ()
    place, layout = Path(path).expanduser().absolute(), LAYOUTS.get(name)
    names = (*layout.names["train"], *(layout.names["test"] if test else ())) if layout else ()
    files = [place] if place.is_file() or not names else [cifar.located(place, each) for each in names]
    present = [file if file.exists() else file.with_name(f"{file.name}.gz") for file in files]
    return tuple(identified(file) for file in present)


def identified(file: Path) -> tuple[str, str]:
    """The file's path and its SHA-256 (hexadecimal)."""
    fact = file.stat()
    return str(file), _sha256(str(file), fact.st_mtime_ns, fact.st_size)


@functools.lru_cache(maxsize=64)
def _sha256(path: str, modified: int, size: int) -> str:
    """SHA-256 of the file, computed again if its ``modified`` time or ``size`` changes."""
    del modified, size
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
