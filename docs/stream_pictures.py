"""Draw the figures of docs/streams.md from the streams."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import pictures_rl as rl
import pictures_supervised as supervised
import pictures_transforms as transforms
import pictures_worlds as worlds
from cycler import cycler
from matplotlib.figure import Figure

from plasticity import plots
from plasticity.plots.style import COLOURS

FIGURES = Path(__file__).resolve().parent / "figures"

# Module of the members -> the function that draws the figure, and its caption.
PICTURES: dict[str, tuple[Callable[[], Figure], str]] = {
    "targets": (supervised.targets, "Labels and targets by task, two families of functions, and gradual changes"),
    "permuted": (supervised.permuted, "The same digit in seven tasks"),
    "slowly_changing": (supervised.slow, "The slow bits by task, and the target for fixed values of the other bits"),
    "growing": (supervised.growing, "The classes shown in each task; the samples for training and for evaluation"),
    "images": (supervised.images, "Each class of shapes once; below, one image under random flips, crops and "
               "rotations"),
    "classification": (supervised.classification, "An image of each state in two tasks of change: labels"),
    "toys": (rl.catch, "The standard problem and the first permuted one"),
    "control": (rl.control, "The same actions with different physics"),
    "gridworld": (rl.gridworld, "Nine rooms, the start (blue) and the goals of five tasks (orange)"),
    "gather": (rl.gather, "Layouts of two tasks: start (blue), gems (green), pits (orange), blocks (grey)"),
    "forager": (rl.forager, "A map at two times, and what the agent (blue) sees of it: good food (green), bad food "
                "(orange); the dotted line separates the biomes"),
    "memory": (rl.memory, "The observations of an episode, one column for each step"),
    "minatar": (rl.minatar, "The five games, each also with permuted channels; colours are channels"),
    "craftax": (worlds.craftax, "The first observation of six episodes of Craftax-Classic"),
    "xminigrid": (worlds.xminigrid, "Five tasks; the agent sees the bright part"),
    "brax": (worlds.brax, "The ant with the same actions in four tasks"),
    "atari": (rl.atari, "Six games; modes of three games"),
    "suites": (rl.suites, "First frames of tasks of MiniGrid, DeepMind Control and MetaWorld"),
    "transforms.permutations": (transforms.sights, "A frame of MinAtar's space_invaders under transforms of "
                                "observations; a stack of frames of catch; a gradual permutation"),
    "transforms.rewards": (transforms.rewards, "Rewards of the same random actions in gather, in the second visit"),
}  # fmt: skip


def file_of(module: str) -> str:
    return f"streams_{module.rpartition('.')[2]}.png"


def draw(modules: Sequence[str] = ()) -> None:
    """Draw all figures, or those of some modules."""
    for module in modules or PICTURES:
        with matplotlib.rc_context({"axes.prop_cycle": cycler(color=COLOURS)}):
            plots.save(PICTURES[module][0](), FIGURES / file_of(module))
