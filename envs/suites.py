"""Task suites from the literature, each a few settings on top of the stream ``envpool``."""

from typing import Annotated, Literal

from pydantic import Field

from plasticity.config.fields import Count, Cycles, Natural, Size, Threads, metadata
from plasticity.envs.base import StreamFactory
from plasticity.envs.pools import envpool

Names = Annotated[list[str], Field(min_length=1, max_length=1000)]

# Wolczyk et al. 2021, "Continual World: A Robotic Benchmark For Continual Reinforcement Learning", in its order.
CW10 = (
    "Hammer", "PushWall", "FaucetClose", "PushBack", "StickPull", "HandlePressSide", "Push", "ShelfPlace",
    "WindowClose", "PegUnplugSide",
)  # fmt: skip


@metadata(
    paper="Cobbe et al. 2020, Leveraging Procedural Generation to Benchmark Reinforcement Learning",
    example={"games": ["coinrun"], "steps_per_visit": 1000},
)
def procgen(
    *,
    games: Names,
    difficulty: Literal["easy", "hard", "extreme", "memory", "exploration"] = "easy",
    start_levels: Annotated[list[Natural], Field(min_length=1, max_length=1000)] = [0],  # noqa: B006 (read only)
    levels: Natural = 0,
    steps_per_visit: Count = 2_000_000,
    cycles: Cycles = 1,
    envs: Size = 1,
    threads: Threads = 0,
) -> StreamFactory:
    """Procgen games in sequence, or sets of levels of a game: every start level of every game is a task.

    Cobbe et al. 2020, "Leveraging Procedural Generation to Benchmark Reinforcement Learning". All settings are static.
    ``games``: ``coinrun``, ``starpilot``, ... ``difficulty``: not every game has every difficulty. ``start_levels``:
    the first of the ``levels`` levels (0: unbounded) from which a task draws its episodes; several start levels give a
    shift of levels. Frames are uint8[64, 64, 3]; 15 actions. ``ValueError`` for an unknown game, and if the Qt 5
    libraries, which envpool's Procgen needs, are not installed on the system.
    """
    return envpool(
        tasks=[f"{game.capitalize()}{difficulty.capitalize()}-v0" for game in games],
        variations=[{"start_level": start, "num_levels": levels} for start in start_levels],
        steps_per_visit=steps_per_visit, cycles=cycles, envs=envs, threads=threads, idle=4,
    )  # fmt: skip


@metadata(
    paper="Chevalier-Boisvert et al. 2023, Minigrid & Miniworld: Modular & Customizable RL Environments",
    example={"tasks": ["Empty-Random-5x5"], "steps_per_visit": 1000},
)
def minigrid(
    *,
    tasks: Names,
    episode_steps: Natural = 0,
    steps_per_visit: Count = 100_000,
    cycles: Cycles = 1,
    envs: Size = 1,
    pad: bool = False,
    threads: Threads = 0,
) -> StreamFactory:
    """MiniGrid tasks in sequence, in the agent's view: 7 x 7 cells, three categories each.

    Chevalier-Boisvert et al. 2023, "Minigrid & Miniworld: Modular & Customizable Reinforcement Learning Environments
    for Goal-Oriented Tasks". All settings are static. ``tasks``: ``Empty-5x5``, ``DoorKey-6x6``, ...
    ``episode_steps``: the time limit; 0 for each task's own. Observations are float32[7, 7, 3], an object's kind,
    colour and state as numbers. The direction and the mission are not observed (``kind: envpool`` with ``keys`` shows
    them). ``pad``: for mixing in tasks with fewer than 7 actions; a surplus action turns left. ``ValueError`` for an
    unknown task.
    """
    return envpool(
        tasks=[f"MiniGrid-{task}-v0" for task in tasks],
        variations=[{"max_episode_steps": episode_steps} if episode_steps else {}],
        keys=["image"], floats=True,
        steps_per_visit=steps_per_visit, cycles=cycles, envs=envs, pad=pad, threads=threads,
    )  # fmt: skip


@metadata(
    paper="Tassa et al. 2018, DeepMind Control Suite",
    example={"tasks": ["WalkerWalk"], "steps_per_visit": 1000},
)
def dmc(
    *,
    tasks: Names,
    episode_steps: Count = 1000,
    steps_per_visit: Count = 1_000_000,
    cycles: Cycles = 1,
    envs: Size = 1,
    pad: bool = False,
    threads: Threads = 0,
) -> StreamFactory:
    """DeepMind Control Suite tasks in sequence; observations are all observables of a task as one vector.

    Tassa et al. 2018, "DeepMind Control Suite". All settings are static. ``tasks``: ``CheetahRun``, ``WalkerWalk``, ...
    ``episode_steps``: an episode's length. ``pad``: see the stream ``envpool``; rarely needed for tasks of one body.
    Rewards are in [0, 1]. ``ValueError`` for an unknown task, and for bodies that differ without ``pad``.
    """
    return envpool(
        tasks=[f"{task}-v1" for task in tasks],
        variations=[{"max_episode_steps": episode_steps}],
        steps_per_visit=steps_per_visit, cycles=cycles, envs=envs, pad=pad, threads=threads,
    )  # fmt: skip


@metadata(
    paper="Wolczyk et al. 2021, Continual World: A Robotic Benchmark For Continual Reinforcement Learning",
    example={"steps_per_visit": 1000},
)
def continual_world(
    *,
    preset: Literal["cw10", "cw20"] = "cw10",
    episode_steps: Count = 200,
    steps_per_visit: Count = 1_000_000,
    envs: Size = 1,
    threads: Threads = 0,
) -> StreamFactory:
    """Ten tasks of a robot arm in sequence (``cw10``), or the ten twice (``cw20``).

    Wolczyk et al. 2021, "Continual World: A Robotic Benchmark For Continual Reinforcement Learning". All settings are
    static. ``episode_steps``: an episode's length, 200 in the paper. Observations are float32[39], actions 4 numbers in
    [-1, 1]. Differences from the paper: MetaWorld's version (v3 instead of v1: other rewards, longer observations), and
    the observation does not identify the task. Performance is the return, not the success rate.
    """
    return envpool(
        tasks=[f"MetaWorld/{task}-v3" for task in CW10],
        variations=[{"max_episode_steps": episode_steps}],
        steps_per_visit=steps_per_visit, cycles=2 if preset == "cw20" else 1, envs=envs, threads=threads,
    )  # fmt: skip
