"""Timed cases: whole experiments, given by their config, that differ in the work of one step."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from plasticity.bench.streams import STEPS, frames, vectors
from plasticity.config.experiments import read_experiment
from plasticity.config.registry import Registry
from plasticity.runs import launch
from plasticity.runs.session import Job

Document = Mapping[str, Any]
ADAM: dict[str, Any] = {"kind": "adam", "learning_rate": 1e-3}
LABELS: dict[str, Any] = {
    "kind": "relabelled",
    "inputs": "gaussian",
    "samples": 512,
    "dimensions": 64,
    "classes": 10,
    "envs": 64,
}
REPLAY: dict[str, Any] = {"batch_size": 32, "update_period": 4, "target_period": 1000}


class Case(NamedTuple):
    """An experiment of one arm without monitors."""

    document: Document
    chunk: int  # env steps between two records
    lanes: tuple[int, ...]  # numbers of lanes to measure


def regressor(*widths: int) -> Document:
    """Regression, one sample at a time."""
    return {
        "stream": {"kind": "regression", "tasks": 1, "steps_per_task": STEPS, "envs": 1},
        "agent": {"kind": "regressor", "network": {"kind": "mlp", "widths": list(widths)}, "optimizer": ADAM},
    }


CLASSIFIER: Document = {
    "stream": {**LABELS, "tasks": 1, "steps_per_task": STEPS},
    "agent": {"kind": "classifier", "network": {"kind": "mlp", "widths": [256, 256]}, "optimizer": ADAM},
}
DQN: Document = {
    "stream": "vectors",
    "agent": {"kind": "dqn", "network": {"kind": "mlp", "widths": [256, 256]}, "optimizer": ADAM, **REPLAY}
    | {"replay": {"capacity": 10_000, "minimum": 16}},
}
NATURE: Document = {
    "stream": "frames",
    "agent": {
        "kind": "dqn",
        "network": "nature",
        "optimizer": ADAM,
        **REPLAY,
        "replay": {"capacity": 2_000, "minimum": 16},
    },
}

CASES: Mapping[str, Case] = {
    "regressor_5": Case(regressor(5), 500, (1, 2, 8, 32, 128)),
    "regressor_64_64": Case(regressor(64, 64), 200, (1, 2, 8, 32)),
    "classifier": Case(CLASSIFIER, 50, (1, 2, 8, 32)),
    "dqn_mlp": Case(DQN, 100, (1, 2, 8, 32)),
    "dqn_nature": Case(NATURE, 20, (1, 2, 8)),
}


@functools.cache
def registry() -> Registry:
    """The built-in members and the streams of this package."""
    known = Registry()
    for family, members in launch.BUILT_IN.items():
        known.register_all(family, members)
    known.register_all("streams", {"vectors": vectors, "frames": frames})
    return known


def job(case: Case, lanes: int, **changes: Any) -> Job:
    """The one program of a case with this many lanes, placed as ``plasticity run`` would place it."""
    document = {
        **case.document,
        "name": "bench",
        "record_every": case.chunk,
        "seeds": lanes,
        "task_aware": True,
        **changes,
    }
    (only,) = launch.plan(read_experiment(document, registry())).jobs
    return only
