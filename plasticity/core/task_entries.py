"""The task as part of an observation: a one-hot vector at the end of the last axis.

Along the other axes it is constant: planes of an image with the channels last, columns of every frame of a stack.
"""

import jax.numpy as jnp

from plasticity.core.types import Array


def appended(observations: Array, task: Array, entries: int) -> Array:
    """Observations ``[B, ..., n]`` with a task's one-hot at the end, ``[B, ..., n + entries]``, of the same type.

    ``task`` is int32[], traced; ``entries`` (static) is the number of tasks. A one is 255 in unsigned bytes, which
    networks divide by 255.
    """
    one = 255 if observations.dtype == jnp.uint8 else 1
    hot = jnp.where(jnp.arange(entries) == task, one, 0).astype(observations.dtype)
    return jnp.concatenate([observations, jnp.broadcast_to(hot, (*observations.shape[:-1], entries))], axis=-1)


def separated(observations: Array, entries: int) -> tuple[Array, Array]:
    """The observations without the last ``entries`` (static) of the last axis, and these."""
    if not entries:  # the observation may be a single number
        return observations, jnp.zeros((0,))
    return observations[..., :-entries], observations[..., -entries:]


def replaced(observations: Array, tasks: Array, entries: int) -> Array:
    """Observations ``[B, ..., n + entries]`` with the one-hot of another task at the end of each row.

    ``tasks`` is int32[B], traced; -1 leaves a row as it is.
    """
    seen, own = separated(observations, entries)
    each = tasks.reshape(-1, *(1 for _ in own.shape[1:]))
    one = 255 if own.dtype == jnp.uint8 else 1
    other = jnp.where(jnp.arange(entries) == each, one, 0).astype(own.dtype)
    return jnp.concatenate([seen, jnp.where(each < 0, own, other)], axis=-1)


def with_entries(numbers: Array, task: Array) -> Array:
    """Real-valued ``[B, ..., n]`` with the entries of :func:`separated` at the end again, as zeros and ones."""
    return jnp.concatenate([numbers, (task > 0).astype(numbers.dtype)], axis=-1) if task.shape[-1] else numbers


def task_of(observations: Array, entries: int) -> Array:
    """int32[B]: the task of each row of ``[B, ..., n + entries]``; of a stack of frames, that of the newest one."""
    last = observations[(slice(None), *(-1 for _ in observations.shape[1:-1]))]
    return jnp.argmax(separated(last, entries)[1], axis=-1).astype(jnp.int32)
