"""Label noise: labels of training samples that are replaced by random ones."""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field

from plasticity.core.errors import shown
from plasticity.core.types import Array, Key, Visit
from plasticity.envs.supervised import learns

NOISE = 3  # tag of its key, beside ``INPUTS``, ``TARGETS`` and ``LABELS`` of ``envs.supervised``

Share = Annotated[float, Field(ge=0, le=1)]
Shares = Share | Annotated[tuple[Share, ...], Field(min_length=1)]  # one number, or a list to cycle through


class LabelNoise(NamedTuple):
    """The noise of a stream (static)."""

    probabilities: tuple[float, ...]  # of a label to be replaced in task u: entry ``u % n``
    rows: int  # samples


def listed(shares: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(shares) if isinstance(shares, Sequence) else (shares,)


def noise_of(label_noise: float | Sequence[float], rows: int, real: bool = False) -> LabelNoise | None:
    """The noise that the setting ``label_noise`` asks for; None: none. ``ValueError`` for ``real`` targets."""
    probabilities = listed(label_noise)
    if not any(probabilities):
        return None
    if real:
        raise ValueError(f"label_noise: {shown(label_noise)} is not allowed with real-valued targets; must be 0")
    return LabelNoise(probabilities, rows)


def replaced_labels(noise: LabelNoise | None, key: Key, visit: Visit, classes: int | Array) -> Any:
    """The labels that replace those of the samples in a task.

    ``label_i <- uniform over 0 ... classes - 1`` with probability p, independently for each sample i. The true class
    may be drawn too, so that a label differs from the true one with probability ``p (1 - 1 / classes)``. Each sample
    and task has one draw, which depends only on the key and the task.

    Args:
      key: of the visit's parameters.
      classes: int32[] may be traced.

    Returns:
      int32[rows], -1 where a sample keeps its label: everywhere in an evaluation. () without noise.
    """
    if noise is None:
        return ()
    where, what = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, NOISE), visit.task))
    probability = jnp.asarray(noise.probabilities, jnp.float32)[visit.task % len(noise.probabilities)]
    chosen = jax.random.bernoulli(where, probability, (noise.rows,)) & learns(visit)
    return jnp.where(chosen, jax.random.randint(what, (noise.rows,), 0, classes), -1)


def noisy_label(replaced: Any, row: Any, label: Array) -> Array:
    """The label to learn from: that of :func:`replaced_labels` if the row (or rows) has one, else ``label``."""
    if isinstance(replaced, tuple):
        return label
    return jnp.where(replaced[row] < 0, label, replaced[row])
