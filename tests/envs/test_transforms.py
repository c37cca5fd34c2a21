"""What holds for every transform, on a pure stream and on one of the host, played with two lanes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adding import on_host, pure, spec_of
from playing import Player, clock_at, lane_keys, play, player, random_actions, visit_of

from envs.base import Source
from envs.toys import catch
from envs.transforms import TRANSFORMS
from plasticity.types import FIRST, LAST, MID, Visit

STEPS, LANES = 24, 2
SETTINGS: dict[str, dict[str, Any]] = {
    "permute_observations": {},
    "permute_actions": {},
    "scale_reward": {"factor": (1.0, 10.0)},
    "clip_reward": {"low": -0.5, "high": 0.5},
    "flip_reward": {},
    "delay_reward": {"steps": 2},
    "observation_noise": {"deviation": 0.5},
    "observation_dropout": {"probability": 0.5},
    "sticky_actions": {"probability": 0.5},
    "frame_stack": {"frames": 3},
}
NEUTRAL: dict[str, dict[str, Any]] = {
    "scale_reward": {"factor": 1.0},
    "clip_reward": {"low": -10.0, "high": 10.0},
    "delay_reward": {"steps": 0},
    "observation_noise": {"deviation": 0.0},
    "observation_dropout": {"probability": 0.0},
    "sticky_actions": {"probability": 0.0},
    "frame_stack": {"frames": 1},
}
SCORED_RAW = ("scale_reward", "clip_reward", "delay_reward")
SIGHT = ("observation_noise", "observation_dropout", "permute_observations", "frame_stack")
INNER: dict[str, Callable[[], Source]] = {
    "catch": lambda: catch(rows=6, envs=2, change="none", tasks=3, steps_per_task=8),
    "host": lambda: on_host(spec_of()),
}


class Lives(NamedTuple):
    """A transformed stream, the one it wraps, and a life of each in visit 1 under the same actions and keys."""

    source: Source
    player: Player
    life: Any
    plain: Any
    actions: np.ndarray


def scored(player: Player, visit: Visit, actions: np.ndarray) -> tuple[Any, np.ndarray]:
    """Time steps ``[1 + T, ...]`` and scores ``[T, W, E]``."""
    stream = player.stream

    def body(state: Any, now: Any) -> Any:
        state, timestep = stream.step(lane_keys(3, 8), state, now[1], clock_at(now[0]))
        return state, (timestep, stream.score(state, timestep))

    state, opening = player.reset(lane_keys(3, 8), visit, jnp.int32(0))
    rest, score = jax.lax.scan(body, state, (jnp.arange(len(actions)), jnp.asarray(actions)))[1]
    life = jax.tree.map(lambda a, b: np.concatenate([np.asarray(a)[None], np.asarray(b)]), opening, rest)
    return life, np.asarray(score)


PLAIN: dict[str, Any] = {}


def plain_life(on: str) -> Any:
    if on not in PLAIN:
        made = player(INNER[on]().make(LANES))
        PLAIN[on] = play(made, lane_keys(3, 8), visit_of(1, 0), random_actions(made.stream, STEPS, LANES))
    return PLAIN[on]


@pytest.fixture(scope="module", params=[(name, on) for name in sorted(TRANSFORMS) for on in INNER], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module")
def lives(case: tuple[str, str]) -> Lives:
    name, on = case
    source = TRANSFORMS[name](**SETTINGS[name])(INNER[on]())
    made = player(source.make(LANES))
    actions = random_actions(made.stream, STEPS, LANES)
    return Lives(source, made, play(made, lane_keys(3, 8), visit_of(1, own(source)), actions), plain_life(on), actions)


def own(source: Source, visit: int = 1) -> int:
    return source.spec.visits[visit].task


def test_spec_is_consistent(lives: Lives) -> None:
    spec = lives.source.spec
    assert spec == lives.player.stream.spec
    assert all(plan.task in range(len(spec.tasks)) for plan in spec.visits)
    assert len(set(spec.tasks)) == len(spec.tasks)
    low, high = spec.reward_range
    assert low <= lives.life.reward.min() <= lives.life.reward.max() <= high


def test_shapes_and_types_are_those_of_the_spec(lives: Lives) -> None:
    lead, spec = (1 + STEPS, LANES, 2), lives.source.spec
    assert [(x.dtype, x.shape) for x in lives.life[:3]] == [(np.int8, lead), (np.float32, lead), (np.float32, lead)]
    assert lives.life.observation.shape == lead + spec.observation.shape
    assert lives.life.observation.dtype == spec.observation.dtype


def test_episodes_are_those_of_the_wrapped_stream(lives: Lives, case: tuple[str, str]) -> None:
    if case[0] not in ("permute_actions", "sticky_actions"):
        np.testing.assert_array_equal(lives.life.step_type, lives.plain.step_type)
        np.testing.assert_array_equal(lives.life.discount, lives.plain.discount)
    np.testing.assert_array_equal(lives.life.step_type[1:] == FIRST, lives.life.step_type[:-1] == LAST)
    assert (lives.life.reward[lives.life.step_type == FIRST] == 0).all()
    assert (lives.life.step_type == MID).any()


def test_something_is_changed(lives: Lives, case: tuple[str, str]) -> None:
    name = case[0]
    if case == ("delay_reward", "catch"):  # which rewards at the end of an episode alone
        return
    changed = lives.life.observation if name in SIGHT else lives.life.reward
    plain = lives.plain.observation if name in SIGHT else lives.plain.reward
    assert not np.array_equal(changed, plain)
    if name in SIGHT:
        np.testing.assert_array_equal(lives.life.reward, lives.plain.reward)


def test_same_keys_give_the_same_life(lives: Lives) -> None:
    again = play(lives.player, lane_keys(3, 8), visit_of(1, own(lives.source)), lives.actions)
    jax.tree.map(np.testing.assert_array_equal, lives.life, again)


def test_nothing_is_compiled_again_at_a_switch(lives: Lives) -> None:
    play(lives.player, lane_keys(3, 8), visit_of(2, own(lives.source, 2)), lives.actions)
    tasks = Visit(jnp.int32(2), jnp.array([0, own(lives.source)], jnp.int32))
    before = len(lives.player.traces)
    lives.player.reset(lane_keys(3, 8), tasks, jnp.int32(0))
    assert before == 2
    assert len(lives.player.traces) == 3  # tasks[W] is another signature


def test_a_lane_is_the_same_in_whatever_task_its_neighbour_is(lives: Lives) -> None:
    tasks = Visit(jnp.int32(1), jnp.array([0, own(lives.source)], jnp.int32))
    mixed = play(lives.player, lane_keys(3, 8), tasks, lives.actions)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:, 1], b[:, 1]), mixed, lives.life)


def test_state_has_the_lanes_in_front(lives: Lives) -> None:
    state, _ = lives.player.reset(lane_keys(3, 8), visit_of(1, own(lives.source)), jnp.int32(0))
    assert all(leaf.shape[0] == LANES for leaf in jax.tree.leaves(state))


def test_what_is_recorded(lives: Lives, case: tuple[str, str]) -> None:
    """The wrapped stream's reward; where the transform changes what is wanted, the new one."""
    life, score = scored(lives.player, visit_of(1, own(lives.source)), lives.actions)
    expected = lives.plain.reward if case[0] in SCORED_RAW else life.reward
    np.testing.assert_array_equal(score, expected[1:])


