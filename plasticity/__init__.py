"""A testbed for loss of plasticity and continual reinforcement learning.

``run(experiment)`` runs an experiment, given as a config file, a mapping with the config's keys, or the result of
``load_config(path, overrides)``. It returns the run's folder, with the tables ``metrics``, ``visits``, ``evaluations``
and ``summary``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plasticity.core.errors import Interrupted, StorageError, UserError
from plasticity.version import __version__

if TYPE_CHECKING:
    from plasticity.config.experiments import Experiment
    from plasticity.results import RunFolder
    from plasticity.runs.session import Progress

__all__ = ["Interrupted", "StorageError", "UserError", "__version__", "load_config", "run"]


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> "Experiment":
    """Load the experiment from a YAML file or a shipped config of that name, with ``key.sub=value`` overrides.

    Raises:
        UserError: a file, key or value that is not allowed.
    """
    from plasticity.runs import launch  # JAX and the emulators are imported only when they are needed

    return launch.load_config(path, overrides)


def run(
    experiment: "Experiment | str | Path | Mapping[str, Any]",
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    split: str | None = None,
    shard: str | None = None,
    resume: bool = False,
    force: bool = False,
    progress: "Progress | None" = None,
) -> "RunFolder":
    """Run an experiment and return it as a :class:`plasticity.results.RunFolder`.

    Args:
        experiment: a config's path, a mapping with its keys, or the result of :func:`load_config`.
        out: the run's folder; default ``runs/NAME``.
        overrides: ``["agent.optimizer.learning_rate=1e-3", ...]``, if ``experiment`` is a path or a mapping.
        split: cut the run into shards: ``arms``, ``points``, ``seeds=4`` (four seeds each) or ``jobs=16`` (16 shards).
        shard: ``3/8``: run only the third of eight shards, or what is left of it; other processes may run the others.
        resume: continue the run in the folder from its last checkpoints; start it if there is none, and do nothing if
            it is finished.
        force: replace an earlier run.
        progress: an object with the methods ``job``, ``chunk`` and ``say``, which are called along the run; None: none.

    Raises:
        UserError: an error the user can fix, raised before anything is written.
        StorageError: a file cannot be written later; the run is saved.
        Interrupted: the process received a signal; the run is saved.
    """
    from plasticity import results
    from plasticity.runs import launch

    launch.devices()
    read = launch.experiment_of(experiment, overrides)
    return results.RunFolder(
        launch.run(read, out, split=split, shard=shard, resume=resume, force=force, progress=progress)
    )
