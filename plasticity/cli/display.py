"""Output that never stops a program: text that cannot be shown is dropped or escaped."""

import contextlib
import io
import os
import sys
from typing import TextIO

SUBSTITUTES = "backslashreplace"  # for characters that the encoding does not have


class _FailSafe(io.RawIOBase):
    """Write to a file descriptor; after the first failure (closed pipe, lost terminal, full disk), discard."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lost = descriptor, False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return not self._lost and os.isatty(self._descriptor)

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        if self._lost:
            return len(view)
        try:
            return os.write(self._descriptor, view)
        except BlockingIOError:  # a slow reader and a non-blocking pipe
            return len(view)
        except OSError:
            self._lost = True
            return len(view)


def fail_safe(stream: TextIO | None, descriptor: int) -> TextIO | None:
    """Wrap the text stream of a file descriptor so that neither its reader nor its encoding can make it fail.

    Any other stream (a notebook's, a test's) is returned unchanged.
    """
    try:
        if stream is None or stream.fileno() != descriptor:
            return stream
        if sys.platform == "win32" and stream.isatty():  # a Windows console has its own channel
            stream.reconfigure(errors=SUBSTITUTES)  # type: ignore[attr-defined]
            return stream
        stream.flush()
    except (OSError, ValueError, AttributeError):
        return stream
    raw = io.BufferedWriter(_FailSafe(descriptor), 8192)
    terminal = stream.isatty()
    made = io.TextIOWrapper(raw, stream.encoding, SUBSTITUTES, line_buffering=True, write_through=terminal)
    return made


def never_fail() -> None:
    """Wrap the process's standard output and standard error with :func:`fail_safe`; discard output to closed ones.

    A closed descriptor is opened first. Otherwise the next file to be opened would get its number, and anything a
    library prints would end up in that file.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    sys.stdout = fail_safe(sys.stdout, 1) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = fail_safe(sys.stderr, 2) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
