"""From a config to a plan: a stream, and programs of lanes as jobs. Computes shapes only."""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from plasticity.config import experiments
from plasticity.config.counters import check_stream
from plasticity.config.experiments import Experiment, ProgramSettings
from plasticity.config.settings import paths
from plasticity.core.errors import UserError
from plasticity.core.types import StreamSpec
from plasticity.engine import memory, precision
from plasticity.engine.memory import Memory, readable
from plasticity.engine.visits import scheduled
from plasticity.envs.base import StreamFactory
from plasticity.runs.building import agent_of, checked
from plasticity.runs.devices import devices
from plasticity.runs.dry_run import check_silent, trace_once
from plasticity.runs.jobs import job_of
from plasticity.runs.session import Job


class Plan(NamedTuple):
    """Plan of a run: its jobs, and the memory each needs on each of its devices."""

    experiment: Experiment
    spec: StreamSpec
    jobs: tuple[Job, ...]
    memory: tuple[Memory, ...]

    def describe(self) -> dict[str, Any]:
        """The plan as plain data, ``plan.json``."""
        return {
            "name": self.experiment.name,
            "arms": self._arms(),
            "stream": _stream_facts(self.spec),
            "ranges": {
                name: _written(limits)
                for job in self.jobs
                for monitoring in job.program.monitors
                for name, limits in monitoring.monitor.ranges.items()
            },
            **({"data": [{"path": path, "sha256": sha} for path, sha in self.spec.data]} if self.spec.data else {}),
            "programs": self._programs(),
        }

    def _arms(self) -> list[dict[str, Any]]:
        controls = experiments.controls(self.experiment.arms)
        return [
            {
                "name": name,
                "lanes": sum(len(job.program.seeds) for job in self.jobs if job.arm == name),
                "task_aware": arm.task_aware,
                "control": controls[name],
            }
            for name, arm in self.experiment.arms.items()
        ]

    def _programs(self) -> list[dict[str, Any]]:
        return [
            {
                "arm": job.arm,
                "lanes": len(job.program.seeds),
                "placement": job.placement._asdict(),
                "steps_per_chunk": job.program.chunk,
                "bytes_per_device": each._asdict(),
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
        "visits": [{"task": visit.task, "steps": visit.steps} for visit in spec.visits],
    }


def _written(limits: tuple[float, float]) -> list[float | None]:
    """Limits in JSON form: null for an infinite one."""
    return [float(limit) if math.isfinite(limit) else None for limit in limits]


def plan(experiment: Experiment) -> Plan:
    """Lay the experiment out as jobs; computes shapes only. ``UserError`` if its parts do not fit together."""
    devices()  # before a stream makes its first array
    precision.restore()
    source = source_of(experiment)
    asked = experiments.programs(experiment)
    built = [job_of(experiment, source, each) for each in asked]
    traced = trace_once(built, asked)
    precision.check_unchanged()
    check_silent(traced, built)
    warn_of_agents(asked, source.spec)
    jobs = tuple(job._replace(measured=each.measured) for job, each in zip(built, traced, strict=True))
    return Plan(experiment, source.spec, jobs, tuple(each.memory for each in traced))


def warn_of_agents(asked: Sequence[ProgramSettings], spec: StreamSpec) -> None:
    """Warn of what the agents have to say, in one line for all arms that it concerns."""
    found: dict[str, list[str]] = {}
    for each in asked:
        for notice in agent_of(each, spec, {}).notices:
            arms = found.setdefault(notice, [])
            arms += [each.arm] if each.arm not in arms else []
    for notice, arms in found.items():
        warnings.warn(f"arms.{', '.join(arms)}: {notice}", stacklevel=3)


def source_of(experiment: Experiment) -> StreamFactory:
    """The stream with its transforms and its schedule. ``UserError`` if they do not fit."""
    source: StreamFactory = checked("stream", experiment.stream.build())
    checked("stream", check_stream, source.spec)
    for path, each in zip(paths("transforms", experiment.transforms), experiment.transforms, strict=True):
        source = checked(path, checked(path, each.build()), source)
    spec = checked("schedule", functools.partial(scheduled, source.spec, **vars(experiment.schedule)))
    checked("schedule", check_stream, spec)
    make = source.make
    return StreamFactory(spec, lambda lanes: make(lanes)._replace(spec=spec))


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
