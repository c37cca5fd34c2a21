"""Order and length of a stream's visits, for any stream."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from plasticity.config.counters import check_visits
from plasticity.core.errors import listed, shown, suggestion
from plasticity.core.types import Array, Done, Key, StreamSpec, VisitPlan

ORDER = 5  # folded into a lane's data key; 0 ... 4 belong to ``envs.base``


def own_task(spec: StreamSpec, keys: Key, task: Array) -> Array:
    """Each lane's task where the sequence of visits has ``task``.

    It is ``task`` itself, or, if ``spec.shuffled``, ``order[task]`` with a permutation of the tasks drawn from the
    lane's data key. A repeated task is therefore repeated in every lane.

    Args:
        spec: the stream.
        keys: data keys ``[W]``.
        task: int32, traced.

    Returns:
        int32[W].
    """

    def own(key: Key) -> Array:
        if not spec.shuffled:
            return jnp.asarray(task, jnp.int32)
        return jax.random.permutation(jax.random.fold_in(key, ORDER), len(spec.tasks))[task].astype(jnp.int32)

    return jax.vmap(own)(keys)


def _index(name: str | int, tasks: Sequence[str], key: str) -> int:
    if isinstance(name, int) and not isinstance(name, bool):
        if not 0 <= name < len(tasks):
            raise ValueError(f"{key}: {name} is not allowed; must be one of the stream's tasks, 0 ... {len(tasks) - 1}")
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
    skip: int = 0,
    take: int | None = None,
) -> StreamSpec:
    """``spec`` with another sequence of visits.

    Args:
        spec: the stream.
        order: ``fixed``, or ``shuffled``: a different order of tasks for each seed (see :func:`own_task`).
        visits: the sequence, by name or number of the task; default: the stream's own.
        steps: env steps of each env in each visit; a list is used cyclically; default: the stream's own.
        cycles: number of repetitions of the sequence.
        skip: visits at its beginning that are left out. The others keep their numbers, and so their problems and data.
        take: visits after them; default: all.

    Raises:
        ValueError: a task is unknown, a number is too small, or no visit is left.
    """
    plans = list(spec.visits)
    if visits is not None:
        if not visits:
            raise ValueError("visits: must name at least one task")
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
    if skip >= len(plans):
        raise ValueError(f"skip: {skip} is not allowed; the sequence has {len(plans)} visits")
    if take is not None and skip + take > len(plans):
        raise ValueError(f"take: {take} is not allowed; after skip, {len(plans) - skip} visits are left")
    skipped = Done(skip, sum(plan.steps for plan in plans[:skip]))
    shuffled = spec.shuffled or order == "shuffled"
    return spec._replace(visits=tuple(plans[skip:][:take]), shuffled=shuffled, skipped=skipped)
