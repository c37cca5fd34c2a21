"""Environments from envpool, on the host, except Atari, which has its own stream."""

import ctypes
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Cycles, Measures, Natural, Size, Threads, metadata
from plasticity.core.errors import listed
from plasticity.envs.atari import threads_of_a_block
from plasticity.envs.base import StreamFactory
from plasticity.envs.spaces import (
    Made,
    Space,
    VectorPool,
    check_measures,
    joined,
    seen_as,
    sequence,
    space_of,
    unknown_name,
    variants,
)

REFUSED = {
    "envpool.atari": "Atari is the stream `atari`",
    "envpool.vizdoom": "envpool's ViZDoom has crashed a whole process, and writes files into the working folder",
    "envpool.pgx": "it is a two-player game",
}


def library() -> Any:
    """Import envpool, which takes a second; only these streams need it. ``ValueError`` if it is not installed."""
    try:
        import envpool
    except ImportError as error:
        raise ValueError(f"envpool cannot be imported ({error}); these tasks need it: pip install envpool") from error

    warnings.filterwarnings("ignore", ".*precision lowered", module="gymnasium")  # because of bounds in float64
    return envpool


def known() -> dict[str, str]:
    """The suite of every supported task."""
    names = library().list_all_envs()
    from envpool.registration import registry

    suites = {name: registry.specs[name][0] for name in names}
    return {name: suite for name, suite in suites.items() if suite not in REFUSED}


def checked(name: str) -> None:
    """Raise ``ValueError`` for an unknown or unsupported task, with the nearest known one or the reason."""
    allowed = known()
    from envpool.registration import registry

    if name in registry.specs and name not in allowed:
        raise ValueError(f"tasks: {name} is not allowed; {REFUSED[registry.specs[name][0]]}")
    if name not in allowed:
        raise ValueError(f"tasks: {unknown_name('task', name, allowed)}")


class View(NamedTuple):
    """Conversion of a pool's observations: ``see`` turns them into one array ``[M, *shape]``."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    see: Callable[[Any], np.ndarray]


def one_hot(count: int) -> View:
    def see(seen: np.ndarray) -> np.ndarray:
        return np.eye(count, dtype=np.float32)[np.asarray(seen).reshape(-1)]

    return View((count,), np.dtype(np.float32), see)


def channels_last(space: Any) -> View:
    """Frames ``[channels, height, width]`` as ``[height, width, channels]``."""
    return View((*space.shape[1:], space.shape[0]), seen_as(space.dtype), lambda seen: np.moveaxis(seen, 1, -1))


def view_of_dict(name: str, space: Any, keys: Sequence[str] | None) -> View:
    """One part of a Dict unchanged, several concatenated into one vector."""
    for key in keys or ():
        if key not in space.spaces:
            raise ValueError(f"keys: {key!r} is not allowed; the observations of {name} have {', '.join(space.spaces)}")
    if len(names := list(keys or sorted(space.spaces))) == 1:
        part = space.spaces[names[0]]
        return View(part.shape, seen_as(part.dtype), lambda seen: np.asarray(seen[names[0]]))
    length = sum(int(np.prod(space.spaces[key].shape)) for key in names)

    def see(seen: Any) -> np.ndarray:
        return np.concatenate([np.asarray(seen[key], np.float32).reshape(len(seen[key]), -1) for key in names], 1)

    return View((length,), np.dtype(np.float32), see)


def view_of(task: Made, space: Any, keys: Sequence[str] | None) -> View:
    if hasattr(space, "spaces"):
        return view_of_dict(task.name, space, keys)
    if keys:
        raise ValueError(f"keys: {listed(list(keys))} is not allowed; {task.name} has observations of one part")
    if hasattr(space, "n") and np.ndim(space.n) == 0:
        return one_hot(int(space.n))
    if known()[task.id] == "envpool.procgen" or task.options.get("from_pixels"):
        return channels_last(space)
    return View(space.shape, seen_as(space.dtype), np.asarray)


def load_renderer() -> None:
    """Make envpool's bundled OpenGL visible to its MuJoCo, which does not find it by the names it looks for."""
    folder = Path(library().__file__).parent.parent / "envpool.libs"
    for file in sorted([*folder.glob("libEGL*"), *folder.glob("libOpenGL*")]):
        ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)


INFO = "info:"  # what the names of infos start with in a spec


def infos_of(spec: Any) -> list[str]:
    """The infos that are one number per environment; those of the whole pool are left out."""
    names = [name for name, array in spec.state_array_spec.items() if name.startswith(INFO) and array.shape == [-1]]
    return [name.removeprefix(INFO) for name in names if "." not in name]


