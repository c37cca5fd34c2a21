"""Environments of other JAX libraries as pure tasks: one program for all tasks of a sequence."""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config.plugins import error_text
from plasticity.core.errors import shown
from plasticity.core.types import Array, Key, State, StreamSpec, Task, Visit, VisitPlan
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import limited, stream
from plasticity.envs.spaces import Space, sequence_spec

Params = dict[str, Any]  # what differs between the tasks of one environment; traced
Seen = Callable[[Any], Array]  # a library's observation -> one array


class World(NamedTuple):
    """An environment of a library, for one env. ``key`` is a raw key (uint32[2]), so that states can be saved."""

    space: Space
    reset: Callable[[Key, Params], tuple[State, Any]]  # -> state, observation
    step: Callable[[Key, State, Array, Params], tuple[State, Any, Array, Array, Array]]
    # -> state, observation, reward, terminated, truncated; it never resets
    see: Seen


class Variant(NamedTuple):
    """A task: an environment with values of its parameters. Variants with the same ``world`` share a program."""

    name: str
    id: str
    world: Hashable
    make: Callable[[], World]  # called once for each world
    params: Params
    limit: int = 0  # env steps of the longest episode; 0 if unknown


class Problem(NamedTuple):
    """The parameters of a visit's problem."""

    world: Array  # int32: which environment
    params: tuple[Params, ...]  # of every environment; only those of `world` are used


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Libraries print and warn when they are imported or make an environment."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """Libraries use names that others have deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def library(module: str, install: str = "") -> Any:
    """Import a module of an optional package; ``ValueError`` with the pip command if that fails."""
    package = module.partition(".")[0]
    command = install or f'pip install "plasticity-lab[{package}]"'
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"the package {package} is not installed: {command}")
    try:
        with quiet():
            return importlib.import_module(module)
    except (Exception, SystemExit) as error:  # importing may run any code
        raise ValueError(f"the package {package} cannot be imported ({error_text(error)}): {command}") from error


@contextlib.contextmanager
def making(name: str, package: str) -> Iterator[None]:
    """Convert an error of the library into a one-line ``ValueError`` that names the task."""
    try:
        with quiet():
            yield
    except (Exception, SystemExit) as error:  # constructors may raise anything
        if isinstance(error, ValueError) and str(error).startswith(f"{name}: "):
            raise
        raise ValueError(f"{name}: {package} cannot make it: {error_text(error)}") from error


def see_as(observation: Any, categories: int = 0, dtype: Any = None) -> tuple[jax.ShapeDtypeStruct, Seen]:
    """How the library's observation, a tree of shapes, becomes one array, and the array's shape and type.

    An array keeps its shape. Images and flags (uint8, bool) also keep their type and all other numbers become float32,
    unless ``dtype`` is given. A number out of ``categories`` becomes one-hot. Several arrays become one float32 vector,
    in the order of JAX's trees.
    """

    def vector(seen: Any) -> Array:
        return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(seen)])

    leaves = jax.tree.leaves(observation)
    if len(leaves) != 1 or not leaves[0].shape:
        if categories:
            return jax.ShapeDtypeStruct((categories,), jnp.float32), lambda seen: jax.nn.one_hot(seen, categories)
        size = sum(int(np.prod(leaf.shape)) for leaf in leaves)
        return jax.ShapeDtypeStruct((size,), jnp.float32), vector
    kept = leaves[0].dtype in (jnp.uint8, jnp.bool_)
    kind = dtype or (leaves[0].dtype if kept else jnp.float32)
    return jax.ShapeDtypeStruct(leaves[0].shape, kind), lambda seen: jax.tree.leaves(seen)[0].astype(kind)


def typed(state: State, start: Any) -> State:
    """The state with the types of ``start``, the shapes of the state after a reset, as a compiled loop requires."""
    return jax.tree.map(lambda leaf, first: jnp.asarray(leaf).astype(first.dtype), state, start)


