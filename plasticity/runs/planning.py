"""From a config to a plan: a stream, and programs of lanes as jobs. Computes shapes only."""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from plasticity.config import experiments
from plasticity.config.experiments import Experiment
from plasticity.config.programs import ProgramSettings, programs
from plasticity.core.errors import UserError
from plasticity.core.types import Done, StreamSpec
from plasticity.engine import measures, memory, precision
from plasticity.engine.flops import flops_of
from plasticity.engine.memory import Memory, readable
from plasticity.runs.building import agent_of
from plasticity.runs.devices import devices
from plasticity.runs.dry_run import check_silent, trace_once
from plasticity.runs.jobs import job_of
from plasticity.runs.periods import never_due
from plasticity.runs.session import Job
from plasticity.runs.shards import Shard
from plasticity.runs.sources import evaluation_source, source_of


class Plan(NamedTuple):
    """Plan of a run: its jobs, and the memory each needs on each of its devices."""

    experiment: Experiment
    spec: StreamSpec
    jobs: tuple[Job, ...]
    memory: tuple[Memory, ...]
    columns: tuple[int, ...] = ()  # of the table of metrics of each job
    cut: Mapping[str, Any] = MappingProxyType({})  # how the run is cut into shards, and their programs
    evaluated: StreamSpec | None = None  # of the environments of evaluation, if they are not those of the stream
    names: tuple[frozenset[str], ...] = ()  # of the metrics of each job

    def describe(self) -> dict[str, Any]:
        """The plan as plain data, ``plan.json``."""
        return {
            "name": self.experiment.name,
            "arms": self._arms(),
            **({"tune": self.experiment.tune.resolve()} if self.experiment.tune else {}),
            "stream": _stream_facts(self.spec),
            **({"evaluation": _evaluation_facts(self.evaluated)} if self.evaluated else {}),
            "ranges": {
                name: _written(limits)
                for job in self.jobs
                for monitoring in job.program.monitors
                for name, limits in monitoring.monitor.ranges.items()
            }
            | {name: _written(limits) for name, limits in measures.ranges(self.spec).items()},
            **({"data": [{"path": path, "sha256": sha} for path, sha in self.spec.data]} if self.spec.data else {}),
            "programs": self._programs(),
            **self.cut,
        }

    @property
    def readers_of_task(self) -> list[str]:
        """The arms whose networks are told the task."""
        return list(dict.fromkeys(job.arm for job in self.jobs if job.program.spec.task_entries))

    def counted(self) -> "Plan":
        """The plan with the FLOPs of a lane of each job; equal programs are counted once."""
        first = {job.speed_key: job.program for job in reversed(self.jobs)}
        found = {key: flops_of(program) for key, program in first.items()}
        return self._replace(jobs=tuple(job._replace(flops=found[job.speed_key]) for job in self.jobs))

    def _arms(self) -> list[dict[str, Any]]:
        controls = experiments.controls(self.experiment.arms)
        lanes: Counter[str] = Counter()
        reading = self.readers_of_task
        origins = {job.arm: list(job.program.origin) for job in self.jobs if job.program.origin != Done()}
        for job in self.jobs:
            lanes[job.arm] += len(job.program.seeds)
        return [
            {
                "name": name,
                "lanes": lanes[name],
                "task_aware": arm.task_aware,
                "reads_task": name in reading,
                "control": controls[name] if controls[name] in lanes else None,
                **({"origin": origins[name]} if name in origins else {}),
            }
            for name, arm in self.experiment.arms.items()
            if name in lanes
        ]

    def _programs(self) -> list[dict[str, Any]]:
        return [
            {
                "arm": job.arm,
                "number": job.number,
                "lanes": len(job.program.seeds),
                "placement": job.placement._asdict(),
                "steps_per_chunk": job.program.chunk,
                "bytes_per_device": each._asdict(),
                **({} if job.flops is None else {"flops": job.flops.describe()}),
            }
            for job, each in zip(self.jobs, self.memory, strict=True)
        ]


