"""Recorded transitions as a stream, for agents that learn offline."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.counters import check_visits
from plasticity.config.fields import Count, Cycles, Size, metadata
from plasticity.core.errors import contrasted, shown
from plasticity.core.types import Array, Key, Logged, Stream, StreamSpec, Task, TimeStep, Visit, VisitPlan
from plasticity.envs.base import Build, StreamFactory, tasks_of, vectorise
from plasticity.envs.recorded import BUILT_IN, Recorded, dataset_of
from plasticity.envs.supervised import accuracy, negative_squared_error

FINISHED = 2**31 - 1  # env steps after which any gradual change of a visit is complete


class Slice(NamedTuple):
    """The rows of a lane's dataset among those of all datasets, int32[]."""

    start: Array
    size: Array


def as_logged(datasets: Sequence[Recorded]) -> Logged:
    """The rows of all datasets, one after another."""

    def joined(of: Callable[[Recorded], np.ndarray]) -> Any:
        return jnp.asarray(np.concatenate([of(each) for each in datasets]))

    return Logged(
        joined(lambda each: each.observation),
        joined(lambda each: each.action),
        joined(lambda each: each.reward),
        joined(lambda each: (~each.terminated).astype(np.float32)),
        joined(lambda each: each.next_observation),
    )


def dataset_task(spec: StreamSpec, datasets: Sequence[Recorded]) -> Task:
    """Rows drawn uniformly with replacement; the reward is that of the action for the last row."""
    rows, sizes = as_logged(datasets), [len(each.reward) for each in datasets]
    starts = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    score = accuracy if spec.discrete else negative_squared_error

    def params(key: Key, visit: Visit) -> Slice:
        del key
        return Slice(jnp.asarray(starts)[visit.task], jnp.asarray(sizes, jnp.int32)[visit.task])

    def reset(key: Key, part: Slice) -> tuple[Array, Logged]:
        row = part.start + jax.random.randint(key, (), 0, part.size)
        drawn: Logged = jax.tree.map(lambda x: x[row], rows)
        return drawn.action, drawn

    def step(key: Key, wanted: Array, action: Array, part: Slice) -> tuple[Array, Logged, Array, Array, Array]:
        following, drawn = reset(key, part)
        return following, drawn, jnp.float32(score(action, wanted)), jnp.zeros(()), jnp.zeros((), bool)

    return Task(spec, params, reset, step)


def names_of(paths: Sequence[str]) -> tuple[str, ...]:
    """The name of each dataset: that of its file. ``ValueError`` if two have the same."""
    names = tuple(name if name in BUILT_IN else Path(name).stem for name in paths)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"paths: two datasets have the name {name}; rename a file")
    return names


def kind(made: Recorded) -> tuple[Any, ...]:
    """What all datasets of a stream have in common: observations, kind of actions."""
    actions = () if made.discrete else (made.actions,)
    return (list(made.observation.shape[1:]), str(made.observation.dtype), made.stack, made.discrete, *actions)


def check_alike(names: Sequence[str], datasets: Sequence[Recorded]) -> None:
    """``ValueError`` unless all datasets fit one network."""
    for name, made in zip(names, datasets, strict=True):
        if kind(made) != kind(datasets[0]):
            one, other = contrasted(kind(made), kind(datasets[0]))
            raise ValueError(
                f"paths: {name} has other observations or actions than {names[0]}; a stream needs the same in all\n"
                f"  {name}: {one} (shape, type, stack, discrete)\n  {names[0]}: {other}"
            )


def dataset_spec(names: Sequence[str], datasets: Sequence[Recorded], steps: int, cycles: int, envs: int) -> StreamSpec:
    one = datasets[0]
    discrete, count = one.discrete, max(each.actions for each in datasets)
    seen = jax.ShapeDtypeStruct(one.observation.shape[1:], one.observation.dtype)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    action = jax.ShapeDtypeStruct((), jnp.int32) if discrete else jax.ShapeDtypeStruct((count,), jnp.float32)
    return StreamSpec(
        observation=Logged(seen, *(action, number, number), seen),  # type: ignore[arg-type]
        actions=count,
        tasks=tuple(names),
        visits=tuple(VisitPlan(i, steps) for i in range(len(names))) * cycles,
        envs=envs,
        episodic=False,
        discrete=discrete,
        stack=one.stack,
        reward_name="agreement" if discrete else "negative_squared_error",
        reward_range=(0, 1) if discrete else (-math.inf, 0),
    )


