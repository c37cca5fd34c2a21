"""How many cores there are: the one question to the operating system that not every one answers alike."""

import os


def cores() -> int:
    """CPU cores that this process may use; all of the machine's where the system does not say (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
