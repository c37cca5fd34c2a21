"""A testbed for loss of plasticity and continual reinforcement learning.

``run(experiment)`` runs a config's file, a mapping with its keys or what ``load_config(path, overrides)`` read, and
returns the run: its folder, with the tables ``metrics``, ``visits``, ``evaluations`` and ``summary``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plasticity.version import __version__

if TYPE_CHECKING:
    from plasticity.config.experiments import Experiment
    from plasticity.results import RunFolder

__all__ = ["__version__", "load_config", "run"]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> "Experiment":
    """The experiment in a YAML file, or in the shipped config of that name, with ``key.sub=value`` overrides."""
    from plasticity.runs import launch  # JAX and the emulators are imported only when they are needed

    return launch.load_config(path, overrides)


def run(
    experiment: "Experiment | str | Path | Mapping[str, Any]",
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    **options: Any,
) -> "RunFolder":
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
