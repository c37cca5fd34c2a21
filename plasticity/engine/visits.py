"""The order and the length of a stream's visits, whatever the stream."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from plasticity.config.counters import check_visits
from plasticity.core.errors import listed, shown, suggestion
from plasticity.core.types import Array, Key, StreamSpec, VisitPlan

ORDER = 5  # folded into a lane's data key; 0 ... 4 belong to ``envs.base``


def own_task(spec: StreamSpec, keys: Key, task: Array) -> Array:
    """int32[W]: what each lane is given where the sequence of visits says ``task`` (int32, traced).

    ``task`` itself, or, where ``spec.shuffled``, ``order[task]`` with a permutation of the tasks drawn from the lane's
    data key: in every lane a task that comes again comes again. ``keys``: data keys ``[W]``.
    """

    def own(key: Key) -> Array:
        if not spec.shuffled:
            return jnp.asarray(task, jnp.int32)
        return jax.random.permutation(jax.random.fold_in(key, ORDER), len(spec.tasks))[task].astype(jnp.int32)

    return jax.vmap(own)(keys)


def _index(name: str | int, tasks: Sequence[str], key: str) -> int:
    if isinstance(name, int) and not isinstance(name, bool):
        if not 0 <= name < len(tasks):
            raise ValueError(f"{key}: {name} is not allowed; the stream's tasks are numbered 0 ... {len(tasks) - 1}")
        return name
    if name not in tasks:
        hint = suggestion(str(name), tasks)
        raise ValueError(f"{key}: unknown task {shown(name)}; the stream has {listed(tasks)}{hint}")
    return list(tasks).index(str(name))


def scheduled(
    spec: StreamSpec,
    *,
    order: Literal["fixed", "shuffled"] = "fixed",
    visits: Sequence[str | int] | None = None,
    steps: int | Sequence[int] | None = None,
    cycles: int = 1,
) -> StreamSpec:
    """``spec`` with another sequence of visits.

    Args:
        order: ``fixed``, or ``shuffled``: each seed meets the tasks in an order of its own (see :func:`own_task`).
        visits: the sequence, by name or number of the task; default the stream's own.
        steps: env steps of each env in each visit; a list is gone through over and over; default the stream's own.
        cycles: how often the sequence is gone through.

    ``ValueError`` for an unknown task and numbers below 1.
    """
    plans = list(spec.visits)
    if visits is not None:
        if not visits:
            raise ValueError("visits: must name one task at least")
        usual = {plan.task: plan.steps for plan in reversed(plans)}  # as at the first visit to it
        chosen = [_index(name, spec.tasks, f"visits[{i}]") for i, name in enumerate(visits)]
        plans = [VisitPlan(task, usual.get(task, plans[0].steps)) for task in chosen]
    check_visits(len(plans), cycles)
    plans = plans * cycles
    if steps is not None:
        lengths = [steps] if isinstance(steps, int) else list(steps)
        if not lengths or min(lengths) < 1:
            raise ValueError(f"steps: {steps} is not allowed; must be at least 1")
        plans = [VisitPlan(plan.task, lengths[i % len(lengths)]) for i, plan in enumerate(plans)]
    return spec._replace(visits=tuple(plans), shuffled=spec.shuffled or order == "shuffled")
