"""The number of CPU cores, which operating systems report differently."""

import os


def cores() -> int:
    """CPU cores available to this process; all of the machine's if the system does not report this (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
