"""Common base of the transforms: a wrapper around a stream, defined by functions of one lane.

A transform's *problem* depends on an *index* and the lane's data key. With ``per: task`` the index is the stream's
task. With ``per: visit`` every visit becomes a task of its own. The wrapped stream still receives its original task.
The index is derived from the new task, so a schedule can repeat visits in any order
(``plasticity.engine.visits.scheduled``).
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.errors import shown
from plasticity.core.lane_axis import over
from plasticity.core.types import (
    Array,
    Clock,
    Key,
    Logged,
    State,
    Stream,
    StreamSpec,
    Supervised,
    TimeStep,
    Visit,
    VisitPlan,
)
from plasticity.envs.base import StreamFactory, chance, tasks_of

Per = Literal["task", "visit"]
Values = float | tuple[float, ...]
Transform = Callable[[StreamFactory], StreamFactory]
Done = Array | None  # completed fraction of the change, float32; None: always all of it

TRANSFORM = 1000  # folded into a lane's data key; below it: ``envs.base`` and ``plasticity.engine.visits``
PROBLEM, OPENING, ACTION, OBSERVATION = range(4)  # tags for keys derived from the key of one transform


class LaneTransform(NamedTuple):
    """The functions of a transform, for ONE lane, arrays ``[E, ...]``; None means no change."""

    problem: Callable[[Key, Array], Any] = lambda key, index: ()
    memory: Callable[[], Any] = tuple  # its memory at the start of a visit; arrays [E, ...]
    act: Callable[[Key, Any, Any, Array, Done], tuple[Any, Array]] | None = None
    # key of the step, problem, memory, actions, done -> memory, actions for the wrapped stream
    see: Callable[[Key, Any, Any, TimeStep, Done], tuple[Any, TimeStep]] | None = None
    # key of the step, problem, memory, the wrapped stream's time step, done -> memory, time step for the learner
    score: Callable[[Any, Array, Done], Array] | None = None
    # problem, the wrapped stream's score [E], done -> score [E]; required if `see` changes the reward


class Division(NamedTuple):
    """The tasks of a transformed stream."""

    spec: StreamSpec
    inner: np.ndarray  # int32[tasks]: the task of the wrapped stream
    problem: np.ndarray  # int32[tasks]: the index of the transform's problem
    steps: np.ndarray  # float32[tasks]: env steps of a visit


class Wrapped(NamedTuple):
    """The state of a transformed stream; leading axis W everywhere."""

    inner: State
    problem: Any
    memory: Any  # [W, E, ...]
    span: Any  # float32[W]: duration of the change in env steps; () if it is abrupt
    score: Any  # float32[W, E]: of the newest time step; () if the wrapped stream provides it


@dataclass(frozen=True)
class Make:
    """``StreamFactory.make`` of a transformed stream, which exposes its parts."""

    kind: str
    inner: Callable[[int], Stream]
    wrap: Callable[[Stream, int], Stream]

    def __call__(self, lanes: int) -> Stream:
        return self.wrap(self.inner(lanes), lanes)


def number_of(make: Callable[[int], Stream], kind: str) -> int:
    """The number of transforms of this kind in ``make``."""
    count = 0
    while isinstance(make, Make):
        count += make.kind == kind
        make = make.inner
    return count


def divided(spec: StreamSpec, per: Per, period: int | None = None) -> Division:
    """The tasks of ``spec``, or tasks made of its visits.

    ``per: visit``: each visit is its own task, with index 0, 1, ... With a ``period`` the index of visit i is
    ``i % period``, and visits that share both the wrapped stream's task and the index are visits to one task.
    """
    if per == "task" or period == 1:
        pairs = [(i, i) for i in range(len(spec.tasks))]
        visited = [(plan.task, plan.task) for plan in spec.visits]
    else:
        visited = [(plan.task, i if period is None else i % period) for i, plan in enumerate(spec.visits)]
        pairs = list(dict.fromkeys(visited))
    inner, index = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    once = len(set(inner.tolist())) == len(inner)
    names = tuple(spec.tasks[task] if once else f"{spec.tasks[task]}_{i}" for task, i in pairs)
    number = {pair: i for i, pair in enumerate(pairs)}
    visits = tuple(VisitPlan(number[pair], plan.steps) for pair, plan in zip(visited, spec.visits, strict=True))
    usual = {plan.task: plan.steps for plan in reversed(visits)}  # the length of the first visit to each task
    steps = np.array([usual.get(task, visits[0].steps) for task in range(len(pairs))], np.float32)
    return Division(spec._replace(tasks=names, visits=visits), inner, index, steps)


@dataclass(frozen=True)
class Rule:
    """A change applied to the streams of one source (static)."""

    change: LaneTransform
    plan: Division
    gradual: float  # the initial fraction of a visit over which the change takes place; 0: it is abrupt
    tags: tuple[int, ...]  # folded into a lane's data key
    problem_key: Callable[[Key], Key] | None = None

    def key(self, key: Key, use: int) -> Key:
        for tag in (*self.tags, use):
            key = jax.random.fold_in(key, tag)
        return key

    def pose(self, key: Key, task: Array) -> tuple[Any, Any]:
        """The problem of a lane, and the duration of the change to it in env steps."""
        own = self.problem_key(key) if self.problem_key else self.key(key, PROBLEM)
        span = jnp.asarray(np.float32(self.gradual) * self.plan.steps)[task] if self.gradual else ()
        return self.change.problem(own, jnp.asarray(self.plan.problem)[task]), span

    def done(self, span: Any, steps: Array) -> Done:
        return jnp.clip(jnp.float32(steps) / span, 0, 1) if self.gradual else None

    def act(self, draw: Key, problem: Any, memory: Any, actions: Array, done: Done) -> tuple[Any, Array]:
        act = self.change.act
        return (memory, actions) if act is None else act(draw, problem, memory, actions, done)

    def see(self, draw: Key, problem: Any, memory: Any, timestep: TimeStep, done: Done) -> tuple[Any, TimeStep]:
        see = self.change.see
        return (memory, timestep) if see is None else see(draw, problem, memory, timestep, done)

    def score(self, problem: Any, score: Any, done: Done) -> Any:
        return () if self.change.score is None else self.change.score(problem, score, done)


def wrap(rule: Rule, stream: Stream, lanes: int) -> Stream:
    """Apply the rule's change to ``stream``, of ``lanes`` lanes."""

    def scored(state: State, timestep: TimeStep) -> Any:
        return () if rule.change.score is None else stream.score(state, timestep)

    def reset(keys: Key, visit: Visit, block: Array) -> tuple[Wrapped, TimeStep]:
        task, moment = tasks_of(visit, lanes), jnp.asarray(visit.elapsed, jnp.int32)
        inner, timestep = stream.reset(keys, visit._replace(task=jnp.asarray(rule.plan.inner)[task]), block)

        def lane(key: Key, task: Array, timestep: TimeStep, score: Any) -> Any:
            problem, span = rule.pose(key, task)
            draw = jax.random.fold_in(rule.key(chance(key, visit), OPENING), visit.number)
            done = rule.done(span, moment)
            memory, seen = rule.see(draw, problem, rule.change.memory(), timestep, done)
            return (problem, memory, span, rule.score(problem, score, done)), seen

        state, seen = over(lane, lanes)(keys, task, timestep, scored(inner, timestep))
        return Wrapped(inner, *state), seen

    def step(keys: Key, state: Wrapped, actions: Array, clock: Clock) -> tuple[Wrapped, TimeStep]:
        def before(key: Key, problem: Any, memory: Any, span: Any, actions: Array) -> tuple[Any, Array]:
            draw = jax.random.fold_in(rule.key(key, ACTION), clock.step)
            return rule.act(draw, problem, memory, actions, rule.done(span, clock.step_in_visit))

        def after(key: Key, problem: Any, memory: Any, span: Any, timestep: TimeStep, score: Any) -> Any:
            draw, done = (
                jax.random.fold_in(rule.key(key, OBSERVATION), clock.step),
                rule.done(span, clock.step_in_visit),
            )
            return *rule.see(draw, problem, memory, timestep, done), rule.score(problem, score, done)

        _, problem, memory, span, _ = state
        memory, actions = over(before, lanes)(keys, problem, memory, span, actions)
        inner, timestep = stream.step(keys, state.inner, actions, clock)
        scores = scored(inner, timestep)
        memory, seen, score = over(after, lanes)(keys, problem, memory, span, timestep, scores)
        return Wrapped(inner, problem, memory, span, score), seen

    def score(state: Wrapped, timestep: TimeStep) -> Array:
        return stream.score(state.inner, timestep) if rule.change.score is None else state.score

    def measures(state: Wrapped, timestep: TimeStep) -> Array:
        return stream.measures(state.inner, timestep)

    return stream._replace(spec=rule.plan.spec, reset=reset, step=step, score=score, measures=measures)


