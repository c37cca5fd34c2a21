"""Learners that go on from another run: read from its checkpoints lane by lane, whatever its placement and shards."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from plasticity.config.experiments import read_experiment
from plasticity.config.programs import ProgramSettings, programs
from plasticity.config.starts import Start
from plasticity.core.errors import UserError, listed, unknown
from plasticity.core.types import Done
from plasticity.engine.lanes import Placement
from plasticity.engine.program import NEVER
from plasticity.engine.runner import Learners, Run
from plasticity.runs import checkpoint, folder, shards
from plasticity.runs.accounts import EXPERIMENT, SHARD, read_plan, shard_folders
from plasticity.runs.building import interventions_of
from plasticity.runs.checkpoint import Slot, WrongCheckpointError
from plasticity.runs.checksums import DamagedError
from plasticity.runs.members import registry


class Lane(NamedTuple):
    """Where a lane of the other run is."""

    seed: int
    slot: Slot


def origin_of(each: ProgramSettings) -> Done:
    """What the learners of a program had done before. ``UserError`` if the other run does not say it."""
    if each.start is None:
        return Done()
    start = complete(each.start, _place(each))
    assert start.steps is not None
    assert start.earlier is not None
    visits, steps = start.earlier
    return Done(visits + start.visits, steps + start.steps)


def complete(start: Start, where: str) -> Start:
    """The start with all that the other run's plan says. ``UserError`` if that is needed and missing."""
    if start.steps is not None and start.earlier is not None:
        return start
    plan = _plan(start, where)
    earlier = next((each.get("origin") for each in plan["arms"] if each["name"] == start.arm), None) or (0, 0)
    return replace(start, steps=_steps(start, plan, where), earlier=tuple(earlier))


def _plan(start: Start, where: str) -> dict[str, Any]:
    try:
        plan = read_plan(_folder(start))
    except (OSError, DamagedError) as error:
        raise UserError(f"{where}.run: {start.run} is not a run, or its plan is damaged ({error})") from None
    if "programs" not in plan:
        raise UserError(f"{where}.run: {start.run} is a run of an older version, which cannot be forked")
    return plan


def _steps(start: Start, plan: Mapping[str, Any], where: str) -> int:
    """Env steps of the visits in that run."""
    visits = plan["stream"]["visits"]
    if start.visits > len(visits):
        raise UserError(f"{where}.visits: {start.visits} is not allowed; {start.run} has {len(visits)} visits")
    return sum(visit["steps"] for visit in visits[: start.visits])


def _folder(start: Start) -> Path:
    return Path(start.run).expanduser()


def _place(each: ProgramSettings) -> str:
    return f"arms.{each.arm}.start"


