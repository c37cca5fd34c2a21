"""Atomic replacement of files: a reader sees the old file or the new one, never a partial one."""

import contextlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp"  # suffix of files being written
ABANDONED_SECONDS = 3600.0  # a temporary file older than this has no writer any more


def write_atomically(path: Path, write: Callable[[Path], Any], *, durable: bool = True) -> None:
    """Call ``write(temporary path)``, then rename.

    The temporary file is in the same folder under a unique name, so several processes may write the same file: the last
    one to finish wins. After an error it is removed. If the process is killed it stays until :func:`sweep`.

    Args:
      path: the file.
      write: receives the path to write to.
      durable: wait until the contents are on the disk before the rename.

    Raises:
      OSError: the file cannot be written; for system errors, its ``filename`` is ``path``.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():  # /dev/stdout, a pipe: nothing to replace
        write(path)
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{TEMPORARY}")
    try:
        write(temporary)
        if durable:
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    except Exception as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:  # else its text is all that it says
            error.filename = str(path)
            del error.filename2
        raise


def write_text(path: Path, text: str) -> None:
    """Replace the file's contents by the text, in UTF-8."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def sweep(folder: Path, *, older: float = ABANDONED_SECONDS) -> None:
    """Remove the temporary files directly in a folder that are at least ``older`` seconds old."""
    for path in folder.glob(f"*{TEMPORARY}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime >= older:
                path.unlink()
