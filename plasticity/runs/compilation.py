"""Compiled programs, kept between runs in the user's cache folder."""

import contextlib
import glob
import hashlib
import os
import platform
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jaxlib
import platformdirs
from filelock import FileLock, Timeout
from jax.experimental.compilation_cache import compilation_cache

LARGEST = 4 << 30  # bytes of a folder; the programs not used for longest are removed first
UNUSED_DAYS = 60  # after which the folder of another processor or version is removed
USED = "last-used"  # a file that every run touches
ENTRY, TIME = "-cache", "-atime"  # ends of the names of JAX's two files for a program
DIR = "jax_compilation_cache_dir"
UNREADABLE = re.compile(r"Error reading persistent compilation cache entry for '([^']+)'")
SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    "jax_compilation_cache_max_size": LARGEST,
}


def folder() -> Path:
    """The folder of this processor and these versions: no program is used on another."""
    versions = f"jax-{jax.__version__}-{jaxlib.__version__}"
    processor = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_dir("plasticity")) / "programs" / f"{versions}-{processor}"


def _processor() -> str:
    """What machine code depends on: the processor's name and, where the system tells them, its features."""
    facts = [platform.system(), platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = {line.partition(":")[0].strip(): line for line in reversed(text.splitlines())}
        facts += [lines[key] for key in ("model name", "flags", "Features") if key in lines]
    return "\n".join(facts)


@contextlib.contextmanager
def kept(wanted: bool) -> Iterator[None]:
    """Load programs that an earlier run compiled, and keep those compiled here.

    JAX identifies a program by its content, its version, its options and its devices. Programs that call the host
    (emulators) are not kept. A folder given to JAX itself (``JAX_COMPILATION_CACHE_DIR``) is used as it is; without a
    folder that can be written, nothing is kept.

    Args:
      wanted: whether to use the folder; False changes nothing.
    """
    if not wanted or getattr(jax.config, DIR) is not None or not _prepared(folder()):
        yield
        return
    settings = {DIR: str(folder()), **SETTINGS}
    before = {name: getattr(jax.config, name) for name in settings}
    _set(settings)
    try:
        with _damage_removed(folder()):
            yield
    finally:
        _set(before)


@contextlib.contextmanager
def _damage_removed(place: Path) -> Iterator[None]:
    """Remove the programs that JAX cannot read, which it compiles again but never replaces, instead of its warning."""
    shown, damaged = warnings.showwarning, set[str]()

    def show(message: Warning | str, *where: Any, **options: Any) -> None:
        if found := UNREADABLE.match(str(message)):
            damaged.add(found[1])
        else:
            shown(message, *where, **options)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown
        for path in (path for name in damaged for path in place.glob(f"{glob.escape(name)}-*")):
            path.unlink(missing_ok=True)


def _set(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX reads the settings at the first program only


def _prepared(place: Path) -> bool:
    """Create and tidy the folder; whether it can be used."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        (place / USED).touch()
        _remove_unfinished(place)
        _remove_unused(place.parent)
    except OSError:
        return False
    return os.access(place, os.W_OK)


def _remove_unfinished(place: Path) -> None:
    """Remove entries whose process was killed while it wrote them: JAX writes the time after the program."""
    with contextlib.suppress(Timeout), FileLock(place / ".lockfile", timeout=1):
        names = {path.name for path in place.iterdir()}
        for name in names:
            pair = (ENTRY, TIME) if name.endswith(ENTRY) else (TIME, ENTRY)
            if name.endswith(pair[0]) and name.removesuffix(pair[0]) + pair[1] not in names:
                (place / name).unlink(missing_ok=True)


def _remove_unused(places: Path) -> None:
    """Remove the folders of versions and processors that no run has used for long."""
    for place in places.iterdir():
        mark = place / USED
        if mark.exists() and time.time() - mark.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(place, ignore_errors=True)
