"""Brax, bodies with changing physics in JAX."""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config.fields import Count, Cycles, Natural, Size, metadata
from plasticity.core.errors import check, shown
from plasticity.core.types import Array, Key, State
from plasticity.envs.base import StreamFactory
from plasticity.envs.gym import asked
from plasticity.envs.gymnax import Ids, Variations, known
from plasticity.envs.spaces import Made, space_of, variants
from plasticity.envs.worlds import Params, Variant, World, library, making, see_as, worlds_stream

Backend = Literal["generalized", "spring", "positional", "mjx"]
Drawn = Mapping[str, Sequence[float]]  # name of a factor -> the lowest and the highest

FACTORS = ("gravity", "friction", "mass")
PHYSICS = (*FACTORS, "disabled")  # keys of a variation that are not keywords of the environment
DRAW = 12  # tag for keys derived from the parameters' key


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Without MuJoCo's warnings about the library's own models, which go to a file in the current folder."""
    mujoco = library("mujoco", 'pip install "plasticity-lab[brax]"')
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def shifted(system: Any, params: Params) -> Any:
    """The system with other physics: factors on gravity, friction and masses, and factors on the motors' forces."""
    new: dict[str, Any] = {}
    if "gravity" in params:
        new |= {key: value * params["gravity"] for key, value in
                (("gravity", system.gravity), ("opt.gravity", system.opt.gravity))}  # fmt: skip
    if "friction" in params:
        new["geom_friction"] = system.geom_friction * params["friction"]
    if "mass" in params:
        inertia = system.link.inertia
        new |= {key: value * params["mass"] for key, value in (
            ("link.inertia.mass", inertia.mass), ("link.inertia.i", inertia.i), ("body_mass", system.body_mass),
            ("body_inertia", system.body_inertia), ("body_subtreemass", system.body_subtreemass),
        )}  # fmt: skip
    if "motors" in params:
        new["actuator.gear"] = system.actuator.gear * params["motors"]
        new["actuator_gear"] = system.actuator_gear * params["motors"][:, None]
    return system.tree_replace(new) if new else system


def world_of(name: str, env: Any) -> World:
    """The environment itself, without the library's wrappers, which reset and truncate."""
    from gymnasium import spaces

    raw = jax.random.key_data(jax.random.key(0))
    shape, see = see_as(jax.eval_shape(lambda key: env.reset(key).obs, raw))
    own = space_of(name, shape.shape, shape.dtype, spaces.Box(-1, 1, (env.action_size,), np.float32), None)

    def played(params: Params) -> Any:
        other = copy.copy(env)
        other.sys = shifted(env.sys, params)
        return other

    def reset(key: Key, params: Params) -> tuple[State, Any]:
        state = played(params).reset(key)
        return state, state.obs

    def step(key: Key, state: State, action: Array, params: Params) -> tuple[State, Any, Array, Array, Array]:
        del key  # a step is deterministic
        state = played(params).step(state, action)
        return state, state.obs, state.reward, state.done > 0, jnp.zeros((), bool)

    return World(own, reset, step, see)


def factor(name: str, key: str, value: Any) -> np.ndarray:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise ValueError(f"{name}: {key}: {shown(value)} is not allowed; must be a factor greater than 0")
    return np.asarray(value, np.float32)


def check_drawn(drawn: Drawn) -> None:
    for key, bounds in drawn.items():
        check("drawn", key, FACTORS)
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < np.inf:
            raise ValueError(f"drawn: {key}: {shown(bounds)} is not allowed; must be two factors greater than 0, the "
                             "lowest and the highest")  # fmt: skip


def check_masses(tasks: Sequence[Made], drawn: Drawn, backend: Backend) -> None:
    if backend in ("spring", "positional") and ("mass" in drawn or any("mass" in task.options for task in tasks)):
        raise ValueError(f"backend: {backend} is not allowed with mass; must be generalized or mjx, since this one "
                         "replaces the masses of some bodies")  # fmt: skip


def motors(name: str, disabled: Any, count: int) -> np.ndarray:
    """float32[count]: 0 for a disabled motor, 1 for the others."""
    numbers = disabled if isinstance(disabled, list) else [disabled]
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < count for n in numbers):
        raise ValueError(f"{name}: disabled: {shown(disabled)} is not allowed; must be a list of numbers of motors, "
                         f"from 0 to {count - 1}")  # fmt: skip
    return np.where(np.isin(np.arange(count), numbers), 0, 1).astype(np.float32)


def opened(tasks: list[Made], backend: str) -> dict[str, tuple[str, Any]]:
    """Task -> the keywords of its environment, and the environment, which is made once for the same keywords."""
    package = library("brax.envs")
    made: dict[str, Any] = {}
    found = {}
    for task in tasks:
        keywords = {key: value for key, value in task.options.items() if key not in PHYSICS}
        world = f"{task.id} {keywords!r}"
        if world not in made:
            with making(task.name, "brax"), unlogged():
                made[world] = package.get_environment(task.id, backend=backend, **keywords)
        found[task.name] = world, made[world]
    return found


