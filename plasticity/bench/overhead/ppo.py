"""Proximal policy optimization by hand: separate networks for policy and value; MinAtar Breakout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.bench.overhead import world
from plasticity.bench.overhead.plain import Draws, Plain, Record, dense, mean_where, stack
from plasticity.bench.overhead.world import World
from plasticity.core.types import Array, Key, Params

DISCOUNT, LAMBDA, CLIP, VALUE, ENTROPY = 0.99, 0.95, 0.2, 0.5, 0.01
ADAM = optax.adam(2.5e-4, eps=1e-5)


class Rollout(NamedTuple):
    """Steps ``[T, E, ...]``, or rows of a minibatch."""

    observation: Array
    action: Array
    log_probability: Array
    value: Array
    reward: Array
    over: Array
    valid: Array  # the step did not start an episode


class Samples(NamedTuple):
    rollout: Rollout
    advantage: Array


class State(NamedTuple):
    key: Key
    step: Array
    params: Params
    slots: Any
    world: World  # of all envs
    total: Array  # rewards of the episodes so far


class Drawn(NamedTuple):
    """The keys of a step, or of the updates after it."""

    action: Key
    world: Key  # [E]
    epochs: Key  # [epochs], for the order of the rows


def drawn(envs: int, epochs: int) -> Draws:
    def keys(key: Key, step: Array) -> Drawn:
        action, *others = jax.random.split(jax.random.fold_in(key, step), 3)
        return Drawn(action, jax.random.split(others[0], envs), jax.random.split(others[1], epochs))

    return keys


def network(params: Params, x: Array) -> Array:
    for name in ("hidden_0", "hidden_1"):
        x = jnp.tanh(dense(params[name], x))
    return dense(params["output"], x)


def policy_and_value(params: Params, observations: Array) -> tuple[Array, Array]:
    """Log-probabilities of all actions, and values."""
    x = observations.reshape(len(observations), -1).astype(jnp.float32)
    return jax.nn.log_softmax(network(params["policy"], x)), network(params["value"], x)[:, 0]


def taken(log_p: Array, action: Array) -> Array:
    return jnp.take_along_axis(log_p, action[:, None], 1)[:, 0]


def advantages(rollout: Rollout, last: Array) -> Array:
    """Generalised advantages; 0 in the rows that are not valid."""
    following = jnp.concatenate([rollout.value[1:], last[None]])
    discount = DISCOUNT * (1.0 - rollout.over)
    error = rollout.reward + discount * following - rollout.value
    decay = jnp.where(rollout.valid, LAMBDA * discount, 0.0)

    def back(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        now = row[0] + row[1] * later
        return now, now

    found = jax.lax.scan(back, jnp.zeros_like(last), (error, decay), reverse=True)[1]
    return jnp.where(rollout.valid, found, 0.0)


def loss(params: Params, samples: Samples) -> tuple[Array, Record]:
    rows, advantage = samples
    log_p, value = policy_and_value(params, rows.observation)
    log_ratio = jnp.where(rows.valid, taken(log_p, rows.action) - rows.log_probability, 0.0)
    ratio = jnp.exp(log_ratio)
    target = advantage + rows.value
    centred = advantage - mean_where(rows.valid, advantage)
    scaled = centred / (jnp.sqrt(mean_where(rows.valid, centred**2)) + 1e-8)
    gain = jnp.minimum(ratio * scaled, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * scaled)
    made = {
        "policy_loss": -mean_where(rows.valid, gain),
        "value_loss": 0.5 * mean_where(rows.valid, (value - target) ** 2),
        "entropy": -mean_where(rows.valid, jnp.sum(jnp.exp(log_p) * log_p, -1)),
        "approx_kl": mean_where(rows.valid, ratio - 1 - log_ratio),
        "clip_fraction": mean_where(rows.valid, jnp.abs(ratio - 1) > CLIP),
    }
    total = made["policy_loss"] + VALUE * made["value_loss"] - ENTROPY * made["entropy"]
    return total, made | {"loss": total}


def ppo(
    steps: int,
    *,
    envs: int = 64,
    length: int = 128,
    epochs: int = 4,
    minibatches: int = 8,
    width: int = 64,
    optimizer: optax.GradientTransformation = ADAM,
    draws: Draws | None = None,
) -> Plain:
    """``steps`` is a multiple of ``length``; ``draws`` gives the :class:`Drawn` of a step."""
    rule = optax.chain(optax.clip_by_global_norm(0.5), optimizer)
    draws = draws or drawn(envs, epochs)
    side, _, channels = world.SHAPE
    widths = (side * side * channels, width, width)

    def net(key: Key, outputs: int, gain: float) -> Params:
        def layer(key: Key, *shape: int) -> dict[str, Array]:
            scale = gain if shape[-1] == outputs else 2**0.5
            return {"kernel": jax.nn.initializers.orthogonal(scale)(key, shape), "bias": jnp.zeros(shape[-1])}

        return stack(key, list(zip(widths, (*widths[1:], outputs), strict=True)), layer)

    def init(key: Key) -> State:
        own, start, policy, value = jax.random.split(key, 4)
        params = {"policy": net(policy, world.ACTIONS, 0.01), "value": net(value, 1, 1.0)}
        return begin(own, jax.vmap(world.reset)(jax.random.split(start, envs)), params)

    def begin(key: Key, start: World, params: Params) -> State:
        return State(key, jnp.int32(0), params, rule.init(params), start, jnp.zeros(envs))

    def act(state: State, _: None) -> tuple[State, tuple[Rollout, world.Tally]]:
        keys = draws(state.key, state.step)
        observation = jax.vmap(world.picture)(state.world)
        log_p, value = policy_and_value(state.params, observation)
        action = jax.random.categorical(keys.action, log_p)
        then, reward = jax.vmap(world.step)(keys.world, state.world, action)
        row = Rollout(observation, action, taken(log_p, action), value, reward, then.over, ~then.first)
        total, counted = world.tally(state.total, reward, then.over)
        return state._replace(step=state.step + 1, world=then, total=total), (row, counted)

    def learn(state: State, rollout: Rollout) -> tuple[State, Record]:
        last = policy_and_value(state.params, jax.vmap(world.picture)(state.world))[1]
        samples = Samples(rollout, advantages(rollout, last))
        samples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), samples)

        def update(carry: tuple[Params, Any], rows: Array) -> tuple[tuple[Params, Any], Record]:
            params, slots = carry
            gradient, made = jax.grad(loss, has_aux=True)(params, jax.tree.map(lambda x: x[rows], samples))
            updates, slots = rule.update(gradient, slots)
            return (optax.apply_updates(params, updates), slots), made

        keys = draws(state.key, state.step - 1).epochs
        order = jax.vmap(lambda key: jax.random.permutation(key, envs * length))(keys)
        (params, slots), made = jax.lax.scan(
            update, (state.params, state.slots), order.reshape(epochs * minibatches, -1)
        )
        return state._replace(params=params, slots=slots), made

    def chunk(state: State) -> tuple[State, Record]:
        def iteration(state: State, _: None) -> tuple[State, tuple[world.Tally, Record]]:
            state, (rollout, seen) = jax.lax.scan(act, state, None, length)
            state, made = learn(state, rollout)
            return state, (seen, made)

        state, (seen, made) = jax.lax.scan(iteration, state, None, steps // length)
        return state, world.recorded(seen) | jax.tree.map(jnp.mean, made)

    return Plain(init, chunk)
