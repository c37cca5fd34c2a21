"""Streams, the sequences of tasks that a learner faces (``STREAMS``), and transforms of streams (``TRANSFORMS``)."""

from collections.abc import Callable, Mapping

from plasticity.envs.apple_retrieval import apple_retrieval
from plasticity.envs.atari import atari
from plasticity.envs.base import StreamFactory
from plasticity.envs.brax import brax
from plasticity.envs.classification import classification_mdp
from plasticity.envs.control import acrobot, cartpole, pendulum
from plasticity.envs.craftax import craftax
from plasticity.envs.dataset import dataset
from plasticity.envs.forager import forager
from plasticity.envs.gather import gather
from plasticity.envs.gridworld import gridworld
from plasticity.envs.growing import class_incremental, warm_start
from plasticity.envs.gym import gym
from plasticity.envs.gymnax import gymnax
from plasticity.envs.image_datasets import image_datasets
from plasticity.envs.memory import recall, t_maze
from plasticity.envs.minatar import minatar
from plasticity.envs.mujoco import mujoco, slippery_ant
from plasticity.envs.permuted import permuted_inputs
from plasticity.envs.pools import envpool
from plasticity.envs.prediction import value_prediction
from plasticity.envs.reacher import reacher
from plasticity.envs.slowly_changing import slowly_changing_regression
from plasticity.envs.suites import continual_world, dmc, minigrid, procgen
from plasticity.envs.swing_up import cartpole_swingup
from plasticity.envs.targets import permuted_labels, regression, relabelled
from plasticity.envs.toys import catch
from plasticity.envs.transforms import TRANSFORMS as TRANSFORMS
from plasticity.envs.xminigrid import xminigrid

STREAMS: Mapping[str, Callable[..., StreamFactory]] = {
    "relabelled": relabelled,
    "regression": regression,
    "permuted_inputs": permuted_inputs,
    "permuted_labels": permuted_labels,
    "slowly_changing_regression": slowly_changing_regression,
    "class_incremental": class_incremental,
    "warm_start": warm_start,
    "image_datasets": image_datasets,
    "classification_mdp": classification_mdp,
    "value_prediction": value_prediction,
    "catch": catch,
    "cartpole": cartpole,
    "acrobot": acrobot,
    "pendulum": pendulum,
    "cartpole_swingup": cartpole_swingup,
    "reacher": reacher,
    "gridworld": gridworld,
    "gather": gather,
    "forager": forager,
    "apple_retrieval": apple_retrieval,
    "t_maze": t_maze,
    "recall": recall,
    "minatar": minatar,
    "gymnax": gymnax,
    "craftax": craftax,
    "xminigrid": xminigrid,
    "brax": brax,
    "dataset": dataset,
    "atari": atari,
    "gym": gym,
    "mujoco": mujoco,
    "slippery_ant": slippery_ant,
    "envpool": envpool,
    "procgen": procgen,
    "minigrid": minigrid,
    "dmc": dmc,
    "continual_world": continual_world,
}
