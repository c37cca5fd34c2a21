"""Environments from gymnax, in JAX."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Cycles, Natural, Size, metadata
from plasticity.core.errors import listed, shown, suggestion
from plasticity.core.types import Array, Key, State
from plasticity.envs.base import StreamFactory
from plasticity.envs.gym import asked
from plasticity.envs.spaces import Made, space_of, unknown_name, variants
from plasticity.envs.worlds import Params, Variant, World, library, making, number, see_as, worlds_stream

Ids = Annotated[list[str], Field(min_length=1, max_length=1000)]
Variations = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)]


class Library(NamedTuple):
    """A library whose environments have gymnax's functions."""

    package: str
    make: Callable[..., Any]  # id, keywords of the constructor -> environment
    keywords: Callable[[Any], Iterable[str]]  # environment -> keywords of the constructor
    limit: str  # the parameter that is the longest episode
    ends: Callable[[Any, State, Any, Array], tuple[Array, Array]]
    # environment, state, its parameters, the library's end of an episode -> terminated, truncated


def settings_of(params: Any) -> dict[str, Any]:
    """The parameters that are arrays in the library's programs."""
    return {f.name: getattr(params, f.name) for f in fields(params) if f.metadata.get("pytree_node", True)}


def action_space(space: Any) -> Any:
    """The library's space of actions as gymnasium's."""
    from gymnasium import spaces

    if hasattr(space, "n"):
        return spaces.Discrete(int(space.n))
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high))
    return spaces.Box(low, high, space.shape, np.float32)


def world_of(name: str, env: Any, source: Library) -> World:
    """An environment with gymnax's functions. ``step_env`` is used, since its ``step`` may reset."""
    default, raw = env.default_params, jax.random.key_data(jax.random.key(0))
    seen = jax.eval_shape(lambda key: env.reset_env(key, default)[0], raw)
    shape, see = see_as(seen, int(getattr(env.observation_space(default), "n", 0)))
    space = space_of(name, shape.shape, shape.dtype, action_space(env.action_space(default)), None)

    def reset(key: Key, params: Params) -> tuple[State, Any]:
        observation, state = env.reset_env(key, replace(default, **params))
        return state, observation

    def step(key: Key, state: State, action: Array, params: Params) -> tuple[State, Any, Array, Array, Array]:
        given = replace(default, **params)
        observation, state, reward, over, _ = env.step_env(key, state, action, given)
        return state, observation, reward, *source.ends(env, state, given, over)

    return World(space, reset, step, see)


def variants_of(tasks: Sequence[Made], source: Library) -> list[Variant]:
    """The tasks: parameters of an environment are traced, keywords of its constructor make another program."""

    @cache
    def standard(id: str) -> tuple[dict[str, Any], list[str]]:
        with making(id, source.package):
            env = source.make(id)
            return settings_of(env.default_params), sorted(source.keywords(env))

    def variant(task: Made) -> Variant:
        traced, static = standard(task.id)
        for key in task.options:
            if key not in traced and key not in static:
                names = sorted([*traced, *static])
                raise ValueError(f"{task.name}: {shown(key)} is not a keyword of {task.id}; known: "
                                 f"{listed(names)}{suggestion(key, names)}")  # fmt: skip
        given = {key: value for key, value in task.options.items() if key not in traced}
        others = [other.options for other in tasks if other.id == task.id]
        params = {
            key: number(task.name, key, task.options.get(key, default), default)
            for key, default in traced.items()
            if any(key in options for options in others)
        }
        limit = int(params.get(source.limit, traced[source.limit]))
        if limit < 1:
            raise ValueError(f"{task.name}: {source.limit}: {limit} is not allowed; must be an integer of at least 1")

        def make() -> World:
            return world_of(task.name, source.make(task.id, **given), source)

        return Variant(task.name, task.id, (task.id, repr(given)), make, params, limit)

    return [variant(task) for task in tasks]


def known(package: str, key: str, ids: Iterable[str], names: Iterable[str]) -> None:
    """Raise ``ValueError`` for an unknown id, suggesting the nearest known one."""
    for id in ids:
        if id not in names:
            raise ValueError(f"{key}: {unknown_name(f'{package} environment', id, names)}")


def by_gymnax(env: Any, state: State, params: Any, over: Array) -> tuple[Array, Array]:
    return over, env.is_truncated(state, params)


@metadata(
    paper="Lange 2022, gymnax: A JAX-based Reinforcement Learning Environment Library",
    example={"id": "CartPole-v1", "variations": [{"gravity": 9.8}, {"gravity": 20.0}], "steps_per_visit": 1000},
)
def gymnax(
    *,
    id: str | None = None,
    ids: Ids | None = None,
    variations: Variations = [{}],  # noqa: B006 (read only)
    steps_per_visit: Count = 100_000,
    cycles: Cycles = 1,
    envs: Size = 1,
    pad: bool = False,
    idle: Natural = 0,
) -> StreamFactory:
    """gymnax environments in sequence, the whole list ``cycles`` times; reward = the environment's.

    Lange 2022, "gymnax: A JAX-based Reinforcement Learning Environment Library": classic control, bsuite, MinAtar and
    others, without emulators on the host. The tasks are every variation of every id. The discount is 0 where the
    environment terminates and 1 where its time limit truncates an episode; the library's automatic reset is not used.

    All settings are static. ``id`` or ``ids``: as in ``gymnax.make``. ``variations``: for each id, values of the
    environment's parameters (``gravity``, ``max_steps_in_episode``, ...), between which a switch happens inside one
    environment, and keywords of its constructor (``rows`` of ``Catch-bsuite``), each of which adds an environment to
    the program. Parameters that the library derives from others, such as ``total_mass`` of ``CartPole-v1``, have to be
    given too. ``steps_per_visit``: env steps of each env. ``pad``: tasks may differ in the size of observations (zeros
    at the end of each axis) and in actions (surplus numbers are ignored; a surplus action is played as action number
    ``idle``).

    Observations keep their shape; uint8 and bool stay, other types become float32, a single category becomes one-hot.
    Real-valued actions are clipped to the space. With several envs every step also computes a reset, and with several
    lanes in one vmap all environments of the program.

    Needs the extra ``gymnax``. ``ValueError`` without it, for an unknown id or keyword (suggests the nearest), a value
    of another type, and tasks that differ without ``pad``; a warning for visits shorter than an episode may last.
    """
    registration = library("gymnax.registration")
    source = Library(
        "gymnax",
        lambda id, **keywords: registration.make(id, **keywords)[0],
        lambda env: inspect.signature(type(env)).parameters,
        "max_steps_in_episode",
        by_gymnax,
    )
    chosen = asked(id, ids)
    known("gymnax", "id" if id is not None else "ids", chosen, registration.registered_envs)
    tasks = variants_of(variants(chosen, variations), source)
    return worlds_stream("gymnax", tasks, steps=steps_per_visit, cycles=cycles, envs=envs, pad=pad, idle=idle)
