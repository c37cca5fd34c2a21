"""Swing-up and reacher against independent equations of motion, energy, and rewards by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import lane_keys, play, player, random_actions, visit_of

from plasticity.core.types import LAST
from plasticity.envs.physics import Physics
from plasticity.envs.reacher import reacher, reacher_reward, reacher_seen, reacher_step, tip
from plasticity.envs.swing_up import cartpole_swingup, swing_up_reward, swing_up_step


def physics_of(**given: float) -> Physics:
    one = {"gravity": 1.0, "length": 1.0, "gain": 1.0, "mass": 1.0, "damping": 1.0} | given
    return Physics(**{name: jnp.float32(value) for name, value in one.items()})


# The equations of motion from the Lagrangian alone: L is a function of positions and velocities, and its derivatives
# are taken numerically, in float64. Nothing of the closed forms under test is used.


def accelerations(lagrangian: Any, place: np.ndarray, speed: np.ndarray, forces: np.ndarray) -> np.ndarray:
    """Solve ``d/dt dL/dv - dL/dx = forces`` for two coordinates."""
    step = 1e-4

    def at(x: np.ndarray, v: np.ndarray) -> float:
        return lagrangian(x, v)

    def moved(i: int) -> np.ndarray:
        return step * np.eye(2)[i]

    def by_speed(x: np.ndarray, v: np.ndarray, i: int) -> float:
        return (at(x, v + moved(i)) - at(x, v - moved(i))) / (2 * step)

    mass = np.array(
        [[(by_speed(place, speed + moved(j), i) - by_speed(place, speed - moved(j), i)) / (2 * step) for j in (0, 1)]
         for i in (0, 1)]
    )  # fmt: skip
    mixed = np.array(
        [[(by_speed(place + moved(j), speed, i) - by_speed(place - moved(j), speed, i)) / (2 * step) for j in (0, 1)]
         for i in (0, 1)]
    )  # fmt: skip
    by_place = np.array([(at(place + moved(i), speed) - at(place - moved(i), speed)) / (2 * step) for i in (0, 1)])
    return np.linalg.solve(mass, forces + by_place - mixed @ speed)


def integrated(lagrangian: Any, forces_of: Any, state: np.ndarray, time: float, steps: int = 40) -> np.ndarray:
    """The midpoint rule with small steps."""

    def slope(now: np.ndarray) -> np.ndarray:
        return np.concatenate([now[2:], accelerations(lagrangian, now[:2], now[2:], forces_of(now[2:]))])

    for _ in range(steps):
        state = state + time / steps * slope(state + time / (2 * steps) * slope(state))
    return state


def rods(lengths: Any, masses: Any, joints: Any, gravity: float, cart: float = 0.0) -> Any:
    """Kinetic minus potential energy of uniform rods, each cut into 400 points."""
    along = (np.arange(400) + 0.5) / 400

    def lagrangian(x: np.ndarray, v: np.ndarray) -> float:
        total = cart / 2 * v[0] ** 2
        for place, height, mass in zip(*joints(x, v, along, lengths), masses, strict=True):
            total += np.mean(mass / 2 * (place**2).sum(0) - mass * gravity * height)
        return float(total)

    return lagrangian


def pole(x: np.ndarray, v: np.ndarray, along: np.ndarray, lengths: Any) -> Any:
    """Velocities and heights of the points of a pole on a cart."""
    far = along * lengths[0]
    velocity = np.stack([v[0] + far * np.cos(x[1]) * v[1], -far * np.sin(x[1]) * v[1]])
    return [velocity], [far * np.cos(x[1])]


def arm(x: np.ndarray, v: np.ndarray, along: np.ndarray, lengths: Any) -> Any:
    """Velocities and heights of the points of two links; the second angle is relative to the first link."""
    whole, turn = x[0] + x[1], v[0] + v[1]
    elbow = lengths[0] * v[0] * np.array([[-np.sin(x[0])], [np.cos(x[0])]])
    one = along * lengths[0] * v[0] * np.array([[-np.sin(x[0])], [np.cos(x[0])]])
    two = elbow + along * lengths[1] * turn * np.array([[-np.sin(whole)], [np.cos(whole)]])
    heights = along * lengths[0] * np.sin(x[0]), lengths[0] * np.sin(x[0]) + along * lengths[1] * np.sin(whole)
    return [one, two], heights


@pytest.mark.parametrize("factors", [{}, {"gravity": 1.7, "mass": 3.0, "length": 0.6, "damping": 20.0}])
def test_the_cart_moves_as_its_lagrangian_says(factors: dict[str, float]) -> None:
    f = {"gravity": 1.0, "mass": 1.0, "length": 1.0, "damping": 1.0} | factors
    free = rods([f["length"]], [0.1 * f["mass"]], pole, 9.81 * f["gravity"], cart=1.0)
    draw = np.random.default_rng(0)
    rubbing = f["damping"] * np.array([0.1, 0.002])
    for _ in range(4):
        state, force = draw.uniform(-1, 1, 4) * [1.0, np.pi, 2.0, 4.0], draw.uniform(-10, 10)
        expected = integrated(free, lambda v, force=force: np.array([force, 0]) - rubbing * v, state, 0.04)
        told = swing_up_step(jnp.asarray(state, jnp.float32), jnp.float32(force), physics_of(**factors))
        np.testing.assert_allclose(told, expected, atol=3e-4)


@pytest.mark.parametrize("factors", [{"gravity": 0.0}, {"gravity": 1.5, "mass": 2.0, "length": 0.7, "damping": 3.0}])
def test_the_arm_moves_as_its_lagrangian_says(factors: dict[str, float]) -> None:
    f = {"gravity": 1.0, "mass": 1.0, "length": 1.0, "damping": 1.0} | factors
    free = rods([0.5 * f["length"]] * 2, [f["mass"]] * 2, arm, 9.81 * f["gravity"])
    draw = np.random.default_rng(1)
    for _ in range(4):
        state, torques = draw.uniform(-1, 1, 4) * [np.pi, np.pi, 4.0, 4.0], draw.uniform(-1, 1, 2) * [4, 2]
        expected = integrated(free, lambda v, t=torques: t - 0.5 * f["damping"] * v, state, 0.05)
        told = reacher_step(jnp.asarray(state, jnp.float32), jnp.asarray(torques, jnp.float32), physics_of(**factors))
        np.testing.assert_allclose(told, expected, atol=2e-3)


def test_without_friction_and_force_energy_stays() -> None:
    """Kinetic plus potential energy over 200 steps, of both bodies; with friction it falls."""
    still = physics_of(damping=0.0)
    cases = (
        (swing_up_step, jnp.float32(0), rods([1.0], [0.1], pole, -9.81, cart=1.0), [0.0, 2.5, 0.1, 1.0]),
        (reacher_step, jnp.zeros(2), rods([0.5] * 2, [1.0] * 2, arm, -9.81), [0.3, 0.8, 1.0, -2.0]),
    )
    for step, force, energy, start in cases:  # -L with gravity reversed is the energy
        for physics, kept in ((still, True), (still._replace(damping=jnp.float32(10)), False)):
            state, levels = jnp.asarray(start, jnp.float32), []
            move = jax.jit(lambda now, step=step, force=force, physics=physics: step(now, force, physics))
            for _ in range(200):
                levels.append(energy(np.asarray(state[:2], np.float64), np.asarray(state[2:], np.float64)))
                state = move(state)
            assert (np.ptp(levels) < 0.05) == kept, (step, np.ptp(levels))  # J, of about 15
            assert kept or levels[-1] < levels[0] - 0.1


def test_the_cart_stops_at_the_end_of_the_track() -> None:
    state = jnp.array([1.79, 3.0, 3.0, 0.0])
    for _ in range(5):
        state = swing_up_step(state, jnp.float32(10), physics_of())
    assert float(state[0]) == np.float32(1.8)
    back = swing_up_step(state, jnp.float32(-10), physics_of())
    assert float(back[0]) < 1.8
    assert float(back[2]) < 0


def test_rewards_by_hand() -> None:
    assert float(swing_up_reward(jnp.zeros(4), jnp.float32(0))) == 1
    assert float(swing_up_reward(jnp.array([0, np.pi, 0, 0]), jnp.float32(0))) == pytest.approx(0, abs=1e-6)
    # Level, at x = 2 (0.55), at 5 rad/s (0.55), with half the force (0.95).
    there = jnp.array([2.0, np.pi / 2, 7.0, 5.0])
    assert float(swing_up_reward(there, jnp.float32(0.5))) == pytest.approx(0.5 * 0.55 * 0.55 * 0.95, rel=1e-5)
    # The arm points along y, folded by a right angle: the tip is at (-0.5, 0.5).
    joints, physics = jnp.array([np.pi / 2, np.pi / 2, 0, 0]), physics_of()
    np.testing.assert_allclose(tip(joints, physics), [-0.5, 0.5], atol=1e-6)
    assert float(reacher_reward(joints, jnp.array([-0.5, 0.5]), physics)) == pytest.approx(1, abs=1e-6)
    assert float(reacher_reward(joints, jnp.array([-0.5, 0.25]), physics)) == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_allclose(
        reacher_seen(joints, jnp.array([0.1, 0.2]), physics, True), [0, 1, 0, 1, 0, 0, 0.1, 0.2, 0.6, -0.3], atol=1e-6
    )


@pytest.mark.parametrize("make", [cartpole_swingup, reacher])
def test_a_negative_gain_is_the_opposite_action(make: Any) -> None:
    made = player(make(change="physics", gain=(1.0, -1.0), tasks=2, steps_per_task=500).make(1))
    actions = random_actions(made.stream, 20, 1)
    one, other = (play(made, lane_keys(0), visit_of(0, task), sign * actions) for task, sign in ((0, 1), (1, -1)))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    same = play(made, lane_keys(0), visit_of(0, 1), actions)
    assert not np.array_equal(one.observation, same.observation)
    reverse = player(make(change="action", gain=1.0, tasks=2, steps_per_task=500).make(1))
    np.testing.assert_array_equal(play(reverse, lane_keys(0), visit_of(0, 1), actions).observation, same.observation)


@pytest.mark.parametrize("make", [cartpole_swingup, reacher])
def test_actions_are_clipped_to_the_bounds_and_episodes_truncated(make: Any) -> None:
    source = make(change="none", gain=1.0, episode_steps=8)
    made = player(source.make(1))
    actions = 5 * random_actions(made.stream, 20, 1)
    life = play(made, lane_keys(0), visit_of(0), actions)
    low, high = source.spec.action_bounds
    clipped = np.clip(actions, np.float32(low), np.float32(high))
    jax.tree.map(np.testing.assert_array_equal, life, play(made, lane_keys(0), visit_of(0), clipped))
    assert (clipped != actions).any()
    assert np.flatnonzero(life.step_type[:, 0, 0] == LAST).tolist() == [8, 17]
    assert (life.discount == 1).all()


def test_goals_come_again_and_drawn_ones_belong_to_lane_and_task() -> None:
    spec = reacher(goals=((0.5, 0.0), (0.0, -0.5)), tasks=5).spec
    assert spec.tasks == ("goal_0", "goal_1")
    assert [plan.task for plan in spec.visits] == [0, 1, 0, 1, 0]
    given, drawn = reacher(goals=((0.5, 0.0), (0.0, -0.5))).make(2), reacher(tasks=3).make(2)

    def targets(stream: Any, visit: int, task: int) -> np.ndarray:
        return np.asarray(jax.jit(stream.reset)(lane_keys(0, 1), visit_of(visit, task), jnp.int32(0))[0].params.target)

    np.testing.assert_array_equal(targets(given, 3, 1), [[0.0, -0.5]] * 2)
    first = targets(drawn, 0, 0)
    np.testing.assert_array_equal(first, targets(drawn, 5, 0))
    assert not np.isclose(first, targets(drawn, 1, 1)).any()
    assert not np.isclose(first[0], first[1]).any()


def test_targets_are_uniform_in_the_ring() -> None:
    source = reacher(change="none", show_target=True, envs=1000)
    _, opening = jax.jit(source.make(1).reset)(lane_keys(0), visit_of(0), jnp.int32(0))
    shown = np.asarray(opening.observation)[0, :, 6:8]
    far = np.hypot(*shown.T)
    assert 0.2 <= far.min() < 0.25
    assert 0.98 < far.max() <= 1 + 1e-6
    # (r^2 - 0.04) / 0.96 is uniform: mean 1/2, four standard errors.
    assert abs(np.mean((far**2 - 0.04) / 0.96) - 0.5) < 4 / np.sqrt(12 * 1000)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (cartpole_swingup, {"gain": (1.0, 0.0)}, r"gain: \(1.0, 0.0\) is not allowed; must be one or more factors oth"),
        (cartpole_swingup, {"damping": -1.0}, "damping: -1.0 is not allowed; must be one or more numbers of at least"),
        (cartpole_swingup, {"change": "none"}, "change: none is not allowed with 2 factors for .*; must be physics"),
        (reacher, {"mass": 0.0}, "mass: 0.0 is not allowed; must be one or more factors greater than 0"),
        (reacher, {"gravity": -1.0}, "gravity: -1.0 is not allowed"),
        (reacher, {"goals": ((0.9, 0.9),)}, r"goals: \[0.9, 0.9\] is not allowed; must be within the arm's reach of 1"),
        (reacher, {"goals": ((0.9, 0.0),), "length": 0.5}, "must be within the arm's reach of 0.5 m"),
        (reacher, {"goals": ((0.5, 0.0),), "change": "none"}, "goals: 1 goals are not allowed with change: none"),
    ],
)
def test_mistakes(make: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)
