"""A testbed for loss of plasticity and continual reinforcement learning.

``run(experiment)`` runs an experiment, given as a config file, a mapping with the config's keys, or the result of
``load_config(path, overrides)``. It returns the run's folder, with the tables ``metrics``, ``visits``, ``evaluations``
and ``summary``.
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
    """Load the experiment from a YAML file or a shipped config of that name, with ``key.sub=value`` overrides."""
    from plasticity.runs import launch  # JAX and the emulators are imported only when they are needed

    return launch.load_config(path, overrides)


def run(
    experiment: "Experiment | str | Path | Mapping[str, Any]",
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    **options: Any,
) -> "RunFolder":
    """Run an experiment and return it as a :class:`plasticity.results.RunFolder`.

    Args:
        experiment: a config's path, a mapping with its keys, or the result of :func:`load_config`.
        out: the run's folder; default ``runs/NAME``.
        overrides: ``["agent.optimizer.learning_rate=1e-3", ...]``, if ``experiment`` is a path or a mapping.
        **options: ``resume``, ``force`` and ``progress`` of :func:`plasticity.runs.launch.run`.

    ``UserError`` for an error the user can fix; ``Interrupted`` after a signal, with the run saved.
    """
    from plasticity import results
    from plasticity.runs import launch

    launch.devices()
    return results.RunFolder(launch.run(launch.experiment_of(experiment, overrides), out, **options))