def params_of(tasks: list[Made], task: Made, env: Any, drawn: Drawn) -> Params:
    """The physics that differs between the tasks of one environment, for one of the tasks."""
    given = [other.options for other in tasks if other.id == task.id]
    params: Params = {
        key: factor(task.name, key, task.options.get(key, 1))
        for key in FACTORS
        if key in drawn or any(key in options for options in given)
    }
    if any("disabled" in options for options in given):
        params["motors"] = motors(task.name, task.options.get("disabled", []), env.action_size)
    return params


def draw(drawn: Drawn, key: Key, task: Array, params: Params) -> Params:
    """Multiply factors by others, drawn log-uniformly for a lane and a task."""
    new = dict(params)
    for i, (name, (low, high)) in enumerate(sorted(drawn.items())):
        place = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, DRAW), i), task)
        new[name] = params[name] * jnp.exp(jax.random.uniform(place, minval=np.log(low), maxval=np.log(high)))
    return new


@metadata(
    paper="Freeman et al. 2021, Brax - A Differentiable Physics Engine for Large Scale Rigid Body Simulation",
    example={"id": "ant", "variations": [{}, {"friction": 0.1}, {"disabled": [0, 1]}], "steps_per_visit": 1000},
)
def brax(
    *,
    id: str | None = None,
    ids: Ids | None = None,
    variations: Variations = [{}],  # noqa: B006 (read only)
    drawn: dict[str, list[float]] = {},  # noqa: B006 (read only)
    backend: Backend = "generalized",
    episode_steps: Natural = 1000,
    steps_per_visit: Count = 1_000_000,
    cycles: Cycles = 1,
    envs: Size = 1,
    pad: bool = False,
) -> StreamFactory:
    """Brax bodies with physics that changes between tasks: gravity, friction, masses, motors without force.

    Freeman et al. 2021, "Brax - A Differentiable Physics Engine for Large Scale Rigid Body Simulation". The tasks are
    every variation of every id. The discount is 0 where the body falls, if its environment ends there, and 1 where an
    episode is truncated after ``episode_steps`` (0: never). The library's automatic reset is not used.

    All settings are static. ``id`` or ``ids``: ``ant``, ``halfcheetah``, ``walker2d``, ... ``variations``: ``gravity``,
    ``friction`` (of all surfaces) and ``mass`` (with the moments of inertia), factors on the standard values;
    ``disabled``, the numbers of motors without force, which cripples a leg (of ``ant``: ``[0, 1]`` is a leg with hip
    and ankle, ``[2, 3]`` the next one). A switch between them happens inside one environment. Other keys are keywords
    of the environment (``ctrl_cost_weight``, ...), and each of their values adds an environment to the program.
    ``drawn``: gravity, friction or mass -> lowest and highest factor; then every visit is a task of its own, for which
    each lane draws its factors log-uniformly. ``{kind: slippery_ant, backend: brax}`` is such a stream. ``backend``:
    how the library simulates; ``spring`` is the fastest, but ``spring`` and ``positional`` do not take ``mass``, since
    they give some bodies masses of their own. ``steps_per_visit``: env steps of each env. ``pad``: tasks may differ in
    the size of observations and actions (zeros at the end; surplus numbers are ignored).

    Observations are a float32 vector; actions are clipped to [-1, 1]. A leg is not taken away, since that would change
    the observation's size. The constants that MuJoCo derives from the masses beforehand, of the softness of contacts
    and limits, stay as they are. Brax's bodies are no longer actively maintained; ``swimmer`` fails with JAX 0.10. With
    several envs every step also computes a reset, and with several lanes in one vmap all environments of the program.

    Needs the extra ``brax``. ``ValueError`` without it, for an unknown id (suggests the nearest), a keyword that the
    environment refuses, a factor that is not greater than 0, an unknown motor, ``mass`` with another backend, and
    bodies that differ without ``pad``; a warning for visits shorter than an episode may last.
    """
    chosen = asked(id, ids)
    bodies = set(library("brax.envs")._envs) - {"fast"}  # which has no body; the library has no public list
    known("brax", "id" if id is not None else "ids", chosen, bodies)
    check_drawn(drawn)
    tasks = variants(chosen, variations)
    check_masses(tasks, drawn, backend)
    made = opened(tasks, backend)

    def variant(task: Made) -> Variant:
        world, env = made[task.name]
        return Variant(task.name, task.id, world, lambda: world_of(task.name, env),
                       params_of(tasks, task, env, drawn), episode_steps)  # fmt: skip

    return worlds_stream(
        "brax", [variant(task) for task in tasks], steps=steps_per_visit, cycles=cycles, envs=envs, pad=pad, idle=0,
        episode_steps=episode_steps, drawn=(lambda *args: draw(drawn, *args)) if drawn else None,
    )  # fmt: skip
