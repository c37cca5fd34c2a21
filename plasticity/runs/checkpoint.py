"""Checkpoints: everything a program needs to go on as if it had never stopped, in one file.

A checkpoint is an uncompressed ``.npz``: one member for each array of the carries, by its path in the tree, those of
the stream's host side, and a JSON member that says what it belongs to: the position, and length and CRC-32 of every
part of the tables up to there. The zip format keeps a CRC of every member, so a truncated or damaged file is noticed
when it is read. Files are written under a temporary name and renamed; one that turns out damaged, or whose parts of the
tables are no longer whole, is renamed as well, so that it is neither tried again nor counted among the two that are
kept.
"""

import json
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity.runs.checksums import DamagedError, has, is_list, is_whole
from plasticity.runs.files import write_atomically

KEEP = 2
META = "meta.json"
FIRST = "first"  # in META: whether no checkpoint was there before it
HOST = "host:"


class Snapshot(NamedTuple):
    """What is saved. ``arrays`` is any pytree; ``host`` flat arrays; ``meta`` plain JSON (position, parts, ...)."""

    arrays: Any
    host: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]


class WrongCheckpointError(Exception):
    """The checkpoint is sound but belongs to something else."""


class LostRowsError(Exception):
    """There are sound checkpoints, but none whose rows of the tables are all there; the message names a file."""


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    """An array that ``np.save`` keeps: keys as their data, exotic dtypes (bfloat16) as bytes of the same width."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _named(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def save(folder: Path, name: str, snapshot: Snapshot) -> Path:
    """Writes ``folder/name.npz`` atomically and removes all but the newest two (names sort by age)."""
    folder.mkdir(parents=True, exist_ok=True)
    members = {key: _plain(leaf) for key, leaf in _named(snapshot.arrays).items()}
    members |= {HOST + key: value for key, value in snapshot.host.items()}
    members[META] = np.frombuffer(json.dumps(snapshot.meta).encode(), np.uint8)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as handle:
            np.savez(handle, **members)  # type: ignore[arg-type]

    path = folder / f"{name}.npz"
    write_atomically(path, write)
    for old in [*files(folder)[:-KEEP], *folder.glob("*.tmp")]:
        old.unlink()
    return path


def files(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(folder.glob("*.npz"))


def successors(path: Path) -> list[Path] | None:
    """The newer checkpoints of a run that has taken this one away meanwhile; None where it is still there."""
    return None if path.exists() else [each for each in files(path.parent) if each > path]


def _restore(member: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(jax.numpy.asarray(member))
    dtype = np.dtype(like.dtype)
    return member.view(dtype) if dtype.kind == "V" else member


def _members(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of the file by name, all or those in ``wanted``; each is read to its end, where its CRC is checked."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                key = name.removesuffix(".npy")
                if wanted is None or key in wanted:
                    with archive.open(name) as handle:
                        found[key] = np.lib.format.read_array(handle, allow_pickle=False)
                        if handle.read(1):
                            raise ValueError(f"{key} is longer than it says")
    except Exception as error:  # a damaged header can make the readers of zip and npy raise nearly anything
        raise DamagedError(" ".join(f"{type(error).__name__}: {error}".split())[:120]) from error
    return found


def _meta(members: dict[str, np.ndarray]) -> dict[str, Any]:
    """The file's JSON, which is taken from ``members``; its types are checked."""
    try:
        meta = json.loads(members.pop(META).tobytes())
    except (KeyError, ValueError) as error:
        raise DamagedError(" ".join(f"{type(error).__name__}: {error}".split())[:120]) from error
    facts = {"fingerprint": lambda text: isinstance(text, str), "parts": is_whole}
    facts["position"] = lambda numbers: is_list(numbers, is_whole) and len(numbers) == 3
    if not has(meta, **facts) or not isinstance(meta.get("files", {}), dict):
        raise DamagedError("its JSON is not that of a checkpoint")
    found: dict[str, Any] = meta
    return found


