"""Parameters and batches of observations that other programs saved: the arrays of a file, by name."""

import importlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from plasticity.core.errors import UserError, listed, shown, suggestion

SUFFIXES = (".npz", ".safetensors")
BATCH = ("observations", "targets", "actions")  # arrays of a file of observations
BROKEN = (  # what readers raise for damaged files
    OSError, ValueError, TypeError, EOFError, LookupError, AttributeError, RuntimeError, OverflowError, MemoryError,
)  # fmt: skip
INSTALL = {"safetensors": 'pip install "plasticity-lab[safetensors]"', "orbax": "pip install orbax-checkpoint"}


class Batch(NamedTuple):
    """What the networks read, ``[B, ...]``, and optionally what they should have answered.

    ``targets``: int[B], classes, or float ``[B]`` or ``[B, n]``, numbers. ``actions``: int[B], the outputs that numbers
    ``[B]`` belong to.
    """

    observations: Any
    targets: Any = None
    actions: Any = None


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` or ``.safetensors`` file, or of a folder that Orbax wrote, by name.

    Names of nested arrays are joined by ``/``: ``params/Dense_0/kernel``.

    Raises:
        UserError: there is no such file, it is damaged or of another kind, or the library that reads it is missing.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        return _orbax(path)
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    advice = "; save a PyTorch state dict as .npz (docs/howto/measure_checkpoints.md)" if _is_torch(path) else ""
    raise UserError(f"{path}: must be a .npz or .safetensors file, or a folder that Orbax wrote{advice}")


def read_batch(path: str | Path) -> Batch:
    """The observations in a ``.npz`` file, with its targets and actions, if it has any. ``UserError`` as in `read`."""
    path = Path(path)
    if path.suffix != ".npz":
        raise UserError(f"{path}: must be a .npz file with the array `observations`")
    found = read(path)
    for name in found:
        if name not in BATCH:
            close = suggestion(name, BATCH)
            raise UserError(f"{path}: {shown(name)} is not allowed; its arrays are {', '.join(BATCH)}{close}")
    if BATCH[0] not in found:
        raise UserError(f"{path}: has no array `observations`; it has {listed(sorted(found)) or 'none'}")
    return checked_batch(Batch(**found), str(path))


def checked_batch(batch: Batch, source: str = "observations") -> Batch:
    """The batch with numbers in float32. ``UserError`` if its arrays do not belong together or are not numbers."""
    observations = _numbers(batch.observations, f"{source}: observations")
    if not observations.ndim or not len(observations):
        raise UserError(
            f"{source}: observations {list(observations.shape)} are not allowed; the first axis is the batch"
        )
    _check_pixels(observations, source)
    rows = len(observations)
    targets = None if batch.targets is None else _numbers(batch.targets, f"{source}: targets")
    actions = None if batch.actions is None else np.asarray(batch.actions)
    for name, array in (("targets", targets), ("actions", actions)):
        if array is not None and array.shape[:1] != (rows,):
            raise UserError(f"{source}: {name} {list(array.shape)} do not fit {rows} observations")
    if actions is not None and (actions.ndim != 1 or not np.issubdtype(actions.dtype, np.integer)):
        raise UserError(f"{source}: actions {actions.dtype}{list(actions.shape)} are not allowed; must be integers [B]")
    if actions is not None and targets is None:
        raise UserError(f"{source}: actions are not allowed without targets")
    return Batch(observations, targets, actions)


def _check_pixels(observations: np.ndarray, source: str) -> None:
    """``UserError`` for images of whole numbers up to 255 that are not bytes: only bytes are divided by 255."""
    if observations.ndim < 3 or observations.dtype in (np.uint8, bool):
        return
    if 15 < observations.max() <= 255 and observations.min() >= 0 and (observations == np.floor(observations)).all():
        raise UserError(
            f"{source}: observations: pixels 0 ... 255 as {observations.dtype} are not allowed, because networks "
            "divide only bytes by 255; save them as uint8, or divided"
        )


def flattened(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of nested mappings and lists, with their names joined by ``/``."""
    if isinstance(tree, Mapping):
        parts = [(str(name), part) for name, part in tree.items()]
    elif isinstance(tree, list | tuple):
        parts = [(str(i), part) for i, part in enumerate(tree)]
    else:
        if tree is not None:
            yield prefix, np.asarray(tree)
        return
    for name, part in parts:
        yield from flattened(part, f"{prefix}/{name}" if prefix else name)


def _numbers(given: Any, what: str) -> np.ndarray:
    """Bytes and integers as they are, real numbers as float32; ``UserError`` if they are neither or not finite."""
    array = np.asarray(given)
    if jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise UserError(f"{what}: have numbers that are not finite")
    elif not (np.issubdtype(array.dtype, np.integer) or array.dtype == bool):
        raise UserError(f"{what}: {array.dtype} is not allowed; must be numbers")
    return array


def _is_torch(path: Path) -> bool:
    return path.suffix in (".pt", ".pth", ".cleanrl_model", ".bin")


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (*BROKEN, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as .npz: {reason}") from None


def _library(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"{path}: needs the library {package}: {INSTALL[package]}") from None


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    library, numpy = _library("safetensors", path), _library("safetensors.numpy", path)
    try:
        return dict(numpy.load_file(str(path)))
    except (*BROKEN, library.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as .safetensors: {' '.join(str(error).split())}") from None


def _orbax(path: Path) -> dict[str, np.ndarray]:
    """The arrays as NumPy's, whatever devices the program that saved them had."""
    library = _library("orbax.checkpoint", path)
    if not (path / "_METADATA").exists():
        inside = sorted(each.parent.name for each in path.glob("*/_METADATA"))
        advice = f"; give the folder of the item: {listed(inside)}" if inside else ""
        raise UserError(f"{path}: is not a folder that Orbax wrote{advice}")
    reader = library.PyTreeCheckpointer()
    try:
        described = reader.metadata(path.absolute())
        described = getattr(described, "item_metadata", described)
        tree = getattr(described, "tree", described)
        wanted = _as_numpy(tree, library.RestoreArgs(restore_type=np.ndarray))
        return dict(flattened(reader.restore(path.absolute(), restore_args=wanted)))
    except BROKEN as error:
        raise UserError(f"{path}: cannot be read by Orbax: {' '.join(str(error).split())}") from None


def _as_numpy(tree: Any, leaf: Any) -> Any:
    """The same nested mappings and lists with ``leaf`` in place of everything else."""
    if isinstance(tree, Mapping):
        return {name: _as_numpy(part, leaf) for name, part in tree.items()}
    if isinstance(tree, list | tuple):
        return [_as_numpy(part, leaf) for part in tree]
    return leaf
