"""Agents: pure learners of one lane. They know no stream and no intervention by name."""

from agents.supervised import classifier, regressor
from agents.value_based import dqn

AGENTS = {"classifier": classifier, "regressor": regressor, "dqn": dqn}
