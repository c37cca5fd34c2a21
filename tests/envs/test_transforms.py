"""The contract that every transform satisfies, on a pure stream and on a host stream with two lanes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adding import on_host, pure, spec_of
from playing import clock_at, lane_keys, random_actions

from plasticity.core.types import FIRST, LAST, MID, Stream, Visit
from plasticity.envs.base import StreamFactory
from plasticity.envs.transforms import TRANSFORMS

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
    "observation_offset": {"deviation": 2.0},
    "sticky_actions": {"probability": 0.5},
    "frame_stack": {"frames": 3},
    "time_in_episode": {"limit": 10},
}
NEUTRAL: dict[str, dict[str, Any]] = {
    "scale_reward": {"factor": 1.0},
    "delay_reward": {"steps": 0},
    "observation_noise": {"deviation": 0.0},
    "observation_dropout": {"probability": 0.0},
    "observation_offset": {"deviation": 0.0},
    "sticky_actions": {"probability": 0.0},
    "frame_stack": {"frames": 1},
}
SCORED_RAW = ("scale_reward", "clip_reward", "delay_reward")

INNER: dict[str, Callable[[], StreamFactory]] = {"pure": lambda: pure(spec_of()), "host": lambda: on_host(spec_of())}
KEYS = lane_keys(3, 8)
ACTIONS = random_actions(INNER["pure"]().make(LANES), STEPS, LANES)


class Player(NamedTuple):
    """A stream, and one compiled life of it: visit, tasks of the lanes -> time steps [1 + T, ...], scores [T, ...]."""

    source: StreamFactory
    stream: Stream
    live: Callable[..., Any]
    traces: list[int]

    def task(self, visit: int) -> int:
        return self.source.spec.visits[visit].task

    def visit(self, number: int) -> Any:
        return self.live(number, [self.task(number)] * LANES)[0]


def player(source: StreamFactory) -> Player:
    stream, traces = source.make(LANES), []

    @jax.jit
    def live(visit: Any, tasks: Any) -> Any:
        traces.append(0)
        state, opening = stream.reset(KEYS, Visit(visit, tasks), jnp.int32(0))

        def body(state: Any, now: Any) -> Any:
            state, timestep = stream.step(KEYS, state, now[1], clock_at(now[0]))
            return state, (timestep, stream.score(state, timestep))

        last, (rest, score) = jax.lax.scan(body, state, (jnp.arange(STEPS), jnp.asarray(ACTIONS)))
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), opening, rest), score, (state, last)

    def called(visit: int, tasks: list[int]) -> Any:
        found = live(jnp.int32(visit), jnp.array(tasks, jnp.int32))
        return jax.block_until_ready(jax.tree.map(np.asarray, found))

    return Player(source, stream, called, traces)


class Lives(NamedTuple):
    """A transformed stream, its life in visit 1, and the same of the stream that it wraps."""

    name: str
    on: str
    player: Player
    life: Any
    score: np.ndarray
    states: Any
    plain: Any


@functools.cache
def plain_life(on: str) -> Any:
    return player(INNER[on]()).live(1, [0, 0])[0]


@functools.cache
def lived(name: str, on: str) -> Lives:
    made = player(TRANSFORMS[name](**SETTINGS[name])(INNER[on]()))
    return Lives(name, on, made, *made.live(1, [made.task(1)] * LANES), plain_life(on))


@pytest.fixture(params=[(name, on) for name in sorted(TRANSFORMS) for on in INNER], ids="-".join)
def lives(request: pytest.FixtureRequest) -> Lives:
    return lived(*request.param)


def test_spec_is_consistent(lives: Lives) -> None:
    spec = lives.player.source.spec
    assert spec == lives.player.stream.spec
    assert all(plan.task in range(len(spec.tasks)) for plan in spec.visits)
    assert len(set(spec.tasks)) == len(spec.tasks)
    low, high = spec.reward_range
    assert low <= lives.life.reward.min() <= lives.life.reward.max() <= high
    low, high = spec.score_range or spec.reward_range
    assert low <= lives.score.min() <= lives.score.max() <= high


def test_shapes_and_types_are_those_of_the_spec(lives: Lives) -> None:
    lead, spec = (1 + STEPS, LANES, 2), lives.player.source.spec
    assert [(x.dtype, x.shape) for x in lives.life[:3]] == [(np.int8, lead), (np.float32, lead), (np.float32, lead)]
    assert lives.life.observation.shape == lead + spec.observation.shape
    assert lives.life.observation.dtype == spec.observation.dtype
    assert (lives.score.shape, lives.score.dtype) == ((STEPS, LANES, 2), np.float32)


def test_the_state_keeps_its_structure_and_has_the_lanes_in_front(lives: Lives) -> None:
    before, after = (jax.tree.map(lambda x: (x.shape, x.dtype), state) for state in lives.states)
    assert before == after
    assert all(leaf.shape[0] == LANES for leaf in jax.tree.leaves(lives.states))


def test_episodes_are_those_of_the_wrapped_stream(lives: Lives) -> None:
    np.testing.assert_array_equal(lives.life.step_type, lives.plain.step_type)
    np.testing.assert_array_equal(lives.life.discount, lives.plain.discount)
    np.testing.assert_array_equal(lives.life.step_type[1:] == FIRST, lives.life.step_type[:-1] == LAST)
    assert (lives.life.reward[lives.life.step_type == FIRST] == 0).all()
    assert (lives.life.step_type == MID).any()


def test_what_it_is_about_is_changed_and_nothing_else(lives: Lives) -> None:
    sight = np.array_equal(lives.life.observation, lives.plain.observation)
    reward = np.array_equal(lives.life.reward, lives.plain.reward)
    actions = lives.name.endswith("_actions")
    assert sight == lives.name.endswith("_reward")
    assert reward == (not actions and not lives.name.endswith("_reward"))


def test_what_is_recorded(lives: Lives) -> None:
    """The wrapped stream's reward or, if the transform changes the objective, the new reward."""
    expected = lives.plain if lives.name in SCORED_RAW else lives.life
    np.testing.assert_array_equal(lives.score, expected.reward[1:])


