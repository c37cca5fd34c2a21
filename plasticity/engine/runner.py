"""One loop for every stream: scan a chunk of steps and yield the result."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.types import AgentState, Array, Clock, Done, Shift, VisitPlan
from plasticity.engine.evaluation import Target, targets
from plasticity.engine.lanes import Placement, join, lane_keys
from plasticity.engine.measures import columns
from plasticity.engine.packing import Packed, unpack
from plasticity.engine.program import DIVERGED, Carry, Compiled, Hyper, Program, compile_program
from plasticity.engine.visits import own_task

TaskNames = str | tuple[str, ...]  # of all lanes, or of each
PERFORMANCE = ("episodic_return", "reward")


class Position(NamedTuple):
    """Position of the run (Python ints)."""

    visit: int = 0
    step_in_visit: int = 0
    step: int = 0


class Evaluated(NamedTuple):
    """Results of the lanes on a replica of one visit."""

    visit: int
    task: TaskNames
    metrics: Mapping[str, np.ndarray]  # float32[lanes]; NaN where no episode was finished


class Learners(NamedTuple):
    """The learners of a group that go on from where another run has saved them; leading axis ``devices x width``."""

    agent: AgentState
    diverged_at: Any  # int32: 0 for a lane that had diverged there, else NEVER


class Chunk(NamedTuple):
    """Results of one chunk of the loop."""

    position: Position  # after the chunk
    task: TaskNames
    metrics: Mapping[str, np.ndarray]  # float32[lanes]; NaN if there is no value
    diverged_at: np.ndarray  # int32[lanes]
    evaluations: tuple[Evaluated, ...] = ()  # if evaluation was due; the current visit first


VISIT = "steps of a visit"


def chunk_steps(
    visits: Sequence[VisitPlan], periods: Mapping[str, Sequence[int]], record_every: int | None = None
) -> int:
    """Env steps of one chunk: ``record_every``, or the largest number that fits a tenth of every visit and ``periods``.

    ``periods``: key -> env steps. ``ValueError`` names the value that is not a multiple of ``record_every``.
    """
    lengths = [(VISIT, visit.steps) for visit in visits]
    lengths += [(key, steps) for key, values in periods.items() for steps in values]
    if record_every is None:
        common = math.gcd(*(visit.steps for visit in visits))
        return math.gcd(common // 10 if common % 10 == 0 else common, *(steps for _, steps in lengths))
    for what, steps in lengths:
        if steps % record_every:
            divided = f"the {steps} {what}" if what == VISIT else f"{what}, {steps}"
            raise ValueError(f"record_every: {record_every} is not allowed; must divide {divided}")
    return record_every


def shift_of(program: Program) -> Any:
    """By how much other clocks differ from that of the learners; () if all count alike."""
    origin, skipped = program.origin, program.spec.skipped
    if origin == skipped == Done():
        return ()
    shifts = (skipped.steps - origin.steps, skipped.visits - origin.visits, -origin.steps)
    numbers: Any = map(np.int32, shifts)
    return Shift(*numbers)


def current(evaluations: Sequence[Evaluated], measured: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The evaluation of the task being learned, as metrics: the performance, and the columns ``measured``."""
    if not evaluations:
        return {}
    found = evaluations[0].metrics
    names = [name for name in (*PERFORMANCE, *measured) if name in found]
    return {f"evaluation_{name.removeprefix('episodic_')}": found[name] for name in names}


