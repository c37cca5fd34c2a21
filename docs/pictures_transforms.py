"""Figures of the transforms."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from stream_playing import canvas, coloured, frame_in, idle, picture, play, random_actions

from plasticity.envs import STREAMS, TRANSFORMS
from plasticity.envs.base import StreamFactory
from plasticity.plots.style import COLOURS, styled


def transformed(kind: str, source: StreamFactory, **settings: Any) -> StreamFactory:
    return TRANSFORMS[kind](**settings)(source)


@styled
def sights() -> Figure:
    """Observations under transforms."""
    game = STREAMS["minatar"](games=["space_invaders"], sticky=0.0, cycles=2, steps_per_visit=100)
    actions = random_actions(12, 6)
    shown = {
        "unchanged": game,
        "permute_observations\nwhat: pixels": transformed("permute_observations", game),
        "permute_observations\nwhat: channels": transformed("permute_observations", game, what="channels"),
        "observation_noise\ndeviation: 0.3": transformed("observation_noise", game, deviation=0.3),
        "observation_dropout\nprobability: 0.3": transformed("observation_dropout", game, probability=0.3),
    }
    figure = canvas(8.5, 4.3)
    above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    for axes, (title, source) in zip(above.subplots(1, 5), shown.items(), strict=True):
        task = min(1, len(source.spec.tasks) - 1)
        seen = play(source, task, actions).timestep.observation[-1, 0]
        if seen.dtype == bool:
            picture(axes, coloured(seen), title)
        else:
            picture(axes, seen[..., 0], title, vmin=-1, vmax=1.5)
    stacked = transformed("frame_stack", STREAMS["catch"](change="none"), frames=4)
    row = below.subplots(1, 5, width_ratios=(1, 1, 1, 1, 4.5))
    for i, image in enumerate(play(stacked, 0, np.ones(6, np.int32)).timestep.observation[6, 0]):
        picture(row[i], image, "frame_stack\nframes: 4" if i == 0 else f"\nframe {i}")
        frame_in(row[i], 5, 10)
    places_moved(row[4])
    return figure


def places_moved(axes: Axes, steps: int = 100) -> None:
    """The share of places of a constant input that already show their final value."""
    still = STREAMS["relabelled"](
        inputs="gaussian", samples=1, dimensions=400, envs=1, fraction=0.0, tasks=2, steps_per_task=steps
    )
    for gradual in (0.0, 0.3, 1.0):
        source = transformed("permute_observations", still, gradual=gradual)
        seen = play(source, 1, idle(steps)).timestep.observation.input[:, 0]
        axes.plot((seen == seen[-1]).mean(-1), label=f"gradual: {gradual:g}")
    axes.set(xlabel="step of a visit of 100", ylabel="share of final places")
    axes.set_title("permute_observations, task 1", fontsize=8)
    axes.legend(loc="lower right")


def paid(source: StreamFactory) -> np.ndarray:
    """Rewards in the second visit."""
    actions = random_actions(60, source.spec.actions, 4)
    return play(source, source.spec.visits[1].task, actions, number=1).timestep.reward[:, 0]


@styled
def rewards() -> Figure:
    """Rewards under transforms."""
    figure = canvas(8.5, 2.9)
    game = STREAMS["gather"](change="none", size=5, gems=8, pits=6, blocks=2, episode_steps=50, steps_per_task=60)
    shown = {
        "unchanged": game,
        "scale_reward\nfactor: [1, 2]": transformed("scale_reward", game, factor=(1.0, 2.0)),
        "clip_reward\nlow: -0.2, high: 0.2": transformed("clip_reward", game, low=-0.2, high=0.2),
        "flip_reward": transformed("flip_reward", game),
        "delay_reward\nsteps: 10": transformed("delay_reward", game, steps=10),
        "permute_actions": transformed("permute_actions", game),
        "sticky_actions\nprobability: 0.5": transformed("sticky_actions", game, probability=0.5),
    }
    axes = figure.subplots(2, 4, sharex=True, sharey=True).ravel()
    for each, (title, source) in zip(axes, shown.items(), strict=False):
        each.vlines(range(61), 0, paid(source), color=COLOURS[0], linewidth=1.4)
        each.set_title(title, fontsize=8)
    axes[7].set_visible(False)
    for each in axes[3:7]:
        each.set_xlabel("step")
        each.xaxis.set_tick_params(labelbottom=True)
    for each in axes[::4]:
        each.set_ylabel("reward")
    return figure