class Places(NamedTuple):
    """Where the dataset of each task was recorded, one row for each task."""

    keys: np.ndarray  # uint32[tasks, words]: data keys
    visits: np.ndarray  # int32[tasks]
    tasks: np.ndarray  # int32[tasks]


LENGTHS = ("tasks", "steps_per_task", "steps_per_visit", "frames_per_visit", "cycles", "envs")


ENVIRONMENT: Mapping[str, tuple[Callable[[Any], bool], str]] = {  # what each key of the metadata must be
    "stream": (lambda value: isinstance(value, dict), "an object, as in a config"),
    "transforms": (lambda value: isinstance(value, list), "a list, as in a config"),
    "visit": (lambda value: is_whole(value, 2**31), "a whole number"),
    "task": (lambda value: is_whole(value, 2**31), "a whole number"),
    "data_key": (lambda value: is_key(value), "the numbers of a random key"),
}


def is_whole(value: Any, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def is_key(value: Any) -> bool:
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).size
    return isinstance(value, list) and len(value) == words and all(is_whole(each, 2**32) for each in value)


def check_environment(name: str, environment: Mapping[str, Any]) -> None:
    """``ValueError`` that names the key of the metadata that is not as ``plasticity dataset`` writes it."""
    for key, (fits, wanted) in ENVIRONMENT.items():
        if not fits(environment[key]):
            raise ValueError(
                f"{name}: metadata: environment.{key} must be {wanted}, got {shown(environment[key])}; "
                "leave out `evaluation`"
            )


def same_problem(environment: Mapping[str, Any]) -> Any:
    """What of an environment must be the same for all datasets: all but the numbers that say how long it is."""
    stream = {key: value for key, value in environment["stream"].items() if key not in LENGTHS}
    return {"stream": stream, "transforms": environment["transforms"]}


def places_of(names: Sequence[str], datasets: Sequence[Recorded]) -> tuple[Mapping[str, Any], Places]:
    """The stream that the datasets come from, and where in it. ``ValueError`` if that is missing or not one stream."""
    found = [each.environment for each in datasets]
    for name, each in zip(names, found, strict=True):
        if each is None or set(ENVIRONMENT) - set(each):
            raise ValueError(f"{name} does not name the environment that it was recorded in; leave out `evaluation`")
        check_environment(name, each)
        if same_problem(each) != same_problem(found[0] or {}):
            one, other = contrasted(same_problem(each), same_problem(found[0] or {}))
            raise ValueError(
                f"{name} was recorded in another stream than {names[0]}; leave out `evaluation`\n  {one}\n  {other}"
            )
    known = [each for each in found if each is not None]
    longest = max(known, key=lambda each: int(each["task"]))
    return longest, Places(
        np.array([each["data_key"] for each in known], np.uint32),
        np.array([each["visit"] for each in known], np.int32),
        np.array([each["task"] for each in known], np.int32),
    )


def elsewhere(stream: Stream, lanes: int, places: Places, alone: Stream) -> Stream:
    """``stream`` with the problems of the datasets: task ``i`` is what dataset ``i`` was recorded in.

    Each lane is reset with the data key of its dataset, on a replica of that visit of its own, and stepped with its own
    key. ``alone`` is ``stream`` for one lane; emulators have one replica for all lanes, as they cannot be mapped.
    """

    def at(visit: Visit, task: Array, key: Key) -> tuple[Key, Visit]:
        own = jax.random.bits(key, (), jnp.uint32) >> 8
        replica = jnp.asarray(visit.eval_replica, jnp.int32) * 2 + 1 + 2 * own.astype(jnp.int32)
        data = jax.random.wrap_key_data(jnp.asarray(places.keys)[task])
        return data, Visit(jnp.asarray(places.visits)[task], jnp.asarray(places.tasks)[task], replica, FINISHED)

    def one(key: Key, task: Array, visit: Visit, block: Array) -> Any:
        data, there = at(visit, task, key)
        return jax.tree.map(lambda x: x[0], alone.reset(data[None], there, block))

    def reset(keys: Key, visit: Visit, block: Array) -> tuple[Any, TimeStep]:
        tasks = tasks_of(visit, lanes)
        if not stream.emulated:
            made: tuple[Any, TimeStep] = jax.vmap(lambda key, task: one(key, task, visit, block))(keys, tasks)
            return made
        _, there = at(visit, tasks[0], keys[0])
        data = jax.vmap(lambda key, task: at(visit, task, key)[0])(keys, tasks)
        return stream.reset(data, there._replace(task=jnp.asarray(places.tasks)[tasks]), block)

    return stream._replace(reset=reset)