def transformed(
    kind: str,
    source: StreamFactory,
    plan: Division,
    change: LaneTransform,
    gradual: float = 0.0,
    problem_key: Callable[[Key], Key] | None = None,
) -> StreamFactory:
    """Apply a ``change`` to ``source``.

    ``gradual`` (static): the initial fraction of a visit over which the change takes place. All keys are derived from
    ``fold_in(key, TRANSFORM)`` by folding in the kind and the number of transforms of the same kind below it, so two
    transforms of one kind differ. Keys of a step also fold in ``clock.step``. ``problem_key`` replaces the key of the
    problem.
    """
    tags = (TRANSFORM, zlib.crc32(kind.encode()) & 0x7FFFFFFF, number_of(source.make, kind))
    rule = Rule(change, plan, gradual, tags, problem_key)
    return StreamFactory(plan.spec, Make(kind, source.make, lambda stream, lanes: wrap(rule, stream, lanes)))


def between(numbers: tuple[Array, Array], done: Done) -> Array:
    """Interpolate between a pair of numbers: ``last + done * (new - last)``."""
    last, new = numbers
    return new if done is None else last + done * (new - last)


def cycled(values: Sequence[float]) -> Callable[[Key, Array], tuple[Array, Array]]:
    """The problem of a number: its previous and new values, ``values[index % n]``; at index 0 both are the first."""

    def problem(key: Key, index: Array) -> tuple[Array, Array]:
        del key
        table = jnp.asarray(values, jnp.float32)
        return table[jnp.maximum(index - 1, 0) % len(table)], table[index % len(table)]

    return problem


