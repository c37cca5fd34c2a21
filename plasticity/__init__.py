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
    from plasticity.runs.search import Found
    from plasticity.runs.session import Progress

__all__ = ["Interrupted", "StorageError", "UserError", "__version__", "load_config", "run", "search"]


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


def search(
    experiment: "Experiment | str | Path | Mapping[str, Any]",
    space: Mapping[str, Any],
    *,
    arm: str | None = None,
    trials: int = 64,
    batch: int = 16,
    first: int | str | Sequence[int | str] = "1%",
    factor: int = 3,
    seeds: int | Sequence[int] = 10,
    metric: str = "performance",
    best: str = "highest",
    sampler: Any = "tpe",
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    progress: "Progress | None" = None,
) -> "Found":
    """Search traced numbers of an arm with a sampler of Optuna, on a part of the life and on tuning seeds.

    Each batch of points is a run in the folder; all batches share a compiled program. The folder also holds
    ``trials.csv``, and ``best.yaml``, the arm with the best point. Needs the extra ``search``.

    Args:
        experiment: a config's path, a mapping with its keys, or the result of :func:`load_config`; without a sweep.
        space: dotted path of a traced number -> its range ``{"low": 1e-4, "high": 1e-2, "log": True}`` (uniform in the
            logarithm), or a list of values.
        arm: the arm that is searched; may be omitted if there is one.
        trials: how many points; a multiple of ``batch``.
        batch: points of a run. The sampler learns their results when it is finished.
        first: the part of the life, as in the key ``tune``: ``1%``, ``3 visits`` or env steps; or the parts of several
            rungs, for successive halving.
        factor: of a rung's points, the best one in so many goes on to the next rung, from the beginning of the life.
        seeds: the number of tuning seeds, or a list of them; none of the config's.
        metric: ``performance``, or a column of the metrics.
        best: whether the ``highest`` or the ``lowest`` mean is the best.
        sampler: ``tpe``, ``random``, or a new sampler of Optuna with a seed of its own.
        seed: of the sampler.
        out: the search's folder; default ``runs/NAME-search``.
        resume: continue the search in the folder, also with more ``trials``; start it if there is none.
        overrides: ``["agent.discount=0.9", ...]``, if ``experiment`` is a path or a mapping.
        progress: as for :func:`run`.

    Returns:
        ``values`` (of the best point), ``score``, ``trials`` (a table), ``experiment`` (with the best point, to run)
        and Optuna's ``study``.

    Raises:
        UserError: an error the user can fix, or no trial without a diverged lane.
        Interrupted: the process received a signal; what is finished is saved.
    """
    from plasticity.runs import launch
    from plasticity.runs.search import search as search_space

    launch.devices()
    return search_space(
        experiment, space, arm=arm, trials=trials, batch=batch, first=first, factor=factor, seeds=seeds, metric=metric,
        best=best, sampler=sampler, seed=seed, out=out, resume=resume, overrides=overrides, progress=progress,
    )  # fmt: skip
