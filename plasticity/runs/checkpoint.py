"""Checkpoints: everything a program needs to continue exactly as if it had never stopped, in one file.

A checkpoint is an uncompressed ``.npz``. It has one member for each array of the carries, named by its path in the
tree, the arrays of the stream's host side, the rows that no part of the tables holds yet, and a JSON member with its
metadata: the position, and the length and CRC-32 of every part of the tables up to that position. The zip format stores
a CRC of every member, so a truncated or damaged file is detected when it is read. Files are written under a temporary
name and then renamed. A checkpoint that turns out to be damaged, or whose parts of the tables are no longer intact, is
also renamed: it is not tried again and does not count among the two that are kept.
"""

import contextlib
import json
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity.runs.checksums import DamagedError, has, is_list, is_whole
from plasticity.runs.files import write_atomically

KEEP = 2
META = "meta.json"
FIRST = "first"  # in META: whether there was no earlier checkpoint
HOST, ROWS = "host:", "rows:"  # what the names of such members start with


class Snapshot(NamedTuple):
    """Contents of a checkpoint.

    ``arrays``: any pytree; ``host``: flat arrays; ``meta``: plain JSON (position, ...); ``rows``: uint8 arrays with the
    rows of each table that no part holds.
    """

    arrays: Any
    host: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]
    rows: Mapping[str, np.ndarray] = MappingProxyType({})


class WrongCheckpointError(Exception):
    """The checkpoint is intact but belongs to another program."""


class LostRowsError(Exception):
    """There are intact checkpoints, but none with all its rows of the tables; the message names a file."""


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> np.ndarray:
    """Convert to an array that ``np.save`` can store: keys as their data, bfloat16 etc. as bytes of the same width."""
    if _is_key(leaf):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def _named(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def save(folder: Path, name: str, snapshot: Snapshot) -> Path:
    """Write ``folder/name.npz`` atomically and remove all but the newest two (names sort by age)."""
    folder.mkdir(parents=True, exist_ok=True)
    members = {key: _plain(leaf) for key, leaf in _named(snapshot.arrays).items()}
    members |= {HOST + key: value for key, value in snapshot.host.items()}
    members |= {ROWS + key: value for key, value in snapshot.rows.items()}
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
    """The newer checkpoints if an active run has removed this one meanwhile; None if it still exists."""
    return None if path.exists() else [each for each in files(path.parent) if each > path]


def _restore(member: np.ndarray, like: Any) -> Any:
    if _is_key(like):
        return jax.random.wrap_key_data(jax.numpy.asarray(member))
    dtype = np.dtype(like.dtype)
    return member.view(dtype) if dtype.kind == "V" else member


def _members(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Arrays of the file by name, all or those in ``wanted``; each is read to its end, which checks its CRC."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                key = name.removesuffix(".npy")
                if wanted is None or key in wanted:
                    with archive.open(name) as handle:
                        found[key] = np.lib.format.read_array(handle, allow_pickle=False)
                        if handle.read(1):
                            raise ValueError(f"{key} is longer than its header says")
    except Exception as error:  # a damaged header can make the readers of zip and npy raise nearly anything
        raise DamagedError(" ".join(f"{type(error).__name__}: {error}".split())[:120]) from error
    return found


def _meta(members: dict[str, np.ndarray]) -> dict[str, Any]:
    """Remove and return the file's JSON from ``members``; its types are checked."""
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


def files_of(folder: Path) -> set[str]:
    """The parts of the tables that the checkpoints of a folder need."""
    found: set[str] = set()
    for path in files(folder):
        with contextlib.suppress(DamagedError):
            found |= about(path).get("files", {}).keys()
    return found


def lacking(folder: Path) -> str | None:
    """A message if one of the checkpoints that should be kept is missing; None if none is known to be missing."""
    there = files(folder)
    try:
        first = about(there[-1]).get(FIRST, True) if there else True
    except (OSError, DamagedError):
        first = True
    return None if first or len(there) >= KEEP else f"{folder}: one of the last {KEEP} checkpoints is missing"


def of_groups(path: Path, name: str) -> list[np.ndarray]:
    """One array of the carry of each group, ``[block, ...]``; ``DamagedError`` if there is none."""
    found: list[np.ndarray] = []
    while members := _members(path, {key := f"[{len(found)}].{name}"}):
        found.append(members[key])
    if not found:
        raise DamagedError(f"it has no {name}")
    return found


def read(path: Path, like: Any, fingerprint: str | None) -> Snapshot:
    """Read a checkpoint, with its arrays in the structure of ``like`` (shapes and dtypes).

    ``fingerprint``: required fingerprint; None accepts any. ``DamagedError`` if the file is truncated or corrupted,
    ``WrongCheckpointError`` if it does not fit.
    """
    members = _members(path)
    meta = _meta(members)
    if fingerprint not in (None, meta["fingerprint"]):
        raise WrongCheckpointError(
            f"{path} was made with another config or placement (devices, groups, width of a vmap)"
        )
    host, rows = (
        {name[len(start) :]: members.pop(name) for name in list(members) if name.startswith(start)}
        for start in (HOST, ROWS)
    )
    wanted = _named(like)
    if set(wanted) != set(members):
        odd = sorted(set(wanted) ^ set(members))[0]
        raise WrongCheckpointError(f"{path} does not fit this program: {odd} is only in one of them")
    for name, leaf in wanted.items():
        expected = _plain(np.zeros(0, leaf.dtype)).dtype if not _is_key(leaf) else members[name].dtype
        shape = members[name].shape[: len(leaf.shape)]
        if shape != leaf.shape or members[name].dtype != expected:
            raise WrongCheckpointError(f"{path} does not fit this program: {name} is {shape}, not {leaf.shape}")
    leaves = [_restore(members[name], leaf) for name, leaf in wanted.items()]
    return Snapshot(jax.tree.unflatten(jax.tree.structure(like), leaves), host, meta, rows)


def newest(
    folder: Path, like: Any, fingerprint: str, fault: Callable[[Mapping[str, Any]], str | None] = lambda meta: None
) -> tuple[Snapshot | None, list[str]]:
    """The newest intact checkpoint of a folder, and a line for each one that was set aside.

    Args:
        folder: folder of a program's checkpoints.
        like: its carries (shapes and dtypes).
        fingerprint: fingerprint of the program.
        fault: a checkpoint's JSON -> what is wrong with its tables; None if they are intact.

    Returns:
        ``None`` in place of the checkpoint if there is no intact one.

    Raises:
        WrongCheckpointError: an intact one was made with another config.
        LostRowsError: there are intact ones, but none has intact tables. They are not renamed.
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
