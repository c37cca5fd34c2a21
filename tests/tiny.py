"""A tiny experiment that trains for real, for tests of everything around the training."""

from typing import Any

from plasticity.config.experiments import Experiment, read_experiment
from plasticity.runs import launch


def document(**changes: Any) -> dict[str, Any]:
    """Three visits of 20 steps, a network of 8 units, 3 seeds."""
    stream = {"kind": "relabelled", "inputs": "gaussian", "samples": 16, "dimensions": 4, "classes": 3}
    return {
        "name": "tiny",
        "stream": {**stream, "tasks": 3, "steps_per_task": 20, "envs": 4},
        "agent": {
            "kind": "classifier",
            "network": {"kind": "mlp", "widths": [8]},
            "optimizer": {"kind": "adam", "learning_rate": 0.01},
        },
        "monitors": ["weight_norm"],
        "monitor_every": 10,
        "record_every": 5,
        "probe_size": 16,
        "seeds": 3,
        **changes,
    }


def experiment(**changes: Any) -> Experiment:
    return read_experiment(document(**changes), launch.registry())


DQN = {
    "agent": {
        "kind": "dqn",
        "network": {"kind": "mlp", "widths": [8]},
        "optimizer": "adam",
        "replay": {"capacity": 200, "minimum": 16},
        "batch_size": 8,
        "update_period": 2,
        "target_period": 3,
    }
}
