"""One process at a time in a run's folder: an exclusive lock that ends with its process.

The lock is an operating-system lock on the file ``.lock`` in the folder, so a crash cannot leave it behind; on NFS it
works across hosts. The file names the holder. If the file system has no locks, the existence of another file,
``.lock-holder``, is the lock. Its holder touches it every half minute, and it is taken over when the holder is gone (a
process on this host that has ended, or one on another host that has not touched it for five minutes).
"""

import contextlib
import errno
import importlib
import json
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from plasticity.core.errors import UserError


class InUseError(UserError):
    """Another process holds the lock."""


LOCK, HOLDER = ".lock", ".lock-holder"
FILES = (LOCK, HOLDER)  # possible leftovers of a process
HEARTBEAT_SECONDS, DEAD_SECONDS = 30.0, 300.0  # for file systems without locks
HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
BYTE = 1 << 30  # the byte locked on Windows, where a locked byte cannot be read


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


fcntl, msvcrt = _optional("fcntl"), _optional("msvcrt")  # POSIX, Windows


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is created if necessary.

    Raises:
      InUseError: another process holds it (the message gives host, process and time).
      UserError: the lock file cannot be made.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _locked(path)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise UserError(f"{folder}: cannot be written: {os.strerror(error.errno or 0)}") from None
        handle = None
    if handle is None:
        warnings.warn(f"{folder}: the file system has no locks; using a lock file with a heartbeat", stacklevel=3)
        with contextlib.suppress(OSError):
            path.unlink()
        with _existing(folder / HOLDER):
            yield
        return
    try:
        yield
    finally:
        _release(path, handle)


def _locked(path: Path) -> int:
    """Open and lock the file. ``UserError`` if another process holds it, ``OSError`` if it cannot be made or locked."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle)
            if _is_same_file(path, handle):
                _write_holder(handle)
                return handle
        except OSError as error:
            os.close(handle)
            if error.errno in HELD:
                raise InUseError(_refusal(path)) from None
            raise
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder ended and removed it between our two calls


def _lock(handle: int) -> None:
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        os.lseek(handle, BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def _is_same_file(path: Path, handle: int) -> bool:
    """Whether the path still refers to the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _release(path: Path, handle: int) -> None:
    """Remove the file while it is locked, so that no process holds a lock on a removed file."""
    try:
        if fcntl is not None and _is_same_file(path, handle):
            path.unlink()
    except OSError:  # the folder is gone, or read-only by now
        pass
    finally:
        os.close(handle)


def _write_holder(handle: int) -> None:
    """Write the holder's name to the lock file. A failure is ignored: a full disk must not prevent resuming."""
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, _this_process().encode())


def _this_process() -> str:
    facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    return json.dumps({**facts, "born": psutil.Process().create_time(), "id": uuid.uuid4().hex})


def _holder(path: Path) -> Mapping[str, Any]:
    """The contents of the lock file; empty if nothing is written yet."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _refusal(path: Path) -> str:
    holder = _holder(path)
    for _ in range(20):  # it writes its name a moment after it has the lock
        if holder:
            break
        time.sleep(0.05)
        holder = _holder(path)
    who = f"process {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}" if holder else "a process"
    return f"{path.parent}: in use by {who}; wait for it or stop it first"


# ------------------------------------------------------------------------------------------- file systems without locks


@contextlib.contextmanager
def _existing(path: Path) -> Iterator[None]:
    """Hold a lock given by the file's existence."""
    mine = _create(path)
    ended = threading.Event()
    heart = threading.Thread(target=_heartbeat, args=(path, ended), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        with contextlib.suppress(OSError):
            if _holder(path).get("id") == mine:
                path.unlink()


def _create(path: Path) -> str:
    """Create the file, replacing one without a live holder. Returns its id; ``UserError`` if it is held."""
    text = _this_process()
    while True:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            holder = _holder(path)
            if _alive(path, holder):
                raise InUseError(_refusal(path)) from None
            _set_aside(path, holder)
            continue
        except OSError as error:
            raise UserError(f"{path.parent}: cannot be written: {os.strerror(error.errno or 0)}") from None
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        return str(json.loads(text)["id"])


def _alive(path: Path, holder: Mapping[str, Any]) -> bool:
    if holder.get("host") == socket.gethostname():
        try:
            return abs(psutil.Process(int(holder["pid"])).create_time() - float(holder["born"])) < 2.0
        except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
            return False
        except psutil.Error:
            return True
    probe = path.with_name(f"{HOLDER}.{uuid.uuid4().hex}.tmp")  # its time is the file server's, as that of the lock is
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime < DEAD_SECONDS
    except FileNotFoundError:
        return False
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _set_aside(path: Path, holder: Mapping[str, Any]) -> None:
    """Remove a dead holder's file by renaming it first, so that only one of several processes does so."""
    aside = path.with_name(f"{HOLDER}.{uuid.uuid4().hex}.tmp")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if _holder(aside) != holder:  # another process was faster; this is its live file
        with contextlib.suppress(OSError):
            os.rename(aside, path)
        return
    with contextlib.suppress(OSError):
        aside.unlink()


def _heartbeat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
