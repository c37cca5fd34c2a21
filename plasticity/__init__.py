"""A testbed for loss of plasticity and continual reinforcement learning.

``load_config(path, overrides)`` reads an experiment, ``run(experiment)`` runs it and returns its folder,
``plasticity.results.load(folder)`` reads its tables.
"""

from typing import Any

__all__ = ["load_config", "run"]


def load_config(path: Any, overrides: Any = ()) -> Any:
    """The experiment in a YAML file; see :func:`plasticity.launch.load_config`."""
    from plasticity import launch  # JAX and the emulators are imported only when they are needed

    return launch.load_config(path, overrides)


def run(experiment: Any, out: Any = None, **options: Any) -> Any:
    """Runs an experiment and returns its folder; see :func:`plasticity.launch.run`."""
    from plasticity import launch

    launch.devices()
    return launch.run(experiment, out, **options)
