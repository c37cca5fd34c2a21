"""Figures of the supervised streams, and of ``classification_mdp``."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from stream_playing import LABELS, canvas, idle, picture, play, problem, table

from plasticity.envs import STREAMS, shapes
from plasticity.envs.functions import functions
from plasticity.envs.samples import dataset_samples, drawn_rows
from plasticity.envs.slowly_changing import fire
from plasticity.plots.style import COLOURS, styled


def labels_by_task(**settings: Any) -> np.ndarray:
    source = STREAMS["relabelled"](inputs="gaussian", samples=20, dimensions=2, envs=1, **settings)
    return np.stack([problem(source, task).targets for task in range(len(source.spec.tasks))], 1)


def share_of_new(gradual: float, steps: int = 100) -> np.ndarray:
    """The share of changed samples shown with their new label, by step of a visit to task 1."""
    source = STREAMS["relabelled"](
        inputs="gaussian", samples=64, dimensions=3, tasks=2, steps_per_task=steps, gradual=gradual, envs=400
    )
    before, after, shown = problem(source, 0), problem(source, 1), play(source, 1, idle(steps)).timestep.observation
    row = np.abs(shown.input[..., None, :] - after.inputs).sum(-1).argmin(-1)
    changed = (before.targets != after.targets)[row]
    return (changed & (shown.target == after.targets[row])).sum(1) / changed.sum(1)


@styled
def targets() -> Figure:
    figure = canvas(8.5, 4.6)
    axes = figure.subplots(2, 3).ravel()
    table(axes[0], labels_by_task(tasks=16), "relabelled", "20 inputs, colour = label", cmap=LABELS)
    table(axes[1], labels_by_task(tasks=16, fraction=0.1), "relabelled, fraction: 0.1", "20 inputs", cmap=LABELS)
    source = STREAMS["permuted_labels"](tasks=16, envs=1)
    orders = np.stack([problem(source, task).targets for task in range(16)], 1)
    table(axes[2], orders, "permuted_labels", "10 classes, colour = label", cmap=LABELS)
    source = STREAMS["regression"](samples=64, dimensions=8, offset=(3.0, 3.0, 0.0), tasks=8, envs=1)
    values = np.stack([problem(source, task).targets[:3, 0] for task in range(8)])
    axes[3].plot(values, marker="o")
    axes[3].set(xlabel="task", ylabel="target of three inputs", title="regression, offset: [3, 3, 0]")
    x = np.linspace(-2, 2, 400)
    line = jnp.asarray(np.stack([x, np.full_like(x, 0.5)], 1), jnp.float32)
    for kind, frequency, at in (("network", 1.0, 0), ("sinusoid", 5.0, 4)):
        family = functions(kind, (2, 64, 1), frequency)
        for task in range(2):
            values = family.at(family.draw(jax.random.key(task)), line)[:, 0]
            axes[4].plot(x, values - at, color=COLOURS[task], label=f"task {task}" if at else None)
    axes[4].set(xlabel="input along a line", yticks=[], title="targets: network (above), sinusoid")
    axes[4].legend(loc="upper right", ncols=2)
    for gradual in (0.0, 0.3, 1.0):
        axes[5].plot(share_of_new(gradual), label=f"gradual: {gradual:g}")
    axes[5].set(xlabel="step of a visit of 100", ylabel="share of new labels", title="from one task to the next")
    axes[5].legend(loc="lower right")
    return figure


@styled
def permuted() -> Figure:
    figure = canvas(8.5, 1.6)
    source = STREAMS["permuted_inputs"](tasks=7, envs=1, samples=4)
    for task, axes in enumerate(figure.subplots(1, 7)):
        seen = play(source, task, idle(20)).timestep.observation
        which = int((seen.target == 0).argmax())  # the same digit in every task
        picture(axes, seen.input[which, 0].reshape(8, 8), f"task {task}")
    return figure


@styled
def slow() -> Figure:
    figure = canvas(8.5, 2.4)
    one, two, three = figure.subplots(1, 3)
    for axes, flips in ((one, "one"), (two, "all")):
        source = STREAMS["slowly_changing_regression"](tasks=30, flips=flips)
        problems = [problem(source, task) for task in range(30)]
        table(axes, np.stack([each.slow for each in problems], 1), f"flips: {flips}", "15 slow bits", cmap="gray_r")
        free = jnp.asarray([0.0, 1.0, 1.0, 0.0, 1.0])
        values = [fire(each.network, jnp.concatenate([jnp.asarray(each.slow), free])) for each in problems]
        three.step(range(30), values, where="mid", label=f"flips: {flips}")
    three.set(xlabel="task", ylabel="target", title="same random bits")
    three.legend(loc="best")
    return figure


@styled
def growing() -> Figure:
    figure = canvas(8.5, 2.2)
    one, two, three = figure.subplots(1, 3)
    for axes, shown in ((one, "seen"), (two, "new")):
        source = STREAMS["class_incremental"](shown=shown, envs=400)
        drawn = [play(source, task, idle(1)).timestep.observation.target for task in range(5)]
        counts = np.stack([np.bincount(labels.ravel(), minlength=10) for labels in drawn], 1)
        table(axes, counts / counts.sum(0), f"class_incremental, shown: {shown}", "10 classes",
              cmap="gray_r")  # fmt: skip
    source = STREAMS["warm_start"]()
    parts = {
        "task 0": problem(source, 0),
        "task 1": problem(source, 1),
        "evaluation": problem(source, 1, eval_replica=1),
    }
    for name, part in parts.items():
        three.barh(name, int(part.end) - int(part.first), left=int(part.first), color=COLOURS[0], height=0.5)
    three.set(xlabel="samples, in the lane's order", title="warm_start")
    three.invert_yaxis()
    return figure


def mosaic(shown: np.ndarray, columns: int) -> np.ndarray:
    """Images ``[N, height, width, 3]`` side by side on white."""
    framed = np.pad(shown, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = [np.concatenate(framed[i : i + columns], axis=1) for i in range(0, len(framed), columns)]
    return np.concatenate(rows)


@styled
def images() -> Figure:
    """The classes of generated images, and augmentations of one of them."""
    figure = canvas(7, 2.4)
    above, below = figure.subplots(2, 1, height_ratios=(5, 1))
    picture(above, mosaic(shapes.images(100), 20), "shapes")
    how = {"flip": 0.5, "crop": 4, "rotate": 15.0}
    draw = drawn_rows(dataset_samples("shapes", None, 100, flat=False, standardise="none"), how)
    changed = [draw(jax.random.key(key), (), 31, key > 0) for key in range(20)]
    picture(below, mosaic(np.stack(changed), 20), "augment: {flip: 0.5, crop: 4, rotate: 15}")
    return figure


@styled
def classification() -> Figure:
    figure = canvas(8.5, 2.2)
    grid = figure.subplots(2, 10)
    source = STREAMS["classification_mdp"](change="labels", tasks=2)
    for task, row in enumerate(grid):
        trajectory = play(source, task, idle(200))
        for state, axes in enumerate(row):
            at = int((trajectory.states[:, 0] == state).argmax())
            picture(axes, trajectory.timestep.observation[at, 0].reshape(8, 8), f"state {state}" if task == 0 else "")
        row[0].set_ylabel(f"task {task}", fontsize=8)
    return figure
