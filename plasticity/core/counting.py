"""Counts, sums and running moments in single precision that remain accurate beyond 1e9 samples.

A float32 count stops growing at 2^24. A sum stops when a term is below half the spacing of floats there, and so does a
mean of ``n`` samples when ``(x - mean) / n`` is. Here a count is stored as two 32-bit words, and a sum or a mean as two
floats (Dekker 1971, "A floating-point technique for extending the available precision"; Knuth, "The Art of Computer
Programming", volume 2, section 4.2.2). Nothing needs 64-bit types.
"""

from typing import NamedTuple

import jax.numpy as jnp

from plasticity.core.types import Array

BLOCK = 1024  # terms that `total` sums naively


class Count(NamedTuple):
    """The whole number ``2^32 high + low``, uint32 of the same shape each; exact up to 2^64."""

    high: Array
    low: Array


class Precise(NamedTuple):
    """The number ``value + carry``, float32 of the same shape each: ``value`` is the float nearest to it."""

    value: Array
    carry: Array


class Moments(NamedTuple):
    """Mean and variance of a population (divided by the count), element by element."""

    mean: Precise
    variance: Precise


def count(number: int = 0) -> Count:
    """``number`` (static, at least 0) as a count, uint32[] each."""
    return Count(jnp.asarray(number >> 32, jnp.uint32), jnp.asarray(number & 0xFFFFFFFF, jnp.uint32))


def counted(so_far: Count, more: Array) -> Count:
    """``so_far + more``; ``more`` is a whole number from 0 to 2^32 - 1 of any integer type."""
    low = so_far.low + jnp.asarray(more).astype(jnp.uint32)
    return Count(so_far.high + (low < so_far.low).astype(jnp.uint32), low)


def as_float(number: Count) -> Array:
    """The count as float32, to the last digit or two."""
    return number.high.astype(jnp.float32) * 2.0**32 + number.low.astype(jnp.float32)


def precise(value: Array | float) -> Precise:
    """A float32 as a ``Precise`` number, unchanged."""
    value = jnp.asarray(value, jnp.float32)
    return Precise(value, jnp.zeros_like(value))


def zeros(shape: tuple[int, ...] = ()) -> Precise:
    return precise(jnp.zeros(shape, jnp.float32))


def plus(number: Precise, term: Array) -> Precise:
    """``number + term`` (float32), to about 2^-47 of the larger one; unchanged, bit for bit, if ``term`` is 0."""
    rough = number.value + term
    gone = rough - number.value
    carry = number.carry + ((number.value - (rough - gone)) + (term - gone))
    value = rough + carry
    return Precise(value, carry - (value - rough))


def minus(values: Array, number: Precise) -> Array:
    """``values - number``, float32: exact to the precision of float32."""
    return (values - number.value) - number.carry


def floor(number: Precise) -> Array:
    """The largest whole number that is not above ``number``, float32."""
    whole = jnp.floor(number.value)
    return whole - ((whole == number.value) & (number.carry < 0)).astype(jnp.float32)


def moments(shape: tuple[int, ...] = ()) -> Moments:
    """The initial moments, before any sample."""
    return Moments(zeros(shape), zeros(shape))


def batch_moments(values: Array, counts: Array, centre: Precise) -> tuple[Array, Array]:
    """A batch's mean as its distance from ``centre``, and its variance; 0 if no entry counts.

    ``values`` is float32[E, ...], ``counts`` bool[E], ``centre`` has the shape of one value. Distances are computed
    before summing, so that values far from 0 lose no digits.
    """
    counts = counts.reshape(-1, *(1 for _ in values.shape[1:]))
    number = jnp.maximum(jnp.sum(counts.astype(jnp.float32), 0), 1.0)
    apart = jnp.where(counts, minus(values, centre), 0.0)
    step = jnp.sum(apart, 0) / number
    return step, jnp.sum(jnp.where(counts, jnp.square(apart - step), 0.0), 0) / number


def merged(so_far: Moments, share: Array, step: Array, variance: Array) -> Moments:
    """The moments after adding a batch that makes up ``share`` (0 to 1) of the whole.

    ``step`` is the batch's mean minus the mean so far: ``mean <- mean + share step`` and
    ``v <- (1 - share) (v + share step^2) + share variance``. Chan, Golub, LeVeque 1983, "Algorithms for computing the
    sample variance".
    """
    growth = minus(variance, so_far.variance) + (1.0 - share) * jnp.square(step)
    return Moments(plus(so_far.mean, share * step), plus(so_far.variance, share * growth))


def total(values: Array) -> Array:
    """The sum of all numbers of an array of any length, float32: block by block, so that small terms are not lost."""
    flat = values.ravel()
    if flat.size <= BLOCK:
        return jnp.sum(flat)
    rows = -(-flat.size // BLOCK)
    flat = jnp.pad(flat, (0, rows * BLOCK - flat.size))
    return total(jnp.sum(flat.reshape(rows, BLOCK), 1))
