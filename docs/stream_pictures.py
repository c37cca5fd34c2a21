"""Draw the figures of docs/streams.md from the streams."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from plasticity import plots
from plasticity.core.types import Clock, Visit
from plasticity.engine.lanes import lane_keys
from plasticity.envs import STREAMS, TRANSFORMS
from plasticity.envs.base import StreamFactory
from plasticity.envs.functions import functions
from plasticity.envs.gridworld import neighbours
from plasticity.envs.minatar_games import SIZE
from plasticity.envs.pools import load_renderer
from plasticity.envs.slowly_changing import fire
from plasticity.plots.style import COLOURS, styled

FIGURES = Path(__file__).resolve().parent / "figures"
CHANNELS = np.array([[0.96, 0.96, 0.96], *([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS),
                     [0.3, 0.3, 0.3], [0.6, 0.5, 0.3], [0.95, 0.85, 0.3]])  # fmt: skip
LABELS = ListedColormap([*COLOURS, "#999999", "#f0e442", "#333333"])


class Trajectory(NamedTuple):
    """A visit of the first lane; time is the first axis."""

    params: Any  # the parameters of the visit's problem
    states: Any  # [1 + T, E, ...]
    timestep: Any  # [1 + T, E, ...]


def keys() -> Any:
    return jax.vmap(lane_keys)(jnp.zeros(1, jnp.int32)).data


def start(source: StreamFactory, task: int, number: int | None = None, eval_replica: int = 0) -> tuple[Any, Any, Any]:
    stream = source.make(1)
    visit = Visit(jnp.int32(task if number is None else number), jnp.int32(task), eval_replica)
    return stream, *stream.reset(keys(), visit, jnp.int32(0))


def problem(source: StreamFactory, task: int, eval_replica: int = 0) -> Any:
    """The parameters of the first lane's task."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0], start(source, task, eval_replica=eval_replica)[1].params)


def play(source: StreamFactory, task: int, actions: np.ndarray, number: int | None = None) -> Trajectory:
    """A visit of the first lane with the given actions ``[T, ...]`` in every env.

    Visits with the same number start in the same way.
    """
    stream, state, opening = start(source, task, number)
    repeated = np.broadcast_to(actions[:, None, None], (len(actions), 1, source.spec.envs, *actions.shape[1:]))

    def step(state: Any, inputs: Any) -> Any:
        i, action = inputs
        state, timestep = stream.step(keys(), state, action, Clock(i, i, jnp.int32(task), i))
        return state, (getattr(state, "envs", ()), timestep)

    first = (getattr(state, "envs", ()), opening)
    _, rest = jax.lax.scan(step, state, (jnp.arange(len(actions)), jnp.asarray(repeated)))
    both = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a)[None], np.asarray(b)])[:, 0], first, rest)
    return Trajectory(getattr(state, "params", None), *both)


def idle(steps: int) -> np.ndarray:
    return np.zeros(steps, np.int32)


def random_actions(steps: int, actions: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, actions, steps).astype(np.int32)


def canvas(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def picture(axes: Axes, image: Any, title: str = "", **how: Any) -> None:
    axes.imshow(image, **({"cmap": "gray_r"} if np.ndim(image) == 2 else {}) | how)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def table(axes: Axes, rows: np.ndarray, title: str, ylabel: str, **how: Any) -> None:
    """Show one column per task."""
    axes.imshow(rows, aspect="auto", interpolation="nearest", **how)
    axes.set(xlabel="task", ylabel=ylabel, yticks=[])
    axes.set_title(title, fontsize=9)
    axes.grid(visible=False)


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


def frame_in(axes: Axes, columns: int, rows: int) -> None:
    axes.add_patch(Rectangle((-0.5, -0.5), columns, rows, fill=False, edgecolor="#404040", linewidth=1, clip_on=False))


def coloured(planes: np.ndarray) -> np.ndarray:
    """Colour an image by channel; the last active channel wins."""
    image = np.broadcast_to(CHANNELS[0], (SIZE, SIZE, 3)).copy()
    for channel in range(planes.shape[-1]):
        image[planes[..., channel] > 0] = CHANNELS[1 + channel % (len(CHANNELS) - 1)]
    return image


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


# Module of the members -> the function that draws the figure, and its caption.
PICTURES: dict[str, tuple[Callable[[], Figure], str]] = {
    "targets": (targets, "Labels and targets by task, two families of functions, and gradual changes"),
    "permuted": (permuted, "The same digit in seven tasks"),
    "slowly_changing": (slow, "The slow bits by task, and the target for fixed values of the other bits"),
    "growing": (growing, "The classes shown in each task; the samples for training and for evaluation"),
    "classification": (classification, "An image of each state in two tasks of change: labels"),
    "toys": (catch, "The standard problem and the first permuted one"),
    "control": (control, "The same actions with different physics"),
    "gridworld": (gridworld, "Nine rooms, the start (blue) and the goals of five tasks (orange)"),
    "gather": (gather, "Layouts of two tasks: start (blue), gems (green), pits (orange), blocks (grey)"),
    "minatar": (minatar, "The five games, each also with permuted channels; colours are channels"),
    "atari": (atari, "Six games; modes of three games"),
    "suites": (suites, "First frames of tasks of MiniGrid, DeepMind Control and MetaWorld"),
    "transforms.permutations": (sights, "A frame of MinAtar's space_invaders under transforms of observations; "
                                     "a stack of frames of catch; a gradual permutation"),
    "transforms.rewards": (rewards, "Rewards of the same random actions in gather, in the second visit"),
}  # fmt: skip


def file_of(module: str) -> str:
    return f"streams_{module.rpartition('.')[2]}.png"


def draw(modules: Sequence[str] = ()) -> None:
    """Draw all figures, or those of some modules."""
    for module in modules or PICTURES:
        with matplotlib.rc_context({"axes.prop_cycle": cycler(color=COLOURS)}):
            plots.save(PICTURES[module][0](), FIGURES / file_of(module))
