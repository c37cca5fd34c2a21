"""Sampling stored transitions by their age, with weights that change linearly with it up to a bound."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity.core.schedules import Number
from plasticity.core.types import Array, Key


class Weights(NamedTuple):
    """The weight of the transitions of age ``a`` = 1, 2, ...: ``start + slope a`` up to age ``turn``, then ``end``."""

    start: Number
    slope: Number
    turn: Array  # float32[], a whole number
    end: Number

    def at(self, age: Array) -> Array:
        """The weights of these ages."""
        return jnp.where(age <= self.turn, self.start + self.slope * age, self.end)

    def up_to(self, age: Array) -> Array:
        """The sum of the weights of the ages 1 to ``age``, at most ``turn``."""
        return self.start * age + self.slope * age * (age + 1) / 2

    def whole(self, age: Array) -> Array:
        """The sum of the weights of the ages 1 to ``age``, however large."""
        turn = jnp.clip(self.turn, 0.0, age)
        return self.up_to(turn) + (age - turn) * self.end


def falling(duration: Number, least: Number) -> Weights:
    """``max(least, 1 - a / duration)``: the newest count most."""
    return Weights(1.0, -1.0 / jnp.asarray(duration), jnp.floor(duration * (1 - jnp.asarray(least))), least)


def rising(duration: Number, least: Number) -> Weights:
    """``min(1, least + a / duration)``: the oldest count most."""
    return Weights(least, 1.0 / jnp.asarray(duration), jnp.floor(duration * (1 - jnp.asarray(least))), 1.0)


RULES: Mapping[str, Callable[[Number, Number], Weights]] = {"new": falling, "old": rising}


def age_at(weights: Weights, share: Array, oldest: Array) -> Array:
    """The age, int32, up to which the ages 1 to ``oldest`` have the given share, in [0, 1), of the total weight.

    The inverse of the cumulative sum in closed form. Rounding may shift a boundary by the rounding error.
    """
    turn = jnp.clip(weights.turn, 0.0, oldest)
    before = weights.up_to(turn)
    target = share * (before + (oldest - turn) * weights.end)
    middle = weights.start + weights.slope / 2
    root = jnp.sqrt(jnp.maximum(jnp.square(middle) + 2 * weights.slope * target, 0.0))
    young = 2 * target / jnp.maximum(middle + root, jnp.finfo(jnp.float32).tiny)
    old = turn + (target - before) / jnp.maximum(weights.end, jnp.finfo(jnp.float32).tiny)
    age = jnp.floor(jnp.where(target < before, jnp.minimum(young, turn - 1), old)) + 1
    return jnp.clip(age, 1, oldest).astype(jnp.int32)


def drawn_ages(key: Key, weights: Weights, oldest: Array, number: int, above: Array | None = None) -> Array:
    """Draw ``number`` (static) ages from 1 to ``oldest`` independently, in proportion to their weights.

    With ``above``, int32[] below ``oldest``, only ages above it are drawn.
    """
    shares = jax.random.uniform(key, (number,))
    if above is None:
        return age_at(weights, shares, oldest)
    least = weights.whole(above) / jnp.maximum(weights.whole(oldest), jnp.finfo(jnp.float32).tiny)
    return jnp.maximum(age_at(weights, least + (1 - least) * shares, oldest), above + 1)
