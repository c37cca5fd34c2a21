"""Counts and running moments at 1e9 samples, against exact fractions and closed forms."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.core import counting
from plasticity.core.counting import Count, Moments, Precise


def exact(number: Precise) -> Fraction:
    return Fraction(float(number.value)) + Fraction(float(number.carry))


def whole(number: Count) -> int:
    return (int(number.high) << 32) + int(number.low)


@pytest.mark.parametrize("start", [0, 2**24 - 1, 2**31 - 1, 2**32 - 1, 10**10])
def test_a_count_is_exact_beyond_the_words_it_is_made_of(start: int) -> None:
    number = counting.count(start)
    for more in (1, 2, 5, 2**32 - 1):
        number, start = counting.counted(number, jnp.asarray(more, jnp.uint32)), start + more
        assert whole(number) == start
        np.testing.assert_allclose(counting.as_float(number), start, rtol=2e-7)


def test_a_compensated_sum_is_that_of_fractions() -> None:
    terms = np.random.default_rng(0).normal(1e-6, 1e-3, size=3000).astype(np.float32)

    def add(number: Precise, term: jax.Array) -> tuple[Precise, None]:
        return counting.plus(number, term), None

    start = Precise(jnp.float32(12345.678), jnp.float32(1e-5))
    found = jax.jit(lambda number: jax.lax.scan(add, number, jnp.asarray(terms))[0])(start)
    expected = exact(start) + sum(Fraction(float(x)) for x in terms)
    assert abs(exact(found) - expected) < Fraction(1, 10**8)
    assert abs(found.carry) <= np.spacing(found.value) / 2
    same = counting.plus(found, jnp.zeros(()))
    assert (float(same.value), float(same.carry)) == (float(found.value), float(found.carry))


@pytest.mark.parametrize(("value", "carry", "floor"), [(1.0, -1e-9, 0), (1.0, 0.0, 1), (0.75, 1e-9, 0), (3.0, 1e-8, 3)])
def test_the_floor_sees_the_carry(value: float, carry: float, floor: int) -> None:
    assert int(counting.floor(Precise(jnp.float32(value), jnp.float32(carry)))) == floor


@pytest.mark.parametrize("size", [1, 1000, 1024, 1025, 5_000_000])
def test_a_long_sum_loses_no_small_terms(size: int) -> None:
    np.testing.assert_allclose(jax.jit(counting.total)(jnp.full(size, 0.1)), size * float(np.float32(0.1)), rtol=1e-5)


def test_no_sum_of_ones_stops() -> None:
    """20 million ones; a plain float32 sum stops at 2^24."""
    assert float(jax.jit(counting.total)(jnp.ones(20_000_000))) == 20_000_000


@pytest.mark.parametrize("masked", [False, True])
def test_a_batch_is_taken_about_the_mean_so_far(masked: bool) -> None:
    """Values that differ in the last digits of a million keep their variance."""
    values = (1e6 + np.random.default_rng(1).integers(0, 9, size=(64, 2)) / 8).astype(np.float32)
    counts = np.arange(64) % 3 != 0 if masked else np.ones(64, bool)
    values[~counts] = np.inf  # what does not count is not looked at
    centre = Precise(jnp.full(2, 1e6, jnp.float32), jnp.full(2, 0.01, jnp.float32))
    step, variance = counting.batch_moments(jnp.asarray(values), jnp.asarray(counts), centre)
    met = values[counts].astype(np.float64)
    np.testing.assert_allclose(step, met.mean(0) - 1e6 - 0.01, rtol=1e-5)
    np.testing.assert_allclose(variance, met.var(0), rtol=1e-5)


def test_moments_merge_as_in_exact_arithmetic_and_under_vmap() -> None:
    rng = np.random.default_rng(2)
    batches = rng.normal([3.0, 100.0, -0.01], [1.0, 0.1, 5.0], size=(40, 8, 3)).astype(np.float32)

    def whole_run(batches: Any) -> Moments:
        found = counting.moments(batches.shape[2:])
        for i, batch in enumerate(batches):
            step, variance = counting.batch_moments(batch, jnp.ones(len(batch), bool), found.mean)
            found = counting.merged(found, jnp.float32(1 / (i + 1)), step, variance)
        return found

    found = jax.jit(whole_run)(batches)
    lanes = jax.jit(jax.vmap(whole_run, in_axes=3))(np.stack([batches, batches[::-1]], -1))
    flat = batches.reshape(-1, 3).astype(np.float64)
    for one in (found, *(jax.tree.map(lambda x, i=i: x[i], lanes) for i in range(2))):
        np.testing.assert_allclose(one.mean.value, flat.mean(0), rtol=2e-6)
        np.testing.assert_allclose(one.variance.value, flat.var(0), rtol=2e-6)
