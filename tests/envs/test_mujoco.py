"""The streams ``mujoco`` and ``slippery_ant``: models, trajectories, draws of lanes, resume."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from playing import assert_resumes_in_mid_visit, lane_keys, play, player, random_actions, visit_of

pytest.importorskip("mujoco")

from plasticity.envs.gym import gym, make_env
from plasticity.envs.mujoco import SCALES, make_body, mujoco, slippery_ant, with_draws

ARRAYS = {
    "gravity": ("opt.gravity",), "friction": ("geom_friction",), "mass": ("body_mass", "body_inertia"),
    "damping": ("dof_damping",), "gain": ("actuator_gainprm",),
}  # fmt: skip
WATCHED = [name for names in ARRAYS.values() for name in names]


def constants(env: Any) -> dict[str, np.ndarray]:
    model = env.unwrapped.model
    found = {name: np.array(getattr(model, name)) for name in WATCHED if "." not in name}
    env.close()
    return found | {"opt.gravity": np.array(model.opt.gravity), "subtree": np.array(model.body_subtreemass)}


@pytest.mark.parametrize("name", sorted(SCALES))
def test_a_factor_multiplies_its_constants_and_no_others(name: str) -> None:
    plain = constants(make_env("Hopper-v5", {}, False))
    changed = constants(make_body("Hopper-v5", {}, False, {name: 0.25}))
    for key in WATCHED:
        factor = 0.25 if key in ARRAYS[name] else 1
        if key == "actuator_gainprm":  # its other columns belong to muscles
            np.testing.assert_allclose(changed[key][:, :3], factor * plain[key][:, :3])
        else:
            np.testing.assert_allclose(changed[key], factor * plain[key])
        assert np.abs(plain[key]).max() > 0
    np.testing.assert_allclose(changed["subtree"], (0.25 if name == "mass" else 1) * plain["subtree"])


def test_physics_of_a_pole_by_hand() -> None:
    """An unactuated pendulum's first acceleration is proportional to gravity, a motor's to gain over mass."""

    def first(factors: dict[str, float], action: float) -> np.ndarray:
        env = make_body("InvertedPendulum-v5", {}, False, factors)
        env.reset(seed=0)
        env.unwrapped.set_state(np.array([0.0, 0.1]), np.zeros(2))
        env.unwrapped.data.ctrl[:] = action
        import mujoco as library

        library.mj_forward(env.unwrapped.model, env.unwrapped.data)
        return np.array(env.unwrapped.data.qacc)

    still = first({}, 0.0)
    np.testing.assert_allclose(first({"gravity": 2.0}, 0.0), 2 * still, rtol=1e-5)
    pushed = first({"gravity": 0.0}, 1.0)
    np.testing.assert_allclose(first({"gravity": 0.0, "gain": -0.5}, 1.0), -0.5 * pushed, rtol=1e-5)


def life_of(source: Any, visit: int = 0, task: int = 0, steps: int = 40, lanes: int = 1) -> Any:
    made = player(source.make(lanes))
    life = play(made, lane_keys(*range(lanes)), visit_of(visit, task), random_actions(made.stream, steps, lanes))
    made.stream.close()
    return life


@pytest.mark.parametrize("id", ["Hopper-v5", "Walker2d-v5"])
def test_factor_1_is_the_environment_itself_and_each_factor_changes_the_life(id: str) -> None:
    variations: list[dict[str, Any]] = [dict.fromkeys(SCALES, 1.0)]
    variations += [{name: 0.3} for name in SCALES]
    changed = mujoco(id=id, variations=variations, envs=2, steps_per_visit=1000)
    plain = life_of(gym(id=id, envs=2, steps_per_visit=1000))
    jax.tree.map(np.testing.assert_array_equal, plain, life_of(changed))
    for task, name in enumerate(SCALES, start=1):
        assert not np.array_equal(plain.observation, life_of(changed, task=task).observation), name


def test_resumes_in_mid_visit() -> None:
    drawn = {"friction": [0.02, 2.0], "gain": [0.5, 1.0]}
    assert_resumes_in_mid_visit(mujoco(id="Hopper-v5", drawn=drawn, cycles=3, steps_per_visit=1000), 2)


def numbers(lane: int, visit: int, task: int, envs: int = 1) -> np.ndarray:
    drawn = {"friction": [0.02, 2.0]}
    return np.asarray(with_draws(drawn)(lane_keys(lane), visit_of(visit, task), envs))[0]


def test_draws_belong_to_lane_and_task_and_not_to_the_visit() -> None:
    first = numbers(0, 0, 0, envs=3)
    assert (first[:, 1] == first[0, 1]).all()
    assert len(set(first[:, 0])) == 3
    again = numbers(0, 7, 0)
    assert again[0, 1] == first[0, 1]
    assert again[0, 0] != first[0, 0]
    assert len({int(numbers(lane, task, task)[0, 1]) for lane in range(2) for task in range(2)}) == 4
    replica = visit_of(0, 0)._replace(eval_replica=jnp.int32(1))
    evaluated = np.asarray(with_draws({"friction": [0.02, 2.0]})(lane_keys(0), replica, 1))[0]
    assert evaluated[0, 1] == first[0, 1]


def test_drawn_frictions_are_log_uniform_and_reach_the_model() -> None:
    source = slippery_ant(steps_per_visit=1000)
    assert source.spec.tasks == tuple(f"Ant-v5_{i}" for i in range(10))
    assert source.spec.alike
    seeds = np.asarray(with_draws({"friction": [0.02, 2.0]})(lane_keys(*range(400)), visit_of(3, 3), 1))[:, 0]
    logs = np.log(0.02) + np.log(100) * seeds[:, 1] / 2**24
    assert abs(logs.mean() - np.log(0.2)) < 4 * np.log(100) / np.sqrt(12 * 400)  # four standard errors
    assert source.make_pool is not None
    pool = source.make_pool(3, seeds[:3])
    told = [env.unwrapped.model.geom_friction[:, 0] for env in pool.envs.envs]
    pool.close()
    np.testing.assert_allclose(told, np.exp(logs[:3])[:, None] * np.ones(14), rtol=1e-6)


def test_given_frictions_come_in_turn() -> None:
    source = slippery_ant(frictions=[0.1, 1.0], visits=3, steps_per_visit=1000)
    assert [plan.task for plan in source.spec.visits] == [0, 1, 0]
    assert source.spec.tasks == ("Ant-v5[friction=0.1]", "Ant-v5[friction=1.0]")
    assert source.make_pool is not None
    pool = source.make_pool(0, np.array([5], np.int32))
    np.testing.assert_allclose(pool.envs.envs[0].unwrapped.model.geom_friction[:, 0], 0.1)
    pool.close()


@pytest.mark.slow
def test_workers_change_nothing() -> None:
    lives = [
        life_of(mujoco(id="Hopper-v5", variations=[{"gain": 0.5}], workers=each, envs=2, steps_per_visit=1000))
        for each in (False, True)
    ]
    jax.tree.map(np.testing.assert_array_equal, *lives)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "CartPole-v1"}, "id: CartPole-v1 is not allowed; must be an environment of MuJoCo"),
        ({"id": "Hoper-v5"}, "id: unknown environment .*; did you mean `Hopper-v5`"),
        ({"id": "Hopper-v5", "variations": [{"mass": 0}]}, "mass: 0 is not allowed; must be a factor greater than 0"),
        ({"id": "Hopper-v5", "variations": [{"gain": 0}]}, "gain: 0 is not allowed; must be a factor other than 0"),
        ({"id": "Hopper-v5", "variations": [{"friction": -1}]}, "friction: -1 is not allowed; must be a factor of at"),
        ({"id": "Hopper-v5", "variations": [{"friction": "low"}]}, 'friction: "low" is not allowed'),
        ({"id": "Hopper-v5", "variations": [{"frction": 1}]}, "Hopper-v5: gymnasium cannot make it: .*frction"),
        ({"id": "Hopper-v5", "drawn": {"friction": [2, 1]}}, "drawn: friction: .*two factors greater than 0"),
        ({"id": "Hopper-v5", "drawn": {"wind": [1, 2]}}, 'drawn: "wind" is not allowed; must be one of gravity'),
        ({"ids": ["Hopper-v5", "Ant-v5"]}, "`pad: true` is required"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        mujoco(**settings)
    assert "\n" not in str(caught.value)