def _stream_facts(spec: StreamSpec) -> dict[str, Any]:
    return {
        "reward_name": spec.reward_name,
        "episodic": spec.episodic,
        "frames_per_step": spec.frames_per_step,
        "envs": spec.envs,
        "tasks": list(spec.tasks),
        "shuffled": spec.shuffled,
        "alike": spec.alike,
        "reward_range": _written(spec.score_range or spec.reward_range),
        **({"measures": list(measures.columns(spec.measures))} if spec.measures else {}),
        "visits": [{"task": visit.task, "steps": visit.steps} for visit in spec.visits],
    }


def _evaluation_facts(spec: StreamSpec) -> dict[str, Any]:
    limits = _written(spec.score_range or spec.reward_range)
    return {"reward_name": spec.reward_name, "episodic": spec.episodic, "reward_range": limits}


def _written(limits: tuple[float, float]) -> list[float | None]:
    """Limits in JSON form: null for an infinite one."""
    return [float(limit) if math.isfinite(limit) else None for limit in limits]


def plan(experiment: Experiment, shard: Shard | None = None, widths: Sequence[int] = ()) -> Plan:
    """Lay the experiment out as jobs; computes shapes only.

    Args:
      experiment: the experiment.
      shard: lay out its lanes alone.
      widths: of each program of the experiment; empty: chosen for this machine.

    Raises:
      UserError: its parts do not fit together.
    """
    devices()  # before a stream makes its first array
    precision.restore()
    source = source_of(experiment)
    every = programs(experiment)
    asked = shard.of(every) if shard else every
    numbers = [number for number, _ in shard.parts] if shard else range(len(every))
    fixed = [widths[number] if widths else None for number in numbers]
    built = [job_of(experiment, source, each, width) for each, width in zip(asked, fixed, strict=True)]
    traced = trace_once(built, asked)
    precision.check_unchanged()
    if shard is None:
        check_silent(traced, built)
    warn_of_arms(asked, [job.program.spec for job in built])
    jobs = tuple(job._replace(measured=each.measured) for job, each in zip(built, traced, strict=True))
    sizes, columns, names = (tuple(getattr(each, key) for each in traced) for key in ("memory", "columns", "names"))
    separate = experiment.evaluation and source.evaluation
    evaluated = evaluation_source(source).spec if separate else None
    return Plan(experiment, source.spec, jobs, sizes, columns, evaluated=evaluated, names=names)


def jobs_of(experiment: Experiment) -> list[Job]:
    """The jobs of an experiment, not traced."""
    source = source_of(experiment)
    return [job_of(experiment, source, each) for each in programs(experiment)]


def widths_of(experiment: Experiment, shards: Sequence[Shard], gpu: bool = False) -> list[int]:
    """The width of each program in all shards: what its smallest group of lanes would have on this machine.

    ``gpu``: what it would have on a machine with one GPU, whatever this machine has.
    """
    source, every = source_of(experiment), programs(experiment)
    least: dict[int, tuple[int, ...]] = {}
    for number, rows in (part for shard in shards for part in shard.parts):
        least[number] = min(least.get(number, rows), rows, key=len)
    if gpu and experiment.placement.width == "auto":
        return [len(least[number]) for number in sorted(least)]
    return [job_of(experiment, source, every[number].only(least[number])).placement.width for number in sorted(least)]


def warn_of_arms(asked: Sequence[ProgramSettings], specs: Sequence[StreamSpec]) -> None:
    """Warn of what the agents have to say and of methods that never act, in one line for all arms that it concerns."""
    found: dict[str, list[str]] = {}
    for each, spec in zip(asked, specs, strict=True):
        agent = agent_of(each, spec, {})
        for notice in (*agent.notices, *never_due(each.interventions, agent, spec)):
            arms = found.setdefault(notice, [])
            arms += [each.arm] if each.arm not in arms else []
    for notice, arms in found.items():
        warnings.warn(f"arms.{', '.join(arms)}: {notice}", stacklevel=3)


def check_memory(planned: Plan) -> None:
    """``UserError`` if an arm needs more memory than its devices have; arms run one after another."""
    for job, need in zip(planned.jobs, planned.memory, strict=True):
        has = memory.capacity(devices()[0], job.placement.devices)
        if need.total > has:
            raise UserError(
                f"arm {job.arm}: {len(job.program.seeds)} lanes need {readable(need.total)} on each of "
                f"{job.placement.devices} devices, which have {readable(has)}\n"
                "use fewer seeds at a time, a smaller network or replay buffer, or more devices"
            )