def examined(task: Made, keys: Sequence[str] | None, floats: bool, measures: Sequence[str]) -> tuple[Space, View]:
    """The environment's space and view; ``ValueError`` if envpool cannot make it, or if it lacks a measure."""
    try:
        spec = library().make_spec(task.id, **task.options)
    except ImportError as error:
        raise ValueError(f"{task.name}: envpool has it, but a system requirement is missing: {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{task.name}: envpool refuses an option: {str(error).splitlines()[0]}") from error
    if spec.config.max_num_players != 1:
        raise ValueError(f"{task.name} is not allowed; it has {spec.config.max_num_players} players")
    check_measures(task.name, measures, infos_of(spec))
    view = view_of(task, spec.gymnasium_observation_space, keys)
    dtype = np.float32 if floats else view.dtype
    return space_of(task.name, view.shape, dtype, spec.gymnasium_action_space, spec.config.max_episode_steps), view


def make_envs(task: Made, seeds: np.ndarray, threads: int) -> Any:
    if task.options.get("from_pixels"):
        load_renderer()
    return library().make(
        task.id,
        env_type="gymnasium",
        num_envs=len(seeds),
        seed=[int(seed) for seed in seeds],
        num_threads=min(threads or threads_of_a_block(), len(seeds)),
        **task.options,
    )


@metadata(
    paper="Weng et al. 2022, EnvPool: A Highly Parallel Reinforcement Learning Environment Execution Engine",
    example={"tasks": ["CartPole-v1"], "steps_per_visit": 1000},
)
def envpool(
    *,
    tasks: Annotated[list[str], Field(min_length=1)],
    variations: Annotated[list[dict[str, Any]], Field(min_length=1)] = [{}],  # noqa: B006 (read only)
    keys: Annotated[list[str], Field(min_length=1)] | None = None,
    floats: bool = False,
    measures: Measures | None = None,
    steps_per_visit: Count = 100_000,
    cycles: Cycles = 1,
    envs: Size = 1,
    pad: bool = False,
    idle: Natural = 0,
    threads: Threads = 0,
) -> StreamFactory:
    """Envpool environments in sequence, the whole list ``cycles`` times; reward = the environment's.

    Weng et al. 2022, "EnvPool: A Highly Parallel Reinforcement Learning Environment Execution Engine". What it offers
    (1.2.5): DeepMind Control, Gymnasium's MuJoCo and Box2D, MetaWorld v3, MiniGrid and BabyAI, Procgen (needs Qt 5 on
    the system), classic control, toy text, robotics, highway, MyoSuite, MuJoCo Playground, Jumanji, Google football.
    Not supported: Atari (use the stream ``atari``), ViZDoom (it has crashed a whole process) and two-player games.
    Envpool has no MiniHack.

    All settings are static. ``tasks``: envpool's names. ``variations``: for each task, options for ``envpool.make``,
    such as ``max_episode_steps``, or ``from_pixels: true`` with ``render_width`` and ``render_height`` for frames
    instead of numbers (MuJoCo; without any OpenGL on the machine the process ends). ``keys``: the parts of a Dict
    observation to use, by default all in the order of their names; one part stays unchanged, several are concatenated
    into one vector. ``floats``: convert uint8 observations to float32 too, if they are categories, not brightness.
    ``measures``: numbers in the infos, such as ``success`` of MetaWorld's tasks, to record for each episode.
    ``steps_per_visit``: env steps of each env. ``pad``: tasks may differ in the size of observations (zeros at the end
    of each axis) and in actions (surplus numbers are ignored; a surplus action is played as action number ``idle``).
    ``threads``: threads per block of lanes; 0 shares the cores among the devices.

    Frames are channels-last; discrete observations are one-hot. The discount is 0 if the environment ends the episode
    and 1 at its time limit, including when both coincide. Real-valued actions are clipped to the space.

    ``ValueError`` for an unknown task or measure (suggests the nearest), refused options, a suite with a missing system
    requirement, and tasks that differ without ``pad``; a warning for visits shorter than an episode may last.
    """
    for name in tasks:
        checked(name)
    played = variants(tasks, variations)
    each = list({task.name: task for task in played}.values())
    looked = [examined(task, keys, floats, measures or ()) for task in each]
    spaces = {task.name: space for task, (space, _) in zip(each, looked, strict=True)}
    whole = joined(spaces, pad)

    def make_pool(task: int, seeds: np.ndarray) -> VectorPool:
        made, (own, view) = make_envs(each[task], seeds, threads), looked[task]
        dtype = np.int32 if own.discrete else own.action.dtype
        return VectorPool(made, own, whole, idle, dtype, lambda: made.reset()[0], view.see, measures or ())

    order = [task.name for task in played]
    return sequence(
        spaces, make_pool, order,
        steps=steps_per_visit, cycles=cycles, envs=envs, pad=pad, idle=idle, measures=measures or (),
    )  # fmt: skip
