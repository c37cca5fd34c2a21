"""Swing-up of a pole on a cart, with a real-valued force."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Size, Tasks, metadata
from plasticity.core.types import Array, Key, Task
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import changed, limited, small_spec, stream, task_names
from plasticity.envs.episodes import warn_if_short
from plasticity.envs.physics import Change, Factor, Physics, factors, physics_params, runge_kutta

CART, POLE, HALF, PULL, FORCE = 1.0, 0.1, 0.5, 9.81, 10.0  # kg, kg, m, m/s^2, N
CART_DAMPING, HINGE_DAMPING = 0.1, 0.002  # N s/m, N m s/rad
TRACK, FASTEST = 1.8, 40.0  # m, rad/s
TICK, SUBSTEPS = 0.04, 2  # s
SPREAD = 0.01  # standard deviation of the first state


def swing_up_slope(state: Array, force: Array, physics: Physics) -> Array:
    """Time derivative of ``(x, theta, x', theta')``, with ``theta`` measured from upright."""
    _, angle, speed, turn = state
    mass, half = POLE * physics.mass, HALF * physics.length
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    coupling, inertia = mass * half * cosine, 4 / 3 * mass * half**2
    push = force + mass * half * turn**2 * sine - CART_DAMPING * physics.damping * speed
    fall = mass * half * PULL * physics.gravity * sine - HINGE_DAMPING * physics.damping * turn
    total = CART + mass
    scale = total * inertia - coupling**2
    return jnp.stack(
        [speed, turn, (inertia * push - coupling * fall) / scale, (total * fall - coupling * push) / scale]
    )


def swing_up_step(state: Array, force: Array, physics: Physics) -> Array:
    """The state 0.04 s later. A cart that reaches an end of the track stops there."""
    for _ in range(SUBSTEPS):
        state = runge_kutta(lambda now: swing_up_slope(now, force, physics), state, TICK / SUBSTEPS)
        place, angle, speed, turn = state
        speed = jnp.where(jnp.abs(place) > TRACK, 0.0, speed)
        state = jnp.stack([jnp.clip(place, -TRACK, TRACK), angle, speed, jnp.clip(turn, -FASTEST, FASTEST)])
    return state


def near_zero(value: Array, margin: float) -> Array:
    """1 at 0, 0.1 at ``margin``: a Gaussian."""
    return 0.1 ** ((value / margin) ** 2)


def swing_up_reward(state: Array, action: Array) -> Array:
    place, angle, _, turn = state
    upright, central = (1 + jnp.cos(angle)) / 2, (1 + near_zero(place, 2)) / 2
    return upright * central * (1 + near_zero(turn, 5)) / 2 * (1 - action**2 / 5)


def swing_up_seen(state: Array) -> Array:
    place, angle, speed, turn = state
    return jnp.stack([place, jnp.cos(angle), jnp.sin(angle), speed, turn])


@metadata(
    paper="Tassa et al. 2018, DeepMind Control Suite",
    example={"change": "physics", "gain": [1.0, -1.0], "tasks": 4, "steps_per_task": 5000},
)
def cartpole_swingup(
    *,
    change: Change = "physics",
    gravity: Factor = 1.0,
    mass: Factor = 1.0,
    length: Factor = 1.0,
    damping: Factor = 1.0,
    gain: Factor = (1.0, -1.0),
    episode_steps: Count = 250,
    tasks: Tasks = 10,
    steps_per_task: Count = 50_000,
    envs: Size = 1,
) -> StreamFactory:
    """A pole hanging from a cart, to swing up and balance by a force on the cart; the action is clipped to [-1, 1].

    ``(M + m) x'' + m l (theta'' cos theta - theta'^2 sin theta) = F - b x'``, ``4/3 m l^2 theta'' + m l x'' cos theta -
    m g l sin theta = -c theta'``: a uniform pole of half-length l, ``theta`` measured from upright. The reward is in
    [0, 1]: ``(1 + cos theta)/2 (1 + 0.1^(x/2)^2)/2 (1 + 0.1^(theta'/5)^2)/2 (1 - action^2/5)``, after the step.

    Reward, masses, the pole, the track of +-1.8 m and the force of at most 10 N are those of ``cartpole-swingup`` of
    Tassa et al. 2018, "DeepMind Control Suite", from where an episode starts within 0.01 (standard deviations) of
    hanging at rest in the middle. Ours: M = 1 kg, m = 0.1 kg, l = 0.5 m, friction b = 0.1 N s/m and c = 0.002 N m
    s/rad, an action held for 0.04 s (two Runge-Kutta steps), ends of the track that stop the cart, and a bound of 40
    rad/s. Observations are float32[5] (position, cosine, sine, both velocities). Every episode is truncated after
    ``episode_steps`` with discount 1.

    All settings are static. ``change``: ``physics``, cycles through the values of the factors; ``observation``, a new
    permutation of the five numbers at each visit; ``action``, reverses the force at every second visit; ``none``, every
    visit is to the same task. Factors on the standard values, one each or, with ``physics``, several: ``gravity``;
    ``mass``, of the pole; ``length``, of the pole; ``damping``, of cart and joint, at least 0; ``gain``, of the force,
    negative if it acts in the other direction. ``tasks``: number of visits, each of ``steps_per_task`` steps.

    ``ValueError`` for factors out of range, that differ in number, or are several without ``physics``; a warning if a
    visit is shorter than an episode.
    """
    rows, count = factors(change, gravity=gravity, mass=mass, length=length, damping=damping, gain=gain)
    warn_if_short("steps_per_task", steps_per_task, episode_steps)
    names = ("swingup", "reversed")[:tasks] if change == "action" else task_names("swingup", change, tasks, count)
    spec = small_spec((5,), 1, names, tasks, steps_per_task, envs, 0, 1)
    spec = spec._replace(discrete=False, action_bounds=((-1.0,), (1.0,)))

    def reset(key: Key, physics: Physics) -> tuple[Array, Array]:
        state = SPREAD * jax.random.normal(key, (4,)) + jnp.array([0, math.pi, 0, 0])
        return state, swing_up_seen(state)

    def step(key: Key, state: Array, action: Array, physics: Physics) -> tuple[Array, Array, Array, Array, Any]:
        push = jnp.clip(action[0], -1, 1)
        state = swing_up_step(state, FORCE * physics.gain * push, physics)
        return state, swing_up_seen(state), swing_up_reward(state, push), jnp.ones(()), jnp.zeros((), bool)

    task = Task(spec, physics_params(rows, count, change == "action"), reset, step)
    return changed(stream(limited(task, episode_steps), envs), change)
