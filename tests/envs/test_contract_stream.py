"""The contract that every stream satisfies, with two lanes."""

from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
import pytest
from playing import Player, lane_keys, play, player, random_actions, visit_of

from plasticity.config.schema import schema_of
from plasticity.core.types import FIRST, LAST, MID, Logged, Supervised
from plasticity.envs import STREAMS
from plasticity.envs.base import StreamFactory

STEPS, LANES = 24, 2
LONG = {"procgen"}  # streams whose episodes cannot be made shorter than that
SETTINGS: dict[str, dict[str, Any]] = {
    "relabelled": {"inputs": "gaussian", "samples": 30, "dimensions": 5, "envs": 3, "tasks": 3},
    "regression": {"dimensions": 5, "hidden": 7, "outputs": 2, "envs": 3, "tasks": 3, "noise": 0.1},
    "permuted_inputs": {
        "labels": "random", "inputs": "gaussian", "samples": 30, "dimensions": 5, "envs": 3, "tasks": 3,
    },
    "permuted_labels": {"samples": 30, "envs": 3, "tasks": 3, "gradual": 0.01},
    "slowly_changing_regression": {"bits": 6, "slow": 4, "units": 7, "envs": 3, "tasks": 3, "steps_per_task": 10},
    "class_incremental": {"samples": 30, "envs": 3},
    "relabelled images": {
        "inputs": "shapes", "samples": 30, "flat": False, "standardise": "channel", "envs": 3, "tasks": 3,
        "augment": {"flip": 0.5, "crop": 4, "rotate": 15},
    },
    "relabelled noise": {
        "samples": 100, "initial": "true", "fraction": (0.5, 0.1), "label_noise": 0.3, "held_out": 0.2, "envs": 3,
        "tasks": 3,
    },
    "regression held out": {
        "inputs": "gaussian", "samples": 30, "dimensions": 5, "noise": 0.1, "held_out": 0.2, "envs": 3, "tasks": 3,
    },
    "permuted_inputs noise": {"samples": 100, "label_noise": 0.3, "held_out": 0.2, "envs": 3, "tasks": 3},
    "permuted_labels noise": {"samples": 100, "label_noise": (0.3, 0.0), "held_out": 0.2, "envs": 3, "tasks": 3},
    "class_incremental noise": {"samples": 100, "label_noise": 0.3, "held_out": 0.2, "envs": 3},
    "image_datasets noise": {"samples": 60, "label_noise": 0.3, "outputs": "separate", "envs": 3},
    "class_incremental images": {
        "inputs": "shapes", "samples": 100, "flat": False, "standardise": "none", "held_out": "test", "envs": 3,
        "augment": {"flip": 0.5, "crop": 4, "rotate": 15},
    },
    "warm_start": {"samples": 30, "envs": 3},
    "image_datasets": {"samples": 60, "envs": 3},
    "image_datasets raw": {
        "datasets": ["digits", "counts"], "samples": 60, "side": 12, "colour": False, "flat": False,
        "outputs": "separate", "standardise": "none", "augment": {"flip": 0.5, "crop": 2, "rotate": 15}, "envs": 3,
    },
    "classification_mdp": {"samples": 30, "envs": 3, "change": "labels"},
    "value_prediction": {"states": 6, "branching": 2, "dimensions": 4, "change": "both", "envs": 2, "tasks": 3},
    "value_prediction walk": {
        "process": "walk", "states": 5, "features": "one_hot", "noise": 0.1, "change": "both", "envs": 2, "tasks": 3,
    },
    "catch": {"rows": 6, "envs": 2, "tasks": 3},
    "cartpole": {"episode_steps": 9, "envs": 2, "tasks": 3},
    "acrobot": {"episode_steps": 9, "envs": 2, "tasks": 3},
    "pendulum": {"episode_steps": 9, "envs": 2, "tasks": 3},
    "cartpole_swingup": {"episode_steps": 9, "envs": 2, "tasks": 3},
    "reacher": {"episode_steps": 9, "envs": 2, "tasks": 3},
    "reacher physics": {
        "change": "physics", "damping": [1.0, 0.0], "show_target": True, "episode_steps": 9, "envs": 2, "tasks": 3,
    },
    "gridworld": {"size": 6, "walls": "four_rooms", "start": "random", "episode_steps": 9, "envs": 2, "tasks": 3},
    "gather": {"size": 4, "gems": 3, "pits": 2, "blocks": 2, "levels": 2, "episode_steps": 9, "envs": 2, "tasks": 3},
    "forager": {"size": 6, "aperture": 3, "respawn": "elsewhere", "delay": 3, "envs": 2, "tasks": 3},
    "apple_retrieval": {"distance": 2, "episode_steps": 9, "envs": 2},
    "t_maze": {"length": 2, "episode_steps": 9, "envs": 2, "tasks": 3},
    "recall": {"delay": 3, "envs": 2, "tasks": 3},
    "minatar": {"games": ["asterix", "breakout"], "episode_steps": 12, "envs": 2},
    "gymnax": {
        "id": "CartPole-v1", "variations": [{"max_steps_in_episode": 9}, {"max_steps_in_episode": 12}], "envs": 2,
    },
    "craftax": {
        "id": "Craftax-Classic-Symbolic-v1", "variations": [{"max_timesteps": 9}, {"max_timesteps": 12}], "envs": 2,
    },
    "xminigrid": {
        "id": "MiniGrid-EmptyRandom-5x5", "variations": [{"max_steps": 9}, {"max_steps": 12}], "envs": 2,
    },
    "brax": {
        "id": "ant", "variations": [{}, {"friction": 0.1}], "backend": "spring", "episode_steps": 9, "envs": 2,
    },
    "atari": {
        "games": ["Pong", "Breakout"], "frames_per_visit": 400, "envs": 2, "episode_frames": 40, "noops": 30,
    },
    "gym": {"id": "CartPole-v1", "variations": [{"max_episode_steps": 9}, {"max_episode_steps": 12}], "envs": 2},
    "mujoco": {
        "id": "Hopper-v5", "variations": [{}, {"friction": 0.2}], "drawn": {"gain": [0.5, 1.0]}, "episode_steps": 9,
        "envs": 2,
    },
    "slippery_ant": {"visits": 2, "episode_steps": 9, "envs": 2},
    "envpool": {
        "tasks": ["CartPole-v1", "Acrobot-v1"], "variations": [{"max_episode_steps": 9}], "envs": 2, "pad": True,
    },
    "procgen": {"games": ["coinrun", "starpilot"], "envs": 2},
    "minigrid": {"tasks": ["Empty-Random-5x5", "Fetch-5x5-N2"], "episode_steps": 9, "envs": 2},
    "dmc": {"tasks": ["WalkerWalk", "WalkerRun"], "episode_steps": 9, "envs": 2},
    "dataset": {"paths": ["catch_random", "catch_skilled"], "envs": 3},
    "continual_world": {"episode_steps": 9, "envs": 2},
}  # fmt: skip


