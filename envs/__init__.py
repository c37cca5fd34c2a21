"""Streams, what the learner lives through (``STREAMS``), and what can be done to any of them (``TRANSFORMS``)."""

from collections.abc import Callable, Mapping

from envs.atari import atari
from envs.base import Source
from envs.control import acrobot, cartpole, pendulum
from envs.minatar import minatar
from envs.targets import regression, relabelled
from envs.toys import catch
from envs.transforms import TRANSFORMS as TRANSFORMS

STREAMS: Mapping[str, Callable[..., Source]] = {
    "relabelled": relabelled,
    "regression": regression,
    "catch": catch,
    "cartpole": cartpole,
    "acrobot": acrobot,
    "pendulum": pendulum,
    "minatar": minatar,
    "atari": atari,
}
