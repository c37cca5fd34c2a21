"""Components shared by all supervised streams.

Each env is one row of the minibatch. Its observation is a :class:`~plasticity.core.types.Supervised` sample, its action
is the prediction for the previous sample, and the reward measures the quality of that prediction. Samples are drawn
with replacement. The discount is 0, and episodes never end.

Controls, which should show no loss of plasticity: a stationary stream (any stream here with the ``schedule`` ``{visits:
[0], cycles: 40}``, or ``relabelled`` with ``fraction: 0``, which repeat one task); ``permuted_labels`` with ten
classes; and a convex learner (a network without hidden layers) on any stream here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.core.types import Array, Key, StreamSpec, Supervised, Task, Visit, VisitPlan
from plasticity.envs.base import StreamFactory, vectorise
from plasticity.envs.held_out import Split, drawn_row, split_of
from plasticity.envs.samples import Labels, Samples, drawn_rows

StaticFraction = Annotated[float, Field(ge=0, le=1)]
StaticNonNegative = Annotated[float, Field(ge=0)]

INPUTS, TARGETS, LABELS = 0, 1, 2  # tags for keys derived from the key of the parameters

Draw = Callable[[Key, Any], Supervised]
Mix = Callable[[Key, Array, Array, Array], Array]  # key, previous target, new target, progress in [0, 1] -> target


class LearningTask(NamedTuple):
    """What a lane learns during one visit."""

    inputs: Any  # the lane's inputs, fixed for the run, or ()
    targets: Any  # the parameters of the task
    learning: Array  # bool[]: False in an evaluation
    before: Any = ()  # the parameters of the previous task, if the change is gradual
    progress: Any = ()  # float32[] in [0, 1], if the change is gradual


class Sampler(NamedTuple):
    """A source of samples. It separates what is fixed for a lane from what depends on the task."""

    shape: tuple[int, ...]  # of one input
    for_lane: Callable[[Key], Any]  # key of the parameters -> what is fixed for a lane
    targets: Callable[[Key, Any, Visit], Any]  # key of the parameters, the same, visit -> the parameters of the task
    draw: Callable[[Key, Any, Array], tuple[Any, Array]]
    # key, what is fixed for the lane, bool[]: False in an evaluation -> place, input
    target_of: Callable[[Any, Any], Array]  # the parameters of the task, place -> target


def row_sampler(
    samples: Samples,
    targets: Callable[[Key, Any, Visit], Array],
    augment: Mapping[str, float] | None = None,
    split: Split | None = None,
) -> Sampler:
    """Draw the samples uniformly; ``targets`` returns ``[samples.total, ...]`` for a visit.

    Evaluations draw held-out samples, if ``split`` has any, and do not augment those.
    """
    rows, parts = drawn_rows(samples, augment or {}), split or split_of(samples, 0)

    def draw(key: Key, own: Any, learning: Array) -> tuple[Array, Array]:
        row = drawn_row(key, parts, learning)
        return row, rows(key, own, row, learning if parts.held_out else True)

    def for_lane(key: Key) -> Any:
        return samples.for_lane(jax.random.fold_in(key, INPUTS))

    return Sampler(samples.shape, for_lane, targets, draw, lambda values, row: values[row])


def supervised_task(
    spec: StreamSpec,
    params: Callable[[Key, Visit], Any],
    draw: Draw,
    score: Callable[[Array, Array], Array],
    at: Callable[[Any, Array], Any] | None = None,
) -> Task:
    """A continuing task: ``draw`` returns the next sample, ``score(prediction, target)`` the reward of the last."""

    def reset(key: Key, problem: Any) -> tuple[Array, Supervised]:
        sample = draw(key, problem)
        return sample.target, sample

    def step(key: Key, target: Array, action: Array, problem: Any) -> tuple[Array, Supervised, Array, Array, Array]:
        sample = draw(key, problem)
        return sample.target, sample, score(action, target), jnp.zeros(()), jnp.zeros((), bool)

    return Task(spec, params, reset, step, at)


def learns(visit: Visit) -> Array:
    """bool[]: False in an evaluation."""
    return jnp.asarray(visit.eval_replica, jnp.int32) == 0


def abrupt_change(sampler: Sampler) -> tuple[Callable[[Key, Visit], LearningTask], Draw]:
    """The parameters and samples of tasks that change abruptly."""

    def params(key: Key, visit: Visit) -> LearningTask:
        own = sampler.for_lane(key)
        return LearningTask(own, sampler.targets(key, own, visit), learns(visit))

    def draw(key: Key, problem: LearningTask) -> Supervised:
        place, x = sampler.draw(key, problem.inputs, problem.learning)
        return Supervised(x, sampler.target_of(problem.targets, place))

    return params, draw


def gradual_change(sampler: Sampler, mix: Mix) -> tuple[Callable[[Key, Visit], LearningTask], Draw]:
    """The same for gradual changes: targets move from those of task ``u - 1`` to those of task ``u`` with ``progress``.

    Task 0 has no previous task, so its progress is 1 from the start.
    """

    def params(key: Key, visit: Visit) -> LearningTask:
        own = sampler.for_lane(key)
        last = visit._replace(task=jnp.maximum(visit.task - 1, 0))
        targets, before = (sampler.targets(key, own, each) for each in (visit, last))
        return LearningTask(own, targets, learns(visit), before, jnp.where(visit.task == 0, 1.0, 0.0))

    def draw(key: Key, problem: LearningTask) -> Supervised:
        one, two = jax.random.split(key)
        place, x = sampler.draw(one, problem.inputs, problem.learning)
        old, new = (sampler.target_of(targets, place) for targets in (problem.before, problem.targets))
        return Supervised(x, mix(two, old, new, problem.progress))

    return params, draw


def linear_progress(steps: float) -> Callable[[LearningTask, Array], LearningTask]:
    """``Task.at``: progress grows linearly from 0 to 1 over ``steps`` (static) env steps, for visits of any length."""

    def at(problem: LearningTask, step: Array) -> LearningTask:
        return problem._replace(progress=jnp.maximum(problem.progress, jnp.minimum(step / steps, 1.0)))

    return at


def mix_labels(key: Key, old: Array, new: Array, progress: Array) -> Array:
    """The new label with probability ``progress``, else the old one."""
    return jnp.where(jax.random.bernoulli(key, progress), new, old)


def interpolate(key: Key, old: Array, new: Array, progress: Array) -> Array:
    """Linear interpolation: ``(1 - progress) old + progress new``."""
    del key
    return (1 - progress) * old + progress * new


def supervised_stream(
    spec: StreamSpec,
    sampler: Sampler,
    score: Callable[[Array, Array], Array],
    mix: Mix,
    steps: float,
    alter: Callable[[Draw], Draw] = lambda draw: draw,
) -> StreamFactory:
    """A stream of ``sampler``'s tasks.

    With ``steps`` > 0 (static), each change takes that many env steps. ``alter`` may change the drawn samples.
    """
    params, draw = gradual_change(sampler, mix) if steps > 0 else abrupt_change(sampler)
    return stream_of(supervised_task(spec, params, alter(draw), score, linear_progress(steps) if steps > 0 else None))


def stream_of(task: Task) -> StreamFactory:
    return StreamFactory(task.spec, lambda lanes: vectorise(task, lanes, task.spec.envs))


def supervised_spec(
    shape: Sequence[int], target: jax.ShapeDtypeStruct, actions: int, name: str, tasks: int, steps: int, envs: int
) -> StreamSpec:
    """``tasks`` visits of ``steps`` minibatches of ``envs`` samples, each to a new task."""
    observation: Any = (jax.ShapeDtypeStruct(tuple(shape), jnp.float32), target)
    return StreamSpec(
        observation=Supervised(*observation),
        actions=actions,
        tasks=tuple(f"{name}_{i}" for i in range(tasks)),
        visits=tuple(VisitPlan(i, steps) for i in range(tasks)),
        envs=envs,
        episodic=False,
        discrete=target.dtype == jnp.int32,
        reward_name="accuracy" if target.dtype == jnp.int32 else "negative_squared_error",
        reward_range=(0, 1) if target.dtype == jnp.int32 else (-math.inf, 0),
    )


def label_spec(shape: Sequence[int], classes: int, name: str, tasks: int, steps: int, envs: int) -> StreamSpec:
    """As :func:`supervised_spec`, for classification."""
    return supervised_spec(shape, jax.ShapeDtypeStruct((), jnp.int32), classes, name, tasks, steps, envs)


def with_data(spec: StreamSpec, samples: Samples) -> StreamSpec:
    """The spec with the samples' files, and inputs of their shape and type."""
    inputs = jax.ShapeDtypeStruct(samples.shape, samples.dtype)
    return spec._replace(observation=spec.observation._replace(input=inputs), data=samples.files)


def labels_or_targets_spec(samples: Samples, known: Labels, name: str, tasks: int, steps: int, envs: int) -> StreamSpec:
    """As :func:`supervised_spec`, for classification or, if ``known`` are real-valued targets, regression."""
    shape, dtype = ((known.classes,), jnp.float32) if known.real else ((), jnp.int32)
    target = jax.ShapeDtypeStruct(shape, dtype)
    spec = supervised_spec(samples.shape, target, known.classes, name, tasks, steps, envs)
    return spec._replace(data=samples.files)


def score_of(spec: StreamSpec) -> Callable[[Array, Array], Array]:
    """:func:`accuracy` for labels, :func:`negative_squared_error` for real-valued targets."""
    return accuracy if spec.discrete else negative_squared_error


def accuracy(prediction: Array, target: Array) -> Array:
    return prediction == target


def negative_squared_error(prediction: Array, target: Array) -> Array:
    """``-mean((prediction - target)^2)``, the mean over the outputs."""
    return -jnp.mean(jnp.square(prediction - target))
