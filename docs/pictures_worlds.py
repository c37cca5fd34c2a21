"""Figures of the streams of other JAX libraries, which have to be installed."""

from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from stream_playing import canvas, idle, picture, play

from plasticity.envs import STREAMS
from plasticity.envs.worlds import library
from plasticity.plots.style import styled


@styled
def craftax() -> Figure:
    source = STREAMS["craftax"](id="Craftax-Classic-Pixels-v1", steps_per_visit=10_000, envs=6)
    starts = play(source, 0, idle(1)).timestep.observation[0]
    figure = canvas(8.5, 1.6)
    for start, axes in zip(starts, figure.subplots(1, 6), strict=True):
        picture(axes, start)
    return figure


@styled
def xminigrid() -> Figure:
    render = library("xminigrid.rendering.rgb_render").render
    tasks = ["Empty-8x8", "FourRooms", "DoorKey-8x8", "LockedRoom", "Playground"]
    figure = canvas(8.5, 1.9)
    for name, axes in zip(tasks, figure.subplots(1, 5), strict=True):
        source = STREAMS["xminigrid"](id=f"MiniGrid-{name}", steps_per_visit=10_000)
        state = jax.tree.map(lambda leaf: leaf[0, 0], play(source, 0, idle(1)).states[0].state)
        picture(axes, render(state.grid, state.agent, 7), name)
    return figure


@styled
def brax() -> Figure:
    figure = canvas(8.5, 2.5)
    shifts: list[dict[str, Any]] = [{}, {"gravity": 2.0}, {"friction": 0.1}, {"disabled": [0, 1]}]
    source = STREAMS["brax"](id="ant", variations=shifts, backend="spring", steps_per_visit=1000)
    actions = np.sin(np.arange(100)[:, None] / 3 + np.arange(8)).astype(np.float32)
    panels = figure.subplots(1, 2)
    for task, shift in enumerate(shifts):
        seen = play(source, task, actions, number=1).timestep.observation[:, 0]
        label = ", ".join(f"{key}: {value}" for key, value in shift.items()) or "standard"
        for axes, column in zip(panels, (0, 13), strict=True):
            axes.plot(seen[:, column], label=label)
    for axes, what in zip(panels, ("height / m", "forward speed / (m/s)"), strict=True):
        axes.set(xlabel="step", ylabel=what)
    panels[1].legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
