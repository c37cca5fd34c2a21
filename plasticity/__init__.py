"""A testbed for loss of plasticity and continual reinforcement learning.

``run(experiment)`` runs a config's file, a mapping with its keys or what ``load_config(path, overrides)`` read, and
returns the run: its folder, with the tables ``metrics``, ``visits``, ``evaluations`` and ``summary``.
"""

from typing import Any

from plasticity.version import __version__

__all__ = ["__version__", "load_config", "run"]


def load_config(path: Any, overrides: Any = ()) -> Any:
    """The experiment in a YAML file; see :func:`plasticity.runs.launch.load_config`."""
    from plasticity.runs import launch  # JAX and the emulators are imported only when they are needed

    return launch.load_config(path, overrides)


def run(experiment: Any, out: Any = None, *, overrides: Any = (), **options: Any) -> Any:
    """Runs an experiment and returns it as a :class:`plasticity.results.RunFolder`.

    Args:
        experiment: a config's path, its keys as a mapping, or the experiment that :func:`load_config` returned.
        out: the run's folder; default ``runs/NAME``.
        overrides: ``["agent.optimizer.learning_rate=1e-3", ...]``, of a path or a mapping.
        **options: ``resume``, ``force`` and ``progress`` of :func:`plasticity.runs.launch.run`.

    ``UserError`` for anything the user can mend; ``Interrupted`` after a signal, with the run saved.
    """
    from plasticity import results
    from plasticity.runs import launch

    launch.devices()
    return results.RunFolder(launch.run(launch.experiment_of(experiment, overrides), out, **options))