def typed_step(world: World, start: Any, key: Key, state: State, action: Array, params: Params) -> tuple[Any, ...]:
    """:attr:`World.step` with one array as its observation, scalars, and the types of ``start``."""
    new, seen, reward, *ends = world.step(key, state, action, params)
    terminated, truncated = (jnp.asarray(flag).astype(bool).reshape(()) for flag in ends)
    return typed(new, start), world.see(seen), jnp.asarray(reward, jnp.float32).reshape(()), terminated, truncated


def taken(action: Array, own: Space, idle: int) -> Array:
    """The action in the form that the environment accepts, as :func:`plasticity.envs.spaces.played`."""
    if own.discrete:
        return jnp.where(action < own.actions, action, idle)
    numbers = jnp.nan_to_num(action[: own.actions]).reshape(own.action.shape)
    return jnp.clip(numbers, own.action.low, own.action.high)


def padded(seen: Array, whole: jax.ShapeDtypeStruct) -> Array:
    missing = [(0, n - have) for n, have in zip(whole.shape, seen.shape, strict=True)]
    return jnp.pad(seen, missing).astype(whole.dtype)


def stacked(variants: Sequence[Variant], places: Sequence[int], worlds: int) -> Callable[[Array], Problem]:
    """Task -> its problem. ``places``: the index of each variant's world."""
    rows = np.zeros((worlds, len(variants)), np.int32)  # where a task's parameters are in the stack of each world
    stacks: list[Params] = []
    for world in range(worlds):
        own = [i for i, place in enumerate(places) if place == world]
        rows[world, own] = np.arange(len(own))
        stacks.append(jax.tree.map(lambda *leaves: np.stack(leaves), *(variants[i].params for i in own)))

    def problem(task: Array) -> Problem:
        at = [jnp.asarray(row)[task] for row in rows]
        params = tuple(
            jax.tree.map(lambda leaf, row=row: jnp.asarray(leaf)[row], stack)
            for stack, row in zip(stacks, at, strict=True)
        )
        return Problem(jnp.asarray(places, jnp.int32)[task], params)

    return problem


def pure_task(
    spec: StreamSpec,
    worlds: Sequence[World],
    problem: Callable[[Key, Array], Problem],
    idle: int,
) -> Task:
    """A task that plays one of the worlds; a world that is not played keeps a state of zeros."""
    raw = jax.ShapeDtypeStruct(jax.random.key_data(jax.random.key(0)).shape, jnp.uint32)
    example = jax.eval_shape(problem, jax.random.key(0), jax.ShapeDtypeStruct((), jnp.int32))
    with unwarned():
        starts = [
            jax.eval_shape(world.reset, raw, params)[0] for world, params in zip(worlds, example.params, strict=True)
        ]

    def choose(index: Array, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
        return branches[0](*operands) if len(branches) == 1 else jax.lax.switch(index, branches, *operands)

    def replaced(states: tuple[State, ...], index: int, state: State) -> tuple[State, ...]:
        return (*states[:index], state, *states[index + 1 :])

    def reset_in(i: int, key: Key, params: tuple[Params, ...]) -> tuple[tuple[State, ...], Array]:
        with unwarned():
            state, seen = worlds[i].reset(key, params[i])
        blank = tuple(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), start) for start in starts)
        return replaced(blank, i, typed(state, starts[i])), padded(worlds[i].see(seen), spec.observation)

    def step_in(
        i: int, key: Key, states: tuple[State, ...], action: Array, params: tuple[Params, ...]
    ) -> tuple[Any, ...]:
        act = taken(action, worlds[i].space, idle)
        with unwarned():
            state, seen, *outcome = typed_step(worlds[i], starts[i], key, states[i], act, params[i])
        return replaced(states, i, state), padded(seen, spec.observation), *outcome

    def params(key: Key, visit: Visit) -> Problem:
        return problem(key, visit.task)

    def reset(key: Key, given: Problem) -> tuple[State, Any]:
        branches = [partial(reset_in, i) for i in range(len(worlds))]
        return choose(given.world, branches, jax.random.key_data(key), given.params)

    def step(key: Key, state: State, action: Array, given: Problem) -> tuple[State, Any, Array, Array, Array]:
        branches = [partial(step_in, i) for i in range(len(worlds))]
        state, seen, reward, terminated, truncated = choose(
            given.world, branches, jax.random.key_data(key), state, action, given.params
        )
        return state, seen, reward, jnp.where(terminated, 0.0, 1.0), terminated | truncated

    return Task(spec, params, reset, step)


