"""Streams, what the learner lives through (``STREAMS``), and what can be done to any of them (``TRANSFORMS``)."""

from collections.abc import Callable, Mapping

from envs.atari import atari
from envs.base import Source
from envs.classification import classification_mdp
from envs.control import acrobot, cartpole, pendulum
from envs.gather import gather
from envs.gridworld import gridworld
from envs.growing import class_incremental, warm_start
from envs.gym import gym
from envs.minatar import minatar
from envs.permuted import permuted_inputs
from envs.pools import envpool
from envs.slowly_changing import slowly_changing_regression
from envs.suites import continual_world, dmc, minigrid, procgen
from envs.targets import permuted_labels, regression, relabelled
from envs.toys import catch
from envs.transforms import TRANSFORMS as TRANSFORMS

STREAMS: Mapping[str, Callable[..., Source]] = {
    "relabelled": relabelled,
    "regression": regression,
    "permuted_inputs": permuted_inputs,
    "permuted_labels": permuted_labels,
    "slowly_changing_regression": slowly_changing_regression,
    "class_incremental": class_incremental,
    "warm_start": warm_start,
    "classification_mdp": classification_mdp,
    "catch": catch,
    "cartpole": cartpole,
    "acrobot": acrobot,
    "pendulum": pendulum,
    "gridworld": gridworld,
    "gather": gather,
    "minatar": minatar,
    "atari": atari,
    "gym": gym,
    "envpool": envpool,
    "procgen": procgen,
    "minigrid": minigrid,
    "dmc": dmc,
    "continual_world": continual_world,
}