def about(path: Path) -> dict[str, Any]:
    """A checkpoint's JSON (fingerprint, position, parts, files) without its arrays; ``DamagedError`` as in ``read``."""
    return _meta(_members(path, {META}))


def lacking(folder: Path) -> str | None:
    """What to say where one of the checkpoints that ought to be kept is missing; None where none is known to be."""
    there = files(folder)
    try:
        first = about(there[-1]).get(FIRST, True) if there else True
    except (OSError, DamagedError):
        first = True
    return None if first or len(there) >= KEEP else f"{folder}: one of the last {KEEP} checkpoints is missing"


def of_groups(path: Path, name: str) -> list[np.ndarray]:
    """One array of the carry of each group, ``[block, ...]``; ``DamagedError`` where there is none."""
    found: list[np.ndarray] = []
    while members := _members(path, {key := f"[{len(found)}].{name}"}):
        found.append(members[key])
    if not found:
        raise DamagedError(f"it has no {name}")
    return found


def read(path: Path, like: Any, fingerprint: str | None) -> Snapshot:
    """One checkpoint, its arrays in the structure of ``like`` (shapes and dtypes); ``None``: of any fingerprint.

    ``DamagedError`` where the file is truncated or corrupted, ``WrongCheckpointError`` where it does not fit.
    """
    members = _members(path)
    meta = _meta(members)
    if fingerprint not in (None, meta["fingerprint"]):
        raise WrongCheckpointError(
            f"{path} was made with another config or placement (devices, groups, width of a vmap)"
        )
    host = {name[len(HOST) :]: members.pop(name) for name in list(members) if name.startswith(HOST)}
    wanted = _named(like)
    if set(wanted) != set(members):
        odd = sorted(set(wanted) ^ set(members))[0]
        raise WrongCheckpointError(f"{path} does not fit this program: {odd} is in one of them only")
    for name, leaf in wanted.items():
        expected = _plain(np.zeros(0, leaf.dtype)).dtype if not _is_key(leaf) else members[name].dtype
        shape = members[name].shape[: len(leaf.shape)]
        if shape != leaf.shape or members[name].dtype != expected:
            raise WrongCheckpointError(f"{path} does not fit this program: {name} is {shape}, not {leaf.shape}")
    leaves = [_restore(members[name], leaf) for name, leaf in wanted.items()]
    return Snapshot(jax.tree.unflatten(jax.tree.structure(like), leaves), host, meta)


def newest(
    folder: Path, like: Any, fingerprint: str, fault: Callable[[Mapping[str, Any]], str | None] = lambda meta: None
) -> tuple[Snapshot | None, list[str]]:
    """The newest sound checkpoint of a folder, and a line for each one that was set aside.

    Args:
        folder: of a program's checkpoints.
        like: its carries (shapes and dtypes).
        fingerprint: of the program.
        fault: a checkpoint's JSON -> what is wrong with the tables that belong to it; None where they are whole.

    Returns:
        ``None`` where there is no sound checkpoint.

    Raises:
        WrongCheckpointError: a sound one was made with another config.
        LostRowsError: there are sound ones, but no tables of any are whole. Those stay where they are.
    """
    passed: list[str] = []
    lost: dict[Path, str] = {}
    found = None
    for path in reversed(files(folder)):
        try:
            found = read(path, like, fingerprint)
        except DamagedError as error:
            _set_aside(path)
            passed.append(f"{path} is damaged ({error}); set aside")
            continue
        why = fault(found.meta)
        if why is None:
            break
        lost[path], found = why, None
    if found is None and lost:
        raise LostRowsError(next(iter(lost.values())))
    for path, why in lost.items():
        _set_aside(path)
        passed.append(f"{why}; {path.name}, which it belongs to, is set aside")
    return found, passed


def _set_aside(path: Path) -> None:
    path.rename(path.with_name(path.name + ".damaged"))
