"""A softmax classifier by hand: minibatches drawn from a fixed set, Adam."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.bench.overhead.plain import ADAM, Draws, Plain, Record, dense, stack
from plasticity.core.types import Array, Key, Params


class State(NamedTuple):
    key: Key
    step: Array
    inputs: Array
    labels: Array
    params: Params
    slots: Any


def outputs(params: Params, x: Array) -> Array:
    for name in sorted(params)[:-1]:  # hidden_0, hidden_1, ..., output
        x = jax.nn.relu(dense(params[name], x))
    return dense(params["output"], x)


def classifier(
    steps: int,
    *,
    samples: int = 512,
    batch: int = 64,
    sizes: tuple[int, ...] = (64, 256, 256, 10),
    optimizer: optax.GradientTransformation = ADAM,
    rows: Draws | None = None,
) -> Plain:
    """``rows`` draws the minibatch of a step."""
    rows = rows or (lambda key, step: jax.random.randint(jax.random.fold_in(key, step), (batch,), 0, samples))

    def init(key: Key) -> State:
        own, x, y, weights = jax.random.split(key, 4)
        inputs = jax.random.normal(x, (samples, sizes[0]))
        labels = jax.random.randint(y, (samples,), 0, sizes[-1])
        params = stack(weights, list(itertools.pairwise(sizes)))
        return State(own, jnp.int32(0), inputs, labels, params, optimizer.init(params))

    def loss(params: Params, x: Array, y: Array) -> tuple[Array, Array]:
        logits = outputs(params, x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return losses.mean(), jnp.mean(logits.argmax(-1) == y)

    def chunk(state: State) -> tuple[State, Record]:
        def step(carry: tuple[Params, Any], i: Array) -> Any:
            params, slots = carry
            drawn = rows(state.key, i)
            x, y = state.inputs[drawn], state.labels[drawn]
            (cost, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(params, x, y)
            updates, slots = optimizer.update(gradient, slots)
            return (optax.apply_updates(params, updates), slots), (cost, accuracy)

        carry, made = jax.lax.scan(step, (state.params, state.slots), state.step + jnp.arange(steps))
        state = state._replace(params=carry[0], slots=carry[1], step=state.step + steps)
        return state, dict(zip(("loss", "reward"), (x.mean() for x in made), strict=True))

    return Plain(init, chunk)
