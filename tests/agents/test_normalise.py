"""Statistics of observations and rewards against NumPy and by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.agents.normalise import RewardScale, Statistics, blank, deviation, include, preprocessing
from plasticity.core.counting import Moments, count, precise
from plasticity.core.types import FIRST, LAST, MID, Clock, StreamSpec, TimeStep, Transition, VisitPlan

SPEC = StreamSpec(jax.ShapeDtypeStruct((3,), jnp.float32), 4, ("a",), (VisitPlan(0, 60),), 1, True)


def clock(step: int, in_visit: int | None = None) -> Clock:
    return Clock(*(jnp.int32(x) for x in (step, step, 0, step if in_visit is None else in_visit)))


def pair(previous: Any, current: Any, kind: int = MID, reward: Any = 0.0, discount: float = 1.0) -> Transition:
    """A pair of time steps of one env; observations that are not floats keep their type."""
    before, after = (jnp.asarray(x)[None] for x in (previous, current))
    shaped = jnp.asarray(reward, jnp.float32).reshape(-1)

    def step(kind: int, observation: Any) -> TimeStep:
        return TimeStep(jnp.full(shaped.shape, kind, jnp.int8), shaped, jnp.full(shaped.shape, discount), observation)

    return Transition(step(MID, before), jnp.zeros(shaped.shape, jnp.int32), step(kind, after))


def seeing(spec: StreamSpec = SPEC, **settings: Any) -> Any:
    whole = {"normalise": "running", "rate": 0.1, "scale_rewards": False, "discount": 0.9} | settings
    return preprocessing(spec, **whole)


@pytest.mark.parametrize("batch", [1, 4])
def test_running_statistics_are_numpys(batch):
    values = np.random.default_rng(0).normal(3.0, [1.0, 0.01, 50.0], size=(25, batch, 3)).astype(np.float32)
    statistics = blank((3,))
    for t, seen in enumerate(values):
        statistics = include(statistics, seen)
        met = values[: t + 1].reshape(-1, 3).astype(np.float64)
        np.testing.assert_allclose(statistics.mean, met.mean(0), rtol=1e-5)
        expected = met.var(0, ddof=1) if len(met) > 1 else 1.0
        np.testing.assert_allclose(deviation(statistics) ** 2, expected + 1e-8, rtol=1e-4)
    assert float(statistics.seen) == 25 * batch


def test_what_does_not_count_changes_nothing():
    values = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    statistics = include(blank(()), values[0])
    for rate in (None, 0.3):
        same = include(statistics, values[1], False, rate)
        for a, b in zip(same, statistics, strict=True):
            np.testing.assert_array_equal(a, b)
    some = include(statistics, values[1], jnp.array([True, False, True, False]))
    met = np.concatenate([values[0], values[1, [0, 2]]])
    np.testing.assert_allclose([some.mean, some.seen], [met.mean(), 6], rtol=1e-6)
    np.testing.assert_allclose(some.variance, met.var(), rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_exponential_statistics_are_weighted_averages(batch):
    rate, steps = 0.2, 30
    values = np.random.default_rng(1).normal(2.0, 3.0, size=(steps, batch)).astype(np.float32)
    statistics = blank(())
    for t, seen in enumerate(values):
        statistics = include(statistics, seen, True, rate)
        weights = np.repeat((1 - rate) ** np.arange(t, -1, -1.0), batch)
        mean = np.average(values[: t + 1].ravel(), weights=weights)
        variance = np.average((values[: t + 1].ravel() - mean) ** 2, weights=weights)
        np.testing.assert_allclose(statistics.mean, mean, rtol=1e-4)
        np.testing.assert_allclose(statistics.variance, variance, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rate", [1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.1, 0.3])
def test_a_constant_has_no_variance_whatever_the_rate(rate):
    """The variance is not negative either: the first weight, rate / (1 - (1 - rate)), may round to more than 1."""
    statistics = blank((2,))
    for _ in range(5):
        statistics = jax.jit(include)(statistics, jnp.array([[1.0, 0.3]]), True, rate)
        np.testing.assert_array_equal(statistics.variance, [0.0, 0.0])
        assert np.isfinite(deviation(statistics, rate)).all()


def test_a_constant_that_changes_is_off_by_the_root_of_its_age():
    """The trap of the 1/n average, whatever the size of the change; an exponential average bounds it."""
    for size in (0.5, 8.0):
        statistics = {n: include_constant(n, None, size) for n in (100, 1000)}
        for n, (before, after) in statistics.items():
            assert float(before) == 0.0
            np.testing.assert_allclose(after, np.sqrt(n), rtol=0.01)
        _, bounded = include_constant(1000, 0.01, size)
        np.testing.assert_allclose(bounded, np.sqrt(99), rtol=0.01)


def include_constant(n: int, rate: float | None, size: float) -> tuple[Any, Any]:
    """A pixel that was 1 for ``n`` steps and then changes: normalised before and at the change."""
    statistics = jax.lax.fori_loop(0, n, lambda i, s: include(s, jnp.ones(1), True, rate), blank(()))
    before = (1.0 - statistics.mean) / deviation(statistics, rate)
    new = 1.0 + size
    statistics = include(statistics, jnp.array([new]), True, rate)
    return before, (new - statistics.mean) / deviation(statistics, rate)


def test_every_observation_counts_once():
    """The first of a visit arrives as `previous`, all others, the first of an episode too, as `current`."""
    preprocessor = seeing()
    stream = np.random.default_rng(2).normal(size=(8, 3)).astype(np.float32)
    rest = preprocessor.init()
    met: list[Any] = []
    for t in range(7):
        met = met or [stream[0]]
        shown = preprocessor.act(rest, stream[t : t + 1], clock(t))
        np.testing.assert_allclose(shown[0], normal(stream[t], met), rtol=1e-4, atol=1e-5)
        kind = FIRST if t == 3 else MID
        rest, previous, current, _ = preprocessor.learn(rest, pair(stream[t], stream[t + 1], kind), clock(t))
        np.testing.assert_allclose(previous[0], normal(stream[t], met), rtol=1e-4, atol=1e-5)
        met.append(stream[t + 1])
        np.testing.assert_allclose(current[0], normal(stream[t + 1], met), rtol=1e-4, atol=1e-5)
        assert float(rest["normaliser"].seen) == len(met)
    born_later = stream[7:] + 5  # a new visit: its first observation was never `current`
    met.append(born_later[0])
    shown = preprocessor.act(rest, born_later, clock(7, in_visit=0))
    np.testing.assert_allclose(shown[0], normal(born_later[0], met), rtol=1e-4, atol=1e-5)
    again, previous, *_ = preprocessor.learn(rest, pair(born_later[0], stream[0]), clock(7, in_visit=0))
    np.testing.assert_array_equal(previous, shown)
    assert float(again["normaliser"].seen) == len(met) + 1


def normal(value: np.ndarray, met: list[Any]) -> np.ndarray:
    deviation = np.std(met, axis=0, ddof=1) if len(met) > 1 else 1.0
    return (value - np.mean(met, axis=0)) / deviation


def test_looking_and_playing_remember_nothing_and_use_what_is_known():
    preprocessor = seeing()
    rest, _, current, _ = preprocessor.learn(preprocessor.init(), pair(jnp.zeros(3), jnp.arange(3.0)), clock(0))
    np.testing.assert_array_equal(preprocessor.play(rest, jnp.arange(3.0)[None]), current)
    np.testing.assert_array_equal(preprocessor.look(rest, pair(jnp.zeros(3), jnp.arange(3.0)))[1], current)


def test_the_switch_mode_resets_the_statistics():
    for normalise in ("running", "exponential", "switch", "none"):
        preprocessor = seeing(normalise=normalise, scale_rewards=True)
        rest, *_ = preprocessor.learn(preprocessor.init(), pair(jnp.zeros(3), jnp.arange(3.0), reward=2.0), clock(0))
        after = preprocessor.switch({**rest, "schedule": 7})
        assert after["schedule"] == 7
        known = float(after["reward_scale"].statistics.seen)
        assert known == (0 if normalise == "switch" else 1)
        assert ("normaliser" in after) == (normalise != "none")
        if normalise != "none":
            assert float(after["normaliser"].seen) == (0 if normalise == "switch" else 2)


def test_without_normalisation_observations_stay_as_they_are():
    spec = SPEC._replace(observation=jax.ShapeDtypeStruct((3,), jnp.uint8))
    preprocessor = seeing(spec, normalise="none")
    assert preprocessor.observation.dtype == jnp.uint8
    assert preprocessor.init() == {}
    seen = preprocessor.play({}, jnp.array([[1, 2, 3]], jnp.uint8))
    assert seen.dtype == jnp.uint8
    assert seeing(spec).observation.dtype == jnp.float32  # normalised pixels are not divided by 255
    np.testing.assert_allclose(preprocessor.learn({}, pair(jnp.zeros(3), jnp.ones(3), reward=2.0), clock(0))[3], 2.0)


def test_a_stack_is_normalised_by_the_statistics_of_its_newest_frames():
    frames = np.random.default_rng(3).integers(0, 255, size=(6, 2, 2)).astype(np.uint8)
    spec = SPEC._replace(observation=jax.ShapeDtypeStruct((3, 2, 2), jnp.uint8), stack=3)
    preprocessor = seeing(spec)
    rest = preprocessor.init()
    for t in range(3):
        rest, _, current, _ = preprocessor.learn(rest, pair(frames[t : t + 3], frames[t + 1 : t + 4]), clock(t))
    newest = frames[2:6].astype(np.float64)
    assert rest["normaliser"].mean.shape == (2, 2)
    np.testing.assert_allclose(rest["normaliser"].mean, newest.mean(0), rtol=1e-5)
    np.testing.assert_allclose(current[0], (frames[3:6] - newest.mean(0)) / newest.std(0, ddof=1), rtol=1e-4)


def test_rewards_by_hand():
    """gamma 1/2. u: 2; 1 + 1 = 2 -> 3; cut off: 4 (the old sum goes); FIRST ignored; lost life: 6; then 3 + 1 = 4."""
    preprocessor = seeing(normalise="none", scale_rewards=True, discount=0.5)
    rest = preprocessor.init()
    story = [(MID, 2.0, 1.0), (MID, 2.0, 1.0), (LAST, 4.0, 1.0), (FIRST, 0.0, 1.0), (MID, 6.0, 0.0), (MID, 1.0, 1.0)]
    sums, met = [2.0, 3.0, 4.0, 4.0, 6.0, 4.0], []
    for t, ((kind, reward, discount), total) in enumerate(zip(story, sums, strict=True)):
        zeros = jnp.zeros(3)
        rest, _, _, scaled = preprocessor.learn(rest, pair(zeros, zeros, kind, reward, discount), clock(t))
        np.testing.assert_allclose(rest["reward_scale"].total, [total])
        met += [total] if kind != FIRST else []
        deviation = np.sqrt((np.var(met, ddof=1) if len(met) > 1 else 1.0) + 1e-8)
        np.testing.assert_allclose(scaled, [reward / deviation], rtol=1e-5)
    np.testing.assert_allclose(preprocessor.look(rest, pair(zeros, zeros, reward=1.0))[2], [1 / deviation], rtol=1e-5)


def test_the_envs_of_a_lane_share_their_statistics():
    spec = SPEC._replace(envs=2)
    preprocessor = seeing(spec, scale_rewards=True)
    observation = jnp.array([[0.0, 1.0, 2.0], [4.0, 5.0, 6.0]])
    step = TimeStep(jnp.array([MID, FIRST], jnp.int8), jnp.array([2.0, 0.0]), jnp.ones(2), observation)
    rest, *_ = preprocessor.learn(preprocessor.init(), Transition(step, jnp.zeros(2, jnp.int32), step), clock(0))
    assert float(rest["normaliser"].seen) == 4
    np.testing.assert_allclose(rest["normaliser"].mean, [2.0, 3.0, 4.0])
    assert float(rest["reward_scale"].statistics.seen) == 1
    np.testing.assert_array_equal(rest["reward_scale"].total, [2.0, 0.0])


def test_what_cannot_be_normalised_is_refused():
    with pytest.raises(ValueError, match=r"agent\.normalise: sometimes is not allowed; must be one of running"):
        seeing(normalise="sometimes")
    with pytest.raises(
        ValueError, match=r"agent\.normalise: not allowed on this stream; it needs observations that are one array"
    ):
        seeing(SPEC._replace(observation=(SPEC.observation,)))


def known(samples: int, mean: float, variance: float) -> Statistics:
    """Statistics of so many single values."""
    moments = Moments(precise(mean), precise(variance))
    return Statistics(count(samples), count(samples), moments)


def streamed(statistics: Statistics, values: Any, rate: float | None = None) -> Statistics:
    """The statistics after ``values [T, E]``."""

    def step(statistics: Statistics, batch: Any) -> tuple[Statistics, None]:
        return include(statistics, batch, True, rate), None

    return jax.jit(lambda s, v: jax.lax.scan(step, s, v)[0])(statistics, jnp.asarray(values, jnp.float32))


def merged(samples: int, mean: float, variance: float, values: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the whole, in double precision."""
    values = np.float32(values).astype(np.float64).ravel()
    whole, apart = samples + values.size, values.mean() - mean
    spread = samples * variance + values.size * values.var() + apart**2 * samples * values.size / whole
    return mean + apart * values.size / whole, spread / whole


