"""CIFAR's Python version: pickled batches in a folder or in the published archive. Their pickles cannot run code."""

import io
import pickle
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plasticity.envs.tables import Dataset

FOLDERS = ("cifar-10-batches-py", "cifar-100-python")
NUMBERS = ("u1", "i1", "i2", "i4", "i8", "u2", "u4", "u8")


class _Type:
    """Takes the place of ``numpy.dtype``; only integers are allowed."""

    def __init__(self, code: bytes | str, *flags: Any) -> None:
        del flags
        self.code, self.order = _text(code), "|"
        if self.code not in NUMBERS:
            raise pickle.UnpicklingError(f"an array of type {self.code[:20]} is not allowed in a file of images")

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.order = _text(state[1])

    def array(self, raw: Any, shape: Sequence[int], fortran: bool) -> np.ndarray:
        order = self.order if self.order in ("<", ">") else "="
        return np.frombuffer(raw, np.dtype(order + self.code)).reshape(shape, order="F" if fortran else "C")


class _Array:
    """Takes the place of ``numpy.ndarray``, which would accept buffers of pointers from a forged pickle."""

    def __init__(self, *arguments: Any) -> None:
        del arguments
        self.value = np.zeros(0, np.uint8)

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = dtype.array(raw, shape, bool(fortran))


def _from_buffer(raw: Any, dtype: _Type, shape: Sequence[int], order: bytes | str, *axes: Any) -> _Array:
    del axes
    made = _Array()
    made.value = dtype.array(raw, shape, _text(order) == "F")
    return made


def _encode(text: str, coding: bytes | str) -> bytes:
    if _text(coding) not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("text of another coding than latin1 is not allowed in a file of images")
    return text.encode("latin-1")


def _text(word: bytes | str) -> str:
    return word.decode("ascii") if isinstance(word, bytes) else word


KNOWN: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


class _Arrays(pickle.Unpickler):
    """An unpickler for dictionaries, lists, text, numbers and arrays of integers that refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        found = KNOWN.get((module.replace("numpy.core", "numpy._core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of images")
        return found


def unpickled(raw: bytes) -> dict[str, Any]:
    """The dictionary in one batch file. ``UnpicklingError`` or ``ValueError`` if it is or holds anything else."""
    found = _Arrays(io.BytesIO(raw), encoding="bytes").load()
    if not isinstance(found, dict):
        raise ValueError("a batch must be a dictionary")
    return {_text(key): each.value if isinstance(each, _Array) else each for key, each in found.items()}


def located(folder: Path, name: str) -> Path:
    """The file in ``folder``, or in its folder of the published name."""
    return next((folder / each / name for each in FOLDERS if (folder / each / name).exists()), folder / name)


def member_bytes(place: Path, names: Sequence[str]) -> list[bytes]:
    """The files ``names`` in a folder (:func:`located`) or in a tar archive (also compressed)."""
    if not place.is_file():
        return [located(place, name).read_bytes() for name in names]
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(place) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                content = archive.extractfile(member) if name in names and member.isfile() else None
                if content is not None:
                    found.setdefault(name, content.read())
            while archive.fileobj and archive.fileobj.read(1 << 20):  # to the end, where the checksum is
                pass
    except tarfile.TarError as error:
        raise ValueError("it is not a tar archive, or the archive is damaged") from error
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"the archive has no file {missing[0]}")
    return [found[name] for name in names]


def column(batch: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The integers ``name`` of a batch, one row of ``shape`` for each image."""
    if name not in batch:
        raise ValueError(f"a batch has no {name}, only {', '.join(map(str, batch)) or 'nothing'}")
    found = np.asarray(batch[name])
    if found.dtype.kind not in "iu" or found.ndim == 0 or found.shape[1:] != shape:
        wanted = ", ".join(["N", *map(str, shape)])
        raise ValueError(f"{name} must be integers [{wanted}], got {found.dtype}{list(found.shape)}")
    return found


def batches(labels: str) -> Callable[[Path, Sequence[str]], Dataset]:
    """A reader of batch files: rows of 1024 red, 1024 green and 1024 blue bytes, and ``labels``."""

    def read(place: Path, names: Sequence[str]) -> Dataset:
        found = [unpickled(raw) for raw in member_bytes(place, names)]
        rows = np.concatenate([column(batch, "data", (3072,)) for batch in found])
        if rows.dtype != np.uint8:
            raise ValueError(f"data must be bytes (uint8), got {rows.dtype}")
        images = np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return Dataset(images, np.concatenate([column(batch, labels, ()) for batch in found]).astype(np.int32))

    return read
