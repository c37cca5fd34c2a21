"""Stream Q(lambda) by hand: an eligibility trace, a bounded step, running normalisation; MinAtar Breakout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity.bench.overhead import world
from plasticity.bench.overhead.plain import (
    Draws,
    Plain,
    Record,
    annealed,
    convolved,
    dense,
    epsilon_greedy,
    per_update,
    stack,
    two_keys,
)
from plasticity.bench.overhead.world import World
from plasticity.core.types import Array, Key, Params
from plasticity.networks.layers import sparse

DISCOUNT, DECAY, RATE, KAPPA = 0.99, 0.8, 1.0, 2.0


class Moments(NamedTuple):
    """Welford's algorithm."""

    number: Array
    mean: Array
    squares: Array  # sum of squared distances from the mean


class State(NamedTuple):
    key: Key
    step: Array
    params: Params
    trace: Params
    kept: Array  # the factor of the trace at the next update
    world: World
    seen: Array  # the normalised observation
    observations: Moments
    sums: Moments  # of the discounted sum of rewards
    discounted: Array
    total: Array  # reward of the episode so far


def moments(shape: tuple[int, ...] = ()) -> Moments:
    return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))


def include(so_far: Moments, x: Array) -> Moments:
    number = so_far.number + 1
    mean = so_far.mean + (x - so_far.mean) / number
    return Moments(number, mean, so_far.squares + (x - so_far.mean) * (x - mean))


def deviation(so_far: Moments) -> Array:
    variance = so_far.squares / jnp.maximum(so_far.number - 1, 1)
    return jnp.sqrt(jnp.where(so_far.number < 2, 1.0, variance) + 1e-8)


def normalised(so_far: Moments, x: Array) -> Array:
    return (x - so_far.mean) / deviation(so_far)


def hidden(z: Array) -> Array:
    """Normalised over the whole layer, then leaky."""
    z = z - z.mean()
    z = z * jax.lax.rsqrt(jnp.square(z).mean() + 1e-5)
    return jnp.where(z > 0, z, 0.01 * z)


def values(params: Params, x: Array) -> Array:
    """The action values of one observation."""
    x = hidden(convolved(params["hidden_0"], x[None]))
    x = hidden(dense(params["hidden_1"], x.reshape(1, -1)))
    return dense(params["output"], x)[0]


def initial(key: Key, *shape: int) -> dict[str, Array]:
    return {"kernel": sparse(key, shape), "bias": jnp.zeros(shape[-1])}


def stream_q(
    steps: int, *, filters: int = 16, width: int = 128, duration: int = 25_000, draws: Draws = two_keys
) -> Plain:
    """``draws`` gives the keys of the action and of the environment."""
    side, _, channels = world.SHAPE
    shapes = [(3, 3, channels, filters), ((side - 2) ** 2 * filters, width), (width, world.ACTIONS)]

    def init(key: Key) -> State:
        own, start, weights = jax.random.split(key, 3)
        return begin(own, world.reset(start), stack(weights, shapes, initial))

    def chunk(state: State) -> tuple[State, Record]:
        def step(state: State, _: None) -> tuple[State, tuple[world.Tally, Record, Array]]:
            state, seen, made, valid = advance(state)
            return state, (seen, made, valid)

        state, (seen, made, valid) = jax.lax.scan(step, state, None, steps)
        return state, world.recorded(seen) | per_update(made, valid)

    def advance(state: State) -> tuple[State, world.Tally, Record, Array]:
        for_action, for_world = draws(state.key, state.step)
        q = values(state.params, state.seen)
        action = epsilon_greedy(for_action, q, annealed(state.step, duration))
        then, reward = world.step(for_world, state.world, action)
        valid, kept = ~then.first, 1.0 - then.over
        observation = world.picture(then).astype(jnp.float32)
        observations = include(state.observations, observation)
        seen = normalised(observations, observation)
        discounted = jnp.where(valid, DISCOUNT * kept * state.discounted + reward, state.discounted)
        sums = jax.tree.map(lambda a, b: jnp.where(valid, a, b), include(state.sums, discounted), state.sums)
        scaled = reward / deviation(sums)

        def learn() -> tuple[Params, Params, Array, Record]:
            following = values(state.params, seen).max()
            old, gradient = jax.value_and_grad(lambda p: values(p, state.seen)[action])(state.params)
            error = scaled + DISCOUNT * kept * following - old
            trace = jax.tree.map(lambda z, g: state.kept * z + g, state.trace, gradient)
            norm = sum(jnp.abs(z).sum() for z in jax.tree.leaves(trace))
            rate = RATE / jnp.maximum(RATE * KAPPA * jnp.maximum(jnp.abs(error), 1.0) * norm, 1.0)
            params = jax.tree.map(lambda p, z: p + rate * error * z, state.params, trace)
            ends = then.over | (action != jnp.argmax(q))
            made = {"loss": error**2 / 2, "td_error": jnp.abs(error), "step_size": rate}
            return params, trace, jnp.where(ends, 0.0, DISCOUNT * DECAY), made

        def skip() -> tuple[Params, Params, Array, Record]:
            made = dict.fromkeys(("loss", "td_error", "step_size"), jnp.zeros(()))
            return state.params, state.trace, state.kept, made

        params, trace, factor, made = jax.lax.cond(valid, learn, skip)
        total, counted = world.tally(state.total, reward, then.over)
        state = State(
            state.key, state.step + 1, params, trace, factor, then, seen, observations, sums, discounted, total
        )
        return state, counted, made, valid

    return Plain(init, chunk)


def begin(key: Key, start: World, params: Params) -> State:
    """The state before the first step."""
    observation = world.picture(start).astype(jnp.float32)
    observations = include(moments(world.SHAPE), observation)
    zero, trace = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    seen = normalised(observations, observation)
    return State(key, jnp.int32(0), params, trace, zero, start, seen, observations, moments(), zero, zero)
