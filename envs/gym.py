"""Environments from gymnasium's registry, on the host."""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Cycles, Measures, Natural, Size, metadata
from plasticity.config.plugins import error_text
from plasticity.core.errors import shown, suggestion
from plasticity.envs.base import StreamFactory
from plasticity.envs.spaces import (
    Made,
    Space,
    VectorPool,
    check_measures,
    described,
    joined,
    seen_as,
    sequence,
    space_of,
    unknown_name,
    variants,
)
from plasticity.envs.workers import end_with_us, in_worker, shielded

EXTRAS = ("mujoco", "box2d")  # extras of this package that some of gymnasium's own environments need


def registered(key: str, id: str) -> None:
    """Raise ``ValueError`` for an unknown id, suggesting the nearest known one."""
    import gymnasium

    if id.startswith("ALE/"):
        import ale_py

        gymnasium.register_envs(ale_py)
    module, colon, name = id.rpartition(":")
    if colon:
        imported(key, module, suggestion(name, gymnasium.registry))
    if name not in gymnasium.registry:
        # The suggestion must be usable unchanged: other modules are not imported automatically.
        known = [f"{module}{colon}{each}" for each in gymnasium.registry]
        raise ValueError(f"{key}: {unknown_name('environment', id, known)}")


def imported(key: str, module: str, hint: str) -> None:
    """Import the module that registers an environment; ``ValueError`` with ``hint`` if that fails."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(
            f"{key}: {shown(module)} is not a valid module name; an id is `Name-v0` or `module:Name-v0`{hint}"
        )
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.startswith(error.name):
            raise ValueError(
                f"{key}: there is no module {shown(module)}, neither installed nor in the current folder{hint}"
            ) from error
        raise ValueError(f"{key}: module {shown(module)} cannot be imported: {error_text(error)}") from error
    except (Exception, SystemExit) as error:  # importing may run any code
        raise ValueError(f"{key}: module {shown(module)} cannot be imported: {error_text(error)}") from error


LARGEST = 2**24  # numbers of a flattened observation: 64 MiB


def make_env(id: str, options: dict[str, Any], flatten: bool) -> Any:
    """Make one environment; also called in worker processes, where nothing is registered yet."""
    import gymnasium

    registered("id", id)
    env = gymnasium.make(id, **options)
    size = gymnasium.spaces.flatdim(env.observation_space) if flatten else 0
    if size > LARGEST:
        env.close()
        raise ValueError(f"its observation is {size} numbers when flattened; at most {LARGEST} are allowed")
    return gymnasium.wrappers.FlattenObservation(env) if flatten else env


def numbers_of(env: Any) -> list[str]:
    """The names of the numbers in the infos of the first step of an episode."""
    env.reset(seed=0)
    infos = env.step(env.action_space.sample())[-1]
    kinds = {name: np.asarray(value) for name, value in infos.items()}
    return [name for name, value in kinds.items() if value.ndim == 0 and value.dtype.kind in "biuf"]


def examined(task: Made, flatten: bool, measures: Sequence[str]) -> Space:
    """The environment's space.

    ``ValueError`` if it cannot be made, if its observations are not supported, or if it lacks a measure.
    """
    import gymnasium

    try:
        env = make_env(task.id, dict(task.options), flatten)
        known = numbers_of(env) if measures else []
    except gymnasium.error.DependencyNotInstalled as error:
        missing = next((extra for extra in EXTRAS if extra in str(error).lower()), "")
        extra = f'; install the extra {missing}: pip install "plasticity-lab[{missing}]"' if missing else ""
        raise ValueError(f"{task.name}: a library is missing: {error}{extra}") from error
    except (TypeError, ValueError, gymnasium.error.Error) as error:
        raise ValueError(f"{task.name}: gymnasium cannot make it: {error}") from error
    except (
        Exception,
        SystemExit,
    ) as error:  # environments and unflattenable spaces may raise anything
        raise ValueError(f"{task.name}: gymnasium cannot make it: {error_text(error)}") from error
    seen, limit = env.observation_space, env.spec.max_episode_steps
    env.close()
    check_measures(task.name, measures, known)
    if not isinstance(seen, gymnasium.spaces.Box):
        flat = not flatten and getattr(seen, "is_np_flattenable", False)
        hint = ", or `flatten: true`" if flat else "; this one has no fixed size and cannot be flattened"
        raise ValueError(f"{task.name}: observations {described(seen)} are not allowed; must be a Box{hint}")
    return space_of(task.name, seen.shape, seen_as(seen.dtype), env.action_space, limit)


def vector_env(makers: Sequence[Callable[[], Any]], workers: bool) -> Any:
    """A gymnasium vector environment that resets at the step after an episode's end."""
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

    if not workers:
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
    with shielded():
        # A fork of this process would inherit the locks of XLA's threads.
        envs = AsyncVectorEnv(
            [in_worker(make) for make in makers], context="spawn", autoreset_mode=AutoresetMode.NEXT_STEP
        )
    end_with_us(envs.processes)
    return envs


