"""Three of gymnasium's classic control problems in JAX."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from plasticity.config.fields import Count, Natural, Size, Tasks, metadata
from plasticity.core.types import Array, Key, Task
from plasticity.envs.base import StreamFactory
from plasticity.envs.changes import changed, limited, small_spec, stream, task_names
from plasticity.envs.episodes import warn_if_short
from plasticity.envs.physics import Change, Factor, Physics, factors, physics_params, runge_kutta

CART, POLE, FORCE, TICK = 1.0, 0.1, 10.0, 0.02  # kg, kg, N, s
TRACK, TILT = 2.4, 12 * 2 * math.pi / 360  # beyond these an episode ends


def cartpole_step(state: Array, force: Array, physics: Physics) -> Array:
    """``(x, x', theta, theta')`` one Euler step later; the pole has half-length 0.5 times the factor."""
    _, speed, angle, turn = state
    length = 0.5 * physics.length
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    push = (force + POLE * length * turn**2 * sine) / (CART + POLE)
    falling = 9.8 * physics.gravity * sine - cosine * push
    turning = falling / (length * (4 / 3 - POLE * cosine**2 / (CART + POLE)))
    moving = push - POLE * length * turning * cosine / (CART + POLE)
    return state + TICK * jnp.stack([speed, moving, turn, turning])


@metadata(
    paper="Barto, Sutton, Anderson 1983, Neuronlike Adaptive Elements That Can Solve Difficult Learning Control "
    "Problems",
    example={"change": "physics", "gravity": [1.0, 2.0], "length": [1.0, 0.5], "tasks": 4, "steps_per_task": 5000},
)
def cartpole(
    *,
    change: Change = "observation",
    gravity: Factor = 1.0,
    length: Factor = 1.0,
    episode_steps: Natural = 500,
    tasks: Tasks = 10,
    steps_per_task: Count = 50_000,
    envs: Size = 1,
) -> StreamFactory:
    """A pole on a cart that is pushed left or right (actions 0, 1); reward 1 at every step, including the last.

    Barto, Sutton, Anderson 1983, "Neuronlike Adaptive Elements That Can Solve Difficult Learning Control Problems", as
    gymnasium's CartPole-v1. Observations are float32[4] (position, velocity, angle, angular velocity). The discount is
    0 if the cart is beyond 2.4 or the pole beyond 12 degrees, and 1 if an episode is truncated after ``episode_steps``
    (0: never).

    All settings are static. ``change``: ``observation``, a new permutation of the four numbers at each visit;
    ``action``, a new permutation of the actions (with two actions, a swap at every switch); ``physics``, cycles through
    the values of ``gravity`` and ``length``; ``none``, every visit is to the same task. Visit 0 is never permuted.
    ``gravity``, ``length`` (of the pole): factors on the standard values, one each or, with ``physics``, several.
    ``tasks``: number of visits, each of ``steps_per_task`` steps.

    ``ValueError`` for factors that are not positive, differ in number, or are several without ``physics``; a warning if
    a visit is shorter than an episode may last.
    """
    values, count = factors(change, gravity=gravity, length=length)
    warn_if_short("steps_per_task", steps_per_task, episode_steps)
    names = task_names("cartpole", change, tasks, count)
    spec = small_spec((4,), 2, names, tasks, steps_per_task, envs, 0, 1)

    def reset(key: Key, physics: Physics) -> tuple[Array, Array]:
        state = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return state, state

    def step(key: Key, state: Array, action: Array, physics: Physics) -> tuple[Array, Array, Array, Array, Array]:
        state = cartpole_step(state, FORCE * (2 * action - 1), physics)
        fallen = (jnp.abs(state[0]) > TRACK) | (jnp.abs(state[2]) > TILT)
        return state, state, jnp.ones(()), jnp.where(fallen, 0.0, 1.0), fallen

    task = Task(spec, physics_params(values, count), reset, step)
    return changed(stream(limited(task, episode_steps), envs), change)


def wrapped(angle: Array) -> Array:
    """The same angle in ``[-pi, pi)``."""
    return jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi


def acrobot_slope(state: Array, torque: Array, physics: Physics) -> Array:
    """Time derivative of ``(angle 1, angle 2, speed 1, speed 2)``.

    Two links of mass 1, length 1 times the factor, centre of mass in the middle, moment of inertia 1.
    """
    one, two, speed, bend = state
    length, pull = physics.length, 9.8 * physics.gravity
    half = 0.5 * length
    cosine, sine = jnp.cos(two), jnp.sin(two)
    d1 = half**2 + length**2 + half**2 + 2 * length * half * cosine + 2
    d2 = half**2 + length * half * cosine + 1
    lower = half * pull * jnp.sin(one + two)
    upper = -length * half * sine * bend * (bend + 2 * speed) + (half + length) * pull * jnp.sin(one) + lower
    bending = torque + d2 / d1 * upper - length * half * speed**2 * sine - lower
    bending = bending / (half**2 + 1 - d2**2 / d1)
    return jnp.stack([speed, bend, -(d2 * bending + upper) / d1, bending])


def acrobot_step(state: Array, torque: Array, physics: Physics) -> Array:
    """The state 0.2 s later, by one fourth-order Runge-Kutta step."""

    def slope(state: Array) -> Array:
        return acrobot_slope(state, torque, physics)

    state = runge_kutta(slope, state, 0.2)
    fastest = jnp.array([4 * jnp.pi, 9 * jnp.pi])
    return jnp.concatenate([wrapped(state[:2]), jnp.clip(state[2:], -fastest, fastest)])


def acrobot_seen(state: Array) -> Array:
    one, two, speed, bend = state
    return jnp.stack([jnp.cos(one), jnp.sin(one), jnp.cos(two), jnp.sin(two), speed, bend])


@metadata(
    paper="Sutton 1996, Generalization in Reinforcement Learning: Successful Examples Using Sparse Coarse Coding",
    example={"change": "physics", "gravity": [1.0, 1.5], "tasks": 4, "steps_per_task": 5000},
)
def acrobot(
    *,
    change: Change = "observation",
    gravity: Factor = 1.0,
    length: Factor = 1.0,
    episode_steps: Natural = 500,
    tasks: Tasks = 10,
    steps_per_task: Count = 50_000,
    envs: Size = 1,
) -> StreamFactory:
    """Two hanging links; the goal is to swing the free end above a line by a torque of -1, 0 or 1 (actions 0, 1, 2).

    The torque acts between the links. Sutton 1996, "Generalization in Reinforcement Learning: Successful Examples Using
    Sparse Coarse Coding", as gymnasium's Acrobot-v1. Observations are float32[6] (cosine and sine of both angles, both
    angular velocities). The reward is -1 at each step except the last, which has reward and discount 0. The discount is
    1 if an episode is truncated after ``episode_steps`` (0: never).

    All settings are static and as in :func:`cartpole`. ``length``: of both links.

    ``ValueError`` for factors that are not positive, differ in number, or are several without ``physics``; a warning if
    a visit is shorter than an episode may last.
    """
    values, count = factors(change, gravity=gravity, length=length)
    warn_if_short("steps_per_task", steps_per_task, episode_steps)
    names = task_names("acrobot", change, tasks, count)
    spec = small_spec((6,), 3, names, tasks, steps_per_task, envs, -1, 0)

    def reset(key: Key, physics: Physics) -> tuple[Array, Array]:
        state = jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)
        return state, acrobot_seen(state)

    def step(key: Key, state: Array, action: Array, physics: Physics) -> tuple[Array, Array, Array, Array, Array]:
        state = acrobot_step(state, jnp.float32(action - 1), physics)
        up = -jnp.cos(state[0]) - jnp.cos(state[0] + state[1]) > 1
        running = jnp.where(up, 0.0, 1.0)
        return state, acrobot_seen(state), -running, running, up

    task = Task(spec, physics_params(values, count), reset, step)
    return changed(stream(limited(task, episode_steps), envs), change)


def pendulum_seen(state: Array) -> Array:
    return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])


def pendulum_step(state: Array, torque: Array, physics: Physics) -> tuple[Array, Array]:
    """``(angle, speed)`` 0.05 s later, and the reward; the torque must be within its bounds."""
    angle, speed = state
    cost = wrapped(angle) ** 2 + 0.1 * speed**2 + 0.001 * torque**2
    turning_force = physics.gain * torque - physics.damping * speed
    turning = 15 * physics.gravity / physics.length * jnp.sin(angle) + 3 / physics.length**2 * turning_force
    speed = jnp.clip(speed + 0.05 * turning, -8, 8)
    return jnp.stack([angle + 0.05 * speed, speed]), -cost


@metadata(
    paper="Brockman et al. 2016, OpenAI Gym",
    example={"change": "action", "tasks": 4, "steps_per_task": 5000},
)
def pendulum(
    *,
    change: Change = "observation",
    gravity: Factor = 1.0,
    length: Factor = 1.0,
    gain: Factor = 1.0,
    damping: Factor = 0.0,
    episode_steps: Count = 200,
    tasks: Tasks = 10,
    steps_per_task: Count = 50_000,
    envs: Size = 1,
) -> StreamFactory:
    """A pendulum to swing up and balance with a real-valued torque; the action is clipped to [-2, 2].

    ``reward = -(angle^2 + 0.1 speed^2 + 0.001 torque^2)`` before the step, with the angle measured from upright.
    Brockman et al. 2016, "OpenAI Gym", as gymnasium's Pendulum-v1. Observations are float32[3] (cosine, sine, angular
    velocity). Every episode is truncated after ``episode_steps`` with discount 1.

    All settings are static and as in :func:`cartpole`, except ``change: action``, which reverses the sign of the torque
    at every second visit. ``gain``: factor on the torque, negative if it acts in the other direction; the reward counts
    the torque before it. ``damping``: of the joint, in N m s/rad, a torque against the speed; 0 in gymnasium. Like
    ``gravity`` and ``length``, each has one value or, with ``physics``, several.

    ``ValueError`` for factors out of range (``gain``: other than 0; ``damping``: at least 0; the others positive), that
    differ in number, or are several without ``physics``; a warning if a visit is shorter than an episode may last.
    """
    values, count = factors(change, gravity=gravity, length=length, gain=gain, damping=damping)
    warn_if_short("steps_per_task", steps_per_task, episode_steps)
    names = ("pendulum", "reversed")[:tasks] if change == "action" else task_names("pendulum", change, tasks, count)
    lowest = -(math.pi**2 + 0.1 * 8**2 + 0.001 * 2**2)
    spec = small_spec((3,), 1, names, tasks, steps_per_task, envs, lowest, 0)
    spec = spec._replace(discrete=False, action_bounds=((-2.0,), (2.0,)))

    def reset(key: Key, physics: Physics) -> tuple[Array, Array]:
        high = jnp.array([jnp.pi, 1.0])
        state = jax.random.uniform(key, (2,), minval=-high, maxval=high)
        return state, pendulum_seen(state)

    def step(key: Key, state: Array, action: Array, physics: Physics) -> tuple[Array, Array, Array, Array, Any]:
        torque = jnp.clip(action[0], -2, 2)
        state, reward = pendulum_step(state, torque, physics)
        return state, pendulum_seen(state), reward, jnp.ones(()), jnp.zeros((), bool)

    task = Task(spec, physics_params(values, count, change == "action"), reset, step)
    return changed(stream(limited(task, episode_steps), envs), change)
