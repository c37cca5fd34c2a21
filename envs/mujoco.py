"""Gymnasium's MuJoCo environments with changing physics, on the host."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.counters import check_visits
from plasticity.config.fields import Count, Cycles, Natural, Size, metadata
from plasticity.core.errors import check, shown
from plasticity.core.types import Array, Key, Visit
from plasticity.envs.base import PARAMS, StreamFactory, tasks_of
from plasticity.envs.brax import brax, unlogged
from plasticity.envs.gym import asked, examined, make_env, registered, vector_env
from plasticity.envs.gymnax import Ids, Variations
from plasticity.envs.host import SeedsOf, emulator_seeds
from plasticity.envs.spaces import Made, Space, VectorPool, joined, sequence, variants
from plasticity.envs.worlds import library

Drawn = Mapping[str, Sequence[float]]  # name of a factor -> the lowest and the highest

DRAW, FINE = 13, 2**24  # tag for keys derived from the parameters' key; numbers that a lane's draw has


def scale_gravity(model: Any, factor: float) -> None:
    model.opt.gravity[:] *= factor


def scale_friction(model: Any, factor: float) -> None:
    model.geom_friction[:] *= factor
    model.pair_friction[:] *= factor


def scale_mass(model: Any, factor: float) -> None:
    mujoco = library("mujoco")
    model.body_mass[:] *= factor
    model.body_inertia[:] *= factor
    mujoco.mj_setConst(model, mujoco.MjData(model))  # what MuJoCo derives from them


def scale_damping(model: Any, factor: float) -> None:
    model.dof_damping[:] *= factor


def scale_gain(model: Any, factor: float) -> None:
    """Multiply the actuators' forces, ``gain * control + bias``."""
    kinds = np.concatenate([model.actuator_gaintype, model.actuator_biastype])
    if not np.isin(kinds, (0, 1)).all():  # neither constant nor affine: a muscle or a user's function
        raise ValueError("gain is not allowed; some actuators are neither motors nor position or velocity servos")
    model.actuator_gainprm[:, :3] *= factor
    model.actuator_biasprm[:, :3] *= factor


SCALES: Mapping[str, Callable[[Any, float], None]] = {
    "gravity": scale_gravity, "friction": scale_friction, "mass": scale_mass, "damping": scale_damping,
    "gain": scale_gain,
}  # fmt: skip
# Factor -> whether a value is allowed, and in words.
ALLOWED: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "gain": (lambda x: x != 0, "a factor other than 0"),
    "mass": (lambda x: x > 0, "a factor greater than 0"),
}
AT_LEAST_0: tuple[Callable[[float], bool], str] = (lambda x: x >= 0, "a factor of at least 0")


def change_physics(model: Any, factors: Mapping[str, float]) -> None:
    """Multiply the model's constants; a factor of 1 changes nothing."""
    for name, factor in factors.items():
        if factor != 1:
            SCALES[name](model, factor)


def factors_of(task: Made) -> dict[str, float]:
    """The task's factors; ``ValueError`` for one that is not allowed."""
    found = {key: value for key, value in task.options.items() if key in SCALES}
    for key, value in found.items():
        fine, words = ALLOWED.get(key, AT_LEAST_0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value) or not fine(value):
            raise ValueError(f"{task.name}: {key}: {shown(value)} is not allowed; must be {words}")
    return {key: float(value) for key, value in found.items()}


def check_drawn(drawn: Drawn) -> None:
    for key, bounds in drawn.items():
        check("drawn", key, tuple(SCALES))
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < np.inf:
            raise ValueError(f"drawn: {key}: {shown(bounds)} is not allowed; must be two factors greater than 0, the "
                             "lowest and the highest")  # fmt: skip


def make_body(id: str, options: dict[str, Any], flatten: bool, factors: dict[str, float]) -> Any:
    """Make one environment with other physics; also called in worker processes."""
    with unlogged():
        env = make_env(id, options, flatten)
    change_physics(env.unwrapped.model, factors)
    return env


