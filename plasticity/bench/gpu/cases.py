"""The experiments of the check."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from plasticity.bench.agents import BREAKOUT, SMALL, STEPS, STREAMING
from plasticity.bench.cases import ADAM, CLASSIFIER, Case, job
from plasticity.engine.lanes import Placement
from plasticity.engine.program import Program
from plasticity.engine.runner import Run

REPLAY: dict[str, Any] = {"optimizer": ADAM, "batch_size": 32, "update_period": 4}
ALE: dict[str, Any] = {"kind": "atari", "games": ["Breakout"], "backend": "ale", "frames_per_visit": 4 * STEPS}
NATURE: dict[str, Any] = {"kind": "dqn", "network": "nature", "replay": {"capacity": 2_000, "minimum": 64}, **REPLAY}
LANES = (1, 64, 256, 16, 4)  # by priority: the requirement compares the first two
IMAGES: dict[str, Any] = {
    "kind": "class_incremental", "inputs": "shapes", "samples": 1_000, "flat": False, "standardise": "none",
    "classes_per_task": 100, "steps_per_task": STEPS, "envs": 32,
}  # fmt: skip


class Scaled(NamedTuple):
    """One agent, and the numbers of lanes that advance in one vmap."""

    case: Case
    lanes: tuple[int, ...] = LANES
    first: int = 64  # env steps before it learns


def minatar(chunk: int, envs: int = 1, **agent: Any) -> Case:
    return Case({"stream": {**BREAKOUT, "envs": envs}, "agent": agent}, chunk, ())


def memory(cell: str) -> dict[str, Any]:
    """A recurrent cell behind the MinAtar network."""
    return {"kind": cell, "torso": SMALL, "units": 128}


def classifier(kind: str, **settings: Any) -> Case:
    """Images of CIFAR size, 32 per update."""
    network = {"kind": kind, **settings}
    return Case({"stream": IMAGES, "agent": {"kind": "classifier", "network": network, "optimizer": ADAM}}, 16, ())


def impala(convolution: str) -> dict[str, Any]:
    return {**NATURE, "network": {"kind": "impala", "convolution": convolution}}


CASES: Mapping[str, Scaled] = {
    "classifier": Scaled(Case(CLASSIFIER, 256, ()), first=0),
    "stream_q": Scaled(minatar(256, kind="stream_q", network={**SMALL, **STREAMING}), first=0),
    "dqn": Scaled(minatar(256, kind="dqn", network=SMALL, replay={"capacity": 5_000, "minimum": 64}, **REPLAY)),
    "c51": Scaled(minatar(256, kind="c51", network=SMALL, replay={"capacity": 5_000, "minimum": 64}, **REPLAY)),
    "ppo": Scaled(minatar(128, 16, kind="ppo", network=SMALL, rollout_length=128), first=0),
    "pqn": Scaled(minatar(32, 128, kind="pqn", network=SMALL, rollout_length=32), first=0),
    "gru_ppo": Scaled(minatar(128, 16, kind="ppo", network=memory("gru"), rollout_length=128), (1, 64, 16), first=0),
    "rtu_stream_q": Scaled(minatar(256, kind="stream_q", network=memory("rtu")), (1, 64, 16), first=0),
    "impala_dqn": Scaled(Case({"stream": "frames", "agent": impala("auto")}, 64, ()), (1, 16, 64)),
    "resnet18": Scaled(classifier("resnet18"), (1, 16, 4), first=0),
    "resnet18_patches": Scaled(classifier("resnet18", convolution="patches"), (1, 16), first=0),
    "impala_dqn_patches": Scaled(Case({"stream": "frames", "agent": impala("patches")}, 64, ()), (1, 16)),
    "vit": Scaled(classifier("vit"), (1, 16, 64), first=0),
    "atari_frames": Scaled(Case({"stream": "frames", "agent": NATURE}, 64, ()), (1, 16, 64)),
    "atari_ale": Scaled(Case({"stream": ALE, "agent": NATURE}, 32, ()), (1, 16)),
}


def program(case: Case, lanes: int) -> Program:
    return job(case, lanes, placement={"devices": 1, "width": 1}).program


def run_of(planned: Program, device: jax.Device | None = None) -> Run:
    """All lanes in one vmap on one device, the first by default."""
    return Run(planned, Placement(1, 1, len(planned.seeds)), [device or jax.devices()[0]])


def shortened(case: Case, chunk: int) -> Case:
    return case._replace(chunk=chunk)


def on_host(tree: Any) -> Any:
    """NumPy arrays; random keys as their numbers."""

    def leaf(x: Any) -> np.ndarray:
        return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return jax.tree.map(leaf, tree)