class Continued:
    """The learners of a program that go on from another run.

    Args:
      each: the program; it has a ``start``.
    """

    def __init__(self, each: ProgramSettings) -> None:
        assert each.start is not None
        self.each, self.start, self.where = each, each.start, _place(each)

    def check(self, run: Run) -> None:
        """``UserError`` if the other run has no learners of this form for these lanes."""
        plan = _plan(self.start, self.where)
        steps = _steps(self.start, plan, self.where)
        if self.start.steps not in (None, steps):
            visits = f"{self.start.visits} visit{'s' if self.start.visits > 1 else ''}"
            done = f"{visits} had {steps:,}, and learners go on from the end of a visit only"
            raise UserError(f"{self.where}.steps: {self.start.steps:,} is not allowed; {done}")
        self._check_memory(len(plan["stream"]["visits"]), len(run.program.spec.visits))
        wanted = _learners_of(run.carry_shape())
        with self._placed():
            for path, group in {(slot.path, slot.group) for slot in self._slots()}:
                checkpoint.check_learners(path, group, wanted)

    def check_alike(self, run: Run, other: Run) -> None:
        """``UserError`` if the learners of the ``other`` run, which is not made yet, have another form."""
        self._check_memory(len(other.program.spec.visits), len(run.program.spec.visits))
        here, there = (checkpoint.forms(_learners_of(each.carry_shape()).agent) for each in (run, other))
        odd = next((name for name in {**there, **here} if here.get(name) != there.get(name)), None)
        if odd is not None:
            forms = [f"{form[0]} {list(form[1])}" if form else "absent" for form in (there.get(odd), here.get(odd))]
            raise UserError(
                f"{self.where}: the learners do not fit: agent{odd} is {forms[0]} in the run and {forms[1]} here"
            )

    def _check_memory(self, there: int, here: int) -> None:
        """``UserError`` if a method's memory of past visits has another size for so many visits of the stream."""
        for label, made in interventions_of(self.each.build({}), self.each).items():
            kept = made.remember
            if kept is None or (kept.visits is not None and kept.visits < min(there, here)) or there == here:
                continue
            raise UserError(
                f"{self.where}: the memory of {label} has room for the visits of its stream, {there} in the run and "
                f"{here} here; such learners can only go on in a stream of as many visits"
            )

    def __call__(self, run: Run) -> list[Learners]:
        """The learners of each group of a run. ``UserError`` if there are none, or a checkpoint is damaged."""
        slots, wanted = self._slots(), _learners_of(run.carry_shape())
        found = []
        for group in range(run.placement.groups):
            rows = run.placement.lanes_of(group, len(slots))
            with self._placed():
                made = checkpoint.learners([slots[row] for row in rows], wanted)
            ended = np.where(made.diverged_at == NEVER, NEVER, 0).astype(np.int32)
            found.append(made._replace(diverged_at=ended))
        return found

    @contextlib.contextmanager
    def _placed(self) -> Iterator[None]:
        try:
            yield
        except (DamagedError, WrongCheckpointError) as error:
            raise UserError(f"{self.where}: {error}") from None

    def _slots(self) -> list[Slot]:
        """Where the learner of each lane is."""
        where = self.where
        start = complete(self.start, where)
        assert start.steps is not None
        lanes = dict(_lanes(start, start.steps, where))
        found = []
        for number, seed in zip(self.each.lanes.tolist(), self.each.seeds.tolist(), strict=True):
            if number not in lanes or lanes[number].seed != seed:
                has = f"seed {lanes[number].seed}" if number in lanes else "none (or its shard has not started)"
                raise UserError(
                    f"{where}: lane {number} has seed {seed} here and {has} in {start.run}; "
                    "seeds and sweep must be those of that run"
                )
            found.append(lanes[number].slot)
        return found


def _learners_of(carry: Any) -> Learners:
    return Learners(carry.agent, carry.diverged_at)


def _lanes(start: Start, steps: int, where: str) -> Iterator[tuple[int, Lane]]:
    """The lanes of an arm of the other run, by number."""
    run = _folder(start)
    known: list[str] = []
    for place in shard_folders(run).values() or (run,):
        raw, plan = folder.read(place)
        experiment = read_experiment({**raw, "placement": {}}, registry(), source=str(place / EXPERIMENT))
        known = list(experiment.arms)
        asked = programs(experiment)
        if SHARD in plan:
            asked = shards.cut(asked, shards.parse(plan[SHARD]["split"]))[plan[SHARD]["number"] - 1].of(asked)
        for settings, described in zip(asked, plan["programs"], strict=True):
            if settings.arm == start.arm:
                made = place / settings.arm / folder.CHECKPOINTS / f"{settings.index:03d}"
                yield from _of_program(settings, described["placement"], _checkpoint(start, made, steps, where))
    if start.arm not in known:
        raise UserError(f"{where}.arm: {unknown('arm', start.arm, known, f'of {start.run}')}")


def _of_program(settings: ProgramSettings, placed: Mapping[str, int], path: Path) -> Iterator[tuple[int, Lane]]:
    block = Placement(**placed).block
    for row, (number, seed) in enumerate(zip(settings.lanes.tolist(), settings.seeds.tolist(), strict=True)):
        yield number, Lane(seed, Slot(path, *divmod(row, block)))


def _checkpoint(start: Start, place: Path, steps: int, where: str) -> Path:
    """The checkpoint at an env step. ``UserError`` if there is none."""
    found = checkpoint.at(place, steps)
    if found is not None:
        return found
    there = [f"{step:,}" for step in map(checkpoint.step_of, checkpoint.every(place)) if step is not None]
    has = f"those at {listed(there)}" if there else "none"
    wanted = f"{start.arm} at env step {steps:,} ({start.visits} visits)"
    raise UserError(
        f"{where}: {start.run} has no checkpoint of {wanted}, but {has}\n"
        f"a run keeps it with `keep_checkpoints: [{start.visits}]`"
    )
