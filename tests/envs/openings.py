"""How the visits of a stream open, in one lane; each stream is compiled once."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from playing import lane_keys, visit_of

from plasticity.envs import STREAMS

COMPILED: dict[str, Callable[..., Any]] = {}


def opened(name: str, settings: Mapping[str, Any], task: int = 1, eval_replica: int = 0, number: int = -1) -> Any:
    """The parameters of a visit and the observation with which it opens; its ``number`` is by default its task."""
    key = f"{name} {dict(settings)}"
    if key not in COMPILED:
        COMPILED[key] = jax.jit(STREAMS[name](**settings).make(1).reset)
    visit = visit_of(task if number < 0 else number, task)._replace(eval_replica=jnp.int32(eval_replica))
    state, timestep = COMPILED[key](lane_keys(0), visit, jnp.int32(0))
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], (state.params, timestep.observation))


def opening(name: str, settings: Mapping[str, Any], task: int = 1, eval_replica: int = 0) -> Any:
    """The inputs and targets with which a visit opens."""
    return opened(name, settings, task, eval_replica)[1]
