"""Plays a stream the way the runner does: one jitted reset, one jitted scan of steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.core.types import LAST, Clock, Stream, Visit
from plasticity.envs.base import StreamFactory


def lane_keys(*seeds: int) -> jax.Array:
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(7), seed))(jnp.asarray(seeds))


def visit_of(index: int, task: int | None = None) -> Visit:
    return Visit(jnp.int32(index), jnp.int32(index if task is None else task))


def clock_at(step: Any, visit: Any = 0) -> Clock:
    return Clock(jnp.int32(step), jnp.int32(step), jnp.int32(visit), jnp.int32(step))


class Player(NamedTuple):
    """``reset`` and ``steps`` are compiled once; ``traces`` grows by one at each tracing of either."""

    stream: Stream
    reset: Any
    steps: Any
    traces: list[str]


def player(stream: Stream) -> Player:
    traces: list[str] = []

    def reset(keys: Any, visit: Visit, block: Any) -> Any:
        traces.append("reset")
        return stream.reset(keys, visit, block)

    def steps(keys: Any, state: Any, actions: Any, start: Any) -> Any:
        traces.append("steps")

        def body(state: Any, now: Any) -> Any:
            step, action = now
            return stream.step(keys, state, action, clock_at(step))

        return jax.lax.scan(body, state, (start + jnp.arange(len(actions)), actions))

    return Player(stream, jax.jit(reset), jax.jit(steps), traces)


def play(player: Player, keys: Any, visit: Visit, actions: Any, start: int = 0) -> Any:
    """The time steps of one visit as NumPy arrays ``[1 + T, W, E, ...]``."""
    state, opening = player.reset(keys, visit, jnp.int32(0))
    state, rest = player.steps(keys, state, actions, jnp.int32(start))
    return jax.tree.map(lambda a, b: np.concatenate([np.asarray(a)[None], np.asarray(b)]), opening, rest)


def random_actions(stream: Stream, steps: int, lanes: int, seed: int = 0) -> np.ndarray:
    """Actions ``[T, W, E, ...]``, the same for every lane."""
    spec, draw = stream.spec, np.random.default_rng(seed)
    if spec.discrete:
        one = draw.integers(0, spec.actions, (steps, 1, spec.envs)).astype(np.int32)
    else:
        one = draw.normal(size=(steps, 1, spec.envs, spec.actions)).astype(np.float32)
    return np.broadcast_to(one, (steps, lanes, *one.shape[2:]))


def assert_resumes_in_mid_visit(source: StreamFactory, task: int) -> None:
    """A copy that loads the stream's state after 40 steps of a visit continues exactly like the stream."""
    keys = lane_keys(4)
    whole, resumed = player(source.make(1)), player(source.make(1))
    actions = random_actions(whole.stream, 70, 1)
    state, _ = whole.reset(keys, visit_of(1, task), jnp.int32(0))
    state, _ = jax.block_until_ready(whole.steps(keys, state, actions[:40], jnp.int32(0)))
    resumed.stream.load(whole.stream.save())
    rest = [each.steps(keys, state, actions[40:], jnp.int32(40))[1] for each in (whole, resumed)]
    jax.tree.map(np.testing.assert_array_equal, *rest)
    assert (np.asarray(rest[0].step_type) == LAST).any()
    for each in (whole, resumed):
        each.stream.close()