def listed_values(key: str, value: Values, low: float, high: float, allowed: str) -> tuple[float, ...]:
    """Return one or several numbers as a tuple. ``ValueError`` for no number or one outside ``[low, high]``."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if not values or not all(low <= each <= high for each in values):
        raise ValueError(f"{key}: {shown(value)} is not allowed; must be {allowed}, or a list of such numbers")
    return values


def by_values(spec: StreamSpec, per: Per, values: Sequence[float], gradual: float) -> Division:
    """The tasks of a transform that cycles through a list of values.

    A gradual change depends on the previous value, so each visit is then its own task.
    """
    return divided(spec, per, None if gradual and len(values) > 1 else len(values))


def check_gradual(gradual: float) -> None:
    if not 0 <= gradual <= 1:
        raise ValueError(f"gradual: {gradual} is not allowed; must be a fraction of the visit, in [0, 1]")


def check_rewarded(kind: str, spec: StreamSpec) -> None:
    """Raise ``ValueError`` if the stream is supervised, or of recorded transitions."""
    if isinstance(spec.observation, Supervised | Logged):
        what = "supervised stream" if isinstance(spec.observation, Supervised) else "stream of recorded transitions"
        raise ValueError(
            f"{kind}: not allowed on a {what}, where the reward is the {spec.reward_name} of a prediction; "
            "it needs a stream with actions and rewards"
        )


def check_acted(kind: str, spec: StreamSpec) -> None:
    """Raise ``ValueError`` if the stream is supervised, or its actions are predictions of values."""
    check_rewarded(kind, spec)
    if spec.prediction is not None:
        raise ValueError(
            f"{kind}: not allowed on a stream that asks for predictions of values, which depend on its rewards alone; "
            "it needs a stream with actions"
        )
