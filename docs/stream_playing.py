"""Play streams and draw what they show: shared by the figures of docs/streams.md."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from plasticity.core.types import Clock, Visit
from plasticity.engine.lanes import lane_keys
from plasticity.envs.base import StreamFactory
from plasticity.envs.minatar_games import SIZE
from plasticity.plots.style import COLOURS

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


def frame_in(axes: Axes, columns: int, rows: int) -> None:
    axes.add_patch(Rectangle((-0.5, -0.5), columns, rows, fill=False, edgecolor="#404040", linewidth=1, clip_on=False))


def coloured(planes: np.ndarray) -> np.ndarray:
    """Colour an image by channel; the last active channel wins."""
    image = np.broadcast_to(CHANNELS[0], (SIZE, SIZE, 3)).copy()
    for channel in range(planes.shape[-1]):
        image[planes[..., channel] > 0] = CHANNELS[1 + channel % (len(CHANNELS) - 1)]
    return image
