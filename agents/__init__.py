"""Agents: pure learners of one lane. They know no stream and no intervention by name."""

from collections.abc import Callable, Mapping

from agents.c51 import c51
from agents.dqn import dqn
from agents.ppo import ppo
from agents.rainbow import rainbow
from agents.stream_ac import stream_ac
from agents.stream_loss import stream_c51, stream_dqn
from agents.streaming import adaptive_q, stream_q
from agents.supervised import classifier, regressor
from plasticity.types import Agent

AGENTS: Mapping[str, Callable[..., Agent]] = {
    "classifier": classifier,
    "regressor": regressor,
    "dqn": dqn,
    "c51": c51,
    "rainbow": rainbow,
    "ppo": ppo,
    "stream_q": stream_q,
    "adaptive_q": adaptive_q,
    "stream_dqn": stream_dqn,
    "stream_c51": stream_c51,
    "stream_ac": stream_ac,
}
