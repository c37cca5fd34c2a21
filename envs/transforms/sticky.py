"""Sticky actions."""

from typing import Any

import jax
import jax.numpy as jnp

from plasticity.config.fields import metadata
from plasticity.core.types import FIRST, Array, Key, TimeStep
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms.base import (
    Done,
    LaneTransform,
    Per,
    Transform,
    Values,
    between,
    by_values,
    check_acted,
    check_gradual,
    cycled,
    listed_values,
    transformed,
)


@metadata(
    paper="Machado et al. 2018, Revisiting the Arcade Learning Environment",
    example={"probability": [0.0, 0.25]},
)
def sticky_actions(*, probability: Values = 0.25, per: Per = "visit", gradual: float = 0.0) -> Transform:
    """With a given probability, the last executed action is repeated in place of the chosen action.

    Machado et al. 2018, "Revisiting the Arcade Learning Environment: Evaluation Protocols and Open Problems for General
    Agents". All settings are static. ``probability``: a number, or a list to cycle through: at each visit, or
    (``per: task``) by the stream's tasks. Visits with the same task and probability are one task. ``gradual``: the
    fraction of the visit over which it changes linearly from the last value to the new one; every visit is then its own
    task.

    ``ValueError`` for probabilities outside [0, 1], a fraction out of range and on a supervised stream. The paper's
    emulator draws once per frame. Here the draw is once per step, and the first action of an episode is always
    executed.
    """
    check_gradual(gradual)
    values = listed_values("probability", probability, 0.0, 1.0, "in [0, 1]")

    def act(draw: Key, problem: Any, memory: Any, action: Array, done: Done) -> tuple[Any, Array]:
        last, opened = memory
        sticks = ~opened & (jax.random.uniform(draw, opened.shape) < between(problem, done))
        executed = jnp.where(sticks.reshape(-1, *(1 for _ in action.shape[1:])), last, action).astype(last.dtype)
        return (executed, opened), executed

    def see(draw: Key, problem: Any, memory: Any, timestep: TimeStep, done: Done) -> tuple[Any, TimeStep]:
        return (memory[0], timestep.step_type == FIRST), timestep

    def apply(source: StreamFactory) -> StreamFactory:
        spec = source.spec
        check_acted("sticky_actions", spec)
        if values == (0.0,):
            return source
        shape, dtype = ((), jnp.int32) if spec.discrete else ((spec.actions,), jnp.float32)

        def memory() -> tuple[Array, Array]:
            return jnp.zeros((spec.envs, *shape), dtype), jnp.ones(spec.envs, bool)

        change = LaneTransform(problem=cycled(values), memory=memory, act=act, see=see)
        return transformed("sticky_actions", source, by_values(spec, per, values, gradual), change, gradual)

    return apply
