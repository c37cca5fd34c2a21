"""Networks whose observations end in the one-hot of the task."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from plasticity.networks.functions import Functions
from plasticity.networks.spec import NetworkSpec

Make = Callable[[Any, int], NetworkSpec | Functions]


def with_task(make: Make, entries: int) -> Make:
    """``make`` for observations whose last ``entries`` (static) are the one-hot of the task.

    The network is that of the observation without them, so they do not change how it reads an image; a method may then
    let it read them. A network given as functions is returned as it is; methods that read the task refuse it
    (``interventions.hooks.labelled``).
    """

    def made(observation: Any, outputs: int) -> NetworkSpec | Functions:
        shape = (*observation.shape[:-1], observation.shape[-1] - entries)
        given = make(jax.ShapeDtypeStruct(shape, observation.dtype), outputs)
        return given if isinstance(given, Functions) else replace(given, task_entries=entries)

    return made