def test_same_keys_give_the_same_life(lives: Lives) -> None:
    jax.tree.map(np.testing.assert_array_equal, lives.life, lives.player.visit(1))


def test_a_lane_is_the_same_in_whatever_task_its_neighbour_is(lives: Lives) -> None:
    mixed = lives.player.live(1, [0, lives.player.task(1)])[0]
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:, 1], b[:, 1]), mixed, lives.life)


def test_the_first_task_is_the_standard_one_and_nothing_is_compiled_again(lives: Lives) -> None:
    first = lives.player.live(1, [0, 0])[0]
    if lives.name in ("permute_observations", "permute_actions", "scale_reward", "flip_reward", "observation_offset"):
        jax.tree.map(np.testing.assert_array_equal, first, lives.plain)
    assert len(lives.player.traces) == 1


def test_lanes_and_envs_have_chance_of_their_own(lives: Lives) -> None:
    if lives.name in ("observation_noise", "observation_dropout", "sticky_actions"):
        parts = {lives.life.observation[:, w, e].tobytes() for w in range(2) for e in range(2)}
        assert len(parts) == 4


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_streams_of_the_host_are_transformed_like_pure_ones(name: str) -> None:
    one, other = lived(name, "pure"), lived(name, "host")
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    jax.tree.map(close, (one.life, one.score), (other.life, other.score))


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_neutral_settings_are_the_stream_itself(name: str) -> None:
    source = INNER["pure"]()
    assert TRANSFORMS[name](**NEUTRAL[name])(source) is source


def test_one_task_for_all_lanes_may_come_as_one_number() -> None:
    source = TRANSFORMS["permute_observations"]()(INNER["pure"]())
    stream = source.make(LANES)
    found = [stream.reset(KEYS, Visit(jnp.int32(2), task), jnp.int32(0)) for task in (jnp.int32(2), jnp.full(2, 2))]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_every_member_is_played_here() -> None:
    assert set(SETTINGS) == set(TRANSFORMS)
    assert all(factory.__name__ == name for name, factory in TRANSFORMS.items())