def make_envs(task: Made, count: int, flatten: bool, workers: bool) -> Any:
    return vector_env([partial(make_env, task.id, dict(task.options), flatten)] * count, workers)


def asked(id: str | None, ids: Sequence[str] | None) -> list[str]:
    if (id is None) == (ids is None):
        raise ValueError(f"id: {shown(id)} with ids: {shown(ids)} is not allowed; exactly one of the two must be given")
    return [id] if id is not None else list(ids or ())


@metadata(
    paper="Towers et al. 2024, Gymnasium: A Standard Interface for Reinforcement Learning Environments",
    example={"id": "CartPole-v1", "steps_per_visit": 1000},
)
def gym(
    *,
    id: str | None = None,
    ids: Annotated[list[str], Field(min_length=1)] | None = None,
    variations: Annotated[list[dict[str, Any]], Field(min_length=1)] = [{}],  # noqa: B006 (read only)
    measures: Measures | None = None,
    steps_per_visit: Count = 100_000,
    cycles: Cycles = 1,
    envs: Size = 1,
    workers: bool = False,
    flatten: bool = False,
    pad: bool = False,
    idle: Natural = 0,
) -> StreamFactory:
    """Gymnasium environments in sequence, the whole list ``cycles`` times; reward = the environment's.

    Towers et al. 2024, "Gymnasium: A Standard Interface for Reinforcement Learning Environments". The tasks are every
    variation of every id. The discount is 0 at ``terminated``, 1 at ``truncated``.

    All settings are static. ``id`` or ``ids``: as in gymnasium, including ``ALE/...`` (Atari; the stream ``atari`` is
    faster and has its protocols). ``variations``: for each id, keywords for ``gymnasium.make``, including
    ``max_episode_steps``. ``measures``: numbers in the infos of steps, such as ``is_success``, to record for each
    episode (0 where an info is missing). ``steps_per_visit``: env steps of each env. ``workers``: run every env in its
    own process, which takes seconds to start and pays off if a step takes milliseconds. ``flatten``: observations as
    one vector (gymnasium's ``FlattenObservation``), required for Dict, Tuple and Discrete observations. ``pad``: tasks
    may differ in the size of observations (zeros at the end of each axis) and in actions (surplus numbers are ignored;
    a surplus action is played as action number ``idle``).

    Observations stay uint8 or become float32; real-valued actions are clipped to the space. A resumed visit is
    replayed, see :func:`plasticity.envs.host.host`, so the environments must be deterministic given a seed.

    Action spaces are Discrete (with any start) or a Box of real numbers; observation spaces are a Box. All other action
    spaces (MultiDiscrete, MultiBinary, Dict, Tuple, Text, Sequence, Graph, OneOf, a Box of integers) are refused.

    ``ValueError`` for an unknown id or measure (suggests the nearest), keywords that the environment refuses, a missing
    library, other spaces, and tasks that differ without ``pad``; a warning for visits shorter than an episode may last.
    If installed, ViZDoom, MiniHack and MetaWorld also register environments: ``module:Id`` imports their module, or one
    in the current folder, first.
    """
    tasks = variants(asked(id, ids), variations)
    for task in tasks:
        registered("id" if id is not None else "ids", task.id)
    known = {task.name: task for task in tasks}
    spaces = {name: examined(task, flatten, measures or ()) for name, task in known.items()}
    each, whole = list(known.values()), joined(spaces, pad)

    def make_pool(task: int, seeds: np.ndarray) -> VectorPool:
        made, own = make_envs(each[task], len(seeds), flatten, workers), spaces[each[task].name]

        def begin() -> np.ndarray:
            return made.reset(seed=[int(seed) for seed in seeds])[0]

        return VectorPool(made, own, whole, idle, own.action.dtype, begin, measures=measures or ())

    order = [task.name for task in tasks]
    return sequence(
        spaces, make_pool, order,
        steps=steps_per_visit, cycles=cycles, envs=envs, pad=pad, idle=idle, measures=measures or (),
    )  # fmt: skip
