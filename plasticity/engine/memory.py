"""Memory of a run on each device, from shapes alone; nothing is computed."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil

from plasticity.engine.runner import Run

ACTIVATION_COPIES = 4  # forward values, their gradients, and what the compiler keeps in addition
LEARNER_COPIES = 3  # gradient, update, and the copy a diverged lane returns to


class Memory(NamedTuple):
    """Bytes on one device."""

    state: int  # everything the lanes carry: exact
    workspace: int  # needed by one group while it runs: an estimate

    @property
    def total(self) -> int:
        return self.state + self.workspace


def size_of(tree: Any) -> int:
    """Bytes of the arrays of a tree, which may be shapes only; a random key counts as two words."""

    def leaf(x: Any) -> int:
        itemsize = 8 if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else np.dtype(x.dtype).itemsize
        return math.prod(x.shape) * itemsize

    return sum(leaf(x) for x in jax.tree.leaves(tree))


def estimate(run: Run, update: int = 0) -> Memory:
    """Memory of one program on each of its devices.

    ``update``: bytes of the activations of one lane's largest update batch. The monitors' batch counts if there are
    monitors, or if this is 0 because the updates are not known.
    """
    placement, carry = run.placement, run.carry_shape()
    per_group = size_of(carry) // placement.devices
    learner = size_of(carry.agent.learner) // placement.devices
    probe = size_of(run.activation_shape()) if run.program.monitors or not update else 0
    workspace = LEARNER_COPIES * learner + ACTIVATION_COPIES * max(update, probe) * placement.width
    return Memory(per_group * placement.groups, workspace)


def capacity(device: jax.Device, devices_in_use: int) -> int:
    """Bytes available on a device: its reported limit; on a CPU the machine's memory over the devices in use."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return int(psutil.virtual_memory().total) // devices_in_use


def readable(size: int) -> str:
    """``1536 -> 1.5 KiB``."""
    amount, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, _ = amount / 1024, units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "B" else f"{amount:.1f} {units[0]}"
