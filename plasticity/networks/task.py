"""Networks whose observations end in the one-hot of the task."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.core.types import Array
from plasticity.networks.functions import Functions, as_graph
from plasticity.networks.spec import NetworkSpec

Make = Callable[[Any, int], NetworkSpec | Functions]


def with_task(make: Make, entries: int, user: str) -> Make:
    """``make`` for observations whose last ``entries`` (static) are the one-hot of the task.

    The network is that of the observation without them, so they do not change how it reads an image; a method may then
    let it read them. ``user``: that method, for the ``ValueError`` for a network given as functions.
    """

    def made(observation: Any, outputs: int) -> NetworkSpec:
        shape = (*observation.shape[:-1], observation.shape[-1] - entries)
        given = make(jax.ShapeDtypeStruct(shape, observation.dtype), outputs)
        return replace(as_graph(given, user), task_entries=entries)

    return made
