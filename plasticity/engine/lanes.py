"""Lanes: placement of the learners on devices, and their random keys."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from plasticity.core.types import Key

DATA, LEARNER = 0, 1  # data keys and learner keys are separate, so that all arms see the same stream


class LaneKeys(NamedTuple):
    data: Key
    learner: Key


def lane_keys(seed: jax.Array) -> LaneKeys:
    """The root keys of the lane with this seed, independent of other lanes: ``fold_in(fold_in(key(0), seed), tag)``."""
    root = jax.random.fold_in(jax.random.key(0), seed)
    return LaneKeys(jax.random.fold_in(root, DATA), jax.random.fold_in(root, LEARNER))


class Placement(NamedTuple):
    """``devices x groups x width`` slots for lanes.

    A group runs on all devices at once. Groups run one after another. Each device advances ``width`` lanes in one vmap
    (1: no vmap).
    """

    devices: int
    groups: int
    width: int

    @property
    def block(self) -> int:
        """Lanes of one group."""
        return self.devices * self.width

    def lanes_of(self, group: int, lanes: int) -> np.ndarray:
        """The lane in each slot of a group, int[block]; surplus slots repeat the last lane and are not recorded."""
        places = np.arange(group * self.block, (group + 1) * self.block)
        return np.minimum(places, lanes - 1)


# Work of a step (parameters x batch x lanes) that keeps a CPU core busy: beyond it, width only costs cache, and turns
# branches into selects. Measured with `plasticity bench lanes` and `agents`.
BUSY = 1 << 16
WIDEST_ON_CPU = 128


def automatic_width(backend: str, lanes_per_device: int, work: int) -> int:
    """The vmap width that ``place`` chooses; ``work``: parameters x batch of one lane's step.

    On an accelerator: all lanes of a device. On a CPU: the smallest power of two that makes a step ``BUSY`` (1 for all
    but small networks), or a width between half and twice that value that leaves fewer slots without a lane. The width
    depends only on the program, never on a measurement, so the same config gives the same numbers.
    """
    if backend != "cpu":
        return lanes_per_device
    wanted = 1
    while wanted < WIDEST_ON_CPU and work * wanted < BUSY:
        wanted *= 2
    if lanes_per_device <= wanted:
        return lanes_per_device
    widths = range(-(-wanted // 2), min(2 * wanted, lanes_per_device) + 1)
    return min(widths, key=lambda width: (-(-lanes_per_device // width) * width, abs(width - wanted)))


def place(lanes: int, *, devices: int, backend: str = "cpu", work: int = BUSY, width: int | None = None) -> Placement:
    """Distribute lanes over devices, sequential groups and vmap width.

    ``width`` overrides the automatic choice and is then used exactly (slots without a lane repeat the last lane), so
    a lane's results are bitwise identical whatever other lanes run. ``ValueError`` if it is not positive.
    """
    if width is not None and width < 1:
        raise ValueError(f"placement.width: {width} is not allowed; must be at least 1")
    devices = min(devices, lanes)
    per_device = -(-lanes // devices)
    if width is None:
        width = automatic_width(backend, per_device, work)
    else:
        devices = min(devices, -(-lanes // width))
    return Placement(devices, -(-lanes // (devices * width)), width)


def join(groups: Sequence[np.ndarray], lanes: int) -> np.ndarray:
    """Per-group arrays ``[block, ...]`` -> one array ``[lanes, ...]``, without the surplus slots."""
    return np.concatenate(groups)[:lanes]