def traced(package: str, variant: Variant, world: World) -> None:
    """Raise a one-line ``ValueError`` if the environment cannot be compiled with these parameters."""
    with making(variant.name, package):
        raw = jax.random.key_data(jax.random.key(0))
        state, _ = jax.eval_shape(world.reset, raw, variant.params)
        space = world.space
        action = jax.ShapeDtypeStruct(
            () if space.discrete else space.action.shape, jnp.int32 if space.discrete else jnp.float32
        )
        jax.eval_shape(partial(typed_step, world, state), raw, state, action, variant.params)


def worlds_stream(
    package: str, variants: Sequence[Variant],
    *, steps: int, cycles: int, envs: int, pad: bool, idle: int,
    episode_steps: int = 0, drawn: Callable[[Key, Array, Params], Params] | None = None,
    data: tuple[tuple[str, str], ...] = (),
) -> StreamFactory:  # fmt: skip
    """A stream of the variants in sequence, the whole list ``cycles`` times, each visit of ``steps`` steps.

    With ``drawn`` every visit is its own task, and ``drawn(key, task, params)`` gives its parameters.
    """
    keys = list(dict.fromkeys(variant.world for variant in variants))
    known = {variant.name: variant for variant in variants}  # a repeated name is the same task
    worlds: dict[Hashable, World] = {}
    for variant in known.values():
        if variant.world not in worlds:
            with making(variant.name, package):
                worlds[variant.world] = variant.make()
            traced(package, variant, worlds[variant.world])
    spaces = {name: worlds[variant.world].space._replace(limit=variant.limit) for name, variant in known.items()}
    spec = sequence_spec(spaces, [v.name for v in variants], steps=steps, cycles=cycles, envs=envs, pad=pad, idle=idle)
    spec = spec._replace(alike=len({variant.id for variant in variants}) == 1, data=data)
    problem = stacked(list(known.values()), [keys.index(variant.world) for variant in known.values()], len(keys))
    if drawn is None:
        task = pure_task(spec, list(worlds.values()), lambda key, task: problem(task), idle)
        return stream(limited(task, episode_steps), envs)
    played = np.asarray([plan.task for plan in spec.visits], np.int32)
    spec = spec._replace(
        tasks=tuple(f"{spec.tasks[plan.task]}_{i}" for i, plan in enumerate(spec.visits)),
        visits=tuple(VisitPlan(i, steps) for i in range(len(spec.visits))),
    )

    def draw(key: Key, task: Array) -> Problem:
        base = problem(jnp.asarray(played)[task])
        return base._replace(params=tuple(drawn(key, task, params) for params in base.params))

    return stream(limited(pure_task(spec, list(worlds.values()), draw, idle), episode_steps), envs)


def number(name: str, key: str, value: Any, default: Any) -> np.ndarray:
    """The value of a traced parameter with the type and shape of its default; ``ValueError`` if it does not fit."""
    standard = np.asarray(default)
    if standard.dtype.kind not in "biuf":
        raise ValueError(f"{name}: {key} cannot differ between tasks; it is not a number")
    kind = jnp.asarray(default).dtype
    try:
        given = np.asarray(value)
    except ValueError:  # a ragged list
        given = np.asarray(str(value))
    fits = given.dtype.kind in {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[standard.dtype.kind]
    if fits:  # neither infinite nor beyond the integers of this type
        fits = bool(np.isfinite(given.astype(kind)).all() if kind.kind == "f" else (given.astype(kind) == given).all())
    if not fits or given.shape != standard.shape:
        what = {"b": "true or false", "f": "a number"}.get(standard.dtype.kind, "an integer")
        wanted = what if standard.shape == () else f"a list of shape {standard.shape}, as {standard.tolist()}"
        raise ValueError(f"{name}: {key}: {shown(value)} is not allowed; must be {wanted}")
    return given.astype(kind)