def missing() -> dict[str, str]:
    """Streams that this machine lacks a package or a system library for, and why."""
    import envpool

    lacking = {
        name: f"the package {package} is not installed"
        for name, package in OPTIONAL.items()
        if find_spec(package) is None
    }
    try:
        envpool.make_spec("CoinrunEasy-v0")
    except ImportError as error:
        lacking["procgen"] = str(error)
    return lacking


OPTIONAL = {  # stream -> its package, which is an extra
    **{name: name for name in ("gymnax", "craftax", "xminigrid", "brax", "mujoco")}, "slippery_ant": "mujoco",
}  # fmt: skip
LACKING = missing()
# What `gym` and `atari` are, by another library, and what takes long to compile.
LATE = ("continual_world", "dmc", "envpool", "minigrid", "procgen", "craftax", "xminigrid", "brax")


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] * (name in LATE) + [pytest.mark.skip(LACKING[name]) for _ in range(name in LACKING)]


NAMES = [pytest.param(name, marks=marks(name)) for name in sorted(SETTINGS)]


def source_of(name: str) -> StreamFactory:
    """The stream of some settings; a stream may have several, under names that start with its own."""
    return STREAMS[name.split()[0]](**SETTINGS[name])


def test_every_stream_is_tested() -> None:
    assert {name.split()[0] for name in SETTINGS} == set(STREAMS)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pair(name: str) -> Player:
    made = player(source_of(name).make(LANES))
    yield made
    made.stream.close()


@pytest.fixture(scope="module")
def actions(pair: Player) -> np.ndarray:
    return random_actions(pair.stream, STEPS, LANES)


@pytest.fixture(scope="module")
def life(pair: Player, actions: np.ndarray) -> Any:
    return play(pair, lane_keys(3, 8), visit_of(0), actions)


