"""The programs of an experiment: lanes that share one compiled computation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from plasticity.config.experiments import Experiment
from plasticity.config.settings import MemberConfig, paths
from plasticity.config.starts import Start
from plasticity.config.sweeps import Arm


class Built(NamedTuple):
    """The members of a program with their settings bound; each still takes its positional arguments."""

    agent: partial[Any]
    interventions: tuple[partial[Any], ...]
    monitors: tuple[partial[Any], ...]


@dataclass(frozen=True, eq=False)
class ProgramSettings:
    """All lanes of an arm that share one compiled computation: points x seeds, with seeds varying fastest."""

    arm: str
    index: int  # among the arm's programs
    agent: MemberConfig
    interventions: tuple[MemberConfig, ...]
    task_aware: bool
    start: Start | None
    monitors: tuple[MemberConfig, ...]
    hyper: Mapping[str, np.ndarray]  # every traced number of agent and interventions: dotted path -> float32[lanes]
    seeds: np.ndarray  # int32[lanes]
    lanes: np.ndarray  # int32[lanes]: the lane's number within the arm
    points: tuple[Mapping[str, Any], ...]  # the swept values of each lane

    def only(self, rows: Sequence[int]) -> "ProgramSettings":
        """The program with these of its lanes alone; ``rows`` are their positions in ``lanes``."""
        chosen = np.asarray(rows, np.int64)
        return replace(
            self,
            hyper={path: values[chosen] for path, values in self.hyper.items()},
            seeds=self.seeds[chosen],
            lanes=self.lanes[chosen],
            points=tuple(self.points[row] for row in chosen),
        )

    def build(self, hyper: Mapping[str, Any]) -> Built:
        """Bind the members to one lane's numbers (``hyper`` of one lane: float32 scalars, may be tracers)."""
        return Built(
            self.agent.build(hyper, "agent"),
            _built("interventions", self.interventions, hyper),
            _built("monitors", self.monitors, hyper),
        )


def _built(family: str, members: Sequence[MemberConfig], hyper: Mapping[str, Any]) -> tuple[partial[Any], ...]:
    return tuple(each.build(hyper, path) for path, each in zip(paths(family, members), members, strict=True))


def programs(experiment: Experiment) -> list[ProgramSettings]:
    """The experiment's programs, arm by arm; points that differ only in traced numbers share a program."""
    return [program for name, arm in experiment.arms.items() for program in _programs_of(experiment, name, arm)]


def _programs_of(experiment: Experiment, name: str, arm: Arm) -> list[ProgramSettings]:
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, point in enumerate(arm.points):
        groups.setdefault(point.static(), []).append(i)
    return [_program(experiment, name, arm, index, group) for index, group in enumerate(groups.values())]


def _program(experiment: Experiment, name: str, arm: Arm, index: int, group: list[int]) -> ProgramSettings:
    seeds = np.array(experiment.seeds, np.int32)
    chosen = [arm.points[i] for i in group]
    numbers = [point.traced() for point in chosen]
    return ProgramSettings(
        arm=name,
        index=index,
        agent=chosen[0].agent,
        interventions=chosen[0].interventions,
        task_aware=arm.task_aware,
        start=arm.start,
        monitors=experiment.monitors,
        hyper={path: np.repeat(np.array([n[path] for n in numbers], np.float32), len(seeds)) for path in numbers[0]},
        seeds=np.tile(seeds, len(chosen)),
        lanes=np.concatenate([i * len(seeds) + np.arange(len(seeds), dtype=np.int32) for i in group]),
        points=tuple(point.values for point in chosen for _ in seeds),
    )