def test_lanes_and_envs_have_chance_of_their_own(case: tuple[str, str], lives: Lives) -> None:
    name, on = case
    if on == "host" and name in ("observation_noise", "observation_dropout", "sticky_actions"):
        parts = [lives.life.observation[:, w, e] for w in range(2) for e in range(2)]
        assert len({part.tobytes() for part in parts}) == 4


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_neutral_settings_change_nothing(name: str) -> None:
    made = player(TRANSFORMS[name](**NEUTRAL[name])(INNER["catch"]()).make(LANES))
    life = play(made, lane_keys(3, 8), visit_of(1, 0), random_actions(made.stream, STEPS, LANES))
    jax.tree.map(np.testing.assert_array_equal, life, plain_life("catch"))


@pytest.mark.parametrize("name", ["permute_observations", "permute_actions", "flip_reward", "scale_reward"])
def test_the_first_task_is_the_standard_one(name: str) -> None:
    made = player(TRANSFORMS[name](**SETTINGS[name])(INNER["catch"]()).make(LANES))
    actions = random_actions(made.stream, STEPS, LANES)
    life = play(made, lane_keys(3, 8), visit_of(1, 0), actions)
    jax.tree.map(np.testing.assert_array_equal, life, plain_life("catch"))


def test_pure_and_host_streams_are_transformed_alike() -> None:
    for name in sorted(TRANSFORMS):
        pair = []
        for base in (pure, on_host):
            source = TRANSFORMS[name](**SETTINGS[name])(base(spec_of()))
            stream = source.make(LANES)
            state, first = stream.reset(lane_keys(3, 8), visit_of(1, own(source)), jnp.int32(0))
            _, second = stream.step(lane_keys(3, 8), state, jnp.full((LANES, 2), 2, jnp.int32), clock_at(0))
            pair.append((first, second))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *pair)


def test_members_are_one_function_each() -> None:
    assert set(SETTINGS) == set(TRANSFORMS)
    assert all(factory.__name__ == name for name, factory in TRANSFORMS.items())
