"""The agents that are compared, with their hand-written counterparts."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from plasticity.bench import cases
from plasticity.bench.agents import BREAKOUT, SMALL, STREAMING
from plasticity.bench.cases import ADAM, Case, Document
from plasticity.bench.overhead.c51 import c51
from plasticity.bench.overhead.classifier import classifier
from plasticity.bench.overhead.dqn import dqn
from plasticity.bench.overhead.plain import Plain
from plasticity.bench.overhead.ppo import ppo
from plasticity.bench.overhead.stream_q import stream_q

REPLAY: Document = {
    "optimizer": ADAM,
    "replay": {"capacity": 20_000, "minimum": 1_000},
    "batch_size": 32,
    "update_period": 4,
    "target_period": 2_000,
}
MLP: Document = {"kind": "mlp", "widths": [64, 64], "activation": "tanh", "initialiser": "orthogonal"}


class Compared(NamedTuple):
    """An agent's experiment, and the hand-written learner: env steps of a chunk -> learner."""

    case: Case
    plain: Callable[[int], Plain]
    steps: int = 0  # before the first update


def on_breakout(chunk: int, plain: Callable[..., Plain], envs: int = 1, steps: int = 0, **agent: Any) -> Compared:
    return Compared(Case({"stream": {**BREAKOUT, "envs": envs}, "agent": agent}, chunk, ()), plain, steps)


CASES: Mapping[str, Compared] = {
    "classifier": Compared(cases.CASES["classifier"], classifier),
    "stream_q": on_breakout(512, stream_q, kind="stream_q", network={**SMALL, **STREAMING}),
    "dqn": on_breakout(512, dqn, steps=1_000, kind="dqn", network=SMALL, **REPLAY),
    "c51": on_breakout(512, c51, steps=1_000, kind="c51", network=SMALL, **REPLAY),
    "ppo": on_breakout(128, ppo, 64, kind="ppo", network=MLP, rollout_length=128, epochs=4, minibatches=8),
}
