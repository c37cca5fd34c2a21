"""Q-learning from a uniform replay by hand, for ``dqn`` and ``c51``, which differ in their loss; MinAtar Breakout."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.bench.overhead import world
from plasticity.bench.overhead.plain import (
    ADAM,
    Draws,
    Plain,
    Record,
    annealed,
    convolved,
    dense,
    epsilon_greedy,
    mean_where,
    per_update,
    stack,
    two_keys,
)
from plasticity.bench.overhead.world import World
from plasticity.core.types import Array, Key, Params

DISCOUNT, DURATION = 0.99, 250_000
BATCH, PERIOD = 32, 4


class Rows(NamedTuple):
    """Stored steps, ``[capacity, ...]``, or a sample of them, ``[B, ...]``."""

    observation: Array
    first: Array  # the observation starts an episode
    action: Array
    reward: Array  # after the action
    discount: Array


class Batch(NamedTuple):
    observation: Array
    action: Array
    reward: Array
    discount: Array
    following: Array
    valid: Array  # False if the next observation starts an episode


class State(NamedTuple):
    key: Key
    step: Array
    updates: Array
    params: Params
    target: Params
    slots: Any
    rows: Rows
    world: World
    total: Array  # reward of the episode so far


class Loss(NamedTuple):
    outputs: int  # of the network
    values: Callable[[Params, Array], Array]  # observations [B, ...] -> action values
    losses: Callable[
        [Params, Params, Batch], tuple[Array, Array]
    ]  # params, target, batch -> losses [B], q [B, actions]


def network(params: Params, observations: Array) -> Array:
    x = observations.astype(jnp.float32)
    x = jax.nn.relu(convolved(params["hidden_0"], x))
    x = jax.nn.relu(dense(params["hidden_1"], x.reshape(len(x), -1)))
    return dense(params["output"], x)


def empty(capacity: int) -> Rows:
    zeros = jnp.zeros(capacity)
    return Rows(jnp.zeros((capacity, *world.SHAPE), bool), zeros > 0, zeros.astype(jnp.int32), zeros, zeros)


def sample(key: Key, rows: Rows, step: Array) -> Batch:
    """Transitions drawn uniformly after ``step`` stored steps; the newest one has no successor yet."""
    capacity = len(rows.reward)
    oldest = jnp.where(step >= capacity, step % capacity, 0)
    places = (oldest + jax.random.randint(key, (BATCH,), 0, jnp.minimum(step, capacity) - 1)) % capacity
    after = (places + 1) % capacity
    observation, _, action, reward, discount = (x[places] for x in rows)
    return Batch(observation, action, reward, discount, rows.observation[after], ~rows.first[after])


def learner(
    steps: int,
    loss: Loss,
    *,
    capacity: int = 20_000,
    minimum: int = 1_000,
    target_period: int = 2_000,
    filters: int = 16,
    width: int = 128,
    optimizer: optax.GradientTransformation = ADAM,
    draws: Draws = two_keys,
    batches: Draws = lambda key, step: jax.random.fold_in(key, -step),
) -> Plain:
    """``draws`` gives the keys of the action and of the environment, ``batches`` that of the sample after a step."""
    side, _, channels = world.SHAPE
    shapes = [(3, 3, channels, filters), ((side - 2) ** 2 * filters, width), (width, loss.outputs)]

    def init(key: Key) -> State:
        own, start, weights = jax.random.split(key, 3)
        return begin(own, world.reset(start), stack(weights, shapes))

    def begin(key: Key, start: World, params: Params) -> State:
        zero = jnp.int32(0)
        target = jax.tree.map(jnp.copy, params)
        return State(key, zero, zero, params, target, optimizer.init(params), empty(capacity), start, jnp.zeros(()))

    def act(state: State, _: None) -> tuple[State, world.Tally]:
        """One step of the environment, stored."""
        for_action, for_world = draws(state.key, state.step)
        observation = world.picture(state.world)
        q = loss.values(state.params, observation[None])[0]
        action = epsilon_greedy(for_action, q, annealed(state.step, DURATION))
        then, reward = world.step(for_world, state.world, action)
        new = Rows(observation, state.world.first, action, reward, 1.0 - then.over)
        rows = Rows(*(all.at[state.step % capacity].set(one) for all, one in zip(state.rows, new, strict=True)))
        total, counted = world.tally(state.total, reward, then.over)
        return state._replace(step=state.step + 1, rows=rows, world=then, total=total), counted

    def update(state: State) -> tuple[Params, Params, Any, Record]:
        batch = sample(batches(state.key, state.step), state.rows, state.step)

        def mean_loss(params: Params) -> tuple[Array, Array]:
            losses, q = loss.losses(params, state.target, batch)
            return mean_where(batch.valid, losses), mean_where(batch.valid, q.max(-1))

        (cost, q_mean), gradient = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, slots = optimizer.update(gradient, state.slots)
        params = optax.apply_updates(state.params, updates)
        copy = (state.updates + 1) % target_period == 0
        target = jax.lax.cond(copy, lambda: params, lambda: state.target)
        return params, target, slots, {"loss": cost, "q_mean": q_mean}

    def skip(state: State) -> tuple[Params, Params, Any, Record]:
        return state.params, state.target, state.slots, {"loss": jnp.zeros(()), "q_mean": jnp.zeros(())}

    def chunk(state: State) -> tuple[State, Record]:
        def period(state: State, _: None) -> tuple[State, tuple[world.Tally, Record, Array]]:
            """Some steps of the environment, then an update if there is enough to sample."""
            state, seen = jax.lax.scan(act, state, None, PERIOD)
            ready = state.step >= minimum
            params, target, slots, made = jax.lax.cond(ready, update, skip, state)
            state = state._replace(updates=state.updates + ready, params=params, target=target, slots=slots)
            return state, (seen, made, ready)

        state, (seen, made, ready) = jax.lax.scan(period, state, None, steps // PERIOD)
        return state, world.recorded(seen) | per_update(made, ready)

    return Plain(init, chunk)
