"""What the hand-written learners share: their form, layers, and exploration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.core.types import Array, Key, Params

Draws = Callable[[Key, Array], Any]  # key of the lane, step -> the keys (or rows) that the step uses
Record = Mapping[str, Array]
ADAM = optax.adam(1e-3)


class Plain(NamedTuple):
    """A learner of one lane."""

    init: Callable[[Key], Any]  # key -> state
    chunk: Callable[[Any], tuple[Any, Record]]  # state -> the state some env steps later, and the metrics of a chunk


def two_keys(key: Key, step: Array) -> Key:
    """Two keys for a step."""
    return jax.random.split(jax.random.fold_in(key, step))


def he(key: Key, *shape: int) -> dict[str, Array]:
    """A kernel with He's initialisation, and a bias."""
    return {"kernel": jax.nn.initializers.he_normal()(key, shape), "bias": jnp.zeros(shape[-1])}


def stack(key: Key, shapes: Sequence[tuple[int, ...]], init: Callable[..., dict[str, Array]] = he) -> Params:
    """The parameters of some layers, the last of them the output layer."""
    names = [f"hidden_{i}" for i in range(len(shapes) - 1)] + ["output"]
    draws = jax.random.split(key, len(shapes))
    return {name: init(draw, *shape) for name, draw, shape in zip(names, draws, shapes, strict=True)}


def dense(layer: Mapping[str, Array], x: Array) -> Array:
    return x @ layer["kernel"] + layer["bias"]


def convolved(layer: Mapping[str, Array], x: Array) -> Array:
    """``x[B, H, W, C]`` convolved without padding, as one matrix product (``lax.conv`` is slow in loops on a CPU)."""
    rows, columns, _, filters = layer["kernel"].shape
    high, wide = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    patches = [x[:, i : i + high, j : j + wide] for i in range(rows) for j in range(columns)]
    return jnp.concatenate(patches, -1) @ layer["kernel"].reshape(-1, filters) + layer["bias"]


def epsilon_greedy(key: Key, q: Array, epsilon: Array) -> Array:
    """An action for ``q[actions]``."""
    coin, choice = jax.random.split(key)
    uniform = jax.random.randint(choice, (1,), 0, len(q))[0]
    return jnp.where(jax.random.uniform(coin, (1,))[0] < epsilon, uniform, jnp.argmax(q))


def annealed(step: Array, duration: int, end: float = 0.01) -> Array:
    """Epsilon, falling linearly from 1 to ``end``."""
    done = jnp.clip(step / duration, 0.0, 1.0)
    return 1.0 - done + done * end


def mean_where(valid: Array, values: Array) -> Array:
    return jnp.sum(jnp.where(valid, values, 0.0)) / jnp.maximum(jnp.sum(valid), 1)


def per_update(made: Mapping[str, Array], made_updates: Array) -> dict[str, Array]:
    """Means over the updates of a chunk; values are 0 where there was none."""
    updates = jnp.maximum(jnp.sum(made_updates), 1)
    return {name: jnp.sum(values) / updates for name, values in made.items()}
