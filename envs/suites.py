"""Task suites from the literature, each a few settings on top of the stream ``envpool``."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from plasticity.config.fields import Count, Cycles, Natural, Size, Threads, metadata
from plasticity.envs.base import StreamFactory
from plasticity.envs.pools import envpool

Names = Annotated[list[str], Field(min_length=1, max_length=1000)]

# Wolczyk et al. 2021, "Continual World: A Robotic Benchmark For Continual Reinforcement Learning", in its order
# (`continualworld/tasks.py` of the released code).
CW10 = (
    "Hammer", "PushWall", "FaucetClose", "PushBack", "StickPull", "HandlePressSide", "Push", "ShelfPlace",
    "WindowClose", "PegUnplugSide",
)  # fmt: skip
# Sequences A, B, C in which A helps with C more than B does. The first eight `SUPPLEMENTARY_TRIPLETS` of code derived
# from the released code (github.com/arczi21/continualworld-ppo, `continualworld/tasks.py`), in its order. The released
# code has no triplets, and the list was not compared with the paper's text.
TRIPLETS = (
    ("Push", "WindowClose", "Hammer"),
    ("Hammer", "WindowClose", "FaucetClose"),
    ("StickPull", "PushBack", "PushWall"),
    ("PushWall", "ShelfPlace", "PushBack"),
    ("FaucetClose", "ShelfPlace", "PushBack"),
    ("StickPull", "PegUnplugSide", "StickPull"),
    ("WindowClose", "HandlePressSide", "PegUnplugSide"),
    ("FaucetClose", "ShelfPlace", "PegUnplugSide"),
)
PRESETS: dict[str, Sequence[str]] = {
    "cw10": CW10,
    "cw20": CW10 * 2,
    **{f"triplet_{i}": tasks for i, tasks in enumerate(TRIPLETS, start=1)},
}


def camel_case(name: str) -> str:
    """``window-close`` and ``window-close-v1`` as ``WindowClose``; a name in this form is unchanged."""
    stem = re.sub(r"-v[0-9]+$", "", name)
    return "".join(word[:1].upper() + word[1:] for word in stem.split("-"))


def with_ranges(source: StreamFactory, *ranges: tuple[float, float]) -> StreamFactory:
    """The stream, whose measures have these ranges."""
    spec = source.spec._replace(measure_ranges=ranges)
    return source._replace(spec=spec, make=lambda lanes: source.make(lanes)._replace(spec=spec))


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
    only_with={"preset": {"tasks": (None,)}},
)
def continual_world(
    *,
    preset: Literal["cw10", "cw20", "triplet_1", "triplet_2", "triplet_3", "triplet_4", "triplet_5", "triplet_6",
                    "triplet_7", "triplet_8"] = "cw10",
    tasks: Names | None = None,
    episode_steps: Count = 200,
    goal: Literal["shown", "hidden"] = "shown",
    steps_per_visit: Count = 1_000_000,
    cycles: Cycles = 1,
    envs: Size = 1,
    threads: Threads = 0,
) -> StreamFactory:  # fmt: skip
    """Tasks of a robot arm in sequence: ten (``cw10``), the ten twice (``cw20``), or three (``triplet_1`` ...).

    Wolczyk et al. 2021, "Continual World: A Robotic Benchmark For Continual Reinforcement Learning". All settings are
    static. ``tasks``: MetaWorld's names (``window-close`` or ``WindowClose``), any of its 50, instead of a preset.
    ``episode_steps``: an episode's length, 200 in the paper. ``goal``: hidden goals are zeros in the observation. In
    the paper, objects and goals are drawn anew for every episode, as here, and shown. Observations are float32[39],
    actions 4 numbers in [-1, 1].

    An episode is successful if it meets MetaWorld's criterion at any step: the column ``success``, which is the
    performance in the paper's tables; ``success_at_end`` is the criterion at the last step. The paper evaluates 10
    episodes of the stochastic policy of every task every 20,000 steps.

    The released code neither scales nor normalises rewards and observations. Differences from it: MetaWorld v3 instead
    of v1, with other rewards (0 to 10 per step), longer observations (two frames of 18 numbers, then the goal; 12
    numbers in v1) and possibly other success criteria, so that returns and success rates cannot be compared with the
    paper's; and the observation does not identify the task, whereas the paper's agents have a head for each.
    ``ValueError`` for an unknown task.
    """
    chosen = PRESETS[preset] if tasks is None else tasks
    source = envpool(
        tasks=[f"MetaWorld/{camel_case(task)}-v3" for task in chosen],
        variations=[{"max_episode_steps": episode_steps, "partially_observable": goal == "hidden"}],
        measures=["success"],
        steps_per_visit=steps_per_visit, cycles=cycles, envs=envs, threads=threads,
    )  # fmt: skip
    return with_ranges(source, (0.0, 1.0))