def evaluation_of(
    names: Sequence[str], datasets: Sequence[Recorded], spec: StreamSpec, envs: int
) -> Callable[[Build], StreamFactory]:
    """Environments for evaluation, ``envs`` of each lane, built from the config that the datasets name."""

    def evaluation(build: Build) -> StreamFactory:
        config, places = places_of(names, datasets)
        source = build({**config, "stream": {**config["stream"], "envs": envs}})
        there = source.spec
        for name, task in zip(names, places.tasks, strict=True):
            if task >= len(there.tasks):
                raise ValueError(
                    f"{name}: metadata: environment.task must be below {len(there.tasks)}, the tasks of the stream "
                    f"that it names, got {task}; leave out `evaluation`"
                )
        shown = there._replace(tasks=spec.tasks, visits=spec.visits, shuffled=False)
        played = spec.observation._replace(observation=there.observation, next_observation=there.observation)
        if (played, there.discrete, there.actions) != (spec.observation, spec.discrete, spec.actions):
            raise ValueError(f"{names[0]}: its observations or actions are not those of the stream that it names")

        def make(lanes: int) -> Stream:
            return elsewhere(source.make(lanes), lanes, places, source.make(1))._replace(spec=shown)

        return StreamFactory(shown, make)

    return evaluation


def of_datasets(
    names: Sequence[str],
    datasets: Sequence[Recorded],
    files: tuple[tuple[str, str], ...],
    steps: int,
    cycles: int,
    envs: int,
    evaluation_envs: int,
) -> StreamFactory:
    """The stream of these datasets, by name; ``files``: path and SHA-256 of each that was read."""
    check_alike(names, datasets)
    check_visits(len(names), cycles)
    spec = dataset_spec(names, datasets, steps, cycles, envs)._replace(data=files)
    task = dataset_task(spec, datasets)
    evaluation = evaluation_of(names, datasets, spec, evaluation_envs)
    return StreamFactory(spec, lambda lanes: vectorise(task, lanes, envs), evaluation=evaluation)


@metadata(
    paper="Gulcehre et al. 2022, An Empirical Study of Implicit Regularization in Deep Offline RL",
    example={"paths": ["catch_random", "catch_skilled"], "steps_per_task": 1_000, "envs": 32},
)
def dataset(
    *,
    paths: Annotated[list[str], Field(min_length=1, max_length=1000)] = ["catch_random", "catch_skilled"],  # noqa: B006
    steps_per_task: Count = 10_000,
    cycles: Cycles = 1,
    envs: Size = 32,
    evaluation_envs: Size = 8,
) -> StreamFactory:
    """Recorded transitions, for offline agents (``offline_dqn``, ``offline_c51``, ``cql``, ``bc``).

    A task is a dataset. At each step the learner sees ``envs`` transitions ``(s, a, r, d, s')``, drawn uniformly with
    replacement from the current dataset: its minibatch. ``d`` is 0 where the episode terminated, else 1. The action
    that it returns for ``s`` changes nothing but the recorded performance: whether it is ``a`` (``agreement``) or, for
    real-valued actions, ``-mean((action - a)^2)``. Evaluations take place in the environment that each dataset names.

    All settings are static. ``paths``: ``.npz`` files, as ``plasticity dataset`` writes them, in the order of their
    visits; ``catch_random`` and ``catch_skilled`` are made here: 4,050 steps of ``catch`` by an agent of which all
    actions, or one in ten, are random and the others move towards the ball. ``steps_per_task``: steps, and therefore
    updates, of each visit. ``cycles``: repetitions of the whole list. ``envs``: transitions per minibatch.
    ``evaluation_envs``: environments that play at the same time in an evaluation.

    The rows are a constant of the compiled programs. ``ValueError`` for a file that is missing or has other contents,
    for datasets whose observations or actions differ, and for two files of one name. Evaluation is refused if a file
    names no environment, or if two name different streams. Gulcehre et al. study offline agents on such data; their
    datasets are not part of this package.
    """
    read = [dataset_of(path) for path in paths]
    files = tuple(file for _, each in read for file in each)
    made = [each for each, _ in read]
    return of_datasets(names_of(paths), made, files, steps_per_task, cycles, envs, evaluation_envs)
