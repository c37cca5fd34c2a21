"""Descent along a direction that an optax transformation gives, with a step size that may follow a schedule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.config.fields import Moved
from plasticity.core import schedules
from plasticity.core.schedules import Number, Schedule
from plasticity.core.types import Array, Optimizer, Params

# Settings of versions before schedules were members.
FORMER = {
    "schedule": Moved("schedule", values={"constant": None}),
    "schedule_updates": Moved("schedule.duration", drop=0),
    "end_learning_rate": Moved("schedule.end", drop=0.0, relative_to="learning_rate"),
    "warm_up": Moved("schedule.warm_up", drop=0, kind="constant"),
}


class Scheduled(NamedTuple):
    """An empty marker in an optimizer's state: the step size depends on the number of updates."""


class Descent(NamedTuple):
    """State of :func:`descend`."""

    done: Array  # int32[], updates so far
    direction: optax.OptState
    mark: Scheduled | tuple[()] = ()


def descend(direction: optax.GradientTransformation, learning_rate: Schedule, scheduled: bool = True) -> Optimizer:
    """``theta <- theta - learning_rate(t) d_t``, t = 0, 1, ...; ``direction`` turns gradients into ``d_t``.

    ``scheduled`` (static) is False if the step size is known to be the same at every ``t``.
    """
    rule, mark = optax.with_extra_args_support(direction), Scheduled() if scheduled else ()

    def init(params: Params) -> Descent:
        return Descent(jnp.zeros([], jnp.int32), rule.init(params), mark)

    def update(gradients: Params, state: Descent, params: Params = None, **extra: Any) -> tuple[Params, Descent]:
        directions, inner = rule.update(gradients, state.direction, params, **extra)
        rate = learning_rate(state.done)
        updates = jax.tree.map(lambda d: -rate * d, directions)
        return updates, Descent(optax.safe_increment(state.done), inner, mark)

    return Optimizer(init, update, lambda state: learning_rate(state.done))


def has_schedule(optimizer: Optimizer) -> bool:
    """Whether the step size depends on the number of updates in the optimizer's state, also if it is wrapped."""
    state = jax.eval_shape(optimizer.init, jax.ShapeDtypeStruct((), jnp.float32))
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, Scheduled))
    return any(isinstance(node, Scheduled) for node in nodes)


def step_size(learning_rate: Number, schedule: Callable[[], Schedule] | None) -> Schedule:
    """The step size by update: ``learning_rate schedule(t)``, or ``learning_rate`` if there is no schedule."""
    if schedule is None:
        return schedules.constant(learning_rate)
    factor = schedule()
    return lambda count: learning_rate * factor(count)


def scheduled_descent(
    learning_rate: Number,
    schedule: Callable[[], Schedule] | None,
    max_gradient_norm: Number | None,
    *direction: optax.GradientTransformation,
) -> Optimizer:
    """:func:`descend` along ``direction`` (a chain) of the clipped gradient, with a scheduled step size."""
    rule = optax.chain(clipped(max_gradient_norm), *direction)
    return descend(rule, step_size(learning_rate, schedule), scheduled=schedule is not None)


def clipped(max_gradient_norm: Number | None) -> optax.GradientTransformation:
    """``g min(1, max_gradient_norm / |g|)``, ``|g|`` the norm of the whole tree; None (static): no clipping."""
    if max_gradient_norm is None:
        return optax.identity()
    return optax.clip_by_global_norm(max_gradient_norm)
