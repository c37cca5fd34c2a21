"""Agents: pure learners, one per lane. Agents do not depend on any particular stream or intervention."""

from collections.abc import Callable, Mapping

from plasticity.agents.avg import avg
from plasticity.agents.bc import bc
from plasticity.agents.c51 import c51
from plasticity.agents.dqn import dqn
from plasticity.agents.kalman_classifier import kalman_classifier
from plasticity.agents.offline import cql, offline_c51, offline_dqn
from plasticity.agents.ppo import ppo
from plasticity.agents.pqn import pqn
from plasticity.agents.qrc import qrc
from plasticity.agents.rainbow import rainbow
from plasticity.agents.reinforce import reinforce
from plasticity.agents.sac import sac
from plasticity.agents.stream_ac import stream_ac
from plasticity.agents.stream_loss import stream_c51, stream_dqn
from plasticity.agents.stream_sarsa import stream_sarsa
from plasticity.agents.stream_td import stream_td
from plasticity.agents.streaming import adaptive_q, stream_q
from plasticity.agents.supervised import classifier, regressor
from plasticity.agents.td3 import td3
from plasticity.core.types import Agent

AGENTS: Mapping[str, Callable[..., Agent]] = {
    "classifier": classifier,
    "regressor": regressor,
    "kalman_classifier": kalman_classifier,
    "dqn": dqn,
    "c51": c51,
    "rainbow": rainbow,
    "ppo": ppo,
    "pqn": pqn,
    "reinforce": reinforce,
    "sac": sac,
    "td3": td3,
    "stream_q": stream_q,
    "adaptive_q": adaptive_q,
    "stream_sarsa": stream_sarsa,
    "qrc": qrc,
    "stream_dqn": stream_dqn,
    "stream_c51": stream_c51,
    "stream_ac": stream_ac,
    "stream_td": stream_td,
    "avg": avg,
    "offline_dqn": offline_dqn,
    "offline_c51": offline_c51,
    "cql": cql,
    "bc": bc,
}
