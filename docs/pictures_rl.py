"""Figures of the RL streams."""

from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from stream_playing import CHANNELS, canvas, coloured, frame_in, idle, picture, play, problem, random_actions

from plasticity.envs import STREAMS
from plasticity.envs.base import StreamFactory
from plasticity.envs.forager import bands
from plasticity.envs.gridworld import neighbours
from plasticity.envs.pools import load_renderer
from plasticity.plots.style import styled


@styled
def catch() -> Figure:
    figure = canvas(8.5, 2.1)
    grid = figure.subplots(1, 8)
    for column, (change, task) in enumerate((("observation", 0), ("observation", 1))):
        trajectory = play(STREAMS["catch"](change=change), task, np.array([1, 2, 2, 1, 1, 1, 1, 1], np.int32))
        for i in range(4):
            title = f"task {task}, step {2 * i}"
            picture(grid[4 * column + i], trajectory.timestep.observation[2 * i, 0], title)
            frame_in(grid[4 * column + i], 5, 10)
    return figure


@styled
def control() -> Figure:
    figure = canvas(8.5, 2.5)
    one, two, three = figure.subplots(1, 3)
    physics: dict[str, Any] = {"change": "physics", "gravity": (1.0, 2.0, 1.0), "length": (1.0, 1.0, 3.0)}
    looks = ("standard", "gravity: 2", "length: 3")
    turns = np.arange(60, dtype=np.int32) // 2 % 2
    for task, label in enumerate(looks):
        trajectory = play(STREAMS["cartpole"](**physics, steps_per_task=500), task, turns, number=1)
        ends = int((trajectory.timestep.discount[:, 0] == 0).argmax()) or 60
        angle = np.degrees(trajectory.timestep.observation[: ends + 1, 0, 2])
        one.plot(angle, label=label)
        trajectory = play(STREAMS["acrobot"](**physics, steps_per_task=500), task, np.full(60, 2, np.int32), number=1)
        seen = trajectory.timestep.observation[:, 0]
        two.plot(np.degrees(np.arctan2(seen[:, 1], seen[:, 0])), label=label)
    for task, label in enumerate(("task 0", "task 1: reversed")):
        source = STREAMS["pendulum"](change="action", tasks=2, steps_per_task=200)
        seen = play(source, task, np.full((60, 1), 1.0, np.float32), number=1).timestep.observation[:, 0]
        three.plot(seen[:, 2], label=label)
    one.set(xlabel="step", ylabel="pole's angle / degrees", title="cartpole, alternating pushes")
    two.set(xlabel="step", ylabel="upper angle / degrees", title="acrobot, torque 1")
    three.set(xlabel="step", ylabel="speed", title="pendulum, action 1, change: action")
    for axes in (one, two, three):
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.4 * (high - low))
        axes.legend(loc="upper left")
    return figure


def walls(axes: Axes, size: int, kind: str) -> None:
    moves = neighbours(size, kind)
    ends = (((-0.5, -0.5), (0.5, -0.5)), ((-0.5, 0.5), (0.5, 0.5)), ((-0.5, -0.5), (-0.5, 0.5)),
            ((0.5, -0.5), (0.5, 0.5)))  # fmt: skip
    for cell in range(size * size):
        row, column = divmod(cell, size)
        for action, ((x0, y0), (x1, y1)) in enumerate(ends):
            if moves[cell, action] == cell:
                axes.plot([column + x0, column + x1], [row + y0, row + y1], color="#404040", linewidth=1)


@styled
def gridworld() -> Figure:
    figure = canvas(8.5, 1.9)
    source = STREAMS["gridworld"](show_goal=True, tasks=5)
    for task, axes in enumerate(figure.subplots(1, 5)):
        seen = play(source, task, idle(1)).timestep.observation[0, 0]
        image = np.ones((15, 15, 3))
        image[seen[..., 0] > 0], image[seen[..., 1] > 0] = CHANNELS[1], CHANNELS[2]
        picture(axes, image, f"task {task}")
        walls(axes, 15, "nine_rooms")
        axes.set(xlim=(-0.7, 14.7), ylim=(14.7, -0.7))
    return figure


@styled
def gather() -> Figure:
    figure = canvas(8.5, 1.6)
    grid = figure.subplots(1, 6)
    source = STREAMS["gather"](levels=3, tasks=2)
    for task in range(2):
        made = problem(source, task)
        for layout in range(3):
            image = np.ones((9, 9, 3))
            for cells, colour in ((made.worth[layout] > 0, CHANNELS[3]), (made.worth[layout] < 0, CHANNELS[2]),
                                  (made.blocks[layout] > 0, np.full(3, 0.45))):  # fmt: skip
                image[cells] = colour
            image[4, 4] = CHANNELS[1]
            axes = grid[3 * task + layout]
            picture(axes, image, f"task {task}, layout {3 * task + layout}")
            frame_in(axes, 9, 9)
    return figure


