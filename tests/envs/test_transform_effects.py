"""The effect of each transform, against a NumPy implementation."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adding import pure, spec_of
from playing import lane_keys

from plasticity.core.types import Clock, StreamSpec, TimeStep, Visit, VisitPlan
from plasticity.engine.visits import scheduled
from plasticity.envs.base import StreamFactory
from plasticity.envs.minatar import minatar
from plasticity.envs.targets import relabelled
from plasticity.envs.transforms import TRANSFORMS
from plasticity.envs.transforms.base import divided
from plasticity.envs.transforms.permutations import order_of, orders

KEYS = lane_keys(3)
ACTIONS = np.array([[2, 1, 0, 2, 0, 1, 1, 2, 0], [0, 0, 1, 1, 2, 2, 0, 1, 2]]).T  # [T, E]; the fifth opens an episode
FACTORS = [1.0, 1.25, 1.5, 1.75, 2.0, 2.0, 2.0, 2.0, 2.0]


def made(source: StreamFactory, *chain: tuple[str, dict[str, Any]]) -> StreamFactory:
    """``source`` with transforms, the first one innermost."""
    return functools.reduce(lambda inner, each: TRANSFORMS[each[0]](**each[1])(inner), chain, source)


def lived(
    source: StreamFactory, task: int = 0, actions: Any = ACTIONS, visit: int = 0, moment: int = 0, eval_replica: int = 0
) -> tuple[TimeStep, np.ndarray]:
    """The life of one lane, operation by operation: time steps [1 + T, E, ...] and scores [T, E]."""
    stream = source.make(1)
    now = Visit(jnp.int32(visit), jnp.int32(task), jnp.int32(eval_replica), jnp.int32(moment))
    state, timestep = stream.reset(KEYS, now, jnp.int32(0))
    steps, scores = [timestep], []
    for t, action in enumerate(actions):
        clock = Clock(jnp.int32(t), jnp.int32(t), jnp.int32(visit), jnp.int32(moment or t))
        state, timestep = stream.step(KEYS, state, jnp.asarray(action)[None], clock)
        steps.append(timestep)
        scores.append(stream.score(state, timestep)[0])
    return jax.tree.map(lambda *leaves: np.stack(leaves)[:, 0], *steps), np.array(scores)


@functools.cache
def plain() -> TimeStep:
    return lived(pure(spec_of()))[0]


def owed(rewards: Sequence[float], delay: int) -> list[float]:
    """The rewards of one episode as they are paid."""
    late = [*([0.0] * delay), *rewards][: len(rewards)]
    return [*late[:-1], late[-1] + sum(rewards) - sum(late)]


@pytest.mark.parametrize("delay", [1, 2, 3, 9])
def test_rewards_are_paid_late_and_all_at_the_end(delay: int) -> None:
    life, score = lived(made(pure(spec_of()), ("delay_reward", {"steps": delay})), actions=ACTIONS[:8])
    for env in range(2):
        assert life.reward[1:5, env].tolist() == owed(ACTIONS[:4, env].tolist(), delay)
    np.testing.assert_array_equal(life.reward[5], 0)
    np.testing.assert_array_equal(life.reward[1:5].sum(0), ACTIONS[:4].sum(0))
    np.testing.assert_array_equal(score, plain().reward[1:9])


def test_delays_in_turn() -> None:
    source = made(pure(spec_of()), ("delay_reward", {"steps": (0, 2)}))
    assert [plan.task for plan in source.spec.visits] == [0, 1, 0]
    np.testing.assert_array_equal(lived(source, 0, ACTIONS[:4])[0].reward, plain().reward[:5])
    assert lived(source, 1, ACTIONS[:4])[0].reward[1:, 0].tolist() == [0.0, 0.0, 2.0, 3.0]


def test_numbers_change_linearly_over_a_share_of_the_visit() -> None:
    source = made(pure(spec_of()), ("scale_reward", {"factor": (1.0, 2.0), "gradual": 0.5}))
    assert [plan.task for plan in source.spec.visits] == [0, 1, 2]  # from 1 to 2, then from 2 to 1
    life, score = lived(source, 1)
    np.testing.assert_allclose(life.reward[1:], np.array(FACTORS)[:, None] * plain().reward[1:])
    np.testing.assert_array_equal(score, plain().reward[1:])
    back = lived(source, 2)[0].reward[1:]
    np.testing.assert_allclose(back, (3 - np.array(FACTORS))[:, None] * plain().reward[1:])
    np.testing.assert_array_equal(lived(source, 0)[0].reward, plain().reward)


def test_flipped_gradually_is_scored_as_it_is_rewarded() -> None:
    source = made(pure(spec_of()), ("flip_reward", {"gradual": 0.5}))
    life, score = lived(source, 1)
    np.testing.assert_allclose(life.reward[1:], (3 - 2 * np.array(FACTORS))[:, None] * plain().reward[1:])
    np.testing.assert_array_equal(score, life.reward[1:])


def test_an_evaluated_moment_stands_still() -> None:
    source = made(pure(spec_of()), ("scale_reward", {"factor": (1.0, 2.0), "gradual": 0.5}))
    np.testing.assert_allclose(lived(source, 1, moment=2)[0].reward, 1.5 * plain().reward)
    np.testing.assert_allclose(lived(source, 1, moment=1 << 30)[0].reward, 2 * plain().reward)


def test_places_change_one_by_one() -> None:
    problem = orders(60, 0, 0.5)(jax.random.key(1), jnp.int32(3))
    new, last, when = map(np.asarray, problem)
    assert sorted(new) == sorted(last) == list(range(60))
    assert (new != last).mean() > 0.8
    for done in (0.0, 0.3, 0.7, 1.0):
        order = np.asarray(order_of(problem, jnp.float32(done)))
        np.testing.assert_array_equal(order, np.where(when < done, new, last))
    assert 0.5 < (when < 0.7).mean() < 0.9
    np.testing.assert_array_equal(last, orders(60, 0, 0.0)(jax.random.key(1), jnp.int32(2))[0])


def test_what_a_gradual_permutation_shows_follows_its_moment() -> None:
    wide = pure(spec_of())
    gradual, abrupt = (made(wide, ("permute_observations", {"gradual": share})) for share in (1.0, 0.0))
    for moment, task, same_as in ((0, 2, 1), (1 << 30, 2, 2)):
        shown = lived(gradual, task, ACTIONS[:0], moment=moment)[0].observation
        np.testing.assert_array_equal(shown, lived(abrupt, same_as, ACTIONS[:0])[0].observation)


def stacked(observations: np.ndarray, first: np.ndarray, frames: int) -> np.ndarray:
    """[T, E, ...] -> [T, E, frames, ...]"""
    rows: list[np.ndarray] = []
    for t, seen in enumerate(observations):
        full = np.stack([seen] * frames, 1)
        rolled = full if t == 0 else np.concatenate([rows[-1][:, 1:], seen[:, None]], 1)
        rows.append(np.where(first[t][:, None, None], full, rolled))
    return np.stack(rows)


def test_frames_are_stacked() -> None:
    source = made(pure(spec_of()), ("frame_stack", {"frames": 3}))
    assert source.spec.stack == 3
    life, _ = lived(source)
    np.testing.assert_array_equal(life.observation, stacked(plain().observation, plain().step_type == 0, 3))


def test_the_time_in_the_episode_is_appended() -> None:
    """From -0.5 at the start of each episode, by 0.1 in each step."""
    source = made(pure(spec_of()), ("time_in_episode", {"limit": 10}))
    life, _ = lived(source)
    size = source.spec.observation.shape[0] - 1
    np.testing.assert_array_equal(life.observation[..., :size], plain().observation)
    age = np.zeros(2)
    for t, first in enumerate(plain().step_type == 0):
        age = np.where(first, 0, age + 1)
        np.testing.assert_allclose(life.observation[t, :, size], age / 10 - 0.5, atol=1e-6)
    assert (plain().step_type[1:] == 0).any()
    assert age.max() >= 2


@pytest.mark.parametrize("inner", [("permute_observations", {}), ("observation_noise", {"deviation": 0.3})])
def test_stacked_frames_are_altered_as_single_ones_are(inner: tuple[str, dict[str, Any]]) -> None:
    """A replay that stores the newest frame of each step holds what was seen."""
    stack = ("frame_stack", {"frames": 2})
    one, other = (made(pure(spec_of()), *chain) for chain in ((inner, stack), (stack, inner)))
    assert one.spec == other.spec
    np.testing.assert_array_equal(lived(one, 1)[0].observation, lived(other, 1)[0].observation)


def test_order_of_composition() -> None:
    clip, scale = ("clip_reward", {"low": -1.0, "high": 1.0}), ("scale_reward", {"factor": 10.0})
    for chain, reward in (((clip, scale), [10, 10, 0, 10]), ((scale, clip), [1, 1, 0, 1])):
        source = made(pure(spec_of()), *chain)
        life, score = lived(source, 0, ACTIONS[:4])
        assert life.reward[1:, 0].tolist() == reward
        assert source.spec.reward_range == (0, max(reward))
        assert score[:, 0].tolist() == [2, 1, 0, 2]
        assert source.spec.score_range == (0, 2)


def test_two_of_a_kind_have_keys_of_their_own() -> None:
    noise = ("observation_noise", {"deviation": 1.0})
    once, twice = (lived(made(pure(spec_of()), *[noise] * n))[0].observation for n in (1, 2))
    first, second = once - plain().observation, twice - once
    assert np.abs(first - second).min() > 1e-4
    scaled = lived(made(pure(spec_of()), ("scale_reward", {"factor": 2.0}), noise))[0].observation
    np.testing.assert_array_equal(scaled, once)  # others below it change nothing


def test_a_replica_has_the_same_problem_and_other_chance() -> None:
    source = made(pure(spec_of()), ("permute_observations", {}), ("observation_noise", {"deviation": 0.1}))
    one, other = (lived(source, 2, ACTIONS[:0], eval_replica=eval_replica)[0].observation for eval_replica in (0, 5))
    assert 0 < np.abs(one - other).max() < 0.9  # the observation's numbers are 1 apart or equal


def wide_life(*chain: tuple[str, dict[str, Any]]) -> TimeStep:
    """400 envs whose actions are 1 and then 2."""
    actions = np.array([[1] * 400, [2] * 400])
    return lived(made(pure(spec_of(envs=400)), *chain), 0, actions)[0]


def test_actions_stick_with_their_probability() -> None:
    life = wide_life(("sticky_actions", {"probability": 0.3}))
    np.testing.assert_array_equal(life.reward[1], 1)  # an episode's first action has none before it
    assert set(life.reward[2].tolist()) == {1.0, 2.0}
    assert abs((life.reward[2] == 1).mean() - 0.3) < 4 * math.sqrt(0.21 / 400)


def test_certainly_sticky_actions_are_the_first_of_the_episode() -> None:
    life, _ = lived(made(pure(spec_of()), ("sticky_actions", {"probability": 1.0})))
    first = np.stack([*[ACTIONS[0]] * 4, [0, 0], *[ACTIONS[5]] * 4])
    np.testing.assert_array_equal(life.reward[1:], first)


def test_noise_has_its_deviation() -> None:
    shown, seen = (wide_life(*chain).observation for chain in ([("observation_noise", {"deviation": 0.5})], []))
    noise = (shown - seen).reshape(-1)  # 3600 numbers
    assert abs(noise.mean()) < 4 * 0.5 / 60
    assert abs(noise.std() - 0.5) < 4 * 0.5 / math.sqrt(7200)
    assert len(set(noise.tolist())) > 3000


def offset_of(task: int, eval_replica: int = 0, moment: int = 0, **settings: Any) -> np.ndarray:
    """The vector that is added to all observations [1 + T, E, 3] of a visit to a task."""
    now = {"visit": task, "eval_replica": eval_replica, "moment": moment}
    source = made(pure(spec_of()), ("observation_offset", {"deviation": 2.0, **settings}))
    shown, plain = (lived(each, which, **now)[0] for each, which in ((source, task), (pure(spec_of()), 0)))
    added = shown.observation - plain.observation
    np.testing.assert_allclose(added, np.broadcast_to(added[:1, :1], added.shape), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, shown._replace(observation=0), plain._replace(observation=0))
    vector: np.ndarray = added[0, 0]
    return vector


def test_offsets_are_vectors_of_the_task() -> None:
    """Zero in the first; the same in every step, env and replica; another in each task, drawn as documented."""
    vectors = [offset_of(task) for task in range(3)]
    np.testing.assert_array_equal(vectors[0], 0)
    assert len({vector.round(4).tobytes() for vector in vectors}) == 3
    np.testing.assert_allclose(offset_of(2, eval_replica=5), vectors[2], atol=1e-5)
    np.testing.assert_allclose(offset_of(2, first="offset"), vectors[2], atol=1e-5)
    assert np.abs(offset_of(0, first="offset")).min() > 0
    np.testing.assert_allclose(offset_of(1, deviation=1.0), vectors[1] / 2, atol=1e-5)


def test_offsets_move_linearly_over_a_share_of_the_visit() -> None:
    """Over 4 of 8 steps: after one step a quarter of the way."""
    old, new = offset_of(1), offset_of(2)
    np.testing.assert_allclose(offset_of(2, moment=1, gradual=0.5), old + (new - old) / 4, atol=1e-5)
    np.testing.assert_allclose(offset_of(2, moment=6, gradual=0.5), new, atol=1e-5)


def test_offsets_have_their_deviation() -> None:
    inner = relabelled(inputs="gaussian", samples=2, dimensions=4000, envs=1, tasks=2)
    shown, plain = (
        lived(each, 1, ())[0].observation for each in (made(inner, ("observation_offset", {"deviation": 2.0})), inner)
    )
    added = (shown.input - plain.input)[0, 0]
    assert abs(added.mean()) < 5 * 2 / math.sqrt(4000)
    assert abs(added.std() - 2) < 5 * 2 / math.sqrt(8000)
    np.testing.assert_array_equal(shown.target, plain.target)


@pytest.mark.parametrize("what", ["places", "whole"])
def test_places_drop_out_with_their_probability(what: str) -> None:
    shown, seen = (
        wide_life(*chain).observation for chain in ([("observation_dropout", {"probability": 0.25, "what": what})], [])
    )
    gone = shown == 0
    np.testing.assert_array_equal(shown[~gone], seen[~gone])
    count = 3600 if what == "places" else 1200
    assert abs(gone.mean() - 0.25) < 4 * math.sqrt(0.1875 / count)
    assert (gone.all(-1) | ~gone.any(-1)).all() == (what == "whole")


def test_real_valued_actions_change_their_sign() -> None:
    actions = np.ones((2, 2, 2), np.float32)
    source = made(pure(spec_of(discrete=False)), ("permute_actions", {}))
    assert plans(source.spec) == [0, 1, 0]
    assert [lived(source, task, actions)[0].reward[1, 0] for task in range(2)] == [2.0, -2.0]
    half = made(pure(spec_of(discrete=False)), ("permute_actions", {"gradual": 0.5}))
    assert lived(half, 1, actions, moment=1)[0].reward[1, 0] == 1.0
    stuck = made(pure(spec_of(discrete=False)), ("sticky_actions", {"probability": 1.0}))
    assert lived(stuck, 0, np.array([[[1.0, 2.0]] * 2, [[5.0, 5.0]] * 2]))[0].reward[2, 0] == 3.0


def test_discrete_actions_do_what_others_did() -> None:
    source = made(pure(spec_of()), ("permute_actions", {"first": "permuted"}))
    for task in range(3):
        did = [lived(source, task, np.full((1, 2), a))[0].reward[1, 0] for a in range(3)]
        assert sorted(did) == [0, 1, 2] != did or task > 0


def test_channels_of_images_are_permuted_together() -> None:
    spec = spec_of()._replace(observation=jax.ShapeDtypeStruct((2, 2, 5), jnp.float32))
    picture = np.arange(20, dtype=np.float32).reshape(2, 2, 5)
    stream = pure(spec_of())

    def make(lanes: int) -> Any:
        inner = stream.make(lanes)
        show = jnp.broadcast_to(picture, (lanes, 2, 2, 2, 5))

        def reset(keys: Any, visit: Any, block: Any) -> Any:
            state, timestep = inner.reset(keys, visit, block)
            return state, timestep._replace(observation=show)

        return inner._replace(spec=spec, reset=reset)

    shown = {
        what: lived(made(StreamFactory(spec, make), ("permute_observations", {"what": what})), 1, ())[0].observation[
            0, 0
        ]
        for what in ("pixels", "channels")
    }
    assert not np.array_equal(shown["channels"], picture)
    order = shown["channels"][0, 0].astype(int)
    np.testing.assert_array_equal(shown["channels"], picture[..., order])
    assert sorted(shown["pixels"].reshape(-1)) == list(range(20))
    assert not np.array_equal(shown["pixels"] % 5, picture[..., shown["pixels"][0, 0].astype(int) % 5] % 5)


# Tasks and visits.


def plans(spec: StreamSpec) -> list[int]:
    return [plan.task for plan in spec.visits]


def test_visits_become_tasks() -> None:
    spec = spec_of(tasks=2, visits=4)
    plan = divided(spec, "visit")
    assert plan.spec.tasks == ("add_0_0", "add_1_1", "add_0_2", "add_1_3")
    assert plans(plan.spec) == [0, 1, 2, 3]
    assert plan.inner.tolist() == [0, 1, 0, 1]
    assert plan.problem.tolist() == [0, 1, 2, 3]
    same = divided(spec, "task")
    assert same.spec == spec
    assert same.inner.tolist() == same.problem.tolist() == [0, 1]


def test_visits_that_share_task_and_value_are_one_task() -> None:
    plan = divided(spec_of(tasks=2, visits=7), "visit", 3)
    assert plan.spec.tasks == ("add_0_0", "add_1_1", "add_0_2", "add_1_0", "add_0_1", "add_1_2")
    assert plans(plan.spec) == [0, 1, 2, 3, 4, 5, 0]
    names = divided(spec_of(tasks=3, visits=6), "visit", 3)
    assert names.spec == spec_of(tasks=3, visits=6)  # each task has one value: its name stays


def test_lengths_are_those_of_the_visits() -> None:
    spec = spec_of()._replace(visits=(VisitPlan(0, 5), VisitPlan(0, 7)))
    assert divided(spec, "visit").steps.tolist() == [5, 7]
    assert divided(spec, "task").steps.tolist() == [5]


def test_a_schedule_may_bring_a_visit_again_with_the_task_that_it_wraps() -> None:
    source = made(pure(spec_of(tasks=2, visits=4)), ("permute_actions", {}))
    again = scheduled(source.spec, visits=["add_1_3", 0, 3])
    assert plans(again) == [3, 0, 3]
    one, other = (lived(source, 3, ACTIONS[:4], visit=visit)[0] for visit in (0, 2))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert (one.observation[..., 0] == 2).all()  # 1 + the wrapped stream's task


def test_inputs_of_a_supervised_stream_are_permuted() -> None:
    inner = relabelled(inputs="gaussian", samples=9, dimensions=6, envs=2, tasks=3, classes=4)
    source = made(inner, ("permute_observations", {}))
    one, other = (lived(each, 2, ACTIONS[:2])[0] for each in (inner, source))
    jax.tree.map(
        np.testing.assert_array_equal,
        one._replace(observation=one.observation.target),
        other._replace(observation=other.observation.target),
    )
    assert not np.array_equal(one.observation.input, other.observation.input)
    np.testing.assert_array_equal(np.sort(one.observation.input), np.sort(other.observation.input))
    noisy = made(inner, ("observation_noise", {}))
    assert 0 < np.abs(lived(noisy, 2, ACTIONS[:1])[0].observation.input - one.observation.input[:2]).max() < 1


# Errors.

SUPERVISED = (
    "clip_reward", "delay_reward", "flip_reward", "frame_stack", "permute_actions", "scale_reward", "sticky_actions",
    "time_in_episode",
)  # fmt: skip


@pytest.mark.parametrize("name", SUPERVISED)
def test_what_makes_no_sense_on_a_supervised_stream_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: not allowed on a supervised stream"):
        TRANSFORMS[name]()(relabelled(inputs="gaussian", samples=9, dimensions=6, envs=2))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("scale_reward", {"factor": 0.0}, "factor: 0.0 is not allowed; must be greater than 0"),
        ("scale_reward", {"factor": ()}, "factor: .* is not allowed"),
        (
            "scale_reward",
            {"gradual": 1.5},
            r"gradual: 1.5 is not allowed; must be a fraction of the visit, in \[0, 1\]",
        ),
        ("clip_reward", {"low": 1.0, "high": 1.0}, "low: 1.0 is not allowed; must be below high"),
        ("delay_reward", {"steps": (1, -1)}, "steps: .* must be at least 0"),
        ("observation_noise", {"deviation": -0.1}, "deviation: -0.1 is not allowed; must be at least 0"),
        ("observation_noise", {"deviation": math.nan}, "deviation: NaN is not allowed; must be at least 0"),
        ("observation_dropout", {"probability": 1.1}, "probability: 1.1 is not allowed"),
        ("observation_offset", {"deviation": -2.0}, "deviation: -2.0 is not allowed; must be a number of at least 0"),
        ("observation_offset", {"deviation": math.inf}, "deviation: inf is not allowed"),
        ("sticky_actions", {"probability": (0.5, 2.0)}, r"in \[0, 1\], or a list of such numbers"),
        ("frame_stack", {"frames": 0}, "frames: 0 is not allowed; must be at least 1"),
        ("permute_observations", {"gradual": -0.1}, "gradual: -0.1 is not allowed"),
        ("permute_actions", {"gradual": 2.0}, "gradual: 2.0 is not allowed"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TRANSFORMS[name](**settings)


def showing(**fields: Any) -> StreamFactory:
    spec = spec_of()._replace(**fields)
    return StreamFactory(spec, pure(spec_of()).make)


def test_bad_streams() -> None:
    pixels = jax.ShapeDtypeStruct((4, 8, 8), jnp.uint8)
    with pytest.raises(ValueError, match="observation_noise: not allowed on uint8 observations"):
        TRANSFORMS["observation_noise"]()(showing(observation=pixels))
    with pytest.raises(ValueError, match="observation_offset: not allowed on uint8 observations"):
        TRANSFORMS["observation_offset"]()(showing(observation=pixels))
    with pytest.raises(ValueError, match="what: channels is not allowed; it needs images with channels"):
        TRANSFORMS["permute_observations"](what="channels")(showing())
    with pytest.raises(ValueError, match="what: channels is not allowed"):
        TRANSFORMS["permute_observations"](what="channels")(showing(observation=pixels, stack=4))
    with pytest.raises(ValueError, match="already stacks 4 frames"):
        TRANSFORMS["frame_stack"]()(showing(observation=pixels, stack=4))
    for fields, message in (
        (
            {"observation": pixels},
            r"time_in_episode: not allowed on observations of shape \(4, 8, 8\); must be vectors",
        ),
        ({"observation": jax.ShapeDtypeStruct((4,), jnp.uint8)}, "time_in_episode: not allowed on uint8 observations"),
        ({"episodic": False}, "time_in_episode: not allowed on a stream without episodes"),
    ):
        with pytest.raises(ValueError, match=message):
            TRANSFORMS["time_in_episode"]()(showing(**fields))
    with pytest.raises(ValueError, match="needs observations that are one array"):
        TRANSFORMS["observation_dropout"]()(showing(observation={"a": pixels, "b": pixels}))


def test_noise_makes_real_numbers_of_bits() -> None:
    source = TRANSFORMS["observation_noise"]()(minatar(games=["breakout"]))
    assert source.spec.observation == jax.ShapeDtypeStruct((10, 10, 4), jnp.float32)


def test_ranges_of_rewards() -> None:
    ranges = {
        name: made(showing(reward_range=(-2.0, 3.0)), (name, settings)).spec.reward_range
        for name, settings in (
            ("scale_reward", {"factor": (1.0, 10.0)}),
            ("clip_reward", {}),
            ("flip_reward", {}),
            ("delay_reward", {"steps": 1}),
        )
    }
    assert ranges == {
        "scale_reward": (-20, 30), "clip_reward": (-1, 1), "flip_reward": (-3, 3), "delay_reward": (-4, 6),
    }  # fmt: skip


def test_what_is_recorded_keeps_its_range_unless_it_is_flipped() -> None:
    chains: tuple[tuple[tuple[str, dict[str, Any]], ...], ...] = (
        (("scale_reward", {"factor": 10.0}),),
        (("clip_reward", {}), ("delay_reward", {"steps": 1})),
        (("clip_reward", {}), ("flip_reward", {})),
    )
    found = [made(showing(reward_range=(-2.0, 3.0)), *chain).spec.score_range for chain in chains]
    assert found == [(-2, 3), (-2, 3), (-3, 3)]