def test_shapes_and_types_are_those_of_the_spec(pair: Player, life: Any) -> None:
    lead = (1 + STEPS, LANES, pair.stream.spec.envs)
    assert [(x.dtype, x.shape) for x in life[:3]] == [(np.int8, lead), (np.float32, lead), (np.float32, lead)]
    told = jax.tree.map(lambda leaf: (leaf.dtype, lead + leaf.shape), pair.stream.spec.observation)
    assert told == jax.tree.map(lambda leaf: (leaf.dtype, leaf.shape), life.observation)


def test_spec_is_consistent(pair: Player, name: str) -> None:
    spec = pair.stream.spec
    assert spec == source_of(name).spec
    assert all(plan.task in range(len(spec.tasks)) and plan.steps > 0 for plan in spec.visits)
    assert len(set(spec.tasks)) == len(spec.tasks)


FRESH = {"slowly_changing_regression"}  # streams that draw a new input each time, in evaluations too


def test_supervised_streams_hold_samples_out_and_have_noise(pair: Player, name: str) -> None:
    kind = name.split()[0]
    if isinstance(pair.stream.spec.observation, Supervised):
        settings = schema_of(STREAMS[kind])
        assert ("held_out" in settings) != (kind in FRESH)
        assert ("label_noise" if pair.stream.spec.discrete else "noise") in settings


def test_visit_opens_with_first(life: Any) -> None:
    assert (life.step_type[0] == FIRST).all()


def test_first_follows_last_and_only_last(life: Any) -> None:
    np.testing.assert_array_equal(life.step_type[1:] == FIRST, life.step_type[:-1] == LAST)


def test_episodes_end_if_and_only_if_the_spec_says_so(pair: Player, life: Any, name: str) -> None:
    if name not in LONG:
        assert (life.step_type == LAST).any() == pair.stream.spec.episodic
    if not pair.stream.spec.episodic:
        assert (life.step_type[1:] == MID).all()
        supervised = isinstance(pair.stream.spec.observation, Supervised | Logged)
        assert (life.discount[1:] == (0 if supervised else 1)).all()


def test_first_has_reward_0_and_discount_1(life: Any) -> None:
    opening = life.step_type == FIRST
    assert (life.reward[opening] == 0).all()
    assert (life.discount[opening] == 1).all()


def test_discounts_and_rewards_are_in_range(pair: Player, life: Any) -> None:
    assert np.isin(life.discount, (0, 1)).all()
    assert np.isfinite(life.reward).all()
    low, high = pair.stream.spec.reward_range
    assert low <= 0 <= high
    assert low <= life.reward.min() <= life.reward.max() <= high


def test_same_keys_give_the_same_life(pair: Player, life: Any, actions: np.ndarray) -> None:
    again = play(pair, lane_keys(3, 8), visit_of(0), actions)
    jax.tree.map(np.testing.assert_array_equal, life, again)


WITHOUT_CHANCE = ("apple_retrieval",)  # only actions differ between episodes


def differ(one: Any, other: Any) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_lanes_differ(name: str, life: Any) -> None:
    if name in WITHOUT_CHANCE:
        pytest.skip("nothing in it is random")
    assert differ(*(jax.tree.map(lambda leaf, w=w: leaf[:, w], life.observation) for w in range(2)))


def test_envs_of_a_lane_differ(name: str, life: Any) -> None:
    if name in WITHOUT_CHANCE:
        pytest.skip("nothing in it is random")
    assert differ(*(jax.tree.map(lambda leaf, e=e: leaf[:, 0, e], life.observation) for e in range(2)))


def test_visits_differ_and_nothing_is_compiled_again(pair: Player, life: Any, actions: np.ndarray) -> None:
    other = play(pair, lane_keys(3, 8), visit_of(1), actions)
    assert differ(life.observation, other.observation)
    assert sorted(pair.traces) == ["reset", "steps"]


@pytest.mark.slow
def test_a_lane_of_two_equals_the_lane_alone(name: str, life: Any, actions: np.ndarray) -> None:
    alone = player(source_of(name).make(1))
    lived = play(alone, lane_keys(8), visit_of(0), actions[:, :1])
    alone.stream.close()
    # At another width sums are ordered differently; the contacts of a body amplify it.
    rtol, atol = (1e-2, 1e-3) if name == "brax" else (1e-5, 1e-6)
    close = partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(close, lived, jax.tree.map(lambda leaf: leaf[:, 1:], life))