def examined_body(key: str, task: Made, factors: Mapping[str, float], flatten: bool) -> Space:
    """The environment's space; ``ValueError`` if it cannot be made, is not MuJoCo's, or cannot have these physics."""
    with unlogged():
        space = examined(task, flatten, ())
        env = make_env(task.id, dict(task.options), flatten)
    try:
        model = getattr(env.unwrapped, "model", None)
        if not isinstance(model, library("mujoco").MjModel):
            raise ValueError(f"{key}: {task.id} is not allowed; must be an environment of MuJoCo")
        try:
            change_physics(model, factors)
        except ValueError as error:
            raise ValueError(f"{task.name}: {error}") from error
    finally:
        env.close()
    return space


def with_draws(drawn: Drawn) -> SeedsOf:
    """Each env's seed, then for each drawn factor a number that depends on the lane and the task only."""
    if not drawn:
        return emulator_seeds

    def numbers(key: Key, task: Array) -> Array:
        place = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, PARAMS), DRAW), task)
        return jax.random.randint(place, (len(drawn),), 0, FINE)

    def seeds(keys: Key, visit: Visit, envs: int) -> Array:
        own = jax.vmap(numbers)(keys, tasks_of(visit, len(keys)))
        each = jnp.broadcast_to(own[:, None], (len(keys), envs, len(drawn)))
        return jnp.concatenate([emulator_seeds(keys, visit, envs)[..., None], each], 2)

    return seeds


def drawn_factors(drawn: Drawn, numbers: np.ndarray, factors: Mapping[str, float]) -> dict[str, float]:
    """The task's factors times those drawn log-uniformly; no ``numbers``: the task's."""
    new = dict(factors)
    for number, (name, (low, high)) in zip(numbers, sorted(drawn.items()), strict=False):
        new[name] = new.get(name, 1.0) * float(low * (high / low) ** (int(number) / FINE))
    return new


@metadata(
    paper="Todorov, Erez, Tassa 2012, MuJoCo: A Physics Engine for Model-Based Control",
    example={"id": "Hopper-v5", "variations": [{}, {"friction": 0.2}, {"gain": 0.5}], "steps_per_visit": 2000},
)
def mujoco(
    *,
    id: str | None = None,
    ids: Ids | None = None,
    variations: Variations = [{}],  # noqa: B006 (read only)
    drawn: dict[str, list[float]] = {},  # noqa: B006 (read only)
    episode_steps: Natural = 0,
    steps_per_visit: Count = 1_000_000,
    cycles: Cycles = 1,
    envs: Size = 1,
    workers: bool = False,
    flatten: bool = False,
    pad: bool = False,
) -> StreamFactory:
    """Gymnasium's MuJoCo environments with physics that changes between tasks; reward = the environment's.

    Todorov, Erez, Tassa 2012, "MuJoCo: A Physics Engine for Model-Based Control". The tasks are every variation of
    every id. The discount is 0 at ``terminated``, 1 at ``truncated``.

    All settings are static. ``id`` or ``ids``: as in gymnasium, ``Ant-v5``, ``module:Name-v0``; any whose
    ``unwrapped.model`` is MuJoCo's. ``variations``: factors on the model's constants, and keywords for
    ``gymnasium.make``. The factors, applied when an environment is made, are ``gravity``; ``friction``, of all
    surfaces (of two that touch, the larger coefficient counts, so a slippery floor alone would change little);
    ``mass``, of all bodies, with their moments of inertia and what MuJoCo derives from them; ``damping``, of all
    joints; ``gain``, of all actuators' forces before their limits, negative if they act in the other direction. A
    factor of 1 leaves the environment as it is. ``drawn``: name of a factor -> lowest and highest; then every visit is
    a task of its own, for which each lane draws its factors log-uniformly. ``episode_steps``: time limit; 0 for the
    environment's own. ``steps_per_visit``: env steps of each env. ``workers``, ``flatten`` and ``pad`` as in the stream
    ``gym``.

    Observations become float32; actions are clipped to the space. A resumed visit is replayed, see
    :func:`plasticity.envs.host.host`.

    Needs the extra ``mujoco``. ``ValueError`` without it, for an unknown id (suggests the nearest), one that is not
    MuJoCo's, keywords that the environment refuses, a factor out of range, ``gain`` with muscles, and tasks that differ
    without ``pad``; a warning for visits shorter than an episode may last.
    """
    library("mujoco")
    key = "id" if id is not None else "ids"
    limit = {"max_episode_steps": episode_steps} if episode_steps else {}
    tasks = [task._replace(options=limit | dict(task.options)) for task in variants(asked(id, ids), variations)]
    check_drawn(drawn)
    for task in tasks:
        registered(key, task.id)
    factors = [factors_of(task) for task in tasks]
    plain = [task._replace(options={k: v for k, v in task.options.items() if k not in SCALES}) for task in tasks]
    known = {task.name: examined_body(key, task, own, flatten) for task, own in zip(plain, factors, strict=True)}
    whole = joined(known, pad)
    check_visits(len(tasks), cycles)
    order = [task.name for task in tasks]
    first = [order.index(name) for name in dict.fromkeys(order)]  # task number -> its place in the list
    spaces, repeats = known, cycles
    if drawn:
        first = list(range(len(tasks))) * cycles
        spaces = {f"{tasks[place].name}_{i}": known[tasks[place].name] for i, place in enumerate(first)}
        order, repeats = list(spaces), 1

    def make_pool(task: int, seeds: np.ndarray) -> VectorPool:
        made, (own, *numbers) = plain[first[task]], seeds.reshape(len(seeds), -1).T
        each = [drawn_factors(drawn, row, factors[first[task]]) for row in np.reshape(numbers, (-1, len(own))).T]
        makers = [partial(make_body, made.id, dict(made.options), flatten, physics) for physics in each]
        space, body = known[made.name], vector_env(makers, workers)
        return VectorPool(body, space, whole, 0, space.action.dtype, lambda: body.reset(seed=own.tolist())[0])

    return sequence(
        spaces, make_pool, order, steps=steps_per_visit, cycles=repeats, envs=envs, pad=pad, idle=0,
        seeds=with_draws(drawn), alike=len({task.id for task in tasks}) == 1,
    )  # fmt: skip


