"""A two-link arm that reaches for a target."""

import math
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key, Task, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import changed, limited, small_spec, stream, task_names
from plasticity.envs.episodes import warn_if_short
from plasticity.envs.physics import ALLOWED, Factor, Physics, factors, physics_params, runge_kutta

LINK, MASS, PULL = 0.5, 1.0, 9.81  # of each link: m, kg; m/s^2
TORQUES = (4.0, 2.0)  # of shoulder and elbow, N m
DAMPING, FASTEST = 0.5, 100.0  # N m s/rad, rad/s
TICK, SUBSTEPS = 0.05, 5  # s
NEAR, CLOSE = 0.25, 0.2  # m: where the reward is a half; the nearest random target, as a fraction of the reach
GOALS = 12  # tag for keys derived from the parameters' key

Goals = Annotated[tuple[tuple[float, float], ...], Field(min_length=1, max_length=1000)]
ReacherChange = Literal["none", "goal", "observation", "action", "physics"]


class Reach(NamedTuple):
    """A visit's problem."""

    physics: Physics
    target: Array  # float32[2]; unused if every episode has its own


def reacher_slope(state: Array, torques: Array, physics: Physics) -> Array:
    """Time derivative of ``(q1, q2, q1', q2')``, ``q1`` from the x axis and ``q2`` from the first link."""
    one, two, turn, bend = state
    mass, length = MASS * physics.mass, LINK * physics.length
    pull, damping = PULL * physics.gravity, DAMPING * physics.damping
    elbow = mass * length**2 / 2 * jnp.cos(two)
    far = mass * length**2 / 3 + elbow  # M12
    lower = mass * length**2 / 3  # M22
    whole = 5 / 3 * mass * length**2 + 2 * elbow  # M11
    twist = mass * length**2 / 2 * jnp.sin(two)
    bent = mass * pull * length / 2 * jnp.cos(one + two)
    first = torques[0] - damping * turn + twist * bend * (2 * turn + bend)
    first = first - 3 / 2 * mass * pull * length * jnp.cos(one) - bent
    second = torques[1] - damping * bend - twist * turn**2 - bent
    scale = whole * lower - far**2
    return jnp.stack([turn, bend, (lower * first - far * second) / scale, (whole * second - far * first) / scale])


def reacher_step(state: Array, torques: Array, physics: Physics) -> Array:
    """The state 0.05 s later."""

    def substep(_: Array, state: Array) -> Array:
        state = runge_kutta(lambda now: reacher_slope(now, torques, physics), state, TICK / SUBSTEPS)
        return jnp.concatenate([state[:2], jnp.clip(state[2:], -FASTEST, FASTEST)])

    return jax.lax.fori_loop(0, SUBSTEPS, substep, state)


def tip(state: Array, physics: Physics) -> Array:
    """Position of the end of the second link, in m."""
    one, both = state[0], state[0] + state[1]
    return LINK * physics.length * jnp.stack([jnp.cos(one) + jnp.cos(both), jnp.sin(one) + jnp.sin(both)])


def reacher_reward(state: Array, target: Array, physics: Physics) -> Array:
    return 1 / (1 + jnp.sum((tip(state, physics) - target) ** 2) / NEAR**2)


def reacher_seen(state: Array, target: Array, physics: Physics, show: bool) -> Array:
    one, two, turn, bend = state
    joints = jnp.stack([jnp.cos(one), jnp.sin(one), jnp.cos(two), jnp.sin(two), turn, bend])
    return jnp.concatenate([joints, target, target - tip(state, physics)]) if show else joints


def random_target(key: Key, physics: Physics) -> Array:
    """Uniform in the ring that the arm can reach, except close to the shoulder."""
    far, angle = jax.random.uniform(key, (2,), minval=jnp.array([CLOSE**2, -math.pi]), maxval=jnp.array([1, math.pi]))
    return 2 * LINK * physics.length * jnp.sqrt(far) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def check_goals(change: str, goals: Goals | None, length: Factor) -> None:
    if goals is None:
        return
    if change != "goal":
        raise ValueError(f"goals: {len(goals)} goals are not allowed with change: {change}; must be change: goal")
    reach = 2 * LINK * float(np.min(length))
    for place in goals:
        if not math.hypot(*place) <= reach:
            raise ValueError(f"goals: {list(place)} is not allowed; must be within the arm's reach of {reach:g} m")


def names_of(change: str, tasks: int, count: int, goals: Goals | None) -> tuple[str, ...]:
    if change == "goal":
        return tuple(f"goal_{i}" for i in range(min(tasks, len(goals)) if goals else tasks))
    return ("reacher", "reversed")[:tasks] if change == "action" else task_names("reacher", change, tasks, count)


