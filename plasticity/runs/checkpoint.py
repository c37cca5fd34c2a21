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
import os
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity.runs.checksums import DamagedError, has, is_list, is_whole
from plasticity.runs.files import write_atomically

KEEP = 2
KEPT = "kept"  # in a folder of checkpoints: those that are not replaced
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


class Slot(NamedTuple):
    """Where a lane is: in which checkpoint, group, and place on the leading axis."""

    path: Path
    group: int
    place: int


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


def keep(path: Path) -> None:
    """Keep a checkpoint beyond the newest two: one more name of the same file or, where that is impossible, a copy."""
    target = path.parent / KEPT / path.name
    if target.exists() and target.samefile(path):
        return
    target.parent.mkdir(exist_ok=True)

    def write(temporary: Path) -> None:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)

    write_atomically(target, write)


def every(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the kept ones among them, oldest first; each once."""
    found = {path.name: path for path in (*files(folder), *files(folder / KEPT))}  # the others may vanish
    return [found[name] for name in sorted(found)]


def step_of(path: Path) -> int | None:
    """The env step of a checkpoint, by its name; None for a name of another form."""
    return int(path.stem) if path.stem.isdecimal() else None


def run_of(path: Path) -> Path:
    """The folder of the run that a checkpoint belongs to: ``RUN/ARM/checkpoints/PROGRAM[/kept]/FILE``."""
    return path.parents[4 if path.parent.name == KEPT else 3]


def at(folder: Path, step: int) -> Path | None:
    """The checkpoint of a folder at an env step, if there is one."""
    return next((path for path in every(folder) if step_of(path) == step), None)


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


def _of_group(group: int, like: Any) -> dict[str, Any]:
    """What a part of the carry of a group is called in a checkpoint."""
    return {f"[{group}]{name}": leaf for name, leaf in _named(like).items()}


def check_learners(path: Path, group: int, like: Any) -> None:
    """Check, by the headers alone, that a checkpoint has learners of the form of ``like``; the leading axes may differ.

    Raises:
        DamagedError: it is damaged.
        WrongCheckpointError: it has others.
    """
    wanted = _of_group(group, like)
    with _naming(path):
        headers = _headers(path)
    found = {name: facts for name, facts in headers.items() if name.startswith(f"[{group}].agent.")}
    odd = sorted(set(found) ^ {name for name in wanted if name.startswith(f"[{group}].agent.")})
    if odd:
        where = "that run" if odd[0] in found else "this one"
        raise WrongCheckpointError(f"{path} has other learners: {_shown(odd[0])} is only in {where}")
    for name, leaf in wanted.items():
        _check_like(path, name, leaf, *found.get(name, (leaf.shape, None)))


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """``DamagedError`` names the file."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{path} is damaged ({error})") from None


def forms(like: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each array of one lane, by its path."""
    return {name: (str(leaf.dtype), tuple(leaf.shape[1:])) for name, leaf in _named(like).items()}


def _shown(name: str) -> str:
    return name.partition("].")[2]


def _check_like(path: Path, name: str, leaf: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """``WrongCheckpointError`` if the array of one lane has another shape or type."""
    shape = shape[:-1] if _is_key(leaf) and dtype is not None else shape  # the words of the keys
    if shape[1:] != leaf.shape[1:]:
        raise WrongCheckpointError(
            f"{path} has other learners: {_shown(name)} is {list(shape[1:])} there and {list(leaf.shape[1:])} here"
        )
    expected = None if _is_key(leaf) else _plain(np.zeros(0, leaf.dtype)).dtype
    if dtype is not None and expected is not None and dtype != expected:
        raise WrongCheckpointError(f"{path} has other learners: {_shown(name)} is {dtype} there and {expected} here")


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each array of a checkpoint, without reading it."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as handle:
                    version = np.lib.format.read_magic(handle)
                    old = version == (1, 0)
                    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(handle)
                    found[name.removesuffix(".npy")] = (shape, dtype)
    except Exception as error:  # as in `_members`
        raise DamagedError(" ".join(f"{type(error).__name__}: {error}".split())[:120]) from error
    return found


def learners(slots: Sequence[Slot], like: Any) -> Any:
    """Learners from checkpoints, ``[len(slots), ...]``.

    Args:
        slots: where each of them is.
        like: a tree of parts of a carry (shapes and types), such as the agents.

    Raises:
        DamagedError: a checkpoint is damaged.
        WrongCheckpointError: it has other learners.
    """
    members: dict[tuple[Path, int], dict[str, np.ndarray]] = {}
    for path, group, _ in slots:
        if (path, group) not in members:
            check_learners(path, group, like)
            with _naming(path):
                members[path, group] = _members(path, set(_of_group(group, like)))
    leaves = []
    for name, leaf in _named(like).items():
        rows = [members[slot.path, slot.group][f"[{slot.group}]{name}"][slot.place] for slot in slots]
        leaves.append(_restore(np.stack(rows), leaf))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


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
