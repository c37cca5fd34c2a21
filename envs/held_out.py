"""Held-out samples: those that a learner is evaluated on and never learns from."""

from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from plasticity.core.types import Array, Key
from plasticity.envs.samples import Samples

HeldOut = Annotated[float, Field(ge=0, le=1)] | Literal["test"]


class Split(NamedTuple):
    """The samples of a stream: those to learn from, then those held out (static)."""

    rows: Any  # int32[learning + held_out], row indices in this order; None: 0, 1, 2, ...
    learning: int  # the number of samples to learn from
    held_out: int  # 0: evaluations draw from the samples to learn from


def split_of(samples: Samples, held_out: float | str) -> Split:
    """Divide the samples.

    Args:
      samples: with those of the test split, if ``held_out`` is ``test``.
      held_out: ``test``, the test split; a fraction of each true class, its last samples (of samples without classes,
        the last of all), rounded; 0: none.

    Raises:
      ValueError: no test split, or no sample is left for one of the two.
    """
    if held_out == "test":
        if not samples.test:
            raise ValueError("held_out: test is not allowed; gaussian inputs have no test split, use a fraction")
        return Split(None, samples.size, samples.test)
    if held_out == 0:
        return Split(None, samples.size, 0)
    known = np.zeros(samples.size) if samples.labels is None else np.asarray(samples.labels)[: samples.size]
    _, group, sizes = np.unique(known, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    place_in_class = np.empty(samples.size, int)
    place_in_class[order] = np.arange(samples.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    last = place_in_class >= (sizes - np.round(float(held_out) * sizes))[group]
    check_split(held_out, samples.size, int((~last).sum()))
    rows = np.concatenate([np.flatnonzero(~last), np.flatnonzero(last)])
    return Split(jnp.asarray(rows, jnp.int32), int((~last).sum()), int(last.sum()))


def check_split(held_out: float | str, size: int, kept: int) -> None:
    """``ValueError`` if no sample is left to learn from, or none to evaluate on; ``kept`` of ``size`` are learned."""
    if kept < 1 or (held_out and kept == size):
        use = "training" if kept < 1 else "evaluation"
        raise ValueError(f"held_out: {held_out} is not allowed; it leaves none of the {size} samples for {use}")


def drawn_row(key: Key, split: Split, learning: Array) -> Array:
    """A row index int32[], uniform over the samples to learn from or, unless ``learning`` (bool[]), the others."""
    if not split.held_out:
        return jax.random.randint(key, (), 0, split.learning)
    number = jnp.where(learning, split.learning, split.held_out)
    place = jnp.where(learning, 0, split.learning) + jax.random.randint(key, (), 0, number)
    return place if split.rows is None else split.rows[place]
