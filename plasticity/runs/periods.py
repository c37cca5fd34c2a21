"""When a program measures, evaluates, saves and records: periods in env steps, and the chunk that divides them all."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plasticity.config.experiments import Experiment
from plasticity.config.fields import metadata_of
from plasticity.config.programs import ProgramSettings
from plasticity.config.settings import MemberConfig, paths
from plasticity.core.types import Agent, StreamSpec
from plasticity.engine.evaluation import Evaluation
from plasticity.engine.runner import chunk_steps
from plasticity.runs.building import checked


def _period(every: Any, spec: StreamSpec) -> list[int]:
    """A period in env steps; ``visit``: the length of the shortest visit."""
    return [min(visit.steps for visit in spec.visits)] if every == "visit" else [every]


def monitor_periods(experiment: Experiment, monitors: Sequence[MemberConfig], spec: StreamSpec) -> dict[str, int]:
    """Env steps between two measurements, by monitor path: the monitor's own ``every``, else its metadata's ``period``.

    ``period`` counts periods of ``monitor_every``. It is reduced until the monitor is measured within every visit, or
    else at the ends of visits and at least four times. If no number fits, the monitor is measured once per visit.
    """
    (usual,) = _period(experiment.monitor_every, spec)
    (shortest,) = _period("visit", spec)
    lengths = [visit.steps for visit in spec.visits]

    def fits(period: int) -> bool:
        within = all(steps % period == 0 for steps in lengths)
        return within or (all(period % steps == 0 for steps in lengths) and 4 * period <= sum(lengths))

    found = {}
    for path, each in zip(paths("monitors", monitors), monitors, strict=True):
        multiple = metadata_of(each.factory).period
        rarely = (count * usual for count in range(multiple, 1, -1) if fits(count * usual))
        default = usual if multiple == 1 else next(rarely, max(usual, shortest))
        (found[path],) = [default] if each.every is None else _period(each.every, spec)
    return found


def evaluation_of(experiment: Experiment) -> Evaluation | None:
    asked = experiment.evaluation
    if asked is None:
        return None
    every = None if asked.every == "visit" else asked.every
    return Evaluation(every, asked.tasks, asked.episodes, asked.steps, asked.epsilon)


def chunk_of(
    experiment: Experiment,
    each: ProgramSettings,
    spec: StreamSpec,
    every: Mapping[str, int],
    evaluated: Evaluation | None,
) -> int:
    """Env steps of a chunk: all periodic operations fall on the end of a chunk."""
    usual = any(monitor.every is None for monitor in each.monitors)
    periods = {"monitor_every": _period(experiment.monitor_every, spec) if usual else []}
    periods["checkpoint_every"] = [] if experiment.checkpoint_every == "visit" else [experiment.checkpoint_every]
    periods |= {f"{path}.every": [steps] for path, steps in every.items()}
    periods["evaluation.every"] = [evaluated.every] if evaluated and evaluated.every else []
    own = [f"{path}.every" for path, monitor in zip(every, each.monitors, strict=True) if monitor.every is not None]
    asked = {key: steps for key, steps in periods.items() if key in own or not key.startswith("monitors.")}
    _warn_of_periods(asked, sum(visit.steps for visit in spec.visits))
    return int(checked("", chunk_steps, spec.visits, periods, experiment.record_every))


def never_due(interventions: Sequence[MemberConfig], agent: Agent, spec: StreamSpec) -> Iterator[str]:
    """Say which interventions have a period in updates that is longer than the run.

    A period that counts something else, or only if another setting asks for it (``when: switch``), is left out. The
    agent may make fewer updates than are counted here, one or ``agent.updates`` at each step.
    """
    most = sum(visit.steps for visit in spec.visits) * max(agent.updates, 1)
    for path, each in zip(paths("interventions", interventions), interventions, strict=True):
        period, when = each.values.get("period"), each.values.get("when", "periodic")
        if isinstance(period, int) and when == "periodic" and period > most:
            yield f"{path}.period: {period} is more than the {most} updates of the run, so it is never due"


def _warn_of_periods(periods: Mapping[str, Sequence[int]], total: int) -> None:
    """Warn of a period that is longer than the run. It is not an error: configs are often shortened for a trial."""
    for key, values in periods.items():
        for steps in values:
            if steps > total and key != "checkpoint_every":  # a checkpoint is due at the end anyway
                text = f"{key}: {steps} is more than the {total} steps of the run, so it is never due"
                warnings.warn(text, stacklevel=2)