@styled
def forager() -> Figure:
    """The map at two times, and what the agent sees."""
    figure = canvas(8.5, 2.1)
    grid = figure.subplots(1, 4, width_ratios=(15, 5, 15, 5))
    source = STREAMS["forager"](biomes=((0.2, 0.02), (0.02, 0.2)), delay=200, tasks=2)
    trajectory = play(source, 0, random_actions(120, 4, seed=3))
    state = jax.tree.map(lambda leaf: leaf[:, 0], trajectory.states)
    for time, board, window in ((0, grid[0], grid[1]), (120, grid[2], grid[3])):
        there = np.where(state.back[time] <= state.time[time], state.kinds[time], 0)
        image = objects(np.stack([there == 1, there == 2], -1))
        image[state.row[time], state.column[time]] = CHANNELS[1]
        picture(board, image, f"step {time}")
        board.axvline(np.searchsorted(bands(15, 2), 1) - 0.5, color="#404040", linewidth=0.8, linestyle=":")
        seen = objects(trajectory.timestep.observation[time, 0])
        seen[2, 2] = CHANNELS[1]
        picture(window, seen, "seen")
        frame_in(board, 15, 15)
        frame_in(window, 5, 5)
    return figure


def objects(planes: np.ndarray) -> np.ndarray:
    """An image of objects of two kinds: good food in green, bad food in orange."""
    image = np.ones((*planes.shape[:2], 3))
    image[planes[..., 0] > 0], image[planes[..., 1] > 0] = CHANNELS[3], CHANNELS[2]
    return image


@styled
def memory() -> Figure:
    """The observations of an episode, one column for each step."""
    figure = canvas(8.5, 2.0)
    one, two = figure.subplots(1, 2, width_ratios=(12, 23))
    maze = play(STREAMS["t_maze"](), 0, np.array([3] * 10 + [0], np.int32))
    asked = play(STREAMS["recall"](), 0, idle(21))
    rows = (
        ("cue 0", "cue 1", "corridor", "junction"),
        (*(f"cue {i}" for i in range(4)), "distractor 0", "distractor 1", "question"),
    )
    for axes, seen, title, names in ((one, maze, "t_maze", rows[0]), (two, asked, "recall", rows[1])):
        shown = seen.timestep.observation[: 11 if axes is one else None, 0].T
        axes.imshow(shown, cmap="gray_r", aspect="auto", interpolation="nearest")
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set(xlabel="step", xticks=range(0, shown.shape[1], 5))
        axes.set_title(title, fontsize=9)
        axes.grid(visible=False)
    return figure


@styled
def minatar() -> Figure:
    figure = canvas(8.5, 3.6)
    grid = figure.subplots(2, 5)
    games = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
    for game, column in zip(games, grid.T, strict=True):
        for change, axes in zip(("none", "channels"), column, strict=True):
            source = STREAMS["minatar"](games=[game], cycles=2, change=change, sticky=0.0)
            task = len(source.spec.tasks) - 1
            seen = play(source, task, random_actions(60, 6)).timestep.observation[55, 0]
            picture(axes, coloured(seen), game if change == "none" else "change: channels")
    return figure


def frame(source: StreamFactory, task: int, steps: int) -> np.ndarray:
    """The frame of a host environment after some random steps."""
    assert source.make_pool is not None
    pool = source.make_pool(task, np.array([3], np.int32))
    seen = pool.reset()
    for action in random_actions(steps, source.spec.actions):
        seen = pool.step(np.array([action]))[0]
    pool.close()
    return seen[0, -1]


@styled
def atari() -> Figure:
    figure = canvas(8.5, 3.2)
    games = ["Breakout", "Pong", "SpaceInvaders", "Qbert", "MsPacman", "Enduro"]
    modes = ["Breakout:12", "Breakout:20", "SpaceInvaders:4", "SpaceInvaders:8", "Freeway:0", "Freeway:4:1"]
    for row, names in zip(figure.subplots(2, 6), (games, modes), strict=True):
        source = STREAMS["atari"](games=names, frames_per_visit=40_000)
        for task, (name, axes) in enumerate(zip(names, row, strict=True)):
            picture(axes, frame(source, task, 120), name, cmap="gray")
    return figure


@styled
def suites() -> Figure:
    import envpool

    load_renderer()
    tasks = ("MiniGrid-Empty-5x5-v0", "MiniGrid-DoorKey-6x6-v0", "WalkerWalk-v1", "CheetahRun-v1",
             "MetaWorld/Hammer-v3", "MetaWorld/PushWall-v3")  # fmt: skip
    figure = canvas(8.5, 1.7)
    for task, axes in zip(tasks, figure.subplots(1, 6), strict=True):
        made = envpool.make(task, env_type="gymnasium", num_envs=1, seed=1, render_mode="rgb_array")
        made.reset()
        picture(axes, made.render()[0], task.removesuffix("-v0").removesuffix("-v1").replace("MiniGrid-", ""))
        made.close()
    return figure