@metadata(
    paper="Tassa et al. 2018, DeepMind Control Suite",
    example={"change": "goal", "goals": [[0.7, 0.0], [-0.7, 0.0], [0.0, 0.7]], "tasks": 6, "steps_per_task": 5000},
    only_with={"goals": {"change": ("goal",)}},
)
def reacher(
    *,
    change: ReacherChange = "goal",
    goals: Goals | None = None,
    show_target: bool = False,
    gravity: Factor = 0.0,
    mass: Factor = 1.0,
    length: Factor = 1.0,
    damping: Factor = 1.0,
    gain: Factor = 1.0,
    episode_steps: Count = 100,
    tasks: Tasks = 10,
    steps_per_task: Count = 50_000,
    envs: Size = 1,
) -> StreamFactory:
    """An arm of two links that moves its tip to a target by torques at both joints; actions are clipped to [-1, 1].

    ``M(q) q'' + C(q, q') q' + G(q) = torque - b q'``, for two uniform links of mass m and length l, with ``M11 = m l^2
    (5/3 + cos q2)``, ``M12 = m l^2 (1/3 + cos(q2)/2)``, ``M22 = m l^2/3``, ``C q' = m l^2/2 sin q2 (-q2' (2 q1' + q2'),
    q1'^2)`` and ``G = m g l (3/2 cos q1 + cos(q1 + q2)/2, cos(q1 + q2)/2)``. The reward is ``1/(1 + (d/0.25)^2)``, in
    (0, 1], with the distance d (m) of the tip from the target after the step.

    The task of the ``reacher`` of Tassa et al. 2018, "DeepMind Control Suite"; arm and reward are ours: l = 0.5 m, m =
    1 kg, torques of at most 4 N m (shoulder) and 2 N m (elbow), b = 0.5 N m s/rad, an action held for 0.05 s (five
    Runge-Kutta steps), a bound of 100 rad/s. An episode starts at rest with random angles and is truncated after
    ``episode_steps`` with discount 1. Observations are float32[6] (cosines and sines of both angles, both velocities),
    or with ``show_target`` float32[10] (also the target, and the target relative to the tip).

    All settings are static. ``change``: ``goal``, each task has one target: those in ``goals`` (x and y in m, from the
    shoulder; the reach is 1 m times ``length``) in turn, or without them a new one at every visit, drawn for each lane;
    ``physics``, cycles through the values of the factors; ``observation``, a new permutation of the observation at each
    visit; ``action``, reverses both torques at every second visit; ``none``, every visit is to the same task. Except
    with ``goal``, every episode has its own target, uniform in the ring from 0.2 to 1 of the reach: then show it.
    ``show_target`` false hides from the agent which task it is in. Factors, one each or, with ``physics``, several:
    ``gravity``, of 9.81 m/s^2 along -y, 0 for an arm in a horizontal plane; ``mass``, ``length``, of both links;
    ``damping``, at least 0; ``gain``, of both torques, negative if they act in the other direction. ``tasks``: number
    of visits, each of ``steps_per_task`` steps.

    ``ValueError`` for factors out of range, that differ in number, or are several without ``physics``, goals out of
    reach or without ``change: goal``; a warning if a visit is shorter than an episode.
    """
    allowed = {**ALLOWED, "gravity": ALLOWED["damping"]}
    rows, count = factors(change, allowed, gravity=gravity, mass=mass, length=length, damping=damping, gain=gain)
    check_goals(change, goals, length)
    warn_if_short("steps_per_task", steps_per_task, episode_steps)
    names = names_of(change, tasks, count, goals)
    spec = small_spec((10 if show_target else 6,), 2, names, tasks, steps_per_task, envs, 0, 1)
    spec = spec._replace(discrete=False, action_bounds=((-1.0, -1.0), (1.0, 1.0)))
    physics_of = physics_params(rows, count, change == "action")

    def params(key: Key, visit: Visit) -> Reach:
        physics = physics_of(key, visit)
        if change != "goal":
            return Reach(physics, jnp.zeros(2))
        if goals is not None:
            return Reach(physics, jnp.asarray(goals, jnp.float32)[visit.task % len(goals)])
        place = jax.random.fold_in(jax.random.fold_in(key, GOALS), visit.task)
        return Reach(physics, random_target(place, physics))

    def reset(key: Key, given: Reach) -> tuple[tuple[Array, Array], Array]:
        joints, place = jax.random.split(key)
        angles = jax.random.uniform(joints, (2,), minval=-math.pi, maxval=math.pi)
        target = given.target if change == "goal" else random_target(place, given.physics)
        state = jnp.concatenate([angles, jnp.zeros(2)])
        return (state, target), reacher_seen(state, target, given.physics, show_target)

    def step(key: Key, state: tuple[Array, Array], action: Array, given: Reach) -> tuple[Any, ...]:
        joints, target = state
        torques = jnp.asarray(TORQUES) * given.physics.gain * jnp.clip(action, -1, 1)
        joints = reacher_step(joints, torques, given.physics)
        seen = reacher_seen(joints, target, given.physics, show_target)
        reward = reacher_reward(joints, target, given.physics)
        return (joints, target), seen, reward, jnp.ones(()), jnp.zeros((), bool)

    return changed(stream(limited(Task(spec, params, reset, step), episode_steps), envs), change)