class Run:
    """An active program: its carries, its position, and the loop over them.

    ``compiled``: the compiled functions of another run of the program with the same number of devices and the same
    width (its lanes may differ).
    """

    def __init__(
        self, program: Program, placement: Placement, devices: Sequence[jax.Device], compiled: Compiled | None = None
    ) -> None:
        self.program, self.placement = program, placement
        self.compiled = compiled or compile_program(program, placement, devices)
        self.position = Position()
        self.carries: list[Carry] = []
        self._names: dict[int, TaskNames] = {}
        self._shift = shift_of(program)
        self.inputs = [self._group_inputs(group) for group in range(placement.groups)]

    def _group_inputs(self, group: int) -> tuple[Hyper, Array, Array]:
        lanes = self.placement.lanes_of(group, len(self.program.seeds))
        hyper = {path: np.asarray(values[lanes], np.float32) for path, values in self.program.hyper.items()}
        blocks = group * self.placement.devices + np.arange(self.placement.devices, dtype=np.int32)
        inputs = (hyper, np.asarray(self.program.seeds[lanes], np.int32), blocks)
        return jax.device_put(inputs, self.compiled.sharding)

    def begin(self, learners: Sequence[Learners] = ()) -> None:
        """Initial carries of all groups; with ``learners``, of each group, these go on in a new visit."""
        self.carries = [self.compiled.begin(hyper, seeds, block) for hyper, seeds, block in self.inputs]
        if learners:
            placed = [jax.device_put(each, self.compiled.sharding) for each in learners]
            self.carries = [carry._replace(**each._asdict()) for carry, each in zip(self.carries, placed, strict=True)]
            self._switch()

    def restore(self, carries: Sequence[Any], position: Position, host: Mapping[str, np.ndarray]) -> None:
        """Restore a saved run from NumPy carries of all groups and the stream's host side."""
        self.carries = [jax.device_put(carry, self.compiled.sharding) for carry in carries]
        self.position = position
        self.compiled.stream.load(host)

    def names(self, task: int) -> TaskNames:
        """The name of a task of the sequence, or each lane's task name if each lane has its own order."""
        spec = self.program.spec
        if not spec.shuffled:
            return spec.tasks[task]
        if task not in self._names:
            keys = jax.vmap(lane_keys)(jnp.asarray(self.program.seeds, jnp.int32))
            self._names[task] = tuple(spec.tasks[own] for own in own_task(spec, keys.data, jnp.int32(task)).tolist())
        return self._names[task]

    def carry_shape(self) -> Carry:
        """Shapes and dtypes of one group's carry, without computing it."""
        shape: Carry = jax.eval_shape(self.compiled.begin, *self.inputs[0])
        return shape

    def activation_shape(self) -> Any:
        """Shapes of all hidden activations of one lane on the probe batch."""

        def activations(hyper: Hyper, carry: Carry) -> Any:
            agent = self.program.build({path: values[0] for path, values in hyper.items()})
            lane = jax.tree.map(lambda x: x[0], (carry.agent, carry.recent))
            recent = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), lane[1])
            return agent.probe(lane[0], recent, self.clock()).activations

        return jax.eval_shape(activations, self.inputs[0][0], self.carry_shape())

    def clock(self) -> Clock:
        """The learners' clock as NumPy scalars, which need no separate transfer to the devices."""
        origin, here = self.program.origin, self.position
        numbers: Any = map(np.int32, (origin.visits + here.visit, here.step_in_visit, origin.steps + here.step))
        visit, step_in_visit, step = numbers
        return Clock(step, step, visit, step_in_visit, self._shift)

    def _measure(self) -> list[Packed]:
        """Apply the monitors that are due; one record per group, empty if none is due."""
        due = tuple(i for i, each in enumerate(self.program.monitors) if self.position.step % each.every == 0)
        records = []
        for group, (hyper, seeds, _) in enumerate(self.inputs if due else []):
            carry = self.carries[group]
            monitors, record = self.compiled.measure(hyper, seeds, carry, self.clock(), due)
            self.carries[group] = carry._replace(monitors=monitors)
            records.append(record)
        return records

    def _evaluation_due(self) -> bool:
        settings, here = self.program.evaluation, self.position
        if settings is None:
            return False
        if settings.every is None:
            return here.step_in_visit == self.program.spec.visits[here.visit].steps
        return here.step % settings.every == 0

    def _evaluate(self, target: Target) -> Evaluated:
        visit, task = np.int32(self.program.origin.visits + target.visit), np.int32(target.task)
        found = [
            self.compiled.evaluate(hyper, seeds, carry, self.clock(), visit, task, block)
            for (hyper, seeds, block), carry in zip(self.inputs, self.carries, strict=True)
        ]
        return Evaluated(target.visit, self.names(target.task), self._metrics(jax.device_get(found)))

    def _evaluations(self) -> tuple[Evaluated, ...]:
        """Run the evaluations that are due, one per task; empty if none is due."""
        settings, spec = self.program.evaluation, self.program.spec
        if settings is None or not self._evaluation_due():
            return ()
        return tuple(self._evaluate(target) for target in targets(spec, self.position.visit, settings.tasks))

    def _switch(self) -> None:
        task = np.int32(self.program.spec.visits[self.position.visit].task)
        for group, (hyper, seeds, block) in enumerate(self.inputs):
            self.carries[group] = self.compiled.switch(hyper, seeds, self.carries[group], self.clock(), task, block)

    def _advance(self) -> Chunk:
        """One chunk of every group, then the monitors that are due."""
        clock, steps = self.clock(), self.program.chunk
        records = []
        for group, (hyper, seeds, _) in enumerate(self.inputs):
            self.carries[group], record = self.compiled.chunk(hyper, seeds, self.carries[group], clock)
            records.append(record)
        here = self.position
        self.position = Position(here.visit, here.step_in_visit + steps, here.step + steps)
        made, measured = jax.device_get((records, self._measure()))
        metrics = self._metrics(made)
        diverged = metrics.pop(DIVERGED)
        spec = self.program.spec
        task = self.names(spec.visits[here.visit].task)
        evaluations = self._evaluations()
        metrics |= self._metrics(measured) | current(evaluations, columns(spec.measures))
        return Chunk(self.position, task, metrics, diverged, evaluations)

    def _metrics(self, groups: Sequence[Packed]) -> dict[str, np.ndarray]:
        """The metrics of all lanes from those of the groups."""
        if not groups:
            return {}
        bits = join([each.bits for each in groups], len(self.program.seeds))
        return dict(unpack(replace(groups[0], bits=bits)))

    def chunks(self) -> Iterator[Chunk]:
        """Run the rest of the stream chunk by chunk; between two chunks the run may be saved or stopped."""
        visits = self.program.spec.visits
        if not self.carries:
            self.begin()
        while True:
            if self.position.step_in_visit == visits[self.position.visit].steps:
                if self.position.visit + 1 == len(visits):
                    return
                self.position = Position(self.position.visit + 1, 0, self.position.step)
                self._switch()
            yield self._advance()

    def close(self) -> None:
        self.compiled.stream.close()
        self.compiled.eval_stream.close()
