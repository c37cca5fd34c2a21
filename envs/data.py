"""Data sets: scikit-learn's digits, published image sets in their formats, and the user's own ``.npz`` files."""

import functools
import gzip
import hashlib
import io
import math
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from plasticity.envs.tables import ArrayError, Dataset, dataset

Inputs = Literal[
    "digits", "gaussian", "mnist", "fashion_mnist", "emnist_balanced", "emnist_letters", "cifar10", "cifar100", "npz"
]


class Layout(NamedTuple):
    """The published layout of a data set."""

    files: str  # the required contents of a folder
    shape: tuple[int, ...]  # of one image
    classes: int
    read: Callable[[Path], Dataset]
    names: tuple[str, ...]  # of the files in the folder; each may instead end in .gz


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


def idx_pair(stem: str, *, first_label: int = 0, transposed: bool = False) -> Callable[[Path], Dataset]:
    """A reader of ``{stem}-images-idx3-ubyte`` and ``{stem}-labels-idx1-ubyte``; labels start at ``first_label``."""

    def pair(folder: Path) -> Dataset:
        images, labels = idx(folder / f"{stem}-images-idx3-ubyte"), idx(folder / f"{stem}-labels-idx1-ubyte")
        images = images.swapaxes(1, 2) if transposed and images.ndim == 3 else images
        return Dataset(np.ascontiguousarray(images[..., None]), labels.astype(np.int32) - first_label)

    return pair


class _Arrays(pickle.Unpickler):
    """An unpickler for dictionaries, lists and NumPy arrays that refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")
        known = {
            "numpy": ("ndarray", "dtype"),
            "numpy._core.multiarray": ("_reconstruct",),
            "numpy._core.numeric": ("_frombuffer",),
            "_codecs": ("encode",),
        }
        if name not in known.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of images")
        return super().find_class(module, name)


def cifar(files: tuple[str, ...], labels: bytes) -> Callable[[Path], Dataset]:
    """A reader of ``files`` of CIFAR's Python version: rows of 1024 red, 1024 green and 1024 blue bytes."""

    def batches(folder: Path) -> Dataset:
        found = [_Arrays(io.BytesIO((folder / name).read_bytes()), encoding="bytes").load() for name in files]
        rows = np.concatenate([batch[b"data"] for batch in found])
        if rows.dtype != np.uint8 or rows.shape[1:] != (3072,):
            raise ValueError(f"data must be uint8[N, 3072], got {rows.dtype}{list(rows.shape)}")
        images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return Dataset(images, np.concatenate([batch[labels] for batch in found]).astype(np.int32))

    return batches


def archive(path: Path) -> Dataset:
    """The rows in an ``.npz`` file (:func:`plasticity.envs.tables.dataset`)."""
    with path.open("rb") as file:  # NumPy leaves its own handle open for a truncated file
        arrays = np.load(file)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it is not an .npz archive")
        with arrays:
            return dataset(arrays)


def _idx_layout(stem: str, classes: int, more: str = "", **facts: Any) -> Layout:
    names = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    files = f"{names[0]} and {names[1]} (either may end in .gz){more}"
    return Layout(files, (28, 28, 1), classes, idx_pair(stem, **facts), names)


CIFAR10 = tuple(f"data_batch_{i}" for i in range(1, 6))
# EMNIST's files store images column by column, MNIST's row by row; the transposition makes EMNIST's upright.
LAYOUTS: Mapping[str, Layout] = {
    "mnist": _idx_layout("train", 10),
    "fashion_mnist": _idx_layout("train", 10),
    "emnist_balanced": _idx_layout("emnist-balanced-train", 47, ", images transposed as published", transposed=True),
    "emnist_letters": _idx_layout(
        "emnist-letters-train", 26, ", images transposed and labels from 1 as published", transposed=True, first_label=1
    ),
    "cifar10": Layout(
        "data_batch_1 ... data_batch_5 (the Python version, cifar-10-batches-py)",
        (32, 32, 3),
        10,
        cifar(CIFAR10, b"labels"),
        CIFAR10,
    ),
    "cifar100": Layout(
        "train (the Python version, cifar-100-python; its fine labels)",
        (32, 32, 3),
        100,
        cifar(("train",), b"fine_labels"),
        ("train",),
    ),
}
BROKEN = (OSError, KeyError, TypeError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError)


def expected(name: str) -> str:
    """A description, in two lines, of the files that ``path`` must have for ``name``."""
    if name == "npz":
        return (
            "one .npz file with images uint8[N, height, width(, channels)] or features float[N, d],\n"
            "and labels int[N] or targets float[N(, outputs)]"
        )
    layout = LAYOUTS[name]
    sizes = ", ".join(str(size) for size in layout.shape if size > 1)
    return f"a folder with {layout.files},\nor one .npz file with the arrays images uint8[N, {sizes}] and labels [N]"


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


def read(name: str, path: str | None) -> Dataset:
    """Read the data set ``name``, one of :data:`Inputs`; all but ``digits`` from ``path``, in the published format.

    A subset of a data set in its published layout is accepted. ``ValueError`` names the expected files if ``path`` is
    missing, lacks them, or contains something else: truncated files, other sizes, labels out of range, fewer labels
    than images. For ``npz`` it is one line that names the file and the array.
    """
    if name == "digits":
        return digits()
    if path is None:
        raise ValueError(f"path: missing; with inputs: {name} it must be the path of\n{expected(name)}")
    place, layout = Path(path).expanduser(), LAYOUTS.get(name)
    try:
        if layout is None:
            return archive(place)
        return checked_images(archive(place) if place.suffix == ".npz" else layout.read(place), layout)
    except BROKEN as error:
        if layout is None and isinstance(error, ArrayError):
            raise ValueError(f"path: {path}: {error}") from error
        raise ValueError(
            f"path: {path} does not contain {name} ({message_of(error)}); expected\n{expected(name)}"
        ) from error


def contents(name: str, path: str | None) -> tuple[tuple[str, str], ...]:
    """Absolute path and SHA-256 (hexadecimal) of each file that :func:`read` reads; none for ``digits``."""
    if name == "digits" or path is None:
        return ()
    place, layout = Path(path).expanduser().absolute(), LAYOUTS.get(name)
    files = [place / each for each in layout.names] if layout and place.suffix != ".npz" else [place]
    present = [file if file.exists() else file.with_name(f"{file.name}.gz") for file in files]
    facts = [(str(file), file.stat()) for file in present]
    return tuple((file, _sha256(file, fact.st_mtime_ns, fact.st_size)) for file, fact in facts)


@functools.lru_cache(maxsize=64)
def _sha256(path: str, modified: int, size: int) -> str:
    """SHA-256 of the file, computed again if its ``modified`` time or ``size`` changes."""
    del modified, size
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