def test_two_million_samples_more_move_ten_million() -> None:
    found = streamed(known(10_000_000, 10.0, 1.0), np.full((2_000_000 // 16, 16), 12.0))
    np.testing.assert_allclose(found.mean, 10 + 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(found.variance, (1e7 + 1e7 * 2e6 / 1.2e7 * 4) / 1.2e7, rtol=1e-5)
    assert float(found.seen) == 12_000_000


@pytest.mark.parametrize("samples", [2**24 - 3, 2**24, 10**9, 2**31 - 5, 2**32 - 5, 10**10])
@pytest.mark.parametrize("envs", [1, 8])
def test_statistics_at_their_limit(samples: int, envs: int) -> None:
    """Each value moves the mean by less than half the spacing of floats there; together they count."""
    values = np.random.default_rng(0).normal(300.0, 20.0, size=(20_000, envs))
    found = streamed(known(samples, 100.0, 4.0), values)
    mean, variance = merged(samples, 100.0, 4.0, values)
    np.testing.assert_allclose([found.mean, found.variance], [mean, variance], rtol=1e-6)
    moved = (exact(found.moments.mean) - 100) / (mean - 100), (exact(found.moments.variance) - 4) / (variance - 4)
    np.testing.assert_allclose(moved, 1.0, rtol=1e-4)
    assert (int(found.samples.high) << 32) + int(found.samples.low) == samples + values.size


def exact(number: Any) -> float:
    return float(number.value) + float(number.carry)


@pytest.mark.parametrize(("mean", "deviation"), [(100.0, 1.0), (0.1, None)], ids=["normal", "bernoulli"])
def test_millions_of_samples_one_by_one(mean: float, deviation: float | None) -> None:
    rng = np.random.default_rng(1)
    values = rng.random(4_000_000) < mean if deviation is None else rng.normal(mean, deviation, 1_000_000)
    found = streamed(blank(()), np.asarray(values)[:, None])
    expected = np.float32(values).astype(np.float64)
    np.testing.assert_allclose(found.mean, expected.mean(), rtol=3e-7)
    np.testing.assert_allclose(found.variance, expected.var(), rtol=3e-6)


def test_a_slow_exponential_average_does_not_stop() -> None:
    """At a rate of 1e-8 every step is below half the spacing of floats about 1."""
    rate = np.float32(1e-8)
    found = streamed(known(10**9, 1.0, 1.0)._replace(batches=count(2**40)), np.full((50_000, 1), 2.0), rate)
    kept = (1 - float(rate)) ** 50_000
    np.testing.assert_allclose(exact(found.moments.mean), 2 - kept, rtol=1e-6)
    np.testing.assert_allclose(exact(found.moments.variance), kept + kept * (1 - kept), rtol=1e-6)


def test_the_scale_of_rewards_at_its_limit() -> None:
    """A billion sums of variance 4, then rewards of 300 in episodes of one step, by two envs, of which one waits."""
    spec = SPEC._replace(envs=2)
    preprocessor = seeing(spec, normalise="none", scale_rewards=True)
    rest = {"reward_scale": RewardScale(jnp.zeros(2), known(10**9, 1.0, 4.0))}
    last = TimeStep(jnp.array([LAST, FIRST], jnp.int8), jnp.array([300.0, 0.0]), jnp.ones(2), jnp.zeros((2, 3)))
    pairs = Transition(last, jnp.zeros(2, jnp.int32), last)
    step = jax.jit(
        lambda rest: jax.lax.fori_loop(0, 20_000, lambda i, rest: preprocessor.learn(rest, pairs, clock(5))[0], rest)
    )
    scaled = preprocessor.look(step(rest), pairs)[2]
    _, variance = merged(10**9, 1.0, 4.0, np.full(20_000, 300.0))
    np.testing.assert_allclose(scaled[0], 300 / np.sqrt(variance), rtol=1e-6)


def test_lanes_under_vmap_count_alike() -> None:
    values = jnp.asarray(np.random.default_rng(0).normal(300.0, 20.0, size=(3, 500, 4)), jnp.float32)
    starts = [known(samples, 100.0, 4.0) for samples in (2**24, 2**32 - 700, 7)]
    together = jax.vmap(streamed)(jax.tree.map(lambda *x: jnp.stack(x), *starts), values)
    for lane, start in enumerate(starts):
        alone = streamed(start, values[lane])
        mine = jax.tree.map(lambda x, lane=lane: x[lane], together)
        assert (int(mine.samples.high), int(mine.samples.low)) == (int(alone.samples.high), int(alone.samples.low))
        np.testing.assert_allclose([mine.mean, mine.variance], [alone.mean, alone.variance], rtol=1e-6)


def test_the_sum_of_rewards_ends_where_a_task_switch_cuts_the_episode() -> None:
    """gamma 0.9, rewards 10, 10, 10 | 1: the sum of the first visit is 27.1, that of the next begins with 1."""
    preprocessor, zeros = seeing(normalise="none", scale_rewards=True), jnp.zeros(3)
    rest, sums = preprocessor.init(), []
    for t, (in_visit, reward) in enumerate(zip((0, 1, 2, 0, 1), (10.0, 10.0, 10.0, 1.0, 1.0), strict=True)):
        rest, *_ = preprocessor.learn(rest, pair(zeros, zeros, reward=reward), clock(t, in_visit))
        sums.append(float(rest["reward_scale"].total[0]))
    np.testing.assert_allclose(sums, [10.0, 19.0, 27.1, 1.0, 1.9], rtol=1e-6)