@metadata(
    paper="Dohare et al. 2024, Loss of plasticity in deep continual learning",
    example={"visits": 3, "steps_per_visit": 2000},
)
def slippery_ant(
    *,
    friction: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.02, 2.0],  # noqa: B006 (read only)
    frictions: Annotated[list[float], Field(min_length=1, max_length=1000)] | None = None,
    backend: Literal["mujoco", "brax"] = "mujoco",
    episode_steps: Count = 1000,
    steps_per_visit: Count = 2_000_000,
    visits: Annotated[int, Field(ge=1, le=1000)] = 10,
    envs: Size = 1,
    workers: bool = False,
) -> StreamFactory:
    """An ant on a floor whose friction changes: every 2 million of 20 million steps.

    Dohare et al. 2024, "Loss of plasticity in deep continual learning". All settings are static. ``friction``: lowest
    and highest coefficient; each lane draws one for each visit, log-uniformly. ``frictions``: instead, these in turn,
    for all lanes. ``backend``: gymnasium's ``Ant-v5`` on the host, or Brax's ``ant`` in the compiled program, with
    other dynamics and rewards. ``visits``: number of visits. ``workers``: every env in its own process
    (``mujoco``).

    As in the paper's code, the coefficient is that of all surfaces: their standard is 1, so that factor and coefficient
    are the same. Its file of frictions has values from 0.02 to 2. Differences: ``Ant-v3`` there; each seed of that file
    has its own frictions, which are not ours; a change there waits for the end of an episode.

    Needs the extra of the backend. ``ValueError`` without it, and for frictions that are not positive; a warning for
    visits shorter than an episode may last.
    """
    settings: dict[str, Any] = {"episode_steps": episode_steps, "steps_per_visit": steps_per_visit, "envs": envs}
    if frictions is None:
        settings |= {"drawn": {"friction": friction}, "cycles": visits}
    else:
        settings["variations"] = [{"friction": frictions[i % len(frictions)]} for i in range(visits)]
    if backend == "brax":
        return brax(id="ant", **settings)
    return mujoco(id="Ant-v5", **settings, workers=workers)
